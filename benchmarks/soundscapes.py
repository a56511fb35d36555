"""Several sounds at once, few false alarms: single-label and multi-label models on the same ten-minute scenes.

    python -m benchmarks.soundscapes ESC-50 yolov8n-cls.pt --work FOLDER    # continues where it was; hours on two cores
    python -m benchmarks.soundscapes ESC-50 yolov8n-cls.pt --work FOLDER --image-size 96 --epochs 10    # 20 minutes

Scenes (`benchmarks/scenes.py`) are made of fold 5 of ESC-50. Models are trained on folds 1 to 3, thresholds fitted on
fold 4:

- single: the 47 classes that are events here, one label per clip, as in 0.1;
- single+background: also a class "background" of wind, rain, sea waves and pink noise; noise in training images;
- multi: one sigmoid per class on the same images, "background" as images without a class;
- multi+scenes: also annotated scenes made of folds 1 to 3, cut into segments labelled by overlap.

Every model predicts every scene once a second. Writes benchmarks/results/soundscapes.json and .csv, and with
matplotlib docs/images/soundscapes.png.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from benchmarks import machine, scenes

TEST, VAL, TRAIN = 5, 4, (1, 2, 3)
SNRS = (0, 10, 20)  # dB
BACKGROUNDS = ("pink", "natural")
MODELS = ("single", "single+background", "multi", "multi+scenes")
TABLE = ("file", "start", "end", "label", "fold")


def main() -> None:
    """Make scenes, train what is not trained yet, predict and score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="ESC-50 at 16 kHz as its publisher lays it out")
    parser.add_argument("model", type=Path, help="checkpoint to start from")
    parser.add_argument("--work", type=Path, required=True, help="folder of data, runs and scenes")
    parser.add_argument("--image-size", type=int, default=160)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--minutes", type=float, default=10.0, help="of each scene")
    parser.add_argument("--empty-minutes", type=float, default=60.0)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    arguments = parser.parse_args()
    arguments.root, arguments.model = arguments.root.resolve(), arguments.model.resolve()
    arguments.work.mkdir(parents=True, exist_ok=True)
    os.chdir(arguments.work)
    test = make_scenes(arguments)
    rows = []
    for model in arguments.models:
        weights = trained(model, arguments)
        for name, snr, background in test:
            rows.append({"model": model, "snr_db": snr, "background": background, **scored(model, weights, name)})
            print(rows[-1], flush=True)
    settings = {"image_size": arguments.image_size, "epochs": arguments.epochs, "start": arguments.model.name}
    machine.write("soundscapes", {"machine": machine.describe(), **settings, "rows": rows})
    with (machine.RESULTS / "soundscapes.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    plot(rows)


def make_scenes(arguments: argparse.Namespace) -> list[tuple[str, int | None, str]]:
    """The scenes to score: name, SNR in dB (None: no events), and background."""
    clips = scenes.clips_of(arguments.root, [TEST])
    wanted: list[tuple[str, int | None, str]] = [
        (f"{background}-{snr}dB", snr, background) for background in BACKGROUNDS for snr in SNRS
    ]
    wanted += [(f"{background}-empty", None, background) for background in BACKGROUNDS]
    for seed, (name, snr, background) in enumerate(wanted):
        path = Path("scenes", f"{name}.flac")
        if not path.with_suffix(".txt").exists():
            minutes = arguments.minutes if snr is not None else arguments.empty_minutes / len(BACKGROUNDS)
            scenes.write(path, *scenes.scene(clips, 60 * minutes, snr, background, seed))
    return wanted


def trained(model: str, arguments: argparse.Namespace) -> Path:
    """The weights of a model, trained if they are not there."""
    weights = Path("runs", model, "weights", "last.pt")
    if weights.exists():
        return weights
    root = sounds(model, arguments)
    labels = "multi" if model.startswith("multi") else "single"
    data = f"data-{model}"
    common = [f"root={root}", f"cache=cache-{model}", f"data={data}", f"image_size={arguments.image_size}"]
    split = ["split.strategy=fold", f"split.train=[{','.join(map(str, TRAIN))}]", f"split.val=[{VAL}]", "split.test=[]"]
    soundsight("prepare", "kind=table", "table=labels.csv", "fold_column=fold", f"labels={labels}", *common, *split)
    noise = [] if model == "single" else [f"augment.noise={root / 'noise'}", "augment.noise_share=0.5"]
    recipe = [f"epochs={arguments.epochs}", f"imgsz={arguments.image_size}", f"model={arguments.model}", "device=cpu"]
    soundsight("train", f"data={data}", "project=runs", f"name={model}", "plots=False", *recipe, *noise)
    return weights


def sounds(model: str, arguments: argparse.Namespace) -> Path:
    """A folder with what a model is trained on: recordings, `labels.csv`, and noise of the training folds."""
    root = Path("sounds", model).absolute()
    (root / "noise").mkdir(parents=True, exist_ok=True)
    if not (root / "audio").exists():
        (root / "audio").symlink_to(arguments.root / "audio")
    rows: list[tuple[Any, ...]] = []
    random = np.random.default_rng(0)
    for fold in (*TRAIN, VAL):
        clips = scenes.clips_of(arguments.root, [fold])
        for label, paths in sorted(clips.items()):
            if label not in scenes.BACKGROUND:
                rows += [(f"audio/{path.name}", 0, 5, label, fold) for path in paths]
            elif model != "single":
                rows += [(f"audio/{path.name}", 0, 5, "background", fold) for path in paths]
        if model == "single":
            continue
        for number in range(8):
            name = f"pink-{fold}-{number}.wav"
            noise = 0.1 * scenes.pink_noise(5 * scenes.RATE, random)
            soundfile.write(root / name, noise, scenes.RATE, subtype="PCM_16")
            rows.append((name, 0, 5, "background", fold))
        if fold != VAL:
            for kind in BACKGROUNDS:
                whole = 60 * scenes.RATE
                noise = (
                    scenes.pink_noise(whole, random) if kind == "pink" else scenes.natural_noise(clips, whole, random)
                )
                soundfile.write(root / "noise" / f"{kind}-{fold}.wav", 0.1 * noise, scenes.RATE, subtype="PCM_16")
        if model == "multi+scenes":
            for number, (snr, background) in enumerate((s, b) for s in SNRS for b in BACKGROUNDS):
                name = f"scene-{fold}-{number}.flac"
                made = scenes.scene(clips, 300, snr, background, seed=100 * fold + number)
                soundfile.write(root / name, made[0], scenes.RATE, subtype="PCM_16")
                rows += [(name, event.start_seconds, event.end_seconds, event.label, fold) for event in made[1]]
    with (root / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([TABLE, *rows])
    return root


def scored(model: str, weights: Path, name: str) -> dict[str, Any]:
    """Predict a scene once a second, and score it: what is reported at the model's own thresholds, and the ranking."""
    place = Path("predictions", model)
    place.mkdir(parents=True, exist_ok=True)
    result = {}
    for kind in ("csv", "scores"):
        out = place / f"{name}.{kind}.csv"
        audio = Path("scenes", f"{name}.flac")
        events = ["--merge"] if kind == "csv" else []
        soundsight("predict", weights, audio, "--hop", 1, "--format", kind, "--out", out, "--overwrite", *events)
        soundsight("score", out, audio.with_suffix(".txt"), "--out", place / f"{name}.{kind}.json", "--overwrite")
        result[kind] = json.loads((place / f"{name}.{kind}.json").read_text(encoding="utf-8"))
    reported, ranking = result["csv"], result["scores"]["ranking"]
    return {
        "segment_macro_f1": reported["macro_average"]["segment_f1"],
        "segment_micro_f1": reported["micro_average"]["segment_f1"],
        "event_micro_f1": reported["micro_average"]["event_f1"],
        "false_alarms_per_hour": reported["micro_average"]["false_alarms_per_hour"],
        "macro_map": ranking.get("macro_map"),
        "micro_map": ranking.get("micro_map"),
    }


def plot(rows: list[dict[str, Any]]) -> None:
    """Figures over SNR, one line per model."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figures = ("segment_macro_f1", "event_micro_f1", "macro_map")
    canvas, axes = pyplot.subplots(1, len(figures), figsize=(11, 3.6), sharey=True)
    for axis, figure in zip(axes, figures, strict=True):
        for model in dict.fromkeys(row["model"] for row in rows):
            values = [
                np.nanmean([row[figure] for row in rows if (row["model"], row["snr_db"]) == (model, snr)])
                for snr in SNRS
            ]
            axis.plot(SNRS, values, marker="o", label=model)
        axis.set(title=figure.replace("_", " "), xlabel="SNR (dB)", xticks=SNRS, ylim=(0, 1))
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
