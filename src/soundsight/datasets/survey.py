"""Survey: each clip read once and measured, before anyone trains on it.

Level, silence and clipping are taken from the samples as they are in the file, at its own rate, mixed to
mono. Two values tell clips apart: a digest of these samples (exact duplicates) and a fingerprint, a small
image of levels (near duplicates, see `duplicates`). Nothing is written here.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from soundsight import audio, parallel
from soundsight.config import SpectrogramConfig
from soundsight.datasets.catalogue import Clip
from soundsight.errors import SoundsightError
from soundsight.spectrogram import SILENCE_POWER, fit, mel_power

Fingerprint = npt.NDArray[np.uint8]

TIMES, BANDS = 32, 32  # columns and mel bands of a fingerprint
RANGE_DB = 60.0  # a fingerprint knows levels from this far below the loudest point up to it
SILENT_SECONDS = 0.01  # samples of one value for at least this long are digital silence
CLIPPED_LEVEL, CLIPPED_RUN = 0.98, 3  # as many equal samples at this level are clipped


@dataclass(frozen=True)
class Measured:
    """What one clip is like. `failure` is empty on success; with a `digest`, what is there was measured."""

    sample_rate: int = 0  # Hz, of the recording
    channels: int = 0
    format: str = ""  # for example "WAV/PCM_16"
    recording_seconds: float = 0.0  # length of the whole recording
    seconds: float = 0.0  # length of the clip
    peak: float = 0.0  # largest absolute sample, 1 is full scale
    rms: float = 0.0
    silent: float = 0.0  # share of samples in digital silence, 0 to 1
    clipped: float = 0.0  # share of clipped samples, 0 to 1
    digest: bytes = b""  # SHA-256 of the samples, mono float32
    fingerprint: bytes = b""  # uint8, `TIMES` x `BANDS`
    failure: str = ""


def survey(
    clips: Sequence[Clip],
    config: SpectrogramConfig,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[Clip, Measured]:
    """Measure clips, each once, in their order."""
    tasks = [(clip, config) for clip in clips]
    found: dict[Clip, Measured] = {}
    for number, ((clip, _), result) in enumerate(parallel.run(measure, tasks, workers=workers), 1):
        found[clip] = Measured(failure=str(result)) if isinstance(result, parallel.WorkerLost) else result
        if progress:
            progress(number, len(tasks))
    return {clip: found[clip] for clip in clips}


def measure(task: tuple[Clip, SpectrogramConfig]) -> Measured:
    """Measure a clip, of which at most `clip_seconds` are used; a bad recording is a result, not an exception."""
    clip, config = task
    try:
        with clip.opened() as recording:
            info = recording.info
            waveform = clip.read(recording, config.clip_seconds)
            damage = recording.damage
    except SoundsightError as error:
        return Measured(failure=str(error))
    silent, clipped = flat_shares(waveform, info.sample_rate)
    return Measured(
        sample_rate=info.sample_rate,
        channels=info.channels,
        format=info.format,
        recording_seconds=info.duration_seconds,
        seconds=len(waveform) / info.sample_rate,
        peak=float(np.abs(waveform).max()),
        rms=float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64)))),
        silent=silent,
        clipped=clipped,
        digest=hashlib.sha256(waveform.data).digest(),
        fingerprint=fingerprint(audio.resample(waveform, info.sample_rate, config.sample_rate), config).tobytes(),
        failure=damage,
    )


def flat_shares(waveform: audio.Waveform, sample_rate: int) -> tuple[float, float]:
    """Shares of `(samples,)` that are digital silence, and that are clipped.

    Both are runs of equal samples: silence is a run of `SILENT_SECONDS` or more below the clipped level
    (at whatever value, as some recorders have an offset); clipping is `CLIPPED_RUN` or more samples at
    `CLIPPED_LEVEL` of full scale or above.
    """
    ends = np.append(np.flatnonzero(np.diff(waveform)) + 1, len(waveform))
    lengths = np.diff(ends, prepend=0)
    loud = np.abs(waveform[ends - 1]) >= CLIPPED_LEVEL
    silent = lengths[~loud & (lengths >= max(2, SILENT_SECONDS * sample_rate))].sum()
    clipped = lengths[loud & (lengths >= CLIPPED_RUN)].sum()
    return float(silent / len(waveform)), float(clipped / len(waveform))


def fingerprint(waveform: audio.Waveform, config: SpectrogramConfig) -> Fingerprint:
    """A small image of a clip, much like the one a model sees.

    Args:
        waveform: Mono float32 `(samples,)` in [-1, 1] at `config.sample_rate`.
        config: The settings; the channel with the longest window is used.

    Returns:
        uint8 `(TIMES, BANDS)`, mean mel power of each cell, lowest band first; 255 is the loudest cell and 0
        lies `RANGE_DB` below it. All zero for a silent clip.
    """
    fine = _fine_settings(config)
    channel = int(np.argmax(config.windows_ms))
    power = mel_power(fit(waveform, fine.clip_samples, "silence"), fine)[channel]
    size = fine.image_size
    cells = power.reshape(TIMES, size // TIMES, BANDS, size // BANDS).mean(axis=(1, 3))
    peak = float(cells.max())
    if peak <= SILENCE_POWER:
        return np.zeros((TIMES, BANDS), np.uint8)
    level = 10 * np.log10(np.maximum(cells / peak, 1e-12)) / RANGE_DB + 1
    return np.round(255 * np.clip(level, 0, 1)).astype(np.uint8)


def _fine_settings(config: SpectrogramConfig) -> SpectrogramConfig:
    """Settings whose frames lie close enough together that no sound falls between two of them."""
    step_seconds = max(config.windows_ms) / 1000 / 2
    pooled = math.ceil(config.clip_seconds / step_seconds / TIMES)
    largest = min(1024, config.clip_samples // 2) // TIMES
    return replace(config, image_size=TIMES * max(1, min(pooled, largest)))
