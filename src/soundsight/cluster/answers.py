"""`predict` and `embed` on a cluster: each worker loads the model once and answers part after part.

A worker calls what the local commands call, with the same options, so the answers are the same bytes.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from soundsight import audio
from soundsight.audio import AudioInfo, Waveform
from soundsight.cluster import shards, storage
from soundsight.cluster.connect import Cluster
from soundsight.cluster.listing import Part
from soundsight.cluster.pool import Pool, Say
from soundsight.cluster.shards import Entry, Shards
from soundsight.cluster.storage import Place
from soundsight.config import ClusterConfig, SpectrogramConfig
from soundsight.errors import AudioError, ModelError, SoundsightError
from soundsight.inference.options import Options
from soundsight.inference.segments import BLOCK_SECONDS, Source, file_source
from soundsight.parallel import WorkerLost


@dataclass(frozen=True)
class Work:
    """What a worker must know."""

    command: str  # predict or embed
    model: str  # path, as the user wrote it
    place: str  # where shards go
    fingerprint: str  # of the job
    options: Options
    merge: bool = False
    summary: bool = False
    device: str | None = None
    spectrogram: SpectrogramConfig | None = None
    trust: bool = False
    runtime: str = "auto"
    threads: int = 1
    content: Any = field(default=None, repr=False)  # Ray's reference to the model file; None for a folder


@dataclass(frozen=True)
class Job:
    """One part to answer, or one recording to try alone."""

    part: Part
    skip: dict[str, str] = field(default_factory=dict)  # recordings that kill a worker, with the reason
    trial: bool = False


def answer(
    cluster: Cluster,
    work: Work,
    store: Shards,
    config: ClusterConfig,
    *,
    say: Say,
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """Answer all parts that are missing.

    Returns:
        The totals of the manifest, and how many shards this run wrote.

    Raises:
        SoundsightError: The model or the storage does not fit.
    """
    parts, queue = store.missing(), deque[Job]()
    trials: dict[int, _Trial] = {}

    def next_job() -> Job | None:
        if queue:
            return queue.popleft()
        part = next(parts, None)
        return None if part is None else Job(part)

    written = 0
    progress(len(store.done), store.count)
    pool = Pool(cluster, partial(worker, work), config, computes=work.device != "cpu", say=say)
    for job, result in pool.run(next_job):
        if job.trial:
            trial = trials[job.part.index]
            trial.take(job, result)
            if trial.over:
                queue.append(Job(trial.part, trial.killers))
        elif not isinstance(result, WorkerLost):
            store.add(result)
            written += 1
            progress(len(store.done), store.count)
        elif job.skip or (len(job.part.sources) == 1 and job.part.index in trials):
            raise SoundsightError(f"Shard {job.part.index} kills its workers, whatever is left out; {result}")
        else:
            say(f"Shard {job.part.index} lost its workers; its recordings are tried one by one.")
            trials[job.part.index] = _Trial(job.part)
            queue.extend(trials[job.part.index].jobs())
    return {**store.finish(), "written": written, "lost_workers": pool.lost_workers}


class _Trial:
    """Finds the recordings of a part that kill their worker."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.waiting = len(part.sources)
        self.killers: dict[str, str] = {}

    @property
    def over(self) -> bool:
        return self.waiting == 0

    def jobs(self) -> Iterator[Job]:
        for source in self.part.sources:
            yield Job(Part(self.part.index, self.part.first, (source,)), trial=True)

    def take(self, job: Job, result: Any) -> None:
        self.waiting -= 1
        if isinstance(result, WorkerLost):
            self.killers[job.part.sources[0]] = f"{job.part.sources[0]} cannot be read ({str(result)[:-1].lower()})."


