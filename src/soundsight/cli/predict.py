"""Predict what is in recordings, and when: one prediction per segment.

soundsight predict last.pt clip.wav
soundsight predict last.pt field/ 'night/*.flac' --format csv --out predictions.csv
soundsight predict last.pt night.flac --hop 1 --threshold 0.5 --threshold dog=0.8 --merge
soundsight predict last.pt night.flac --hop 0.5 --off-threshold 0.3 --min-event 0.5 --min-gap 1  # events
soundsight predict last.pt night.flac --format audacity --out night.txt   # a label track
soundsight predict last.pt field/ --format raven --out tables/            # one file per recording
soundsight predict last.onnx night.flac --summary --timeline night.png
soundsight predict fold1.pt night.flac --with fold2.pt fold3.pt            # the mean of three models
soundsight predict last.pt field/ --tta-shifts 4 --tta-speeds 0.9,1.1     # more accurate, twelve times the work
arecord -f S16_LE -r 16000 -c 1 | soundsight predict last.pt -            # WAV from a pipe
soundsight predict last.pt @list.txt --engine ray --address 10.0.0.1:6379 --out predictions/
nc -l 5000 | soundsight predict last.pt - --raw 16000 --format jsonl      # 16-bit mono, no header
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from soundsight.cli import console, engine, outputs
from soundsight.cli.options import Given
from soundsight.cli.outputs import Timelines, open_writer
from soundsight.config import ClusterConfig
from soundsight.config.commands import PredictOptions, SourceOptions
from soundsight.errors import AudioError, ConfigError, check_range
from soundsight.inference.formats import BY_ENDING, FORMATS

if TYPE_CHECKING:
    from soundsight.config import ClusterConfig
    from soundsight.inference import Prediction, Predictor, Summary
    from soundsight.inference.segments import Source

T = TypeVar("T")

OPTIONS = PredictOptions
SETTINGS = (ClusterConfig,)
CHOICES = {"format": FORMATS}


def run(options: PredictOptions, given: Given) -> int:
    from soundsight.inference.events import merge
    from soundsight.inference.formats.base import write_predictions
    from soundsight.inference.options import narrowed

    chosen = format_of(options.format, options.out)
    cluster = engine.cluster_settings(given)
    if cluster.engine == "ray":
        return run_on_cluster(options, given, cluster, chosen)
    options = replace(options, top_k=options.top_k or FORMATS[chosen].top_k)
    sources = list_sources(source_arguments(options), options.raw)
    how = narrowed(options, steady=len(sources) > 1)
    check_output(chosen, options, len(sources))
    failures: list[str] = []
    stdout = sys.stdout
    with redirect_stdout(sys.stderr), ExitStack() as stack:  # what libraries print is no prediction
        rendered = outputs.own_files(options.timeline, sources, ".png") if options.timeline else {}
        claim_outputs(options, chosen, sources, list(rendered.values()), stack)
        predictor = open_predictor(options)
        predictor.resolve(how)  # complain before anything is written
        timelines = Timelines(rendered, predictor) if rendered else None
        writer = stack.enter_context(open_writer(chosen, options, sources, predictor, stdout))
        watched = stack.enter_context(progress(sources, quiet=options.out is None and stdout.isatty()))
        events: Iterable[Prediction | Summary] = watched(
            predictor.stream(sources, how, callback=timelines.add if timelines else None)
        )
        write_predictions(
            merge(events) if options.merge else events,
            writer,
            summary=options.summary,
            failed=lambda _, reason: failures.append(reason),
            ended=timelines.end if timelines else None,
        )
        writer.close()
    return report_failures(failures, len(sources))


def run_on_cluster(options: PredictOptions, given: Given, cluster: ClusterConfig, chosen: str) -> int:
    """Prediction on a Ray cluster, in shards."""
    from soundsight.cluster.predictions import SHARDED, gather_predictions
    from soundsight.inference.options import narrowed

    if options.with_:
        raise ConfigError("The engine ray predicts with one model; leave --with out, or use the local engine.")
    if options.begin_time:
        raise ConfigError("The engine ray writes no clock times; leave --begin-time out: `activity` finds them, too.")
    if options.timeline or (options.format and chosen not in SHARDED):
        raise ConfigError(
            f"The engine ray writes {', '.join(SHARDED)}, and no timelines; use the local engine for them."
        )
    top_k = options.top_k or 1
    return engine.predict(
        given,
        cluster,
        source_arguments(options),
        narrowed(options, top_k=top_k),
        lambda store, stream: gather_predictions(store, stream, chosen, top_k),
        merge=options.merge,
        summary=options.summary,
    )


def format_of(chosen: str | None, out: str | None) -> str:
    """The format asked for, or the one that the ending of the file means."""
    ending = Path(out or "").suffix.lower()
    return chosen or (BY_ENDING[ending].name if ending in BY_ENDING else "table")


def check_output(chosen: str, options: PredictOptions, count: int) -> None:
    """Raise `ConfigError` before any work if the predictions have nowhere to go."""
    if not options.format and not os.path.isdir(options.out or ""):
        console.check_ending(options.out, *BY_ENDING, instead="name the format with --format")
    if not options.out and getattr(sys.stdout, "name", "") == os.devnull:
        raise ConfigError("Standard output is closed, so the predictions have nowhere to go; name a file with --out.")
    writer = FORMATS[chosen]
    writer.check()
    if options.begin_time:
        from soundsight.audio.clock import Clock

        Clock(options.begin_time, options.timezone)  # complain before any work
        if not writer.clocked:
            names = ", ".join(name for name, writer in FORMATS.items() if writer.clocked)
            raise ConfigError(f"Format {chosen} has no place for --begin-time; {names} have.")
    if writer.binary and not options.out and sys.stdout.isatty():
        raise ConfigError(
            f"{chosen.capitalize()} is not for terminals; name a file with --out FILE{writer.endings[0]}."
        )
    if writer.per_recording:
        if count > 1 and not options.out:
            raise ConfigError(
                f"Format {chosen} makes one file per recording; name a folder for all {count} with --out."
            )
        if count > 1 and Path(options.out or "").is_file():
            raise ConfigError(f"{options.out} is a file, but {count} recordings need a folder; name one with --out.")
    elif options.out and Path(options.out).is_dir():
        raise ConfigError(f"{options.out} is a folder; name a file with --out.")


def claim_outputs(
    options: PredictOptions, chosen: str, sources: list[Source], timelines: list[Path], stack: ExitStack
) -> None:
    """Keep the places of predictions and timelines for this command."""
    inputs = input_files(options, sources)
    if options.out:
        suffix = FORMATS[chosen].per_recording
        paths = list(outputs.own_files(options.out, sources, suffix).values()) if suffix else [Path(options.out)]
        made = outputs.predictions() if FORMATS[chosen].made else None
        stack.enter_context(outputs.claimed(options, paths, made, inputs))
    stack.enter_context(outputs.claimed(options, timelines, outputs.figure(outputs.TIMELINE), inputs))


def input_files(options: SourceOptions, sources: list[Source]) -> list[Any]:
    """All that a command with recordings reads."""
    lists = [word[1:] for word in options.sources if word.startswith("@")]
    models = [options.model, *getattr(options, "with_", ())]
    return [*models, *lists, *options.lists, options.spectrogram, *(source.path for source in sources)]


def open_predictor(options: Any) -> Predictor:
    """Load the model that the arguments name."""
    from soundsight.inference import load

    return load([options.model, *getattr(options, "with_", ())], **load_arguments(options))


def load_arguments(options: Any) -> dict[str, Any]:
    """How a model is loaded: arguments of `soundsight.inference.load`."""
    return {
        "device": options.device,
        "spectrogram": console.own_spectrogram(options),
        "trust_checkpoint": options.trust_checkpoint,
        "threads": getattr(options, "threads", None),
        "runtime": getattr(options, "runtime", "auto"),
    }


def source_arguments(options: SourceOptions) -> list[str]:
    """What names the recordings; lists as `@FILE`."""
    words = [*options.sources, *(f"@{path}" for path in options.lists)]
    if not words:
        raise ConfigError("No recordings are named; add files, folders, @FILE for a list, or - for standard input.")
    return words


def list_sources(words: list[str], raw: int | None) -> list[Source]:
    """The recordings that words mean."""
    from soundsight.audio import MAX_RATE, MIN_RATE
    from soundsight.inference.segments import file_source, pipe_source
    from soundsight.inference.sources import expand

    if "-" in words and (sys.stdin is None or sys.stdin.isatty()):
        raise ConfigError("Standard input is a terminal; pipe a WAV into it, or name a file instead of -.")
    if raw is not None and "-" not in words:
        raise ConfigError("--raw describes standard input; add - to the sources.")
    if raw is not None:
        check_range("--raw", raw, MIN_RATE, MAX_RATE, " Hz")
    files = [file_source(path) for path in expand((word for word in words if word != "-"), lists=True)]
    if not files and "-" not in words:
        raise ConfigError(f"{', '.join(words)[:200]} lists no recordings; write the name of one on each line.")
    return [pipe_source(sys.stdin.buffer, raw_rate=raw), *files] if "-" in words else files


@contextmanager
def progress(sources: list[Source], *, quiet: bool) -> Iterator[Callable[[Iterable[T]], Iterator[T]]]:
    """Count recordings, or the seconds of a single one, as the events of `Predictor` pass by."""
    from soundsight import audio

    one = len(sources) == 1
    total: float | None = len(sources)
    if one and not quiet and sys.stderr.isatty():
        total = None
        with suppress(AudioError):
            total = audio.probe(sources[0].name).duration_seconds
    with console.progress_bar("predicting", "s" if one else "recordings", quiet=quiet) as bar:

        def watched(events: Iterable[T]) -> Iterator[T]:
            done = 0
            for event in events:
                seconds = getattr(event, "duration_seconds", None)  # of a recording that has ended
                done += seconds is not None
                bar(round(getattr(event, "end_seconds", seconds or 0)) if one else done, total)
                yield event

        yield watched


def report_failures(failures: list[str], count: int) -> int:
    """List recordings that could not be read; the exit code."""
    what = f"of {count} recordings could not be read"
    return console.list_failures([("", reason) for reason in failures], what, "the rest is predicted", None)
