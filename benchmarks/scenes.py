"""Ten-minute scenes of known content, made from the clips of some folds of ESC-50.

A scene is a background (pink noise, or ESC-50's own wind, rain and sea waves, joined with crossfades) with events on
it. An event is the sounding part of a clip, its mean power `snr_db` above the background's. Events begin at random
times, at most three at once, never two of one class. Their times are the truth.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

RATE = 16_000  # Hz
BACKGROUND = ("wind", "rain", "sea_waves")  # classes of ESC-50 that are no events here
AT_ONCE = 3
EVENTS_PER_MINUTE = 12.0
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Event:
    """One sound of a scene."""

    start_seconds: float
    end_seconds: float
    label: str


def clips_of(root: Path, folds: Iterable[int]) -> dict[str, list[Path]]:
    """The clips of ESC-50's folds by class."""
    wanted, found = {str(fold) for fold in folds}, {}
    with (root / "meta" / "esc50.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["fold"] in wanted:
                found.setdefault(row["category"], []).append(root / "audio" / row["filename"])
    return found


def pink_noise(samples: int, random: np.random.Generator) -> Floats:
    """Noise whose power falls by 3 dB per octave from 20 Hz on, RMS 1; float64 `(samples,)`."""
    spectrum = random.standard_normal(samples // 2 + 1) + 1j * random.standard_normal(samples // 2 + 1)
    frequency = np.fft.rfftfreq(samples, 1 / RATE)
    noise = np.fft.irfft(spectrum / np.sqrt(np.maximum(frequency, 20.0)), samples)
    return noise / np.sqrt(np.mean(noise**2))


def natural_noise(clips: dict[str, list[Path]], samples: int, random: np.random.Generator) -> Floats:
    """Wind, rain and sea waves in random order, crossfaded over half a second, RMS 1; float64 `(samples,)`."""
    paths = [path for label in BACKGROUND for path in clips[label]]
    fade = RATE // 2
    ramp = np.sin(np.linspace(0, np.pi / 2, fade))  # powers add up to 1
    noise, end = np.zeros(samples + 20 * RATE), 0
    while end < samples + fade:
        sound = sounding(read(paths[random.integers(len(paths))]))
        if len(sound) <= 2 * fade:
            continue
        sound /= np.sqrt(np.mean(sound**2))
        sound[:fade] *= ramp
        sound[-fade:] *= ramp[::-1]
        start = max(0, end - fade)
        noise[start : start + len(sound)] += sound
        end = start + len(sound)
    noise = noise[fade : fade + samples]
    return noise / np.sqrt(np.mean(noise**2))


def read(path: Path) -> Floats:
    """A clip, mono float64 at `RATE`."""
    samples, rate = soundfile.read(path, dtype="float64", always_2d=True)
    if rate != RATE:
        raise SystemExit(f"{path} has {rate} Hz; scenes are made of clips at {RATE} Hz.")
    return samples.mean(axis=1)


def extent(sound: Floats, below_db: float = 40.0) -> tuple[int, int]:
    """Where a clip sounds, in samples: its first to its last 20 ms that lie less than `below_db` under its loudest."""
    frame = RATE // 50
    power = np.mean(sound[: len(sound) // frame * frame].reshape(-1, frame) ** 2, axis=1)
    loud = np.flatnonzero(power > power.max() * 10 ** (-below_db / 10)) if power.max() > 0 else []
    return (int(loud[0]) * frame, int(loud[-1] + 1) * frame) if len(loud) else (0, 0)


def sounding(sound: Floats) -> Floats:
    """A copy of the part of a clip that sounds."""
    return sound[slice(*extent(sound))].copy()


def scene(
    clips: dict[str, list[Path]], seconds: float, snr_db: float | None, background: str, seed: int
) -> tuple[npt.NDArray[np.float32], list[Event]]:
    """Make a scene.

    Args:
        clips: Clips by class, see `clips_of`.
        seconds: Its length.
        snr_db: Power of an event over its length, relative to the background's mean power; `None`: no events.
        background: "pink" or "natural".
        seed: Of all random choices.

    Returns:
        float32 `(samples,)` in [-1, 1] at `RATE`, and the events in the order of their starts.
    """
    random = np.random.default_rng(seed)
    samples = round(seconds * RATE)
    noise = pink_noise(samples, random) if background == "pink" else natural_noise(clips, samples, random)
    mixed, events = noise, []
    labels = sorted(set(clips) - set(BACKGROUND))
    wanted = 0 if snr_db is None else round(EVENTS_PER_MINUTE * seconds / 60)
    for _ in range(20 * wanted):
        if len(events) == wanted:
            break
        label = labels[random.integers(len(labels))]
        sound = sounding(read(clips[label][random.integers(len(clips[label]))]))
        start = int(random.integers(0, samples - len(sound)))
        begin, end = start / RATE, (start + len(sound)) / RATE
        same_time = [event for event in events if event.start_seconds < end and begin < event.end_seconds]
        if len(sound) < RATE // 10 or len(same_time) >= AT_ONCE or any(event.label == label for event in same_time):
            continue
        gain = 10 ** ((snr_db or 0.0) / 20) / np.sqrt(np.mean(sound**2))
        mixed[start : start + len(sound)] += gain * sound
        events.append(Event(round(begin, 3), round(end, 3), label))
    mixed = mixed / (1.01 * np.abs(mixed).max())
    return mixed.astype(np.float32), sorted(events, key=lambda event: event.start_seconds)


def write(path: Path, samples: npt.NDArray[np.float32], events: list[Event]) -> None:
    """Write `path` as FLAC of 16 bits, and the events as a Raven selection table beside it, `<name>.txt`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, RATE, subtype="PCM_16")
    lines = ["Selection\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tBegin File\tLabel"]
    lines += [
        f"{number}\t{event.start_seconds:.3f}\t{event.end_seconds:.3f}\t0\t{RATE // 2}\t{path.name}\t{event.label}"
        for number, event in enumerate(events, 1)
    ]
    path.with_suffix(".txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
