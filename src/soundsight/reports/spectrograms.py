"""Spectrograms for people: seconds, hertz and decibels on the axes of what the model hears.

Every image is `spectrogram.render`, the same pixels that train and predict, rendered with axes; nothing is
computed twice. Images for the model itself have no axes and are made by `dataset`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import QuadMesh
from matplotlib.colorbar import Colorbar
from matplotlib.image import AxesImage
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, MultipleLocator

from soundsight.config import SpectrogramConfig
from soundsight.errors import ConfigError
from soundsight.reports.plots import INK, axes_at, label_bar, literal, new_figure, readable, save_figure, text_width_in
from soundsight.spectrogram import Image, Waveform, hz_to_mel, mel_to_hz, render

Levels = npt.NDArray[np.floating]  # dB, (bands, frames), lowest band first
TimedScores = tuple[float, float, Mapping[str, float]]  # start and end in seconds, probability by class

_COLOURS = "magma"
_SILENCE = "#000004"  # the darkest colour of magma
_MAX_COLUMNS = 6000  # a timeline needs no more columns than a wide print has dots


def plot_spectrogram(
    waveform: Waveform,
    config: SpectrogramConfig,
    path_or_ax: str | Path | Axes,
    *,
    title: str | None = None,
    channel: int = 0,
) -> AxesImage:
    """Plot one clip as the model gets it, with seconds, hertz (mel-spaced) and a dB colour bar.

    The waveform is mono float32 `(samples,)` in [-1, 1] at `config.sample_rate`; `render` cuts or pads it. Instead of a
    path (.png, .pdf, .svg), axes may be given to plot into, without a colour bar. `channel` is one of the three
    analysis windows, 0 to 2.
    """
    if not isinstance(path_or_ax, Axes):
        figure = new_figure(6.4, 3.6)
        figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08)
        axes = figure.subplots()
        axes.set_xlabel("time (s)", fontsize=9, color=INK)
        axes.set_ylabel("frequency (Hz, mel-spaced)", fontsize=9, color=INK)
        image = plot_spectrogram(waveform, config, axes, title=title, channel=channel)
        _level_bar(figure.colorbar(image, ax=axes, pad=0.02, fraction=0.05), config)
        save_figure(figure, path_or_ax)
        return image
    image = _show_clip(path_or_ax, waveform, config, channel)
    if title:
        path_or_ax.set_title(literal(title), fontsize=11, loc="left", color=INK)
    return image


def plot_saliency(
    image: Image,
    saliency: npt.NDArray[np.float32] | None,
    config: SpectrogramConfig,
    path: str | Path,
    *,
    title: str | None = None,
    start_seconds: float = 0.0,
    end_seconds: float | None = None,
    creator: str = "Soundsight",
) -> Path:
    """Plot an image, uint8 `(H, W, 3)`, and below it the same in grey under its saliency, float `(H, W)` in [0, 1].

    `config` are the settings that rendered it, `start_seconds` and `end_seconds` its place in its recording (`None`: a
    whole clip). See `save_figure` for `path` and `creator`.
    """
    if saliency is not None and image.shape[:2] != saliency.shape:
        raise ConfigError(
            f"A heat map of shape {saliency.shape} does not fit an image of shape {image.shape}; both need "
            "the same height and width."
        )
    figure = new_figure(7.2, 3.2 if saliency is None else 5.6)
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08)
    panels = figure.subplots(1 if saliency is None else 2, 1, sharex=True, squeeze=False)[:, 0]
    span, level = _span_seconds(config), image_db(image[..., 0], config)
    shown = (config.clip_seconds if end_seconds is None else end_seconds - start_seconds) or span
    bar = figure.colorbar(_show(panels[0], level, config, span), ax=panels[0], pad=0.02, fraction=0.05)
    label_bar(bar, "level (dB)")
    if saliency is not None:
        grey = _show(panels[1], level, config, span)
        grey.set_cmap("gray")
        grey.set_clim(config.db_floor, config.db_ceiling + 0.5 * (config.db_ceiling - config.db_floor))
        bar = figure.colorbar(_warm(panels[1], saliency, span), ax=panels[1], pad=0.02, fraction=0.05)
        label_bar(bar, "spoke for the class (1: most)")
    for axes in panels:
        axes.set_ylabel("frequency (Hz, mel-spaced)", fontsize=9, color=INK)
    _time_axis(panels[-1], shown)
    if start_seconds:
        panels[-1].set_xlabel(f"time (s) from {start_seconds:g} s of the recording", fontsize=9, color=INK)
    if title:
        panels[0].set_title(literal(title), fontsize=11, loc="left", color=INK)
    return save_figure(figure, path, creator=creator)


def plot_gallery(
    items: Sequence[tuple[str, Waveform]],
    config: SpectrogramConfig,
    path: str | Path,
    columns: int | None = None,
    *,
    channel: int = 0,
    creator: str = "Soundsight",
) -> Path:
    """Plot a contact sheet: one titled spectrogram an item, row by row, with common axes and one colour bar.

    50 items fill an A4 page; by default there are 5 panels a row, or as few as the items need. For the rest see
    `plot_spectrogram` and `save_figure`.
    """
    if not items:
        raise ConfigError("There is nothing to plot in the gallery; pass at least one title and waveform.")
    columns = columns or min(len(items), max(5, math.ceil(math.sqrt(len(items) / 2))))
    if not 1 <= columns <= 20:
        raise ConfigError(f"columns={columns} does not fit on a page; 1 to 20 is allowed.")
    rows = math.ceil(len(items) / columns)
    wide, tall, left, right, foot, head = 1.9, 1.25, 0.72, 0.85, 0.55, 0.32
    step_x, step_y = wide + 0.13, tall + 0.31
    width = left + columns * step_x + right
    height = head + rows * step_y + foot - 0.31
    figure = new_figure(width, height)
    for index, (title, waveform) in enumerate(items):
        row, column = divmod(index, columns)
        axes = axes_at(figure, left + column * step_x, height - head - tall - row * step_y, wide, tall)
        image = _show_clip(axes, waveform, config, channel)
        axes.set_title(readable(title), fontsize=9, pad=3, loc="left", color=INK)
        axes.tick_params(labelleft=column == 0, labelbottom=index + columns >= len(items), labelsize=7)
    middle = (left + columns * step_x / 2) / width
    figure.supxlabel("time (s)", x=middle, y=0.13 / height, fontsize=9, color=INK)
    figure.supylabel("frequency (Hz, mel-spaced)", x=0.1 / width, fontsize=9, color=INK)
    bar_in = min(4.0, height - head - foot)
    bar_axes = axes_at(figure, width - right, height - head - bar_in, 0.13, bar_in)
    _level_bar(figure.colorbar(image, cax=bar_axes), config)
    return save_figure(figure, path, dpi=150, creator=creator)


def plot_timeline(
    levels: Levels,
    windows: Sequence[TimedScores],
    classes: Sequence[str],
    config: SpectrogramConfig,
    path: str | Path,
    duration_seconds: float,
    *,
    title: str | None = None,
    creator: str = "Soundsight",
) -> Path:
    """Plot a recording and its predictions: spectrogram above, one probability strip per class below.

    Where windows overlap, a strip shows their mean; where there is none it is grey; a class that a window
    does not name counts as 0 there.

    Args:
        levels: dB `(bands, frames)` over the whole duration, lowest band first.
        windows: (start, end, {class: probability}), in seconds.
        classes: Strips to plot, top to bottom.
        config: The settings that made the levels.
        path: See `save_figure`, as for `creator`.
        duration_seconds: Length of the recording.
        title: Line above the image.
    """
    _check_windows(windows, classes, duration_seconds)
    if levels.ndim != 2 or not levels.size or levels.dtype.kind != "f":
        raise ConfigError(
            f"levels of shape {levels.shape} and type {levels.dtype} cannot be plotted: dB (bands, frames) are needed."
        )
    labels = [readable(name) for name in classes]
    figure = new_figure(1, 1)
    left, right = max(0.85, 0.2 + text_width_in(figure, labels, 8.5)), 1.0
    head, foot = 0.4 if title else 0.15, 0.5
    inner, upper, lower = 8.4, 2.3, 0.22 * len(classes)
    base = foot + lower + 0.2
    figure.set_size_inches(left + inner + right, base + upper + head)
    sound = axes_at(figure, left, base, inner, upper)
    image = _show(sound, levels, config, duration_seconds)
    sound.set_ylabel("frequency (Hz)", fontsize=9, color=INK)
    _level_bar(figure.colorbar(image, cax=axes_at(figure, left + inner + 0.15, base, 0.13, upper)), config)
    tracks = axes_at(figure, left, foot, inner, lower)
    edges, strips = probability_strips(windows, classes, duration_seconds)
    mesh = _show_strips(tracks, edges, strips, labels)
    bar = figure.colorbar(mesh, cax=axes_at(figure, left + inner + 0.15, foot, 0.13, lower))
    label_bar(bar, "probability" if lower > 0.8 else "prob.")
    bar.set_ticks([0, 0.5, 1] if lower > 0.4 else [0, 1])
    for axes in (sound, tracks):
        _time_axis(axes, duration_seconds)
    sound.tick_params(labelbottom=False)
    sound.set_xlabel("")
    if title:
        sound.set_title(literal(title), fontsize=11, loc="left", color=INK)
    return save_figure(figure, path, creator=creator)


def image_db(pixels: Image, config: SpectrogramConfig) -> Levels:
    """Levels in dB of one channel uint8 `(H, W)` of an image."""
    return config.db_floor + pixels[::-1] / 255.0 * (config.db_ceiling - config.db_floor)


def probability_strips(
    windows: Sequence[TimedScores], classes: Sequence[str], duration_seconds: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean probability of each class between every two window borders.

    Returns:
        Borders in seconds, float64 `(n + 1,)`, from 0 to the duration, and probabilities in [0, 1], float64
        `(classes, n)`, NaN where no window is.
    """
    times = [0.0, duration_seconds, *(time for start, end, _ in windows for time in (start, end))]
    edges = np.unique(np.clip(times, 0, duration_seconds))
    total = np.zeros((len(classes), len(edges) - 1))
    count = np.zeros(len(edges) - 1)
    for start, end, probabilities in windows:
        first, last = np.searchsorted(edges, np.clip((start, end), 0, duration_seconds))
        total[:, first:last] += np.array([probabilities.get(name, 0.0) for name in classes])[:, None]
        count[first:last] += 1
    return edges, np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _span_seconds(config: SpectrogramConfig) -> float:
    """Seconds that the columns of an image cover; the hop is a whole number of samples."""
    return config.image_size * config.hop_length / config.sample_rate


