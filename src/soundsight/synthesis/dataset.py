"""A data set, and long recordings with known events, that need no network: synthesised sounds.

A source (its number is a seed) fixes the character of a sound: pitch, rhythm, timbre, room, microphone
and background noise; its takes A, B, C ... are performances of it. Files follow ESC-50's layout, so all
that reads ESC-50 reads these, and no source is in two folds.

Neighbours: `voices` makes the sounds. Nothing here holds more than one clip in memory.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.signal
import soundfile

from soundsight.errors import ConfigError, DatasetError, check_range
from soundsight.files import csv_text, read_json, write_bytes, write_text
from soundsight.synthesis.sounds import VOICES, background, foreground, generator

Row = tuple[str, int, int, str, bool, int, str]
Event = tuple[float, float, str]
Planned = tuple[int, int, str, int, float]  # first sample, sample after the last, class, source, SNR in dB

CLASSES: tuple[str, ...] = tuple(VOICES)
HEADER = ("filename", "fold", "target", "category", "esc10", "src_file", "take")
TAKES = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
VERSION = 1  # raise it when the sounds change, so that data sets written earlier are written anew


def synthesise(
    name: str, *, seed: int, take: int = 0, sample_rate: int = 16000, seconds: float = 5.0
) -> npt.NDArray[np.float32]:
    """One clip of class `name`, the same for the same arguments, as float32 `(samples,)`.

    `seed` is the number of the source (what sounds, how, in which room, over which noise), `take` that of its
    performance. The peak is at -31 to -1 dB re 1; the loudest 20 ms of the sound are 8 to 30 dB above the background
    noise. One clip in ten ends in digital silence, as many of ESC-50 do.
    """
    _check([name], seed=seed, take=take, sample_rate=sample_rate, seconds=seconds)
    samples = round(seconds * sample_rate)
    source, moment = generator(name, seed, 1), generator(name, seed, 3, take)
    snr_db = source.uniform(11, 27) + moment.uniform(-3, 3)
    peak_db = source.uniform(-28, -4) + moment.uniform(-3, 3)
    silent_end = moment.random() < 0.1
    silent_from = round(moment.uniform(0.6, 0.95) * samples)
    out = background(source, moment, samples, sample_rate)
    out += foreground(name, seed, take, samples, sample_rate) * 10 ** (snr_db / 20)
    out *= 10 ** (peak_db / 20) / abs(out).max()
    if silent_end:
        out[silent_from:] = 0
    return out.astype(np.float32)


def write_dataset(
    root: str | Path,
    *,
    clips_per_class: int = 40,
    folds: int = 5,
    takes: int = 2,
    seconds: float = 5.0,
    sample_rate: int = 16000,
    seed: int = 0,
    classes: Sequence[str] = CLASSES,
) -> Path:
    """Write a data set in ESC-50's layout: `audio/{fold}-{source}-{take}-{target}.wav`, `meta/esc50.csv`.

    A clip is `synthesise(category, seed=source, take=0 for A, 1 for B ...)` as 16-bit mono WAV. The table
    comes last, so a root with a table is whole; the settings are in `demo.json`. Clips already there are
    kept; those written with other settings are deleted. `esc10` marks the first five classes.

    Sources have `takes` clips each (the last may have fewer) and are dealt to the folds in turn. Data sets of two seeds
    share no source. A target is the position in `CLASSES`.
    """
    settings: dict[str, Any] = {
        "version": VERSION,
        "clips_per_class": clips_per_class,
        "folds": folds,
        "takes": takes,
        "seconds": float(seconds),
        "sample_rate": sample_rate,
        "seed": seed,
        "classes": list(classes),
    }
    check_range("seed", seed, 0, 9999)
    _check(**settings)
    settings["classes"] = sorted(set(classes), key=CLASSES.index)
    sources = -(-clips_per_class // takes)
    if folds > sources:
        raise ConfigError(
            f"folds={folds} needs {folds} sources of each class, but clips_per_class={clips_per_class} and "
            f"takes={takes} make {sources}; raise clips_per_class or lower takes."
        )
    root = Path(root)
    try:
        _clear_other_settings(root, settings)
        _write_clips(root, settings)
    except OSError as error:
        raise DatasetError(
            f"The data set in {root} cannot be written ({error.strerror}); name a folder that can be."
        ) from error
    return root


def _write_clips(root: Path, settings: dict[str, Any]) -> None:
    for folder in ("audio", "meta"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    write_bytes(root / "demo.json", json.dumps(settings, indent=1).encode())
    rows, rate, seconds = _rows(settings), settings["sample_rate"], settings["seconds"]
    size = 44 + 2 * round(seconds * rate)  # WAV header, two bytes a sample
    for filename, _, _, category, _, source, take in rows:
        path = root / "audio" / filename
        if path.is_file() and path.stat().st_size == size:
            continue
        clip = synthesise(category, seed=source, take=TAKES.index(take), sample_rate=rate, seconds=seconds)
        wav = io.BytesIO()
        soundfile.write(wav, clip, rate, "PCM_16", format="WAV")
        write_bytes(path, wav.getvalue())
    write_text(root / "meta" / "esc50.csv", csv_text([HEADER, *rows]))


def _clear_other_settings(root: Path, settings: dict[str, Any]) -> None:
    """Delete what an earlier call with other settings wrote, table first; refuse anything else."""
    table, record = root / "meta" / "esc50.csv", root / "demo.json"
    if not record.is_file():
        if table.exists() or any(root.glob("audio/*")):
            raise DatasetError(
                f"{root} holds a data set that is not the synthesised one; name a new or an empty folder."
            )
        return
    try:
        earlier = read_json(record)
        names = [row[0] for row in _rows(earlier)]
    except (ValueError, TypeError, LookupError, ArithmeticError) as error:
        raise DatasetError(
            f"{record} does not hold the settings of a synthesised data set; name a new or an empty folder."
        ) from error
    if earlier != settings:
        table.unlink(missing_ok=True)
        for name in names:
            (root / "audio" / name).unlink(missing_ok=True)


def _rows(settings: dict[str, Any]) -> list[Row]:
    """The lines of the table, in the order of ESC-50's: by file name."""
    rows: list[Row] = []
    for category in settings["classes"]:
        target = CLASSES.index(category)
        for clip in range(settings["clips_per_class"]):
            number, take = divmod(clip, settings["takes"])
            fold = number % settings["folds"] + 1
            source = (settings["seed"] + 1) * 100_000 + target * 10_000 + number
            filename = f"{fold}-{source}-{TAKES[take]}-{target}.wav"
            rows.append((filename, fold, target, category, target < 5, source, TAKES[take]))
    return sorted(rows)


