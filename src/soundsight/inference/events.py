"""From segments to events: when each class begins and ends, by hysteresis and shortest lengths.

Events of different classes may overlap, those of one class never do. A segment stands for the time around its centre,
up to midway to its neighbours' centres, so that times are as exact as the hop.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

import numpy as np

from soundsight.config import BACKGROUND
from soundsight.inference.options import UNKNOWN
from soundsight.inference.results import Floats, Prediction, Summary, border, merge_labels


@dataclass
class _Open:
    """An event that may still go on."""

    first: Prediction
    start: float
    end: float
    total: Floats  # weighted sum of the probabilities of its segments
    weight: float
    active: bool = True  # whether the newest segment belongs to it


def merge(segments: Iterable[Prediction | Summary]) -> Iterator[Prediction | Summary]:
    """Join neighbouring segments of one label; with several labels per clip into one event for each class."""
    stream = iter(segments)
    first = next(stream, None)
    if first is None:
        return iter(())
    join = detect if first.model.multi else merge_labels
    return join(chain([first], stream))


def detect(
    segments: Iterable[Prediction | Summary],
    *,
    off_thresholds: Floats | None = None,
    min_event_seconds: float = 0.0,
    min_gap_seconds: float = 0.0,
) -> Iterator[Prediction | Summary]:
    """Turn the segments of each recording into events, in the order of their starts, before its summary.

    A recording without events gives one prediction over its whole length, "background", "unknown" or "silence", so that
    tables tell it from one that was not read. Probabilities are means over the segments of an event.

    Args:
        segments: Segments in order, and a summary at the end of each recording.
        off_thresholds: `(classes,)`. An event of a class begins with a segment that reports it, and goes on while its
            probability is at least this; `None`: while it is reported.
        min_event_seconds: Shorter events are left out ...
        min_gap_seconds: ... after those of a class that are less than this apart became one.
    """
    new = partial(_Detector, off_thresholds, min_event_seconds, min_gap_seconds)
    detector = new()
    for item in segments:
        if isinstance(item, Prediction):
            yield from detector.add(item)
            continue
        yield from detector.end()
        if not detector.found and item.counts:
            nothing = item.as_prediction()
            label = BACKGROUND if item.model.multi else UNKNOWN
            yield nothing if nothing.silent else replace(nothing, label=label, labels=())
        yield item
        detector = new()


class _Detector:
    """The open events of one recording."""

    def __init__(self, off_thresholds: Floats | None, min_event_seconds: float, min_gap_seconds: float) -> None:
        self.off_thresholds = off_thresholds
        self.min_event_seconds, self.min_gap_seconds = min_event_seconds, min_gap_seconds
        self.last: Prediction | None = None  # the newest segment, which ends where the next begins to count
        self.start = 0.0  # where `last` begins to count
        self.open: dict[int, _Open] = {}  # by class
        self.closed: list[tuple[float, int, Prediction]] = []  # a heap: they wait for open ones that began earlier
        self.found = 0

    def add(self, segment: Prediction) -> Iterator[Prediction]:
        """Take the next segment; events that are certain now."""
        if self.last is not None:
            overlap = segment.start_seconds < self.last.end_seconds
            end = border(self.last, segment) if overlap else self.last.end_seconds
            self._count(self.last, self.start, end)
            self.start = end if overlap else segment.start_seconds
        else:
            self.start = segment.start_seconds
        self.last = segment
        yield from self._ready()

    def end(self) -> Iterator[Prediction]:
        """No more segments; all events that are left."""
        if self.last is not None:
            self._count(self.last, self.start, self.last.end_seconds)
        for index in list(self.open):
            self._close(index)
        yield from self._ready()

    def _count(self, segment: Prediction, start: float, end: float) -> None:
        names = segment.model.names
        reported = {names.index(label) for label, _ in segment.sounds}
        for index in list(self.open):
            event = self.open[index]
            goes_on = self.off_thresholds is not None and segment.probabilities[index] >= self.off_thresholds[index]
            event.active = index in reported or (event.active and bool(goes_on) and not segment.silent)
            gap = (start if event.active else end) - event.end
            if gap >= max(self.min_gap_seconds, 1e-6):
                self._close(index)
        for index in reported - set(self.open):
            self.open[index] = _Open(segment, start, end, np.zeros_like(segment.probabilities), 0.0)
        for event in self.open.values():
            if event.active:
                event.end = end
                event.total = event.total + segment.weight * segment.probabilities
                event.weight += segment.weight

    def _close(self, index: int) -> None:
        event = self.open.pop(index)
        if event.end - event.start < self.min_event_seconds - 1e-6:
            return
        mean = (event.total / event.weight).astype(np.float32)
        label = event.first.model.names[index]
        made = replace(
            event.first,
            start_seconds=round(event.start, 6),
            end_seconds=round(event.end, 6),
            label=label,
            labels=(label,),
            probability=float(mean[index]),
            probabilities=mean,
        )
        self.found += 1
        heapq.heappush(self.closed, (made.start_seconds, index, made))

    def _ready(self) -> Iterator[Prediction]:
        earliest = min((event.start for event in self.open.values()), default=np.inf)
        while self.closed and self.closed[0][0] <= earliest:
            yield heapq.heappop(self.closed)[2]
