"""Which recordings the words of a user mean: files, folders, globs."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from soundsight.audio import files_below, is_audio
from soundsight.errors import ConfigError
from soundsight.files import matching

LONGEST_LINE = 1 << 16  # bytes of a name in a list


def expand(words: Iterable[str | Path], *, lists: bool = False) -> list[Path]:
    """List the recordings that words name, each once; with `lists`, `@FILE` is a list, each meant as it stands there.

    A folder means all recordings below it, hidden files aside. A word that names nothing is kept as it is,
    so that reading it tells what is wrong.
    """
    found: dict[str, Path] = {}
    for word in map(str, words):
        for path in map(Path, read_list(word[1:])) if lists and word.startswith("@") else _expand(Path(word)):
            found.setdefault(os.path.abspath(path), path)
    return list(found.values())


def read_list(path: str | Path) -> Iterator[str]:
    """The recordings that a text file lists, one a line, as they stand there; empty lines are skipped."""
    try:
        with open(path, "rb") as lines:
            for number, line in enumerate(iter(lambda: lines.readline(LONGEST_LINE), b""), 1):
                if (number == 1 and b"\0" in line[:4096]) or len(line) == LONGEST_LINE:
                    raise ConfigError(f"{path} is no list: a text file with one recording per line is needed.")
                name = os.fsdecode(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line).strip()
                if name:
                    yield name
    except OSError as error:
        raise ConfigError(f"The list of recordings {path} cannot be read ({error.strerror}).") from error


def _expand(path: Path) -> Iterator[Path]:
    if os.path.isdir(path):  # unlike Path.is_dir, no error for a name that is too long
        recordings = list(_recordings(path))
        yield from recordings or [path]
    elif not os.path.exists(path) and glob.has_magic(str(path)):
        for match in map(Path, matching(str(path)) or [str(path)]):
            if os.path.isdir(match):
                yield from _recordings(match)
            else:
                yield match
    else:
        yield path


def _recordings(folder: Path) -> Iterator[Path]:
    """Recordings below a folder; what cannot be read, too: reading it tells what is wrong."""
    return (path for path, problem in files_below(folder) if problem or is_audio(path))
