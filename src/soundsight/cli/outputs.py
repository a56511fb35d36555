"""Where the answers of `soundsight predict` go: the writer of each format, a file or folder, timelines."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from soundsight.cli import console
from soundsight.files import folded

if TYPE_CHECKING:
    from soundsight.predict import Listener, Summary, Window
    from soundsight.predict.pipeline import Drawn
    from soundsight.predict.windows import Source
    from soundsight.predict.writers import Writer


class Timelines:
    """Draws one picture a recording."""

    def __init__(self, path: str, count: int, listener: Listener) -> None:
        self.path = Path(path)
        self.folder = count > 1 or self.path.is_dir()
        if not self.folder:
            console.check_ending(path, *console.FIGURES)
        self.config = listener.spectrogram
        self.taken: set[str] = set()
        self._start()

    def _start(self) -> None:
        from soundsight.predict.timeline import Timeline

        self.current = Timeline(self.config)

    def add(self, window: Window, drawn: Drawn) -> None:
        """Take a window and its picture."""
        self.current.add(window, drawn)

    def end(self, summary: Summary) -> None:
        """Draw what was gathered, unless nothing was."""
        from soundsight.report.pictures import draw_timeline

        if self.current.windows:
            path = self.path / own_name(summary.recording, ".png", self.taken) if self.folder else self.path
            classes = self.current.classes()
            draw_timeline(
                self.current.levels(summary.duration_seconds),
                self.current.scores(classes),
                classes,
                self.config,
                path,
                summary.duration_seconds,
                title=Path(summary.recording).name,
            )
        self._start()


class _OneEach:
    """A label track or selection table of its own for each recording, in a folder."""

    def __init__(self, folder: Path, make: Callable[[Any], Writer], suffix: str) -> None:
        self.folder, self.make, self.suffix = folder, make, suffix
        self.taken: set[str] = set()
        self.stack = ExitStack()
        self.writer: Writer | None = None

    def write(self, window: Window) -> None:
        self._open(window.recording).write(window)

    def end(self, recording: str) -> None:
        self._open(recording)
        self.stack.close()
        self.writer = None

    def close(self) -> None:
        self.stack.close()

    def _open(self, recording: str) -> Writer:
        from soundsight.predict.writers import writing

        if self.writer is None:
            name = own_name(recording, self.suffix, self.taken)
            self.writer = self.make(self.stack.enter_context(writing(self.folder / name)))
        return self.writer


@contextmanager
def open_writer(
    chosen: str, arguments: argparse.Namespace, sources: list[Source], listener: Listener, stdout: TextIO
) -> Iterator[Writer]:
    """The writer of a format, on standard output, a file or a folder."""
    from soundsight.predict import writers

    out = Path(arguments.out) if arguments.out else None
    top_k = arguments.top_k
    if chosen in ("audacity", "raven"):
        make: Any = writers.AudacityWriter
        if chosen == "raven":
            make = lambda stream: writers.RavenWriter(stream, listener.spectrogram)  # noqa: E731
        if out is not None and (len(sources) > 1 or out.is_dir()):
            suffix = writers.RavenWriter.suffix if chosen == "raven" else writers.AudacityWriter.suffix
            each = _OneEach(out, make, suffix)
            with each.stack:
                yield each
            return
        with writers.output(out, stdout) as stream:
            yield make(stream)
        return
    with writers.output(out, stdout) as stream:
        if chosen == "csv":
            yield writers.CsvWriter(stream, top_k)
        elif chosen == "jsonl":
            yield writers.JsonLinesWriter(stream, top_k)
        elif chosen == "parquet":
            yield writers.ParquetWriter(stream, top_k)
        else:
            widest = max(len(source.name) for source in sources)
            yield writers.TableWriter(stream, top_k, widest=widest, names=listener.names)


def own_name(recording: str, suffix: str, taken: set[str]) -> str:
    """A file name for what belongs to a recording; recordings of one name get numbers."""
    stem = "stdin" if recording == "-" else Path(recording).stem
    name, number = f"{stem}{suffix}", 2
    while folded(name) in taken:
        name, number = f"{stem}-{number}{suffix}", number + 1
    taken.add(folded(name))
    return name
