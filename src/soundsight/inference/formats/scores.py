"""A wide table of probabilities, as opensoundscape and ecologists' scripts have it."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from soundsight.inference.formats.base import Context, Writer
from soundsight.inference.formats.csv import cell, line, plain_cell

if TYPE_CHECKING:
    from soundsight.inference.results import Prediction

COLUMNS = ("file", "start_time", "end_time")


class Scores(Writer):
    """A CSV with one line per segment and a column per class; times in seconds. In silence all probabilities are 0."""

    name = "scores"
    purpose = "pandas, R and opensoundscape"
    content = "a row per segment: file, start_time and end_time in s, and the probability of each class in its column"
    head = ",".join(COLUMNS).encode() + b","
    made = rb"file,start_time,end_time,"

    @classmethod
    def read(cls, path: Path) -> Iterator[dict[str, Any]]:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.reader(lines, strict=True)
            names = [plain_cell(name) for name in next(reader)[3:]]
            for file, start, end, *values in reader:
                place = {"recording": file, "start": float(start), "end": float(end), "rank": 0}
                for label, value in zip(names, values, strict=True):
                    yield {**place, "label": label, "probability": float(value)}

    def __init__(self, stream: IO[bytes], context: Context) -> None:
        super().__init__(stream, context)
        stream.write(line([*COLUMNS, *(cell(name, "'") for name in context.names)]))

    def write(self, segment: Prediction) -> None:
        values = (f"{value:.6f}" for value in segment.probabilities)
        place = cell(segment.recording, "./"), segment.start_seconds, segment.end_seconds
        self.stream.write(line([*place, *values]))

    def end(self, recording: str) -> None:
        self.stream.flush()
