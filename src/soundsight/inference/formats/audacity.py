"""Label tracks of Audacity."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soundsight.inference.formats.base import Writer, plain

if TYPE_CHECKING:
    from soundsight.inference.results import Window


class Audacity(Writer):
    """A label track as Audacity imports it: start, end (s) and label, separated by tabs, no header.

    Windows without a class, "unknown" or "silence", get no label.
    """

    name = "audacity"
    purpose = "Audacity: File, Import, Labels"
    content = "start, end, label; in a folder with `--out`, one file per recording"
    per_recording = ".txt"

    def write(self, window: Window) -> None:
        """See `Writer`."""
        if window.named:
            line = f"{window.start_seconds:.6f}\t{window.end_seconds:.6f}\t{plain(window.label)}\n"
            self.stream.write(line.encode())
