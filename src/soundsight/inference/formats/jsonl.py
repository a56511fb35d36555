"""JSON Lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soundsight.inference.formats.base import Writer, json_line

if TYPE_CHECKING:
    from soundsight.inference.results import Prediction


class JsonLines(Writer):
    """One JSON object a rank."""

    name = "jsonl"
    purpose = "programs, line by line"
    content = "a JSON object per row of the CSV"
    endings = (".jsonl",)
    sharded = True
    clocked = True
    made = rb'\{"recording": ".*"probability": .*"settings": "'

    head = b'{"recording": '

    @classmethod
    def read(cls, path: Path) -> Iterator[dict[str, Any]]:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)

    def write(self, segment: Prediction) -> None:
        for row in self.rows(segment):
            self.stream.write(json_line(row).encode() + b"\n")
        self.stream.flush()
