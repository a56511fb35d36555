"""Which recordings a command is about: one file with a name per line, however many millions there are.

The file is read shard by shard, so the driver holds 16 bytes per recording while it looks for names that occur twice,
and next to nothing afterwards.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import compress, islice
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
    """List the recordings that words name: files, folders, globs, addresses (s3://BUCKET/FOLDER), @FILE for a list."""
    everything = target.with_name(target.name + ".all")
    with open(everything, "w", **TEXT) as file:  # type: ignore[call-overload]
        digests = np.fromiter((file.write(line(name) + "\n") and _digest(name) for name in _names(words)), "S16")
    if not len(digests):
        raise ConfigError("No recordings are listed; name files, folders, or @FILE with a recording per line.")
    first = np.zeros(len(digests), bool)
    first[np.unique(digests, return_index=True)[1]] = True
    with open(everything, **TEXT) as lines, open(target, "w", **TEXT) as kept:  # type: ignore[call-overload]
        kept.writelines(compress(lines, first))
    everything.unlink()
    return Listing(target, int(first.sum()), files.sha256(target))


def _names(words: Iterable[str]) -> Iterator[str]:
    for word in words:
        if word.startswith("@"):
            yield from read_list(word[1:])
        elif storage.is_address(word):
            found = storage.listing(word)
            yield from found if found == [word] else [name for name in found if is_audio(Path(name.partition("?")[0]))]
        else:
            yield from map(str, expand([word]))


def _digest(name: str) -> bytes:
    """128 bits of a recording's name, whatever way its path is written."""
    full = name if storage.is_address(name) else os.path.abspath(name)
    return hashlib.blake2b(full.encode("utf-8", "surrogateescape"), digest_size=16).digest()


def line(name: str) -> str:
    """A name as it stands in the file."""
    return json.dumps(name) if "\n" in name or name.startswith('"') else name


def _name(text: str) -> str:
    text = text.rstrip("\n")
    return str(json.loads(text)) if text.startswith('"') else text
