"""`predict` and `embed` on a cluster: each worker loads the model once and writes shard after shard.

A worker calls what the local commands call, with the same options, so the predictions are the same bytes.
"""

from __future__ import annotations

import io
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from soundsight import audio
from soundsight.audio import AudioInfo, Waveform
from soundsight.cluster import shards, storage, tasks
from soundsight.cluster.connect import Cluster
from soundsight.cluster.shards import Entry, Shard, Shards
from soundsight.config import ClusterConfig, SpectrogramConfig
from soundsight.errors import ModelError, SoundsightError
from soundsight.inference.options import Options
from soundsight.inference.segments import BLOCK_SECONDS, Source, file_source
from soundsight.parallel import WorkerLost

Said = Callable[[int], dict[bytes, bytes]]  # metadata of a shard with so many rows


@dataclass
class Worker:
    """Makes shards; what it must know for that travels to each worker once."""

    command: str  # predict or embed
    model: str  # path, as the user wrote it
    out: str  # where shards go
    options: Options
    job: str = ""  # the job's hash
    merge: bool = False
    summary: bool = False
    device: str | None = None
    spectrogram: SpectrogramConfig | None = None
    trust: bool = False
    runtime: str = "auto"
    threads: int = 1
    content: bytes | None = field(default=None, repr=False)  # of the model file; None for a folder

    def load(self) -> None:
        """Load the model, and what is loaded with the first recording, before time counts.

        Raises:
            ModelError: The model cannot be loaded.
            ConfigError: The options do not fit it.
        """
        import numpy as np

        from soundsight.inference import load

        with tempfile.TemporaryDirectory(prefix="soundsight-") as folder:
            path = Path(self.model)  # an exported folder must be seen under its own name
            if self.content is not None:
                path = Path(folder, path.name)
                path.write_bytes(self.content)
            try:
                self.predictor = load(
                    path,
                    device=self.device,
                    spectrogram=self.spectrogram,
                    trust=self.trust,
                    threads=self.threads,
                    runtime=self.runtime,
                )
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
        stream, failures = io.BytesIO(), sorted(shard.skip.items())
        sources = (_source(name) for name in shard.sources if name not in shard.skip)
        make = self._embed if self.command == "embed" else self._predict
        make(sources, stream, failures, lambda rows: shards.metadata(self.job, shard, rows, failures))
        return None if shard.index < 0 else shards.commit(storage.Storage(self.out), stream.getvalue())

    def _predict(self, sources: Iterator[Source], stream: io.BytesIO, failures: list[Any], said: Said) -> None:
        from soundsight.inference.events import merge
        from soundsight.inference.formats.base import Context, write_predictions
        from soundsight.inference.formats.parquet import Parquet

        writer = Parquet(stream, Context(self.options.top_k or 1))
        events = self.predictor.stream(sources, self.options)
        if self.merge:
            events = merge(events)
        write_predictions(events, writer, summary=self.summary, failed=lambda *failure: failures.append(failure))
        writer.close(said(writer.count))

    def _embed(self, sources: Iterator[Source], stream: io.BytesIO, failures: list[Any], said: Said) -> None:
        from soundsight.inference.embeddings import VectorWriter
        from soundsight.inference.results import Vector

        writer, rows = VectorWriter(stream, self.predictor.model, size=self.size), 0
        for event in self.predictor.vectors(sources, self.options):
            if isinstance(event, Vector):
                writer.write(event)
                rows += 1
            elif event.failure:
                failures.append((event.recording, event.failure))
        writer.close(said(rows))


def predict(
    cluster: Cluster, worker: Worker, store: Shards, config: ClusterConfig, *, progress: Callable[[int, int], None]
) -> int:
    """Make all shards that are missing; how many these were.

    Raises:
        SoundsightError: The model or the storage does not fit.
    """
    run = partial(tasks.run, cluster=cluster, config=config, computes=worker.device != "cpu", chunk=1)
    before = len(store.done)

    def make(missing: Iterator[Shard]) -> dict[int, Shard]:
        """The shards that lost their workers again and again."""
        lost = {}
        for shard, entry in run(worker, missing):
            if isinstance(entry, WorkerLost):
                lost[shard.index] = shard
            else:
                store.add(entry)
            progress(len(store.done), store.count)
        return lost

    progress(before, store.count)
    lost = make(store.missing())
    if lost:
        logging.getLogger("soundsight").warning(
            f"The recordings of {len(lost)} shards that lost their workers are tried one by one."
        )
        alone = (Shard(-1, (name,)) for shard in lost.values() for name in shard.sources)
        skip = {
            name: f"{name} cannot be read ({str(result)[:-1].lower()})."
            for (name,), result in ((shard.sources, result) for shard, result in run(worker, alone))
            if isinstance(result, WorkerLost)
        }
        again = (
            Shard(shard.index, shard.sources, {name: skip[name] for name in shard.sources if name in skip})
            for shard in lost.values()
        )
        if still := make(again):
            raise SoundsightError(f"Shard {min(still)} kills its workers, whatever is left out.")
    return len(store.done) - before


def _source(name: str) -> Source:
    """A recording by path or by address."""
    if not storage.is_address(name):
        return file_source(name)
    return Source(name.partition("?")[0], lambda: _opened(name))


@contextmanager
def _opened(address: str) -> Iterator[tuple[AudioInfo, Iterator[Waveform]]]:
    with storage.fetched(address) as path, audio.opened(path, block_seconds=BLOCK_SECONDS) as opened:
        yield opened
