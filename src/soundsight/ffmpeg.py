"""What libsndfile does not know, decoded by the program ffmpeg: M4A, video soundtracks, and the rest.

A recording that is read once from start to end streams through a pipe, in constant memory and without a file
on disk. One that is read in parts, as windows are in training, is decoded once into a temporary file, which is
kept until this thread reads another recording. Both give the same samples. Neighbour: `audio` decides who reads.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import soundfile

from soundsight.errors import AudioError

EXTENSIONS = frozenset(
    ".m4a .m4b .aac .mp4 .m4v .mov .mkv .mka .webm .avi .wma .wmv .asf .amr .3gp .3g2 .mpg .mpeg .ts .mts .flv .f4v "
    ".ac3 .eac3 .dts .mp2 .wv .ape .tta .tak .mpc .dsf .dff .ra .rm .spx .qoa".split()
)
# No playlists and no scripts, which could have other files read.
_DEMUXERS = (
    "mov,matroska,avi,asf,aac,amr,amrnb,amrwb,mpeg,mpegts,mpegvideo,flv,ac3,eac3,dts,mp3,wv,ape,tta,tak,mpc,mpc8,"
    "dsf,iff,rm,qoa,wav,w64,flac,ogg,aiff,caf,au"
)
_kept = threading.local()  # `.key` and `.file` of the recording that this thread decoded last


def installed() -> bool:
    """Whether the program is there."""
    return shutil.which("ffmpeg") is not None


@contextmanager
def streaming(path: Path) -> Iterator[tuple[soundfile.SoundFile, Callable[[], None]]]:
    """Decode from start to end through a pipe.

    Yields:
        A file that can be read but not sought, of unknown length, and a function for its end that raises
        `AudioError` if a part of the recording was lost.

    Raises:
        AudioError: ffmpeg is missing, or finds no sound in the file.
    """
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(
            [*_command(path), "-c:a", "pcm_s16be", "-f", "au", "pipe:1"], stdout=subprocess.PIPE, stderr=complaints
        )
        assert process.stdout is not None
        try:
            try:
                file = soundfile.SoundFile(process.stdout.fileno(), closefd=False)
            except (soundfile.LibsndfileError, RuntimeError) as error:
                process.wait(10)
                raise AudioError(f"{path} is no recording that can be read (ffmpeg: {_reason(complaints)}).") from error
            with file:
                yield file, lambda: _check(process, complaints, path)
        finally:
            process.kill()
            process.stdout.close()
            process.wait()


def decoded(path: Path) -> soundfile.SoundFile:
    """Decode all of a recording, unless that was done for the last one already, and open what came out.

    Raises:
        AudioError: See `streaming`.
    """
    stat = path.stat()
    key = (str(path.resolve()), stat.st_size, stat.st_mtime_ns)
    if getattr(_kept, "key", None) != key:
        forget()
        _kept.file = _decode(path)
        _kept.key = key
    _kept.file.seek(0)
    return soundfile.SoundFile(os.dup(_kept.file.fileno()))


def forget() -> None:
    """Let go of what is kept."""
    file = getattr(_kept, "file", None)
    _kept.key = _kept.file = None
    if file is not None:
        file.close()


def _decode(path: Path) -> IO[bytes]:
    """A temporary WAV file without a name, so that it never outlives this process."""
    handle, name = tempfile.mkstemp(suffix=".wav", prefix="soundsight-")
    file = os.fdopen(handle, "rb")
    try:
        done = subprocess.run(
            [*_command(path), "-y", "-rf64", "auto", "-c:a", "pcm_s16le", name], capture_output=True, check=False
        )
        if done.returncode != 0 or not os.path.getsize(name):
            raise AudioError(f"{path} is no recording that can be read (ffmpeg: {_last_line(done.stderr)}).")
        return file
    except BaseException:
        file.close()
        raise
    finally:
        with suppress(OSError):
            os.unlink(name)


def _command(path: Path) -> list[Any]:
    """The common part: the first sound track of one local file and nothing else, no network."""
    program = shutil.which("ffmpeg")
    if program is None:
        raise AudioError(
            f"{path} needs the program ffmpeg, which is not installed; install it, or convert the file to FLAC."
        )
    words = [program, "-nostdin", "-v", "error", "-protocol_whitelist", "file,pipe", "-format_whitelist", _DEMUXERS]
    return [*words, "-i", f"file:{path.resolve()}", "-vn", "-sn", "-dn", "-map", "0:a:0"]


def _check(process: subprocess.Popen[bytes], complaints: IO[bytes], path: Path) -> None:
    """Raise `AudioError` if ffmpeg lost a part of the recording."""
    process.wait(10)
    complaints.seek(0, os.SEEK_END)
    if process.returncode != 0 or complaints.tell():
        raise AudioError(f"{path} is damaged, and a part of it may be missing: {_reason(complaints)}.")


def _reason(complaints: IO[bytes]) -> str:
    complaints.seek(0)
    return _last_line(complaints.read(1 << 16))


def _last_line(text: bytes) -> str:
    lines = text.decode(errors="replace").strip().splitlines()
    return lines[-1].strip().rstrip(".") if lines else "no reason given"