def _check_windows(windows: Sequence[TimedScores], classes: Sequence[str], duration_seconds: float) -> None:
    if not classes:
        raise ConfigError("There are no classes to draw; name at least one for the timeline.")
    if not (math.isfinite(duration_seconds) and duration_seconds > 0):
        raise ConfigError(f"duration_seconds={duration_seconds:g} cannot be plotted; it must be above 0.")
    for start, end, probabilities in windows:
        if not start < end:
            raise ConfigError(f"A window from {start:g} s to {end:g} s is empty; it must end after its start.")
        for name, value in probabilities.items():
            if not 0 <= value <= 1:
                raise ConfigError(f"{name!r} has probability {value:g} at {start:g} s; 0 to 1 is allowed.")


def _show_clip(axes: Axes, waveform: Waveform, config: SpectrogramConfig, channel: int) -> AxesImage:
    """Plot one channel of one clip into axes that span `config.clip_seconds`."""
    if channel not in (0, 1, 2):
        raise ConfigError(f"channel={channel} does not exist; 0, 1 or 2 is allowed, one for each window.")
    if np.ndim(waveform) != 1:
        raise ConfigError(
            f"A waveform of shape {np.shape(waveform)} cannot be plotted: mono `(samples,)` is needed; "
            "average its channels first."
        )
    pixels = render(np.asarray(waveform, np.float32), config)
    image = _show(axes, image_db(pixels[..., channel], config), config, _span_seconds(config))
    axes.set_xlim(0, config.clip_seconds)
    return image


