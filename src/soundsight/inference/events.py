"""From segments to events: when each class begins and ends, by hysteresis and shortest lengths.

Events of different classes may overlap, those of one class never do. A segment stands for the time around its centre,
up to midway to its neighbours' centres, so that times are as exact as the hop.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from soundsight.config import BACKGROUND
from soundsight.inference.options import UNKNOWN
from soundsight.inference.results import Floats, Prediction, Summary


@dataclass
class _Open:
    """An event that may still go on."""

    first: Prediction
    start: float
    end: float
    probabilities: npt.NDArray[np.float64]  # weighted sum over its segments
    probability: float = 0.0  # likewise, of what the event is
    weight: float = 0.0
    active: bool = True  # whether the newest segment belongs to it


def merge(segments: Iterable[Prediction | Summary]) -> Iterator[Prediction | Summary]:
    """Join neighbouring segments of one label, be it silence; with several labels per clip, those of each class.

    Of two overlapping segments with different labels, one event ends and the next begins midway between their centres.
    """
    return _events(segments, lambda: _Detector(every_label=True))


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

    An event of a class begins with a segment that reports it, and goes on while its probability is at least that of
    `off_thresholds` `(classes,)`, or while it is reported. Events of a class that are less than `min_gap_seconds` apart
    become one; of these, those shorter than `min_event_seconds` are left out.
    """
    return _events(segments, lambda: _Detector(off_thresholds, min_event_seconds, min_gap_seconds))


def _events(segments: Iterable[Prediction | Summary], new: Callable[[], _Detector]) -> Iterator[Prediction | Summary]:
    detector = new()
    for item in segments:
        if isinstance(item, Prediction):
            if detector.last is not None and detector.last.recording != item.recording:
                yield from detector.end()
                detector = new()
            yield from detector.add(item)
            continue
        yield from detector.end()
        if not detector.found and item.counts:
            nothing = item.as_prediction()
            label = BACKGROUND if item.model.multi else UNKNOWN
            yield nothing if nothing.silent else replace(nothing, label=label, labels=())
        yield item
        detector = new()
    yield from detector.end()


@dataclass
class _Detector:
    """The open events of one recording."""

    off_thresholds: Floats | None = None
    min_event_seconds: float = 0.0
    min_gap_seconds: float = 0.0
    every_label: bool = False  # of one label per clip: what is no sound makes events, too
    last: Prediction | None = None  # the newest segment, which ends where the next begins to count
    start: float = 0.0  # where `last` begins to count
    open: dict[Any, _Open] = field(default_factory=dict)  # by index of the class; else by label and what it means
    closed: list[tuple[float, int, Prediction]] = field(default_factory=list)  # a heap: waiting for earlier, open ones
    found: int = 0

    def add(self, segment: Prediction) -> Iterator[Prediction]:
        """Take the next segment; events that are certain now."""
        self.last, last = segment, self.last
        start = segment.start_seconds
        if last is not None:
            overlap = start < last.end_seconds
            end = border(last, segment) if overlap else last.end_seconds
            self._count(last, self.start, end)
            start = end if overlap else start
        self.start = start
        yield from self._ready()

    def end(self) -> Iterator[Prediction]:
        """No more segments; all events that are left."""
        if self.last is not None:
            self._count(self.last, self.start, self.last.end_seconds)
        for key in list(self.open):
            self._close(key)
        yield from self._ready()

    def _count(self, segment: Prediction, start: float, end: float) -> None:
        if self.every_label and not segment.model.multi:
            reported: set[Any] = {(segment.label, segment.silent, segment.named)}
        else:
            reported = {segment.model.names.index(label) for label, _ in segment.sounds}
        for key, event in list(self.open.items()):
            goes_on = self.off_thresholds is not None and segment.probabilities[key] >= self.off_thresholds[key]
            event.active = key in reported or (event.active and bool(goes_on) and not segment.silent)
            gap = (start if event.active else end) - event.end
            if gap >= max(self.min_gap_seconds, 1e-6):
                self._close(key)
        for key in reported - set(self.open):
            self.open[key] = _Open(segment, start, end, np.zeros(len(segment.probabilities)))
        for key, event in self.open.items():
            if event.active:
                event.end = end
                event.probabilities += segment.weight * segment.probabilities
                own = segment.probabilities[key] if isinstance(key, int) else segment.probability
                event.probability += segment.weight * float(own)
                event.weight += segment.weight

    def _close(self, key: Any) -> None:
        event = self.open.pop(key)
        if event.end - event.start < self.min_event_seconds - 1e-6:
            return
        index = key if isinstance(key, int) else 0
        label = event.first.model.names[key] if isinstance(key, int) else event.first.label
        made = replace(
            event.first,
            start_seconds=round(event.start, 6),
            end_seconds=round(event.end, 6),
            label=label,
            labels=(label,) if isinstance(key, int) else event.first.labels,
            probability=event.probability / event.weight,
            probabilities=(event.probabilities / event.weight).astype(np.float32),
        )
        self.found += 1
        heapq.heappush(self.closed, (made.start_seconds, index, made))

    def _ready(self) -> Iterator[Prediction]:
        earliest = min((event.start for event in self.open.values()), default=np.inf)
        while self.closed and self.closed[0][0] <= earliest:
            yield heapq.heappop(self.closed)[2]


def border(earlier: Prediction, later: Prediction) -> float:
    """Where one of two overlapping segments ends and the next begins, in seconds: midway between their centres.

    A rest that is seen by a whole segment up to the recording's end is what no earlier segment has seen.
    """
    seconds = later.end_seconds - later.start_seconds
    if later.weight < 1 and abs(seconds - earlier.end_seconds + earlier.start_seconds) < 1e-5:
        return earlier.end_seconds
    spans = earlier.start_seconds + earlier.end_seconds + later.start_seconds + later.end_seconds
    return round(spans / 4, 6)
