"""Reading: tables of labels become clips.

A row is one clip, or one label of a recording that is cut later. Rows, and tables among several, that cannot be used
are listed as failures with their line; what cannot be used as a whole is an error.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from soundsight.config import BACKGROUND, DatasetConfig
from soundsight.datasets.catalogue import Catalogue, Clip
from soundsight.datasets.split import split_name
from soundsight.datasets.tables import layouts as _layouts  # noqa: F401  (they register themselves)
from soundsight.datasets.tables.layout import LAYOUTS, Columns, choose, known, marked, number, resolve, scale_of
from soundsight.datasets.tables.recordings import BadRow, Recording, Recordings
from soundsight.datasets.tables.rows import MISSING, SHORT, Row, Sheet, parse_text, read_workbook, text_of
from soundsight.errors import ConfigError, DatasetError
from soundsight.files import matching

_NO_LABEL = MISSING | {"nan"}


def read_table(root: Path, config: DatasetConfig) -> Catalogue:
    """List the clips of one table, or of several by a pattern such as `labels/*.txt`.

    File names and `config.table` are relative to `root`; files are also looked for beside the table. Clips without any
    times are whole recordings, to be cut after the split.
    """
    if not config.table:
        raise ConfigError("kind=table needs table=FILE, a CSV or TSV file with one row per clip, relative to root.")
    root = Path(os.path.normpath(root.absolute()))
    recordings = Recordings(root)
    paths = _paths(root, config.table)
    tables, failures, errors = [], [], list[DatasetError]()
    for path in paths:
        try:
            tables.append(_understand(path, config, recordings))
        except (BadRow, DatasetError) as error:
            errors += [error] if isinstance(error, DatasetError) else []
            failures.append((recordings.relative(path), str(error)))
    if errors and not tables:
        raise errors[0]
    timed = any(table.timed for table in tables)
    for table in tables:  # all names first: that two of them lead to one file is known only then
        for _, row in table.sheet.rows:
            with suppress(BadRow):
                table.locate(row)
    clips: list[Clip] = []
    for table in tables:
        table.read(clips, failures, timed=timed)
    unmarked = sum(table.unmarked for table in tables)
    name = paths[0].stem if len(paths) == 1 and paths[0] == root / config.table else root.name
    notes = list(dict.fromkeys(table.described for table in tables))[:5]
    if unmarked:
        notes.append(
            f"Rows that mark no class and are left out: {unmarked} (annotated=complete makes them background)."
        )
    if guessed := [table.guessed for table in tables if table.guessed]:
        notes.append(
            f"Tables that are not UTF-8, read as Windows code page 1252: {len(guessed)}; if words such as "
            f"{guessed[0]!r} look wrong, save them as UTF-8."
        )
    if timed:
        if clips and not any(clip.labels for clip in clips):
            raise DatasetError(
                f"Nothing is annotated: the tables of {len(clips)} recordings, such as {clips[0].file}, hold no label; "
                "add recordings that hold a sound of some class."
            )
        return Catalogue(name, clips, failures=failures, notes=notes, cutting=config)
    clips = _merged(clips, config)
    several = sum(len(clip.labels) > 1 for clip in clips)
    if several:
        notes.append(f"Multi-label data: {several} of {len(clips)} recordings have several classes.")
    else:
        clips = [clip if clip.label else replace(clip, label=BACKGROUND) for clip in clips]
    return Catalogue(name, clips, failures=failures, whole_recordings=True, notes=notes, multi=several > 0)


def _merged(rows: list[Clip], config: DatasetConfig) -> list[Clip]:
    """One clip per recording, with the classes of all its rows."""
    found: dict[str, Clip] = {}
    for row in rows:
        other = found.setdefault(row.file, row)
        if other is row:
            continue
        if config.labels == "single":
            raise DatasetError(
                f"One row calls {row.file} {other.label!r} and another {row.label!r}, but labels=single allows one "
                "class per clip; use labels=multi, or correct one of the two rows."
            )
        first, *further = sorted({*other.labels, *row.labels})
        found[row.file] = replace(other, label=first, further_labels=tuple(further))
    return list(found.values())


def read_labels(paths: Iterable[Path], recordings: Recordings) -> tuple[dict[str, list[Clip]], list[tuple[str, str]]]:
    """Labels by recording, none of one whose table is empty; and (table, reason) of rows and tables of no use."""
    labels: dict[str, list[Clip]] = {}
    failures: list[tuple[str, str]] = []
    config = DatasetConfig(annotated="complete")  # a row that marks no class says that nothing is there
    for path in paths:
        try:
            table = _understand(path, config, recordings)
        except (BadRow, DatasetError) as reason:
            failures.append((path.name, str(reason)))
            continue
        if table.beside:
            labels.setdefault(table.beside.file, [])
        clips: list[Clip] = []
        table.read(clips, failures, timed=table.timed)
        for clip in clips:
            named = [replace(clip, label=label, further_labels=()) for label in clip.labels if label != BACKGROUND]
            labels.setdefault(clip.file, []).extend(named)
    return labels, failures


def _paths(root: Path, name: str) -> list[Path]:
    table = root / name
    if os.path.isfile(table) or not any(c in name for c in "*?["):
        return [table]
    found = sorted(root / path for path in matching(name, str(root)) if os.path.isfile(root / path))
    if not found:
        raise DatasetError(f"No table matches table={name!r} in {root}.")
    return found


def _understand(path: Path, config: DatasetConfig, recordings: Recordings) -> _Table:
    """Read a table and find its columns."""
    text, guessed = text_of(path)
    for layout in LAYOUTS:
        if text is not None and layout.parse and (parsed := layout.parse(text, path.suffix.lower())):
            sheet = Sheet(path, list(layout.header), *parsed, "\t")
            columns = resolve(sheet, DatasetConfig(), layout, beside=True)
            return _Table(sheet, columns, recordings.beside(path), recordings, config, guessed)
    wanted = {value for key, value in vars(config).items() if key.endswith("_column")}
    sheet = read_workbook(path) if text is None else parse_text(path, text, lambda name: name in wanted or known(name))
    layout, beside = choose(sheet.header), None
    with suppress(BadRow):
        beside = recordings.beside(path)
    columns = resolve(sheet, config, layout, beside=beside is not None)
    if columns.files and not (columns.timed and not sheet.rows and not sheet.bad):  # an empty one names nothing
        beside = None
    elif beside is None:
        recordings.beside(path)  # raises
    table = _Table(sheet, columns, beside, recordings, config, guessed)
    files = {names[-1] for _, row in sheet.rows if (names := table.names(row))}
    if layout.sequence and columns.offset is None and not config.start_column and len(files) > 1:
        raise DatasetError(f"The table {path} {layout.sequence}.")
    return table


def _value(row: Row, column: int | None) -> str:
    """A field; empty where it is missing or says so."""
    text = None if column is None else row[column]
    if not text:
        return ""
    return "" if len(text) < 5 and text.casefold() in MISSING else text


@dataclass
class _Table:
    """A table that is understood, on its way to clips."""

    sheet: Sheet
    columns: Columns
    beside: Recording | None  # what it describes where it names no files
    recordings: Recordings
    config: DatasetConfig
    guessed: str = ""  # a word that depends on the guess of the encoding
    unmarked: int = 0  # rows without a class

    @property
    def timed(self) -> bool:
        """Whether it says where in recordings labels are, or that there are none."""
        columns, rows = self.columns, [row for _, row in self.sheet.rows]
        times = any(_value(row, columns.start) or _value(row, columns.end) for row in rows)
        nothing = columns.label is not None and not any(_value(row, columns.label) for row in rows)
        return columns.timed and (times or nothing or not rows)

    @property
    def described(self) -> str:
        """What was understood of it, for people."""
        columns, header = self.columns, self.sheet.header
        if columns.layout.parse:
            return f"Read as {columns.layout.title}."
        label = "one class per column" if columns.label is None else f"labels in {header[columns.label]!r}"
        start = columns.offset if columns.offset is not None else columns.start
        times = [repr(header[i]) for i in (start, columns.end, columns.duration) if i is not None]
        return f"Read as {columns.layout.title}: {label}, {'times in ' + ', '.join(times) if times else 'no times'}."

    def names(self, row: Row) -> list[str]:
        """Names of a row's recording, the best one first."""
        return [
            "/".join(part for part in (*(_value(row, i) for i in folders), _value(row, file)) if part)
            for *folders, file in self.columns.files
            if _value(row, file)
        ]

    def locate(self, row: Row) -> Recording:
        """The recording of a row."""
        if self.beside:
            return self.beside
        found = [self.recordings.find(name, self.sheet.path, self.columns.layout.below) for name in self.names(row)]
        for recording in found:
            if isinstance(recording, Recording):
                return recording
        raise BadRow(*found[:1] or ["no file is named"])

    def read(self, clips: list[Clip], failures: list[tuple[str, str]], *, timed: bool) -> None:
        """Append the clips and failures; `timed`: rows without a label say that their recording holds nothing."""
        columns, path = self.columns, self.sheet.path
        told = (columns.label, columns.start, columns.end, columns.duration, columns.offset)
        self.telling = [i for i in told if i is not None] if timed and columns.timed and told[0] is not None else []
        self.scales = [scale_of(name) for name in self.sheet.header]
        seen: set[tuple[str | float | None, ...]] = set()
        file = self.beside.file if self.beside else path.name
        failed = [(line, file, reason) for line, reason in self.sheet.bad]
        for line, row in self.sheet.rows:
            try:
                clip = self._clip(row, line)
                if clip is None:
                    self.unmarked += 1
                    continue
                key = (clip.file, clip.label, *clip.further_labels, clip.start_seconds, clip.end_seconds)
                if key not in seen:
                    seen.add(key)
                    clips.append(clip)
                elif not columns.layout.repeats:
                    raise BadRow("the row repeats another")
            except BadRow as reason:
                failed.append((line, next(iter(self.names(row)), file), str(reason)))
        failures += [(name, f"{path.name}, line {line}: {reason}") for line, name, reason in sorted(failed)]
        if self.beside and not self.sheet.rows and not self.sheet.bad:
            clips.append(self._made(self.beside, 0.0, None, []))

    def _clip(self, row: Row, line: int) -> Clip | None:
        """The clip of a row; `None` where it marks no class."""
        columns = self.columns
        fold = self._fold(row, line)
        if None in row and any(row[i] is None for i in (columns.label, columns.start, columns.end) if i is not None):
            raise BadRow(SHORT)
        recording = self.locate(row)
        nothing = bool(self.telling and not row[self.telling[0]]) and not any(_value(row, i) for i in self.telling)
        labels = [] if nothing else self._labels(row)
        if not labels and not nothing and self.config.annotated != "complete":
            return None
        start, end = (0.0, None) if nothing else self._times(row)
        if rivals := self.recordings.rivals(recording):
            raise BadRow(
                f"{' and '.join(sorted(rivals)[:2])} would both be {recording.file}, so it is not certain which"
            )
        clip = self._made(recording, start, end, labels)
        group, split = _value(row, columns.group), split_name(_value(row, columns.split))
        return replace(clip, fold=fold, source=group or recording.file, split=split)

    def _made(self, recording: Recording, start: float, end: float | None, labels: Sequence[str]) -> Clip:
        return Clip(
            path=recording.path,
            file=recording.file,
            label=labels[0] if labels else "",
            name=recording.name if start == 0 and end is None else f"{recording.name}@{start:.1f}",
            source=recording.file,
            start_seconds=round(start, 6),
            end_seconds=None if end is None else round(end, 6),
            further_labels=tuple(labels[1:]),
        )

    def _labels(self, row: Row) -> list[str]:
        """The classes of a row; where there is one column per class, possibly none."""
        columns = self.columns
        if columns.label is None:
            labels = [self.sheet.header[i] for i in columns.classes if marked(row[i])]
        else:
            text = row[columns.label] or ""
            labels = [part.strip() for part in re.split("[,;]", text)] if columns.several else [text]
        if len(labels) > 1 and self.config.labels == "single":
            raise BadRow(f"the clip has several labels ({', '.join(labels)}), but labels=single allows one")
        if "" in labels:
            raise BadRow("the label is empty")
        if columns.label is not None and (missing := [x for x in labels if x.casefold() in _NO_LABEL]):
            raise BadRow(f"the label {missing[0]!r} stands for a missing value")
        labels = [unicodedata.normalize("NFC", label) for label in labels]
        return labels if len(labels) == 1 else sorted(set(labels))

    def _fold(self, row: Row, line: int) -> int | None:
        text = _value(row, self.columns.fold)
        if self.columns.fold is None or text == "":
            return None
        try:
            value = float(text)  # spreadsheets and pandas write 1 as 1.0
            if value == int(value):
                return int(value)
        except (ValueError, OverflowError):
            pass
        column = self.sheet.header[self.columns.fold]
        raise DatasetError(f"{self.sheet.path}, line {line}: {column}={text!r} is not a fold; folds are whole numbers.")

    def _times(self, row: Row) -> tuple[float, float | None]:
        """Start and end of a row's clip in its recording, in seconds."""
        columns = self.columns
        start, end, offset = (self._seconds(row, i) for i in (columns.start, columns.end, columns.offset))
        if end is None and start is not None and (duration := self._seconds(row, columns.duration)) is not None:
            end = start + duration
        if start is None and end is None and columns.timed and columns.layout.header:
            raise BadRow("the row has no times")
        if offset is not None:
            end = None if end is None or start is None else end - start + offset
            start = offset
        start = start or 0.0
        if start < 0:
            raise BadRow(f"the start, {start:g} s, is negative")
        if end == start and columns.layout.parse:
            raise BadRow(f"the label {row[-1]!r} marks a point, but a clip needs a start and an end")
        if end is not None and end <= start:
            raise BadRow(f"the end, {end:g} s, is not after the start, {start:g} s")
        return start, end

    def _seconds(self, row: Row, column: int | None) -> float | None:
        text = _value(row, column)
        if column is None or text == "":
            return None
        value = number(text, self.sheet.delimiter)
        if value is None:
            raise BadRow(f"{self.sheet.header[column]}={text!r} is not a number of seconds")
        return value * self.scales[column]
