"""What came out: tables, plots and readable spectrograms.

`tables` writes JSON and CSV, `plots` plots the figures of a run, `spectrograms` plots
spectrograms with axes. Names are resolved on first use, so that importing this package stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from soundsight.deprecation import warn

_HOMES = {
    "spectrograms": ("plot_gallery", "plot_spectrogram", "plot_timeline"),
    "plots": ("plot_confusion", "plot_per_class", "plot_precision_recall", "plot_reliability", "plot_training_curves"),
    "tables": ("PredictionRow", "prediction_rows", "write_predictions", "write_probabilities", "write_scores"),
}  # fmt: skip

__all__ = sorted(name for names in _HOMES.values() for name in names)


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