def _show(axes: Axes, level: Levels, config: SpectrogramConfig, seconds: float) -> AxesImage:
    """Plot dB `(bands, frames)` over `seconds`, on an axis that is linear in mel and labelled in Hz."""
    low, high = float(hz_to_mel(config.fmin_hz)), float(hz_to_mel(config.fmax))
    image = axes.imshow(
        level, origin="lower", aspect="auto", cmap=_COLOURS, vmin=config.db_floor, vmax=config.db_ceiling,
        extent=(0, seconds, low, high),
    )  # fmt: skip
    axes.set_facecolor(_SILENCE)
    height_in = axes.get_figure().get_figheight() * axes.get_position().height  # type: ignore[union-attr]
    ticks = [float(hz_to_mel(hz)) for hz in hertz_ticks(config, spacing=0.11 / height_in)]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda mel, _: hertz_label(float(mel_to_hz(mel)))))
    axes.tick_params(labelsize=8, width=0.5, length=2.5, color=INK)
    for spine in axes.spines.values():
        spine.set_linewidth(0.5)
    return image


def _show_strips(
    axes: Axes, edges: npt.NDArray[np.float64], strips: npt.NDArray[np.float64], labels: Sequence[str]
) -> QuadMesh:
    """Plot one heat strip a class; hatched grey where it is NaN."""
    axes.set_facecolor("#e6e6e6")
    axes.patch.set(hatch="////", edgecolor="#bbbbbb")
    rows = np.arange(len(labels) + 1) - 0.5
    mesh = axes.pcolormesh(edges, rows, strips, cmap="Blues", vmin=0, vmax=1)
    axes.hlines(rows[1:-1], edges[0], edges[-1], colors="white", linewidth=1.5)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_yticks(range(len(labels)), labels, fontsize=8.5, color=INK)
    axes.tick_params(axis="y", length=0)
    return mesh


