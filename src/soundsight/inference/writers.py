"""Answers as files and tables: what is written of each window, in which format.

Rows go out as they come, so ten hours need no more memory than a minute. A file appears under its name
when it is whole, or not at all.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, ClassVar, Protocol, TextIO

from soundsight.config import SpectrogramConfig
from soundsight.errors import ConfigError
from soundsight.files import CONTROL, printable, replacing
from soundsight.inference.options import UNKNOWN
from soundsight.inference.results import ROW_COLUMNS, Summary, Window

ROW_GROUP = 20_000  # rows of Parquet that are written at once


class Writer(Protocol):
    """Takes windows in order, recording after recording."""

    def write(self, window: Window) -> None:
        """Take one window."""

    def end(self, recording: str) -> None:
        """No more windows of this recording will come."""

    def close(self) -> None:
        """Finish what is not written yet."""


def write_answers(
    events: Iterable[Window | Summary],
    writer: Writer,
    *,
    summary: bool,
    failed: Callable[[str, str], None],
    ended: Callable[[Summary], None] | None = None,
) -> None:
    """Hand windows, or else summaries, to a writer, which is left open.

    Args:
        events: Windows, and a summary at the end of each recording.
        writer: Takes them.
        summary: Write one answer a recording.
        failed: Told (recording, reason) of what could not be read.
        ended: Told of each recording's summary.
    """
    for event in events:
        if isinstance(event, Window):
            if not summary:
                writer.write(event)
            continue
        if event.failure:
            failed(event.recording, event.failure)
        if summary and event.counts:
            writer.write(event.as_window())
        writer.end(event.recording)
        if ended:
            ended(event)


class CsvWriter:
    """One line a rank, with a header; times in seconds."""

    def __init__(self, stream: IO[bytes], top_k: int) -> None:
        self.stream = stream
        self.top_k = top_k
        self._line(ROW_COLUMNS)

    def write(self, window: Window) -> None:
        """See `Writer`."""
        for row in window.rows(self.top_k):
            row |= {"recording": _cell(row["recording"], "./"), "label": _cell(row["label"], "'")}
            self._line([f"{value:.6f}" if key == "probability" else value for key, value in row.items()])

    def end(self, recording: str) -> None:
        """See `Writer`."""
        self.stream.flush()

    def close(self) -> None:
        """See `Writer`."""

    def _line(self, values: Sequence[Any]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(values)
        self.stream.write(text.getvalue().encode())


def _cell(text: str, guard: str) -> str:
    """A stranger's name as a cell: printable, and `guard` before what a spreadsheet would compute."""
    text = printable(text)
    return f"{guard}{text}" if text.startswith(("=", "+", "@")) else text


def json_line(row: Mapping[str, Any]) -> str:
    """One object as JSON on one line, with control characters escaped, so that none reaches a terminal."""
    return CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(row, ensure_ascii=False))


class JsonLinesWriter:
    """One JSON object a rank."""

    def __init__(self, stream: IO[bytes], top_k: int) -> None:
        self.stream = stream
        self.top_k = top_k

    def write(self, window: Window) -> None:
        """See `Writer`."""
        for row in window.rows(self.top_k):
            self.stream.write(json_line(row).encode() + b"\n")
        self.stream.flush()

    def end(self, recording: str) -> None:
        """See `Writer`."""

    def close(self) -> None:
        """See `Writer`."""


class TableWriter:
    """Lines for people: one a window, the label and then the next best classes."""

    def __init__(self, stream: IO[bytes], top_k: int, *, widest: int, names: Sequence[str]) -> None:
        self.stream = stream
        self.top_k = top_k
        self.recording = max(9, min(widest, 40))
        self.label = min(max(map(len, (*names, UNKNOWN))), 24)
        self._line("recording", "start s", "end s", "label", "prob.", "then" if top_k > 1 else "")

    def write(self, window: Window) -> None:
        """See `Writer`."""
        first, *others = window.rows(self.top_k)
        then = ", ".join(f"{row['label']} {row['probability']:.3f}" for row in others)
        probability = "" if window.silent else f"{first['probability']:.3f}"
        start, end = f"{window.start_seconds:.2f}", f"{window.end_seconds:.2f}"
        self._line(shorten(window.recording, self.recording), start, end, first["label"], probability, then)

    def end(self, recording: str) -> None:
        """See `Writer`."""
        self.stream.flush()

    def close(self) -> None:
        """See `Writer`."""

    def _line(self, recording: str, start: str, end: str, label: str, probability: str, then: str) -> None:
        text = (
            f"{recording:{self.recording}} {start:>9} {end:>9}  "
            f"{plain(label):{self.label}} {probability:>5}  {plain(then)}"
        )
        self.stream.write(f"{text.rstrip()}\n".encode())


