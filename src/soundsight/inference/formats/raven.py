"""Selection tables of Raven."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from soundsight.inference.formats.base import Context, Writer, plain

if TYPE_CHECKING:
    from soundsight.inference.results import Prediction


class Raven(Writer):
    """A selection table as Raven opens it; as a label track, of one recording and its classes only."""

    name = "raven"
    purpose = "Raven: File, Open Sound Selection Table"
    content = (
        "a selection per segment and sound, with the recording's path; in a folder with `--out`, one file per recording"
    )
    per_recording = ".selections.txt"
    clocked = True
    COLUMNS = (
        "Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)",
        "Begin Path", "Begin File", "File Offset (s)", "Label", "Score",
    )  # fmt: skip

    def __init__(self, stream: IO[bytes], context: Context) -> None:
        super().__init__(stream, context)
        config = context.spectrogram
        self.band = (f"{config.fmin_hz:.1f}", f"{config.fmax:.1f}") if config else ("", "")
        self.count = 0
        self._line((*self.COLUMNS, "Begin Date Time") if context.clock else self.COLUMNS)

    def write(self, segment: Prediction) -> None:
        start, end = f"{segment.start_seconds:.6f}", f"{segment.end_seconds:.6f}"
        path = plain(os.path.abspath(segment.recording))
        file = plain(Path(segment.recording).name)
        clock = self.context.clock
        time = (clock.at(segment.recording, segment.start_seconds),) if clock else ()
        for label, probability in segment.sounds:
            self.count += 1
            of = plain(label), f"{probability:.4f}"
            self._line((str(self.count), "Spectrogram 1", "1", start, end, *self.band, path, file, start, *of, *time))

    def _line(self, values: Sequence[str]) -> None:
        self.stream.write(("\t".join(values) + "\n").encode())
