"""Figures of merit of timed events: by segments, by events with a collar, and false alarms.

Definitions are those of Mesaros, Heittola and Virtanen, Metrics for Polyphonic Sound Event Detection (Applied Sciences
6, 2016), as DCASE's tasks use them. Own code, since sed_eval (2018) and sed_scores_eval (2024) are not kept up with
NumPy and pandas; tests compare the two.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from soundsight.detection import BoolArray, Counts, IntArray

ROUNDING = 1e-6  # seconds, of times as files give them


class Event(NamedTuple):
    """A class in a stretch of a recording, in seconds."""

    start: float
    end: float
    label: str


Events = Mapping[str, Sequence[Event]]  # by recording


def joined(events: Iterable[Event]) -> list[Event]:
    """The same with those of one class that overlap or touch made one; in order of their starts."""
    result: list[Event] = []
    last: dict[str, int] = {}
    for event in sorted(events):
        place = last.get(event.label)
        if place is not None and event.start <= result[place].end + ROUNDING:
            result[place] = result[place]._replace(end=max(result[place].end, event.end))
        else:
            last[event.label] = len(result)
            result.append(event)
    return result


def segment_counts(annotated: Events, reported: Events, names: Sequence[str], *, segment_seconds: float) -> Counts:
    """Hits and errors per segment and class: a class is in each segment that one of its events touches.

    Segments begin at 0. Recordings that are not annotated, and classes that are not among `names`, do not count.
    """
    totals = np.zeros((3, len(names)), np.int64)
    for recording, there in annotated.items():
        found = reported.get(recording, ())
        last = max((event.end for event in (*there, *found)), default=0.0)
        count = math.ceil(last / segment_seconds)
        truth, guess = (_active(events, names, segment_seconds, count) for events in (there, found))
        totals += [(truth & guess).sum(0), (~truth & guess).sum(0), (truth & ~guess).sum(0)]
    return Counts(tuple(names), *totals)


def _active(events: Iterable[Event], names: Sequence[str], seconds: float, count: int) -> BoolArray:
    """Which classes touch which segments, bool `(count, C)`."""
    grid = np.zeros((count, len(names)), bool)
    column = {name: c for c, name in enumerate(names)}
    for event in events:
        if event.label in column:
            first = math.floor((event.start + ROUNDING) / seconds)
            grid[first : max(first + 1, math.ceil((event.end - ROUNDING) / seconds)), column[event.label]] = True
    return grid


def event_counts(
    annotated: Events,
    reported: Events,
    names: Sequence[str],
    *,
    collar_seconds: float = 0.2,
    collar_fraction: float = 0.2,
) -> Counts:
    """Hits and errors per event: onset within the collar, offset within the collar or a part of the annotated length.

    Each event counts once: of all ways to pair annotated and reported events of a class, one with the most pairs.
    Onset and offset may be off by `collar_seconds`, the offset also by `collar_fraction` of the annotated length.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    totals = np.zeros((3, len(names)), np.int64)
    for recording, there in annotated.items():
        for c, name in enumerate(names):
            truth, guess = (
                np.array([event[:2] for event in events if event.label == name]).reshape(-1, 2)
                for events in (there, reported.get(recording, ()))
            )
            offset = np.maximum(collar_seconds, collar_fraction * (truth[:, 1] - truth[:, 0]))[:, None]
            fits = np.abs(truth[:, None, 0] - guess[None, :, 0]) <= collar_seconds + ROUNDING
            fits &= np.abs(truth[:, None, 1] - guess[None, :, 1]) <= offset + ROUNDING
            paired = maximum_bipartite_matching(csr_array(fits), perm_type="column") if fits.any() else np.array([-1])
            hits = int((paired >= 0).sum())
            totals[:, c] += hits, len(guess) - hits, len(truth) - hits
    return Counts(tuple(names), *totals)


def false_alarms(annotated: Events, reported: Events, names: Sequence[str]) -> IntArray:
    """Reported events that overlap no annotated one of their class, int64 `(C,)`."""
    false: Counter[str] = Counter()
    for recording, there in annotated.items():
        by_class: dict[str, list[Event]] = defaultdict(list)
        for event in there:
            by_class[event.label].append(event)
        for event in reported.get(recording, ()):
            true = any(event.start < other.end and other.start < event.end for other in by_class[event.label])
            false[event.label] += not true
    return np.array([false[name] for name in names], np.int64)


def segment_targets(
    there: Sequence[Event], segments: Sequence[tuple[float, float]], names: Sequence[str], *, least_seconds: float
) -> tuple[BoolArray, BoolArray]:
    """Which classes are in which segments of one recording, and which of these are certain, bool `(N, C)` each.

    A class is in a segment that it overlaps by `least_seconds`, or by half of the shorter one of event and segment;
    less than that is uncertain.
    """
    targets = np.zeros((len(segments), len(names)), bool)
    certain = np.ones_like(targets)
    starts, ends = np.array(segments, float).reshape(-1, 2).T
    column = {name: c for c, name in enumerate(names)}
    for event in joined(there):
        if event.label not in column:
            continue
        shared = np.minimum(ends, event.end) - np.maximum(starts, event.start)
        shorter = np.minimum(ends - starts, event.end - event.start)
        enough = shared >= np.minimum(least_seconds, shorter / 2) - ROUNDING
        targets[:, column[event.label]] |= (shared > ROUNDING) & enough
        certain[:, column[event.label]] &= (shared <= ROUNDING) | enough
    return targets, certain | targets
