"""What every output format of predictions has: a `Writer`, and the streams that it writes to.

Rows go out as they come, so ten hours need no more memory than a minute. A file appears under its name when it
is whole, or not at all. Importing this module loads no NumPy, so that `--help` is instant.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar, TextIO

from soundsight.files import CONTROL, replacing

if TYPE_CHECKING:
    from soundsight.audio.clock import Clock
    from soundsight.config import SpectrogramConfig
    from soundsight.inference.results import Prediction, Summary

COLUMNS = ("recording", "start", "end", "label", "probability", "rank", "model", "settings")  # of a row per rank
BEGIN_TIME = "begin_time"  # a last column, if it is asked for: ISO 8601


@dataclass(frozen=True)
class Context:
    """What a writer may need to know of the command and its model."""

    top_k: int = 1
    names: Sequence[str] = ()  # classes of the model
    spectrogram: SpectrogramConfig | None = None
    widest: int = 40  # characters of the longest recording's name
    clock: Clock | None = None  # tells when recordings began, for `BEGIN_TIME`

    @property
    def columns(self) -> tuple[str, ...]:
        """Of a row per rank."""
        return (*COLUMNS, BEGIN_TIME) if self.clock else COLUMNS


class Writer:
    """Takes segments in order, recording after recording. A subclass in a file of its own is a format."""

    name: ClassVar[str]  # as `--format` takes it
    purpose: ClassVar[str]  # one line for the docs: for whom
    content: ClassVar[str]  # one line for the docs: what it holds
    endings: ClassVar[tuple[str, ...]] = ()  # of `--out`, which mean this format
    per_recording: ClassVar[str] = ""  # ending of the file that each recording gets; empty: one file for all
    sharded: ClassVar[bool] = False  # can be put together from the shards of a cluster
    binary: ClassVar[bool] = False  # is not for terminals
    clocked: ClassVar[bool] = False  # can hold the clock time of a row
    top_k: ClassVar[int] = 1  # classes per segment unless asked
    head: ClassVar[bytes] = b""  # what a file begins with that `read` takes; empty: it cannot be read back
    made: ClassVar[bytes] = b""  # pattern of the content of a file that may be replaced; empty: people edit such files

    def __init__(self, stream: IO[bytes], context: Context) -> None:
        self.stream, self.context = stream, context

    @classmethod
    def check(cls) -> None:
        """Raise `ConfigError` if a package that the format needs is missing."""

    @classmethod
    def read(cls, path: Path) -> Iterator[dict[str, Any]]:
        """Rows of a file of this format, which starts with `head`, with the first six of `COLUMNS`; rank 0: not ranked.

        Raises:
            ValueError, KeyError: It holds something else.
        """
        raise NotImplementedError

    def rows(self, segment: Prediction) -> list[dict[str, Any]]:
        """A segment as rows with the columns of the context."""
        rows = segment.rows(self.context.top_k)
        if self.context.clock:
            rows = [{**row, BEGIN_TIME: self.context.clock.at(row["recording"], row["start"])} for row in rows]
        return rows

    def write(self, segment: Prediction) -> None:
        """Take one segment."""
        raise NotImplementedError

    def end(self, recording: str) -> None:
        """No more segments of this recording will come."""

    def close(self, metadata: Mapping[bytes, bytes] | None = None) -> None:
        """Finish what is not written yet; `metadata` is kept by formats that can."""


def write_predictions(
    events: Iterable[Prediction | Summary],
    writer: Writer,
    *,
    summary: bool,
    failed: Callable[[str, str], None],
    ended: Callable[[Summary], None] | None = None,
) -> None:
    """Hand segments, or else summaries, to a writer, which is left open."""
    from soundsight.inference.results import Prediction

    for event in events:
        if isinstance(event, Prediction):
            if not summary:
                writer.write(event)
            continue
        if event.failure:
            failed(event.recording, event.failure)
        if summary and event.counts:
            writer.write(event.as_prediction())
        writer.end(event.recording)
        if ended:
            ended(event)


@contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that takes its place when the block ends well, and vanishes if it does not."""
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
    """The modules pyarrow and pyarrow.parquet."""
    from soundsight.checks import require

    pyarrow = require("pyarrow.parquet", "soundsight[tables]")
    return pyarrow, pyarrow.parquet


def json_line(row: Mapping[str, Any]) -> str:
    """One object as JSON on one line, with control characters escaped, so that none reaches a terminal."""
    return CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(row, ensure_ascii=False))


def plain(text: str) -> str:
    """Text without tabs, line ends and other control characters, for one cell of one line."""
    return "".join(c if c.isprintable() else " " for c in text)


def shorten(text: str, width: int) -> str:
    """Printable text of at most `width` characters: the end of a path tells more than its start."""
    text = plain(text)
    return text if len(text) <= width else "…" + text[-(width - 1) :]
