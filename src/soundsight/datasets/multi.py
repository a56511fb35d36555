"""Images of several labels: one file in the folder of each of its classes, merged by name."""

from __future__ import annotations

import filecmp
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from soundsight.config import BACKGROUND
from soundsight.files import images_in


def labelled(
    root: Path, folders: Sequence[str], *, multi: bool
) -> tuple[list[Path], npt.NDArray[np.int64] | npt.NDArray[np.uint8]]:
    """The N images of a split, and the number of the class of each, int64 `(N,)`; with `multi` see `merged`."""
    if multi:
        return merged(root, folders)
    found = [(file, label) for label, name in enumerate(folders) for file in images_in(root / name)]
    return [file for file, _ in found], np.array([label for _, label in found], np.int64)


def merged(root: Path, folders: Sequence[str]) -> tuple[list[Path], npt.NDArray[np.uint8]]:
    """The images of a split, each once, and which of the classes `folders` it has: 0 or 1 `(N, classes)`.

    A file lies in the folder of each of its classes, or in `background` without any. Files of one name that differ are
    different images, as where every class counts its own from 1.
    """
    files: list[Path] = []
    targets: list[npt.NDArray[np.uint8]] = []
    known: dict[str, list[int]] = {}  # numbers of the images of each name
    for index, folder in enumerate([*folders, BACKGROUND]):
        for file in images_in(root / folder):
            same = (number for number in known.get(file.name, ()) if _same(files[number], file))
            number = next(same, len(files))
            if number == len(files):
                files.append(file)
                targets.append(np.zeros(len(folders), np.uint8))
                known.setdefault(file.name, []).append(number)
            if folder != BACKGROUND:
                targets[number][index] = 1
    return files, np.array(targets, np.uint8).reshape(len(files), len(folders))


def _same(one: Path, other: Path) -> bool:
    return one.samefile(other) or filecmp.cmp(one, other, shallow=False)
