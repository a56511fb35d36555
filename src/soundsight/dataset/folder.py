"""Folders of one's own sounds: `root/<class>/**/<recording>`, any format, any depth below the class."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from soundsight import ffmpeg
from soundsight.audio import is_audio
from soundsight.dataset.catalogue import Catalogue, Clip
from soundsight.dataset.manifest import SETTINGS
from soundsight.errors import ConfigError, DatasetError
from soundsight.files import printable


def read_folder(root: Path, *, source_pattern: str = "") -> Catalogue:
    """List the recordings below `root`; the first folder is the label.

    Long recordings stay whole here, so that they are split before they are cut (`cut_windows`).

    Args:
        root: Folder of class folders. Hidden files and folders are left alone, and so are our own outputs.
        source_pattern: Regular expression, searched in each path relative to `root` (with forward slashes).
            Its first group names the source recording; where it does not match, or when it is empty, each
            file is a source of its own.

    Raises:
        ConfigError: The pattern is no regular expression, or has no group.
        DatasetError: There are recordings, but none lies in a class folder.
    """
    pattern = _compile(source_pattern)
    clips, failures, loose = [], [], []
    for folder in sorted(_subfolders(root)):
        if (folder / SETTINGS).is_file():  # a cache or a data folder of `prepare`
            continue
        found = 0
        for path, problem in _files_below(folder):
            relative = printable(path.relative_to(root).as_posix())
            if problem:
                failures.append((relative, problem))
            elif is_audio(path):
                clips.append(_clip(path, relative, pattern))
            elif path.suffix.lower() in ffmpeg.EXTENSIONS:
                failures.append((relative, "needs the program ffmpeg, which is not installed"))
            else:
                continue
            found += 1
        if not found:
            failures.append((f"{printable(folder.name)}/", "the class folder holds no recordings"))
    for path in sorted(p for p in root.iterdir() if p.is_file() and is_audio(p) and p.name[0] != "."):
        loose.append((printable(path.name), "lies beside the class folders, so it has no label"))
    if loose and not clips:
        raise DatasetError(
            f"{root} holds {len(loose)} recordings but no class folders with recordings; move each to "
            f"{root}/CLASS/, or describe them by a table (kind=table)."
        )
    return Catalogue(root.absolute().name, clips, failures=[*failures, *loose], whole_recordings=True)


def _clip(path: Path, relative: str, pattern: re.Pattern[str] | None) -> Clip:
    label, _, below = relative.partition("/")
    match = pattern.search(relative) if pattern else None
    return Clip(
        path=path.absolute(),
        file=relative,
        label=label,
        name=below.removesuffix(path.suffix).replace("/", "_"),
        source=(match[1] if match else None) or relative,
    )


def _compile(source_pattern: str) -> re.Pattern[str] | None:
    if not source_pattern:
        return None
    try:
        pattern = re.compile(source_pattern)
    except re.error as error:
        raise ConfigError(
            f"source_pattern={source_pattern!r} is no regular expression ({error}); correct it, or leave it empty."
        ) from error
    if not pattern.groups:
        raise ConfigError(
            f"source_pattern={source_pattern!r} has no group; put what names the source recording in "
            "parentheses, such as ([^/]+)_\\d+\\.wav."
        )
    return pattern


def _subfolders(root: Path) -> Iterator[Path]:
    return (path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _files_below(folder: Path) -> Iterator[tuple[Path, str]]:
    """All files that are not hidden, in a fixed order, and folders with the reason why they cannot be read.

    Links to folders are followed, each folder once.
    """
    seen: set[str] = set()
    refused: list[OSError] = []
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=refused.append):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if not names and not folders and is_audio(Path(parent)):
            yield Path(parent), "is an empty folder, not a recording"
        yield from ((Path(parent, name), "") for name in sorted(names) if not name.startswith("."))
    for error in refused:
        yield Path(error.filename), f"the folder cannot be read ({error.strerror})"
