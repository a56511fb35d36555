"""One self-contained page of a validation or a cross-validation: figures, matrix, clips to see and to play.

Everything is inside the file: styles, script, images and sounds as data. `run_report` collects what is shown here.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from soundsight.config import SpectrogramConfig
from soundsight.detection import DetectionScores, precision_recall_curve
from soundsight.files import write_text
from soundsight.metrics import ConfusedPair, Scores, reliability_bins
from soundsight.reports.charts import (
    Chart,
    Curves,
    confusion_order,
    fold_chart,
    precision_recall_chart,
    reliability_chart,
    training_charts,
)
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
    saliency: npt.NDArray[np.float32] | None = None  # (H, W) in [0, 1], for `label`
    audio: bytes = b""  # FLAC; empty if there is none
    note: str = ""  # why something is missing
    label: str = ""  # the class that was named; with several the one that is most wrong, or least certain


@dataclass(frozen=True, eq=False)
class Material:
    """What a report is made of."""

    title: str
    kind: str  # "validation" or "cross-validation"
    metrics: Mapping[str, Any]  # metrics.json
    scores: Scores | DetectionScores  # for counts and confidences; top5 and others are taken from `metrics`
    rows: Sequence[PredictionRow]
    clips: Mapping[int, Clip]  # by position in `rows`
    mistakes: Sequence[int]  # positions, most confident first
    pairs: Sequence[tuple[ConfusedPair, Sequence[int]]]
    best: Sequence[int]  # positions, most certain first; with several labels per clip
    curves: Curves
    spectrogram: SpectrogramConfig | None
    notes: Sequence[str] = field(default_factory=list)  # what could not be shown, and why


def write_html(material: Material, path: str | Path) -> Path:
    """Write the page, whole or not at all."""
    folds = material.metrics.get("folds") or {}
    scores, charts = material.scores, list[Chart]()
    multi = isinstance(scores, DetectionScores)
    if len(folds) > 1:
        charts.append(fold_chart(folds, "macro_map", "Macro mAP") if multi else fold_chart(folds, "top1", "Top-1"))
    if isinstance(scores, DetectionScores):
        charts.append(precision_recall_chart(scores))
    else:
        charts.append(reliability_chart(reliability_bins(scores.targets, scores.probabilities)))
    columns = [("Precision", "precision"), ("Recall", "recall"), ("F1", "f1")]
    columns = [("AP", "average_precision"), ("AUROC", "auroc"), *columns] if multi else columns
    shown = {k: v for k, v in material.metrics.items() if k not in _HEADLINE}
    page = render_template(
        "report.html",
        command="report",
        title=material.title,
        subtitle=material.kind.capitalize(),
        figures=[*_figures(material), *_timed(material.metrics)],
        notes=material.notes,
        charts=[*charts, *training_charts(material.curves)],
        multi=multi,
        columns=["Clips", *(title for title, _ in columns), *(["Threshold", "Precision by recall"] if multi else [])],
        classes=[(row["class"], _cells(row, columns, material)) for row in material.metrics["per_class"]],
        facts=[(key, value) for key, value in flatten(shown) if value not in ("", "{}")],
        data=_data(material),
    )
    return write_text(path, page)


class Cell(NamedTuple):
    """A cell of the table of classes."""

    value: float  # to sort by
    text: str
    share: float | None = None  # also shown as a bar
    curve: str = ""  # points of a line, 60 wide and 20 high


def _cells(row: Mapping[str, Any], columns: Sequence[tuple[str, str]], material: Material) -> list[Cell]:
    """The cells of a class."""
    scores, cells = material.scores, [Cell(row["support"], str(row["support"]))]
    multi = isinstance(scores, DetectionScores)
    for _, key in columns:
        share = row.get(key)
        bar = key == "average_precision" or not multi
        cells.append(Cell(-1, "none") if share is None else Cell(share, f"{share:.1%}", share if bar else None))
    if isinstance(scores, DetectionScores):
        basis = (material.metrics.get("thresholds") or {}).get(row["class"]) or {}
        text = f"{row['threshold']:.2f}"
        if basis.get("interval"):
            low, high = basis["interval"]
            text += f" ({low:.2f} to {high:.2f}; {basis['clips']} clips)"
        elif basis:
            text += f" ({basis['clips']} clips are too few to fit one)"
        c, points = scores.names.index(row["class"]), ""
        if row["support"]:
            curve = precision_recall_curve(scores.targets[:, c], scores.probabilities[:, c])
            pairs = {round(60 * recall, 1): round(20 - 20 * p, 1) for p, recall in zip(*curve[:2], strict=True)}
            points = " ".join(f"{x:g},{y:g}" for x, y in pairs.items())
        cells += [Cell(row["threshold"], text), Cell(row["average_precision"] or 0, "", curve=points)]
    return cells


def _figures(material: Material) -> list[tuple[str, str, str]]:
    """The headline: figures with their intervals."""
    metrics = material.metrics
    if isinstance(material.scores, DetectionScores):
        spread = metrics.get("macro_map_over_folds") or {}
        deviation = f", ± {spread['std']:.3f} between folds" if spread.get("std") is not None else ""
        clips = f"of {metrics['clips']:,} clips, {metrics['classes']} classes{deviation}"
        background = f"{int((~material.scores.targets.any(axis=1)).sum())} clips are background"
        named = (
            ("Macro mAP", "macro_map", clips), ("Micro mAP", "micro_map", background), ("AUROC", "macro_auroc", ""),
            ("Best F1", "macro_best_f1", "at the best thresholds of these clips"), ("Top-1", "top1", ""),
        )  # fmt: skip
        return [(name, f"{metrics[key]:.3f}", note) for name, key, note in named if metrics.get(key) is not None]
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


def _timed(metrics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Figures of recordings, where clips are segments of them or background."""
    figures = []
    if events := metrics.get("events"):
        macro, alarms = events["macro_average"], events["micro_average"]["false_alarms_per_hour"]
        exact = (
            f"onset within {events['collar_seconds']:g} s, offset also {events['collar_fraction']:.0%} of its length"
        )
        figures = [
            ("Segment F1", f"{macro['segment_f1']:.3f}", "mean over classes, at their thresholds"),
            ("Event F1", f"{macro['event_f1']:.3f}", exact),
            ("False alarms per hour", f"{alarms:.1f}", f"in {events['hours']:.2f} h of annotated recordings"),
        ]
    if background := metrics.get("background"):
        note = f"{background['false_alarms']} in {background['hours']:.2f} h"
        figures.append(
            ("False alarms on background", f"{background['false_alarms_per_hour']:.1f}", f"per hour; {note}")
        )
    return figures


