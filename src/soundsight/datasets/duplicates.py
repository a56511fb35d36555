"""Duplicates: clips that hold the same sound, whatever their names, labels and sources say.

Exact duplicates share the digest of their samples. Near duplicates (another level, another format, a part
of the same recording, cut elsewhere) are found in two steps: fingerprints that look alike under some shift in
time, all against all; then, for these few, the sounds themselves, whose cross-correlation must peak.
docs/inspect.md says how the two thresholds were chosen.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, combinations, islice

import numpy as np
import numpy.typing as npt

from soundsight import parallel
from soundsight.datasets.catalogue import Clip
from soundsight.datasets.survey import BANDS, TIMES
from soundsight.errors import AudioError

Progress = Callable[[int, int], None]

LOOK_ALIKE = 0.8  # correlation of fingerprints from which on two clips are compared by their samples
SOUND_ALIKE = 0.6  # peak of the cross-correlation from which on two clips are near duplicates
MOST_CANDIDATES = 50_000  # of more pairs that look alike, only the most alike are compared by their samples
RATE = 8000  # Hz, at which samples are compared
BLOCK = 64  # clips compared with all others at once; with 20,000 others that takes 0.2 GB


@dataclass(frozen=True)
class Pair:
    """Two clips with the same sound."""

    first: Clip
    second: Clip
    likeness: float  # 1: equal sample by sample; else the peak of the cross-correlation


@dataclass(frozen=True)
class Near:
    """Near duplicates, and how far the search went."""

    pairs: list[Pair]  # most alike first
    candidates: int  # pairs whose fingerprints look alike
    compared: int  # of these, the pairs that were compared by their samples


def exact_groups(digests: dict[Clip, bytes]) -> list[list[Clip]]:
    """Groups of two or more clips with the same digest, in the order of `digests`."""
    groups: dict[bytes, list[Clip]] = defaultdict(list)
    for clip, digest in digests.items():
        groups[digest].append(clip)
    return [group for group in groups.values() if len(group) > 1]


def near_pairs(
    fingerprints: dict[Clip, bytes],
    clip_seconds: float,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Near:
    """Find near duplicates by fingerprints of `survey`, of which exact duplicates give one only."""
    clips = list(fingerprints)
    stack = np.frombuffer(b"".join(fingerprints.values()), np.uint8).reshape(-1, TIMES, BANDS)
    pairs, likeness = look_alike(stack, progress=progress)
    apart = ~_overlapping(clips, pairs, clip_seconds)
    pairs, likeness = pairs[apart], likeness[apart]
    best = np.argsort(-likeness, kind="stable")[:MOST_CANDIDATES]
    chosen = pairs[np.sort(best)]  # sorted by the first clip, so that its sound is read once
    tasks = [(clips[first], clips[second], clip_seconds) for first, second in chosen]
    found = []
    for number, (task, peak) in enumerate(parallel.run(sound_alike, tasks, workers=workers), 1):
        if not isinstance(peak, parallel.WorkerLost) and peak >= SOUND_ALIKE:
            found.append(Pair(task[0], task[1], peak))
        if progress:
            progress(number, len(tasks))
    found.sort(key=lambda pair: (-pair.likeness, pair.first.file, pair.second.file))
    return Near(found, len(pairs), len(chosen))


def _overlapping(clips: Sequence[Clip], pairs: npt.NDArray[np.int32], clip_seconds: float) -> npt.NDArray[np.bool_]:
    """Which pairs are segments of one recording that share a part of it, as they are meant to."""
    number = {file: index for index, file in enumerate(dict.fromkeys(clip.file for clip in clips))}
    file = np.array([number[clip.file] for clip in clips], np.int64)[pairs]
    start = np.array([clip.start_seconds for clip in clips])[pairs]
    cut = np.array([clip.end_seconds is not None for clip in clips])[pairs].all(axis=1)
    return cut & (file[:, 0] == file[:, 1]) & (np.abs(start[:, 0] - start[:, 1]) < clip_seconds)


def look_alike(
    fingerprints: npt.NDArray[np.uint8], threshold: float = LOOK_ALIKE, *, progress: Progress | None = None
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Pairs of fingerprints that correlate under some circular shift in time.

    The mean of each band is taken out first: what is left is what happens, not how the microphone sounds.

    Args:
        fingerprints: uint8 `(clips, TIMES, BANDS)`.
        threshold: Least correlation, -1 to 1.
        progress: Called with (clips done, clips in all).

    Returns:
        Indices `(pairs, 2)`, the smaller first, in ascending order, and correlations `(pairs,)`.
    """
    spectra = _spectra(fingerprints)
    count = spectra.shape[1]
    pairs, values = [np.zeros((0, 2), np.int32)], [np.zeros(0, np.float32)]
    for start in range(0, count, BLOCK):
        part = spectra[:, start : start + BLOCK].conj()
        products = part @ spectra[:, start:].transpose(0, 2, 1)  # (lines, part, rest)
        best = _largest(products)
        row, column = np.nonzero(np.triu(best >= threshold, 1))
        pairs.append(np.stack([row, column], axis=1).astype(np.int32) + start)
        values.append(best[row, column])
        if progress:
            progress(min(start + BLOCK, count), count)
    return np.concatenate(pairs), np.concatenate(values)


