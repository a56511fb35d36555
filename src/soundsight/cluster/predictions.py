"""`predict` and `embed` on a cluster: each worker loads the model once and writes shard after shard.

A worker calls what the local commands call, with the same options, so the predictions are the same bytes.
"""

from __future__ import annotations

import io
import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Any

from soundsight import audio
from soundsight.audio import AudioInfo, Waveform
from soundsight.cluster import shards, storage, tasks
from soundsight.cluster.connect import Cluster
from soundsight.cluster.shards import Entry, Shard, Shards
from soundsight.config import ClusterConfig
from soundsight.errors import ModelError, SoundsightError
from soundsight.inference.embeddings import VectorWriter, write_vectors
from soundsight.inference.formats import FORMATS
from soundsight.inference.formats.base import Context, write_predictions
from soundsight.inference.options import Options
from soundsight.inference.results import Model, Vector
from soundsight.inference.segments import BLOCK_SECONDS, Source, file_source
from soundsight.parallel import WorkerLost

SHARDED = tuple(name for name, writer in FORMATS.items() if writer.sharded)


@dataclass
class Worker:
    """Makes shards; what it must know for that travels to each worker once."""

    command: str  # predict or embed
    model: str  # path, as the user wrote it
    content: bytes | None  # of the model file; None for a folder, which must be seen under its name
    how: dict[str, Any]  # arguments of `inference.load`
    options: Options
    out: str  # where shards go
    job: str  # the job's hash
    merge: bool = False
    summary: bool = False

    def load(self) -> None:
        """Load the model, and what is loaded with the first recording, before time counts."""
        import numpy as np

        from soundsight.inference import load

        with tempfile.TemporaryDirectory(prefix="soundsight-") as folder:
            path = Path(self.model)
            if self.content is not None:
                path = Path(folder, path.name)
                path.write_bytes(self.content)
            try:
                self.predictor = load(path, **self.how)
                if self.command == "embed":
                    side = self.predictor.spectrogram.image_size
                    self.size = int(self.predictor.classifier.features(np.zeros((1, side, side, 3), np.uint8)).shape[1])
            except ModelError as error:
                raise ModelError(str(error).replace(str(path), self.model)) from None
        self.predictor.resolve(self.options)
        second = np.zeros(self.predictor.spectrogram.sample_rate, np.float32)
        self.predictor(second, len(second))

    def __call__(self, shard: Shard) -> Entry | None:
        """Predict the recordings of a shard and write it; its entry in the manifest."""
        from soundsight.inference.events import merge

        stream, failures = io.BytesIO(), sorted(shard.skip.items())
        writer: Any

        def failed(name: str, reason: str) -> None:
            failures.append((name, reason))

        sources = (_source(name) for name in shard.sources if name not in shard.skip)
        if self.command == "embed":
            writer = VectorWriter(stream, self.predictor.model, size=self.size)
            write_vectors(self.predictor.vectors(sources, self.options), writer, failed)
        else:
            writer = FORMATS["parquet"](stream, Context(self.options.top_k or 1))
            events = self.predictor.stream(sources, self.options)
            write_predictions(merge(events) if self.merge else events, writer, summary=self.summary, failed=failed)
        writer.close(shard.metadata(self.job, writer.count, failures))
        return None if shard.index < 0 else shards.commit(storage.Storage(self.out), stream.getvalue())


def predict(
    cluster: Cluster, worker: Worker, store: Shards, config: ClusterConfig, *, progress: Callable[[int, int], None]
) -> None:
    """Make all shards that are missing."""
    computes = worker.how["device"] != "cpu"
    run = partial(tasks.run, worker, cluster=cluster, config=config, computes=computes, chunk=1)

    def make(missing: Iterable[Shard]) -> list[Shard]:
        """The shards that lost their workers again and again."""
        lost = []
        for shard, entry in run(missing):
            if isinstance(entry, WorkerLost):
                lost.append(shard)
            else:
                store.done[shard.index] = entry
            progress(len(store.done), store.count)
        return lost

    progress(len(store.done), store.count)
    lost = make(store.missing())
    if not lost:
        return
    logging.getLogger("soundsight").warning(
        f"The recordings of {len(lost)} shards that lost their workers are tried one by one."
    )
    alone = run(Shard(-1, (name,)) for shard in lost for name in shard.sources)
    bad = {one.sources[0]: str(result)[:-1].lower() for one, result in alone if isinstance(result, WorkerLost)}
    skip = {name: f"{name} cannot be read ({reason})." for name, reason in bad.items()}
    again = (replace(shard, skip={name: skip[name] for name in shard.sources if name in skip}) for shard in lost)
    if still := make(again):
        raise SoundsightError(f"Shard {still[0].index} kills its workers, whatever is left out.")


def _source(name: str) -> Source:
    """A recording by path or by address."""
    return Source(name.partition("?")[0], lambda: _opened(name)) if storage.is_address(name) else file_source(name)


@contextmanager
def _opened(address: str) -> Iterator[tuple[AudioInfo, Iterator[Waveform]]]:
    with storage.fetched(address) as path, audio.opened(path, block_seconds=BLOCK_SECONDS) as opened:
        yield opened


class _Rows(list[dict[str, Any]]):
    """A segment as it was written: what writers ask a `Prediction` for."""

    def rows(self, top_k: int) -> list[dict[str, Any]]:
        """All of them: the shard holds no more than `top_k`, but of several labels per clip as many as there are."""
        return self


def gather_predictions(store: Shards, stream: IO[bytes], chosen: str, top_k: int) -> None:
    """Write the predictions of all shards, in the order of the list: the bytes of the local command."""
    writer: Any = FORMATS[chosen](stream, Context(top_k))
    ranked = _Rows()
    for table in _tables(store):
        for row in table.to_pylist():
            row["probability"] = round(float(row["probability"]), 6)  # as it was before it became a float32
            if row["rank"] <= 1 and ranked:
                writer.write(ranked)
                ranked = _Rows()
            ranked.append(row)
    if ranked:
        writer.write(ranked)
    writer.close()


def gather_vectors(store: Shards, stream: IO[bytes]) -> None:
    """Write the vectors of all shards, in the order of the list: the bytes of the local command."""
    import numpy as np

    writer: VectorWriter | None = None
    for table in _tables(store):
        if writer is None:
            of = table.schema.metadata
            model = Model((), of[b"soundsight.model"].decode(), of[b"soundsight.settings"].decode())
            writer = VectorWriter(stream, model, size=table.schema.field("vector").type.list_size)
        for recording, start, end, vector in zip(*table.to_pydict().values(), strict=True):
            writer.write(Vector(recording, start, end, np.array(vector, np.float32)))
    if writer is not None:
        writer.close()


def _tables(store: Shards) -> Iterator[Any]:
    from pyarrow import parquet

    for index in range(store.count):
        yield parquet.read_table(io.BytesIO(store.storage.read(shards.shard_name(index))))
