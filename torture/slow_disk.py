"""A slow disk with a quota: a FUSE file system that passes everything on to a folder, late, and not without end.

    python -m torture.slow_disk FOLDER MOUNTPOINT --quota 300000 --delay 0.02

Needs Linux, /dev/fuse, libfuse and the package mfusepy.
"""

from __future__ import annotations

import argparse
import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def slow_disk(place: Path, *, quota: int = 10**12, delay: float = 0.0) -> Iterator[Path]:
    """Such a disk below `place`, mounted by a process of its own.

    Args:
        place: A folder to work in.
        quota: Bytes that may be written in all; more is predicted with EDQUOT, as by a quota of Linux.
        delay: Seconds that each reading, writing, renaming and opening takes.

    Raises:
        OSError: FUSE is not to be had here.
    """
    backing, mounted = place / "backing", place / "slow"
    backing.mkdir()
    mounted.mkdir()
    command = [sys.executable, "-m", "torture.slow_disk", str(backing), str(mounted)]
    log = open(place / "slow-log", "w+", encoding="utf-8")
    with log, subprocess.Popen([*command, "--quota", str(quota), "--delay", str(delay)], stderr=log) as process:
        until = time.monotonic() + 60
        while not os.path.ismount(mounted) and process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        if not os.path.ismount(mounted):
            process.kill()
            log.seek(0)
            raise OSError(f"no slow disk can be made here: {log.read()[-200:]}")
        try:
            yield mounted
        finally:
            subprocess.run(["umount", "-l", str(mounted)], check=False, capture_output=True)
            process.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("mountpoint")
    parser.add_argument("--quota", type=int, default=10**12)
    parser.add_argument("--delay", type=float, default=0.0)
    arguments = parser.parse_args()
    import mfusepy

    operations = _make_operations(Path(arguments.folder), arguments.quota, arguments.delay)
    mfusepy.FUSE(operations, arguments.mountpoint, foreground=True, nothreads=False)


def _make_operations(root: Path, quota: int, delay: float) -> Any:
    """The file system; mfusepy is loaded only where it runs."""
    import mfusepy

    left, lock = [quota], threading.Lock()

    class Disk(mfusepy.Operations):  # type: ignore[misc, name-defined]
        """Every call goes to `root`."""

        def _at(self, path: str) -> str:
            return str(root) + path

        def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
            found = os.lstat(self._at(path))
            keys = ("st_atime", "st_ctime", "st_gid", "st_mode", "st_mtime", "st_nlink", "st_size", "st_uid")
            return {key: getattr(found, key) for key in keys}

        def readdir(self, path: str, fh: int) -> list[str]:
            return [".", "..", *os.listdir(self._at(path))]

        def create(self, path: str, mode: int, fi: Any = None) -> int:
            time.sleep(delay)
            return os.open(self._at(path), os.O_RDWR | os.O_CREAT | os.O_TRUNC, mode)

        def open(self, path: str, flags: int) -> int:
            time.sleep(delay)
            return os.open(self._at(path), flags & ~os.O_APPEND)

        def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
            time.sleep(delay)
            return os.pread(fh, size, offset)

        def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
            time.sleep(delay)
            with lock:
                if len(data) > left[0]:
                    raise mfusepy.FuseOSError(errno.EDQUOT)
                left[0] -= len(data)
            return os.pwrite(fh, data, offset)

        def truncate(self, path: str, length: int, fh: int | None = None) -> None:
            os.truncate(self._at(path), length)

        def release(self, path: str, fh: int) -> None:
            os.close(fh)

        def rename(self, old: str, new: str) -> None:
            time.sleep(delay)
            os.rename(self._at(old), self._at(new))

        def unlink(self, path: str) -> None:
            with lock:
                left[0] += os.lstat(self._at(path)).st_size
            os.unlink(self._at(path))

        def mkdir(self, path: str, mode: int) -> None:
            os.mkdir(self._at(path), mode)

        def rmdir(self, path: str) -> None:
            os.rmdir(self._at(path))

        def link(self, target: str, source: str) -> None:
            os.link(self._at(source), self._at(target))

        def symlink(self, target: str, source: str) -> None:
            os.symlink(source, self._at(target))

        def readlink(self, path: str) -> str:
            return os.readlink(self._at(path))

        def chmod(self, path: str, mode: int) -> None:
            os.chmod(self._at(path), mode)

        def utimens(self, path: str, times: tuple[int, int] | None = None) -> None:
            os.utime(self._at(path), ns=times)

        def statfs(self, path: str) -> dict[str, int]:
            found = os.statvfs(root)
            keys = ("f_bavail", "f_bfree", "f_blocks", "f_bsize", "f_favail", "f_ffree", "f_files", "f_frsize")
            return {key: getattr(found, key) for key in keys}

    return Disk()


if __name__ == "__main__":
    main()
