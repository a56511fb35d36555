"""Recordings: from a file, a pipe or an array to mono float32 samples at a model's sample rate.

Everything is read from start to end, in little memory, and counted: what a header announces is a claim. The decoder
is chosen by the content: libsndfile, or else the program ffmpeg where it is installed. What is there of a damaged
recording is read, and the damage is said. Knows nothing of images or labels.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from soundsight import interrupts
from soundsight.audio import container, decoding, ffmpeg
from soundsight.audio.decoding import MAX_CHANNELS, AudioInfo, Waveform, good, open_stream, readable
from soundsight.audio.packed import HEAD
from soundsight.errors import AudioError

with interrupts.later():  # a Ctrl-C into the loading of its C++ would abort the process
    import soxr

MIN_RATE, MAX_RATE = decoding.MIN_RATE, decoding.MAX_RATE  # Hz
BLOCK_SECONDS = 10.0
# Source samples decoded beyond the end of a clip, so that the resampler sees what follows.
MARGIN_SAMPLES = 4096
# The share of a clip that a recording's end, or what is good of it, must fill to be a clip of its own.
LEAST_SHARE = 0.5
# The share of a clip up to which a recording's rest is left out: a codec's padding, or a recorder's last milliseconds.
IGNORED_SHARE = 0.015
# Channels of an array with fewer samples than channels; more are implausible, and the other side is taken for time.
MOST_COLUMNS = 16
_KEPT_SAMPLES = 1 << 22  # of a recording of unknown length that are kept while it is measured: 16 MB

_SEEKABLE = frozenset(".wav .wave .bwf .amb .rf64 .w64 .aif .aiff .aifc .au .snd .caf .voc .sph .nist".split())
EXTENSIONS = _SEEKABLE | frozenset(".flac .ogg .oga .opus .mp3 .wac .w4v .dss .ds2".split())  # the last: to be told
# What lies beside recordings: never opened to see whether it is one.
_BESIDE = frozenset(
    ".txt .csv .tsv .json .jsonl .xml .yaml .yml .md .html .htm .pdf .png .jpg .jpeg .gif .tif .tiff .bmp .svg .npy "
    ".npz .zip .gz .tar .7z .rar .py .ipynb .db .sqlite .parquet .log .ini .cfg .lock .cache .pt .onnx .xlsx .xls .doc "
    ".docx .part .partial .crdownload .tmp .bak .wamd .textgrid .kml .gpx .exe .dll .pk .reapeaks .asd".split()
)
# Folders that operating systems and storage servers make.
LITTER = frozenset({"__macosx", "system volume information", "$recycle.bin", "lost+found", "@eadir", "#recycle"})
_kept = threading.local()  # `.open`: the recording that this thread read last, if it cannot be sought in


def is_audio(path: Path) -> bool:
    """Whether a file is meant as a recording: by its name, or where that says nothing, by its first bytes."""
    suffix = path.suffix.lower()
    if suffix in EXTENSIONS or suffix in ffmpeg.EXTENSIONS:
        return True
    if suffix in _BESIDE:
        return False
    try:
        if not os.path.isfile(path):  # unlike `Path.is_file`, no error in a closed folder
            return False
        with open(path, "rb", buffering=0) as file:
            return container.known(file.read(HEAD))
    except OSError:
        return False


def decoded_once(path: Path) -> str:
    """The recording, if clips of it are best read together, in order, by one process; empty if any place can be sought.

    By the name, which is a guess: it costs time alone if it is wrong.
    """
    return "" if path.suffix.lower() in _SEEKABLE else str(path)


def is_litter(name: str) -> bool:
    """Whether a file or folder is hidden, a backup, or made by an operating system beside what people keep."""
    return name.startswith(".") or name.endswith("~") or name.lower() in LITTER


def files_below(folder: Path) -> Iterator[tuple[Path, str]]:
    """All files below a folder, in a fixed order, and places with the reason why they cannot be read.

    Links to folders are followed, each folder once. What `is_litter` is left alone, and so are blocks of Audacity.
    """
    seen: set[str] = set()
    refused: list[OSError] = []
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=refused.append):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(x for x in folders if not is_litter(x) and f"{x.removesuffix('_data')}.aup" not in names)
        if not names and not folders and is_audio(Path(parent)):
            yield Path(parent), "is an empty folder, not a recording"
        yield from ((Path(parent, name), "") for name in sorted(names) if not is_litter(name))
    for error in refused:
        yield Path(error.filename), f"the folder cannot be read ({error.strerror})"


def span(start_seconds: float, seconds: float, rate: int) -> tuple[int, int]:
    """First sample and number of samples of a stretch, the same for all who cut: `prepare`, `predict` and the page.

    Times are taken to the microsecond, as tables hold them.
    """
    first = math.floor(round(start_seconds, 6) * rate + 0.5)
    return first, math.ceil(round(seconds, 6) * rate - 1e-6)


class Recording:
    """A recording that is open to be read in stretches; made by `recording`.

    Attributes:
        info: What is known of it; its length is counted where no header tells.
        damage: What was found to be wrong with it so far, one sentence; empty if nothing was.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.damage = path, ""
        self._stack = ExitStack()
        self._first, self._held, self._parts = 0, 0, list[Waveform]()
        self._ended = False
        self._stream = self._stack.enter_context(open_stream(path))
        self._blocks: Iterator[Waveform] | None = None
        self.info, self.damage, self.exact = self._stream.info, self._stream.damage, self._stream.exact
        if not self.info.frames:
            self._restart(0, None)
            self._pull(None)
            info = self.info
            self.info = AudioInfo(info.sample_rate, info.channels, self._first + self._held, info.format)

    def close(self) -> None:
        """Let go of the file."""
        self._stack.close()
        self._blocks = None

    def read(self, *, sample_rate: int, start_seconds: float = 0.0, duration_seconds: float | None = None) -> Waveform:
        """Read a stretch.

        Args:
            sample_rate: Rate of the result, in Hz.
            start_seconds: Where to begin.
            duration_seconds: How much to read at most; `None` reads to the end.

        Returns:
            Mono float32 `(samples,)` in [-1, 1], the mean of the channels; shorter than asked for where the
            recording, or what is good of it, ends. Then `damage` tells if it should not have.

        Raises:
            AudioError: Nothing of the stretch is there.
        """
        rate = self.info.sample_rate
        first, count = span(start_seconds, duration_seconds or 0.0, rate)
        margin = MARGIN_SAMPLES if rate != sample_rate else 0
        data = np.zeros(0, np.float32)
        if first >= 0 and not (self.exact and first >= self.info.frames):
            data = self._samples(first, None if duration_seconds is None else count + margin)
        if not len(data):
            length = (self._first + self._held) / rate if self._ended and not self.exact else self.info.duration_seconds
            raise AudioError(
                self.damage
                or f"{self.path} is {length:.3f} s long, so nothing is left at {start_seconds:g} s; "
                "choose an earlier start."
            )
        own = len(data) if duration_seconds is None else min(count, len(data))
        return resample(data, rate, sample_rate)[: math.ceil(own * sample_rate / rate)]

    def _samples(self, first: int, count: int | None) -> Waveform:
        if self.exact or self._blocks is None or first < self._first:
            self._restart(first if self.exact else 0, count if self.exact else None)
        self._pull(None if count is None else first + count, keep=first)
        data = self._parts[0] if len(self._parts) == 1 else np.concatenate([np.zeros(0, np.float32), *self._parts])
        data = data[max(0, first - self._first) :]
        self._parts, self._first, self._held = [data], max(first, self._first), len(data)
        return data[:count]

    def _restart(self, first: int, count: int | None) -> None:
        if self._blocks is not None and not self.exact:
            self._stack.close()
            self._stream = self._stack.enter_context(open_stream(self.path))
        self._first, self._held, self._parts, self._ended = first, 0, [], False
        self._blocks = self._stream.blocks(count or round(BLOCK_SECONDS * self.info.sample_rate), first)

    def _pull(self, end: int | None, keep: int | None = None) -> None:
        """Decode up to the sample `end`; hold on to what comes from `keep` on, or to as much as a few megabytes."""
        assert self._blocks is not None
        while not self._ended and (end is None or self._first + self._held < end):
            try:
                block = next(self._blocks, None)
            except AudioError as error:
                self.damage, block = str(error), None
                if not self._first + self._held:
                    raise
            if block is None:
                self._ended = True
                if not self.exact:
                    self._stack.close()
                break
            self._parts.append(block)
            self._held += len(block)
            while self._parts and (
                self._held > _KEPT_SAMPLES if keep is None else self._first + len(self._parts[0]) <= keep
            ):
                self._first += len(self._parts[0])
                self._held -= len(self._parts.pop(0))


