"""`parallel.run` on a cluster: Ray tasks, a bounded number of them in flight.

Placement, retries and what follows from a lost node are Ray's. A task that Ray gives up is tried item by item, so that
an item that kills its worker is found; one that takes too long is cancelled. When nothing is left to give out, the
slowest task is started a second time: functions must be harmless to apply twice.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import statistics
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from soundsight import parallel
from soundsight.cluster import nodes
from soundsight.cluster.connect import Cluster, gpus_of_task
from soundsight.config import ClusterConfig
from soundsight.errors import ConfigError, SoundsightError
from soundsight.parallel import WorkerLost

CHUNK = 64  # items of one task, at most
POLL_SECONDS = 5.0  # between two polls of what the cluster has
SLOW_SECONDS, SLOW_TIMES = 10.0, 3.0  # a task is slow that takes this long, and this many times the median
UNREADY = 3  # tasks that may lose all their workers before these are ready
_loaded: dict[str, Any] = {}  # in a worker: the function of a run


@dataclass(eq=False)
class _Task:
    items: list[Any]
    streams: list[Any] = field(default_factory=list)  # Ray's: one, or two when it is slow
    since: float = 0.0  # when a worker began with it; 0: none has yet
    late: bool = False


def run(
    function: Callable[[Any], Any],
    items: Iterable[Any],
    *,
    cluster: Cluster,
    config: ClusterConfig,
    computes: bool = False,
    long: bool = False,
    chunk: int = CHUNK,
    workers: int | None = None,
    together: Callable[[Any], object] | None = None,
) -> Iterator[tuple[Any, Any]]:
    """Apply `function` to all items; see `parallel.run`.

    Args:
        function: Picklable, handles its own errors, and is harmless to apply twice. Its method `load`, if it has one,
            is called once in each worker.
        items: The work; read as it is given out if `chunk` is 1.
        cluster: Where.
        config: Cores and GPUs of a task, its retries, and how long to wait.
        computes: Whether a network runs, so that GPUs are of use.
        long: A task may take days, such as a training: it is never cancelled for its time or started twice.
        chunk: Items of one task, at most.
        workers: Not used: the cluster decides.
        together: See `parallel.chunks`.

    Yields:
        Each item with its result, as they finish, not in order. An item that kills its workers comes with `WorkerLost`.

    Raises:
        SoundsightError: The function raised one, or no worker was ready for `wait_seconds`.
    """
    if chunk > 1:
        items = list(items)
        chunk = max(1, min(chunk, math.ceil(len(items) / 64)))
    flight = _Flight(function, cluster, config, computes=computes, long=long)
    try:
        yield from flight.run(parallel.chunks(items, chunk, together))
    finally:
        for stream in flight.flying:
            cluster.ray.cancel(stream, force=True)


class _Flight:
    """The tasks of one run."""

    def __init__(
        self, function: Callable[[Any], Any], cluster: Cluster, config: ClusterConfig, *, computes: bool, long: bool
    ) -> None:
        self.cluster, self.ray, self.config, self.long = cluster, cluster.ray, config, long
        self.flying: dict[Any, _Task] = {}  # by Ray's stream
        self.again: deque[list[Any]] = deque()
        self.times: deque[float] = deque(maxlen=200)
        self.unready, self.warned = 0, False
        self.looked, self.last_reply = -POLL_SECONDS, time.monotonic()
        self.gpus = gpus_of_task(cluster, config) if computes else 0.0
        if not self._slots():
            gpus = f" and {self.gpus:g} GPUs" if self.gpus else ""
            raise ConfigError(f"No node of the cluster has {config.cpus} cores{gpus}, as cpus= and gpus= ask for.")
        self.task = self.ray.remote(_work).options(
            num_returns="streaming",
            num_cpus=config.cpus,
            num_gpus=self.gpus,
            max_retries=config.retries,
            scheduling_strategy="SPREAD",
        )
        function_there = [self.ray.put(function)]  # in a list: Ray does not read it for every task
        self.arguments = (uuid.uuid4().hex, function_there, nodes.environment(), cluster.folder, config.cpus)

    def run(self, chunks: Iterator[list[Any]]) -> Iterator[tuple[Any, Any]]:
        """See the function `run`."""
        more = True
        while True:
            self._look()
            while more and len(self.flying) < 2 * self.slots:
                items = self.again.popleft() if self.again else next(chunks, None)
                more = items is not None
                if items is not None:
                    self._start(_Task(items))
            if not self.flying:
                return
            if not more:
                self._help()
            ready, _ = self.ray.wait(list(self.flying), timeout=1.0)
            for stream in ready:
                if stream in self.flying:  # else its copy was first
                    yield from self._take(stream, self.flying[stream])
                more = more or bool(self.again)

    def _start(self, task: _Task) -> None:
        stream = self.task.remote(*self.arguments, task.items)
        task.streams.append(stream)
        self.flying[stream] = task

    def _take(self, stream: Any, task: _Task) -> Iterator[tuple[Any, Any]]:
        """Take what a task sent: that it has begun, its results, or why there are none."""
        errors = self.ray.exceptions
        try:
            results = self.ray.get(next(stream))
        except errors.RayTaskError as error:
            if isinstance(error.cause, SoundsightError):
                raise error.cause from None
            raise SoundsightError(f"A worker failed: {type(error.cause).__name__}: {error.cause}") from error
        except errors.RayError as error:  # its process or its node is gone, again and again
            yield from self._lost(stream, task, blamed=not isinstance(error, errors.NodeDiedError))
            return
        self.last_reply, self.warned = time.monotonic(), False
        if results is None:
            task.since = task.since or self.last_reply
            return
        self.times.append(self.last_reply - task.since)
        for other in task.streams:
            del self.flying[other]
            if other is not stream:
                self.ray.cancel(other, force=True)
        yield from zip(task.items, results, strict=True)

    def _lost(self, stream: Any, task: _Task, *, blamed: bool) -> Iterator[tuple[Any, Any]]:
        del self.flying[stream]
        task.streams.remove(stream)
        if task.streams:  # its copy goes on
            return
        if not task.since and not task.late:
            self.unready += 1
            if self.unready > UNREADY:
                raise SoundsightError(
                    "No worker of the cluster becomes ready: they were killed while they loaded (out of memory?). "
                    "What is done is kept; run the same command again."
                )
        if not blamed or not (task.since or task.late):
            self.again.append(task.items)
        elif len(task.items) > 1:
            self.again.extend([item] for item in task.items)
        elif task.late:
            limit = f"{self.config.job_seconds:.0f} s"
            yield task.items[0], WorkerLost(f"The process that worked on it did not end within {limit}.")
        else:
            yield task.items[0], WorkerLost("The process that worked on it was killed again and again.")

    def _slots(self) -> int:
        """Tasks that the cluster can run at once."""
        resources = [node["Resources"] for node in self.cluster.nodes()]
        by_cpu = sum(int(has.get("CPU", 0) // self.config.cpus) for has in resources)
        by_gpu = sum(int(has.get("GPU", 0) / self.gpus) for has in resources) if self.gpus else by_cpu
        self.slots = min(by_cpu, by_gpu)
        return self.slots

    def _look(self) -> None:
        """Now and then: has the cluster grown or gone, does a task hang, does none begin?"""
        now = time.monotonic()
        if now - self.looked < POLL_SECONDS:
            return
        self.looked = now
        begun = {task for task in self.flying.values() if task.since}
        if self._slots() and begun:
            self.last_reply = now
        for task in begun if not self.long else ():
            if not task.late and now - task.since > self.config.job_seconds:
                task.late = True
                for stream in task.streams:
                    self.ray.cancel(stream, force=True)
        limit = max(self.config.wait_seconds, nodes.CHECK_SECONDS if self.slots else 0.0)
        why = "No core of the cluster is free" if self.slots else "No node of the cluster can work"
        if now - self.last_reply > limit:
            raise SoundsightError(
                f"{why}, after {limit:.0f} s; start nodes, or end other work there, and run the same command again: "
                "what is done is kept."
            )
        if now - self.last_reply > min(30.0, limit / 2) and not self.warned:
            self.warned = True
            logging.getLogger("soundsight").warning(f"{why}; waiting up to {limit:.0f} s for one.")

    def _help(self) -> None:
        """Start the slowest task once more, where a core is free."""
        if self.long or not self.times or len(self.flying) >= self.slots:
            return
        limit = max(SLOW_SECONDS, SLOW_TIMES * statistics.median(self.times))
        begun = [task for task in self.flying.values() if task.since and len(task.streams) == 1 and not task.late]
        slow = [task for task in begun if time.monotonic() - task.since > limit]
        if slow:
            self._start(min(slow, key=lambda task: task.since))


def _work(
    key: str, function: list[Any], expected: dict[str, str], folder: str, cpus: int, items: list[Any]
) -> Iterator[list[Any] | None]:
    """In a worker: say that it begins, then the results."""
    if key not in _loaded:
        wrong = nodes.mismatch(expected, nodes.environment())
        if wrong:
            raise ConfigError(f"Node {socket.gethostname()} of the cluster {wrong}.")
        import ray

        if cpus == 1:
            os.environ.update(parallel.ONE_THREAD)  # before numerical libraries are loaded
        if os.path.isdir(folder):
            os.chdir(folder)  # paths mean the same as where the command was given
        made = ray.get(function[0])
        if hasattr(made, "load"):
            made.load()
        _loaded.clear()
        _loaded[key] = made
    yield None
    yield [_loaded[key](item) for item in items]
