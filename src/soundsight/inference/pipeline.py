"""Many recordings through one network: reading, rendering and computing at the same time, in order.

One thread reads and cuts, a few render, and the caller's thread computes. The queue between them is bounded,
so memory does not grow with the length or the number of recordings. Batches are filled across recordings. The
first segment is rendered by the caller's thread: where it is the only one, no thread is ever started.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from soundsight.config import SpectrogramConfig
from soundsight.errors import AudioError
from soundsight.inference.segments import Segment, Source, cut, render_segment
from soundsight.spectrogram import Image

Floats = npt.NDArray[np.float32]
Rendering = Callable[[Segment], tuple[list[Image], bool, float]]


@dataclass(frozen=True)
class Rendered:
    """The image of one segment."""

    recording: str
    start_seconds: float
    end_seconds: float
    images: list[Image]  # uint8 (size, size, 3) each: as it is, then at other speeds
    silent: bool
    reference_db: float  # what is 0 dB in `image`, re full scale; -inf in silence
    weight: float = 1.0  # in the mean of its recording

    @property
    def image(self) -> Image:
        """The segment as it is."""
        return self.images[0]


@dataclass(frozen=True)
class Ended:
    """A recording has no more segments."""

    recording: str
    duration_seconds: float
    failure: str = ""


@dataclass(frozen=True)
class _Cut:
    source: Source
    segment: Segment


@dataclass(frozen=True)
class _Job:
    recording: str
    start_seconds: float
    end_seconds: float
    weight: float
    live: bool
    rendering: Future[tuple[list[Image], bool, float]]  # the samples are let go as soon as they are rendered


def compute(
    sources: Iterable[Source],
    network: Callable[[npt.NDArray[np.uint8]], Floats],
    config: SpectrogramConfig,
    *,
    window_seconds: float,
    hop_seconds: float,
    batch: int,
    workers: int,
    speeds: Sequence[float] = (),
    steady: bool = False,
) -> Iterator[tuple[Rendered, Floats] | Ended]:
    """Run a network over all segments of all recordings.

    Args:
        sources: The recordings.
        network: From uint8 images `(batch * (1 + speeds), size, size, 3)`, those of a segment beside each other,
            to float32 `(batch, values)`.
        config: The model's preprocessing.
        window_seconds: Length of a segment.
        hop_seconds: From one segment to the next.
        batch: Segments that the network sees at once.
        workers: Threads that render.
        speeds: Each segment is also rendered at these.
        steady: Fill up batches that are not full: networks round differently in small ones.
    """
    held: list[Rendered | Ended] = []
    events = _rendered(
        _cut_all(sources, config, window_seconds, hop_seconds),
        partial(render_segment, config=config, speeds=speeds),
        depth=2 * batch,
        workers=workers,
    )
    for event, hurry in events:
        held.append(event)
        if hurry or sum(isinstance(item, Rendered) for item in held) == batch:
            yield from _flush(held, network, batch if steady and not hurry else 0)
            held = []
    yield from _flush(held, network, batch if steady else 0)


def _flush(
    held: list[Rendered | Ended], network: Callable[[npt.NDArray[np.uint8]], Floats], least: int
) -> Iterator[tuple[Rendered, Floats] | Ended]:
    segments = [item.images for item in held if isinstance(item, Rendered)]
    segments += segments[-1:] * (least - len(segments))
    rows = iter(network(np.stack([image for images in segments for image in images])) if segments else ())
    for item in held:
        yield (item, next(rows)) if isinstance(item, Rendered) else item


def _rendered(
    events: Generator[_Cut | Ended, None, None], rendering: Rendering, *, depth: int, workers: int
) -> Iterator[tuple[Rendered | Ended, bool]]:
    """Images and ends in order, each with whether it should not wait for a full batch."""
    rendered = threads = False
    try:
        for event in events:
            if isinstance(event, Ended):
                yield event, False
            elif not rendered:
                rendered = True
                segment, name = event.segment, event.source.name
                found = Rendered(name, segment.start_seconds, segment.end_seconds, *rendering(segment), segment.weight)
                yield found, event.source.live
            else:
                threads = True
                yield from _rendered_by_threads(event, events, rendering, depth=depth, workers=workers)
    finally:
        if not threads:  # which close what they read
            events.close()


def _cut_all(
    sources: Iterable[Source], config: SpectrogramConfig, window_seconds: float, hop_seconds: float
) -> Generator[_Cut | Ended, None, None]:
    for source in sources:
        reader = _Reader(source, config)
        with closing(reader.segments(window_seconds, hop_seconds)) as segments:
            for segment in segments:
                yield _Cut(source, segment)
        yield Ended(source.name, reader.seconds, reader.failure)


def _rendered_by_threads(
    first: _Cut, events: Generator[_Cut | Ended, None, None], rendering: Rendering, *, depth: int, workers: int
) -> Iterator[tuple[Rendered | Ended, bool]]:
    """See `_rendered`."""
    waiting: queue.Queue[_Job | Ended | BaseException | None] = queue.Queue(depth)
    stop = threading.Event()

    def put(item: _Job | Ended | BaseException | None) -> None:
        while not stop.is_set():
            try:
                return waiting.put(item, timeout=0.2)
            except queue.Full:
                continue
        raise _Stopped

    def read(pool: ThreadPoolExecutor) -> None:
        try:
            with closing(events):
                for event in chain([first], events):
                    if isinstance(event, Ended):
                        put(event)
                    else:
                        cut, source = event.segment, event.source
                        job = pool.submit(rendering, cut)
                        put(_Job(source.name, cut.start_seconds, cut.end_seconds, cut.weight, source.live, job))
            put(None)
        except _Stopped:
            pass
        except BaseException as error:  # noqa: BLE001  (raised again in the caller's thread)
            with suppress(_Stopped):
                put(error)

    thread = threading.Thread(target=read, args=(_rendering_threads(workers),), name="soundsight-read", daemon=True)
    thread.start()
    try:
        while (item := waiting.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            if isinstance(item, Ended):
                yield item, False
                continue
            rendered = Rendered(
                item.recording, item.start_seconds, item.end_seconds, *item.rendering.result(), item.weight
            )
            yield rendered, item.live and waiting.empty()
    finally:
        stop.set()
        if thread is not threading.current_thread():  # which may collect what others dropped
            thread.join(timeout=2)  # it may be waiting for a pipe; then it ends with the process
        with suppress(queue.Empty):
            while True:
                if isinstance(item := waiting.get_nowait(), _Job):
                    item.rendering.cancel()


@cache
def _rendering_threads(count: int) -> ThreadPoolExecutor:
    """Threads that render, for all calls: OpenCV keeps 900 bytes for each thread that ever used it."""
    return ThreadPoolExecutor(count, thread_name_prefix="soundsight-draw")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_rendering_threads.cache_clear)  # threads do not come along


class _Stopped(Exception):
    """The caller wants no more."""


class _Reader:
    """Cuts one recording, and remembers how far it came."""

    def __init__(self, source: Source, config: SpectrogramConfig) -> None:
        self.source = source
        self.config = config
        self.samples = 0
        self.rate = 1
        self.failure = ""

    @property
    def seconds(self) -> float:
        return round(self.samples / self.rate, 6)

    def segments(self, window_seconds: float, hop_seconds: float) -> Generator[Segment, None, None]:
        try:
            with self.source.open() as (info, blocks):
                self.rate = info.sample_rate
                yield from cut(
                    self._counted(blocks),
                    self.rate,
                    self.config,
                    window_seconds=window_seconds,
                    hop_seconds=hop_seconds,
                )
        except AudioError as error:
            self.failure = str(error)
        except OSError as error:
            self.failure = f"{self.source.name} cannot be read ({error.strerror or error})."

    def _counted(self, blocks: Iterable[Any]) -> Iterator[Any]:
        for block in blocks:
            self.samples += len(block)
            yield block
