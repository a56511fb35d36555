"""Heat maps over a spectrogram, with seconds and hertz on the axes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable

from soundsight.config import SpectrogramConfig
from soundsight.errors import ConfigError
from soundsight.reports.plots import INK, label_bar, literal, new_figure, save_figure
from soundsight.reports.spectrograms import _show, _span_seconds, _time_axis, image_db
from soundsight.spectrogram import Image


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
    """Plot an image, and below it the same in grey with the heat on top.

    Args:
        image: uint8 `(H, W, 3)`, as `render` makes it.
        saliency: float `(H, W)` in [0, 1]; `None` plots the image alone.
        config: The settings that rendered the image.
        path: Where to write: .png, .pdf or .svg.
        title: Line above.
        start_seconds: Where in its recording the image begins.
        end_seconds: Where its sound ends; `None` is a whole clip.
        creator: See `save_figure`.
    """
    if saliency is not None and image.shape[:2] != saliency.shape:
        raise ConfigError(
            f"A heat map of shape {saliency.shape} does not fit a picture of shape {image.shape}; both need "
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


def _warm(axes: Axes, saliency: npt.NDArray[np.float32], span: float) -> ScalarMappable:
    """Lay heat over an image, the more opaque the hotter; what a colour bar needs."""
    low, high = axes.get_ylim()
    warm = axes.imshow(
        saliency[::-1], origin="lower", aspect="auto", extent=(0, span, low, high), cmap="YlOrRd_r", vmin=0, vmax=1,
        alpha=np.clip(1.5 * saliency[::-1] - 0.25, 0, 0.9),
    )  # fmt: skip
    return ScalarMappable(warm.norm, warm.cmap)
