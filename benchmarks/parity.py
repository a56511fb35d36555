"""Do all ways of asking give the same predictions? Every clip of one split, by all ways, compared with `val`.

    python -m benchmarks.parity [--model last.pt] [--data data] [--split test] [--root FOLDER]

The model must have been trained on images like those in --data, which `soundsight prepare` laid out; --root is
where the recordings are, if they have moved since. Each way is the public one: the commands `val`, `export` and
`predict`, and `soundsight.load` on arrays. What must hold: the same first class for every clip, probabilities
within 1e-5 where PyTorch computes and within 1e-3 where another runtime does. Writes
benchmarks/results/parity.json; the exit code is 1 if something does not hold.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from benchmarks import machine

PYTORCH, EXPORTED = 1e-5, 1e-3  # largest differences of a probability that are allowed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("runs/classify/train/weights/last.pt"))
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--split", default="test")
    parser.add_argument("--root", type=Path, help="folder of the recordings (default: what --data was made from)")
    parser.add_argument("--out", type=Path, help="write here instead of benchmarks/results/parity.json")
    arguments = parser.parse_args()
    result = measure(arguments.model, arguments.data, arguments.split, arguments.root)
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")
    else:
        machine.write("parity", result)
    return 0 if result["all_hold"] else 1


def measure(model: Path, data: Path, split: str, root: Path | None = None) -> dict[str, Any]:
    """Predictions by all ways, beside those of `val`."""
    import soundsight
    from soundsight.datasets.manifest import read_settings
    from soundsight.evaluation.scoring import list_images

    facts = machine.describe()
    root = root or Path(read_settings(data)["dataset"]["root"])
    ways: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="soundsight-parity-") as folder:
        place = Path(folder)
        scores = soundsight.val(model, data=data, split=split, out=place / "val", device="cpu").scores
        names, expected = scores.names, scores.probabilities
        rows = list_images(data, split, names).rows
        files = [root / row.file for row in rows if row is not None]
        if len(files) != len(expected):
            sys.exit(f"{data} has images that no recording belongs to; prepare it again.")
        show("val on images")

        def compare(way: str, found: np.ndarray, allowed: float) -> None:
            ways[way] = difference(found, expected, allowed)
            show(f"{way}: {ways[way]['same_top_1']} of {len(found)}, {ways[way]['largest_difference']:.1e}")

        for runtime, allowed in (("pytorch", PYTORCH), ("auto", EXPORTED)):
            found = predicted(model, files, names, place, "--runtime", runtime)
            compare(f"predict on recordings, runtime {runtime}", found, allowed)
        predictor = soundsight.load(model, device="cpu", runtime="pytorch")
        arrays = [soundfile.read(file, dtype="int16") for file in files]
        compare("API on arrays", np.stack([predictor(*a).summary.probabilities for a in arrays]), PYTORCH)
        for form in ("onnx", "openvino"):
            made = exported(model, form, place)
            if made is None:
                ways[form] = {"skipped": "a package is missing"}
            else:
                compare(f"predict on recordings, exported to {form}", predicted(made, files, names, place), EXPORTED)
    return {
        **facts,
        "model": predictor.model_hash,
        "clips": len(files),
        "split": split,
        "top_1": round(scores.top1, 4),
        "ways": ways,
        "all_hold": all(way.get("holds", True) for way in ways.values()),
    }


def predicted(model: Path, files: list[Path], names: Any, place: Path, *words: str) -> np.ndarray:
    """Probabilities `(clips, classes)` as the command writes them, six decimals each."""
    from soundsight.cli import main as command

    out = place / "answers.jsonl"
    sources = [str(file) for file in files]
    how = ["--threshold", "0", "--top-k", str(len(names)), "--out", str(out), "--device", "cpu", *words]
    if command(["predict", str(model), *sources, *how]) != 0:
        sys.exit("predict failed; see above.")
    column = {name: i for i, name in enumerate(names)}
    row_of = {source: i for i, source in enumerate(sources)}
    found = np.full((len(files), len(names)), np.nan)
    for line in out.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["label"] == "silence":
            found[row_of[row["recording"]]] = 0
        else:
            found[row_of[row["recording"]], column[row["label"]]] = row["probability"]
    return found


def exported(model: Path, form: str, place: Path) -> Path | None:
    """The model in another format, by the command; `None` where a package is missing."""
    from soundsight.cli import main as command

    made = place / ("openvino" if form == "openvino" else f"model.{form}")
    return made if command(["export", str(model), "--format", form, "--out", str(made)]) == 0 else None


def difference(found: np.ndarray, expected: np.ndarray, allowed: float) -> dict[str, Any]:
    """How far predictions lie from those of `val`; a first place that both share within rounding is the same."""
    heard = found.any(axis=1)  # digital silence is predicted without the network
    gap = np.abs(found - expected)[heard]
    same = found.argmax(axis=1) == expected.argmax(axis=1)
    return {
        "same_top_1": int(same[heard].sum()),
        "compared": int(heard.sum()),
        "digital_silence": int((~heard).sum()),
        "largest_difference": float(f"{gap.max():.2g}"),
        "allowed": allowed,
        "holds": bool(same[heard].all() and not np.isnan(gap).any() and gap.max() <= allowed),
    }


def show(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
