"""Several sounds at once, few false alarms: single-label and multi-label models on the same ten-minute scenes.

    python -m benchmarks.soundscapes ESC-50 yolov8n-cls.pt --work FOLDER    # continues where it was; hours on two cores

Scenes (`benchmarks/scenes.py`) are made of fold 5 of ESC-50. Models are trained on folds 1 to 3, thresholds fitted on
fold 4, on which the shortest event of "multi" was chosen, too:

- single: the 47 classes that are events here, one label per clip of 5 s, as in 0.1;
- single+background: also a class "background" of wind, rain, sea waves and pink noise; noise in training images;
- multi: several labels per segment of 2 s, of the same clips and of annotated scenes made of folds 1 to 3, labelled by
  overlap; what is no class is background; noise in training images; events by hysteresis;
- multi, precision: the same model with the thresholds of `val --precision`.

Average precision of all models is over the same segments of a second, each with the prediction that is nearest to its
middle; events have a collar of 1 s. Writes benchmarks/results/soundscapes.json and .csv, and with matplotlib
docs/images/soundscapes.png.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from benchmarks import machine, scenes
from soundsight.detection import DetectionScores

TEST, VAL, TRAIN = 5, 4, (1, 2, 3)
SNRS = (0, 10, 20)  # dB
BACKGROUNDS = ("pink", "natural")
TABLE = ("file", "start", "end", "label", "fold")
HYSTERESIS = ("--off-threshold", 0.3, "--min-gap", 1, "--min-event")


@dataclass(frozen=True)
class Model:
    """What a model is trained on, and how it predicts."""

    labels: str = "multi"
    background: bool = True
    scenes: bool = False
    events: tuple[Any, ...] = ("--merge",)  # options of `predict`
    hop: float = 1.0  # seconds
    precision: float | None = None  # of the thresholds; `None`: as training leaves them
    weights: str = ""  # of another model


MODELS = {
    "single": Model("single", background=False),
    "single+background": Model("single"),
    "multi": Model(scenes=True, events=(*HYSTERESIS, 1.5), hop=0.5),
    "multi, precision": Model(scenes=True, events=(*HYSTERESIS, 2), hop=0.5, precision=0.95, weights="multi"),
}  # fmt: skip


def main() -> None:
    """Make scenes, train what is not trained yet, predict and score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="ESC-50 at 16 kHz as its publisher lays it out")
    parser.add_argument("model", type=Path, help="checkpoint to start from")
    parser.add_argument("--work", type=Path, required=True, help="folder of data, runs and scenes")
    parser.add_argument("--image-size", type=int, default=160)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--scene-epochs", type=int, default=10, help="of the model with scenes: ten times the images")
    parser.add_argument("--minutes", type=float, default=10.0, help="of each scene")
    parser.add_argument("--empty-minutes", type=float, default=60.0)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument(
        "--fold", type=int, choices=(VAL, TEST), default=TEST, help="of the scenes; 4: to choose options"
    )
    arguments = parser.parse_args()
    arguments.root, arguments.model = arguments.root.resolve(), arguments.model.resolve()
    arguments.work.mkdir(parents=True, exist_ok=True)
    os.chdir(arguments.work)
    wanted = make_scenes(arguments)
    rows = []
    for model in arguments.models:
        weights = trained(model, arguments)
        for name, snr, background in wanted:
            scene = Path(f"scenes-{arguments.fold}", f"{name}.flac")
            rows.append({"model": model, "snr_db": snr, "background": background, **scored(model, weights, scene)})
            print(rows[-1], flush=True)
    if arguments.fold != TEST or len(arguments.models) < len(MODELS):
        return
    settings = {name: getattr(arguments, name) for name in ("image_size", "epochs", "scene_epochs")}
    start = {"start": arguments.model.name, "models": {name: vars(model) for name, model in MODELS.items()}}
    machine.write("soundscapes", {"machine": machine.describe(), **settings, **start, "rows": rows})
    with (machine.RESULTS / "soundscapes.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    plot(rows)


def make_scenes(arguments: argparse.Namespace) -> list[tuple[str, int | None, str]]:
    """The scenes to score: name, SNR in dB (None: no events), and background."""
    clips = scenes.clips_of(arguments.root, [arguments.fold])
    wanted: list[tuple[str, int | None, str]] = [
        (f"{background}-{snr}dB", snr, background) for background in BACKGROUNDS for snr in SNRS
    ]
    wanted += [(f"{background}-empty", None, background) for background in BACKGROUNDS]
    for seed, (name, snr, background) in enumerate(wanted):
        path = Path(f"scenes-{arguments.fold}", f"{name}.flac")
        if not path.with_suffix(".txt").exists():
            minutes = arguments.minutes if snr is not None else arguments.empty_minutes / len(BACKGROUNDS)
            scenes.write(path, *scenes.scene(clips, 60 * minutes, snr, background, seed))
    return wanted


def trained(name: str, arguments: argparse.Namespace) -> Path:
    """The weights of a model, trained if they are not there."""
    model = MODELS[name]
    weights = Path("runs", name.replace(", ", "-"), "weights", "last.pt")
    if weights.exists():
        return weights
    data = f"data-{model.weights or name}"
    if model.weights:
        weights.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(trained(model.weights, arguments), weights)
        soundsight("val", weights, "--data", data, "--split", "val", "--precision", model.precision)
        return weights
    root = sounds(name, arguments)
    common = [f"root={root}", f"cache=cache-{name}", f"data={data}", f"image_size={arguments.image_size}"]
    split = ["split.strategy=fold", f"split.train=[{','.join(map(str, TRAIN))}]", f"split.val=[{VAL}]", "split.test=[]"]
    if model.scenes:  # a segment has a class that fills half of it, or of which it holds half
        common += ["clip_seconds=2", "hop_seconds=1", "min_overlap_seconds=1", "annotated=complete"]
    soundsight(
        "prepare", "kind=table", "table=labels.csv", "fold_column=fold", f"labels={model.labels}", *common, *split
    )
    noise = [f"augment.noise={root / 'noise'}", "augment.noise_share=0.5"] if model.background else []
    epochs = arguments.scene_epochs if model.scenes else arguments.epochs
    recipe = [f"epochs={epochs}", f"imgsz={arguments.image_size}", f"model={arguments.model}", "device=cpu"]
    soundsight("train", f"data={data}", "project=runs", f"name={name}", "plots=False", *recipe, *noise)
    return weights


def sounds(name: str, arguments: argparse.Namespace) -> Path:
    """A folder with what a model is trained on: recordings, `labels.csv`, and noise of the training folds."""
    model, root = MODELS[name], Path("sounds", name).absolute()
    (root / "noise").mkdir(parents=True, exist_ok=True)
    if not (root / "audio").exists():
        (root / "audio").symlink_to(arguments.root / "audio")
    rows: list[tuple[Any, ...]] = []
    for fold in (*TRAIN, VAL):
        clips = scenes.clips_of(arguments.root, [fold])
        for label, paths in sorted(clips.items()):
            if label not in scenes.BACKGROUND:
                rows += [(f"audio/{path.name}", *times(path, model), label, fold) for path in paths]
            elif model.background:
                rows += [(f"audio/{path.name}", 0, 5, "background", fold) for path in paths]
        if not model.background:
            continue
        for kind in BACKGROUNDS:
            noise = scenes.scene(clips, 120, None, kind, seed=fold)[0]
            for file in [f"{kind}-{fold}.wav"] + [f"noise/{kind}-{fold}.wav"] * (fold != VAL):
                soundfile.write(root / file, noise, scenes.RATE, subtype="PCM_16")
            rows.append((f"{kind}-{fold}.wav", 0, 120, "background", fold))
        for number, (snr, background) in enumerate((s, b) for s in SNRS for b in BACKGROUNDS if model.scenes):
            file = f"scene-{fold}-{number}.flac"
            made = scenes.scene(clips, 300, snr, background, seed=100 * fold + number)
            soundfile.write(root / file, made[0], scenes.RATE, subtype="PCM_16")
            rows += [(file, event.start_seconds, event.end_seconds, event.label, fold) for event in made[1]]
    with (root / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([TABLE, *rows])
    return root


def times(path: Path, model: Model) -> tuple[float, float]:
    """When a clip sounds, in seconds; of a model of whole clips all of it."""
    start, end = scenes.extent(scenes.read(path)) if model.scenes else (0, 5 * scenes.RATE)
    return start / scenes.RATE, max(end, start + scenes.RATE // 50) / scenes.RATE


def scored(name: str, weights: Path, scene: Path) -> dict[str, Any]:
    """Predict a scene, and score it: what is reported at the model's own thresholds, and the ranking of its seconds."""
    model, place = MODELS[name], Path("predictions", name, scene.parent)
    place.mkdir(parents=True, exist_ok=True)
    out, scores = place / f"{scene.stem}.csv", place / f"{scene.stem}.json"
    common = ["--hop", model.hop, "--threads", 1, "--overwrite"]
    if not newer(out, weights):
        soundsight("predict", weights, scene, "--format", "csv", "--out", out, *common, *model.events)
    if not newer(scores, out):
        soundsight("score", out, scene.with_suffix(".txt"), "--collar", 1, "--out", scores, "--overwrite")
    reported = json.loads(scores.read_text(encoding="utf-8"))
    figures = {
        "segment_macro_f1": reported["macro_average"]["segment_f1"],
        "segment_micro_f1": reported["micro_average"]["segment_f1"],
        "event_micro_f1": reported["micro_average"]["event_f1"],
        "false_alarms_per_hour": reported["micro_average"]["false_alarms_per_hour"],
    }
    if scene.stem.endswith("empty") or model.weights:
        return {**figures, "macro_map": None, "micro_map": None}
    table = place / f"{scene.stem}.scores.csv"
    if not newer(table, weights):
        soundsight("predict", weights, scene, "--format", "scores", "--out", table, *common)
    return {**figures, **ranking(table, scene.with_suffix(".txt"))}


def newer(made: Path, source: Path) -> bool:
    """Whether a file is there, and was made after what it is made of."""
    return made.exists() and made.stat().st_mtime > source.stat().st_mtime


def ranking(table: Path, annotations: Path) -> dict[str, Any]:
    """Average precision over the whole seconds of a scene; a second has the classes that sound in it."""
    with table.open(encoding="utf-8", newline="") as file:
        predicted = list(csv.DictReader(file))
    with annotations.open(encoding="utf-8", newline="") as file:
        events = [
            (float(row["Begin Time (s)"]), float(row["End Time (s)"]), row["Label"])
            for row in csv.DictReader(file, delimiter="\t")
        ]
    names = sorted({label for *_, label in events} & set(predicted[0]))
    middles = np.array([(float(row["start_time"]) + float(row["end_time"])) / 2 for row in predicted])
    seconds = np.arange(int(float(predicted[-1]["end_time"])))
    nearest = np.abs(seconds[:, None] + 0.5 - middles).argmin(axis=1)
    values = np.array([[float(predicted[index][name]) for name in names] for index in nearest], np.float32)
    truth = np.zeros(values.shape, bool)
    for start, end, label in events:
        truth[int(start) : int(np.ceil(end)), names.index(label)] = True
    scores = DetectionScores(tuple(names), truth, values)
    return {"macro_map": round(scores.macro_map, 4), "micro_map": round(scores.micro_map, 4)}


def plot(rows: list[dict[str, Any]]) -> None:
    """Figures over SNR, one line per model."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    titles = {
        "segment_macro_f1": "macro F1, segments of 1 s",
        "event_micro_f1": "micro F1, events",
        "macro_map": "macro mAP",
    }
    canvas, axes = pyplot.subplots(1, len(titles), figsize=(11, 3.6), sharey=True)
    for axis, figure in zip(axes, titles, strict=True):
        for model in dict.fromkeys(row["model"] for row in rows):
            found = [[row[figure] for row in rows if (row["model"], row["snr_db"]) == (model, snr)] for snr in SNRS]
            if found[0][0] is not None:
                axis.plot(SNRS, np.mean(found, axis=1), marker="o", label=model)
        axis.set(title=titles[figure], xlabel="SNR (dB)", xticks=SNRS, ylim=(0, 1))
    axes[0].legend(frameon=False)
    canvas.tight_layout()
    canvas.savefig(machine.RESULTS.parents[1] / "docs" / "images" / "soundscapes.png", dpi=110)


def soundsight(*words: Any) -> None:
    """Run a command as a user does; one that scores with problems (exit code 1) is told and goes on."""
    done = subprocess.run([sys.executable, "-m", "soundsight", *map(str, words)], stdout=subprocess.PIPE, text=True)
    if done.returncode > 1 or (done.returncode and words[0] != "score"):
        raise SystemExit(f"soundsight {' '.join(map(str, words))} failed with {done.returncode}.")


if __name__ == "__main__":
    main()