def _spectra(fingerprints: npt.NDArray[np.uint8]) -> npt.NDArray[np.complex64]:
    """Fourier transforms over time, `(lines, clips, bands)`, of unit energy; zero for what never changes."""
    count = len(fingerprints)
    spectra = np.empty((TIMES // 2, count, BANDS), np.complex64)
    for start in range(0, count, 4096):
        part = fingerprints[start : start + 4096].astype(np.float32)
        part -= part.mean(axis=1, keepdims=True)
        energy = np.einsum("ctb,ctb->c", part, part)
        part /= np.sqrt(np.maximum(energy, 1e-6))[:, None, None]
        lines = np.fft.rfft(part, axis=1)[:, 1:]  # line 0 is the mean
        spectra[:, start : start + len(part)] = lines.transpose(1, 0, 2)
    return spectra


def _largest(products: npt.NDArray[np.complex64]) -> npt.NDArray[np.float32]:
    """Largest value over all shifts of what has the spectra `(lines, a, b)`: float32 `(a, b)`."""
    lines, rows, columns = products.shape
    best = np.empty((rows, columns), np.float32)
    flat, out = products.reshape(lines, -1), best.reshape(-1)
    angle = 2 * np.pi * np.outer(np.arange(TIMES), np.arange(1, lines + 1)) / TIMES
    weight = np.full(lines, 2 / TIMES)
    weight[-1] /= 2  # the line of half the rate stands for itself alone
    turn = np.concatenate([np.cos(angle) * weight, -np.sin(angle) * weight], axis=1).astype(np.float32)
    for start in range(0, flat.shape[1], 8192):  # in the cache, and by matrix product: faster than an FFT
        part = flat[:, start : start + 8192]
        out[start : start + 8192] = (turn @ np.concatenate([part.real, part.imag])).max(axis=0)
    return best


def sound_alike(task: tuple[Clip, Clip, float]) -> float:
    """Largest normalised cross-correlation of two clips of at most so many seconds, 0 to 1.

    Differences of neighbouring samples are compared, so that hum and rumble, alike everywhere, count little.
    0 where a clip cannot be read, which the survey has reported.
    """
    first, second, seconds = task
    try:
        a, b = _sound_spectrum(first, seconds), _sound_spectrum(second, seconds)
    except AudioError:
        return 0.0
    import scipy.fft

    return min(1.0, float(np.abs(scipy.fft.irfft(a * b.conj())).max()))


@lru_cache(maxsize=64)
def _sound_spectrum(clip: Clip, seconds: float) -> npt.NDArray[np.complex64]:
    """Spectrum of a clip's differences, of unit energy, padded against circular overlap."""
    import scipy.fft

    with clip.opened() as recording:
        waveform = clip.read(recording, seconds, RATE)
    steps = np.diff(waveform, prepend=np.float32(0))
    steps /= max(float(np.linalg.norm(steps)), 1e-9)
    length = scipy.fft.next_fast_len(2 * round(seconds * RATE) + 2, real=True)
    return scipy.fft.rfft(steps, length).astype(np.complex64)


def joined(groups: Sequence[Sequence[Clip]], pairs: Sequence[Pair], limit: int = 100_000) -> list[Pair]:
    """All pairs of clips with one sound: those within exact groups, and near ones with their exact copies."""
    copies = {group[0]: group for group in groups}
    exact = (Pair(a, b, 1.0) for group in groups for a, b in combinations(group, 2))
    near = (
        Pair(a, b, pair.likeness)
        for pair in pairs
        for a in copies.get(pair.first, [pair.first])
        for b in copies.get(pair.second, [pair.second])
    )
    return list(islice(chain(exact, near), limit))
