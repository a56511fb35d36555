"""Which recordings a command is about: one file with a name per line, however many millions there are.

The file is read shard by shard, so the driver holds eight bytes per recording while it looks for names that occur
twice, and next to nothing afterwards.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from soundsight import files
from soundsight.audio import is_audio
from soundsight.cluster import storage
from soundsight.errors import ConfigError
from soundsight.inference.sources import expand, read_list

TEXT = {"encoding": "utf-8", "errors": "surrogateescape", "newline": "\n"}


@dataclass(frozen=True)
class Listing:
    """A file with one recording per line, each once."""

    path: Path
    count: int
    sha256: str

    def chunks(self, size: int) -> Iterator[tuple[str, ...]]:
        """The recordings, `size` at once."""
        with open(self.path, **TEXT) as lines:  # type: ignore[call-overload]
            while names := tuple(map(_name, islice(lines, size))):
                yield names


def write_listing(words: Iterable[str], target: Path) -> Listing:
    """List the recordings that words name.

    Args:
        words: Files, folders, globs, addresses such as s3://BUCKET/FOLDER, and @FILE for a list of recordings.
        target: The file to write.

    Raises:
        ConfigError: A list cannot be read or is none, or nothing is listed.
    """
    everything = target.with_name(target.name + ".all")
    with open(everything, "w", **TEXT) as file:  # type: ignore[call-overload]
        digests = np.fromiter((file.write(line(name) + "\n") and _digest(name) for name in _names(words)), np.uint64)
    if not len(digests):
        raise ConfigError("No recordings are listed; name files, folders, or @FILE with a recording per line.")
    ordered = np.sort(digests)
    repeated = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
    seen: set[str] = set()  # names with these digests: two may share one by chance
    count = 0
    with open(everything, **TEXT) as lines, open(target, "w", **TEXT) as kept:  # type: ignore[call-overload]
        for text, digest in zip(lines, digests, strict=True):
            if repeated and int(digest) in repeated:
                full = _full(_name(text))
                if full in seen:
                    continue
                seen.add(full)
            kept.write(text)
            count += 1
    everything.unlink()
    return Listing(target, count, files.sha256(target))


def _names(words: Iterable[str]) -> Iterator[str]:
    for word in words:
        if word.startswith("@"):
            yield from read_list(word[1:])
        elif storage.is_address(word):
            found = storage.listing(word)
            yield from found if found == [word] else [name for name in found if is_audio(Path(name.partition("?")[0]))]
        else:
            yield from map(str, expand([word]))


def _full(name: str) -> str:
    """One spelling of a recording, whatever way its path is written."""
    return name if storage.is_address(name) else os.path.abspath(name)


def _digest(name: str) -> int:
    """64 bits of it."""
    full = _full(name).encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(full, digest_size=8).digest(), "big")


def line(name: str) -> str:
    """A name as it stands in the file."""
    return json.dumps(name) if "\n" in name or name.startswith('"') else name


def _name(text: str) -> str:
    text = text.rstrip("\n")
    return str(json.loads(text)) if text.startswith('"') else text
