"""Train a classifier on prepared images, with Ultralytics YOLO.

soundsight train                               # configs/train.yaml and configs/augment.yaml
soundsight train epochs=3 batch=32 device=cpu  # any argument that `yolo` knows
soundsight train augment.mixup=0.8             # another augmentation
soundsight train --augment none                # without augmentation
soundsight train resume=runs/classify/train/weights/last.pt
yolo cfg=configs/train.yaml                    # the same through the stock command
"""

from __future__ import annotations

import shlex
from pathlib import Path

from soundsight.backend.compat import training_arguments
from soundsight.cli import console
from soundsight.cli.options import Given
from soundsight.config.commands import TrainOptions

OPTIONS = TrainOptions
OPEN = "epochs=50, imgsz=256, device=0, ...: any training argument of `yolo`; augment.mixup=0.8, ...: augmentation"


def run(options: TrainOptions, given: Given) -> int:
    from soundsight.evaluation.train import train

    console.check_arguments(given, train)
    augment = None if options.augment == "none" else options.augment
    done = console.call(train, options, options.cfg, augment=augment, **given.rest)
    last = _near(done.last)
    console.output(f"Trained: {last}")
    for note in done.notes:
        console.output(note)
    if done.last.is_file():  # not with save=False
        console.output(advice(last, done.folder))
    return 0


def advice(last: str, folder: Path) -> str:
    """What to do with a trained model: commands as they can be pasted, which the model and its data allow."""
    from soundsight.backend.checkpoint import checkpoint_model, load_checkpoint
    from soundsight.evaluation.train import SPECTROGRAM

    checkpoint = load_checkpoint(last)
    data = Path(str(training_arguments(checkpoint).get("data") or "data"))
    split = next((name for name in ("test", "val") if any((data / name).glob("*/*.png"))), "train")
    given = "" if str(data) == "data" else f" --data {shlex.quote(_near(data))}"
    settings = ""
    if not (getattr(checkpoint_model(checkpoint), "soundsight", None) or {}).get("spectrogram"):
        own = folder / SPECTROGRAM
        settings = f" --spectrogram {shlex.quote(_near(own)) if own.is_file() else 'FILE.yaml'}"
    model = shlex.quote(last)
    return (
        f"Score it with `soundsight val {model} --split {split}{given}{settings}`, "
        f"use it with `soundsight predict {model} clip.wav{settings}`."
    )


def _near(path: Path) -> str:
    """The path as seen from here, if it lies below."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
