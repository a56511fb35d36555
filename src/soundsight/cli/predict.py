"""`soundsight predict`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from soundsight.cli import console, engine, outputs
from soundsight.cli.outputs import Timelines, open_writer
from soundsight.errors import AudioError, ConfigError, check_range
from soundsight.inference.formats import BY_ENDING, FORMATS

if TYPE_CHECKING:
    from soundsight.config import ClusterConfig
    from soundsight.inference import Options, Prediction, Predictor, Summary
    from soundsight.inference.segments import Source

T = TypeVar("T")

SUMMARY = "Predict what is in recordings, and when: one prediction per segment."
EXAMPLES = [
    "soundsight predict last.pt clip.wav",
    "soundsight predict last.pt field/ 'night/*.flac' --format csv --out predictions.csv",
    "soundsight predict last.pt night.flac --hop 1 --threshold 0.5 --threshold dog=0.8 --merge",
    "soundsight predict last.pt night.flac --format audacity --out night.txt   # a label track",
    "soundsight predict last.pt field/ --format raven --out tables/            # one file per recording",
    "soundsight predict last.onnx night.flac --summary --timeline night.png",
    "soundsight predict fold1.pt night.flac --with fold2.pt fold3.pt            # the mean of three models",
    "soundsight predict last.pt field/ --shifts 4 --speeds 0.9,1.1             # more accurate, twelve times the work",
    "arecord -f S16_LE -r 16000 -c 1 | soundsight predict last.pt -            # WAV from a pipe",
    "soundsight predict last.pt @list.txt --engine ray --address 10.0.0.1:6379 --out predictions/",
    "nc -l 5000 | soundsight predict last.pt - --raw 16000 --format jsonl      # 16-bit mono, no header",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare arguments."""
    add_source_arguments(parser)
    parser.add_argument("--format", choices=tuple(FORMATS), help="default: by the ending of --out, or else table")
    parser.add_argument("--out", metavar="FILE", help="write here instead of standard output; whole or not at all")
    parser.add_argument("--top-k", type=int, metavar="K", help="classes per segment (default: 1; of a table 5)")
    parser.add_argument(
        "--threshold",
        action="append",
        default=[],
        metavar="P",
        help="a top class below P is 'unknown'; CLASS=P for one class; may be repeated (default: the model's, if any)",
    )
    parser.add_argument("--merge", action="store_true", help="join neighbouring segments of one label")
    add_members(parser)
    console.add_tta(parser)
    parser.add_argument("--summary", action="store_true", help="one prediction per recording: the mean of its segments")
    parser.add_argument(
        "--timeline",
        metavar="PNG",
        help="render spectrogram and class tracks; with several recordings a folder",
    )
    outputs.add_overwrite(parser)
    engine.add_arguments(parser)


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """Accept a model, recordings, and how to cut them."""
    parser.add_argument("model", help="a checkpoint .pt, or an exported .onnx or OpenVINO folder")
    parser.add_argument(
        "sources",
        nargs="*",
        metavar="source",
        help="files, folders, globs, @FILE for a list of recordings, or - for standard input",
    )
    parser.add_argument(
        "--sources", dest="lists", action="append", default=[], metavar="FILE", help="the same as @FILE"
    )
    parser.add_argument("--raw", type=int, metavar="RATE", help="standard input is 16-bit mono of this rate in Hz")
    parser.add_argument("--window", type=float, metavar="S", help="seconds a segment (default: the model's clip)")
    parser.add_argument("--hop", type=float, metavar="S", help="seconds between segments (default: the segment)")
    parser.add_argument("--batch", type=int, metavar="N", help="segments at once (default: 8, on a GPU 32)")
    parser.add_argument("--threads", type=int, metavar="N", help="processor threads (default: all)")
    add_runtime(parser)
    console.add_model_options(parser)


def add_runtime(parser: argparse.ArgumentParser) -> None:
    """Accept what computes the predictions of a checkpoint."""
    parser.add_argument(
        "--runtime",
        choices=("auto", "pytorch", "onnxruntime"),
        default="auto",
        help="what computes a checkpoint's predictions (default: auto, ONNX Runtime on a processor if it agrees)",
    )


def add_members(parser: argparse.ArgumentParser) -> None:
    """Accept further models to average with."""
    parser.add_argument(
        "--with",
        dest="members",
        nargs="+",
        action="extend",
        default=[],
        metavar="MODEL",
        help="further models, of the same classes and spectrogram settings, to be averaged; put it last",
    )


