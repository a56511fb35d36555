"""Annotated recordings: the rows of tables with times become clips that are labelled by overlap.

A row says where in a recording a class is. Segments of fixed length are cut from the whole recording, as `predict` cuts
it, or each row becomes a clip (`cut=rows`). Nothing here decides splits or reads samples.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from soundsight import audio
from soundsight.config import BACKGROUND, DatasetConfig
from soundsight.datasets.catalogue import Clip
from soundsight.errors import ConfigError, DatasetError

Stretch = tuple[float, float]  # start and end in seconds
Span = tuple[int, int]  # the same in microseconds, as exact as tables are
EXACT_SECONDS = 1e-6  # as exact as times are
SLACK_SECONDS = 0.05  # a label may end this much after its recording, as lengths are rounded


@dataclass(frozen=True)
class Cut:
    """What `cut_rows` or `cut_segments` gave."""

    row_of: dict[Clip, Clip]  # of each clip, a row of its recording, which knows its split
    multi: bool  # whether a clip may have several classes, or none
    notes: list[str]
    failures: list[tuple[str, str]]  # (file, reason)


def stretches(start: float, end: float, clip_seconds: float, hop_seconds: float) -> list[Stretch]:
    """Segments between two times as `predict` cuts them, in seconds.

    They begin a hop apart. What is left at the end is a shorter segment if it fills `audio.LEAST_SHARE` of one; less is
    covered by a whole segment that ends there; less than `audio.IGNORED_SHARE` is left out.
    """
    found: list[Stretch] = []
    reached = start
    while not found or end - reached > audio.IGNORED_SHARE * clip_seconds + EXACT_SECONDS:
        begin = round(start + len(found) * hop_seconds, 6)
        if found and end - begin < audio.LEAST_SHARE * clip_seconds - EXACT_SECONDS:
            begin = round(end - clip_seconds, 6)
        reached = round(min(begin + clip_seconds, end), 6)
        found.append((begin, reached))
    return found


class Labels:
    """The labels of one recording by class, those of one class joined where they overlap or touch."""

    def __init__(self, labels: Iterable[tuple[str, float, float]]) -> None:
        by_class: dict[str, list[Span]] = defaultdict(list)
        for label, start, end in labels:
            by_class[label].append(_span((start, end)))
        self.spans = {label: _joined(spans) for label, spans in sorted(by_class.items())}
        self.ends = {label: [end for _, end in spans] for label, spans in self.spans.items()}

    def within(self, stretch: Stretch, config: DatasetConfig) -> tuple[set[str], set[str]]:
        """Classes whose labels overlap a stretch enough, and classes whose labels do so, but not enough."""
        here = _span(stretch)
        enough: set[str] = set()
        little: set[str] = set()
        for label, spans in self.spans.items():
            for index in range(bisect_right(self.ends[label], here[0]), len(spans)):
                if spans[index][0] >= here[1]:
                    break
                (enough if overlaps(spans[index], here, config) else little).add(label)
        return enough, little - enough


def overlaps(one: Span, other: Span, config: DatasetConfig) -> bool:
    """Whether two spans share `min_overlap_seconds` or `min_overlap_fraction` of the shorter one."""
    shared = min(one[1], other[1]) - max(one[0], other[0])
    shorter = min(one[1] - one[0], other[1] - other[0])
    enough = min(config.min_overlap_seconds * 1e6, config.min_overlap_fraction * shorter)
    return shared > 0 and shared >= enough - 0.5


def _span(stretch: Stretch) -> Span:
    return round(stretch[0] * 1_000_000), round(stretch[1] * 1_000_000)


def _joined(spans: Iterable[Span]) -> list[Span]:
    result: list[Span] = []
    for start, end in sorted(spans):
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((start, end))
    return result


def cut_rows(rows: Sequence[Clip], config: DatasetConfig, clip_seconds: float) -> Cut:
    """A clip for each row, or several where it is longer than a clip, with the classes of all rows that overlap it."""
    if config.hop_seconds is not None:
        raise ConfigError(
            "hop_seconds has no effect with cut=rows, which gives one clip per row; leave one of them out."
        )
    found: dict[tuple[str, Stretch], tuple[Clip, Clip]] = {}  # the clip of each place, and its row
    tally: Counter[str] = Counter()
    for file, members in _by_file(rows).items():
        timed = [row for row in members if row.labels or row.end_seconds is not None]
        tally["empty"] += not timed
        labels = Labels((label, *_extent(row, clip_seconds)) for row in timed for label in row.labels)
        for row in timed:
            parts = stretches(*_extent(row, clip_seconds), clip_seconds, clip_seconds)
            for part in parts:
                classes = labels.within(part, config)[0] | set(row.labels)
                if (file, part) in found:
                    classes |= set(found[file, part][0].labels)
                if _allowed(classes, part, members, config, clip_seconds):
                    clip = row if len(parts) == 1 else _placed(row, part)
                    found[file, part] = _labelled(clip, classes), row
                else:
                    tally["several"] += 1
    notes = [
        (tally["empty"], "Recordings without any label, left out: {} (cut=segments makes them background)"),
        (tally["several"], "Clips of two classes, left out: {} (labels=multi keeps them)"),
    ]
    told = [text.format(number) + "." for number, text in notes if number]
    return _settled(dict(found.values()), config, told, [])


def cut_segments(
    rows: Sequence[Clip], config: DatasetConfig, clip_seconds: float, durations: Mapping[str, tuple[float | None, str]]
) -> Cut:
    """Segments of whole recordings, with the classes whose labels overlap them enough.

    A segment that a label overlaps by less is left out, for neither answer would be right. One that none overlaps is
    background where the recording is annotated completely, or else left out. A row without labels and times says that
    its recording holds nothing; `durations` are the length of each file, `None` if it cannot be read, and its damage.
    """
    hop_seconds = config.hop_seconds or clip_seconds
    if hop_seconds > clip_seconds:
        raise ConfigError(
            f"hop_seconds={hop_seconds:g} is longer than clip_seconds={clip_seconds:g}, so what lies between two "
            "segments would be lost; shorten it, or leave it empty."
        )
    row_of: dict[Clip, Clip] = {}
    failures: list[tuple[str, str]] = []
    tally: Counter[str] = Counter()
    for file, members in _by_file(rows).items():
        first = _of_one_side(members)
        duration, damage = durations[file]
        if damage:
            failures.append((file, damage))
        if duration is None:
            continue
        kept = []
        for row in members:
            start, end = _extent(row, clip_seconds, duration)
            if start >= duration:
                what = " and ".join(map(repr, row.labels))
                failures.append((file, f"the label {what} begins at {start:g} s, after the end at {duration:.6g} s"))
                continue
            tally["past"] += end > duration + SLACK_SECONDS
            kept += [(label, start, min(end, duration)) for label in row.labels]
        labels = Labels(kept)
        tally["joined"] += len(set(kept)) - sum(map(len, labels.spans.values()))
        complete = config.annotated == "complete" or not any(row.labels or row.end_seconds for row in members)
        for segment in stretches(0.0, duration, clip_seconds, hop_seconds):
            classes, little = labels.within(segment, config)
            if little - {BACKGROUND}:
                tally["little"] += 1
            elif not classes and not complete:
                tally["unlabelled"] += 1
            elif not _allowed(classes, segment, members, config, clip_seconds):
                tally["several"] += 1
            else:
                row_of[_labelled(_placed(first, segment), classes)] = first
    notes = [_told(tally, row_of, clip_seconds, hop_seconds)]
    wanted, there = ({label for clip in clips for label in clip.labels} - {BACKGROUND} for clips in (rows, row_of))
    if lost := sorted(wanted - there):
        notes.append(f"Classes that no segment is left of: {', '.join(lost[:5])}{', ...' * (len(lost) > 5)}.")
    return _settled(row_of, config, notes, failures)


def _told(tally: Counter[str], clips: Iterable[Clip], clip_seconds: float, hop_seconds: float) -> str:
    """How recordings became segments, and what was left out."""
    empty = sum(not set(clip.labels) - {BACKGROUND} for clip in clips)
    text = f"Segments of {clip_seconds:g} s every {hop_seconds:g} s, labelled by overlap (cut=rows: one clip per row)"
    parts = [
        (empty, "background: {}"),
        (tally["unlabelled"], "left out without label: {} (annotated=complete makes them background)"),
        (tally["little"], "left out where a label overlaps too little to count: {}"),
        (tally["several"], "left out with two classes one after the other: {} (labels=multi keeps them)"),
        (tally["joined"], "labels joined with another of their class that they overlap or touch: {}"),
        (tally["past"], "labels that count up to the end of their recording only: {}"),
    ]
    return "; ".join([text, *(words.format(number) for number, words in parts if number)]) + "."


def _by_file(rows: Iterable[Clip]) -> dict[str, list[Clip]]:
    found: dict[str, list[Clip]] = defaultdict(list)
    for row in rows:
        found[row.file].append(row)
    return found


def _extent(row: Clip, clip_seconds: float, duration: float | None = None) -> Stretch:
    """Where a row's label lies: without an end, for one clip length; without any times, everywhere."""
    if row.end_seconds is not None:
        return row.start_seconds, row.end_seconds
    if duration is not None and not row.start_seconds:
        return 0.0, duration
    return row.start_seconds, round(row.start_seconds + clip_seconds, 6)


