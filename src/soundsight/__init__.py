"""Soundsight: teach a vision model to hear.

The functions here mirror the commands. Importing the package loads neither PyTorch nor Ultralytics; each
name is fetched when it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

# name: module that defines it
_API = {
    "AugmentConfig": "soundsight.config",
    "DatasetConfig": "soundsight.config",
    "SplitConfig": "soundsight.config",
    "SpectrogramConfig": "soundsight.config",
    "SoundsightError": "soundsight.errors",
    "prepare": "soundsight.datasets.prepare",
    "render": "soundsight.spectrogram",
    "train": "soundsight.evaluation.train",
    "val": "soundsight.evaluation.val",
    "crossval": "soundsight.evaluation.crossval",
    "inspect": "soundsight.evaluation.inspect",
    "load": "soundsight.inference",
    "predict": "soundsight.inference",
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
    from soundsight.datasets.prepare import prepare
    from soundsight.errors import SoundsightError
    from soundsight.evaluation.crossval import crossval
    from soundsight.evaluation.inspect import inspect
    from soundsight.evaluation.train import train
    from soundsight.evaluation.val import val
    from soundsight.inference import load, predict
    from soundsight.spectrogram import render


# Modules by the names that they had in 0.1.0; they go on working for one release.
_FORMER = {"demo": "soundsight.synthesis.dataset", "report": "soundsight.reports"}


def __getattr__(name: str) -> Any:
    if name in _FORMER:
        from soundsight.deprecation import warn

        warn(f"soundsight.{name}", _FORMER[name])
        return importlib.import_module(_FORMER[name])
    if name not in _API:
        raise AttributeError(f"module 'soundsight' has no attribute {name!r}")
    return getattr(importlib.import_module(_API[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
