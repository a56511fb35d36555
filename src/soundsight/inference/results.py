"""Predictions for segments, summaries of recordings, vectors: plain values that print well."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from soundsight.checks import require
from soundsight.config import BACKGROUND
from soundsight.deprecation import Former
from soundsight.files import printable
from soundsight.inference.formats.base import COLUMNS
from soundsight.inference.options import SHOWN_CLASSES, SILENCE, UNKNOWN, decide

if TYPE_CHECKING:
    import pandas
    import polars

Floats = npt.NDArray[np.float32]

OWN, OVERRIDE = "own", "override"
_SHOWN = 20  # segments that a prediction prints


@dataclass(frozen=True)
class Model:
    """The model that predicted, and what its outputs mean; shared by its predictions."""

    names: tuple[str, ...]
    model_hash: str
    settings: str  # "own" preprocessing, or "override": spectrogram settings that the user supplied
    multi: bool = False  # whether a segment has any number of the classes

    fingerprint = Former("model_hash")


@dataclass(frozen=True, eq=False)
class Prediction:
    """The prediction for one segment of a recording.

    A model of one label per clip gives the most probable class; one of several labels per clip gives all those above
    their thresholds, and "background" where there is none. "background" is no sound, whichever model says it.
    """

    recording: str
    start_seconds: float
    end_seconds: float
    label: str  # the best class, "unknown" below its threshold, "background", or "silence"
    # Of the label, 0 to 1; of "unknown" that of the best class, of "background" without a class that none is there: 1
    # minus that of the best; of "silence" 0.
    probability: float
    probabilities: Floats = field(repr=False)  # (classes,), sum 1 unless each has its own; all 0 in silence
    silent: bool = field(repr=False)
    model: Model = field(repr=False)
    weight: float = field(default=1.0, repr=False)  # in a mean: below 1 for what is left at a recording's end
    labels: tuple[str, ...] = ()  # all classes above their thresholds, best first; of one label per clip that label

    @property
    def named(self) -> bool:
        """Whether the label is a sound: a class may be called "silence" or "unknown", too."""
        if self.silent or self.label == BACKGROUND:
            return False
        return self.label != UNKNOWN or self.top(1)[0][0] == UNKNOWN

    @property
    def sounds(self) -> list[tuple[str, float]]:
        """The classes that are reported as sounds, with their probabilities; none in silence or background."""
        if not self.model.multi:
            return [(self.label, self.probability)] if self.named else []
        return [(label, float(self.probabilities[self.model.names.index(label)])) for label in self.labels]

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """The k best classes with their probabilities; none in silence."""
        order = () if self.silent else np.argsort(-self.probabilities, kind="stable")[:k]
        return [(self.model.names[i], float(self.probabilities[i])) for i in order]

    def rows(self, top_k: int = 1) -> list[dict[str, Any]]:
        """One plain row per rank: the labels first, then the next best classes up to `top_k`."""
        ranked = [(self.label, self.probability), *self.sounds[1:]]
        named = {label for label, _ in ranked}
        ranked += [pair for pair in self.top(top_k) if pair[0] not in named][: max(0, top_k - len(ranked))]
        return [
            {
                "recording": self.recording,
                "start": self.start_seconds,
                "end": self.end_seconds,
                "label": label,
                "probability": round(probability, 6),
                "rank": rank,
                "model": self.model.model_hash,
                "settings": self.model.settings,
            }
            for rank, (label, probability) in enumerate(ranked, 1)
        ]


@dataclass(frozen=True, eq=False)
class Vector:
    """The network's pooled features of one segment."""

    recording: str
    start_seconds: float
    end_seconds: float
    vector: Floats  # (features,)


