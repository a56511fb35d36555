"""Timed figures of prepared clips, by the code of `predict` and `score`: by segment, by event, false alarms per hour.

Clips know which classes they hold, not when these begin, so all times are as exact as the clips' hop.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from soundsight.config import BACKGROUND
from soundsight.detection import BoolArray, DetectionScores, count_errors
from soundsight.evaluation.events import Event, event_counts, false_alarms, joined
from soundsight.evaluation.score import RecordingScores
from soundsight.inference.events import detect
from soundsight.inference.options import decide
from soundsight.inference.results import Model, Prediction
from soundsight.metrics import Scores

COLLAR = {"collar_seconds": 0.2, "collar_fraction": 0.2}  # as `score` has it
RANKING = ("average_precision", "auroc", "best_f1")  # which metrics.json has of all clips


def timed_figures(
    scores: Scores | DetectionScores,
    columns: Mapping[str, Sequence[Any]],
    thresholds: npt.NDArray[np.float32] | float,
    *,
    annotated: bool,
) -> tuple[dict[str, Any], dict[str, list[float | None]]]:
    """Entries `events` and `background` of metrics.json, and columns of per_class.csv; none where nothing is known.

    Args:
        scores: Figures of N clips.
        columns: Of each clip its recording `clips`, and its `starts` and `ends` there in seconds, `None`: not known.
        thresholds: From which probability on a class is reported, one for all or `(C,)`.
        annotated: Whether the clips are segments of recordings whose annotations have times. Otherwise false alarms
            are counted on clips of background only.
    """
    names, multi = scores.names, isinstance(scores, DetectionScores)
    truth = scores.targets if isinstance(scores, DetectionScores) else scores.one_vs_rest.targets
    model = Model(names, "", "", multi)
    places = zip(columns["clips"], columns["starts"], columns["ends"], range(scores.count), strict=True)
    timed = sorted((place for place in places if place[1] is not None), key=lambda place: place[:2])

    def segments(probabilities: npt.NDArray[np.float32], least: float | npt.NDArray[np.float32]) -> list[Prediction]:
        each = np.broadcast_to(np.float32(least), len(names))
        made = []
        for file, start, end, n in timed:
            label, value, labels = decide(probabilities[n], False, names, each, multi=multi)
            recording = file if annotated else str(n)
            made.append(Prediction(recording, start, end, label, value, probabilities[n], False, model, labels=labels))
        return made

    there, found = segments(truth.astype(np.float32), 0.5), segments(scores.probabilities, thresholds)
    figures: dict[str, Any] = {}
    more: dict[str, list[float | None]] = {}
    if annotated and there:
        sounds = [name for name in names if name != BACKGROUND]
        events, reported = _events(there), _events(found)
        scored = RecordingScores(
            recordings=tuple(events),
            hours=_hours(there),
            measured=True,
            segments=count_errors(sounds, _active(there, sounds), _active(found, sounds)),
            events=event_counts(events, reported, sounds, **COLLAR),
            alarms=false_alarms(events, reported, sounds),
            ranking=None,
        )
        *rows, macro, micro = ({k: v for k, v in row.items() if k not in RANKING} for row in scored.table())
        averages = {"macro_average": macro, "micro_average": micro}
        figures["events"] = {"recordings": len(events), "hours": scored.hours, **COLLAR, **averages}
        by_class = {row["class"]: row for row in rows}
        for key in ("event_f1", "false_alarms_per_hour"):
            more[key] = [by_class.get(name, {}).get(key) for name in names]
    if background := [segment for segment, true in zip(found, there, strict=True) if not true.sounds]:
        alarms, hours = sum(map(len, _events(background).values())), _hours(background)
        figures["background"] = {"hours": hours, "false_alarms": alarms, "false_alarms_per_hour": alarms / hours}
    return figures, more


def _events(segments: Sequence[Prediction]) -> dict[str, list[Event]]:
    """The events of each recording as `predict` makes them without further options."""
    events: dict[str, list[Event]] = {segment.recording: [] for segment in segments}
    for event in detect(segments):
        assert isinstance(event, Prediction)
        events[event.recording].append(Event(event.start_seconds, event.end_seconds, event.label))
    return events


def _hours(segments: Sequence[Prediction]) -> float:
    """How much sound segments cover."""
    spans = defaultdict(list)
    for segment in segments:
        spans[segment.recording].append(Event(segment.start_seconds, segment.end_seconds, ""))
    return sum(span.end - span.start for some in spans.values() for span in joined(some)) / 3600


def _active(segments: Sequence[Prediction], names: Sequence[str]) -> BoolArray:
    """Which classes are reported in each segment, bool `(N, C)`."""
    return np.array([[name in dict(segment.sounds) for name in names] for segment in segments], bool)
