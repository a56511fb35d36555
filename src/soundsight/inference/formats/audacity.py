"""Label tracks of Audacity."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soundsight.inference.formats.base import Writer, plain

if TYPE_CHECKING:
    from soundsight.inference.results import Prediction


class Audacity(Writer):
    """A label track as Audacity imports it: start, end (s) and label, separated by tabs, no header.

    Segments without a sound, "unknown", "background" or "silence", get no label; those with several get one for each.
    """

    name = "audacity"
    purpose = "Audacity: File, Import, Labels"
    content = "start, end, label; in a folder with `--out`, one file per recording"
    per_recording = ".txt"

    def write(self, segment: Prediction) -> None:
        for label, _ in segment.sounds:
            line = f"{segment.start_seconds:.6f}\t{segment.end_seconds:.6f}\t{plain(label)}\n"
            self.stream.write(line.encode())