class ParquetWriter:
    """Columns as in CSV; needs pyarrow."""

    def __init__(self, stream: IO[bytes], top_k: int) -> None:
        pyarrow, parquet = load_pyarrow()
        types = {"start": pyarrow.float64(), "end": pyarrow.float64(), "probability": pyarrow.float32()}
        types["rank"] = pyarrow.int32()
        self.schema = pyarrow.schema([(name, types.get(name, pyarrow.string())) for name in ROW_COLUMNS])
        self.table = pyarrow.Table
        self.file = parquet.ParquetWriter(stream, self.schema, compression="zstd")
        self.top_k = top_k
        self.rows: list[dict[str, Any]] = []
        self.count = 0  # of all rows

    def write(self, window: Window) -> None:
        """See `Writer`."""
        rows = window.rows(self.top_k)
        self.rows += rows
        self.count += len(rows)
        if len(self.rows) >= ROW_GROUP:
            self._flush()

    def end(self, recording: str) -> None:
        """See `Writer`."""

    def close(self, metadata: Mapping[bytes, bytes] | None = None) -> None:
        """See `Writer`; `metadata` goes into the file's own."""
        self._flush()
        if metadata:
            self.file.add_key_value_metadata(metadata)
        self.file.close()

    def _flush(self) -> None:
        if self.rows:
            self.file.write_table(self.table.from_pylist(self.rows, schema=self.schema))
        self.rows = []


class AudacityWriter:
    """A label track as Audacity imports it: start, end (s) and label, separated by tabs, no header.

    Windows without a class, "unknown" or "silence", get no label.
    """

    suffix: ClassVar[str] = ".txt"

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream

    def write(self, window: Window) -> None:
        """See `Writer`."""
        if window.named:
            line = f"{window.start_seconds:.6f}\t{window.end_seconds:.6f}\t{plain(window.label)}\n"
            self.stream.write(line.encode())

    def end(self, recording: str) -> None:
        """See `Writer`."""

    def close(self) -> None:
        """See `Writer`."""


class RavenWriter:
    """A selection table as Raven opens it; as a label track, of one recording and its classes only."""

    suffix: ClassVar[str] = ".selections.txt"
    COLUMNS = (
        "Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)",
        "Begin Path", "Begin File", "File Offset (s)", "Label", "Score",
    )  # fmt: skip

    def __init__(self, stream: IO[bytes], config: SpectrogramConfig) -> None:
        self.stream = stream
        self.band = f"{config.fmin_hz:.1f}", f"{config.fmax:.1f}"
        self.count = 0
        self._line(self.COLUMNS)

    def write(self, window: Window) -> None:
        """See `Writer`."""
        if not window.named:
            return
        self.count += 1
        start, end = f"{window.start_seconds:.6f}", f"{window.end_seconds:.6f}"
        path = plain(os.path.abspath(window.recording))
        file = plain(Path(window.recording).name)
        score = f"{window.probability:.4f}"
        self._line(
            (
                str(self.count),
                "Spectrogram 1",
                "1",
                start,
                end,
                *self.band,
                path,
                file,
                start,
                plain(window.label),
                score,
            )
        )

    def end(self, recording: str) -> None:
        """See `Writer`."""

    def close(self) -> None:
        """See `Writer`."""

    def _line(self, values: Sequence[str]) -> None:
        self.stream.write(("\t".join(values) + "\n").encode())


@contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that takes its place when the block ends well, and vanishes if it does not.

    Raises:
        ConfigError: The place cannot be written.
    """
    if path.exists() and not path.is_file() and not path.is_dir():  # /dev/stdout, a named pipe
        with open(path, "wb") as stream:
            yield stream
        return
    with replacing(path) as draft, open(draft, "wb") as stream:
        yield stream


@contextmanager
def output(out: Path | None, stdout: TextIO) -> Iterator[IO[bytes]]:
    """A file, see `writing`, or else `stdout`, as UTF-8 whatever the terminal's encoding."""
    if out is not None:
        with writing(out) as stream:
            yield stream
        return
    stdout.flush()
    yield stdout.buffer
    stdout.buffer.flush()


def load_pyarrow() -> tuple[Any, Any]:
    """The modules pyarrow and pyarrow.parquet.

    Raises:
        ConfigError: They are not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError(
            'Parquet needs the package pyarrow, which is not installed; run pip install "soundsight[tables]".'
        ) from error
    return pyarrow, pyarrow.parquet


def plain(text: str) -> str:
    """Text without tabs, line ends and other control characters, for one cell of one line."""
    return "".join(c if c.isprintable() else " " for c in text)


def shorten(text: str, width: int) -> str:
    """Printable text of at most `width` characters: the end of a path tells more than its start."""
    text = plain(text)
    return text if len(text) <= width else "…" + text[-(width - 1) :]
