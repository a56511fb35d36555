"""Clips of detections as sound files, one folder per class."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import soundfile

from soundsight import audio
from soundsight.datasets.names import folder_names, safe_name
from soundsight.errors import AudioError, ConfigError
from soundsight.evaluation.predicted import Row
from soundsight.files import csv_text, folded, replacing, write_text
from soundsight.inference.formats.csv import cell
from soundsight.review.detections import Detections

MANIFEST = "clips.csv"
COLUMNS = ("clip", "recording", "start", "end", "label", "probability", "clip_start", "clip_end")


def write_clips(
    detections: Detections,
    rows: Sequence[Row],
    folder: str | Path,
    *,
    padding_seconds: float = 0.0,
    ending: str = ".wav",
    progress: Callable[[int, float | None], None] = lambda done, total: None,
) -> tuple[int, list[str]]:
    """Cut detections out of their recordings, at the recording's own rate, mono, 24 bits.

    Each recording is read once, in the order of time.

    Args:
        detections: The table.
        rows: Those of its rows that are cut out.
        folder: Where to; what its manifest lists is replaced.
        padding_seconds: More sound before and after each.
        ending: ".wav" or ".flac".
        progress: Called with the number of clips that are done.

    Returns:
        How many clips were written, and a message for each that could not be. The manifest is written last.
    """
    folder = Path(folder)
    _remove_former(folder)
    folders = folder_names(sorted({row.label for row in rows}))
    taken: set[str] = set()
    manifest: list[tuple[Any, ...]] = []
    failures: list[str] = []
    for done, row in enumerate(sorted(rows, key=lambda row: row[:4]), 1):
        begin = max(0.0, row.start - padding_seconds)
        try:
            samples, rate = stretch(detections.files[row.recording], begin, row.end + padding_seconds)
        except AudioError as error:
            failures.append(str(error))
            continue
        name = _name(folders[row.label], row, ending, taken)
        with replacing(folder / name) as draft:
            soundfile.write(draft, samples, rate, subtype="PCM_24", format=ending[1:].upper())
        place = f"{begin:.6f}", f"{begin + len(samples) / rate:.6f}"
        manifest.append((name, cell(row.recording, "./"), row.start, row.end, cell(row.label, "'"), row[4], *place))
        progress(done, len(rows))
    write_text(folder / MANIFEST, csv_text([COLUMNS, *manifest]))
    return len(manifest), failures


def stretch(path: Path, start: float, end: float) -> tuple[audio.Waveform, int]:
    """Samples `(n,)` of a recording between two times in seconds, and its rate in Hz.

    Raises:
        AudioError: Nothing of it is there.
    """
    with audio.recording(path) as opened:
        rate = opened.info.sample_rate
        return opened.read(sample_rate=rate, start_seconds=start, duration_seconds=end - start), rate


def _name(folder: str, row: Row, ending: str, taken: set[str]) -> str:
    """`<class>/<recording>@<start>-<end>_<score>.wav`, with a number where two recordings share a name."""
    stem = safe_name(Path(row.recording.replace("\\", "/")).stem)
    for number in count(1):
        end = f"@{row.start:.1f}-{row.end:.1f}_{row.probability:.3f}{f'~{number}' if number > 1 else ''}{ending}"
        name = f"{folder}/{stem}{end}"
        if folded(name) not in taken:
            taken.add(folded(name))
            return name
    raise AssertionError


def _remove_former(folder: Path) -> None:
    """Delete the clips that an earlier run listed, so that the manifest is the truth."""
    if not (folder / MANIFEST).is_file():
        return
    with open(folder / MANIFEST, encoding="utf-8", newline="") as lines:
        reader = csv.DictReader(lines)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ConfigError(f"{folder / MANIFEST} was not written by `clips`; name a new folder.")
        names = [Path(row["clip"]) for row in reader]
    (folder / MANIFEST).unlink()
    for name in names:
        if len(name.parts) == 2 and ".." not in name.parts and not name.is_absolute():
            (folder / name).unlink(missing_ok=True)