def _placed(row: Clip, stretch: Stretch) -> Clip:
    """A clip of a row's recording."""
    start, end = stretch
    whole = row.end_seconds is None and not row.start_seconds
    name = row.name if whole else row.name.rpartition("@")[0] or row.name
    return replace(row, name=f"{name}@{start:.1f}", start_seconds=start, end_seconds=end)


def _labelled(clip: Clip, classes: set[str]) -> Clip:
    first, *others = sorted(classes - {BACKGROUND}) or [""]
    return replace(clip, label=first, further_labels=tuple(others))


def _of_one_side(rows: Sequence[Clip]) -> Clip:
    """The first of a recording's rows."""
    first = rows[0]
    for name in ("fold", "source", "split"):
        for row in rows:
            one, other = getattr(first, name), getattr(row, name)
            if one != other:
                what = "group" if name == "source" else name
                raise DatasetError(
                    f"Rows of {first.file} name two values of its {what}, {one!r} and {other!r} (at "
                    f"{row.start_seconds:g} s), but a recording stays on one side of every split; correct the table, "
                    "or use cut=rows."
                )
    return first


def _allowed(
    classes: set[str], stretch: Stretch, rows: Sequence[Clip], config: DatasetConfig, clip_seconds: float
) -> bool:
    """Whether a clip may have these classes."""
    if config.labels != "single" or len(classes - {BACKGROUND}) < 2:
        return True
    here = _span(stretch)
    spans = [(row, _span(_extent(row, clip_seconds))) for row in rows if row.labels and row.label != BACKGROUND]
    near = [(row, span) for row, span in spans if span[0] < here[1] and span[1] > here[0]]
    for number, (one, span) in enumerate(near):
        for other, its_span in near[number + 1 :]:
            if one.labels != other.labels and overlaps(span, its_span, config):
                raise DatasetError(
                    f"{one.file} holds {_said(one)} and {_said(other)} at the same time, but labels=single allows one "
                    "class per clip; use labels=multi, or correct one of the two rows."
                )
    return False


def _said(row: Clip) -> str:
    end = "" if row.end_seconds is None else f" to {row.end_seconds:g}"
    return f"{' and '.join(map(repr, row.labels))} (from {row.start_seconds:g}{end} s)"


def _settled(row_of: dict[Clip, Clip], config: DatasetConfig, notes: list[str], failures: list[tuple[str, str]]) -> Cut:
    """Whether the clips need several labels; if not, clips of background get a class of that name."""
    several = sum(len(clip.labels) > 1 for clip in row_of)
    multi = config.labels == "multi" or several > 0
    if several:
        notes.append(f"Multi-label data: {several} of {len(row_of)} clips have several classes.")
    if not multi:
        row_of = {clip if clip.label else replace(clip, label=BACKGROUND): row for clip, row in row_of.items()}
    return Cut(row_of, multi, notes, failures)