def write_soundscape(
    path: str | Path,
    *,
    seconds: float,
    seed: int = 0,
    sample_rate: int = 16000,
    classes: Sequence[str] = CLASSES,
    event_seconds: tuple[float, float] = (2.0, 5.0),
    gap_seconds: tuple[float, float] = (1.0, 5.0),
    snr_db: tuple[float, float] = (10.0, 25.0),
) -> list[Event]:
    """Write a long recording: sounds at known times over steady noise, with the memory of a few seconds.

    The file is .wav or .flac, 16-bit mono, and appears when it is whole. Each class comes once before any comes again;
    no source is in a data set of `write_dataset`. Of events their length, the noise before them and the level of
    their loudest 20 ms above the noise lie between the given ends.

    Returns:
        `(start, end, class)` of each event in s, in order and without overlap. Outside them nothing but
        noise remains; inside, rhythmic sounds pause for up to a beat.
    """
    path = Path(path)
    check_range("seconds", seconds, 1, 43_200)
    _check(classes, seed=seed, sample_rate=sample_rate)
    for name, (shortest, longest), low, high in (
        ("event_seconds", event_seconds, 0.1, 60),
        ("gap_seconds", gap_seconds, 0, 43_200),
        ("snr_db", snr_db, -20, 30),
    ):
        check_range(name, longest, low, high)
        check_range(name, shortest, low, longest)
    if path.suffix.lower() not in (".wav", ".flac"):
        raise ConfigError(f"{path} cannot be written in that format; name a file that ends in .wav or .flac.")
    rng = generator("soundscape", seed, 0)
    plan: list[Planned] = []
    deck: list[int] = []
    start = rng.uniform(*gap_seconds)
    while (stop := start + rng.uniform(*event_seconds)) <= seconds:
        deck = deck or rng.permutation(len(classes)).tolist()  # each class once before any comes again
        # Data sets number their sources up to 10**9, soundscapes from 2**31.
        source, event_db = int(rng.integers(2**31, 2**62)), float(rng.uniform(*snr_db))
        first, last = round(start * sample_rate), round(stop * sample_rate)
        plan.append((first, last, classes[deck.pop()], source, event_db))
        start = stop + rng.uniform(*gap_seconds)
    _write_soundscape(path, plan, round(seconds * sample_rate), seed, sample_rate)
    return [(first / sample_rate, last / sample_rate, name) for first, last, name, _, _ in plan]


