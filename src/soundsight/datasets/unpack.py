"""Archives of strangers, unpacked with care: nothing outside the folder, no links, no bombs.

Only regular files and folders are written, by this module itself; modes, owners and dates are not taken over.
"""

from __future__ import annotations

import bz2
import contextlib
import errno
import gzip
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from soundsight.datasets.fetch import Progress, check_space, disk_of
from soundsight.errors import DatasetError

FILES_LIMIT = 100_000
RATIO_LIMIT = 100  # unpacked to packed bytes of the whole archive ...
RATIO_SLACK = 32 << 20  # ... beyond this many bytes
PIECE_LIMIT = 4 << 20  # bytes that are unpacked at once
_PACKERS = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\x00", lzma.open))
_UNFIT_NAMES = frozenset({errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.EILSEQ})
_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    gzip.BadGzipFile,
    EOFError,
    RuntimeError,
    NotImplementedError,
    ValueError,
)


@dataclass(frozen=True)
class _Member:
    """A file or folder in an archive."""

    name: str
    kind: str  # "file", "folder", or what else it is
    open: Callable[[], IO[bytes] | None]


def unpack(archive: Path, folder: Path, *, limit: int, progress: Progress | None = None) -> None:
    """Unpack a zip or tar archive (plain, gzip, bzip2, xz) into an empty folder, `limit` bytes of files at most."""
    packed = archive.stat().st_size
    allowed = min(limit, packed * RATIO_LIMIT + RATIO_SLACK)
    written = 0
    try:
        with disk_of(folder.parent), _opened(archive) as (members, total):
            _check_length(total, allowed)
            check_space(folder, max(total, packed))
            for number, member in enumerate(members, 1):
                if number > FILES_LIMIT:
                    raise _Refused(f"it holds more than {FILES_LIMIT} files")
                target = folder / _safe_path(member)
                if member.kind == "folder":
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                for chunk in _write(member, target):
                    written += chunk
                    _check_length(written, allowed)
                    if progress:
                        progress("unpack", written, total)
    except _Refused as reason:
        raise DatasetError(
            f"{archive} is refused: {reason}; a data set's archive does not, so fetch it from its publisher."
        ) from None
    except _DAMAGE as error:
        raise DatasetError(
            f"{archive} is damaged or cut short ({str(error) or type(error).__name__}); fetch it again."
        ) from error
    except OSError as error:
        if error.errno not in (None, *_UNFIT_NAMES):
            raise
        raise DatasetError(f"{archive} cannot be unpacked ({error.strerror or error}).") from error


class _Refused(Exception):
    """Why an archive means harm."""


@contextlib.contextmanager
def _opened(archive: Path) -> Iterator[tuple[Iterator[_Member], int]]:
    """The members of an archive in their order, and their size in all where it is told beforehand."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            yield _zip_members(file), sum(info.file_size for info in file.infolist())
        return
    with open(archive, "rb") as raw:
        magic = raw.read(8)
        raw.seek(0)
        unpacked = next((unpack(raw, "rb") for begin, unpack in _PACKERS if magic.startswith(begin)), raw)
        try:
            tar = tarfile.open(fileobj=_Pieces(unpacked), mode="r:")  # type: ignore[call-overload, arg-type]
        except (tarfile.ReadError, zlib.error, EOFError, lzma.LZMAError, gzip.BadGzipFile) as error:
            raise DatasetError(
                f"{archive} is neither a zip nor a tar archive, or it was cut short; fetch it again."
            ) from error
        with tar:
            yield _tar_members(tar), 0


class _Pieces:
    """What an archive unpacks to, never much of it at once: a tar header may claim to be gigabytes long."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self.tell = stream, stream.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= PIECE_LIMIT:
            raise _Refused(f"it holds a header of {size} bytes")
        return self._stream.read(size)

    def seek(self, place: int) -> int:
        """Go to a place; forward in pieces, since what is passed over is unpacked, too."""
        if place - self.tell() > RATIO_SLACK:
            raise _Refused(f"it holds a gap of {place - self.tell()} bytes")
        return self._stream.seek(place)


def _zip_members(file: zipfile.ZipFile) -> Iterator[_Member]:
    kinds = {0: "file", stat.S_IFREG: "file", stat.S_IFLNK: "link"}
    for info in file.infolist():
        kind = "folder" if info.is_dir() else kinds.get(stat.S_IFMT(info.external_attr >> 16), "device")
        yield _Member(info.filename, kind, partial(file.open, info))


def _tar_members(tar: tarfile.TarFile) -> Iterator[_Member]:
    for info in tar:
        kind = "file" if info.isreg() else "folder" if info.isdir() else "link or device"
        kind = "link" if info.issym() or info.islnk() else kind
        yield _Member(info.name, kind, partial(tar.extractfile, info))
    # The checksum of the compressed stream lies behind its end, and is compared when that is read.
    rest = 0
    while tar.fileobj is not None and (padding := len(tar.fileobj.read(1 << 20))):
        rest += padding
        if rest > RATIO_SLACK:
            raise _Refused(f"{rest} bytes or more follow its last file")


def _safe_path(member: _Member) -> PurePosixPath:
    """The path of a member below the folder, if that is where it lies and if it is a file or a folder."""
    path = PurePosixPath(member.name)
    if member.kind not in ("file", "folder"):
        raise _Refused(f"it holds a {member.kind} ({member.name!r})")
    if path.is_absolute() or ".." in path.parts or any(c in member.name for c in "\\:\0"):
        raise _Refused(f"{member.name!r} would be written outside of its folder")
    if member.kind == "file" and not path.parts:
        raise _Refused("it holds a file without a name")
    return path


def _write(member: _Member, target: Path) -> Iterator[int]:
    """Write one file; yields the bytes of each piece."""
    target.parent.mkdir(parents=True, exist_ok=True)
    source = member.open()
    if source is None:
        raise _Refused(f"it holds no content for {member.name!r}")
    try:
        file = open(target, "xb")
    except FileExistsError:
        raise _Refused(f"it holds {member.name!r} twice") from None
    with source, file:
        while chunk := source.read(1 << 20):
            file.write(chunk)
            yield len(chunk)


def _check_length(found: int, allowed: int) -> None:
    if found > allowed:
        raise _Refused(f"it unpacks to {found} bytes or more, and {allowed} are allowed")
