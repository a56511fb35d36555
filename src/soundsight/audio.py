"""Recordings: from a file, a pipe or an array to mono float32 samples at the rate a model hears at.

Everything is read by seeking or streaming, never a whole long file at once. What libsndfile does not know goes
through the program ffmpeg where it is installed. Knows nothing of pictures or labels.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import soundfile

from soundsight import ffmpeg, interrupts
from soundsight.errors import AudioError

with interrupts.later():  # a Ctrl-C into the loading of its C++ would abort the process
    import soxr

Waveform = npt.NDArray[np.float32]

# Below, a second holds no sound worth a picture; above, no sound card records.
MIN_RATE, MAX_RATE, MAX_CHANNELS = 100, 1_000_000, 256
BLOCK_SECONDS = 10.0
BLOCK_VALUES = 1 << 22  # samples of all channels decoded at once, at most: 16 MB
LOUDEST = 1e15  # full scale is 1; beyond, the power of a sound is no number that a float32 can hold
# No codec packs more samples of digital silence into a byte; a header that claims more lies.
MAX_FRAMES_PER_BYTE = 8192
# Source samples decoded beyond the end of a clip, so that the resampler sees what follows.
MARGIN_SAMPLES = 4096
_NOT_RECOGNISED = 1  # libsndfile's number for a format that it does not know

EXTENSIONS = frozenset(
    ".wav .wave .flac .ogg .oga .opus .mp3 .aif .aiff .aifc .au .snd .caf .w64 .rf64 .voc .sph .nist".split()
)
# A damaged file can also leave the library at an impossible place, where it asks for fewer than no samples.
DECODING_ERRORS = (soundfile.LibsndfileError, RuntimeError, ValueError)


@dataclass(frozen=True)
class AudioInfo:
    """What the header of a recording says."""

    sample_rate: int  # Hz
    channels: int
    frames: int  # samples a channel
    format: str  # for example "WAV/PCM_16"

    @property
    def duration_seconds(self) -> float:
        """Length in seconds."""
        return self.frames / self.sample_rate


def is_audio(path: Path) -> bool:
    """Whether the name looks like a recording that can be read on this machine."""
    suffix = path.suffix.lower()
    return suffix in EXTENSIONS or (suffix in ffmpeg.EXTENSIONS and ffmpeg.installed())


@dataclass(frozen=True)
class Recording:
    """A recording that is open to be read in stretches; made by `recording`."""

    path: str | Path
    info: AudioInfo
    file: soundfile.SoundFile

    def read(self, *, sample_rate: int, start_seconds: float = 0.0, duration_seconds: float | None = None) -> Waveform:
        """Read a stretch; once only.

        Args:
            sample_rate: Rate of the result, in Hz.
            start_seconds: Where to begin.
            duration_seconds: How much to read at most; `None` reads to the end.

        Returns:
            Mono float32 `(samples,)` in [-1, 1], the mean of the channels; shorter than asked for where the
            recording ends.

        Raises:
            AudioError: The recording is damaged, ends before that, or holds values that are no numbers.
        """
        path, info, file = self.path, self.info, self.file
        start = round(start_seconds * info.sample_rate)
        wanted = info.frames - start
        if duration_seconds is not None:
            wanted = min(wanted, math.ceil(duration_seconds * info.sample_rate))
        if start < 0 or wanted <= 0:
            raise AudioError(
                f"{path} is {info.duration_seconds:.3f} s long, so nothing is left at "
                f"{start_seconds:g} s; choose an earlier start."
            )
        margin = MARGIN_SAMPLES if info.sample_rate != sample_rate else 0
        try:
            if start:
                file.seek(start)
            data = _read_mono(file, wanted + margin, path)
        except DECODING_ERRORS as error:
            raise AudioError(f"{path} cannot be decoded ({_reason(error)}).") from error
        waveform = resample(data, info.sample_rate, sample_rate)
        waveform = waveform[: math.ceil(wanted * sample_rate / info.sample_rate)]
        if len(waveform) == 0:
            raise AudioError(f"{path} holds no samples; replace it or leave it out.")
        return waveform


@contextmanager
def recording(path: str | Path) -> Iterator[Recording]:
    """Open a recording and read its header.

    Raises:
        AudioError: The file is missing, is no recording, or has no samples.
    """
    with _open(path) as file:
        yield Recording(path, _info(file, path), file)


def probe(path: str | Path) -> AudioInfo:
    """The header of a recording; raises as `recording` does."""
    with recording(path) as opened:
        return opened.info


def read(
    path: str | Path,
    *,
    sample_rate: int,
    start_seconds: float = 0.0,
    duration_seconds: float | None = None,
) -> Waveform:
    """Open a recording and read a stretch of it; see `Recording.read`."""
    with recording(path) as opened:
        return opened.read(sample_rate=sample_rate, start_seconds=start_seconds, duration_seconds=duration_seconds)


def _read_mono(file: soundfile.SoundFile, frames: int, name: str | Path) -> Waveform:
    """Up to `frames` samples from here on; channels are averaged block by block, however many there are."""
    parts, left = [np.zeros(0, np.float32)], frames
    while left > 0:
        block = file.read(min(left, max(1, BLOCK_VALUES // file.channels)), dtype="float32", always_2d=True)
        if not len(block):
            break
        parts.append(_mono(block, name, first=frames - left))
        left -= len(block)
    return parts[1] if len(parts) == 2 else np.concatenate(parts)


def resample(waveform: Waveform, source_rate: int, target_rate: int) -> Waveform:
    """Change the sample rate of `(samples,)` with soxr's high-quality filter."""
    if source_rate == target_rate:
        return waveform
    return soxr.resample(waveform, source_rate, target_rate, quality="HQ")