def _write_soundscape(path: Path, plan: list[Planned], samples: int, seed: int, sample_rate: int) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = path.suffix[1:].upper()
        with soundfile.SoundFile(temporary, "w", sample_rate, 1, "PCM_16", format=kind) as file:
            for block in _blocks(plan, samples, seed, sample_rate):
                file.write(block)
        os.replace(temporary, path)
    except (OSError, soundfile.SoundFileError) as error:
        reason = getattr(error, "strerror", None) or str(error).rstrip(".")
        raise DatasetError(f"{path} cannot be written ({reason}); name a folder that can be.") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _blocks(plan: list[Planned], samples: int, seed: int, sample_rate: int) -> Iterator[npt.NDArray[np.int16]]:
    """The samples of a soundscape in stretches of up to 10 s, or of one event; int16 `(samples,)` each."""
    rng = generator("soundscape", seed, 1)
    level, pole = 10 ** (rng.uniform(-50, -42) / 20), rng.uniform(0.3, 0.9)
    state = np.zeros(1)
    done, longest = 0, 10 * sample_rate
    for first, last, name, source, snr_db in [*plan, (samples, samples, "", 0, 0.0)]:
        while done < last:
            size = min(longest, first - done) if done < first else last - first
            noise = rng.standard_normal(size) * np.sqrt(1 - pole**2)  # filtered: power 1
            block, state = scipy.signal.lfilter([1], [1, -pole], noise, zi=state)
            if done == first:
                event = foreground(name, source, 0, size, sample_rate)
                ramp = np.minimum(1, np.arange(size) / (0.01 * sample_rate))
                block += event * ramp * ramp[::-1] * 10 ** (snr_db / 20)
            yield np.round(np.clip(level * block, -1, 1) * 32767).astype(np.int16)
            done += size


_RANGES = {
    "clips_per_class": (1, 10_000),
    "takes": (1, len(TAKES)),
    "folds": (1, 10_000),
    "seconds": (0.1, 60),
    "sample_rate": (16000, 48000),
    "seed": (0, 2**63),
    "take": (0, 2**63),
}


def _check(classes: Sequence[str], **values: Any) -> None:
    for name in classes:
        if name not in CLASSES:
            raise ConfigError(f"There is no sound {name!r}; choose from {', '.join(CLASSES)}.")
    if not classes:
        raise ConfigError(f"No class is named; choose one or more from {', '.join(CLASSES)}.")
    for name, value in values.items():
        check_range(name, value, *_RANGES.get(name, (value, value)))
