"""Speeds: training clips drawn once more as a tape plays them when it runs faster or slower.

Pitch and tempo change together (speed perturbation: Ko, Peddinti, Povey, Khudanpur 2015, "Audio Augmentation for
Speech Recognition"). The versions are pictures like any other, so the stock `yolo` command trains on them, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import soxr

from soundsight.dataset.catalogue import Clip


def versions_of(clips: Iterable[Clip], speeds: Sequence[float]) -> list[Clip]:
    """The same clips at each of the speeds; 1.25 is a quarter faster, and higher by as much."""
    return [replace(clip, name=f"{clip.name}@x{speed:g}", speed=speed) for clip in clips for speed in speeds]


def change_speed(waveform: npt.NDArray[np.float32], speed: float, samples: int) -> npt.NDArray[np.float32]:
    """Play a waveform `(samples,)` at another speed.

    Args:
        waveform: At most one clip.
        speed: Over 1 is faster.
        samples: Length of a clip.

    Returns:
        At most `samples` values. A full clip that got shorter begins again, as the circular time shift of the
        augmentation lets it; one that got longer is cut. A clip that was short before is left to the padding.
    """
    changed = soxr.resample(waveform, speed, 1, quality="HQ")[:samples]
    return np.resize(changed, samples) if waveform.size >= samples else changed