def change_speed(waveform: Waveform, speed: float, samples: int) -> Waveform:
    """Play a waveform `(samples,)` as a tape does that runs faster or slower: pitch and tempo change together.

    Speed perturbation: Ko, Peddinti, Povey, Khudanpur 2015, "Audio Augmentation for Speech Recognition".

    Args:
        waveform: At most one clip.
        speed: Over 1 is faster.
        samples: Length of a clip.

    Returns:
        At most `samples` values. A full clip that got shorter begins again, as the circular time shift of the
        augmentation lets it; one that got longer is cut. A clip that was short before is left to the padding.
    """
    changed = soxr.resample(waveform, speed, 1, quality="HQ")[:samples]
    return np.resize(changed, samples) if len(waveform) >= samples else changed


@contextmanager
def opened(
    source: str | Path | BinaryIO, *, raw_rate: int | None = None, block_seconds: float = BLOCK_SECONDS
) -> Iterator[tuple[AudioInfo, Iterator[Waveform]]]:
    """Open a recording of any length to read it once, from start to end, at its own rate.

    Args:
        source: A path, or an open binary stream. From a pipe, WAV, AU, OGG and MP3 can be read.
        raw_rate: For a stream without a header, 16-bit little-endian mono: its rate in Hz.
        block_seconds: Length of the blocks.

    Yields:
        What the header says (the length is 0 where it is not known, as of a pipe or what ffmpeg decodes), and
        an iterator of mono float32 blocks `(samples,)` in [-1, 1], which raises `AudioError` where the
        recording is empty or damaged.

    Raises:
        AudioError: As `probe`.
    """
    name = source if isinstance(source, str | Path) else "Standard input"
    with _open_once(source, raw_rate) as (file, check):
        info = _info(file, name, length_known=check is None and isinstance(source, str | Path))
        yield info, _blocks(file, name, max(1, round(block_seconds * info.sample_rate)), check)


