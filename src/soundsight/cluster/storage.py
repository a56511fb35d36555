"""Folders that all nodes see, through fsspec: a shared file system, S3 and what else fsspec knows.

A file is whole or absent: on disk by a draft, fsync and rename; in object stores because an object appears when its
upload is complete.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from soundsight.errors import AudioError, ConfigError, SoundsightError
from soundsight.files import replacing

_ADDRESS = re.compile(r"^[a-z][a-z0-9+.-]*://")


def is_address(path: str) -> bool:
    """Whether this names something on a network file system, such as s3://BUCKET/NAME."""
    return bool(_ADDRESS.match(path)) and not path.startswith("file://")


class Storage:
    """A folder, by path or address; made when something is written.

    All methods raise `ConfigError` with the reason if the storage does not do as told.
    """

    def __init__(self, where: str | Path) -> None:
        self.where = str(where).rstrip("/")

    def path(self, name: str) -> str:
        """The full name of a file."""
        base, mark, query = self.where.partition("?")  # s3://bucket/folder?endpoint_override=...
        return f"{base.rstrip('/')}/{name}{mark}{query}"

    def write(self, name: str, data: bytes | Path) -> None:
        """Write a file, whole or not at all: these bytes, or a copy of a local file."""
        with _system(self.path(name), "written") as (system, path):
            if not is_address(self.where):
                with replacing(path) as draft, open(draft, "wb") as stream:
                    if isinstance(data, bytes):
                        stream.write(data)
                    else:
                        with open(data, "rb") as source:
                            shutil.copyfileobj(source, stream)
                    stream.flush()
                    os.fsync(stream.fileno())
            elif isinstance(data, bytes):
                system.pipe_file(path, data)
            else:
                system.put_file(str(data), path)

    def read(self, name: str) -> bytes:
        """All of a file."""
        with _system(self.path(name), "read") as (system, path):
            return bytes(system.cat_file(path))

    def sizes(self, folder: str) -> dict[str, int]:
        """Names and bytes of the files in a folder, drafts aside; none if there is no such folder."""
        with _system(self.path(folder), "listed") as (system, path):
            try:
                found = system.ls(path, detail=True)
            except FileNotFoundError:
                return {}
        files = {entry["name"].rpartition("/")[2]: int(entry["size"]) for entry in found if entry["type"] == "file"}
        return {name: size for name, size in files.items() if not name.startswith(".")}

    def remove(self, name: str) -> None:
        """Delete a file, if it is there."""
        with _system(self.path(name), "deleted") as (system, path), suppress(FileNotFoundError):
            system.rm_file(path)


def exists(path: str, folder: str = "") -> bool:
    """Whether a file or folder is there, by path (relative to `folder`) or address."""
    if not is_address(path):
        return os.path.exists(os.path.join(folder, path))
    with _system(path, "read") as (system, inner):
        return bool(system.exists(inner))


def listing(address: str) -> list[str]:
    """The addresses of all files below a folder in a network file system; a file is itself."""
    base, mark, query = address.partition("?")
    with _system(address, "listed") as (system, inner):
        if system.isfile(inner):
            return [address]
        names = sorted(path[len(inner.rstrip("/")) + 1 :] for path in system.find(inner))
    return [f"{base.rstrip('/')}/{name}{mark}{query}" for name in names]


@contextmanager
def fetched(address: str) -> Iterator[Path]:
    """A local copy of a recording, for as long as the block runs; `AudioError` if it cannot be had."""
    with tempfile.TemporaryDirectory(prefix="soundsight-") as folder:
        shown = address.partition("?")[0]
        target = Path(folder, f"recording{Path(shown).suffix}")
        try:
            with _system(address, "read") as (system, path):
                system.get_file(path, str(target))
            yield target
        except (AudioError, ConfigError) as error:  # what reads it names the copy
            raise AudioError(str(error).replace(str(target), shown)) from error


@contextmanager
def _system(address: str, done: str) -> Iterator[tuple[Any, str]]:
    """fsspec's file system of an address and the path in it; what goes wrong there is a message."""
    import fsspec

    try:
        base, options = _s3(address) if address.startswith("s3://") else (address, {})
        yield fsspec.url_to_fs(base, use_listings_cache=False, **options)
    except SoundsightError:
        raise
    except Exception as error:  # of whatever package serves the address
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        reason = " ".join(str(text).split())[:300].rstrip(".")
        raise ConfigError(f"{address} cannot be {done} ({reason}).") from error


def _s3(address: str) -> tuple[str, dict[str, Any]]:
    """An address without its settings, and these as s3fs takes them: endpoint_override, scheme, region."""
    base, _, query = address.partition("?")
    given = {"scheme": "https", **dict(parse_qsl(query))}
    client = {"region_name": given["region"]} if "region" in given else {}
    if "endpoint_override" in given:
        client["endpoint_url"] = f"{given['scheme']}://{given['endpoint_override']}"
    return base, {"client_kwargs": client} if client else {}
