"""Files that are either whole or absent: temp file, then rename. Imports nothing of the project."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

TEMP_PREFIX = ".tmp-"


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically: a reader sees the old content or the new, never a part."""
    temporary = path.with_name(f"{TEMP_PREFIX}{os.getpid()}-{path.name}"[:255])
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """As `write_bytes`, for UTF-8 text."""
    write_bytes(path, text.encode("utf-8"))


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` the same file as `source` by hard link, or a copy where links are not possible."""
    temporary = target.with_name(f"{TEMP_PREFIX}{os.getpid()}-{target.name}"[:255])
    temporary.unlink(missing_ok=True)
    try:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


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
