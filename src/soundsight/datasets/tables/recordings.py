"""The recordings that a table names: as written, or as they are here after a journey from another machine."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from soundsight.audio import is_audio


class BadRow(Exception):
    """Why a row, or a table, gives no clip."""


class Recording(NamedTuple):
    """A recording of the data set."""

    path: Path  # absolute
    file: str  # relative to root, or absolute where it lies elsewhere
    name: str  # for images


class Recordings:
    """Finds recordings by name, seen from the root or from beside the table, each name once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.found: dict[tuple[str, Path], Recording | str] = {}
        self.shortened: dict[str, set[str]] = defaultdict(set)  # the absolute names that led to a file
        self._listing = cache(_listing)

    def find(self, name: str, table: Path, below: Sequence[str] = ()) -> Recording | str:
        """The recording that a table means by `name`, or why there is none; folders `below` the root are searched, too.

        Of an absolute path that does not exist here (Raven writes those), as much of its end counts as leads to a
        file. The ending may be missing, and upper case and composed letters (é) may differ.
        """
        key = (name, table)
        if key not in self.found:
            self.found[key] = self._search(name, [self.root, table.parent, *(self.root / folder for folder in below)])
        return self.found[key]

    def rivals(self, recording: Recording) -> set[str]:
        """Different absolute names that led to this one file, of which one at most can be right."""
        names = self.shortened.get(recording.file, set())
        return names if len(names) > 1 else set()

    def beside(self, table: Path) -> Recording:
        """The recording that a table without names describes: the one beside it whose name its own begins with."""
        stems = [table.name[:end] for end, letter in enumerate(table.name) if letter == "." and end]
        for stem in reversed(stems):
            found = sorted(p for p in table.parent.iterdir() if p.stem == stem and is_audio(p) and os.path.isfile(p))
            if len(found) == 1:
                return self._recording(found[0])
            if found:
                raise BadRow(f"{_ALONE}there are {found[0].name} and {found[1].name}")
        raise BadRow(f"{_ALONE}there is none")

    def relative(self, path: Path) -> str:
        """`path` seen from the root with forward slashes; as it is where it lies elsewhere."""
        text = str(path)
        inside = text[len(str(self.root)) + 1 :] if text.startswith(f"{self.root}{os.sep}") else text
        return inside.replace(os.sep, "/")

    def _search(self, name: str, folders: Iterable[Path]) -> Recording | str:
        slashed = name.replace("\\", "/")
        folders = list(dict.fromkeys(folders))
        for candidate in dict.fromkeys((name, *_ends(slashed))):
            for folder in folders:
                path = os.path.normpath(folder / candidate)
                matches = [path] if os.path.isfile(path) else self._alike(path)
                if len(matches) > 1:
                    both = " and ".join(self.relative(Path(match)) for match in matches[:2])
                    return f"the file {name} may be {both}"
                if matches:
                    recording = self._recording(Path(matches[0]))
                    if candidate not in (name, slashed):
                        self.shortened[recording.file].add(slashed.casefold())
                    return recording
        return f"the file {name} does not exist"

    def _alike(self, path: str) -> list[str]:
        """Recordings of the same name but for its ending, case or composition."""
        parent, _, name = path.rpartition(os.sep)
        listing = self._listing(parent)
        return [f"{parent}{os.sep}{found}" for found in listing.get(_fold(name), ())]

    def _recording(self, path: Path) -> Recording:
        file = self.relative(path)
        inside = path.name if os.path.isabs(file) else file
        return Recording(path, file, os.path.splitext(inside)[0].replace("/", "_"))


_ALONE = "it names no recordings, so one of its name must lie beside it, but "


def _ends(name: str) -> Iterator[str]:
    """A name, and if it is an absolute one, of Windows or not, its ends from the longest to the bare name."""
    yield name
    if name.startswith("/") or name[1:3] == ":/":
        parts = [part for part in name.split("/")[1:] if part]
        yield from ("/".join(parts[start:]) for start in range(len(parts)))


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _listing(folder: str) -> dict[str, list[str]]:
    """Recordings of a folder by folded name, with and without ending."""
    result: dict[str, list[str]] = defaultdict(list)
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return result
    for name in names:
        if is_audio(Path(name)):
            result[_fold(name)].append(name)
            result[_fold(os.path.splitext(name)[0])].append(name)
    return result
