"""`parallel.run` on a cluster: the same function over the same items, on other machines."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from soundsight.cluster.connect import Cluster
from soundsight.cluster.pool import Pool, Say
from soundsight.config import ClusterConfig
from soundsight.parallel import WorkerLost, chunks

CHUNK = 64  # items of one job, at most


def run(
    function: Callable[[Any], Any],
    items: Iterable[Any],
    *,
    cluster: Cluster,
    config: ClusterConfig,
    say: Say,
    computes: bool = False,
    long: bool = False,
    chunk: int = CHUNK,
    workers: int | None = None,
    together: Callable[[Any], object] | None = None,
) -> Iterator[tuple[Any, Any]]:
    """Apply `function` to all items; see `parallel.run`.

    Args:
        function: A function of a module, which handles its own errors and is harmless to apply twice.
        items: The work.
        cluster: Where.
        config: See `Pool`.
        say: See `Pool`.
        computes: See `Pool`.
        long: See `Pool`.
        chunk: Items of one job, at most.
        workers: Not used: the cluster decides.
        together: See `parallel.chunks`.

    Yields:
        Each item with its result, as they finish, not in order. An item that kills its workers comes with
        `WorkerLost`.
    """
    items = items if isinstance(items, list) else list(items)
    size = max(1, min(chunk, math.ceil(len(items) / 64)))
    queue, single = chunks(items, size, together), deque[list[Any]]()

    def next_job() -> list[Any] | None:
        if single:
            return single.popleft()
        return next(queue, None)

    pool = Pool(cluster, partial(_each, function), config, computes=computes, say=say, long=long)
    for part, results in pool.run(next_job):
        if not isinstance(results, WorkerLost):
            yield from zip(part, results, strict=True)
        elif len(part) == 1:
            yield part[0], results
        else:
            single.extend([item] for item in part)


def _each(function: Callable[[Any], Any]) -> Callable[[list[Any]], list[Any]]:
    """In a worker: the function over the items of a job."""
    return partial(_apply, function)


def _apply(function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
    return [function(item) for item in items]
