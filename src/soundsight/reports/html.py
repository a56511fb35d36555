"""One self-contained page of a validation or a cross-validation: figures, matrix, clips to see and hear.

Everything is inside the file: styles, script, images and sounds as data. It asks no host for anything, and
a policy in its head makes browsers hold it to that. `experiment.report` collects what is rendered here.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from soundsight.config import SpectrogramConfig
from soundsight.files import write_text
from soundsight.metrics import ConfusedPair, Scores, reliability_bins
from soundsight.reports.charts import Curves, confusion_order, fold_chart, reliability_chart, training_charts
from soundsight.reports.spectrograms import _span_seconds, hertz_label, hertz_ticks
from soundsight.reports.tables import PredictionRow
from soundsight.spectrogram import Image, hz_to_mel

AUDIO_BYTES = 11_000_000  # of all sounds, before they are written as text; the page then stays under 20 MB
IMAGE_SIDE = 320  # pixels; larger images are made smaller for the page


@dataclass(frozen=True, eq=False)
class Clip:
    """A clip to be seen and heard."""

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
    """Write the page, whole or not at all.

    Raises:
        ConfigError: The file cannot be written.
    """
    package = resources.files("soundsight.reports")
    read = lambda name: (package / name).read_text(encoding="utf-8")  # noqa: E731
    page = Template(read("templates/report.html")).substitute(
        title=escape(material.title),
        kind=escape(material.kind.capitalize()),
        style=read("templates/page.css"),
        script=read("static/draw.js") + read("templates/report.js"),
        figures=_figures(material),
        notes="".join(f"<li>{escape(note)}</li>" for note in material.notes),
        charts=_charts(material),
        classes=_class_rows(material),
        facts=_facts(material),
        data=_script_json(_data(material)),
    )
    return write_text(path, page)


def _figures(material: Material) -> str:
    """The headline: figures with their intervals."""
    metrics = material.metrics
    low, high = metrics["top1_interval_95"]
    items = [("Top-1", f"{metrics['top1']:.1%}", f"95 % interval {low:.1%} to {high:.1%}")]
    spread = metrics.get("top1_over_folds")
    if spread and spread.get("std") is not None:
        folds = len(metrics["folds"])
        items.append(
            ("Mean of folds", f"{spread['mean']:.1%}", f"± {spread['std']:.1%} (standard deviation of {folds} folds)")
        )
    items += [
        ("Top-5", f"{metrics['top5']:.1%}", f"of {metrics['clips']:,} clips, {metrics['classes']} classes"),
        ("Macro F1", f"{metrics['macro_f1']:.3f}", "mean over classes"),
        *([("Macro mAP", f"{found:.3f}", "mean average precision")] if (found := metrics.get("macro_map")) else []),
        ("Calibration error", f"{metrics['ece']:.3f}", "0 is best (ECE, 15 bins)"),
    ]
    return "".join(
        f'<div class="figure"><h3>{name}</h3><p class="value">{value}</p><p>{escape(note)}</p></div>'
        for name, value, note in items
    )


def _charts(material: Material) -> str:
    folds = material.metrics.get("folds") or {}
    parts = []
    if len(folds) > 1:
        parts.append(fold_chart(folds, material.metrics["top1_over_folds"]["mean"]))
    bins = reliability_bins(material.scores.targets, material.scores.probabilities)
    return "".join([*parts, reliability_chart(bins), training_charts(material.curves)])


def _class_rows(material: Material) -> str:
    rows = []
    for item in material.metrics["per_class"]:
        cells = "".join(
            f'<td data-value="{item[key]}"><span class="rail"><span class="fill" style="width:{item[key]:.0%}">'
            f"</span></span>{item[key]:.1%}</td>"
            for key in ("precision", "recall", "f1")
        )
        name = escape(item["class"].replace("_", " "))
        rows.append(
            f'<tr><th scope="row">{name}</th><td data-value="{item["support"]}">{item["support"]}</td>{cells}</tr>'
        )
    return "".join(rows)


def _facts(material: Material) -> str:
    """Settings, versions and fingerprints as a definition list."""
    shown = {k: v for k, v in material.metrics.items() if k not in _HEADLINE}
    return "".join(
        f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in flatten(shown) if value not in ("", "{}")
    )


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
    """What the script plots from."""
    config = material.spectrogram
    ticks: list[dict[str, Any]] = []
    if config:
        low, high = float(hz_to_mel(config.fmin_hz)), float(hz_to_mel(config.fmax))
        ticks = [
            {"label": hertz_label(hz), "position": round((float(hz_to_mel(hz)) - low) / (high - low), 4)}
            for hz in hertz_ticks(config, room=0.1)
        ]
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
        "ticks": ticks,
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
        "picture": "" if clip.image is None else grey_png(clip.image[..., 0]),
        "heat": "" if clip.saliency is None else grey_png(np.rint(255 * clip.saliency).astype(np.uint8), 128),
        "audio": f"data:audio/flac;base64,{base64.b64encode(clip.audio).decode()}" if clip.audio else "",
        "note": clip.note,
    }


def grey_png(levels: npt.NDArray[np.uint8], side: int = IMAGE_SIDE) -> str:
    """A data URI of `(H, W)` bytes as a PNG of at most `side` pixels."""
    shown: npt.NDArray[Any] = np.ascontiguousarray(levels)
    if max(shown.shape) > side:
        shown = cv2.resize(shown, (side, side), interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".png", shown, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    return "data:image/png;base64," + base64.b64encode(data.tobytes()).decode()


def _script_json(data: Mapping[str, Any]) -> str:
    """JSON that no clip's name can break out of."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
