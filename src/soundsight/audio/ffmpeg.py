"""What libsndfile does not know, decoded by the program ffmpeg: M4A, video soundtracks, and the rest.

Samples come through a pipe, in constant memory and without a file on disk. Neighbour: `audio` decides who reads.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import soundfile

from soundsight.errors import AudioError
from soundsight.machine import processors

EXTENSIONS = frozenset(
    ".m4a .m4b .aac .mp4 .m4v .mov .mkv .mka .webm .weba .avi .wma .wmv .asf .amr .3gp .3g2 .mpg .mpeg .ts .mts .flv "
    ".f4v .ac3 .eac3 .dts .mp2 .wv .ape .tta .tak .mpc .dsf .dff .ra .rm .spx .qoa .ogv".split()
)
# No playlists and no scripts, which could have other files read.
_DEMUXERS = (
    "mov,matroska,avi,asf,aac,amr,amrnb,amrwb,mpeg,mpegts,mpegvideo,flv,ac3,eac3,dts,mp3,wv,ape,tta,tak,mpc,mpc8,"
    "dsf,iff,rm,qoa,wav,w64,flac,ogg,aiff,caf,au,voc,nistsphere"
)
_MOST_COMPLAINTS = 1 << 20  # bytes; a file that is damaged all over could fill the disk
# Run before ffmpeg, in its process: it ends with the thread that started it (prctl(2), PR_SET_PDEATHSIG), and writes no
# large file. Not by `preexec_fn`: a fork beside threads that compute leaves OpenBLAS hanging.
_TIE = f"""
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, ({_MOST_COMPLAINTS}, {_MOST_COMPLAINTS}))
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, {int(signal.SIGTERM)})
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


def installed() -> bool:
    """Whether the program is there."""
    return shutil.which("ffmpeg") is not None


@contextmanager
def streaming(
    path: Path | str, file: IO[bytes] | None = None, end: int | None = None
) -> Iterator[tuple[soundfile.SoundFile, Callable[[], str]]]:
    """Decode from start to end.

    Args:
        path: The recording.
        file: Open it instead; `path` is its name in messages.
        end: The byte where its sound ends, if something else follows.

    Yields:
        A file that can be read but not sought, of unknown length, and a function for its end that says what was
        lost of the recording, if anything.

    Raises:
        AudioError: ffmpeg is missing, or finds no sound in the file.
    """
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(
            _command(path, "/dev/stdin" if file else Path(path).resolve(), end),
            stdin=file or subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
        )
        assert process.stdout is not None
        try:
            try:
                decoded = soundfile.SoundFile(process.stdout.fileno(), closefd=False)
            except (soundfile.LibsndfileError, RuntimeError) as error:
                process.wait(10)
                lines = _complaints(complaints)
                raise AudioError(
                    f"{path} is no recording that can be read (ffmpeg: {lines[-1] if lines else 'no reason given'})."
                ) from error
            with decoded:
                yield decoded, lambda: _lost(process, complaints)
        finally:
            process.kill()
            process.stdout.close()
            process.wait()


def _command(name: Path | str, path: Path | str, end: int | None) -> list[Any]:
    """The first sound track of one local file and nothing else, no network."""
    program = shutil.which("ffmpeg")
    if program is None:
        raise AudioError(
            f"{name} needs the program ffmpeg, which is not installed; install it, or convert the file to FLAC."
        )
    tied = [sys.executable, "-I", "-S", "-c", _TIE, str(os.getpid())] if os.name == "posix" and sys.executable else []
    words = [*tied, program, "-nostdin", "-v", "level+warning", "-threads", str(processors().count)]
    words += ["-protocol_whitelist", "file,pipe,subfile"]
    part = "" if end is None else f"subfile,,start,0,end,{end},,:"
    words += ["-format_whitelist", _DEMUXERS, "-i", f"{part}file:{path}", "-vn", "-sn", "-dn", "-map", "0:a:0"]
    return [*words, "-c:a", "pcm_s16be", "-f", "au", "pipe:1"]


def _lost(process: subprocess.Popen[bytes], complaints: IO[bytes]) -> str:
    """What ffmpeg says about the parts of a recording that it lost; nothing if it lost none."""
    process.wait(10)
    lines = _complaints(complaints)
    if process.returncode == 0 and not lines:
        return ""
    return f"is damaged, and a part of it may be missing: {lines[-1] if lines else 'no reason given'}"


def _complaints(file: IO[bytes]) -> list[str]:
    """Errors, and those warnings that tell of damage, without the parts of ffmpeg that they come from."""
    file.seek(0)
    lines = file.read(1 << 16).decode(errors="replace").splitlines()
    told = [
        line
        for line in lines
        if "[error]" in line or "[fatal]" in line or ("[warning]" in line and ("orrupt" in line or "truncat" in line))
    ]
    return [line.rpartition("] ")[2].strip().rstrip(".") for line in told]
