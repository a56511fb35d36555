"""Figures of a run: confusion matrix, reliability, training curves, figures per class.

Every figure is sized in inches for paper and written as PNG, PDF or SVG, whichever the path ends in. Rendered
with matplotlib's Figure and Agg canvas, never with pyplot: no window, no state between calls.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps, font_manager, rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter

from soundsight.backend import compat
from soundsight.detection import DetectionScores, precision_recall_curve
from soundsight.errors import ConfigError
from soundsight.files import printable, replacing
from soundsight.metrics import Scores, reliability_bins
from soundsight.reports.tables import read_results

FORMATS = (".png", ".pdf", ".svg")
INK, PALE = "#222222", "#dddddd"
BLUE, ORANGE, GREEN = "#0072b2", "#d55e00", "#009e73"  # Okabe and Ito's palette, told apart by colour-blind
# Names in Chinese, Japanese and Korean; whichever of these is installed comes after DejaVu Sans.
EASTERN_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Source Han Sans SC", "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei", "PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo", "Microsoft YaHei", "Yu Gothic",
    "Malgun Gothic", "SimHei", "Arial Unicode MS",
)  # fmt: skip
PANELS = {  # of training curves: columns and what they are
    "loss": {compat.TRAIN_LOSS: "train", compat.VAL_LOSS: "val"},
    "accuracy": {compat.TOP1: "top-1", compat.TOP5: "top-5"},
    "average precision": {compat.MACRO_MAP: "macro mAP", compat.MICRO_MAP: "micro mAP"},
    "learning rate": {compat.RATE: ""},
}
_POINTS = 72  # points an inch
_DIGIT = 0.636  # width of a DejaVu Sans digit in ems


def new_figure(width_in: float, height_in: float) -> Figure:
    """A white figure of a size in inches, bound to the Agg canvas."""
    figure = Figure(figsize=(width_in, height_in), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: str | Path, *, dpi: int = 200, creator: str = "Soundsight") -> Path:
    """Write a figure whole or not at all; the same figure gives the same bytes."""
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise ConfigError(f"{path} cannot be plotted: the name must end in {', '.join(FORMATS)}; rename the figure.")
    maker: dict[str, dict[str, str | None]] = {  # and no dates
        ".png": {"Software": creator},
        ".pdf": {"Creator": creator, "CreationDate": None},
        ".svg": {"Creator": creator, "Date": None},
    }
    for text in figure.findobj(Text):
        text.set_fontfamily(font_families())
    with replacing(path) as draft, rc_context({"svg.hashsalt": "soundsight", "pdf.fonttype": 42}):
        figure.savefig(draft, format=suffix[1:], dpi=dpi, metadata=maker[suffix])
    return path


@cache
def font_families() -> list[str]:
    """Matplotlib's own font, and those of this machine that know the letters which it lacks."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    found = [name for name in EASTERN_FONTS if name in installed]
    if found:  # some have one weight only, which matplotlib would mention for every text
        logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    return ["DejaVu Sans", *found]