def worker(work: Work) -> Callable[[Job], Entry | None]:
    """In a worker: load the model; the function that answers a job.

    Raises:
        ModelError: The model cannot be loaded.
        ConfigError: The options do not fit it.
    """
    import numpy as np

    from soundsight.inference import load

    with _model_file(work) as path:
        try:
            predictor = load(
                path,
                device=work.device,
                spectrogram=work.spectrogram,
                trust=work.trust,
                threads=work.threads,
                runtime=work.runtime,
            )
            size = _feature_size(predictor) if work.command == "embed" else 0  # loads what it needs of the file
        except ModelError as error:
            raise ModelError(str(error).replace(str(path), work.model)) from None
    predictor.resolve(work.options)
    second = np.zeros(predictor.spectrogram.sample_rate, np.float32)
    predictor(second, len(second))  # loads what is loaded with the first recording, before time counts
    make = partial(_embed, size) if work.command == "embed" else _predict
    return partial(_answer, work, Place(work.place), partial(make, work, predictor))


def _feature_size(predictor: Any) -> int:
    """Values in a vector of this model."""
    import numpy as np

    side = predictor.spectrogram.image_size
    return int(predictor.classifier.features(np.zeros((1, side, side, 3), np.uint8)).shape[1])


@contextmanager
def _model_file(work: Work) -> Iterator[Path]:
    """The model as a file here; exported folders must be seen under their own name."""
    if work.content is None:
        yield Path(work.model)
        return
    import ray

    with tempfile.TemporaryDirectory(prefix="soundsight-") as folder:
        path = Path(folder, Path(work.model).name)
        path.write_bytes(ray.get(work.content))
        yield path


def _answer(work: Work, place: Place, make: Callable[..., int], job: Job) -> Entry | None:
    """Answer one part and write its shard; of a trial nothing is kept."""
    failures = sorted(job.skip.items())
    sources = (open_source(name) for name in job.part.sources if name not in job.skip)
    stream = io.BytesIO()
    rows = make(sources, stream, failures, job.part)
    if job.trial:
        return None
    return shards.commit(place, job.part, stream.getvalue(), rows=rows, failures=len(failures))


def _predict(
    work: Work, predictor: Any, sources: Iterator[Source], stream: io.BytesIO, failures: list[Any], part: Part
) -> int:
    from soundsight.inference.events import merge
    from soundsight.inference.formats.base import Context, write_predictions
    from soundsight.inference.formats.parquet import Parquet

    events = predictor.stream(sources, work.options)
    writer = Parquet(stream, Context(work.options.top_k or 1))

    def failed(recording: str, reason: str) -> None:
        failures.append((recording, reason))

    write_predictions(merge(events) if work.merge else events, writer, summary=work.summary, failed=failed)
    writer.close(shards.metadata(work.fingerprint, part, writer.count, failures))
    return writer.count


def _embed(
    size: int,
    work: Work,
    predictor: Any,
    sources: Iterator[Source],
    stream: io.BytesIO,
    failures: list[Any],
    part: Part,
) -> int:
    from soundsight.inference.embeddings import VectorWriter
    from soundsight.inference.results import Vector

    writer, rows = VectorWriter(stream, predictor.model, size=size), 0
    for event in predictor.vectors(sources, work.options):
        if isinstance(event, Vector):
            writer.write(event)
            rows += 1
        elif event.failure:
            failures.append((event.recording, event.failure))
    writer.close(shards.metadata(work.fingerprint, part, rows, failures))
    return rows


def open_source(name: str) -> Source:
    """A recording by path or by address."""
    if not storage.is_address(name):
        return file_source(name)
    shown = name.partition("?")[0]
    return Source(shown, lambda: _opened(name, shown))


@contextmanager
def _opened(name: str, shown: str) -> Iterator[tuple[AudioInfo, Iterator[Waveform]]]:
    with storage.fetched(name) as path:
        try:
            with audio.opened(path, block_seconds=BLOCK_SECONDS) as (info, blocks):
                yield info, _named(blocks, path, shown)
        except AudioError as error:
            raise AudioError(str(error).replace(os.fspath(path), shown)) from error


def _named(blocks: Iterator[Waveform], path: Path, shown: str) -> Iterator[Waveform]:
    try:
        yield from blocks
    except AudioError as error:
        raise AudioError(str(error).replace(os.fspath(path), shown)) from error
