"""Folders of one's own sounds: `root/<class>/**/<recording>`, any format, any depth below the class.

The class folders may also lie in folders train, valid and test, and all of that in one more folder.
"""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path

from soundsight.audio import ffmpeg, files_below, is_audio, is_litter
from soundsight.datasets.catalogue import Catalogue, Clip
from soundsight.datasets.manifest import SETTINGS
from soundsight.datasets.split import split_name
from soundsight.errors import ConfigError, DatasetError
from soundsight.files import printable

_FOLD = re.compile(r"fold[ _-]?\d+", re.IGNORECASE).fullmatch


def read_folder(root: Path, *, group_pattern: str = "") -> Catalogue:
    """List the recordings below `root`; the class folder is the label.

    Long recordings stay whole here, so that they are split before they are cut. The first group of `group_pattern`, a
    regular expression searched in each path relative to `root`, names the group; where there is none, each file is its
    own. Hidden files and folders are left alone, and so are our own outputs.
    """
    pattern = _compile(group_pattern)
    clips, failures = [], []
    classes, notes = class_folders(root)
    split_folders = {folder.parent for folder, split in classes if split}
    top = next(iter(split_folders)).parent if split_folders else root

    def shown(path: Path) -> str:
        return printable(path.relative_to(root).as_posix())

    for folder in _subfolders(top) if split_folders else ():
        if folder not in split_folders and any(is_audio(path) for path, _ in files_below(folder)):
            failures.append((f"{shown(folder)}/", "lies beside the folders of splits"))
    for folder, split in classes:
        found = 0
        for path, problem in files_below(folder):
            if not problem and path.suffix.lower() in ffmpeg.EXTENSIONS and not ffmpeg.installed():
                problem = "needs the program ffmpeg, which is not installed"
            if problem:
                failures.append((shown(path), problem))
            elif is_audio(path):
                clips.append(_clip(path, shown(path), path.relative_to(folder), split, pattern))
            else:
                continue
            found += 1
        if not found:
            failures.append((f"{shown(folder)}/", "the class folder holds no recordings"))
    beside = {root, top, *(folder.parent for folder, _ in classes)}
    loose = sorted(p for folder in beside for p in _entries(folder) if os.path.isfile(p) and is_audio(p))
    if loose and not clips:
        raise DatasetError(
            f"{root} holds {len(loose)} recordings but no class folders with recordings; move each to "
            f"{root}/CLASS/, or describe them by a table (kind=table)."
        )
    failures += [(shown(path), "lies beside the class folders, so it has no label") for path in loose]
    return Catalogue(root.absolute().name, clips, failures=failures, whole_recordings=True, notes=notes)


def class_folders(root: Path) -> tuple[list[tuple[Path, str]], list[str]]:
    """The class folders below a root, each with the split that it lies in or an empty text, and what to say of them."""
    top, notes, inner = root, [], root
    while len(folders := _subfolders(inner)) == 1 and not _holds_recordings(folders[0]):
        inner = folders[0]
    if len(folders) > 1 and inner != root:  # else a class, whose folders may have any depth
        top = inner
        notes.append(f"The classes lie in {printable(top.relative_to(root).as_posix())}/, the only folder there is.")
    folders = _subfolders(top)
    splits = [(folder, split_name(folder.name)) for folder in folders if split_name(folder.name)]
    bare = [folder.name for folder in folders if _holds_recordings(folder) and not _subfolders(folder)]
    if folders and not bare and all(_FOLD(folder.name) for folder in folders):
        raise DatasetError(
            f"The folders of {top} look like folds ({folders[0].name}, ...), not like classes; describe the recordings "
            "by a table with the columns file, label and fold (kind=table, fold_column=fold)."
        )
    if len(splits) < 2 or "train" not in dict(splits).values():
        return [(folder, "") for folder in folders], notes
    if bare and len(splits) == len(folders):
        raise DatasetError(
            f"The folders of {top} look like splits ({', '.join(folder.name for folder in folders)}), but {bare[0]}/ "
            f"holds recordings and no class folders; move each to {bare[0]}/CLASS/."
        )
    if {folder.name for folder, _ in splits} & set(bare):
        return [(folder, "") for folder in folders], notes
    notes.append(f"The splits are those of the folders {', '.join(folder.name for folder, _ in splits)}.")
    return [(folder, split) for parent, split in splits for folder in _subfolders(parent)], notes


def _holds_recordings(folder: Path) -> bool:
    return any(os.path.isfile(path) and is_audio(path) for path in _entries(folder))


def _clip(path: Path, relative: str, below: Path, split: str, pattern: re.Pattern[str] | None) -> Clip:
    match = pattern.search(relative) if pattern else None
    return Clip(
        path=path.absolute(),
        file=relative,
        label=unicodedata.normalize("NFC", printable(path.parents[len(below.parts) - 1].name)),
        name=printable(below.with_suffix("").as_posix()).replace("/", "_"),
        source=(match[1] if match else None) or relative,
        split=split,
    )


def _compile(group_pattern: str) -> re.Pattern[str] | None:
    if not group_pattern:
        return None
    try:
        pattern = re.compile(group_pattern)
    except re.error as error:
        raise ConfigError(
            f"group_pattern={group_pattern!r} is no regular expression ({error}); correct it, or leave it empty."
        ) from error
    if not pattern.groups:
        raise ConfigError(
            f"group_pattern={group_pattern!r} has no group; put what names the source recording in "
            "parentheses, such as ([^/]+)_\\d+\\.wav."
        )
    return pattern


def _entries(folder: Path) -> list[Path]:
    """What a folder holds, hidden things aside; nothing where it may not be read, which `files_below` tells."""
    try:
        return sorted(path for path in folder.iterdir() if not is_litter(path.name))
    except PermissionError:
        return []


def _subfolders(root: Path) -> list[Path]:
    """Folders that are neither hidden nor a cache or a data folder of `prepare`."""
    return [path for path in _entries(root) if os.path.isdir(path) and not os.path.isfile(path / SETTINGS)]
