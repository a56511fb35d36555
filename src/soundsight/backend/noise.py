"""Recordings of background as images, to be mixed into those of a training; see `augment.mix_noise`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from soundsight import audio
from soundsight.config import SpectrogramConfig
from soundsight.errors import AudioError, ConfigError
from soundsight.spectrogram import render

MOST_SEGMENTS = 512  # kept in memory: 77 MB at 224 pixels
_LEAST_SHARE = 0.5  # of a clip length, of a recording's last segment


def noise_files(folder: str | Path) -> list[Path]:
    """The recordings below a folder of background, in the order of their paths."""
    if not Path(folder).is_dir():
        raise ConfigError(f"augment.noise={folder} is no folder; name one with recordings of background.")
    found = sorted(path for path, problem in audio.files_below(Path(folder)) if not problem and audio.is_audio(path))
    if not found:
        raise ConfigError(f"augment.noise={folder} holds no recordings; put recordings of background there.")
    return found


def noise_images(folder: str | Path, config: SpectrogramConfig) -> npt.NDArray[np.uint8]:
    """The segments of the recordings below a folder, each rendered as a clip would be.

    With more than `MOST_SEGMENTS`, each recording gives its first ones, by turns. A segment of digital silence is left
    out, and recordings that cannot be read are, with a warning.

    Returns:
        uint8 `(N, 3, image_size, image_size)`.
    """
    files, log = noise_files(folder), logging.getLogger("soundsight")
    images: list[npt.NDArray[np.uint8]] = []
    failures: list[str] = []
    each = max(1, -(-MOST_SEGMENTS // len(files)))
    for file in files[:: max(1, len(files) // MOST_SEGMENTS)]:
        try:
            images += [image for _, image in zip(range(each), _segments(file, config), strict=False)]
        except (AudioError, OSError) as error:
            failures.append(str(error))
    if failures:
        log.warning(
            "%d of %d recordings of augment.noise cannot be read, such as %s", len(failures), len(files), failures[0]
        )
    if not images:
        raise ConfigError(
            f"None of the {len(files)} recordings below augment.noise={folder} can be read and has sound; "
            "name other recordings of background."
        )
    log.info("%d segments of background from %d recordings are mixed in.", len(images), len(files) - len(failures))
    return np.stack(images[:MOST_SEGMENTS]).transpose(0, 3, 1, 2).copy()


def _segments(file: Path, config: SpectrogramConfig) -> Iterator[npt.NDArray[np.uint8]]:
    with audio.recording(file) as recording:
        start, total = 0.0, recording.info.duration_seconds
        while start == 0 or start + _LEAST_SHARE * config.clip_seconds <= total:
            sound = recording.read(
                sample_rate=config.sample_rate, start_seconds=start, duration_seconds=config.clip_seconds
            )
            if np.ptp(sound):
                yield render(sound, config)
            start += config.clip_seconds
