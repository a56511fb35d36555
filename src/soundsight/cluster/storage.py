"""Folders that all nodes see: a shared file system, or S3 and what else PyArrow and fsspec know.

A file is whole or absent: on disk by a draft, fsync and rename; in object stores because an object appears
when its upload is complete.
"""

from __future__ import annotations

import io
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from soundsight.errors import AudioError, ConfigError
from soundsight.files import remove_drafts, replacing

_ADDRESS = re.compile(r"^[a-z][a-z0-9+.-]*://")


def is_address(path: str) -> bool:
    """Whether this names something on a network file system, such as s3://BUCKET/NAME."""
    return bool(_ADDRESS.match(path)) and not path.startswith("file://")


class Place:
    """A folder, by path or address; made when something is written.

    All methods raise `ConfigError` with the reason if the storage does not do as told.
    """

    def __init__(self, where: str | Path) -> None:
        self.where = str(where).rstrip("/")
        self.remote = is_address(self.where)

    def path(self, name: str) -> str:
        """The full name of a file."""
        base, mark, query = self.where.partition("?")  # s3://bucket/folder?endpoint_override=...
        return f"{base.rstrip('/')}/{name}{mark}{query}"

    def write(self, name: str, data: bytes) -> None:
        """Write a file, whole or not at all."""
        self.copy(name, io.BytesIO(data))

    def copy(self, name: str, source: BinaryIO) -> None:
        """As `write`, from a stream, which may be longer than memory."""
        if self.remote:
            with _trouble(self.path(name), "written"):
                system, path = _open_system(self.path(name))
                with system.open_output_stream(path) as stream:
                    _copy(source, stream)
            return
        target = Path(self.path(name))
        with _trouble(str(target), "written"):
            with replacing(target) as draft, open(draft, "wb") as stream:
                _copy(source, stream)
                stream.flush()
                os.fsync(stream.fileno())
            _sync_folder(target.parent)

    def read(self, name: str) -> bytes:
        """All of a file."""
        with self.open(name) as stream:
            return stream.read()  # type: ignore[no-any-return]

    def open(self, name: str) -> Any:
        """A file to read and seek in, as a context manager."""
        with _trouble(self.path(name), "read"):
            if not self.remote:
                return open(self.path(name), "rb")
            system, path = _open_system(self.path(name))
            return system.open_input_file(path)

    def sizes(self, folder: str) -> dict[str, int]:
        """Names and bytes of the files in a folder, drafts aside; none if there is no such folder."""
        with _trouble(self.path(folder), "listed"):
            if not self.remote:
                try:
                    entries = list(os.scandir(self.path(folder)))
                except FileNotFoundError:
                    return {}
                return {e.name: e.stat().st_size for e in entries if not e.name.startswith(".")}
            from pyarrow import fs

            system, path = _open_system(self.path(folder))
            found = system.get_file_info(fs.FileSelector(path, allow_not_found=True))
            return {info.base_name: int(info.size or 0) for info in found if info.type == fs.FileType.File}

    def has(self, name: str) -> bool:
        """Whether a file is there."""
        return exists(self.path(name))

    def remove(self, name: str) -> None:
        """Delete a file, if it is there."""
        with _trouble(self.path(name), "deleted"):
            if self.remote:
                system, path = _open_system(self.path(name))
                with suppress(FileNotFoundError):
                    system.delete_file(path)
                return
            Path(self.path(name)).unlink(missing_ok=True)

    def clean(self, folder: str) -> None:
        """Delete the drafts that killed workers left in a folder."""
        if not self.remote:
            remove_drafts(Path(self.path(folder)))


def exists(path: str, folder: str = "") -> bool:
    """Whether a file or folder is there, by path (relative to `folder`) or address."""
    if not is_address(path):
        return os.path.exists(os.path.join(folder, path))
    from pyarrow import fs

    with _trouble(path, "read"):
        system, inner = _open_system(path)
        return bool(system.get_file_info(inner).type != fs.FileType.NotFound)


def listing(address: str) -> list[str]:
    """The addresses of all files below a folder in a network file system; a file is itself.

    Raises:
        ConfigError: The storage cannot be listed.
    """
    from pyarrow import fs

    base, mark, query = address.partition("?")
    with _trouble(address, "listed"):
        system, inner = _open_system(address)
        if system.get_file_info(inner).type == fs.FileType.File:
            return [address]
        found = system.get_file_info(fs.FileSelector(inner, recursive=True))
    below = len(inner.rstrip("/")) + 1
    names = sorted(info.path[below:] for info in found if info.type == fs.FileType.File)
    return [f"{base.rstrip('/')}/{name}{mark}{query}" for name in names]


@contextmanager
def fetched(address: str) -> Iterator[Path]:
    """A local copy of a recording, for as long as the block runs.

    Raises:
        AudioError: It cannot be had.
    """
    suffix = Path(address.partition("?")[0]).suffix
    with tempfile.TemporaryDirectory(prefix="soundsight-") as folder:
        target = Path(folder, f"recording{suffix}")
        try:
            system, path = _open_system(address)
            with system.open_input_stream(path) as stream, open(target, "wb") as file:
                _copy(stream, file)
        except (OSError, ValueError, ConfigError) as error:
            raise AudioError(f"{address} cannot be read ({_reason(error)}).") from error
        yield target


def _copy(stream: Any, file: Any) -> None:
    while block := stream.read(1 << 20):
        file.write(block)


def _open_system(address: str) -> tuple[Any, str]:
    scheme, _, rest = address.partition("://")
    path, _, query = rest.partition("?")
    return _system(scheme, path.partition("/")[0], query), path


@lru_cache(maxsize=16)
def _system(scheme: str, bucket: str, query: str) -> Any:
    """The file system of an address: PyArrow's own, or fsspec's."""
    try:
        from pyarrow import fs
    except ImportError as error:
        raise ConfigError(
            "Addresses such as s3:// need the package pyarrow, which is not installed; "
            'run pip install "soundsight[ray]".'
        ) from error
    if scheme in ("s3", "gs", "hdfs", "abfs"):
        settings = [query] if query else []
        if scheme == "s3" and "allow_delayed_open" not in query:
            settings.append("allow_delayed_open=true")  # a small file is one request instead of three
        return fs.FileSystem.from_uri(f"{scheme}://{bucket}?{'&'.join(settings)}".rstrip("?"))[0]
    try:
        import fsspec

        return fs.PyFileSystem(fs.FSSpecHandler(fsspec.filesystem(scheme)))
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{scheme}:// is no storage that is known here ({_reason(error)}).") from error


@contextmanager
def _trouble(path: str, done: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be {done} ({_reason(error)}).") from error


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:300].rstrip(".")


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # not every file system can
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
