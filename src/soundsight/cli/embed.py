"""Write one feature vector a segment to a Parquet file, for search and clustering.

soundsight embed last.pt field/ --out field.parquet
soundsight embed last.pt night.flac --hop 1 --out night.parquet
soundsight embed last.pt @list.txt --engine ray --address 10.0.0.1:6379 --out s3://bucket/vectors
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from soundsight.cli import console, engine, outputs
from soundsight.cli.options import Given
from soundsight.cli.predict import (
    input_files,
    list_sources,
    open_predictor,
    progress,
    source_arguments,
)
from soundsight.cli.predict import report_failures as report
from soundsight.config import ClusterConfig
from soundsight.config.commands import EmbedOptions

OPTIONS = EmbedOptions
SETTINGS = (ClusterConfig,)


def run(options: EmbedOptions, given: Given) -> int:
    from soundsight.inference.embeddings import VectorWriter, write_vectors
    from soundsight.inference.formats.base import load_pyarrow, writing
    from soundsight.inference.options import narrowed

    load_pyarrow()
    cluster = engine.cluster_settings(given)
    if cluster.engine == "ray":
        from soundsight.cluster.predictions import gather_vectors

        return engine.predict(given, cluster, source_arguments(options), narrowed(options), gather_vectors)
    console.check_ending(options.out, ".parquet", "")
    sources = list_sources(source_arguments(options), options.raw)
    how = narrowed(options, steady=len(sources) > 1)
    failures: list[str] = []
    inputs = input_files(options, sources)
    with outputs.claimed(options, [options.out], outputs.VECTORS, inputs), ExitStack() as stack:
        predictor = open_predictor(options)
        stream = stack.enter_context(writing(Path(options.out)))
        watched = stack.enter_context(progress(sources, quiet=False))
        writer = VectorWriter(stream, predictor.model)
        write_vectors(watched(predictor.vectors(sources, how)), writer, lambda _, reason: failures.append(reason))
        writer.close()
    console.output(f"{writer.count} vectors of {len(sources) - len(failures)} recordings: {options.out}")
    return report(failures, len(sources))