def axes_at(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """New axes at a place given in inches from the lower left corner of the figure."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def literal(text: str, longest: int = 100) -> str:
    """Text as it stands, shortened, with `$` kept from starting a formula."""
    text = printable(text)
    text = text if len(text) <= longest else text[: longest - 1] + "…"
    return text.replace("$", r"\$")


def readable(name: str) -> str:
    """A class name as text on a figure: spaces for underscores, at most 32 characters."""
    return literal(name.replace("_", " "), 32)


def text_width_in(figure: Figure, names: Sequence[str], size: float) -> float:
    """Width in inches of the widest of `names` at a font size in points."""
    canvas = figure.canvas
    widths = [0.0]
    for name in names:
        text = figure.text(0, 0, name, fontsize=size, fontfamily=font_families())
        widths.append(text.get_window_extent(canvas.get_renderer()).width)  # type: ignore[attr-defined]
        text.remove()
    return max(widths) / figure.dpi


def plot_confusion(
    confusion: npt.ArrayLike,
    names: Sequence[str],
    path: str | Path,
    *,
    normalize: bool,
    title: str | None = None,
) -> Path:
    """Plot a confusion matrix: one row per true class, one column per predicted class.

    The figure grows with the number of classes, so that every name stays readable; 50 classes fill the
    width of an A4 page. Cells carry their number where it fits; empty cells stay empty.

    Args:
        confusion: Counts `(C, C)`, rows are true classes.
        names: The C class names.
        path: Where to write, as all plots: .png, .pdf or .svg.
        normalize: Show per cent of the true class instead of counts; a class without clips is grey.
        title: Line above the matrix.
    """
    counts = _check_confusion(confusion, names)
    size = len(names)
    support = counts.sum(axis=1, keepdims=True)
    cells: npt.NDArray[np.float64] = np.ma.masked_array(counts.astype(np.float64))
    if normalize:
        cells = np.ma.masked_array(100 * counts / np.maximum(support, 1), np.broadcast_to(support == 0, counts.shape))
    top = 100.0 if normalize else max(1.0, float(counts.max()))

    cell_in = max(min(0.45, 6.2 / size), min(0.11, 20 / size), 1.4 / size)
    font = max(5.0, min(9.0, 0.8 * cell_in * _POINTS))
    labels = [readable(name) for name in names]
    figure = new_figure(1, 1)
    left = 0.40 + text_width_in(figure, labels, font)
    bottom, head = left, 0.45 if title else 0.12
    right = 0.72 + 0.06 * max(0, len(f"{top:,.0f}") - 3)
    side = cell_in * size
    width, height = left + side + right, bottom + side + head
    figure.set_size_inches(width, height)
    axes = axes_at(figure, left, bottom, side, side)
    colours = colormaps["Blues"].with_extremes(bad="#eeeeee")
    image = axes.imshow(cells, cmap=colours, vmin=0, vmax=top, interpolation="nearest", aspect="auto")
    _confusion_axes(axes, labels, font, max(1, math.ceil(5.0 / (0.8 * cell_in * _POINTS))))
    _write_cells(axes, cells, top, cell_in * _POINTS)
    bar = figure.colorbar(image, cax=axes_at(figure, left + side + 0.14, bottom, 0.13, side))
    steps = [2, 5, 10] if normalize else [1, 2, 5, 10]
    bar.locator = MaxNLocator(max(2, min(8, round(side / 0.4))), integer=True, steps=steps)
    bar.formatter = StrMethodFormatter("{x:,.0f}")
    label_bar(bar, "% of the true class" if normalize else "clips")
    if title:
        figure.text(left / width, 1 - 0.2 / height, literal(title), fontsize=11, va="center", color=INK)
    return save_figure(figure, path, dpi=300 if size <= 60 else 200)


def label_bar(bar: Colorbar, text: str) -> None:
    """What a colour bar means, and its small ticks."""
    bar.set_label(text, fontsize=8, color=INK)
    bar.ax.tick_params(labelsize=7, width=0.5, length=2, color=INK)
    bar.outline.set_linewidth(0.5)  # type: ignore[operator]


def _percent(*axes: Axis) -> None:
    for axis in axes:
        axis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))


def _check_confusion(confusion: npt.ArrayLike, names: Sequence[str]) -> npt.NDArray[np.int64]:
    counts = np.asarray(confusion)
    if not len(names) or counts.shape != (len(names), len(names)):
        raise ConfigError(
            f"A confusion matrix of shape {counts.shape} does not fit {len(names)} class names; "
            "it needs one row and one column per class."
        )
    if counts.dtype.kind not in "iu" or counts.min() < 0:
        raise ConfigError(
            f"The confusion matrix must hold counts (whole numbers from 0), but it is {counts.dtype} with a "
            f"smallest value of {counts.min():g}; pass counts and set normalize instead."
        )
    return counts.astype(np.int64)


def _confusion_axes(axes: Axes, labels: Sequence[str], font: float, step: int) -> None:
    size = len(labels)
    ticks = np.arange(0, size, step)
    axes.set_xticks(ticks, labels[::step], rotation=90, fontsize=font, color=INK)
    axes.set_yticks(ticks, labels[::step], fontsize=font, color=INK)
    axes.tick_params(length=2, width=0.5, pad=2, color=INK)
    axes.set_xlabel("predicted", fontsize=font + 1, color=INK)
    axes.set_ylabel("true", fontsize=font + 1, color=INK)
    for spine in axes.spines.values():
        spine.set_linewidth(0.5)
    if size <= 120:
        lines = np.arange(0.5, size - 1)
        axes.hlines(lines, -0.5, size - 0.5, colors=PALE, linewidth=0.3)
        axes.vlines(lines, -0.5, size - 0.5, colors=PALE, linewidth=0.3)


def _write_cells(axes: Axes, cells: npt.NDArray[np.float64], top: float, cell_points: float) -> None:
    """Write rounded numbers into cells that are not empty, each as large as its cell allows."""
    filled = np.ma.filled(cells, 0)
    if cell_points < 7:
        return
    for row, column in np.argwhere(filled > 0):
        text = str(math.floor(filled[row, column] + 0.5)) if filled[row, column] >= 0.5 else "<1"
        font = min(10.0, 0.62 * cell_points, 0.9 * cell_points / (_DIGIT * len(text)))
        if font >= 3.5:
            ink = "white" if filled[row, column] > 0.5 * top else INK
            axes.text(column, row, text, ha="center", va="center_baseline", fontsize=font, color=ink)


def plot_reliability(scores: Scores, path: str | Path) -> Path:
    """Plot how far confidence can be believed: accuracy by confidence, and how often each occurs.

    On the diagonal, clips given with 80 % confidence are right 80 % of the time; below it the model is too
    sure of itself (Guo et al., 2017, figure 1).
    """
    bins = reliability_bins(scores.targets, scores.probabilities)
    used = bins.count > 0
    width = np.diff(bins.edges)[used]
    left = bins.edges[:-1][used]
    figure = new_figure(4.2, 5.4)
    grid = figure.add_gridspec(2, 1, height_ratios=(3, 1), hspace=0.09, left=0.18, right=0.93, top=0.94, bottom=0.21)
    upper = figure.add_subplot(grid[0])
    lower = figure.add_subplot(grid[1], sharex=upper)
    gap = bins.confidence[used] - bins.accuracy[used]
    style: dict[str, Any] = {"align": "edge", "linewidth": 0.6}
    upper.bar(left, bins.accuracy[used], width, color=BLUE, edgecolor="white", label="accuracy", **style)
    upper.bar(
        left, gap, width, bottom=bins.accuracy[used], color="none", edgecolor=ORANGE, hatch="////",
        label="gap to confidence", **style,
    )  # fmt: skip
    upper.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle="--", label="perfect calibration")
    upper.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    upper.tick_params(labelbottom=False)
    clips = "1 clip" if scores.count == 1 else f"{scores.count:,} clips"
    upper.set_title(f"ECE {100 * scores.ece:.1f} %  ({len(bins.count)} bins, {clips})", fontsize=10, color=INK)
    lower.bar(left, bins.count[used] / scores.count, width, color=BLUE, edgecolor="white", **style)
    confidence = float(scores.probabilities.max(axis=1).mean())
    lower.axvline(scores.top1, color=INK, linewidth=1.2, clip_on=False, label=f"accuracy {100 * scores.top1:.1f} %")
    mean = f"mean confidence {100 * confidence:.1f} %"
    lower.axvline(confidence, color=ORANGE, linewidth=1.2, linestyle="--", label=mean)
    figure.legend(loc="lower center", ncols=2, fontsize=8, frameon=False)
    lower.set(xlabel="confidence (probability of the predicted class)", ylabel="share of clips")
    _percent(upper.yaxis, lower.xaxis, lower.yaxis)
    for axes in (upper, lower):
        _tidy(axes)
    figure.align_ylabels()
    return save_figure(figure, path)


def _tidy(axes: Axes) -> None:
    """Thin frame, open at the top and the right; small ticks."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8, width=0.5, length=2.5)
    for spine in axes.spines.values():
        spine.set_linewidth(0.6)
    axes.xaxis.label.set_fontsize(9)
    axes.yaxis.label.set_fontsize(9)


def plot_per_class(scores: Scores, path: str | Path) -> Path:
    """Plot F1 of every class as a bar, best first, with precision and recall as marks."""
    f1, precision, recall, support = scores.f1, scores.precision, scores.recall, scores.support
    order = sorted(range(len(scores.names)), key=lambda i: (-f1[i], scores.names[i]))
    labels = [readable(scores.names[i]) + ("" if support[i] else " (no clips)") for i in order]
    rows, macro = np.arange(len(order)), f"macro F1 {100 * scores.macro_f1:.1f} %"
    row_in = 0.155 if len(order) > 20 else 0.22
    font = 7.5 if len(order) > 20 else 9
    figure = new_figure(1, 1)
    left, right, head, foot = 0.25 + text_width_in(figure, labels, font), 0.35, 0.45, 0.35
    width, height = left + 4.6 + right, head + row_in * len(order) + foot
    figure.set_size_inches(width, height)
    axes = axes_at(figure, left, foot, 4.6, height - head - foot)
    handles = [
        axes.barh(rows, f1[order], height=0.72, color="#9ecae1", label="F1"),
        *axes.plot(precision[order], rows, "|", color=BLUE, markersize=7, markeredgewidth=1.6, label="precision"),
        *axes.plot(recall[order], rows, "o", color=ORANGE, markersize=3.2, label="recall"),
        axes.axvline(scores.macro_f1, color=INK, linewidth=0.9, linestyle="--", label=macro),
    ]
    axes.set(xlim=(0, 1.01), ylim=(len(order) - 0.4, -0.6))
    _percent(axes.xaxis)
    axes.xaxis.grid(True, color=PALE, linewidth=0.5)
    axes.set_axisbelow(True)
    _tidy(axes)
    axes.set_yticks(rows, labels, fontsize=font, color=INK)
    axes.tick_params(axis="y", length=0)
    axes.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0, 1 + 0.06 / (row_in * len(order))), ncols=4,
        fontsize=8, frameon=False, borderaxespad=0, columnspacing=1.2, handletextpad=0.5,
    )  # fmt: skip
    return save_figure(figure, path)


