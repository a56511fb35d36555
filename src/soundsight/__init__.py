"""Soundsight: teach a vision model to hear.

The functions here mirror the commands. Importing the package loads neither PyTorch nor Ultralytics; each
name is fetched when it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.1"

# name: module that defines it
_API = {
    "AugmentConfig": "soundsight.config",
    "DatasetConfig": "soundsight.config",
    "SplitConfig": "soundsight.config",
    "SpectrogramConfig": "soundsight.config",
    "SoundsightError": "soundsight.errors",
    "prepare": "soundsight.dataset.prepare",
    "render": "soundsight.spectrogram",
    "train": "soundsight.experiment.train",
    "val": "soundsight.experiment.val",
    "crossval": "soundsight.experiment.crossval",
    "inspect": "soundsight.experiment.inspect",
    "load": "soundsight.predict",
    "predict": "soundsight.predict",
}

__all__ = [
    "AugmentConfig",
    "DatasetConfig",
    "SoundsightError",
    "SpectrogramConfig",
    "SplitConfig",
    "__version__",
    "crossval",
    "inspect",
    "load",
    "predict",
    "prepare",
    "render",
    "train",
    "val",
]

if TYPE_CHECKING:
    from soundsight.config import AugmentConfig, DatasetConfig, SpectrogramConfig, SplitConfig
    from soundsight.dataset.prepare import prepare
    from soundsight.errors import SoundsightError
    from soundsight.experiment.crossval import crossval
    from soundsight.experiment.inspect import inspect
    from soundsight.experiment.train import train
    from soundsight.experiment.val import val
    from soundsight.predict import load, predict
    from soundsight.spectrogram import render


def __getattr__(name: str) -> Any:
    if name not in _API:
        raise AttributeError(f"module 'soundsight' has no attribute {name!r}")
    return getattr(importlib.import_module(_API[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
