"""CSV with a header; times in seconds."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from soundsight.files import csv_text, printable
from soundsight.inference.formats.base import COLUMNS, Context, Writer

if TYPE_CHECKING:
    from soundsight.inference.results import Prediction


class Csv(Writer):
    """One line a rank, with a header; times in seconds."""

    name = "csv"
    purpose = "spreadsheets and programs"
    content = (
        "a row per segment and label, more with `--top-k`: recording, start and end in s, label, probability, rank"
    )
    endings = (".csv",)
    sharded = True
    clocked = True
    made = re.escape(",".join(COLUMNS).encode()) + rb"(?:,begin_time)?\n"
    head = ",".join(COLUMNS[:6]).encode()

    @classmethod
    def read(cls, path: Path) -> Iterator[dict[str, Any]]:
        with path.open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines, strict=True):
                numbers = {name: float(row[name]) for name in ("start", "end", "probability")}
                yield {**row, **numbers, "rank": int(row["rank"]), "label": plain_cell(row["label"])}

    def __init__(self, stream: IO[bytes], context: Context) -> None:
        super().__init__(stream, context)
        stream.write(line(context.columns))

    def write(self, segment: Prediction) -> None:
        for row in self.rows(segment):
            row |= {"recording": cell(row["recording"], "./"), "label": cell(row["label"], "'")}
            row["probability"] = f"{row['probability']:.6f}"
            self.stream.write(line(row.values()))

    def end(self, recording: str) -> None:
        self.stream.flush()


def line(values: Iterable[Any]) -> bytes:
    """One line of CSV."""
    return csv_text([values]).encode()


def cell(text: str, guard: str) -> str:
    """A stranger's name as a cell: printable, and `guard` before what a spreadsheet would compute."""
    text = printable(text)
    return f"{guard}{text}" if text.startswith(("=", "+", "-", "@")) else text


def plain_cell(text: str) -> str:
    """The name of a class without the guard that `cell` put before it."""
    return text[1:] if text[:1] == "'" and text[1:2] in ("=", "+", "-", "@") else text
