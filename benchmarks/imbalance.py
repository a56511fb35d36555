"""Does `augment.balance` help rare classes? Training on an imbalanced cut of ESC-50, scored on a whole fold.

    python -m benchmarks.imbalance ESC-50 MODEL.pt    # about fifteen minutes on two cores; --image-size 96: four

Of 20 classes, every other one keeps all of its 32 training clips and the rest keep 4; fold 1 is left whole (8 clips a
class) and is what the three ways of balancing are scored on, with the default recipe otherwise. Which classes are
rare, and which of their clips stay, depends on the seed. Writes benchmarks/results/imbalance.json.
"""

from __future__ import annotations

import argparse
import csv
import random
import statistics
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks import machine

CLASSES, KEPT, TEST_FOLD = 20, 4, 1


def main() -> None:
    """Train and score each way of balancing, for each seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="ESC-50 as its publisher lays it out")
    parser.add_argument("model", type=Path, help="checkpoint to start from")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--image-size", type=int, default=224)
    arguments = parser.parse_args()
    result: dict[str, Any] = {
        "machine": machine.describe(),
        "model": arguments.model.name,
        "epochs": arguments.epochs,
        "image_size": arguments.image_size,
        "kept_clips_of_rare_classes": KEPT,
        "runs": [],
    }
    for seed in range(arguments.seeds):
        for balance in ("none", "sampler", "weights"):
            result["runs"].append(one_run(arguments, seed, balance))
            print(result["runs"][-1], flush=True)
    for balance in ("none", "sampler", "weights"):
        of_it = [run for run in result["runs"] if run["balance"] == balance]
        result[balance] = {
            key: round(statistics.mean(run[key] for run in of_it), 4)
            for key in ("rare_recall", "common_recall", "top1")
        }
        print(balance, result[balance])
    machine.write("imbalance", result)


def one_run(arguments: argparse.Namespace, seed: int, balance: str) -> dict[str, Any]:
    """Cross-validate one fold of the cut."""
    from soundsight.config import DatasetConfig, SpectrogramConfig
    from soundsight.evaluation.crossval import crossval

    with tempfile.TemporaryDirectory() as folder:
        table, rare = write_cut(arguments.root, Path(folder) / "cut.csv", seed)
        done = crossval(
            DatasetConfig(
                kind="table",
                root=str(arguments.root.absolute() / "audio"),
                table=str(table),
                file_column="filename",
                label_column="category",
                fold_column="fold",
                group_column="src_file",
                cache=str(Path(folder) / "cache"),
            ),
            SpectrogramConfig(image_size=arguments.image_size),
            folds=[TEST_FOLD],
            runs=Path(folder) / "runs",
            seeds=[seed],
            model=str(arguments.model.absolute()),
            epochs=arguments.epochs,
            **{"augment.balance": balance},
        )
        names, hits = done.pooled.names, done.pooled.confusion.diagonal() / done.pooled.confusion.sum(axis=1)
        recall = dict(zip(names, map(float, hits), strict=True))
    return {
        "seed": seed,
        "balance": balance,
        "rare_recall": round(statistics.mean(recall[name] for name in rare), 4),
        "common_recall": round(statistics.mean(recall[name] for name in recall if name not in rare), 4),
        "top1": round(done.pooled.top1, 4),
    }


def write_cut(root: Path, path: Path, seed: int) -> tuple[Path, set[str]]:
    """A table of the clips that stay, and the names of the rare classes."""
    with open(root / "meta" / "esc50.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    draw = random.Random(seed)
    chosen = draw.sample(sorted({row["category"] for row in rows}), CLASSES)
    rare = set(chosen[::2])
    found = {(row["src_file"], row["fold"]) for row in rows}
    crossing = {source for source, count in Counter(source for source, _ in found).items() if count > 1}  # four do
    kept = []
    for name in chosen:
        clips = [row for row in rows if row["category"] == name]
        tested = [row for row in clips if int(row["fold"]) == TEST_FOLD]
        others = [row for row in clips if int(row["fold"]) != TEST_FOLD and row["src_file"] not in crossing]
        kept += tested
        kept += draw.sample(others, KEPT) if name in rare else others
    with open(path, "w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, ["filename", "category", "fold", "src_file"], extrasaction="ignore")
        table.writeheader()
        table.writerows(kept)
    return path, rare


if __name__ == "__main__":
    main()
