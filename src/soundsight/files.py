"""Files that are either whole or absent: temp file, then rename."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

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


class locked:
    """Hold a folder for one command at a time, by an advisory lock that ends with the process.

    With `wait`, which is told so, it waits for its turn.

    Raises:
        ConfigError: The folder cannot be written, or without `wait` another command holds it.
    """

    def __init__(self, folder: Path, *, wait: Callable[[str], None] | None = None) -> None:
        self.folder = folder
        self.wait = wait

    def __enter__(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.file = open(self.folder / ".lock", "w")
        except OSError as error:
            raise ConfigError(f"The folder {self.folder} cannot be written ({error.strerror}).") from error
        try:
            import fcntl
        except ImportError:  # no such locks on this system
            return
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if self.wait is not None:
                self.wait(f"Another command is drawing pictures into {self.folder}; waiting until it has.")
                fcntl.flock(self.file, fcntl.LOCK_EX)
                return
            self.file.close()
            raise ConfigError(
                f"Another command is drawing pictures into {self.folder}; wait until it has, or choose another folder."
            ) from error

    def __exit__(self, *_: object) -> None:
        self.file.close()
