"""What came out: tables, plots and readable spectrograms.

`tables` writes JSON and CSV, `plots` draws the figures of a run, `spectrograms` draws
spectrograms with axes. Names are resolved on first use, so that importing this package stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from soundsight.reports.plots import draw_confusion, draw_per_class, draw_reliability, draw_training_curves
    from soundsight.reports.spectrograms import draw_gallery, draw_spectrogram, draw_timeline
    from soundsight.reports.tables import PredictionRow, prediction_rows, write_predictions, write_scores

_HOMES = {
    "spectrograms": ("draw_gallery", "draw_spectrogram", "draw_timeline"),
    "plots": ("draw_confusion", "draw_per_class", "draw_reliability", "draw_training_curves"),
    "tables": ("PredictionRow", "prediction_rows", "write_predictions", "write_scores"),
}  # fmt: skip

__all__ = [
    "PredictionRow",
    "draw_confusion",
    "draw_gallery",
    "draw_per_class",
    "draw_reliability",
    "draw_spectrogram",
    "draw_timeline",
    "draw_training_curves",
    "prediction_rows",
    "write_predictions",
    "write_scores",
]


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
