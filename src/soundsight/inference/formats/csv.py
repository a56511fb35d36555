"""CSV with a header; times in seconds."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any

from soundsight.files import printable
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
    made = re.escape(",".join(COLUMNS).encode()) + rb"\n"

    def __init__(self, stream: IO[bytes], context: Context) -> None:
        super().__init__(stream, context)
        self._line(COLUMNS)

    def write(self, segment: Prediction) -> None:
        """See `Writer`."""
        for row in segment.rows(self.context.top_k):
            row |= {"recording": _cell(row["recording"], "./"), "label": _cell(row["label"], "'")}
            self._line([f"{value:.6f}" if key == "probability" else value for key, value in row.items()])

    def end(self, recording: str) -> None:
        """See `Writer`."""
        self.stream.flush()

    def _line(self, values: Sequence[Any]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(values)
        self.stream.write(text.getvalue().encode())


def _cell(text: str, guard: str) -> str:
    """A stranger's name as a cell: printable, and `guard` before what a spreadsheet would compute."""
    text = printable(text)
    return f"{guard}{text}" if text.startswith(("=", "+", "-", "@")) else text
