"""What came out: tables, plots and readable spectrograms.

`tables` writes JSON and CSV, `plots` plots the figures of a run, `spectrograms` plots
spectrograms with axes. Names are resolved on first use, so that importing this package stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from soundsight.deprecation import warn

if TYPE_CHECKING:
    from soundsight.reports.plots import (
        plot_confusion,
        plot_per_class,
        plot_precision_recall,
        plot_reliability,
        plot_training_curves,
    )
    from soundsight.reports.spectrograms import plot_gallery, plot_spectrogram, plot_timeline
    from soundsight.reports.tables import (
        PredictionRow,
        prediction_rows,
        write_predictions,
        write_probabilities,
        write_scores,
    )

_HOMES = {
    "spectrograms": ("plot_gallery", "plot_spectrogram", "plot_timeline"),
    "plots": ("plot_confusion", "plot_per_class", "plot_precision_recall", "plot_reliability", "plot_training_curves"),
    "tables": ("PredictionRow", "prediction_rows", "write_predictions", "write_probabilities", "write_scores"),
}  # fmt: skip

__all__ = [
    "PredictionRow",
    "plot_confusion",
    "plot_gallery",
    "plot_per_class",
    "plot_precision_recall",
    "plot_reliability",
    "plot_spectrogram",
    "plot_timeline",
    "plot_training_curves",
    "prediction_rows",
    "write_predictions",
    "write_probabilities",
    "write_scores",
]


def __getattr__(name: str) -> Any:
    current = name.replace("draw_", "plot_", 1)  # "draw_" as in 0.1
    for module, names in _HOMES.items():
        if current in names:
            if current != name:
                warn(f"{__name__}.{name}", current)
            return getattr(import_module(f"{__name__}.{module}"), current)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