@dataclass(frozen=True, eq=False)
class Summary:
    """A recording as a whole: the mean over those segments that were not silent, weighed by their length.

    Of a model of several labels per clip it is the highest probability of each class: whether it is in there at all.
    """

    recording: str
    duration_seconds: float
    label: str
    probability: float
    probabilities: Floats = field(repr=False)  # (classes,)
    counts: Mapping[str, int]  # segments of each label
    model: Model = field(repr=False)
    failure: str = ""  # why the rest, or all, could not be read
    labels: tuple[str, ...] = ()  # as in `Prediction`

    def as_prediction(self) -> Prediction:
        """The same as one segment from start to end, for writers."""
        silent = not self.probabilities.any()
        return Prediction(
            self.recording,
            0.0,
            self.duration_seconds,
            self.label,
            self.probability,
            self.probabilities,
            silent,
            self.model,
            labels=self.labels,
        )


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """All predictions for one recording."""

    recording: str
    duration_seconds: float
    predictions: tuple[Prediction, ...]
    summary: Summary
    top_k: int | None = None  # as asked for; None shows 5 and makes rows of 1

    windows = Former("predictions")

    @property
    def label(self) -> str:
        """The label of the recording as a whole."""
        return self.summary.label

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels of the recording as a whole; see `Prediction`."""
        return self.summary.labels

    @property
    def probability(self) -> float:
        """The probability of `label` in the recording as a whole; see `Summary`."""
        return self.summary.probability

    @property
    def failure(self) -> str:
        """Why the recording, or the rest of it, could not be read; empty if all is well."""
        return self.summary.failure

    def top(self, k: int | None = None) -> list[tuple[str, float]]:
        """The best classes of the recording as a whole with their probabilities; none if all is silence."""
        return self.summary.as_prediction().top(k or self.top_k or SHOWN_CLASSES)

    def to_rows(self, top_k: int | None = None) -> list[dict[str, Any]]:
        """Plain rows: recording, start, end (s), label, probability, rank, model, settings.

        One per segment, unless `top_k` is given here or was asked for with the recording.
        """
        return [row for segment in self.predictions for row in segment.rows(top_k or self.top_k or 1)]

    def to_pandas(self, top_k: int | None = None) -> pandas.DataFrame:
        """The rows as a pandas frame."""
        return require("pandas", "pandas").DataFrame(self.to_rows(top_k), columns=list(COLUMNS))

    def to_polars(self, top_k: int | None = None) -> polars.DataFrame:
        """The rows as a polars frame."""
        return require("polars", "polars").DataFrame(self.to_rows(top_k), schema=list(COLUMNS))

    def __repr__(self) -> str:
        lines = [f"  {start:9.2f} {end:9.2f} s  {text}" for start, end, text in self._lines()]
        return "\n".join([self._title(), *lines, *self._rest()])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{start:.2f}</td><td>{end:.2f}</td><td>{html.escape(text)}</td></tr>"
            for start, end, text in self._lines()
        )
        rest = "".join(f"<p>{html.escape(line.strip())}</p>" for line in self._rest())
        return (
            f"<p><b>{html.escape(self._title())}</b></p><table><thead><tr><th>start (s)</th><th>end (s)</th>"
            f"<th>prediction</th></tr></thead><tbody>{rows}</tbody></table>{rest}"
        )

    def _title(self) -> str:
        return printable(f"{self.recording}, {self.duration_seconds:.2f} s: {_percent(self.label, self.probability)}")

    def _lines(self) -> Iterator[tuple[float, float, str]]:
        shown = self.top_k or SHOWN_CLASSES
        for segment in self.predictions[:_SHOWN]:
            ranked = [_percent(row["label"], row["probability"]) for row in segment.rows(shown)]
            yield segment.start_seconds, segment.end_seconds, printable(", ".join(ranked))

    def _rest(self) -> list[str]:
        more = len(self.predictions) - _SHOWN
        return [f"  ... and {more} more segments"] * (more > 0) + [printable(self.failure)] * bool(self.failure)


class Tally:
    """Sums over the segments of one recording, in constant memory."""

    def __init__(self, recording: str, model: Model) -> None:
        self.recording = recording
        self.model = model
        self.counts: Counter[str] = Counter()
        self.total = np.zeros(len(model.names))  # or the highest of each class, where each is on its own
        self.sound = 0.0
        self.named = False  # whether some segment has a class, or is background

    def add(self, segment: Prediction) -> None:
        """Count a segment."""
        self.counts.update([label for label, _ in segment.sounds] or [segment.label])
        self.named |= segment.named or segment.label == BACKGROUND
        if segment.silent:
            return
        if self.model.multi:
            self.total = np.maximum(self.total, segment.probabilities)
            self.sound = 1.0
        else:
            self.total += segment.weight * segment.probabilities
            self.sound += segment.weight

    def summary(self, duration_seconds: float, failure: str, thresholds: Floats) -> Summary:
        """The mean over the segments, or the highest of each class; see `Summary`."""
        mean = (self.total / (self.sound or 1)).astype(np.float32)
        silent = self.sound == 0
        label, probability, labels = decide(mean, silent, self.model.names, thresholds, multi=self.model.multi)
        if not self.named and not (silent and self.counts):
            label, labels = UNKNOWN, () if self.model.multi else (UNKNOWN,)  # no segment was named, or none was read
        return Summary(
            self.recording, duration_seconds, label, probability, mean, dict(self.counts), self.model, failure, labels
        )


def _percent(label: str, probability: float) -> str:
    return label if label == SILENCE else f"{label} {probability:.3f}"
