"""From bytes to blocks of samples, by libsndfile or by ffmpeg, counted to the end.

`container` says what a file holds; here it is decoded, from a file or from a pipe. Neighbour: `audio`, which is what
others use.
"""

from __future__ import annotations

import os
import shutil
import stat
import struct
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import soundfile

from soundsight.audio import container, ffmpeg
from soundsight.audio.packed import HEAD, TAGS, Contents, Part, uncounted
from soundsight.errors import AudioError

Waveform = npt.NDArray[np.float32]

# Below, a second holds no sound worth an image; above, no sound card records.
MIN_RATE, MAX_RATE, MAX_CHANNELS = 100, 1_000_000, 256
BLOCK_VALUES = 1 << 22  # samples of all channels decoded at once, at most: 16 MB
LOUDEST = 1e15  # full scale is 1; beyond, the power of a sound is no number that a float32 can hold
# No codec packs more samples of digital silence into a byte; a header that claims more lies.
MAX_FRAMES_PER_BYTE = 8192
MAX_SPOOL = 8 << 30  # bytes of standard input that are kept on disk, where the format has to be sought in
_UNKNOWN = 1 << 62  # frames that libsndfile reports where it does not know
_NO_MORE = 39  # libsndfile's number for the end of a FLAC of unknown length
_MOST_ZEROS, _LAST_ZEROS = 1 << 20, 1000  # of a pipe that are passed on within it, and at its end
_MP3_PADDING = 2304  # samples that a decoder of MP3 may leave out at the end
_GOES_ON = "goes on with another recording, which is not read from a pipe; name the file"
_MORE = "holds more than its header announces, which is not read from a pipe; name the file"
# Whole numbers, each of its own bytes: any place can be sought, and no value is no number.
_EXACT = frozenset({"PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "ULAW", "ALAW"})
_PACKED = frozenset({"FLAC", "OGG", "MP3", "SDS"})  # formats whose subtypes may be called so all the same
# A damaged file can also leave the library at an impossible place, where it asks for fewer than no samples.
DECODING_ERRORS = (soundfile.LibsndfileError, RuntimeError, ValueError)
_OPENING_ERRORS = (soundfile.LibsndfileError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class AudioInfo:
    """What is known of a recording."""

    sample_rate: int  # Hz
    channels: int
    frames: int  # samples a channel; 0 where only decoding can tell
    format: str  # for example "WAV/PCM_16"

    @property
    def duration_seconds(self) -> float:
        """Length in seconds."""
        return self.frames / self.sample_rate


class Sounds(soundfile.SoundFile):  # type: ignore[misc]
    """A file that is read straight on: `soundfile` seeks after each read, which loses samples of MP3 in a pipe."""

    def seekable(self) -> bool:
        """Never, as far as `soundfile` need know; `seek` works all the same where the format allows it."""
        return False


@dataclass
class Stream:
    """A recording as it is decoded, from start to end."""

    name: str | Path
    parts: Iterable[Callable[[], soundfile.SoundFile]]  # the first is open; each is a part of the recording
    info: AudioInfo
    damage: str = ""  # what the file itself told before it was decoded
    exact: bool = False  # any place can be sought
    lost: Callable[[], str] = str  # what ffmpeg says at the end
    most: int | None = None  # frames of the first part, in a pipe where something else follows

    def blocks(self, frames: int, first: int = 0) -> Iterator[Waveform]:
        """Mono float32 `(samples,)` from a sample on; `AudioError` at the end if anything is wrong."""
        total, problem = first, ""
        for number, part in enumerate(self.parts):
            try:
                file = part()
            except (*_OPENING_ERRORS, OSError):
                problem = f"cannot be decoded after {total / self.info.sample_rate:.1f} s"
                break
            if number and file.samplerate != self.info.sample_rate:
                problem = (
                    f"goes on at {file.samplerate} Hz after {total / self.info.sample_rate:.1f} s, which is not read"
                )
                break
            size = min(frames, max(1, BLOCK_VALUES // file.channels))
            if first or self.exact:
                file.seek(first)
            while not problem:
                wanted = size if self.most is None or number else min(size, self.most - total)
                block, failed = _fill(file, wanted)
                if len(block):
                    mono, problem = good(block, total)
                    total += len(mono)
                    if len(mono):
                        yield mono
                if failed is not None and not problem:
                    problem = f"cannot be decoded after {total / self.info.sample_rate:.1f} s"
                if len(block) < size or failed is not None:
                    break
            if problem:
                break
        self._judge(total, problem)

    def _judge(self, total: int, problem: str) -> None:
        """Raise `AudioError` if not all of the recording came."""
        if not problem or not total:
            problem = self.lost() or problem
        if not total and not problem and not self.damage:
            raise AudioError(f"{self.name} holds no samples; replace it or leave it out.")
        announced, rate = self.info.frames or self.most or 0, self.info.sample_rate
        if total + (_MP3_PADDING if self.info.format.startswith("MP3") else 0) < announced and not problem:
            problem = f"is cut off: it ends after {total / rate:.3f} of {announced / rate:.3f} s"
        if problem or self.damage:
            raise AudioError(self.damage or f"{self.name} {problem}.")


def _fill(file: soundfile.SoundFile, frames: int) -> tuple[npt.NDArray[np.float32], Exception | None]:
    """Up to `frames` samples `(frames, channels)`; where decoding fails, those before, and the error."""
    out = np.full((frames, file.channels), np.nan, np.float32)
    try:
        return file.read(out=out), None  # unlike other ways to read, not bounded by what the header claims
    except DECODING_ERRORS as error:
        bad = np.isnan(out).any(axis=1)
        ended = getattr(error, "code", 0) == _NO_MORE and file.frames >= _UNKNOWN
        return out[: int(bad.argmax()) if bad.any() else frames], None if ended else error


def good(data: npt.NDArray[np.float32], first: int) -> tuple[Waveform, str]:
    """The mean of the channels `(samples,)` up to the first sample that is no sound, and what is wrong with it."""
    mono = np.ascontiguousarray(data[:, 0] if data.shape[1] == 1 else data.mean(axis=1, dtype=np.float32))
    if not len(mono) or (mono.min() >= -LOUDEST and mono.max() <= LOUDEST):
        return mono, ""
    sound = (mono >= -LOUDEST) & (mono <= LOUDEST)
    at = int(sound.argmin())
    if np.isfinite(mono[at]):
        return mono[:at], f"holds values beyond {LOUDEST:g} times full scale, which are no sound; replace it"
    return mono[:at], f"holds values that are no numbers (NaN or infinity, first at sample {first + at})"


def _check(info: AudioInfo, name: str | Path, size: int | None = None) -> AudioInfo:
    if not MIN_RATE <= info.sample_rate <= MAX_RATE:
        raise AudioError(
            f"{name} claims a sample rate of {info.sample_rate} Hz; {MIN_RATE} to {MAX_RATE} Hz can be read."
        )
    if info.channels > MAX_CHANNELS:
        raise AudioError(f"{name} has {info.channels} channels; at most {MAX_CHANNELS} can be read.")
    if size is not None and info.frames > MAX_FRAMES_PER_BYTE * size:
        raise AudioError(f"{name} claims to last {info.duration_seconds:.0f} s, which {size} bytes cannot hold.")
    return info


@contextmanager
def open_stream(source: str | Path | IO[bytes], raw_rate: int | None = None) -> Iterator[Stream]:
    """Open a file or a stream to decode it; see `audio.opened`."""
    if isinstance(source, str | Path):
        path = readable(Path(source))
        with open(path, "rb") as file, _open_file(file, path, path) as stream:
            yield stream
    elif raw_rate is None and source.seekable():
        with _open_file(source, "Standard input", None) as stream:
            yield stream
    else:
        with _open_pipe(source.fileno(), raw_rate) as stream:
            yield stream


@contextmanager
def _open_file(file: IO[bytes], name: str | Path, path: Path | None) -> Iterator[Stream]:
    """Open what can be sought in: libsndfile first, then ffmpeg, if the content or the name is for it."""
    contents = container.look(file)
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(HEAD)
    reason: Exception | None = None
    if not contents.other:
        parts: list[Callable[[], soundfile.SoundFile]] = [
            partial(_part, file, path, part) for part in contents.parts or (None,)
        ]
        try:
            first = parts[0]()
            if first.format == "MP3" and not contents.parts:
                block, failed = _fill(parts[0](), 1)
                if failed is not None and not len(block):
                    raise failed
        except _OPENING_ERRORS as error:
            reason = error
        else:
            with first:
                yield _stream(first, parts, name, contents, size)
            return
    suffix = path.suffix.lower() if path else ""
    if not size or not (suffix in ffmpeg.EXTENSIONS or container.known(head)):
        raise _unreadable(name, path, reason) from reason
    with ExitStack() as stack:
        if path is None:
            spool = stack.enter_context(tempfile.TemporaryFile())
            file.seek(0)
            shutil.copyfileobj(file, spool)
            spool.seek(0)
        end = contents.parts[0].end if contents.parts else None
        decoded, lost = stack.enter_context(ffmpeg.streaming(name, None if path else spool, end))
        info = _check(AudioInfo(decoded.samplerate, decoded.channels, 0, f"{decoded.format}/{decoded.subtype}"), name)
        yield Stream(name, [lambda: decoded], info, _told(name, contents), lost=lost)


def _part(file: IO[bytes], path: Path | None, part: Part | None) -> soundfile.SoundFile:
    if part is not None:
        return Sounds(container.View(file, part), **part.raw)
    if path is None:  # seen through what takes a damaged file's impossible places, too
        return Sounds(container.View(file, Part(0, file.seek(0, os.SEEK_END))))
    file.seek(0)
    if os.name != "posix":
        return Sounds(path)
    # Without a name, libsndfile guesses nothing from the ending, and takes no `._a.mp3` of macOS for a part of `a.mp3`.
    return Sounds(os.open(path, os.O_RDONLY))


def _stream(
    first: soundfile.SoundFile,
    parts: list[Callable[[], soundfile.SoundFile]],
    name: str | Path,
    contents: Contents,
    size: int,
) -> Stream:
    frames = first.frames
    for part in parts[1:]:
        with suppress(*_OPENING_ERRORS), part() as file:
            frames += file.frames
    info = AudioInfo(
        first.samplerate, first.channels, 0 if frames >= _UNKNOWN else frames, f"{first.format}/{first.subtype}"
    )
    damage = _told(name, contents)
    if not frames:
        raise AudioError(damage or f"{name} holds no samples; replace it or leave it out.")
    exact = len(parts) == 1 and first.subtype in _EXACT and first.format not in _PACKED
    return Stream(name, [lambda: first, *parts[1:]], _check(info, name, size), damage, exact)


def _told(name: str | Path, contents: Contents) -> str:
    return f"{name} {contents.damage}." if contents.damage else ""


class _Pipe:
    """What was read of a pipe so far, which is no more than `container.samples` asked for."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor, self.data, self._at = descriptor, b"", 0

    def seek(self, at: int, _: int = os.SEEK_SET) -> int:
        """Go to a byte, not read before."""
        self._at = at
        return at

    def read(self, count: int) -> bytes:
        """Exactly that many bytes, unless the pipe ends."""
        if self._at + count > 1 << 26:
            raise ValueError("the header is too long")
        while (missing := self._at + count - len(self.data)) > 0 and (more := os.read(self.descriptor, missing)):
            self.data += more
        return self.data[self._at : self._at + count]


@contextmanager
def _open_pipe(descriptor: int, raw_rate: int | None) -> Iterator[Stream]:
    name, pipe, found = "Standard input", _Pipe(descriptor), None
    raw: dict[str, Any] = {"format": "RAW", "subtype": "PCM_16", "endian": "LITTLE", "channels": 1}
    if raw_rate is not None:
        found = container.Samples(0, None, {**raw, "samplerate": raw_rate})
    else:
        with suppress(struct.error, ValueError, OverflowError):
            found = container.samples(pipe)
    with ExitStack() as stack:
        if found is not None and found.raw:
            pipe.seek(len(pipe.data))
            pipe.read(max(0, found.start - len(pipe.data)))
            file = stack.enter_context(Sounds(descriptor, closefd=False, **found.raw))
            most = None if found.announced is None else found.announced // container.width(found.raw)
            info = AudioInfo(file.samplerate, file.channels, 0, f"{file.format}/{file.subtype}")
            lost = str if most is None else partial(_beyond, descriptor)
            yield Stream(name, [lambda: file], _check(info, name), lost=lost, most=most)
            return
        if pipe.data.startswith(b"OggS") or container.streams(pipe.data):
            spool: IO[bytes] = stack.enter_context(tempfile.TemporaryFile())
            begin = b"" if pipe.data.startswith(b"OggS") else uncounted(pipe)
            file, drain = stack.enter_context(_replayed(pipe, name, spool, begin))
            info = AudioInfo(file.samplerate, file.channels, 0, f"{file.format}/{file.subtype}")
            most, damage = None if begin or file.frames >= _UNKNOWN else file.frames, list[str]()

            def parts() -> Iterator[Callable[[], soundfile.SoundFile]]:
                yield lambda: file
                drain()
                contents = container.look(spool)
                damage.append(contents.damage)
                with (
                    suppress(*_OPENING_ERRORS),
                    _part(spool, None, contents.parts[0] if contents.parts else None) as own,
                ):
                    if most is not None and most + _MP3_PADDING < own.frames < _UNKNOWN:
                        damage.append(_GOES_ON)
                if file.format != "MP3" or most is not None:  # else it was decoded through all of them
                    yield from (partial(_part, spool, None, part) for part in contents.parts[1:])

            yield Stream(name, parts(), _check(info, name), lost=lambda: "".join(damage), most=most)
            return
        spool = _spooled(stack, descriptor, pipe.data)
        if not spool.seek(0, os.SEEK_END):
            raise AudioError(f"{name} is empty, so it is no recording; send WAV, or name a file.")
        yield stack.enter_context(_open_file(spool, name, None))


def _spooled(stack: ExitStack, descriptor: int, data: bytes) -> IO[bytes]:
    """What was read of a pipe, and the rest of it, as a file that can be sought in."""
    spool = stack.enter_context(tempfile.TemporaryFile())
    spool.write(data)
    while more := os.read(descriptor, 1 << 20):
        if spool.tell() > MAX_SPOOL:
            raise AudioError(f"Standard input is longer than {MAX_SPOOL >> 30} GiB; send WAV, or name a file.")
        spool.write(more)
    return spool


def _beyond(descriptor: int) -> str:
    """What is wrong with what follows the samples that a header announces in a pipe."""
    rest = os.read(descriptor, 1 << 16).lstrip(b"\0")
    return "" if not rest or rest.startswith(TAGS) or rest[:4].strip().isalnum() else _MORE


@contextmanager
def _replayed(
    pipe: _Pipe, name: str, spool: IO[bytes], begin: bytes
) -> Iterator[tuple[soundfile.SoundFile, Callable[[], None]]]:
    """A pipe with what was read of it already, all of which is also kept in `spool`, up to `MAX_SPOOL`.

    `begin` is sent first; zeros, once something else follows: those at the end a decoder of MP3 takes for damage.

    Yields:
        The recording as it comes, and a function that waits for the end of the pipe.
    """
    reader, writer = os.pipe()

    def pump() -> None:
        more, zeros = pipe.data, 0
        with suppress(OSError), open(writer, "wb") as target:
            target.write(begin)
            while more:
                spool.write(more if spool.tell() < MAX_SPOOL else b"")
                if body := more.rstrip(b"\0"):
                    target.write(bytes(min(zeros, _MOST_ZEROS)) + body)
                    target.flush()
                zeros = len(more) - len(body) + (0 if body else zeros)
                more = os.read(pipe.descriptor, 1 << 16)
            target.write(bytes(min(zeros, _LAST_ZEROS)))

    thread = threading.Thread(target=pump, name="soundsight-pipe", daemon=True)
    thread.start()

    def drain() -> None:
        while os.read(reader, 1 << 16):
            pass
        thread.join()

    try:
        try:
            file = Sounds(reader, closefd=False)
        except _OPENING_ERRORS as error:
            raise _unreadable(name, None, error) from error
        with file:
            yield file, drain
    finally:
        os.close(reader)


def readable(path: Path) -> Path:
    """The path, unless there is no file to read."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise AudioError(f"{path} does not exist.") from None
    except OSError as error:  # a closed folder, a loop of links
        raise AudioError(f"{path} cannot be read ({error.strerror}).") from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        raise AudioError(f"{path} is {kind}, not a recording.")
    if not os.access(path, os.R_OK):
        raise AudioError(f"{path} may not be read by this user; change its permissions.")
    return path


def _unreadable(name: str | Path, path: Path | None, error: Exception | None) -> AudioError:
    """The library's own words, without the file name that it repeats."""
    reason = str(getattr(error, "error_string", None) or error or "Format not recognised").strip().rstrip(".")
    if path:
        return AudioError(f"{name} is no recording that can be read ({reason}).")
    return AudioError(
        f"{name} is no recording that can be read from a pipe ({reason}); send WAV, name a file, or give the rate of "
        "samples without a header (--raw)."
    )
