"""Score: timed predictions against annotations of the same recordings."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from soundsight import audio
from soundsight.detection import Counts, DetectionScores, IntArray
from soundsight.errors import AudioError, ConfigError, check_range
from soundsight.evaluation.events import event_counts, false_alarms, joined, segment_counts, segment_targets
from soundsight.evaluation.predicted import Annotations, Predictions, read_annotations, read_predictions
from soundsight.files import csv_text, write_text

COLUMNS = (
    "class", "annotated", "reported", "segment_precision", "segment_recall", "segment_f1", "event_precision",
    "event_recall", "event_f1", "false_alarms", "false_alarms_per_hour", "average_precision", "auroc", "best_f1",
)  # fmt: skip
MACRO, MICRO = "macro average", "micro average"
LEAST_OVERLAP = 0.25  # seconds of a class that make it one of a segment's; or half of the shorter of the two


@dataclass(frozen=True, eq=False)
class RecordingScores:
    """Figures of predictions for annotated recordings; `table` has them by class."""

    recordings: tuple[str, ...]  # that are both predicted and annotated
    hours: float
    measured: bool  # whether all lengths are those of the recordings; else at least `hours`
    segments: Counts
    events: Counts
    alarms: IntArray  # false alarms of each class
    ranking: DetectionScores | None  # of the predicted segments, where all probabilities are known
    uncertain: int = 0  # segments that overlap an annotation too little to count in `ranking`
    problems: tuple[str, ...] = ()  # what could not be scored
    notes: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """All classes that are annotated or could be reported."""
        return self.segments.names

    def table(self) -> list[dict[str, Any]]:
        """One row per class, then their macro and micro average; NaN where a figure is not defined."""
        rows = []
        ranked = {name: c for c, name in enumerate(self.ranking.names)} if self.ranking else {}
        for c, name in enumerate(self.names):
            values: list[Any] = [name, *self._counted(c)]
            for counts in (self.segments, self.events):
                values += [float(figure[c]) for figure in (counts.precision, counts.recall, counts.f1)]
            values += [int(self.alarms[c]), self._per_hour(int(self.alarms[c]))]
            if self.ranking and name in ranked:
                k = ranked[name]
                values += [float(figure[k]) for figure in (self.ranking.average_precision, self.ranking.auroc)]
                values.append(self.ranking.best[k].f1 if self.ranking.support[k] else math.nan)
            rows.append(values + [math.nan] * (len(COLUMNS) - len(values)))
        total = int(self.alarms.sum())
        counted = self._counted(slice(None))
        ranking = self.ranking.figures() if self.ranking else {}
        means = [ranking.get(key, math.nan) for key in ("macro_map", "macro_auroc", "macro_best_f1")]
        per_class = self._per_hour(total) / len(self.names) if self.names else math.nan
        rows.append([MACRO, *counted, *self.segments.macro, *self.events.macro, math.nan, per_class, *means])
        micro = [ranking.get("micro_map", math.nan), math.nan, math.nan]
        rows.append([MICRO, *counted, *self.segments.micro, *self.events.micro, total, self._per_hour(total), *micro])
        return [dict(zip(COLUMNS, row, strict=True)) for row in rows]

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON types; NaN becomes `None`."""
        rows = [_plain(row) for row in self.table()]
        return {
            "recordings": list(self.recordings),
            "hours": self.hours,
            "hours_measured": self.measured,
            **self.settings,
            MACRO.replace(" ", "_"): rows[-2],
            MICRO.replace(" ", "_"): rows[-1],
            "ranking": _plain(self.ranking.figures() if self.ranking else {}),
            "uncertain_segments": self.uncertain,
            "per_class": rows[:-2],
            "problems": list(self.problems),
            "notes": list(self.notes),
        }

    def write(self, path: Path) -> Path:
        """Write the table as CSV, or everything as JSON, by the ending of the path."""
        if path.suffix.lower() == ".json":
            return write_text(path, json.dumps(self.as_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
        rows = [_plain(row).values() for row in self.table()]
        lines = [[f"{value:.6f}" if isinstance(value, float) else value for value in row] for row in rows]
        return write_text(path, csv_text([COLUMNS, *lines]))

    def _counted(self, which: int | slice) -> tuple[int, int]:
        """How many events are annotated and reported."""
        events = self.events
        hits, false, missed = (int(np.sum(part[which])) for part in (events.hits, events.false, events.missed))
        return hits + missed, hits + false

    def _per_hour(self, alarms: int) -> float:
        return alarms / self.hours if self.hours else math.nan


def score_recordings(
    predictions: str | Path,
    annotations: str | Path,
    *,
    threshold: Mapping[str, float] | None = None,
    segment_seconds: float = 1.0,
    collar_seconds: float = 0.2,
    collar_fraction: float = 0.2,
) -> RecordingScores:
    """Score what `predict` wrote against a label table, recording by recording.

    Args:
        predictions: A file of `predict`, or a folder of its label tracks or selection tables.
        annotations: A label table, or a folder of them. A recording with an empty table was listened to.
        threshold: Least probability by class, "" for all others; `None`: as the file says what was reported.
        segment_seconds: Length of the segments that are compared; not that of the model's.
        collar_seconds: See `events.event_counts`.
        collar_fraction: Likewise.

    Raises:
        ConfigError: A file cannot be read, a value is out of range, or no recording is in both.
    """
    check_range("segment", segment_seconds, 0.01, 3600, " s")
    check_range("collar", collar_seconds, 0, 3600, " s")
    check_range("collar_fraction", collar_fraction, 0, 1)
    predicted = read_predictions(Path(predictions), threshold or {})
    annotated = read_annotations(Path(annotations), list(predicted.events))
    pairs, problems = _pairs(predicted, annotated)
    if not pairs:
        raise ConfigError(
            f"No recording is in both {predictions} and {annotations}: "
            f"{problems[0] if problems else 'nothing is annotated'}. Recordings are matched by name."
        )
    there = {recording: annotated.events[name] for recording, name in pairs.items()}
    found = {recording: joined(predicted.events[recording]) for recording in pairs}
    labels = {event.label for some in (*there.values(), *found.values()) for event in some}
    names = sorted({*labels, *predicted.names})
    lengths = [_length(recording, predicted, there[recording]) for recording in pairs]
    ranking, uncertain = _ranking(predicted, there)
    return RecordingScores(
        recordings=tuple(pairs),
        hours=sum(seconds for seconds, _ in lengths) / 3600,
        measured=all(exact for _, exact in lengths),
        segments=segment_counts(there, found, names, segment_seconds=segment_seconds),
        events=event_counts(there, found, names, collar_seconds=collar_seconds, collar_fraction=collar_fraction),
        alarms=false_alarms(there, found, names),
        ranking=ranking,
        uncertain=uncertain,
        problems=tuple(problems),
        notes=predicted.notes,
        settings={
            "segment_seconds": segment_seconds,
            "collar_seconds": collar_seconds,
            "collar_fraction": collar_fraction,
            "threshold": dict(threshold) if threshold else None,
        },
    )


def _pairs(predicted: Predictions, annotated: Annotations) -> tuple[dict[str, str], list[str]]:
    """The annotated name of each recording that is in both, and what is in one only, or cannot be read."""
    problems = [f"{file}: {reason}" for file, reason in annotated.failures]
    one, other = list(predicted.events), list(annotated.events)
    if len(one) == len(other) == 1 and not (predicted.named and annotated.named):
        return {one[0]: other[0]}, problems  # a file that names no recording can be of the only one
    problems += [f"{name} is predicted, but not annotated" for name in one if name not in annotated.events]
    problems += [f"{name} is annotated, but not predicted" for name in other if name not in predicted.events]
    return {name: name for name in one if name in annotated.events}, problems


def _length(recording: str, predicted: Predictions, there: list[Any]) -> tuple[float, bool]:
    """Seconds of a recording, and whether they are its own or only as much as is known of it."""
    try:
        if Path(recording).is_file():
            return audio.probe(recording).duration_seconds, True
    except (AudioError, OSError):
        pass
    return max(predicted.ends[recording], max((event.end for event in there), default=0.0)), False


def _ranking(predicted: Predictions, there: Mapping[str, list[Any]]) -> tuple[DetectionScores | None, int]:
    """Figures of the predicted segments by their probabilities; how many are left out as uncertain."""
    targets, values = [], []
    uncertain = 0
    for recording, events in there.items():
        if recording not in predicted.spans:
            return None, 0
        truth, certain = segment_targets(
            events, predicted.spans[recording], predicted.names, least_seconds=LEAST_OVERLAP
        )
        kept = certain.all(axis=1)
        uncertain += int((~kept).sum())
        targets.append(truth[kept])
        values.append(predicted.probabilities[recording][kept])
    truth = np.concatenate(targets)
    scores = DetectionScores(predicted.names, truth, np.concatenate(values))
    return (scores if truth.any() else None), uncertain


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}
