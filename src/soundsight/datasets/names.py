"""Names of images and class folders: safe on every file system, and unique even without case."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

from soundsight.config import BACKGROUND
from soundsight.datasets.catalogue import Clip
from soundsight.errors import DatasetError
from soundsight.files import folded

# Devices of Windows, whatever comes behind a dot.
_DEVICE = re.compile(r"^(CON|PRN|AUX|NUL|(?:COM|LPT)[0-9¹²³])(?=\.|$)", re.IGNORECASE)
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_@~+-]{0,119}").fullmatch


def image_paths(clips: Sequence[Clip], *, multi: bool = False) -> dict[Clip, str]:
    """A path `<class>/<name>.png` for each clip, safe on every file system and unique even without case.

    In multi-label data, the class is the first one of the clip, or background, and the name is unique by itself.
    """
    folder_of = folder_names(sorted({label for clip in clips for label in _folders(clip)}))
    if multi and (joined := [label for label in folder_of if ";" in label]):
        raise DatasetError(f"The label {joined[0]!r} holds a semicolon, which parts labels here; rename it.")
    result: dict[Clip, str] = {}
    taken: dict[str, int] = {}
    for clip in clips:
        folder = folder_of[_folders(clip)[0]]
        where = "" if multi else f"{folder}/"
        image = base = where + safe_name(clip.name)
        while folded(image) in taken:
            taken[folded(base)] += 1
            image = f"{base}~{taken[folded(base)]}"
        taken[folded(image)] = 1
        result[clip] = f"{folder}/{image[len(where) :]}.png"
    return result


def _folders(clip: Clip) -> tuple[str, ...]:
    return clip.labels or (BACKGROUND,)


def class_order(labels: Iterable[str]) -> list[str]:
    """Labels in the order in which an ImageFolder numbers its classes: that of their folders' names."""
    folder_of = folder_names(sorted(labels))
    return sorted(folder_of, key=lambda label: folder_of[label])


def folder_names(labels: Sequence[str]) -> dict[str, str]:
    """A folder name for each label."""
    result: dict[str, str] = {}
    owner: dict[str, str] = {}
    for label in labels:
        folder = safe_name(label)
        other = owner.setdefault(folded(folder), label)
        if other != label:
            raise DatasetError(
                f"The labels {other!r} and {label!r} would share the folder {folder!r}; rename one of them."
            )
        result[label] = folder
    return result


def folder_labels(labels: Iterable[str]) -> dict[str, str]:
    """The label of each class folder: dots at the end, slashes and the like are not in the folder's name."""
    return {safe_name(label): label for label in labels}


def safe_name(name: str) -> str:
    """A file name without separators, control characters, leading dots or dashes, at most 120 bytes; no device."""
    if _PLAIN(name) and not _DEVICE.match(name):
        return name
    text = unicodedata.normalize("NFC", name)
    text = "".join("_" if c in '/\\:*?"<>|' or unicodedata.category(c)[0] == "C" else c for c in text)
    text = text.lstrip(" .-~").rstrip(" .")
    short = text.encode("utf-8")[:120].decode("utf-8", "ignore")
    return _DEVICE.sub(r"\1_", short.rstrip(" .")) or "_"
