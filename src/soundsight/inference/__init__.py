"""Predictions for any recording: what is in it, and when.

`load` gives a `Predictor`, which predicts one recording; `predict` predicts many. All sound goes
through `spectrogram.render`, as in training. PyTorch is loaded with a model, not with this package.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from soundsight.deprecation import warn

if TYPE_CHECKING:
    from soundsight.inference.options import Options
    from soundsight.inference.predictor import Predictor, load, predict
    from soundsight.inference.results import Prediction, Result, Summary, Vector

_HOMES = {
    "results": ("Result", "Summary", "Vector", "Prediction"),
    "predictor": ("Predictor", "load", "predict"),
    "options": ("Options",),
}

__all__ = ["Options", "Prediction", "Predictor", "Result", "Summary", "Vector", "load", "predict"]


_FORMER = {"Listener": "Predictor", "Answer": "Result", "Window": "Prediction"}


def __getattr__(name: str) -> Any:
    if name in _FORMER:
        warn(f"{__name__}.{name}", _FORMER[name])
        name = _FORMER[name]
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