def plot_precision_recall(scores: DetectionScores, path: str | Path) -> Path:
    """Plot precision by recall, of all pairs of clip and class together and, pale, of each class that has clips."""
    figure = new_figure(4.2, 4.2)
    axes = figure.add_axes((0.16, 0.13, 0.78, 0.72))
    each = draw_precision_recall(axes, scores, BLUE, PALE, 0.8)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.01))
    axes.set_title(
        f"macro mAP {scores.macro_map:.3f} (pale: {len(each)} classes)\nmicro mAP {scores.micro_map:.3f} (blue)",
        fontsize=10, color=INK,
    )  # fmt: skip
    _percent(axes.xaxis, axes.yaxis)
    _tidy(axes)
    return save_figure(figure, path)


def draw_precision_recall(
    axes: Axes, scores: DetectionScores, colour: str, pale: str, width: float
) -> dict[int, Line2D]:
    """See `plot_precision_recall`; the pale lines, by class."""
    lines = {}
    for c in map(int, np.flatnonzero(scores.support)):
        curve = precision_recall_curve(scores.targets[:, c], scores.probabilities[:, c])
        (lines[c],) = axes.plot(curve.recall, curve.precision, color=pale, linewidth=width, label="_")
    if lines:
        curve = precision_recall_curve(scores.targets.ravel(), scores.probabilities.ravel())
        axes.plot(curve.recall, curve.precision, color=colour, linewidth=1.8)
    return lines


