"""One self-contained page of a validation or a cross-validation: figures, matrix, clips to see and to play.

Everything is inside the file: styles, script, images and sounds as data. `run_report` collects what is shown here.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from soundsight.config import SpectrogramConfig
from soundsight.files import write_text
from soundsight.metrics import ConfusedPair, Scores, reliability_bins
from soundsight.reports.charts import Curves, confusion_order, fold_chart, reliability_chart, training_charts
from soundsight.reports.spectrograms import _span_seconds, tick_positions
from soundsight.reports.tables import PredictionRow
from soundsight.reports.templating import image_uri, render_template
from soundsight.spectrogram import Image

AUDIO_BYTES = 11_000_000  # of all sounds, before they are written as text; the page then stays under 20 MB
IMAGE_SIDE = 320  # pixels; larger images are made smaller for the page


@dataclass(frozen=True, eq=False)
class Clip:
    """A clip with its image and sound."""

    row: PredictionRow
    seconds: float
    image: Image | None = None  # uint8 (H, W, 3)
    saliency: npt.NDArray[np.float32] | None = None  # (H, W) in [0, 1], for the class that was named
    audio: bytes = b""  # FLAC; empty if there is none
    note: str = ""  # why something is missing


@dataclass(frozen=True, eq=False)
class Material:
    """What a report is made of."""

    title: str
    kind: str  # "validation" or "cross-validation"
    metrics: Mapping[str, Any]  # metrics.json
    scores: Scores  # for counts and confidences; top5 and others are taken from `metrics`
    rows: Sequence[PredictionRow]
    clips: Mapping[int, Clip]  # by position in `rows`
    mistakes: Sequence[int]  # positions, most confident first
    pairs: Sequence[tuple[ConfusedPair, Sequence[int]]]
    curves: Curves
    spectrogram: SpectrogramConfig | None
    notes: Sequence[str] = field(default_factory=list)  # what could not be shown, and why


def write_html(material: Material, path: str | Path) -> Path:
    """Write the page, whole or not at all."""
    folds = material.metrics.get("folds") or {}
    charts = [fold_chart(folds, material.metrics["top1_over_folds"]["mean"])] if len(folds) > 1 else []
    charts.append(reliability_chart(reliability_bins(material.scores.targets, material.scores.probabilities)))
    shown = {k: v for k, v in material.metrics.items() if k not in _HEADLINE}
    page = render_template(
        "report.html",
        command="report",
        title=material.title,
        subtitle=material.kind.capitalize(),
        figures=_figures(material),
        notes=material.notes,
        charts=[*charts, *training_charts(material.curves)],
        classes=material.metrics["per_class"],
        facts=[(key, value) for key, value in flatten(shown) if value not in ("", "{}")],
        data=_data(material),
    )
    return write_text(path, page)


def _figures(material: Material) -> list[tuple[str, str, str]]:
    """The headline: figures with their intervals."""
    metrics = material.metrics
    low, high = metrics["top1_interval_95"]
    figures = [("Top-1", f"{metrics['top1']:.1%}", f"95 % interval {low:.1%} to {high:.1%}")]
    spread = metrics.get("top1_over_folds")
    if spread and spread.get("std") is not None:
        note = f"± {spread['std']:.1%} (standard deviation of {len(metrics['folds'])} folds)"
        figures.append(("Mean of folds", f"{spread['mean']:.1%}", note))
    return [
        *figures,
        ("Top-5", f"{metrics['top5']:.1%}", f"of {metrics['clips']:,} clips, {metrics['classes']} classes"),
        ("Macro F1", f"{metrics['macro_f1']:.3f}", "mean over classes"),
        *([("Macro mAP", f"{found:.3f}", "mean average precision")] if (found := metrics.get("macro_map")) else []),
        ("Calibration error", f"{metrics['ece']:.3f}", "0 is best (ECE, 15 bins)"),
    ]


_HEADLINE = frozenset({
    "clips", "classes", "top1", "top1_interval_95", "top5", "macro_f1", "macro_map", "per_class", "folds",
    "top1_over_folds", "top5_over_folds", "single_models_top1",
})  # fmt: skip


def flatten(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as dotted names and text."""
    items: list[tuple[str, str]] = []
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, Mapping) and item:
            items += flatten(item, f"{name}.")
        elif isinstance(item, list):
            items.append((name, ", ".join(map(str, item))))
        else:
            items.append((name, "none" if item is None else str(item)))
    return items


def _data(material: Material) -> dict[str, Any]:
    """What the script of the page plots."""
    config = material.spectrogram
    confusion = material.scores.confusion
    wrong: dict[str, list[str]] = {}
    for row, target, predicted in zip(material.rows, material.scores.targets, material.scores.predictions, strict=True):
        if target != predicted:
            wrong.setdefault(f"{target},{predicted}", []).append(f"{row.clip} ({row.probability:.0%})")
    return {
        "names": [name.replace("_", " ") for name in material.scores.names],
        "confusion": confusion.tolist(),
        "order": confusion_order(confusion),
        "wrong": wrong,
        "ticks": tick_positions(config, spacing=0.1) if config else [],
        "span": _span_seconds(config) if config else 0,
        "clips": {str(index): _clip_data(clip) for index, clip in material.clips.items()},
        "mistakes": list(material.mistakes),
        "pairs": [
            {"true": p.true, "predicted": p.predicted, "clips": p.clips, "share": p.share, "shown": list(shown)}
            for p, shown in material.pairs
        ],
    }


def _clip_data(clip: Clip) -> dict[str, Any]:
    row = clip.row
    return {
        "name": row.clip,
        "source": row.source,
        "fold": str(row.fold),
        "true": row.target.replace("_", " "),
        "predicted": row.predicted.replace("_", " "),
        "probability": row.probability,
        "rank": row.rank,
        "seconds": clip.seconds,
        "picture": "" if clip.image is None else image_uri(clip.image[..., 0], IMAGE_SIDE),
        "heat": "" if clip.saliency is None else image_uri(np.rint(255 * clip.saliency).astype(np.uint8), 128),
        "audio": f"data:audio/flac;base64,{base64.b64encode(clip.audio).decode()}" if clip.audio else "",
        "note": clip.note,
    }
