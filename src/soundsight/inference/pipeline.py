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
    live: bool = False  # its prediction must not wait for later segments

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


Cut = tuple[Source, Segment]


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
    """Run a network over all segments of all recordings, in their order; one that cannot be read ends with a failure.

    Args:
        network: From uint8 images `(batch * (1 + speeds), size, size, 3)`, those of a segment beside each other,
            to float32 `(batch, values)`.
        batch: Segments that the network sees at once.
        workers: Threads that render.
        speeds: Each segment is also rendered at these.
        steady: Fill up batches that are not full: networks round differently in small ones.
    """
    held: list[Rendered | Ended] = []
    rendering = partial(_render, config=config, speeds=speeds)
    events = _cut_all(sources, config, window_seconds, hop_seconds)
    for event, hurry in _rendered(events, rendering, depth=2 * batch, workers=workers):
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


def _render(cut: Cut, config: SpectrogramConfig, speeds: Sequence[float]) -> Rendered:
    source, segment = cut
    rendered = render_segment(segment, config, speeds)
    return Rendered(source.name, segment.start_seconds, segment.end_seconds, *rendered, segment.weight, source.live)


def _cut_all(
    sources: Iterable[Source], config: SpectrogramConfig, window_seconds: float, hop_seconds: float
) -> Generator[Cut | Ended, None, None]:
    for source in sources:
        failure, read = "", [0]  # samples
        rate = 1
        try:
            with source.open() as (info, blocks):
                rate = info.sample_rate
                counted = _counted(blocks, read)
                for segment in cut(counted, rate, config, window_seconds=window_seconds, hop_seconds=hop_seconds):
                    yield source, segment
        except AudioError as error:
            failure = str(error)
        except OSError as error:
            failure = f"{source.name} cannot be read ({error.strerror or error})."
        yield Ended(source.name, round(read[0] / rate, 6), failure)


def _counted(blocks: Iterable[Any], read: list[int]) -> Iterator[Any]:
    for block in blocks:
        read[0] += len(block)
        yield block


def _rendered(
    events: Generator[Cut | Ended, None, None],
    rendering: Callable[[Cut], Rendered],
    *,
    depth: int,
    workers: int,
) -> Iterator[tuple[Rendered | Ended, bool]]:
    """Images and ends in order, each with whether it should not wait for a full batch."""
    rendered = threads = False
    try:
        for event in events:
            if isinstance(event, Ended):
                yield event, False
            elif not rendered:
                rendered = True
                yield rendering(event), event[0].live
            else:
                threads = True
                yield from _rendered_by_threads(event, events, rendering, depth, workers)
    finally:
        if not threads:  # which close what they read
            events.close()


def _rendered_by_threads(
    first: Cut,
    events: Generator[Cut | Ended, None, None],
    rendering: Callable[[Cut], Rendered],
    depth: int,
    workers: int,
) -> Iterator[tuple[Rendered | Ended, bool]]:
    """See `_rendered`. Of a segment in the queue the samples are let go as soon as they are rendered."""
    waiting: queue.Queue[Future[Rendered] | Ended | BaseException | None] = queue.Queue(depth)
    stop = threading.Event()

    def put(item: Future[Rendered] | Ended | BaseException | None) -> None:
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
                    put(event if isinstance(event, Ended) else pool.submit(rendering, event))
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
            else:
                rendered = item.result()
                yield rendered, rendered.live and waiting.empty()
    finally:
        stop.set()
        if thread is not threading.current_thread():  # which may collect what others dropped
            thread.join(timeout=2)  # it may be waiting for a pipe; then it ends with the process
        with suppress(queue.Empty):
            while True:
                if isinstance(item := waiting.get_nowait(), Future):
                    item.cancel()


@cache
def _rendering_threads(count: int) -> ThreadPoolExecutor:
    """Threads that render, for all calls: OpenCV keeps 900 bytes for each thread that ever used it."""
    return ThreadPoolExecutor(count, thread_name_prefix="soundsight-draw")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_rendering_threads.cache_clear)  # threads do not come along


class _Stopped(Exception):
    """The caller wants no more."""