def run(arguments: argparse.Namespace) -> int:
    """Prediction."""
    from soundsight.inference.formats.base import write_predictions
    from soundsight.inference.results import merge

    chosen = format_of(arguments.format, arguments.out)
    cluster = engine.cluster_settings(arguments)
    if arguments.top_k is None:
        arguments.top_k = FORMATS[chosen].top_k if cluster.engine == "local" else 1
    if cluster.engine == "ray":
        return run_on_cluster(arguments, cluster, chosen)
    sources = list_sources(source_arguments(arguments), arguments.raw)
    options = make_options(
        arguments,
        top_k=arguments.top_k,
        threshold=parse_thresholds(arguments.threshold),
        shifts=arguments.shifts,
        speeds=arguments.speeds,
        steady=len(sources) > 1,
    )
    check_output(chosen, arguments, len(sources))
    failures: list[str] = []
    stdout = sys.stdout
    with redirect_stdout(sys.stderr), ExitStack() as stack:  # what libraries print is no prediction
        rendered = outputs.own_files(arguments.timeline, sources, ".png") if arguments.timeline else {}
        claim_outputs(arguments, chosen, sources, list(rendered.values()), stack)
        predictor = open_predictor(arguments)
        predictor.resolve(options)  # complain before anything is written
        timelines = Timelines(rendered, predictor) if rendered else None
        writer = stack.enter_context(open_writer(chosen, arguments, sources, predictor, stdout))
        watched = stack.enter_context(progress(sources, quiet=arguments.out is None and stdout.isatty()))
        events: Iterable[Prediction | Summary] = watched(
            predictor.stream(sources, options, callback=timelines.add if timelines else None)
        )
        write_predictions(
            merge(events) if arguments.merge else events,
            writer,
            summary=arguments.summary,
            failed=lambda _, reason: failures.append(reason),
            ended=timelines.end if timelines else None,
        )
        writer.close()
    return report_failures(failures, len(sources))


def run_on_cluster(arguments: argparse.Namespace, cluster: ClusterConfig, chosen: str) -> int:
    """Prediction on a Ray cluster, in shards."""
    from soundsight.cluster.gather import SHARDED, gather_predictions

    if arguments.members:
        raise ConfigError("The engine ray predicts with one model; leave --with out, or use the local engine.")
    code = engine.outlive(arguments, cluster)
    if code is not None:
        return code
    if arguments.timeline or (arguments.format and chosen not in SHARDED):
        raise ConfigError(
            f"The engine ray writes {', '.join(SHARDED)}, and no timelines; use the local engine for them."
        )
    options = make_options(
        arguments,
        top_k=arguments.top_k,
        threshold=parse_thresholds(arguments.threshold),
        shifts=arguments.shifts,
        speeds=arguments.speeds,
    )
    return engine.answer(
        arguments,
        cluster,
        source_arguments(arguments),
        options,
        lambda store, stream: gather_predictions(store, stream, chosen, arguments.top_k),
        merge=arguments.merge,
        summary=arguments.summary,
    )


def format_of(chosen: str | None, out: str | None) -> str:
    """The format asked for, or the one that the ending of the file means."""
    ending = Path(out or "").suffix.lower()
    return chosen or (BY_ENDING[ending].name if ending in BY_ENDING else "table")


def check_output(chosen: str, arguments: argparse.Namespace, count: int) -> None:
    """Raise `ConfigError` before any work if the predictions have nowhere to go."""
    if not arguments.format and not os.path.isdir(arguments.out or ""):
        console.check_ending(arguments.out, *BY_ENDING, instead="name the format with --format")
    if not arguments.out and getattr(sys.stdout, "name", "") == os.devnull:
        raise ConfigError("Standard output is closed, so the predictions have nowhere to go; name a file with --out.")
    writer = FORMATS[chosen]
    writer.check()
    if writer.binary and not arguments.out and sys.stdout.isatty():
        raise ConfigError(
            f"{chosen.capitalize()} is not for terminals; name a file with --out FILE{writer.endings[0]}."
        )
    if writer.per_recording:
        if count > 1 and not arguments.out:
            raise ConfigError(
                f"Format {chosen} makes one file per recording; name a folder for all {count} with --out."
            )
        if count > 1 and Path(arguments.out).is_file():
            raise ConfigError(f"{arguments.out} is a file, but {count} recordings need a folder; name one with --out.")
    elif arguments.out and Path(arguments.out).is_dir():
        raise ConfigError(f"{arguments.out} is a folder; name a file with --out.")


