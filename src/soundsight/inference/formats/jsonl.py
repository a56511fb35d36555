"""JSON Lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    made = rb'\{"recording": ".*"probability": .*"settings": "'

    def write(self, segment: Prediction) -> None:
        """See `Writer`."""
        for row in segment.rows(self.context.top_k):
            self.stream.write(json_line(row).encode() + b"\n")
        self.stream.flush()
