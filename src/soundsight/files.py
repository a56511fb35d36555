"""Files that are either whole or absent: temp file, then rename."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from soundsight.errors import ConfigError

TEMP_PREFIX = ".tmp-"
# Characters by which a name could move a terminal's cursor, end a line, or turn the direction of writing.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Lend a draft beside `path`; it takes the place of `path` if the block ends well, else it is removed.

    Raises:
        ConfigError: The folder or the file cannot be written, as on a full disk.
    """
    path = Path(path)
    draft = path.with_name(f"{TEMP_PREFIX}{uuid.uuid4().hex}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        os.replace(draft, path)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written ({error.strerror or error}); make room, or choose another place."
        ) from error
    finally:
        with suppress(OSError):
            draft.unlink()


def sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_bytes(path: str | Path, data: bytes) -> Path:
    """Write a file atomically, see `replacing`: a reader sees the old content or the new, never a part."""
    with replacing(path) as draft:
        draft.write_bytes(data)
    return Path(path)


def write_text(path: str | Path, text: str) -> Path:
    """As `write_bytes`, for UTF-8 text."""
    return write_bytes(path, text.encode("utf-8"))


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` the same file as `source` by hard link, or a copy where links are not possible."""
    with suppress(OSError):
        os.link(source, target)  # whole from the start; fails where `target` or another obstacle is
        return
    with replacing(target) as draft:
        try:
            os.link(source, draft)
        except OSError:
            shutil.copyfile(source, draft)


def remove_temporary(folders: Iterable[Path]) -> None:
    """Delete what killed runs left behind in these folders."""
    for folder in folders:
        for path in folder.glob(f"{TEMP_PREFIX}*"):
            path.unlink(missing_ok=True)


def remove_empty_folders(root: Path) -> None:
    """Delete all empty folders below `root`, deepest first."""
    for folder in sorted((p for p in root.rglob("*") if p.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()


def printable(name: str | Path) -> str:
    """A path or text for people and tables: control characters, and bytes that are no UTF-8, become `\\x1b`."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


@contextmanager
def locked(
    folder: Path,
    *,
    busy: str = "Another command is drawing pictures into {folder}; wait until it has, or choose another folder.",
    seconds: float = 0.0,
    say: Callable[[str], None] | None = None,
) -> Iterator[None]:
    """Hold a folder for one command at a time, by an advisory lock that ends with the process.

    Args:
        folder: Made if it is missing.
        busy: What to say if another holds it.
        seconds: How long to wait for it.
        say: Told once that it is waited for.

    Raises:
        ConfigError: The folder cannot be written, or another command holds it after `seconds`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / ".lock", "w")
    except OSError as error:
        raise ConfigError(f"The folder {folder} cannot be written ({error.strerror}).") from error
    with file:
        until = time.monotonic() + seconds
        while not _take(file):
            if time.monotonic() >= until:
                raise ConfigError(busy.format(folder=folder))
            if say is not None:
                say(f"Waiting for {folder}, which another command holds.")
                say = None
            time.sleep(0.5)
        yield


def _take(file: IO[str]) -> bool:
    """Lock a file, if no other process has; systems without such locks always can."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
