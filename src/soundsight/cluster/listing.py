"""Which recordings a job is about: one file with a name a line, however many millions there are.

The file is read shard by shard, so this process holds eight bytes a recording while it looks for names that
occur twice, and next to nothing afterwards.
"""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from soundsight.audio import is_audio
from soundsight.cluster import storage
from soundsight.errors import ConfigError
from soundsight.inference.sources import expand, read_list


@dataclass(frozen=True)
class Part:
    """The recordings of one shard."""

    index: int
    first: int  # number of its first recording in the job, from 0
    sources: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Of the names."""
        return hashlib.sha256("\n".join(map(_line, self.sources)).encode("utf-8", "surrogateescape")).hexdigest()


@dataclass(frozen=True)
class Listing:
    """A file with one recording a line, each once."""

    path: Path
    count: int
    sha256: str

    def parts(self, size: int) -> Iterator[Part]:
        """The recordings in shards of `size`."""
        with open(self.path, encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
            index = 0
            while sources := tuple(_name(line) for line in islice(lines, size)):
                yield Part(index, index * size, sources)
                index += 1

    def first(self) -> str:
        """The first recording."""
        return next(self.parts(1)).sources[0]


def write_listing(words: Iterable[str], target: Path) -> Listing:
    """List the recordings that words name.

    Args:
        words: Files, folders, globs, addresses such as s3://BUCKET/FOLDER, and @FILE for a list of recordings.
        target: The file to write.

    Raises:
        ConfigError: A list cannot be read or is none, or nothing is listed.
    """
    marks = array("Q")
    with open(target, "w", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        for name in _names(words):
            marks.append(_mark(name))
            file.write(_line(name) + "\n")
    if not marks:
        raise ConfigError("No recordings are listed; name files, folders, or @FILE with a recording a line.")
    repeated = _repeated(np.frombuffer(marks, np.uint64))
    if repeated:
        _drop(target, repeated, marks)
    digest = hashlib.sha256()
    count = 0
    with open(target, "rb") as lines:
        for line in lines:
            digest.update(line)
            count += 1
    return Listing(target, count, digest.hexdigest())


def _names(words: Iterable[str]) -> Iterator[str]:
    for word in words:
        if word.startswith("@"):
            yield from read_list(word[1:])
        elif storage.is_address(word):
            found = storage.listing(word)
            yield from found if found == [word] else [name for name in found if is_audio(Path(name.partition("?")[0]))]
        else:
            yield from map(str, expand([word]))


def _mark(name: str) -> int:
    """64 bits that stand for a recording, whatever way its path is written."""
    full = name if storage.is_address(name) else os.path.abspath(name)
    return int.from_bytes(hashlib.blake2b(full.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "big")


def _repeated(marks: np.ndarray) -> set[int]:
    """Marks that occur more than once."""
    ordered = np.sort(marks)
    return set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())


def _drop(target: Path, repeated: set[int], marks: array[int]) -> None:
    """Keep the first of each recording that is listed more than once."""
    seen: set[str] = set()
    draft = target.with_name(target.name + ".once")
    with open(target, "rb") as lines, open(draft, "wb") as kept:
        for line, mark in zip(lines, marks, strict=True):
            if mark in repeated:
                name = _name(line.decode("utf-8", "surrogateescape"))
                full = name if storage.is_address(name) else os.path.abspath(name)
                if full in seen:
                    continue
                seen.add(full)
            kept.write(line)
    os.replace(draft, target)


def _line(name: str) -> str:
    return json.dumps(name) if "\n" in name or name.startswith('"') else name


def _name(line: str) -> str:
    line = line.rstrip("\n")
    return str(json.loads(line)) if line.startswith('"') else line
