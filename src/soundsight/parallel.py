"""Worker processes: the only place that starts them. Knows nothing of audio.

`run` maps a function over many items with a bounded number in flight, so that memory does not grow with
the number of items. A worker that the system kills is replaced; its items are tried once more, one by
one, and reported as lost if they fail again. Workers never run the caller's script again, so it needs no
`if __name__ == "__main__"`.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

from soundsight import interrupts
from soundsight.machine import processors

Run = Callable[..., Iterator[tuple[Any, Any]]]  # `run` below, or what does the same on other machines
Item = TypeVar("Item")
Result = TypeVar("Result")

CHUNK = 16  # items sent to a worker at once, at most
LARGEST_CHUNK = 1024  # where they belong together
# Read by numerical libraries when they are loaded.
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"), "1"
)


class WorkerLost(Exception):
    """The process that worked on an item was killed, twice."""


def cores() -> int:
    """Processors that this process may use; see `machine.processors`."""
    return processors().count


def run(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int | None = None,
    together: Callable[[Item], object] | None = None,
) -> Iterator[tuple[Item, Result | WorkerLost]]:
    """Apply `function` to all items.

    Args:
        function: A picklable function that handles its own errors; what it raises ends the run.
        items: The work.
        workers: Processes; `None` takes one a core, 1 works in this process.
        together: See `chunks`.

    Yields:
        Each item with its result, as they finish, not in order.
    """
    workers = workers or cores()
    if workers == 1:
        for item in items:
            yield item, function(item)
        return
    # A small job is cut finer, so that all workers end at about the same time.
    chunk_size = min(CHUNK, math.ceil(len(items) / (8 * workers))) if isinstance(items, Sized) else CHUNK
    lost: list[Item] = []
    for chunk, results in _work(function, chunks(items, max(1, chunk_size), together), workers, 3 * workers):
        if results is None:
            lost += chunk
        else:
            yield from zip(chunk, results, strict=True)
    for (item,), results in _work(function, ([item] for item in lost), 1, 1):
        gone = WorkerLost("The process that worked on it was killed, twice (out of memory?).")
        yield item, gone if results is None else results[0]


def chunks(items: Iterable[Item], size: int, together: Callable[[Item], object] | None = None) -> Iterator[list[Item]]:
    """Items in lists of `size`.

    Neighbours for which `together` gives the same true value, such as the clips of a recording that can only be
    decoded from its start, share a list, up to `LARGEST_CHUNK`.
    """
    chunk: list[Item] = []
    last: object = None
    for item in items:
        key = together(item) if together else None
        if len(chunk) >= (LARGEST_CHUNK if key and key == last else size):
            yield chunk
            chunk = []
        chunk.append(item)
        last = key
    if chunk:
        yield chunk


def warm_up(module: str, *, workers: int | None = None) -> None:
    """Start the server that all workers are forked from, if there will be any; it imports `module` for all of them.

    `run` does this itself; called earlier, the server loads while this process reads what there is to do.
    """
    if os.name != "posix" or (workers or cores()) == 1:
        return
    from multiprocessing import forkserver

    forkserver.set_forkserver_preload([module])
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    try:  # what handles Ctrl-C is inherited by the server, and Ctrl-C is for this process
        with interrupts.handled(signal.SIGINT, signal.SIG_IGN), _without_script(module):
            forkserver.ensure_running()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _work(
    function: Callable[[Item], Result], queue: Iterator[list[Item]], workers: int, most: int
) -> Iterator[tuple[list[Item], list[Result] | None]]:
    """Work through `queue`, with `most` chunks in flight; those in flight when a worker is killed have no results."""
    pool: ProcessPoolExecutor | None = None
    pending: dict[Future[list[Result]], list[Item]] = {}
    try:
        while True:
            while len(pending) < most and (chunk := next(queue, None)):
                pool = pool or _pool(workers, function.__module__)
                try:
                    with _starting(function):
                        future = pool.submit(_chunk, function, chunk)
                except BrokenProcessPool as error:
                    future = Future()
                    future.set_exception(error)
                pending[future] = chunk
            if pool is None or not pending:
                return
            broken = False
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                try:
                    results = future.result()
                except BrokenProcessPool:
                    broken = True
                else:
                    yield pending.pop(future), results
            if broken:
                _stop(pool)
                pool = None
                yield from ((chunk, None) for chunk in pending.values())
                pending.clear()
    finally:
        if pool is not None:
            _stop(pool)


def _stop(pool: ProcessPoolExecutor) -> None:
    """End a pool and its processes without waiting for what they do."""
    processes = list((getattr(pool, "_processes", None) or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
    for process in processes:  # outliving this process, they would complain of what it took along
        process.join(5)


def _pool(workers: int, module: str) -> ProcessPoolExecutor:
    """Fresh processes rather than forked ones: safe beside threads and CUDA."""
    warm_up(module, workers=2)  # one worker that tries items singly is forked, too
    context = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_start)


def _start() -> None:
    """Leave Ctrl-C to the parent, and one thread to each numerical library that is not loaded yet."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(ONE_THREAD)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    """End with the parent, even if it was killed: a worker that waits for work would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _starting(function: Callable[..., Any]) -> Iterator[None]:
    """For what may start a worker: one that is half started cannot be stopped."""
    with interrupts.later(), _without_script(function.__module__):
        yield


@contextmanager
def _without_script(module: str) -> Iterator[None]:
    """Start processes as if no script were running: each would run it again, and start processes of its own.

    `multiprocessing` does so to find what the script defines, so a function of the script itself (`module` is
    `__main__`) needs it.
    """
    script = sys.modules["__main__"]
    if module != "__main__":
        sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


def _chunk(function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    return [function(item) for item in items]
