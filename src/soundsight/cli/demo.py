"""Synthesise ten classes of sounds, train on them, score the model, predict one clip. No network needed.

soundsight demo                    # writes to runs/demo, takes a few minutes on two cores
soundsight demo epochs=10 --clips 20
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from soundsight.backend.compat import weights_of
from soundsight.cli import console
from soundsight.cli.options import Given
from soundsight.config.commands import DemoOptions
from soundsight.errors import ModelError
from soundsight.files import check_folder

OPTIONS = DemoOptions
OPEN = "epochs=10, device=cpu, ...: arguments of a training"


def run(options: DemoOptions, given: Given) -> int:
    from soundsight import checks
    from soundsight.config import DatasetConfig, SpectrogramConfig
    from soundsight.datasets.prepare import prepare
    from soundsight.synthesis import dataset as demo

    out = Path(options.out)
    check_folder(out, "sounds/demo.json", overwrite=options.overwrite)
    checks.check_writable(out)
    if lost := checks.lost_results():
        console.status(f"soundsight: {lost}")
    with step("Synthesising sounds"):
        sounds = demo.write_dataset(out / "sounds", clips_per_class=options.clips)
    dataset = DatasetConfig(root=str(sounds), cache=str(out / "spectrogram"), data=str(out / "data"))
    spectrogram = SpectrogramConfig(image_size=options.image_size)
    with step("Drawing spectrograms"), console.progress_bar("drawing", "clips") as show:
        prepared = prepare(dataset, spectrogram, progress=show)
        print(f"  {', '.join(f'{n} {split}' for split, n in prepared.counts.items())} images in {out / 'data'}")
    return learn(out, {"imgsz": options.image_size, **given.rest})


def learn(out: Path, words: dict[str, Any]) -> int:
    """Train, score, predict."""
    from soundsight.datasets import manifest
    from soundsight.evaluation.scoring import headline
    from soundsight.evaluation.train import train
    from soundsight.evaluation.val import val
    from soundsight.inference import load

    start: dict[str, Any] = {"epochs": 40, "batch": 32, "nbs": 32, "lr0": 0.002, "val": False, "verbose": False}
    start |= {"data": str(out / "data"), "project": str(out), "name": "train", "exist_ok": True}
    start |= {} if "model" in words else {"model": weights()}
    with step("Training YOLOv8n-cls"):
        trained = train(**{**start, **words})
        for note in trained.notes:
            print(f"  {note}")
    with step("Scoring on the test fold"):
        done = val(trained.last, data=out / "data", split="test", out=out / "test")
        print(f"  top-1 {headline(done.scores)['top1']:.1%} of {done.scores.count} clips of groups outside training")
    with step("Predicting one clip"):
        row = next(r for r in manifest.read_rows(out / "data" / manifest.MANIFEST) if r.split == "test")
        print(load(trained.last)(out / "sounds" / row.file))
    print(f"\nImages for training:   {out / 'data'}")
    print(f"Confusion matrix:      {out / 'test' / 'confusion_matrix.png'}")
    print(f"Model with its preprocessing:   {weights_of(out / 'train')}")
    return 0


def weights() -> str:
    """ImageNet weights if they can be had, or else the bare architecture."""
    from soundsight.backend.train import find_weights

    try:
        return find_weights("yolov8n-cls.pt")
    except ModelError:
        print("  yolov8n-cls.pt cannot be downloaded: training from scratch with yolov8n-cls.yaml.")
        return "yolov8n-cls.yaml"


@contextmanager
def step(what: str) -> Iterator[None]:
    """Announce a step and say how long it took."""
    print(f"{what} ...", flush=True)
    started = time.monotonic()
    yield
    print(f"  {time.monotonic() - started:.0f} s", flush=True)
