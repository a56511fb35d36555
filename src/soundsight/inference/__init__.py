"""Answers for any recording: what is in it, and when.

`load` gives a `Listener`, which answers one recording; `predict` answers many. Everything a model hears
goes through the picture that `spectrogram.render` draws, as in training. PyTorch is loaded with a model,
not with this room.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from soundsight.inference.options import Options
    from soundsight.inference.predictor import Listener, load, predict
    from soundsight.inference.results import Answer, Summary, Vector, Window

_HOMES = {
    "results": ("Answer", "Summary", "Vector", "Window"),
    "predictor": ("Listener", "load", "predict"),
    "options": ("Options",),
}

__all__ = ["Answer", "Listener", "Options", "Summary", "Vector", "Window", "load", "predict"]


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
