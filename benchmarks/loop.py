"""What review is worth: the score on unheard recordings over the number of reviewed detections, chosen in two ways.

    python -m benchmarks.loop ESC-50 yolov8n-cls.pt --work FOLDER    # continues where it was

A first model knows four animals from 8 clips of each (fold 1 of ESC-50) and pink noise. It predicts 20 recordings of a
minute (folds 2 and 3) that hold twelve other kinds of sound, too. Detections from a probability of 0.1 on are reviewed
by the truth, as many of each class, chosen by `review --sample random` or `uncertain`. The next model is trained on the
first clips and what was reviewed. Both predict 15 other recordings (folds 4 and 5); the score is the mean of
the classes' average precision over segments of 2 s. Writes benchmarks/results/loop.csv and docs/images/loop.png.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile

from benchmarks import machine, scenes
from soundsight.cli import main as soundsight
from soundsight.review import detections
from soundsight.review.progress import sitting

ANIMALS = ("cat", "crow", "dog", "rooster")
OTHERS = (
    "car_horn", "church_bells", "clock_alarm", "cow", "crying_baby", "frog", "hen", "laughing", "pig", "sheep", "siren",
    "sneezing",
)  # fmt: skip
BUDGETS = (20, 40, 80, 160)  # detections
SAMPLES = ("random", "uncertain")
SEGMENT, LEAST_OVERLAP = 2.0, 0.25  # seconds
SNR = 10  # dB
Label = tuple[str, float, float, str]  # file, start, end, class
HEADER = ("file", "start", "end", "label")


def main() -> None:
    """Make recordings, train what is not trained yet, and score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="ESC-50 at 16 kHz as its publisher lays it out")
    parser.add_argument("model", type=Path, help="checkpoint to start from")
    parser.add_argument("--work", type=Path, required=True, help="folder of data and runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    arguments = parser.parse_args()
    root, model = arguments.root.resolve(), arguments.model.resolve()
    rows = []
    for seed in range(arguments.seeds):
        place = arguments.work.resolve() / str(seed)
        place.mkdir(parents=True, exist_ok=True)
        os.chdir(place)
        recipe = [f"model={model}", f"epochs={arguments.epochs}", f"seed={seed}"]
        truth = make_recordings(root, seed)
        first = trained("before", recipe, [])
        for sample in SAMPLES:
            rows.append((seed, sample, 0, score(first)))
        for budget in BUDGETS:
            for sample in SAMPLES:
                rows.append((seed, sample, budget, score(after_review(first, sample, budget, seed, recipe, truth))))
                print(*rows[-1], flush=True)
    with (machine.RESULTS / "loop.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("seed", "sample", "reviewed", "macro_map"), *rows])
    plot(rows)


def make_recordings(root: Path, seed: int) -> list[Label]:
    """Clips for the first model, the field and the unheard recordings with tables; what is in the field."""
    random = np.random.default_rng(seed)
    rows: list[Label] = []
    for name in ANIMALS:
        for path in scenes.clips_of(root, [1])[name]:
            start, end = scenes.extent(scenes.read(path))
            end = max(end, start + round(LEAST_OVERLAP * scenes.RATE))
            copy(path, Path("first", path.name))
            rows.append((f"first/{path.name}", start / scenes.RATE, end / scenes.RATE, name))
    for number in range(4):
        noise = 0.05 * scenes.pink_noise(20 * scenes.RATE, random)
        soundfile.write(f"first/noise{number}.wav", noise, scenes.RATE)
        rows.append((f"first/noise{number}.wav", 0, 20, "background"))
    Path("labels").mkdir(exist_ok=True)
    write_table(Path("labels", "first.csv"), rows)
    field = make_scenes(root, "field", [2, 3], 20, 1000 * seed)
    write_table(Path("unheard.csv"), make_scenes(root, "unheard", [4, 5], 15, 1000 * seed + 500))
    return field


def make_scenes(root: Path, folder: str, folds: Iterable[int], count: int, seed: int) -> list[Label]:
    """Recordings of a minute, and where the animals are in them."""
    Path(folder).mkdir(exist_ok=True)
    clips = {name: paths for name, paths in scenes.clips_of(root, folds).items() if name in (*ANIMALS, *OTHERS)}
    found: list[Label] = []
    for number in range(count):
        path = Path(folder, f"{folder}{number:02}.flac")
        samples, events = scenes.scene(clips, 60, SNR, "pink", seed + number)
        soundfile.write(path, samples, scenes.RATE, subtype="PCM_16")
        found += [
            (path.as_posix(), event.start_seconds, event.end_seconds, event.label)
            for event in events
            if event.label in ANIMALS
        ]
    return found


def copy(source: Path, target: Path) -> None:
    """A link to a clip, so that the recordings of a data set have one folder."""
    target.parent.mkdir(exist_ok=True)
    if not target.exists():
        target.symlink_to(source)


def write_table(path: Path, rows: Iterable[Label]) -> None:
    """Write a label table."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([HEADER, *rows])


def trained(name: str, recipe: list[str], reviewed: list[str]) -> Path:
    """The weights of a model of the first clips and the tables `reviewed`, trained if they are not there."""
    weights = Path("runs", name, "weights", "last.pt")
    if weights.exists():
        return weights
    tables = Path(f"labels-{name}")
    tables.mkdir(exist_ok=True)
    for table in ("labels/first.csv", *reviewed):
        (tables / Path(table).name).write_bytes(Path(table).read_bytes())
    words = ["labels=multi", f"clip_seconds={SEGMENT:g}", "hop_seconds=1", "image_size=64"]
    split = ["split.strategy=group", "split.fractions=[0.8,0.2,0]"]
    run("prepare", ".", f"table={tables.absolute()}/*.csv", f"data=data-{name}", "cache=cache", *words, *split)
    quick = ["imgsz=64", "batch=16", "nbs=16", "optimizer=AdamW", "lr0=0.001", "warmup_epochs=0", "amp=False"]
    quick += ["device=cpu", "workers=0", "plots=False", "val=False"]
    run("train", f"data=data-{name}", "project=runs", f"name={name}", *quick, *recipe)
    return weights


def after_review(first: Path, sample: str, budget: int, seed: int, recipe: list[str], truth: list[Label]) -> Path:
    """Train on the first clips and `budget` reviewed detections."""
    name = f"{sample}-{budget}"
    table = Path("field.csv")
    if not table.exists():
        run("predict", first, "field", "--threshold", 0.1, "--threads", 1, "--format", "csv", "--out", table)
    found = detections.load(table)
    queue = detections.sample(found.rows, how=sample, number=budget // len(ANIMALS), seed=seed)
    review_file, reviewed = Path(f"{name}.json"), Path(f"reviewed-{name}.csv")
    with sitting(review_file, found, queue) as review:
        for number in review.left:
            row = queue[number]
            inside = sorted({label for file, start, end, label in truth if file == row.recording
                             and min(end, row.end) - max(start, row.start) >= LEAST_OVERLAP})  # fmt: skip
            if inside == [row.label]:
                review.decide(number, "yes")
            else:
                verdict = "no" if not inside else "other" if len(inside) == 1 else "several"
                review.decide(number, verdict, inside)
    print(f"{name}: {len(queue)} reviewed")
    run("review", table, "--reviews", review_file, "--annotations", reviewed, "--overwrite")
    return trained(name, recipe, [str(reviewed)])


def score(weights: Path) -> float:
    """Mean of the animals' average precision in the unheard recordings."""
    out = Path(f"unheard-{weights.parts[1]}.csv")
    if not out.exists():
        run("predict", weights, "unheard", "--threads", 1, "--format", "scores", "--out", out)
    run("score", out, "unheard.csv", "--out", out.with_suffix(".json"), "--overwrite")
    found = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))["per_class"]
    return round(float(np.mean([row["average_precision"] for row in found if row["class"] in ANIMALS])), 4)


def run(*words: object) -> None:
    """Run a command as a user does."""
    if soundsight([str(word) for word in words]):
        raise SystemExit(f"soundsight {' '.join(map(str, words))} failed.")


def plot(rows: list[tuple[int, str, int, float]]) -> None:
    """The mean over the seeds by the number of reviewed detections, and its range."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    canvas, axis = pyplot.subplots(figsize=(6, 3.6))
    for sample in SAMPLES:
        places = (0, *BUDGETS)
        found = [[row[3] for row in rows if row[1:3] == (sample, budget)] for budget in places]
        axis.plot(places, np.mean(found, axis=1), marker="o", label=f"--sample {sample}")
        axis.fill_between(places, np.min(found, axis=1), np.max(found, axis=1), alpha=0.15)
    axis.set(xlabel="reviewed detections", ylabel="macro mAP, unheard recordings", xticks=(0, *BUDGETS), ylim=(0, 1))
    axis.legend(frameon=False)
    canvas.tight_layout()
    canvas.savefig(machine.ROOT / "docs" / "images" / "loop.png", dpi=110)


if __name__ == "__main__":
    main()
