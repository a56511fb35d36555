"""Small charts for the pages of reports: matplotlib's SVG in the page's own colours and font."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from soundsight.backend import compat
from soundsight.detection import DetectionScores
from soundsight.metrics import ReliabilityBins
from soundsight.reports.plots import PANELS, axes_at, draw_precision_recall, literal, new_figure

Curves = Mapping[str, Mapping[str, Sequence[float]]]  # run: column of results.csv: values

WIDTH, HEIGHT = 340, 220  # SVG units
SOFT, LINE = "#68626f", "#e4dfe6"
SERIES = ("#7a2182", "#d55e00")
# Colours of a figure, and the variables of pages.css that stand in for them, so that a page can be dark.
VARIABLES = {SOFT: "var(--soft)", LINE: "var(--line)", SERIES[0]: "var(--one)", SERIES[1]: "var(--two)"}


class Chart(NamedTuple):
    """A chart as the templates show it."""

    title: str
    svg: str  # empty if there is nothing to plot
    note: str = ""
    value: str = ""  # instead of a chart, where all values are equal or there are none


def training_charts(curves: Curves) -> list[Chart]:
    """Loss, accuracy and learning rate by epoch; several runs are laid on top of each other."""
    charts = []
    for panel, columns in PANELS.items():
        title, series = panel.capitalize(), []
        for run, table in curves.items():
            for number, (column, label) in enumerate(columns.items()):
                known = _measured(column, table.get(column, ()))
                if sum(map(math.isfinite, known)) > 1:
                    series.append((f"{run} {label}".strip(), label, table[compat.EPOCH], known, number))
        if series:
            charts.append(line_chart(title, series, share=title in ("Accuracy", "Average precision")))
    return charts


def _measured(column: str, values: Sequence[float]) -> list[float]:
    """Values of a column; where an epoch was not validated, Ultralytics writes 0, which is no measurement."""
    validated = column.startswith(compat.VALIDATED)
    return [math.nan if validated and v == 0 else v for v in values]


def line_chart(
    title: str, series: Sequence[tuple[str, str, Sequence[float], Sequence[float], int]], *, share: bool = False
) -> Chart:
    """Lines over epochs, each (name, shown when pointed at; label of the legend; x; y; number of the colour).

    With `share` y is 0 to 1, written in per cent.
    """
    axes = _axes(share=share)
    labelled: set[str] = {""}
    for name, label, across, up, number in series:
        points = [(x, y) for x, y in zip(across, up, strict=False) if math.isfinite(y)]
        (line,) = axes.plot(*zip(*points, strict=True), color=SERIES[number], linestyle=("-", (0, (4, 2)))[number])
        line.set(linewidth=1.8, label="_" if label in labelled else label)
        _tooltip(line, name)
        labelled.add(label)
    axes.set_ylim(0, None if not share else 1)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("epoch")
    if len(labelled) > 2:
        axes.legend(
            frameon=False, fontsize=11, labelcolor=SOFT, ncols=2, loc="lower right", bbox_to_anchor=(1.03, 0.97)
        )
    return Chart(title, svg_text(axes, title))


def reliability_chart(bins: ReliabilityBins) -> Chart:
    """Accuracy by confidence; on the diagonal, confidence can be believed."""
    axes = _axes(share=True)
    axes.plot([0, 1], [0, 1], color=SOFT, linestyle=(0, (4, 4)), linewidth=1)
    bars = axes.bar(bins.edges[:-1], bins.accuracy, np.diff(bins.edges) - 0.007, align="edge", color=SERIES[0])
    for bar, count, accuracy, confidence in zip(bars, bins.count, bins.accuracy, bins.confidence, strict=True):
        _tooltip(bar, f"{count} clips: mean confidence {confidence:.1%}, accuracy {accuracy:.1%}")
        bar.set_visible(bool(count))
    axes.set(xlim=(0, 1), xlabel="confidence")
    axes.xaxis.set_major_locator(MaxNLocator(2))
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    return Chart("Accuracy by confidence", svg_text(axes, "Accuracy by confidence"))


def precision_recall_chart(scores: DetectionScores) -> Chart:
    """Precision by recall, of all pairs of clip and class together and, pale, of each class that has clips."""
    axes, title = _axes(share=True), "Precision by recall"
    for c, line in draw_precision_recall(axes, scores, SERIES[0], LINE, 1.4).items():
        _tooltip(line, f"{scores.names[c]}: {scores.average_precision[c]:.3f}")
    axes.set(xlim=(0, 1), xlabel="recall")
    axes.xaxis.set_major_locator(MaxNLocator(2))
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    return Chart(title, svg_text(axes, title), "of all classes together; pale: of each class")


def fold_chart(folds: Mapping[str, Mapping[str, float]], key: str, name: str) -> Chart:
    """A figure of each fold as a bar, and their mean as a line."""
    axes = _axes(share=True)
    top1 = [scores[key] for scores in folds.values()]
    mean, title = float(np.mean(top1)), f"{name} of each fold"
    bars = axes.bar(list(map(literal, folds)), top1, 0.64, color=SERIES[0])
    for bar, (fold, scores) in zip(bars, folds.items(), strict=True):
        _tooltip(bar, f"fold {fold}: {scores[key]:.2%}")
    if len(folds) <= 10:
        axes.bar_label(bars, [f"{share:.1%}" for share in top1], fontsize=11, color=SOFT, padding=2)
    _tooltip(axes.axhline(mean, color=SOFT, linestyle=(0, (4, 4)), linewidth=1), f"mean {mean:.2%}")
    axes.set_xlabel("fold")
    return Chart(title, svg_text(axes, title))


def histogram(title: str, unit: str, values: Sequence[float], note: str = "") -> Chart:
    """How often values occur; where all are equal, their one value instead of a chart."""
    found = np.asarray(values, np.float64)
    found = found[np.isfinite(found)]
    if not len(found):
        return Chart(title, "", note, "none")
    if math.isclose(found.min(), found.max(), abs_tol=1e-9):
        return Chart(title, "", note, f"{found[0]:,.4g} {unit}".strip() + f" for all {len(found):,}")
    axes = _axes()
    counts, edges, bars = axes.hist(found, bins=24, rwidth=0.93, color=SERIES[0])
    for bar, count, low, high in zip(bars.patches, counts, edges, edges[1:], strict=False):  # type: ignore[union-attr]
        _tooltip(bar, f"{low:.4g} to {high:.4g} {unit}: {count:,.0f}")
    axes.set_xlabel(unit)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    return Chart(title, svg_text(axes, title), note)


def _axes(*, share: bool = False) -> Axes:
    """Axes with horizontal lines only; `share`: the vertical axis is 0 to 1, in per cent."""
    figure = new_figure(WIDTH / 72, HEIGHT / 72)
    axes = axes_at(figure, 46 / 72, 40 / 72, (WIDTH - 58) / 72, (HEIGHT - 62) / 72)
    axes.spines[:].set_visible(False)
    axes.grid(axis="y", color=LINE, linewidth=1)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=11, labelcolor=SOFT, pad=6)
    axes.xaxis.label.set(fontsize=11, color=SOFT)
    if share:
        axes.set_ylim(0, 1)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    return axes


def _tooltip(artist: Artist, text: str) -> None:
    """Text that a browser shows when an artist is pointed at."""
    artist.set_gid(f"tooltip:{text}")


def svg_text(axes: Axes, label: str) -> str:
    """The figure of some axes as an `<svg>` to stand in a page: no ids, no fonts and no colours of its own."""
    figure: Any = axes.figure
    figure.patch.set_visible(False)
    axes.patch.set_visible(False)
    for artist in figure.findobj():
        artist.set_clip_on(False)
    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg")
    text = buffer.getvalue()
    text = text[text.index("<g ") : text.rindex("</svg>")]
    text = re.sub(r'<g id="tooltip:([^"]*)">', r"<g><title>\1</title>", text)
    text = re.sub(r'<g id="[^"]*"/>\s*|(?<=<g) id="[^"]*"| transform="rotate\(-0 [^"]*"', "", text)
    text = re.sub(r"font: ([\d.]+px) [^;]*;", r"font-size: \1;", text)  # before matplotlib 3.11
    text = re.sub(r"font-family: [^;]*; ", "", text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, variable)
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{text}</svg>'


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
