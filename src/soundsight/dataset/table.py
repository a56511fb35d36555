"""Tables of clips: CSV and TSV, Raven selection tables and Audacity label tracks.

A row is one clip. Rows that cannot be used are listed as failures with their line; a table that cannot be
used as a whole is an error.
"""

from __future__ import annotations

import glob
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from soundsight.audio import is_audio
from soundsight.config import DatasetConfig
from soundsight.dataset.catalogue import Catalogue, Clip, read_rows, read_text
from soundsight.errors import ConfigError, DatasetError

RAVEN_START, RAVEN_END, RAVEN_OFFSET = "Begin Time (s)", "End Time (s)", "File Offset (s)"
RAVEN_FILES = ("Begin Path", "Begin File")


@dataclass(frozen=True)
class _Columns:
    """Which column says what; empty: none does."""

    label: str
    files: tuple[str, ...]  # the first one that leads to a file counts; none: the recording beside the table
    fold: str = ""
    group: str = ""
    start: str = ""
    end: str = ""
    offset: str = ""  # Raven: start within the file, where `start` counts from the first file of a sequence

    @property
    def required(self) -> list[str]:
        named = (self.label, *self.files, self.fold, self.group, self.start, self.end, self.offset)
        return [name for name in named if name]


class _Recording(NamedTuple):
    path: Path  # absolute
    file: str  # relative to root, or absolute where it lies elsewhere
    name: str  # for pictures


class _BadRow(Exception):
    """Why a row, or a table without recordings, is not usable."""


def read_table(root: Path, config: DatasetConfig) -> Catalogue:
    """List the clips of one table, or of several by a pattern such as `labels/*.txt`.

    Args:
        root: What file names and `config.table` are relative to; files are also looked for beside the table.
        config: Names of the table and of its columns. Raven's own columns for times and files are known.

    Returns:
        The clips. Without start and end they are whole recordings, to be cut after the split.

    Raises:
        ConfigError: No table is named.
        DatasetError: A table or a column is missing, or a fold is not a whole number.
    """
    if not config.table:
        raise ConfigError("kind=table needs table=FILE, a CSV or TSV file with one row a clip, relative to root.")
    root = Path(os.path.normpath(root.absolute()))
    clips: list[Clip] = []
    failures: list[tuple[str, str]] = []
    whole = not (config.start_column or config.end_column)
    for table in _tables(root, config.table):
        delimiter, columns = _format(table, config)
        whole = whole and columns is not None and not columns.start
        try:
            if columns is None:
                _read_audacity(table, root, clips, failures)
            else:
                _Reader(table, root, columns, delimiter).read(clips, failures)
        except _BadRow as reason:
            failures.append((_relative(str(table), root), str(reason)))
    return Catalogue(Path(config.table).stem, clips, failures=failures, whole_recordings=whole)


def _tables(root: Path, name: str) -> list[Path]:
    table = root / name
    if table.is_file() or not any(c in name for c in "*?["):
        return [table]
    found = sorted(Path(path) for path in glob.glob(str(table), recursive=True) if os.path.isfile(path))
    if not found:
        raise DatasetError(f"No table matches table={name!r} in {root}.")
    return found


def _format(table: Path, config: DatasetConfig) -> tuple[str, _Columns | None]:
    """The delimiter, and the columns; no columns for an Audacity label track."""
    first = read_text(table).lstrip("\r\n").partition("\n")[0].strip("\r\n")
    fields = first.split("\t")
    if len(fields) > 1 and None not in (_number(fields[0], "\t"), _number(fields[1], "\t")):
        return "\t", None
    if RAVEN_START in fields and RAVEN_END in fields:
        files = tuple(name for name in (config.file_column, *RAVEN_FILES) if name in fields)
        offset = RAVEN_OFFSET if RAVEN_OFFSET in fields and not config.start_column else ""
        start, end = config.start_column or RAVEN_START, config.end_column or RAVEN_END
        return "\t", _Columns(config.label_column, files, config.fold_column, config.group_column, start, end, offset)
    columns = _Columns(
        config.label_column,
        (config.file_column,),
        config.fold_column,
        config.group_column,
        config.start_column,
        config.end_column,
    )
    if table.suffix.lower() in (".tsv", ".tab"):
        return "\t", columns
    return max((",", ";", "\t"), key=lambda delimiter: _hits(first, delimiter, columns.required)), columns


def _hits(header: str, delimiter: str, wanted: list[str]) -> tuple[int, int]:
    names = [name.strip().strip('"') for name in header.split(delimiter)]
    return sum(name in names for name in wanted), len(names)