def hertz_ticks(config: SpectrogramConfig, *, spacing: float = 0.0) -> list[float]:
    """Frequencies in Hz to label: octaves from 125 Hz where four or more fit, else round numbers."""
    low, high = config.fmin_hz, config.fmax
    ticks = [hz for hz in (125.0 * 2**k for k in range(11)) if low <= hz <= high]
    if len(ticks) < 4:
        steps = MaxNLocator(nbins=6, steps=[1, 2, 5, 10]).tick_values(low, high)
        ticks = [float(hz) for hz in steps if low <= hz <= high]
    apart = spacing * float(hz_to_mel(high) - hz_to_mel(low))
    kept: list[float] = []
    for hz in reversed(ticks):
        if not kept or float(hz_to_mel(kept[-1]) - hz_to_mel(hz)) >= apart:
            kept.append(hz)
    return kept[::-1]


def tick_positions(config: SpectrogramConfig, *, spacing: float) -> list[dict[str, Any]]:
    """Labels of the frequency axis and their positions, as a share of its height from the bottom."""
    low, high = float(hz_to_mel(config.fmin_hz)), float(hz_to_mel(config.fmax))
    return [
        {"label": hertz_label(hz), "position": round((float(hz_to_mel(hz)) - low) / (high - low), 4)}
        for hz in hertz_ticks(config, spacing=spacing)
    ]


def hertz_label(hz: float) -> str:
    """Short text of a frequency: 250, 1k, 2.5k."""
    return f"{hz:.4g}" if hz < 999.5 else f"{hz / 1000:.4g}k"


def _time_axis(axes: Axes, duration_seconds: float) -> None:
    """Label time in seconds up to two minutes, then as minutes or hours."""
    axes.set_xlim(0, duration_seconds)
    axes.tick_params(axis="x", labelsize=8, width=0.5, length=2.5)
    unit = "s" if duration_seconds <= 120 else "min:s" if duration_seconds < 3600 else "h:min:s"
    axes.set_xlabel(f"time ({unit})", fontsize=9, color=INK)
    if unit == "s":
        axes.xaxis.set_major_locator(MaxNLocator(12, steps=[1, 2, 5, 10]))
        return
    steps = (10, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600)
    step = next((s for s in steps if duration_seconds / s <= 13), 86400)

    def clock(seconds: float, _: int) -> str:
        minutes, rest = divmod(round(seconds), 60)
        hours = f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
        return hours if unit == "h:min:s" else f"{minutes}:{rest:02d}"

    axes.xaxis.set_major_locator(MultipleLocator(step))
    axes.xaxis.set_major_formatter(FuncFormatter(clock))


def _level_bar(bar: Colorbar, config: SpectrogramConfig) -> None:
    reference = "loudest point" if config.reference == "clip" else "full scale"
    label_bar(bar, f"level (dB re {reference})")


def _warm(axes: Axes, saliency: npt.NDArray[np.float32], span: float) -> ScalarMappable:
    """Lay heat over an image, the more opaque the hotter; what a colour bar needs."""
    low, high = axes.get_ylim()
    warm = axes.imshow(
        saliency[::-1], origin="lower", aspect="auto", extent=(0, span, low, high), cmap="YlOrRd_r", vmin=0, vmax=1,
        alpha=np.clip(1.5 * saliency[::-1] - 0.25, 0, 0.9),
    )  # fmt: skip
    return ScalarMappable(warm.norm, warm.cmap)
