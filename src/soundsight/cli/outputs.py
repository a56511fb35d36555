"""Where outputs go: the one rule for what a command may replace, and the writer of each format of predictions."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from itertools import count
from os.path import isdir
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from soundsight import files
from soundsight.cli import console
from soundsight.files import folded

if TYPE_CHECKING:
    from soundsight.inference import Prediction, Predictor, Summary
    from soundsight.inference.formats.base import Writer
    from soundsight.inference.pipeline import Rendered
    from soundsight.inference.segments import Source


# What may lie in the place of an output and be replaced: an earlier output of the same command, by its content.
VECTORS = re.compile(rb"\APAR1.*soundsight\.model.*PAR1\Z", re.DOTALL)
EXPLAIN, TIMELINE, GALLERY = "Soundsight explain", "Soundsight predict", "Soundsight prepare"  # creators of figures
REPORT, SURVEY = (
    re.compile(rb'\A<!doctype html>.*<meta name="generator" content="Soundsight %b">' % command, re.DOTALL)
    for command in (b"report", b"inspect")
)


def figure(creator: str) -> re.Pattern[bytes]:
    """A figure whose metadata name this creator."""
    start = rb"\A(?:\x89PNG.*Software\0|%PDF.*/Creator \(|<\?xml.*<dc:title>)"
    return re.compile(start + re.escape(creator.encode()), re.DOTALL)


def claimed(
    arguments: Any, paths: Sequence[str | Path], made: re.Pattern[bytes] | None, inputs: Iterable[Any]
) -> AbstractContextManager[None]:
    """Keep output files in one folder for this command, see `files.claimed`.

    Inputs are files, folders of files, or `None`. Any recording in the place of an output counts as one, too.
    """
    from soundsight.audio import is_audio

    given = [Path(word) for word in (*inputs, *filter(is_audio, map(Path, paths))) if word is not None]
    within = [file for folder in given if isdir(folder) for file in folder.iterdir()]
    return files.claimed(paths, made, inputs=[*given, *within], overwrite=arguments.overwrite)


def own_files(place: str | Path, sources: Sequence[Source], suffix: str) -> dict[str, Path]:
    """Where what belongs to each recording goes: `place` itself, or with several recordings a file in it."""
    taken: set[str] = set()
    if len(sources) == 1 and not Path(place).is_dir():
        return {sources[0].name: Path(place)}
    return {source.name: Path(place) / own_name(source.name, suffix, taken) for source in sources}


def predictions() -> re.Pattern[bytes]:
    """What predictions that may be replaced begin with, in whatever format; see `Writer.made`."""
    from soundsight.inference.formats import FORMATS

    return re.compile(
        rb"\A(?:" + rb"|".join(writer.made for writer in FORMATS.values() if writer.made) + rb")", re.DOTALL
    )


class Timelines:
    """Plots one image per recording."""

    def __init__(self, paths: dict[str, Path], predictor: Predictor) -> None:
        from soundsight.inference.timeline import Timeline

        self.paths, self.config = paths, predictor.spectrogram
        if len(paths) == 1:
            console.check_ending(str(*paths.values()), *console.FIGURES)
        self.start = partial(Timeline, self.config)
        self.current = self.start()

    def add(self, segment: Prediction, rendered: Rendered) -> None:
        """Take a segment and its image."""
        self.current.add(segment, rendered)

    def end(self, summary: Summary) -> None:
        """Render what was gathered, unless nothing was."""
        from soundsight.reports.spectrograms import plot_timeline

        found, self.current = self.current, self.start()
        if not found.predictions:
            return
        classes, name = found.classes(), summary.recording
        plot_timeline(
            found.levels(summary.duration_seconds),
            found.scores(classes),
            classes,
            self.config,
            self.paths[name],
            summary.duration_seconds,
            title=Path(name).name,
            creator=TIMELINE,
        )


class _OneEach:
    """A `Writer` that gives each recording a file of its own, in a folder."""

    def __init__(self, paths: dict[str, Path], make: Callable[[Any], Writer]) -> None:
        self.paths, self.make = paths, make
        self.stack = ExitStack()
        self.writer: Writer | None = None

    def write(self, segment: Prediction) -> None:
        self._open(segment.recording).write(segment)

    def end(self, recording: str) -> None:
        self._open(recording)
        self.close()

    def close(self) -> None:
        self.stack.close()
        self.writer = None

    def _open(self, recording: str) -> Writer:
        from soundsight.inference.formats.base import writing

        if self.writer is None:
            self.writer = self.make(self.stack.enter_context(writing(self.paths[recording])))
        return self.writer


@contextmanager
def open_writer(
    chosen: str, arguments: Any, sources: list[Source], predictor: Predictor, stdout: TextIO
) -> Iterator[Writer]:
    """The writer of a format, on standard output, a file or a folder."""
    from soundsight.audio.clock import Clock
    from soundsight.inference.formats import FORMATS
    from soundsight.inference.formats.base import Context, output

    out = Path(arguments.out) if arguments.out else None
    widest = max(len(source.name) for source in sources)
    clock = Clock(arguments.begin_time, arguments.timezone) if arguments.begin_time else None
    context = Context(arguments.top_k, predictor.names, predictor.spectrogram, widest, clock)
    make = FORMATS[chosen]
    if make.per_recording and out is not None and (len(sources) > 1 or out.is_dir()):
        each = _OneEach(own_files(out, sources, make.per_recording), lambda stream: make(stream, context))
        with each.stack:
            yield cast("Writer", each)
        return
    with output(out, stdout) as stream:
        yield make(stream, context)


def own_name(recording: str, suffix: str, taken: set[str]) -> str:
    """A file name of at most 255 bytes for what belongs to a recording; recordings of one name get numbers."""
    stem = os.fsencode("stdin" if recording == "-" else Path(recording).stem)
    for number in count(1):
        end = suffix if number == 1 else f"-{number}{suffix}"
        room = 255 - len(end)
        name = (os.fsdecode(stem) if len(stem) <= room else stem[:room].decode(errors="ignore")) + end
        if folded(name) not in taken:
            break
    taken.add(folded(name))
    return name
