"""What `soundsight score` reads: predictions in our own formats, annotations in any label table, matched by name."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from soundsight.audio import is_audio
from soundsight.datasets.tables.reading import read_labels
from soundsight.datasets.tables.recordings import BadRow, Recording, Recordings
from soundsight.errors import ConfigError
from soundsight.evaluation.events import Event
from soundsight.inference.formats import FORMATS

NO_SOUNDS = frozenset({"silence", "unknown", "background"})
TABLES = frozenset({".txt", ".csv", ".tsv", ".tab", ".xlsx", ".xls", ".ods", ".ann"})
DEFAULT_THRESHOLD = 0.5  # of tables that hold nothing but probabilities

Span = tuple[float, float]


@dataclass(frozen=True)
class Predictions:
    """What a model said of recordings: events, and where the format has them all probabilities of its segments."""

    events: Mapping[str, list[Event]]  # by recording, in the order of the file
    ends: Mapping[str, float]  # last time that is mentioned
    names: tuple[str, ...] = ()  # classes of the columns of `probabilities`
    spans: Mapping[str, list[Span]] = field(default_factory=dict)  # segments of a recording ...
    probabilities: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)  # ... and (segments, C) each
    named: bool = True  # whether the file says which recordings it is of
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Annotations:
    """What people found in recordings."""

    events: Mapping[str, list[Event]]  # by recording, as the predictions call it; without events: listened to
    failures: list[tuple[str, str]]  # (file, reason)
    named: bool


class Row(NamedTuple):
    """One row of a table of predictions: a class in a stretch of a recording."""

    recording: str
    start: float  # seconds
    end: float
    label: str
    probability: float
    rank: int  # 0: not ranked
    model: str = ""  # hash of the model file, where the table says so
    begin_time: str = ""  # ISO 8601, likewise


def read_rows(path: Path) -> list[Row] | None:
    """The rows of a file of `soundsight predict` that holds probabilities; `None` if it is something else.

    Raises:
        ConfigError: It cannot be read, or is damaged.
    """
    try:
        with open(path, "rb") if not path.is_dir() else open(os.devnull, "rb") as stream:
            start = stream.read(256).removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); name a file that `predict` wrote.") from error
    writer = next((writer for writer in FORMATS.values() if writer.head and start.startswith(writer.head)), None)
    if writer is None:
        return None
    try:
        return [
            Row(
                str(row["recording"]), float(row["start"]), float(row["end"]), str(row["label"]),
                float(row["probability"]), int(row["rank"]), str(row.get("model", "")), row.get("begin_time") or "",
            )
            for row in writer.read(path)
        ]  # fmt: skip
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ConfigError(f"{path} is damaged ({str(error)[:200]}); predict again.") from error


def read_detections(path: Path, thresholds: Mapping[str, float]) -> tuple[list[Row], list[Row]]:
    """The rows of a table of predictions that report a class, in the order of the file; and all of its rows.

    Args:
        path: A file with probabilities that `predict` wrote.
        thresholds: See `read_predictions`.

    Raises:
        ConfigError: It is in another format, or reports nothing.
    """
    if (rows := read_rows(path)) is None:
        names = ", ".join(name for name, writer in FORMATS.items() if writer.head)
        raise ConfigError(f"{path} is no table of predictions with probabilities; use `predict --format` {names}.")
    segments = [found for spans in _by_segment(rows).values() for found in spans.values()]
    least, _ = _least(path, segments, thresholds)
    found = [row for row in rows if _reports(row, least)]
    if not found:
        raise ConfigError(f"{path} reports no class in {len(rows)} rows; predict with a lower --threshold.")
    return found, rows


def _reports(row: Row, least: Mapping[str, float]) -> bool:
    reached = row.probability >= least.get(row.label, least.get("", 0.0)) and row.rank <= least["rank"]
    return row.label not in NO_SOUNDS and reached


def _by_segment(rows: Iterable[Row]) -> dict[str, dict[Span, list[Row]]]:
    segments: dict[str, dict[Span, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        segments[row.recording][row.start, row.end].append(row)
    return segments


def read_predictions(path: Path, thresholds: Mapping[str, float]) -> Predictions:
    """Read a file that `soundsight predict` wrote, or a folder of label tracks or selection tables.

    Args:
        path: File or folder.
        thresholds: Least probability by class, "" for all others; without any a file tells by itself what was reported.
    """
    if (rows := read_rows(path)) is not None:
        return _from_rows(path, rows, thresholds)
    if thresholds:
        raise ConfigError(f"{path} holds no probabilities, so --threshold has no effect; leave it out.")
    found = read_annotations(path, None)
    if found.failures:
        file, reason = found.failures[0]
        raise ConfigError(
            f"{path} is in no format that can be scored ({file}: {reason}); use --format "
            f"{', '.join(name for name, writer in FORMATS.items() if writer.head or writer.per_recording)}."
        )
    ends = {name: max((event.end for event in events), default=0.0) for name, events in found.events.items()}
    return Predictions(found.events, ends, named=found.named)


def _from_rows(path: Path, rows: list[Row], thresholds: Mapping[str, float]) -> Predictions:
    segments = _by_segment(rows)
    everything = [found for spans in segments.values() for found in spans.values()]
    least, notes = _least(path, everything, thresholds)
    events = {
        recording: [
            Event(*place, row.label)
            for place, found in zip(_places(list(spans)), spans.values(), strict=True)
            for row in found
            if _reports(row, least)
        ]
        for recording, spans in segments.items()
    }
    ends = {recording: max(end for _, end in spans) for recording, spans in segments.items()}
    names = tuple(sorted({row.label for found in everything for row in found} - NO_SOUNDS))
    spans, probabilities = _matrices(segments, names)
    return Predictions(events, ends, names if spans else (), spans, probabilities, notes=notes)


def _places(spans: list[Span]) -> list[Span]:
    """Which time each span stands for: of segments that overlap, the time around their centres, as `predict` has it.

    Events may overlap too; segments are told from them by their equal lengths and hops, but for the last.
    """
    steps = np.diff(np.array(spans)[:-1], axis=0)
    segments = len(spans) > 3 and np.ptp(steps) < 1e-4 and spans[1][0] < spans[0][1]
    if not segments:
        return spans
    borders = [sum((*one, *two)) / 4 for one, two in zip(spans, spans[1:], strict=False)]
    return list(zip([spans[0][0], *borders], [*borders, spans[-1][1]], strict=True))


def _least(
    path: Path, segments: list[list[Row]], thresholds: Mapping[str, float]
) -> tuple[dict[str, float], tuple[str, ...]]:
    """From which probability on rows count as reported, by class, "" for others; under "rank" up to which rank."""
    for name in thresholds:
        if name and not any(row.label == name for found in segments for row in found):
            raise ConfigError(f"{path} has no class {name!r}, so --threshold {name}=... has no effect; leave it out.")
    if thresholds:
        return {"": 0.0, **thresholds, "rank": np.inf}, ()
    if any(row.rank == 0 for found in segments for row in found):
        note = f"Classes count as reported from a probability of {DEFAULT_THRESHOLD:g} on; --threshold changes that."
        return {"": DEFAULT_THRESHOLD, "rank": np.inf}, (note,)
    rows = [len(found) for found in segments if found[0].label != "silence"]
    if rows and min(rows) > 1:
        raise ConfigError(
            f"{path} has {min(rows)} or more rows for every segment, so it does not say which of them were reported; "
            "add --threshold P, which takes all from P on, or predict without --top-k."
        )
    return {"rank": np.inf}, ()  # a segment's rows are its labels


def _matrices(
    segments: Mapping[str, Mapping[Span, list[Row]]], names: tuple[str, ...]
) -> tuple[dict[str, list[Span]], dict[str, npt.NDArray[np.float32]]]:
    """All probabilities by recording; nothing where a segment lacks a class, unless it is silence."""
    spans: dict[str, list[Span]] = {}
    values: dict[str, npt.NDArray[np.float32]] = {}
    for recording, found in segments.items():
        spans[recording] = list(found)
        rows = []
        for several in found.values():
            known = {row.label: row.probability for row in several}
            if not set(names) <= set(known) and set(known) != {"silence"}:
                return {}, {}
            rows.append([known.get(name, 0.0) for name in names])
        values[recording] = np.array(rows, np.float32)
    return (spans, values) if len(names) > 1 else ({}, {})


def read_annotations(path: Path, predicted: Collection[str] | None) -> Annotations:
    """Read a label table, or all tables of a folder.

    Args:
        path: File or folder.
        predicted: Names of recordings, by which those of the tables are to be called; `None`: as the tables do.
    """
    paths = [path]
    if path.is_dir():
        paths = sorted(file for file in path.rglob("*") if file.suffix.lower() in TABLES and file.is_file())
    if not paths or not paths[0].is_file():
        raise ConfigError(f"{path} {'holds no label tables' if paths == [] else 'does not exist'}; name a label table.")
    recordings = _Names(predicted)
    labels, failures = read_labels(paths, recordings)
    events: dict[str, list[Event]] = {}
    for name, clips in labels.items():
        events[name] = []
        for clip in clips:
            if clip.end_seconds is None:
                failures += [(name, f"a label {label!r} has no end") for label in clip.labels]
                continue
            found = (Event(clip.start_seconds, clip.end_seconds, label) for label in clip.labels)
            events[name] += (event for event in found if event.label not in NO_SOUNDS)
    return Annotations(events, failures, recordings.named)


class _Names(Recordings):
    """Recordings by their names alone: none of them need be here."""

    def __init__(self, known: Collection[str] | None) -> None:
        super().__init__(Path())
        self.known = known
        self.named = False  # whether a table named one

    def find(self, name: str, table: Path, below: object = ()) -> Recording | str:
        """The recording that the table means, under the name that the predictions have for it."""
        self.named = True
        try:
            return _recording(match(name, self.known or ()) or name)
        except ValueError as reason:
            return str(reason)

    def beside(self, table: Path) -> Recording:
        """The recording whose name the table's begins with."""
        stems = [table.name[:end] for end, letter in enumerate(table.name) if letter == "." and end] or [table.name]
        for stem in reversed(stems):
            try:
                if found := match(stem, self.known or ()):
                    return _recording(found)
            except ValueError as reason:
                raise BadRow(str(reason)) from None
        ours = [writer.per_recording for writer in FORMATS.values() if table.name.endswith(writer.per_recording or "/")]
        return _recording(table.name.removesuffix(max(ours, key=len, default=table.suffix)))


def match(name: str, known: Collection[str]) -> str | None:
    """Which of some recordings a name means: that with the same name, and the longest same end of folders."""
    parts = _parts(name)
    best: list[str] = []
    length = 1
    for other in known:
        pairs = zip(reversed(parts), reversed(_parts(other)), strict=False)
        same = next((n for n, (one, two) in enumerate(pairs) if one != two), min(len(parts), len(_parts(other))))
        if same >= length:
            best, length = ([*best, other] if same == length else [other]), same
    if len(best) > 1:
        raise ValueError(f"{name} may be {best[0]} or {best[1]}")
    return best[0] if best else None


def _parts(name: str) -> list[str]:
    parts = unicodedata.normalize("NFC", name).casefold().replace("\\", "/").split("/")
    stem = os.path.splitext(parts[-1])[0] if is_audio(Path(parts[-1])) else parts[-1]
    return [part for part in (*parts[:-1], stem) if part not in ("", ".")]


def _recording(name: str) -> Recording:
    return Recording(Path(name), name, name)
