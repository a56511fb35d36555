"""Rows of a table file, whatever its encoding, delimiter, quoting or program; nothing here knows what columns mean."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soundsight.errors import DatasetError

MISSING = frozenset({"na", "n/a", "#n/a", "null", "<na>"})  # as R, pandas and Excel write "no value"
_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # .xlsx, .xlsb and .ods; .xls
SHORT = "the row has fewer fields than the header"

Row = list[str | None]


@dataclass(frozen=True)
class Sheet:
    """The content of a table: stripped text, in rows that are padded with `None` where they are short."""

    path: Path
    header: list[str]
    rows: list[tuple[int, Row]]  # with line numbers; without empty rows
    bad: list[tuple[int, str]]  # (line, reason) of rows with another number of fields
    delimiter: str = ""  # empty: a workbook

    def index(self, name: str) -> int:
        """Position of a column."""
        if self.header.count(name) != 1:
            found = "lacks the column" if name not in self.header else "has more than one column"
            raise DatasetError(f"The table {self.path} {found} {name!r}; it has: {self.columns()}.")
        return self.header.index(name)

    def columns(self) -> str:
        """The names of its columns, for messages."""
        return ", ".join(name[:60] for name in self.header[:60] if name) or "nothing"


def read_rows(table: Path, required: Sequence[str], *, delimiter: str = ",") -> list[tuple[int, dict[str, str]]]:
    """Rows of a table with their line numbers, as stripped text; rows without any text are skipped."""
    sheet = _parse(table, text_of(table)[0] or "", delimiter)
    needed = [sheet.index(name) for name in required]
    short = [(line, SHORT) for line, row in sheet.rows if any(row[i] is None for i in needed)]
    for line, reason in sheet.bad + short:
        raise DatasetError(f"{table}, line {line}: {reason}.")
    return [(line, {k: v or "" for k, v in zip(sheet.header, row, strict=True) if k}) for line, row in sheet.rows]


def parse_text(table: Path, text: str, known: Callable[[str], bool]) -> Sheet:
    """A table of any program; the delimiter that gives most columns that are `known` is right."""
    first = text.lstrip("\r\n").partition("\n")[0].partition("\r")[0]
    if stated := re.fullmatch(r'"?sep=(.)"?\s*', first):  # Excel's own first line
        return _parse(table, text.replace(first, "", 1), stated[1])
    if table.suffix.lower() in (".tsv", ".tab"):
        return _parse(table, text, "\t")
    candidates = [",", ";", "\t", *([" "] if first.startswith('"') else [])]  # R parts by spaces

    def hits(delimiter: str) -> tuple[int, int]:
        names = [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]
        return sum(map(known, names)), len(names)

    return _parse(table, text, max(candidates, key=hits))


def _parse(table: Path, text: str, delimiter: str) -> Sheet:
    """Rows of text, with quotation marks taken as quotes only where the rows come out better for it.

    Raven, for one, does not quote, so a mark at the start of a note must not swallow the rows up to the next one.
    """
    plain = _sheet(table, _split(text, delimiter, quoted=False), delimiter)
    if '"' not in text:
        return plain
    try:
        quoted = _sheet(table, _split(text, delimiter, quoted=True), delimiter)
    except csv.Error:
        return plain
    swallows = delimiter == "\t" and any("\n" in (v or "") and "\t" in (v or "") for _, row in quoted.rows for v in row)
    return plain if swallows or _faults(plain) < _faults(quoted) else quoted


def _faults(sheet: Sheet) -> tuple[int, int]:
    return len(sheet.bad) + sum(row[-1] is None for _, row in sheet.rows), -len(sheet.rows)


def _split(text: str, delimiter: str, *, quoted: bool) -> list[tuple[int, list[str]]]:
    if not quoted:
        lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        clean = _unquote if '"' in text else str.strip
        return [(n, list(map(clean, line.split(delimiter)))) for n, line in enumerate(lines, 1) if line]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    return [(reader.line_num, [value.strip() for value in row]) for row in reader]


def _unquote(value: str) -> str:
    value = value.strip()
    return value[1:-1].replace('""', '"').strip() if len(value) > 1 and value[0] == value[-1] == '"' else value


def _sheet(table: Path, lines: Collection[tuple[int, list[str]]], delimiter: str) -> Sheet:
    header, *rest = [(line, row) for line, row in lines if any(row)] or [(0, [])]
    names, width = header[1], len(header[1])
    if delimiter != "," and rest and all(len(row) == width + 1 for _, row in rest):
        rest = [(line, row[1:]) for line, row in rest]  # R's names of rows, which its header leaves out
    rows: list[tuple[int, Row]] = []
    bad = []
    for line, row in rest:
        if any(row[width:]):
            advice = "; decimal commas need another delimiter, such as a semicolon" if delimiter == "," else ""
            bad.append((line, f"the row has {len(row)} fields, but the header names {width}{advice}"))
        else:
            rows.append((line, [*row[:width], *[None] * (width - len(row))]))
    return Sheet(table, names, rows, bad, delimiter)


def read_workbook(table: Path) -> Sheet:
    """The first sheet of a workbook of Excel or LibreOffice.

    By calamine, which also reads .xls and .ods; openpyxl reads .xlsx only, at a tenth of its speed.
    """
    try:
        from python_calamine import CalamineError, CalamineWorkbook
    except ImportError as error:
        raise DatasetError(
            f"{table} is a workbook, which needs the package python-calamine; run pip install "
            '"soundsight[tables]", or save the table as CSV.'
        ) from error
    try:
        sheet = CalamineWorkbook.from_path(str(table)).get_sheet_by_index(0)
        values = sheet.to_python(skip_empty_area=False)
    except (CalamineError, OSError, ValueError, IndexError) as error:
        raise DatasetError(f"The workbook {table} cannot be read ({error}); save the table as CSV.") from error
    return _sheet(table, [(line, [_text(value) for value in row]) for line, row in enumerate(values, 1)], "")


def _text(value: Any) -> str:
    """A cell as the same table would say it in CSV."""
    if isinstance(value, bool):
        return str(value).upper()
    return str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()


def text_of(table: Path) -> tuple[str | None, str]:
    """Text of a table: UTF-8 or UTF-16 with a byte order mark, UTF-8 without, or else the Windows code page 1252.

    `None` for a workbook, whatever its name; and if the code page is a guess, a word that shows it.
    """
    try:
        data = table.read_bytes()
    except OSError as error:
        raise DatasetError(f"The table {table} cannot be read ({error.strerror}).") from error
    if data.startswith(_WORKBOOKS):
        return None, ""
    encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        return data.decode(encoding), ""
    except UnicodeDecodeError:
        text = data.decode("cp1252", errors="replace")
    return text, next(iter(re.findall(r"\w*[^\x00-\x7f]\w*", text)), "")