class _Reader:
    """One CSV, TSV or Raven table on its way to clips."""

    def __init__(self, table: Path, root: Path, columns: _Columns, delimiter: str) -> None:
        self.table, self.root, self.columns, self.delimiter = table, root, columns, delimiter
        self.located: dict[str, _Recording | None] = {}

    def read(self, clips: list[Clip], failures: list[tuple[str, str]]) -> None:
        """Append the clips and failures of the table."""
        beside = None if self.columns.files else _beside(self.table, self.root)
        raven = self.columns.start == RAVEN_START
        seen: set[tuple[str, str, float, float | None]] = set()
        for line, row in read_rows(self.table, self.columns.required, delimiter=self.delimiter):
            fold = self._fold(row, line)
            source = row[self.columns.group] if self.columns.group else ""
            try:
                recording = beside or self._locate(row)
                clip = _clip(recording, row[self.columns.label], *self._times(row), fold, source)
            except _BadRow as reason:
                name = next((row[column] for column in self.columns.files if row[column]), self.table.name)
                failures.append((name, f"{self.table.name}, line {line}: {reason}"))
                continue
            if (key := (clip.file, clip.label, clip.start_seconds, clip.end_seconds)) not in seen:
                seen.add(key)
                clips.append(clip)
            elif not raven:  # which writes a selection once for each view that shows it
                failures.append((recording.file, f"{self.table.name}, line {line}: the row repeats another"))

    def _fold(self, row: Mapping[str, str], line: int) -> int | None:
        text = row[self.columns.fold] if self.columns.fold else ""
        if text == "":
            return None
        try:
            value = float(text)  # spreadsheets and pandas write 1 as 1.0
            if value == int(value):
                return int(value)
        except (ValueError, OverflowError):
            pass
        raise DatasetError(
            f"{self.table}, line {line}: {self.columns.fold}={text!r} is not a fold; folds are whole numbers."
        )

    def _locate(self, row: Mapping[str, str]) -> _Recording:
        names = [row[column] for column in self.columns.files if row[column]]
        if not names:
            raise _BadRow("no file is named")
        for name in names:
            if name not in self.located:
                self.located[name] = _find(name, self.table, self.root)
            if found := self.located[name]:
                return found
        raise _BadRow(f"the file {names[0]} does not exist")

    def _times(self, row: Mapping[str, str]) -> tuple[float, float | None]:
        columns = self.columns
        start = self._seconds(row, columns.start)
        end = self._seconds(row, columns.end)
        offset = self._seconds(row, columns.offset)
        if offset is not None:
            end = None if end is None or start is None else end - start + offset
            start = offset
        return start or 0.0, end

    def _seconds(self, row: Mapping[str, str], column: str) -> float | None:
        text = row[column] if column else ""
        if text == "":
            return None
        value = _number(text, self.delimiter)
        if value is None:
            raise _BadRow(f"{column}={text!r} is not a number of seconds")
        return value


def _read_audacity(table: Path, root: Path, clips: list[Clip], failures: list[tuple[str, str]]) -> None:
    """Append the regions of a label track: start, end and label, tab-separated, without a header."""
    recording = _beside(table, root)
    for line, text in _lines(read_text(table)):
        fields = [field.strip() for field in text.split("\t", 2)]
        start, end, label = (*fields, "", "")[:3]
        start_seconds, end_seconds = _number(start, "\t"), _number(end, "\t")
        try:
            if start_seconds is None or end_seconds is None:
                raise _BadRow("the line does not begin with two numbers of seconds")
            if start_seconds == end_seconds:
                raise _BadRow(f"the label {label!r} marks a point, but a clip needs a start and an end")
            clips.append(_clip(recording, label, start_seconds, end_seconds))
        except _BadRow as reason:
            failures.append((recording.file, f"{table.name}, line {line}: {reason}"))


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with their numbers; without empty ones and the frequency ranges of spectral labels."""
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1):
        if line.strip() and not line.startswith("\\"):
            yield number, line


def _clip(
    recording: _Recording,
    label: str,
    start: float,
    end: float | None,
    fold: int | None = None,
    source: str = "",
) -> Clip:
    if not label:
        raise _BadRow("the label is empty")
    if start < 0:
        raise _BadRow(f"the start, {start:g} s, is negative")
    if end is not None and end <= start:
        raise _BadRow(f"the end, {end:g} s, is not after the start, {start:g} s")
    return Clip(
        path=recording.path,
        file=recording.file,
        label=label,
        name=recording.name if start == 0 and end is None else f"{recording.name}@{start:.1f}",
        source=source or recording.file,
        fold=fold,
        start_seconds=round(start, 6),
        end_seconds=None if end is None else round(end, 6),
    )


def _find(name: str, table: Path, root: Path) -> _Recording | None:
    """A recording by the name that a table gives it, seen from the root or from beside the table.

    Of an absolute path that does not exist here (Raven writes those), the bare name counts.
    """
    slashed = name.replace("\\", "/")
    candidates = [name, slashed]
    if slashed.startswith("/") or slashed[1:3] == ":/":
        candidates.append(slashed.rpartition("/")[2])
    for folder in (str(root), str(table.parent)):
        for candidate in dict.fromkeys(candidates):
            path = os.path.join(folder, candidate)
            if os.path.isfile(path):
                return _recording(os.path.normpath(path), root)
    return None


def _beside(table: Path, root: Path) -> _Recording:
    """The recording that a label file describes: the one beside it with the same stem."""
    stems = {table.stem, table.name.partition(".Table.")[0], table.name.partition(".selections.")[0]}
    found = sorted(p for p in table.parent.iterdir() if p.stem in stems and is_audio(p) and p.is_file())
    if len(found) != 1:
        which = f"there are {found[0].name} and {found[1].name}" if found else "there is none"
        raise _BadRow(f"it names no recordings, so one of its name must lie beside it, but {which}")
    return _recording(str(found[0]), root)


def _recording(path: str, root: Path) -> _Recording:
    file = _relative(path, root)
    inside = file if not os.path.isabs(file) else os.path.basename(file)
    return _Recording(Path(path), file, os.path.splitext(inside)[0].replace("/", "_"))


def _relative(path: str, root: Path) -> str:
    """`path` seen from `root` with forward slashes; as it is where it lies elsewhere."""
    inside = path[len(str(root)) + 1 :] if path.startswith(f"{root}{os.sep}") else path
    return inside.replace(os.sep, "/")


def _number(text: str, delimiter: str) -> float | None:
    """A finite number; where the comma does not part columns, it may be the decimal point."""
    try:
        value = float(text.replace(",", ".") if delimiter != "," else text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