def claim_outputs(
    arguments: argparse.Namespace, chosen: str, sources: list[Source], timelines: list[Path], stack: ExitStack
) -> None:
    """Keep the places of predictions and timelines for this command.

    Raises:
        ConfigError: Something would be lost there.
    """
    inputs = input_files(arguments, sources)
    if arguments.out:
        suffix = FORMATS[chosen].per_recording
        paths = list(outputs.own_files(arguments.out, sources, suffix).values()) if suffix else [Path(arguments.out)]
        made = outputs.predictions() if FORMATS[chosen].made else None
        stack.enter_context(outputs.claimed(arguments, paths, made, inputs))
    stack.enter_context(outputs.claimed(arguments, timelines, outputs.figure(outputs.TIMELINE), inputs))


def input_files(arguments: argparse.Namespace, sources: list[Source]) -> list[Any]:
    """All that a command with recordings reads."""
    lists = [word[1:] for word in arguments.sources if word.startswith("@")] + arguments.lists
    models = [arguments.model, *getattr(arguments, "members", [])]
    return [*models, *lists, arguments.spectrogram, *(source.path for source in sources)]


def open_predictor(arguments: argparse.Namespace) -> Predictor:
    """Load the model that the arguments name."""
    from soundsight import config as settings
    from soundsight.config.files import find_config
    from soundsight.inference import load

    supplied = arguments.spectrogram
    return load(
        [arguments.model, *getattr(arguments, "members", [])],
        device=arguments.device,
        spectrogram=settings.load(settings.SpectrogramConfig, find_config(supplied)) if supplied else None,
        trust=arguments.trust_checkpoint,
        threads=getattr(arguments, "threads", None),
        runtime=getattr(arguments, "runtime", "auto"),
    )


def make_options(arguments: argparse.Namespace, **more: Any) -> Options:
    """Options of prediction from the arguments that all commands share."""
    from soundsight.inference import Options

    return Options(window_seconds=arguments.window, hop_seconds=arguments.hop, batch=arguments.batch, **more)


def source_arguments(arguments: argparse.Namespace) -> list[str]:
    """What names the recordings; lists as `@FILE`.

    Raises:
        ConfigError: Nothing does.
    """
    words = [*arguments.sources, *(f"@{path}" for path in arguments.lists)]
    if not words:
        raise ConfigError("No recordings are named; add files, folders, @FILE for a list, or - for standard input.")
    return words


def list_sources(words: list[str], raw: int | None) -> list[Source]:
    """The recordings that words mean.

    Raises:
        ConfigError: Standard input is a terminal, --raw is given without it, or a list is empty.
    """
    from soundsight.audio import MAX_RATE, MIN_RATE
    from soundsight.inference.segments import file_source, pipe_source
    from soundsight.inference.sources import expand_arguments

    if "-" in words and (sys.stdin is None or sys.stdin.isatty()):
        raise ConfigError("Standard input is a terminal; pipe a WAV into it, or name a file instead of -.")
    if raw is not None and "-" not in words:
        raise ConfigError("--raw describes standard input; add - to the sources.")
    if raw is not None:
        check_range("--raw", raw, MIN_RATE, MAX_RATE, " Hz")
    files = [file_source(path) for path in expand_arguments(word for word in words if word != "-")]
    if not files and "-" not in words:
        raise ConfigError(f"{', '.join(words)[:200]} lists no recordings; write the name of one on each line.")
    return [pipe_source(sys.stdin.buffer, raw_rate=raw), *files] if "-" in words else files


def parse_thresholds(words: list[str]) -> dict[str, float]:
    """Least probabilities by class; "" is for all others, which else get the model's own.

    Raises:
        ConfigError: A word is neither a number nor CLASS=number.
    """
    found = {}
    for word in words:
        name, _, value = word.rpartition("=")
        try:
            found[name] = float(value)
        except ValueError:
            raise ConfigError(
                f"--threshold {word} is not understood; write a number from 0 to 1, or CLASS=NUMBER."
            ) from None
    return found


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
    for failure in failures:
        console.status(f"  failed: {failure}")
    if failures:
        console.status(f"soundsight: {len(failures)} of {count} recordings could not be read; the rest is predicted.")
    return 1 if failures else 0
