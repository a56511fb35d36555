"""Readers of model files, one file per format; a new file here is found by itself.

Each module has `KINDS`, the endings it reads ("folder" for a folder), and `read`. Heavy libraries are imported
when a file is read, not before.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from soundsight.config import SpectrogramConfig
    from soundsight.models.classifier import Classifier


class Reader(Protocol):
    """What `read` of each module is."""

    def __call__(
        self, path: Path, *, device: str | None, spectrogram: SpectrogramConfig | None, trust: bool, threads: int | None
    ) -> Classifier: ...


def find() -> dict[str, Reader]:
    """The reader of each kind of file."""
    modules = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
    return {kind: module.read for module in modules for kind in module.KINDS}
