"""Copies: clips that hold the same stretch of the same bytes, whatever their files, labels and groups are called."""

from __future__ import annotations

import hashlib
import math
import os
import stat
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache

from soundsight.datasets.catalogue import Clip
from soundsight.files import sha256

HEAD_BYTES = 16_384  # of files of one size these are compared first
SLACK_SECONDS = 0.001  # stretches that share less than this do not overlap


def overlapping(clips: Iterable[Clip], clip_seconds: float = math.inf) -> list[list[Clip]]:
    """Sets of two or more clips that overlap in time, directly or through others, in one file or in equal files.

    `clip_seconds` is the length of a clip that has no end of its own.
    """
    recordings: dict[str, list[Clip]] = defaultdict(list)
    clips = list(clips)
    content = _contents({clip.file: os.fspath(clip.path) for clip in clips})
    for clip in clips:
        recordings[content[clip.file]].append(clip)
    found = []
    for members in recordings.values():
        if len(members) > 1:
            found += [run for run in _runs(members, clip_seconds) if len(run) > 1]
    return found


def _runs(clips: list[Clip], clip_seconds: float) -> Iterator[list[Clip]]:
    """Clips of one recording, in runs without a gap between them."""
    run: list[Clip] = []
    until = -math.inf
    for clip in sorted(clips, key=lambda c: c.start_seconds):
        if run and clip.start_seconds > until - SLACK_SECONDS:
            yield run
            run, until = [], -math.inf
        run.append(clip)
        end = clip.start_seconds + clip_seconds if clip.end_seconds is None else clip.end_seconds
        until = max(until, end)
    yield run


def _contents(paths: dict[str, str]) -> dict[str, str]:
    """Of each file, the first one in the list with the same bytes; a file that cannot be read is like no other."""
    groups = [list(paths)]
    for mark in (_size, _head, _whole):  # each is asked only of files that were alike so far
        groups = [part for group in groups for part in _parts(group, paths, mark) if len(part) > 1]
    return {file: file for file in paths} | {file: group[0] for group in groups for file in group}


def _parts(group: list[str], paths: dict[str, str], mark: Callable[[str, int, int], object]) -> list[list[str]]:
    parts: dict[object, list[str]] = defaultdict(list)
    for file in group:
        try:
            found = os.stat(paths[file])
            if stat.S_ISREG(found.st_mode) and found.st_size:
                parts[mark(paths[file], found.st_size, found.st_mtime_ns)].append(file)
        except OSError:
            continue
    return list(parts.values())


def _size(_path: str, size: int, _mtime_ns: int) -> int:
    return size


@lru_cache(maxsize=200_000)  # leaks are looked for in splits and in folds
def _head(path: str, _size: int, _mtime_ns: int) -> bytes:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read(HEAD_BYTES)).digest()


@lru_cache(maxsize=200_000)
def _whole(path: str, _size: int, _mtime_ns: int) -> str:
    return sha256(path)
