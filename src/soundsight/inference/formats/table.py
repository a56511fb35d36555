"""Lines for people."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

from soundsight.inference.formats.base import Context, Writer, plain, shorten

if TYPE_CHECKING:
    from soundsight.inference.results import Prediction


class Table(Writer):
    """Lines for people: one per segment, the labels and then the next best classes."""

    name = "table"
    purpose = "a terminal"
    content = "a line per segment: the label, then the next best classes"
    endings = (".txt", "")
    top_k = 5
    made = rb"recording +start s +end s +label"

    def __init__(self, stream: IO[bytes], context: Context) -> None:
        super().__init__(stream, context)
        self.recording = max(9, min(context.widest, 40))
        self.label = min(max(map(len, (*context.names, "unknown"))), 24)
        self._line("recording", "start s", "end s", "label", "prob.", "then" if context.top_k > 1 else "")

    def write(self, segment: Prediction) -> None:
        first, *others = segment.rows(self.context.top_k)
        then = ", ".join(f"{row['label']} {row['probability']:.3f}" for row in others)
        label = ", ".join(name for name, _ in segment.sounds) or segment.label
        probability = "" if segment.silent else f"{first['probability']:.3f}"
        start, end = f"{segment.start_seconds:.2f}", f"{segment.end_seconds:.2f}"
        self._line(shorten(segment.recording, self.recording), start, end, label, probability, then)

    def end(self, recording: str) -> None:
        self.stream.flush()

    def _line(self, recording: str, start: str, end: str, label: str, probability: str, then: str) -> None:
        text = (
            f"{recording:{self.recording}} {start:>9} {end:>9}  "
            f"{plain(label):{self.label}} {probability:>5}  {plain(then)}"
        )
        self.stream.write(f"{text.rstrip()}\n".encode())
