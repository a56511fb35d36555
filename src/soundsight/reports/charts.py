"""Small charts as SVG text for the page of a report; their colours are the page's own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from soundsight.backend import compat
from soundsight.metrics import ReliabilityBins

Curves = Mapping[str, Mapping[str, Sequence[float]]]  # run: column of results.csv: values

_WIDTH, _HEIGHT = 340, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 14, 34

PANELS = {
    "Loss": {compat.TRAIN_LOSS: "train", compat.VAL_LOSS: "val"},
    "Accuracy": {compat.TOP1: "top-1", compat.TOP5: "top-5"},
    "Learning rate": {compat.RATE: ""},
}


def training_charts(curves: Curves) -> str:
    """Loss, accuracy and learning rate by epoch; several runs are laid on top of each other."""
    charts = []
    for title, columns in PANELS.items():
        series = []
        for run, table in curves.items():
            for kind, (column, label) in enumerate(columns.items()):
                known = _measured(column, table.get(column, ()))
                if sum(map(math.isfinite, known)) > 1:
                    name = label if len(curves) == 1 else f"{run} {label}".strip()
                    series.append((name, table[compat.EPOCH], known, kind))
        if series:
            charts.append(line_chart(title, series, share=title == "Accuracy", legend=list(columns.values())))
    return "".join(charts)


def _measured(column: str, values: Sequence[float]) -> list[float]:
    """Values of a column; where an epoch was not validated, Ultralytics writes 0, which is no measurement."""
    validated = column.startswith(compat.VALIDATED)
    return [math.nan if validated and v == 0 else v for v in values]


def line_chart(
    title: str,
    series: Sequence[tuple[str, Sequence[float], Sequence[float], int]],
    *,
    share: bool = False,
    legend: Sequence[str] = (),
) -> str:
    """Lines over epochs.

    Args:
        title: Heading.
        series: (name, x values, y values, number of the colour); names are shown when pointed at.
        share: y is 0 to 1, written in per cent.
        legend: Name of each colour.
    """
    xs = [x for _, across, _, _ in series for x in across if math.isfinite(x)]
    ys = [y for _, _, up, _ in series for y in up if math.isfinite(y)]
    right, top = max(xs, default=1), 1.0 if share else max(ys, default=1.0) * 1.05 or 1.0
    left = min(xs, default=0)
    place_x = lambda x: _LEFT + (x - left) / max(right - left, 1e-9) * (_WIDTH - _LEFT - _RIGHT)  # noqa: E731
    place_y = lambda y: _HEIGHT - _BOTTOM - y / top * (_HEIGHT - _TOP - _BOTTOM)  # noqa: E731
    parts = [_grid_y(top, place_y, share)]
    for x in _round_marks(left, right, 6):
        parts.append(f'<text class="mark" x="{place_x(x):.1f}" y="{_HEIGHT - 18}" text-anchor="middle">{x:g}</text>')
    for name, across, up, kind in series:
        points = " ".join(
            f"{place_x(x):.1f},{place_y(y):.1f}" for x, y in zip(across, up, strict=False) if math.isfinite(y)
        )
        parts.append(f'<polyline class="line c{kind}" points="{points}"><title>{escape(name)}</title></polyline>')
    parts.append(_axis_name("epoch"))
    keys = "".join(f'<span class="key c{i}">{escape(name)}</span>' for i, name in enumerate(legend) if name)
    if len({kind for *_, kind in series}) < 2:
        keys = ""
    return _figure(title, "".join(parts), keys)


def reliability_chart(bins: ReliabilityBins) -> str:
    """Accuracy by confidence; on the diagonal, confidence can be believed."""
    side_x = lambda x: _LEFT + x * (_WIDTH - _LEFT - _RIGHT)  # noqa: E731
    side_y = lambda y: _HEIGHT - _BOTTOM - y * (_HEIGHT - _TOP - _BOTTOM)  # noqa: E731
    parts = [_grid_y(1.0, side_y, True)]
    for low, high, count, accuracy, confidence in zip(
        bins.edges[:-1], bins.edges[1:], bins.count, bins.accuracy, bins.confidence, strict=True
    ):
        if not count:
            continue
        text = f"{count} clips: mean confidence {confidence:.1%}, accuracy {accuracy:.1%}"
        parts.append(
            f'<rect class="bar" x="{side_x(low) + 1:.1f}" width="{side_x(high) - side_x(low) - 2:.1f}" '
            f'y="{side_y(accuracy):.1f}" height="{side_y(0) - side_y(accuracy):.1f}"><title>{text}</title></rect>'
        )
    parts.append(f'<path class="even" d="M{side_x(0)} {side_y(0)}L{side_x(1)} {side_y(1)}"/>')
    for x, anchor in ((0, "middle"), (0.5, "middle"), (1, "end")):
        parts.append(f'<text class="mark" x="{side_x(x):.1f}" y="{_HEIGHT - 18}" text-anchor="{anchor}">{x:.0%}</text>')
    parts.append(_axis_name("confidence"))
    return _figure("Accuracy by confidence", "".join(parts), "")


def fold_chart(folds: Mapping[str, Mapping[str, float]], mean: float) -> str:
    """Top-1 of each fold as a bar, and their mean as a line."""
    place_y = lambda y: _HEIGHT - _BOTTOM - y * (_HEIGHT - _TOP - _BOTTOM)  # noqa: E731
    step = (_WIDTH - _LEFT - _RIGHT) / len(folds)
    parts = []
    for y in (0, 0.25, 0.5, 0.75, 1):
        parts.append(_gridline(place_y(y), f"{y:.0%}"))
    for index, (fold, scores) in enumerate(folds.items()):
        x, y = _LEFT + index * step, place_y(scores["top1"])
        parts.append(
            f'<rect class="bar" x="{x + 0.18 * step:.1f}" width="{0.64 * step:.1f}" y="{y:.1f}" '
            f'height="{_HEIGHT - _BOTTOM - y:.1f}"><title>fold {escape(fold)}: {scores["top1"]:.2%}</title></rect>'
        )
        if len(folds) <= 10:
            label = f'<text class="mark" x="{x + step / 2:.1f}" y="{y - 4:.1f}" text-anchor="middle">'
            parts.append(f"{label}{scores['top1']:.1%}</text>")
        parts.append(
            f'<text class="mark" x="{x + step / 2:.1f}" y="{_HEIGHT - 18}" text-anchor="middle">{escape(fold)}</text>'
        )
    parts.append(
        f'<path class="even" d="M{_LEFT} {place_y(mean):.1f}H{_WIDTH - _RIGHT}"><title>mean {mean:.2%}</title></path>'
    )
    parts.append(_axis_name("fold"))
    return _figure("Top-1 of each fold", "".join(parts), "")


def confusion_order(confusion: np.ndarray) -> list[int]:
    """Classes in an order that brings those which are confused with each other together.

    The order of the Fiedler vector: the second eigenvector of the Laplacian of how often two classes are
    mistaken for one another (Atkins, Boman and Hendrickson, SIAM J. Comput. 28, 1998).
    """
    mistaken = (confusion + confusion.T).astype(np.float64)
    np.fill_diagonal(mistaken, 0)
    mistaken += 1e-3 * max(1.0, mistaken.max()) / len(mistaken)  # classes that are never confused hang together
    laplacian = np.diag(mistaken.sum(axis=1)) - mistaken
    _, vectors = np.linalg.eigh(laplacian)
    if len(confusion) < 3:
        return list(range(len(confusion)))
    return [int(i) for i in np.argsort(vectors[:, 1], kind="stable")]


def _figure(title: str, content: str, keys: str) -> str:
    return (
        f'<figure class="chart"><figcaption>{escape(title)} <span class="keys">{keys}</span></figcaption>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">{content}</svg></figure>'
    )


def _axis_name(text: str) -> str:
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    return f'<text class="mark" x="{middle:.0f}" y="{_HEIGHT - 3}" text-anchor="middle">{text}</text>'


def _grid_y(top: float, place: object, share: bool) -> str:
    marks = [0, 0.25, 0.5, 0.75, 1.0] if share else _round_marks(0, top, 5)
    return "".join(_gridline(place(y), f"{y:.0%}" if share else f"{y:g}") for y in marks)  # type: ignore[operator]


def _gridline(y: float, label: str) -> str:
    return (
        f'<path class="grid" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>'
        f'<text class="mark" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
    )


def _round_marks(low: float, high: float, count: int) -> list[float]:
    """Round numbers from `low` to `high`, about `count` of them."""
    span = max(high - low, 1e-12)
    size = 10 ** math.floor(math.log10(span / count))
    step = next((size * k for k in (1, 2, 5) if span / (size * k) <= count), size * 10)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]
