"""Answers for any recording: what is in it, and when.

`load` gives a `Listener`, which answers one recording; `predict` answers many. Everything a model hears
goes through the picture that `spectrogram.render` draws, as in training. PyTorch is loaded with a model,
not with this room.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from soundsight.predict.answers import Answer, Summary, Vector, Window
    from soundsight.predict.listener import Listener, load, predict
    from soundsight.predict.options import Options

_HOMES = {
    "answers": ("Answer", "Summary", "Vector", "Window"),
    "listener": ("Listener", "load", "predict"),
    "options": ("Options",),
}

__all__ = ["Answer", "Listener", "Options", "Summary", "Vector", "Window", "load", "predict"]


class _Room(ModuleType):
    """This room has the name of its main function: `soundsight.predict(model, files)` works, whatever was
    imported before."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.predict(*args, **kwargs)


sys.modules[__name__].__class__ = _Room


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
