"""Calls per hour and day as a figure: a row of days and 24 hours for each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path

import numpy as np
from matplotlib.ticker import MaxNLocator

from soundsight.errors import ConfigError
from soundsight.reports.plots import INK, axes_at, new_figure, readable, save_figure

Hour = tuple[date, int]
MOST_CLASSES, MOST_DAYS = 12, 400


def plot_activity(
    names: Sequence[str],
    recorded: Mapping[Hour, float],
    counts: Mapping[tuple[str, Hour], int],
    path: str | Path,
    *,
    creator: str = "Soundsight",
) -> Path:
    """Plot detections by hour and day; hours without a recording are hatched.

    Args:
        names: Classes, a panel each.
        recorded: Minutes of each recorded hour.
        counts: Detections of each class in each hour.
        path: Where to write: .png, .pdf or .svg.
        creator: See `save_figure`.

    Raises:
        ConfigError: There are too many classes or days for a figure.
    """
    first, last = min(day for day, _ in recorded), max(day for day, _ in recorded)
    days = [first + timedelta(number) for number in range((last - first).days + 1)]
    if len(days) > MOST_DAYS or len(names) > MOST_CLASSES:
        raise ConfigError(
            f"{len(days)} days and {len(names)} classes do not fit on a figure: {MOST_DAYS} and {MOST_CLASSES} at most "
            "do; choose classes with --classes, or plot the table."
        )
    tall = min(4.0, max(0.5, 0.16 * len(days)))
    left, wide, right, gap, foot, head = 0.95, 6.0, 1.1, 0.45, 0.5, 0.3
    height = head + len(names) * (tall + gap) - gap + foot
    figure = new_figure(left + wide + right, height)
    there = np.zeros((len(days), 24), bool)
    for day, hour in recorded:
        there[(day - first).days, hour] = True
    for panel, name in enumerate(names):
        grid = np.zeros((len(days), 24))
        for (label, (day, hour)), count in counts.items():
            if label == name:
                grid[(day - first).days, hour] = count
        bottom = height - head - (panel + 1) * tall - panel * gap
        axes = axes_at(figure, left, bottom, wide, tall)
        axes.set_facecolor("#e6e6e6")
        axes.patch.set(hatch="////", edgecolor="#bbbbbb")
        most = max(1.0, grid.max())
        mesh = axes.pcolormesh(
            np.arange(25),
            np.arange(len(days) + 1) - 0.5,
            np.where(there, grid, np.nan),
            cmap="Blues",
            vmin=0,
            vmax=most,
        )
        axes.set_title(readable(name), fontsize=10, loc="left", color=INK, pad=4)
        axes.set_xlim(0, 24)
        axes.set_ylim(len(days) - 0.5, -0.5)
        axes.set_xticks(range(0, 25, 3), [f"{hour}:00" for hour in range(0, 25, 3)] if panel == len(names) - 1 else [])
        step = max(1, round(len(days) * 0.16 / tall))
        shown = range(0, len(days), step)
        axes.set_yticks(shown, [days[number].isoformat() for number in shown])
        axes.tick_params(labelsize=7.5, width=0.5, length=2.5, color=INK)
        bar = figure.colorbar(mesh, cax=axes_at(figure, left + wide + 0.15, bottom, 0.13, tall))
        bar.locator = MaxNLocator(nbins=min(5, max(1, int(tall / 0.2))), integer=True)
        bar.update_ticks()
        bar.ax.tick_params(labelsize=7, width=0.5, length=2, color=INK)
        bar.outline.set_linewidth(0.5)
    figure.supxlabel("hour of the day", fontsize=9, color=INK, y=0.1 / height)
    figure.text(
        (left + wide + 0.95) / (left + wide + right), 0.5, "detections per hour (hatched: not recorded)", rotation=90,
        fontsize=8, color=INK, va="center", ha="right",
    )  # fmt: skip
    return save_figure(figure, path, creator=creator)