_HEADLINE = frozenset({
    "clips", "classes", "top1", "top1_interval_95", "top5", "macro_f1", "macro_map", "per_class", "folds",
    "top1_over_folds", "top5_over_folds", "single_models_top1", "thresholds",
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
    wrong: dict[str, list[str]] = {}
    confusion = np.zeros((0, 0), np.int64)  # with several labels per clip there is none
    if isinstance(scores := material.scores, Scores):
        confusion = scores.confusion
        for row, target, predicted in zip(material.rows, scores.targets, scores.predictions, strict=True):
            if target != predicted:
                wrong.setdefault(f"{target},{predicted}", []).append(f"{row.clip} ({row.probability:.0%})")
    return {
        "names": [name.replace("_", " ") for name in scores.names],
        "confusion": confusion.tolist(),
        "order": confusion_order(confusion) if len(confusion) else [],
        "wrong": wrong,
        "ticks": tick_positions(config, spacing=0.1) if config else [],
        "span": _span_seconds(config) if config else 0,
        "clips": {str(index): _clip_data(clip) for index, clip in material.clips.items()},
        "mistakes": list(material.mistakes),
        "best": list(material.best),
        "multi": isinstance(scores, DetectionScores),
        "pairs": [{**pair._asdict(), "shown": list(shown)} for pair, shown in material.pairs],
    }


def shown(labels: str) -> str:
    """Class names, of several joined by semicolons, as text."""
    return labels.replace("_", " ").replace(";", " + ")


def _clip_data(clip: Clip) -> dict[str, Any]:
    row = clip.row
    return {
        "name": row.clip,
        "source": row.source,
        "fold": str(row.fold),
        "true": shown(row.target),
        "predicted": shown(row.predicted),
        "label": shown(clip.label),
        "probability": row.probability,
        "rank": row.rank,
        "seconds": clip.seconds,
        "picture": "" if clip.image is None else image_uri(clip.image[..., 0], IMAGE_SIDE),
        "heat": "" if clip.saliency is None else image_uri(np.rint(255 * clip.saliency).astype(np.uint8), 128),
        "audio": f"data:audio/flac;base64,{base64.b64encode(clip.audio).decode()}" if clip.audio else "",
        "note": clip.note,
    }
