"""`soundsight embed`."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path

from soundsight.cli import console, engine, outputs
from soundsight.cli.predict import (
    add_source_arguments,
    input_files,
    list_sources,
    make_options,
    open_predictor,
    progress,
    source_arguments,
)
from soundsight.cli.predict import report_failures as report

SUMMARY = "Write one feature vector a segment to a Parquet file, for search and clustering."
EXAMPLES = [
    "soundsight embed last.pt field/ --out field.parquet",
    "soundsight embed last.pt night.flac --hop 1 --out night.parquet",
    "soundsight embed last.pt @list.txt --engine ray --address 10.0.0.1:6379 --out s3://bucket/vectors",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare arguments."""
    add_source_arguments(parser)
    parser.add_argument("--out", metavar="FILE", required=True, help="the Parquet file to write; whole or not at all")
    outputs.add_overwrite(parser)
    engine.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Embed."""
    from soundsight.inference.embeddings import VectorWriter
    from soundsight.inference.formats.base import load_pyarrow, writing
    from soundsight.inference.results import Vector

    load_pyarrow()
    cluster = engine.cluster_settings(arguments)
    if cluster.engine == "ray":
        from soundsight.cluster.gather import gather_vectors

        code = engine.outlive(arguments, cluster)
        if code is not None:
            return code
        return engine.answer(arguments, cluster, source_arguments(arguments), make_options(arguments), gather_vectors)
    console.check_ending(arguments.out, ".parquet", "")
    sources = list_sources(source_arguments(arguments), arguments.raw)
    options = make_options(arguments, steady=len(sources) > 1)
    failures, segments = [], 0
    inputs = input_files(arguments, sources)
    with outputs.claimed(arguments, [arguments.out], outputs.VECTORS, inputs), ExitStack() as stack:
        predictor = open_predictor(arguments)
        stream = stack.enter_context(writing(Path(arguments.out)))
        watched = stack.enter_context(progress(sources, quiet=False))
        writer = VectorWriter(stream, predictor.model)
        for event in watched(predictor.vectors(sources, options)):
            if isinstance(event, Vector):
                writer.write(event)
                segments += 1
            elif event.failure:
                failures.append(event.failure)
        writer.close()
    console.output(f"{segments} vectors of {len(sources) - len(failures)} recordings: {arguments.out}")
    return report(failures, len(sources))
