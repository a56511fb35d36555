"""A model without training, small enough to predict 10,000 recordings in a minute: what it says is of no matter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from soundsight.config import SpectrogramConfig

EARS = SpectrogramConfig(sample_rate=8000, clip_seconds=0.5, image_size=32, n_fft=1024)
NAMES = ("bark", "meow")


def make_checkpoint(path: Path, *, preprocessing: SpectrogramConfig = EARS, names: tuple[str, ...] = NAMES) -> Path:
    """An untrained checkpoint with preprocessing, in the layout that Ultralytics writes."""
    import torch

    torch.save(make_content(preprocessing=preprocessing, names=names), path)
    return path


def make_content(*, preprocessing: SpectrogramConfig = EARS, names: tuple[str, ...] = NAMES) -> dict[str, Any]:
    """What `make_checkpoint` writes."""
    import torch

    import soundsight.backend.quiet  # noqa: F401  (before Ultralytics)
    from soundsight.backend.checkpoint import make_preprocessing

    # isort: split
    from ultralytics.nn.tasks import ClassificationModel
    from ultralytics.utils import DEFAULT_CFG_DICT

    torch.manual_seed(0)
    network = ClassificationModel("yolov8n-cls.yaml", nc=len(names), verbose=False)
    network.names = dict(enumerate(names))
    network.soundsight = make_preprocessing(preprocessing, list(names))
    arguments = {**DEFAULT_CFG_DICT, "task": "classify", "model": "yolov8n-cls.yaml", "imgsz": preprocessing.image_size}
    return {"epoch": -1, "model": network.half(), "ema": None, "optimizer": None, "train_args": arguments}


def make_onnx(folder: Path) -> Path:
    """The same as ONNX, which predicts without PyTorch."""
    from soundsight.backend.export import export

    return export(make_checkpoint(folder / "torture.pt"), "onnx", out=folder / "torture.onnx")
