"""`parallel.run` on a cluster: Ray tasks, a bounded number of them in flight.

Placement, retries and what follows from a lost node are Ray's. The items of a task that Ray gives up are tried one by
one, so that an item that kills its worker is found; a task that takes too long is cancelled.
"""

from __future__ import annotations

import math
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from soundsight import parallel
from soundsight.cluster import nodes
from soundsight.cluster.connect import Cluster
from soundsight.config import ClusterConfig
from soundsight.errors import ConfigError, SoundsightError
from soundsight.parallel import WorkerLost

CHUNK = 64  # items of one task, at most
POLL_SECONDS = 5.0  # between two polls of what the cluster has
UNREADY = 3  # tasks in a row that may lose all their workers before these are ready
_loaded: dict[str, Any] = {}  # in a worker: the function of a run


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
        function: Picklable and harmless to apply twice. Its method `load`, if any, is called once in each worker.
        items: The work; read as it is given out if `chunk` is 1.
        cluster: Where.
        config: Cores and GPUs of a task, its retries, and how long to wait.
        computes: Whether a network runs, so that GPUs are of use.
        long: A task may take days, such as a training: it is never cancelled for its time.
        chunk: Items of one task, at most.
        workers: Not used: the cluster decides.
        together: See `parallel.chunks`.
    """
    if chunk > 1:
        items = list(items)
        chunk = max(1, min(chunk, math.ceil(len(items) / 64)))
    flight, lost = _Flight(function, cluster, config, computes=computes, long=long), []
    try:
        for task, results in flight.run(parallel.chunks(items, chunk, together)):
            if not isinstance(results, WorkerLost):
                yield from zip(task, results, strict=True)
            elif len(task) == 1:
                yield task[0], results
            else:
                lost += task
        for (item,), results in flight.run([item] for item in lost):
            yield item, results if isinstance(results, WorkerLost) else results[0]
    finally:
        for stream in flight.flying:
            cluster.ray.cancel(stream, force=True)


@dataclass
class _Task:
    items: list[Any]
    since: float = 0.0  # when a worker began with it; 0: none has yet
    late: bool = False


class _Flight:
    """The tasks of one run."""

    def __init__(
        self, function: Callable[[Any], Any], cluster: Cluster, config: ClusterConfig, *, computes: bool, long: bool
    ) -> None:
        self.cluster, self.ray, self.config = cluster, cluster.ray, config
        self.seconds = math.inf if long else config.job_seconds
        self.flying: dict[Any, _Task] = {}  # by Ray's stream
        self.unready, self.polled, self.last_contact = 0, -math.inf, 0.0
        self.gpus = cluster.gpus_of_task(config) if computes else 0.0
        if not cluster.slots(config.cpus, self.gpus):
            gpus = f" and {self.gpus:g} GPUs" if self.gpus else ""
            raise ConfigError(f"No node of the cluster has {config.cpus} cores{gpus}, as cpus= and gpus= ask for.")
        self.task = self.ray.remote(_work).options(
            num_returns="streaming",
            num_cpus=config.cpus,
            num_gpus=self.gpus,
            max_retries=config.retries,
            retry_exceptions=True,
            scheduling_strategy="SPREAD",
        )
        function_there = [self.ray.put(function)]  # in a list: Ray does not read it for every task
        self.arguments = (uuid.uuid4().hex, function_there, nodes.environment(), cluster.folder, config.cpus)

    def run(self, chunks: Iterator[list[Any]]) -> Iterator[tuple[list[Any], Any]]:
        """Each chunk with its results, or `WorkerLost`."""
        self.last_contact = time.monotonic()
        while True:
            self._poll()
            for items in islice(chunks, max(0, 2 * self.slots - len(self.flying))):
                self.flying[self.task.remote(*self.arguments, items)] = _Task(items)
            if not self.flying:
                return
            for stream in self.ray.wait(list(self.flying), timeout=1.0)[0]:
                yield from self._take(stream)

    def _take(self, stream: Any) -> Iterator[tuple[list[Any], Any]]:
        """Take what a task sent: that it has begun, its results, or why there are none."""
        task, errors = self.flying[stream], self.ray.exceptions
        try:
            results = self.ray.get(next(stream))
        except errors.RayTaskError as error:
            raise SoundsightError(f"A worker failed: {type(error.cause).__name__}: {error.cause}") from error
        except errors.RayError:  # its process or its node is gone, again and again
            results = self._lost(task)
        if isinstance(results, SoundsightError):
            raise results
        self.last_contact = time.monotonic()
        if results is None:
            task.since, self.unready = self.last_contact, 0
        else:
            del self.flying[stream]
            yield task.items, results

    def _lost(self, task: _Task) -> WorkerLost:
        if task.late:
            return WorkerLost(f"The process that worked on it did not end within {self.config.job_seconds:.0f} s.")
        self.unready += not task.since
        if self.unready > UNREADY:
            raise SoundsightError(
                "No worker of the cluster becomes ready: they were killed while they loaded (out of memory?). "
                "What is done is kept; run the same command again."
            )
        return WorkerLost("The process that worked on it was killed again and again.")

    def _poll(self) -> None:
        """Now and then: how much does the cluster have, does a task hang, does none begin?"""
        now = time.monotonic()
        if now - self.polled < POLL_SECONDS:
            return
        self.polled, slots = now, self.cluster.slots(self.config.cpus, self.gpus)
        self.slots = max(1, slots)
        for stream, task in self.flying.items():
            if task.since and slots:
                self.last_contact = now
            if task.since and not task.late and now - task.since > self.seconds:
                task.late = True
                self.ray.cancel(stream, force=True)
        limit = max(self.config.wait_seconds, nodes.CHECK_SECONDS if slots else 0.0)
        if now - self.last_contact > limit:
            raise SoundsightError(
                f"{'No core of the cluster is free' if slots else 'No node can work'}, after {limit:.0f} s; start "
                "nodes, or end other work there, and run the same command again: what is done is kept."
            )


def _work(
    key: str, function: list[Any], expected: dict[str, str], folder: str, cpus: int, items: list[Any]
) -> Iterator[Any]:
    """In a worker: send `None` as it begins, then the results, or the message that ends the command."""
    try:
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
    except SoundsightError as error:
        yield error