@contextmanager
def recording(path: str | Path) -> Iterator[Recording]:
    """Open a recording.

    One that cannot be sought in stays open, where it was read to, until this thread reads another one: its clips are
    decoded once, if they are read in order.

    Raises:
        AudioError: The file is missing, is no recording, or has no samples.
    """
    path = readable(Path(path))
    stat = path.stat()
    key = (str(path.absolute()), stat.st_size, stat.st_mtime_ns)
    opened = _mine().pop(key, None)
    if opened is None:
        forget()
        opened = Recording(path)
    try:
        yield opened
    finally:
        if opened.exact:
            opened.close()
        else:
            forget()
            _mine()[key] = opened


def forget() -> None:
    """Let go of the recording that is kept open."""
    while _mine():
        _mine().popitem()[1].close()


def _mine() -> dict[tuple[str, int, int], Recording]:
    return _kept.__dict__.setdefault("open", {})


def probe(path: str | Path) -> AudioInfo:
    """What is known of a recording; raises as `recording` does."""
    with recording(path) as opened:
        return opened.info


def read(
    path: str | Path,
    *,
    sample_rate: int,
    start_seconds: float = 0.0,
    duration_seconds: float | None = None,
) -> Waveform:
    """Open a recording and read a stretch of it; see `Recording.read`.

    Raises:
        AudioError: Nothing of the stretch is there, or damage was met in it.
    """
    with recording(path) as opened:
        before = opened.damage
        waveform = opened.read(sample_rate=sample_rate, start_seconds=start_seconds, duration_seconds=duration_seconds)
        if opened.damage != before:
            raise AudioError(opened.damage)
        return waveform


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
        source: A path, or an open binary stream. A pipe is read as it comes if it is WAV, AIFF, AU, CAF, OGG or
            MP3; other formats are kept in a temporary file first.
        raw_rate: For a stream without a header, 16-bit little-endian mono: its rate in Hz.
        block_seconds: Length of the blocks.

    Yields:
        What is known (the length is 0 where only decoding can tell), and an iterator of mono float32 blocks
        `(samples,)` in [-1, 1], which raises `AudioError` after what is good of a damaged or empty recording.

    Raises:
        AudioError: As `probe`.
    """
    with open_stream(source, raw_rate) as stream:
        yield stream.info, stream.blocks(max(1, round(block_seconds * stream.info.sample_rate)))


def to_mono(samples: npt.ArrayLike) -> Waveform:
    """Turn an array of samples into a waveform.

    Args:
        samples: `(samples,)` or `(samples, channels)`. More than `MOST_COLUMNS` columns and fewer rows are taken for
            `(channels, samples)`. Integers are scaled by their type's range, floats must lie in [-1, 1].

    Returns:
        Mono float32 `(samples,)`.

    Raises:
        AudioError: The array has another shape, is empty, or holds values that are no numbers.
    """
    array = np.asarray(samples)
    if array.ndim not in (1, 2) or array.size == 0:
        raise AudioError(f"An array of shape {array.shape} is no recording: (samples,) or (samples, channels) is.")
    if array.ndim == 2 and array.shape[1] > max(MOST_COLUMNS, array.shape[0]):  # as librosa and torchaudio give it
        array = array.T
    if array.ndim == 2 and array.shape[1] > MAX_CHANNELS:
        raise AudioError(
            f"An array of shape {array.shape} is no recording: it has {array.shape[1]} channels, and at most "
            f"{MAX_CHANNELS} are allowed."
        )
    if np.issubdtype(array.dtype, np.integer):
        limits = np.iinfo(array.dtype)
        middle = (limits.max + limits.min + 1) / 2
        array = (array.astype(np.float32) - middle) / (limits.max - middle + 1)
    mono, problem = good(array.reshape(len(array), -1).astype(np.float32), 0)
    if problem:
        raise AudioError(f"The array {problem}.")
    return mono