def plot_training_curves(results_csv: str | Path, path: str | Path) -> Path:
    """Plot loss, accuracy and learning rate by epoch from the results.csv that Ultralytics writes."""
    table = read_results(results_csv)
    rates = [name for name in table if name.startswith(compat.RATES)]
    distinct = [n for i, n in enumerate(rates) if all(table[n] != table[m] for m in rates[:i])]
    groups = {n: n.removeprefix(compat.RATES) if len(distinct) > 1 else "" for n in distinct}
    rendered = {}
    for title, lines in {**PANELS, "learning rate": groups}.items():
        if known := {n: label for n, label in lines.items() if any(map(math.isfinite, table.get(n, [])))}:
            rendered[title] = known
    if not rendered:
        raise ConfigError(
            f"{results_csv} has no curve to draw: none of {compat.TRAIN_LOSS}, {compat.VAL_LOSS}, {compat.TOP1} and "
            f"{compat.RATE} holds a number; name the results.csv of a classifier."
        )
    figure = new_figure(3.1 * len(rendered), 2.7)
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08)
    for axes, (title, lines) in zip(figure.subplots(1, len(rendered), squeeze=False)[0], rendered.items(), strict=True):
        for (name, label), colour in zip(lines.items(), (BLUE, ORANGE, GREEN, INK) * len(lines), strict=False):
            marker = "o" if len(table[compat.EPOCH]) <= 30 else ""
            axes.plot(table[compat.EPOCH], table[name], color=colour, linewidth=1.3, marker=marker, ms=2.5, label=label)
        axes.set_title(title, fontsize=10, color=INK)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.grid(True, color=PALE, linewidth=0.5)
        if title == "accuracy":
            _percent(axes.yaxis)
            axes.set_ylim(0, 1)
        else:
            axes.set_ylim(bottom=0)
        if any(lines.values()):
            axes.legend(fontsize=8, frameon=False)
        _tidy(axes)
    return save_figure(figure, path)