def _blocks(
    file: soundfile.SoundFile, name: str | Path, frames: int, check: Callable[[], None] | None
) -> Iterator[Waveform]:
    total, frames = 0, min(frames, max(1, BLOCK_VALUES // file.channels))
    while True:
        try:
            data = file.read(frames, dtype="float32", always_2d=True)
        except DECODING_ERRORS as error:
            raise AudioError(
                f"{name} cannot be decoded after {total / file.samplerate:.1f} s ({_reason(error)})."
            ) from error
        if len(data):
            yield _mono(data, name, first=total)
        total += len(data)
        if len(data) < frames:
            break
    if check is not None:
        check()
    if total == 0:
        raise AudioError(f"{name} holds no samples; replace it or leave it out.")


def to_mono(samples: npt.ArrayLike) -> Waveform:
    """Turn an array of samples into a waveform.

    Args:
        samples: `(samples,)` or `(samples, channels)`; integers are scaled by their type's range, floats
            must lie in [-1, 1].

    Returns:
        Mono float32 `(samples,)`.

    Raises:
        AudioError: The array has another shape, is empty, or holds values that are no numbers.
    """
    array = np.asarray(samples)
    if array.ndim not in (1, 2) or array.size == 0:
        raise AudioError(f"An array of shape {array.shape} is no recording: (samples,) or (samples, channels) is.")
    if np.issubdtype(array.dtype, np.integer):
        limits = np.iinfo(array.dtype)
        middle = (limits.max + limits.min + 1) / 2
        array = (array.astype(np.float32) - middle) / (limits.max - middle + 1)
    return _mono(array.reshape(len(array), -1).astype(np.float32), "The array")


def _mono(data: npt.NDArray[np.float32], name: str | Path | object, *, first: int = 0) -> Waveform:
    mono = data[:, 0] if data.shape[1] == 1 else data.mean(axis=1, dtype=np.float32)
    if not (mono.min() >= -LOUDEST and mono.max() <= LOUDEST):
        if np.isfinite(mono).all():
            raise AudioError(
                f"{name} holds values beyond {LOUDEST:g} times full scale, which are no sound; replace it."
            )
        where = first + int(np.flatnonzero(~np.isfinite(mono))[0])
        raise AudioError(f"{name} holds values that are no numbers (NaN or infinity, first at sample {where}).")
    return np.ascontiguousarray(mono)


def _info(file: soundfile.SoundFile, name: str | Path, *, length_known: bool = True) -> AudioInfo:
    frames = file.frames if length_known else 0
    info = AudioInfo(file.samplerate, file.channels, frames, f"{file.format}/{file.subtype}")
    if not MIN_RATE <= info.sample_rate <= MAX_RATE:
        raise AudioError(
            f"{name} claims a sample rate of {info.sample_rate} Hz; {MIN_RATE} to {MAX_RATE} Hz can be read."
        )
    if info.channels > MAX_CHANNELS:
        raise AudioError(f"{name} has {info.channels} channels; at most {MAX_CHANNELS} can be read.")
    if info.frames == 0 and length_known:
        raise AudioError(f"{name} holds no samples; replace it or leave it out.")
    if length_known and info.frames > MAX_FRAMES_PER_BYTE * (size := os.path.getsize(name)):
        raise AudioError(f"{name} claims to last {info.duration_seconds:.0f} s, which {size} bytes cannot hold.")
    return info


def _open(path: str | Path) -> soundfile.SoundFile:
    """Open a file to seek in."""
    path = _readable(Path(path))
    return _libsndfile(path) or ffmpeg.decoded(path)


@contextmanager
def _open_once(
    source: str | Path | BinaryIO, raw_rate: int | None
) -> Iterator[tuple[soundfile.SoundFile, Callable[[], None] | None]]:
    """Open a file or a stream to read once, with what tells at its end whether all of it came; `None`: it did."""
    if not isinstance(source, str | Path):
        with _open_stream(source, raw_rate) as file:
            yield file, None
        return
    path = _readable(Path(source))
    if (opened := _libsndfile(path)) is not None:
        with opened:
            yield opened, None
        return
    with ffmpeg.streaming(path) as (file, check):
        yield file, check


def _open_stream(source: BinaryIO, raw_rate: int | None) -> soundfile.SoundFile:
    raw: dict[str, Any] = {}
    if raw_rate is not None:
        raw = {"format": "RAW", "subtype": "PCM_16", "endian": "LITTLE", "channels": 1, "samplerate": raw_rate}
    try:
        target = source if source.seekable() else source.fileno()
        return soundfile.SoundFile(target, closefd=False, **raw)
    except (soundfile.LibsndfileError, RuntimeError, TypeError, OSError, ValueError) as error:
        raise AudioError(
            f"Standard input is no recording that can be read from a pipe ({_reason(error)}); send WAV, or name a file."
        ) from error


def _readable(path: Path) -> Path:
    """The path, unless there is no file to read."""
    if not path.exists():
        raise AudioError(f"{path} does not exist.")
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "no regular file"
        raise AudioError(f"{path} is {kind}, not a recording.")
    if not os.access(path, os.R_OK):
        raise AudioError(f"{path} may not be read by this user; change its permissions.")
    return path


def _libsndfile(path: Path) -> soundfile.SoundFile | None:
    """Open a file with libsndfile; `None` where ffmpeg has to try.

    It tries what is known to be its own, and what libsndfile gives up on, unless that claims to be a format that
    libsndfile would know, or claims nothing by having no ending.
    """
    suffix = path.suffix.lower()
    if suffix in ffmpeg.EXTENSIONS:
        return None
    try:
        return soundfile.SoundFile(os.fsencode(path) if os.name == "posix" else path)  # any bytes
    except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
        strange = suffix not in EXTENSIONS or getattr(error, "code", _NOT_RECOGNISED) != _NOT_RECOGNISED
        if suffix and strange and path.stat().st_size and ffmpeg.installed():
            return None
        raise AudioError(f"{path} is no recording that can be read ({_reason(error)}).") from error


def _reason(error: Exception) -> str:
    """The library's own words, without the file name that it repeats."""
    text = getattr(error, "error_string", None) or str(error)
    return text.strip().rstrip(".")
