"""Calls per hour and day: detections counted by the clock, beside how long was recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

from soundsight.audio.clock import Clock, shifted
from soundsight.errors import ConfigError
from soundsight.evaluation.predicted import Row, read_detections
from soundsight.files import csv_text, write_text
from soundsight.inference.formats.csv import cell
from soundsight.review.detections import locate

COLUMNS = ("date", "hour", "class", "detections", "recorded_minutes")
Hour = tuple[date, int]


@dataclass(frozen=True)
class Activity:
    """Detections by class and hour."""

    names: tuple[str, ...]
    recorded: Mapping[Hour, float]  # minutes, of hours with any
    counts: Mapping[tuple[str, Hour], int]  # detections that begin in the hour
    without: tuple[str, ...]  # recordings whose beginning is not known

    def write(self, path: Path) -> None:
        """Write a row for each recorded hour and class, also where nothing was detected."""
        rows: list[tuple[object, ...]] = [COLUMNS]
        for day, hour in sorted(self.recorded):
            for name in self.names:
                count = self.counts.get((name, (day, hour)), 0)
                rows.append((day, hour, cell(name, "'"), count, f"{self.recorded[day, hour]:.2f}"))
        write_text(path, csv_text(rows))


def activity(
    predictions: str | Path, clock: Clock, *, threshold: Mapping[str, float] | None = None, root: str | None = None
) -> Activity:
    """Count the detections of a table of predictions by the clock.

    Args:
        predictions: A file with probabilities that `predict` wrote. Its column `begin_time` counts, if it has one.
        clock: Tells when recordings began, where the table does not.
        threshold: Least probability by class, "" for all others; `None`: as the table says what was reported.
        root: Where the recordings are, if they have moved; names suffice where they tell the time.

    Raises:
        ConfigError: The table cannot be read, no beginning is known, or some times have a zone and others none.
    """
    found, rows = read_detections(Path(predictions), threshold or {})
    began = _beginnings(rows, clock, root)
    known = [time for time in began.values() if time is not None]
    without = tuple(name for name, time in began.items() if time is None)
    if not known:
        raise ConfigError(
            f"It is not known when the recordings of {predictions} began, such as {without[0]}: neither their headers "
            "nor their names tell; give the pattern of their names with --begin-time, such as %Y%m%d_%H%M%S."
        )
    if len({time.tzinfo is None for time in known}) > 1:
        raise ConfigError("Some recordings tell their time zone and others do not; name it with --timezone.")
    recorded: Counter[Hour] = Counter()
    spans: dict[str, tuple[float, float]] = {}
    for row in rows:
        low, high = spans.get(row.recording, (row.start, row.end))
        spans[row.recording] = min(low, row.start), max(high, row.end)
    for name, (low, high) in spans.items():
        if (time := began[name]) is not None:
            for hour, minutes in _hours(shifted(time, low), high - low):
                recorded[hour] += minutes  # type: ignore[assignment]
    counts: Counter[tuple[str, Hour]] = Counter()
    for row in found:
        if (time := began[row.recording]) is not None:
            at = shifted(time, row.start)
            counts[row.label, (at.date(), at.hour)] += 1
    return Activity(tuple(sorted({row.label for row in found})), recorded, counts, without)


def _beginnings(rows: Iterable[Row], clock: Clock, root: str | None) -> dict[str, datetime | None]:
    began: dict[str, datetime | None] = {}
    for row in rows:
        if row.recording in began:
            continue
        if row.begin_time and clock.search is None:
            try:
                time = datetime.fromisoformat(row.begin_time)
            except ValueError:
                raise ConfigError(f"begin_time={row.begin_time[:60]} is no time; predict again.") from None
            if clock.zone is not None:
                time = time.replace(tzinfo=clock.zone) if time.tzinfo is None else time.astimezone(clock.zone)
            began[row.recording] = shifted(time, -row.start)
        else:
            began[row.recording] = clock.began(row.recording, locate(row.recording, root))
    return began


def _hours(start: datetime, seconds: float) -> Iterable[tuple[Hour, float]]:
    """The hours of the clock that a stretch of time touches, with the minutes in each."""
    left = seconds
    while left > 1e-6:
        into = timedelta(minutes=start.minute, seconds=start.second, microseconds=start.microsecond).total_seconds()
        part = min(left, 3600 - into)
        yield (start.date(), start.hour), part / 60
        start, left = shifted(start, part), left - part
