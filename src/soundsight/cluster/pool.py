"""A worker on each core or GPU of the cluster, and a bounded number of jobs in flight.

A job whose worker is lost is given to another one; after `retries` losses it comes back as lost. Only the job
that the worker was busy with is blamed, and none if the whole node went; which one it was is only sure when no
other was waiting behind it, so a job that lost a worker has its next one for itself. When no job is left, an
idle worker repeats the one that takes longest: jobs must be harmless to do twice.
"""

from __future__ import annotations

import os
import signal
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from soundsight import parallel
from soundsight.cluster.connect import Cluster
from soundsight.cluster.probe import CHECK_SECONDS, on_node
from soundsight.config import ClusterConfig
from soundsight.errors import SoundsightError

Say = Callable[[str], None]
Make = Callable[[], Callable[[Any], Any]]
GROW_SECONDS = 5.0  # how often new nodes are looked for
SLOW_SECONDS, SLOW_TIMES = 10.0, 3.0  # a job is slow that takes this long, and this many times the median
HANG_LOSSES = 2  # a job that hangs costs more time than one that kills: it counts twice
QUIET_SECONDS = 30.0  # processes may take so long to start before anything is said


class Hands:
    """A worker's process: makes its function once, and applies it to job after job."""

    def __init__(self, make: Make, cpus: int, folder: str) -> None:
        if cpus == 1:
            os.environ.update(parallel.ONE_THREAD)  # before numerical libraries are loaded
        if os.path.isdir(folder):
            os.chdir(folder)  # paths mean the same as where the command was given
        self.make = make
        self.function: Callable[[Any], Any] | None = None

    def ready(self) -> int:
        """Make the function, which may take long: a model is loaded; the number of this process."""
        self.function = self.make()
        return os.getpid()

    def work(self, job: Any) -> Any:
        """Do a job."""
        return self.function(job)  # type: ignore[misc]


@dataclass(eq=False)
class _Worker:
    handle: Any
    node: str
    pid: int = 0  # on its node; 0 until it is ready
    flying: list[Any] = field(default_factory=list)  # references, the oldest first
    since: float = 0.0  # when it began with the oldest
    blamed: Any = None  # once it is lost: the reference it was busy with
    sure: bool = False  # ... and there was no other


@dataclass(eq=False)
class _Open:
    """A job that is not done."""

    job: Any
    since: float = 0.0
    losses: int = 0
    suspect: bool = False  # may have been what its worker died of
    flying: set[Any] = field(default_factory=set)


class Pool:
    """Workers that apply one function to jobs."""

    def __init__(
        self,
        cluster: Cluster,
        make: Make,
        config: ClusterConfig,
        *,
        computes: bool,
        say: Say,
        long: bool = False,
    ) -> None:
        """Prepare a pool.

        Args:
            cluster: Where.
            make: Called once in each worker; returns the function to apply.
            config: Cores and GPUs of a worker, jobs in flight, retries.
            computes: Whether a network runs, so that GPUs are of use.
            say: Told when workers are lost.
            long: Jobs may take days, such as trainings: none is repeated beside itself, waits behind another,
                or is ended for the time it takes.
        """
        self.cluster, self.make, self.config, self.computes, self.say = cluster, make, config, computes, say
        self.long = long
        self.workers: list[_Worker] = []
        self.of_ref: dict[Any, tuple[_Worker, _Open | None]] = {}  # None: asked whether it is ready
        self.open: list[_Open] = []
        self.retry: deque[_Open] = deque()
        self.times: deque[float] = deque(maxlen=200)
        self.looked = -GROW_SECONDS
        self.idle_since: float | None = None
        self.told = False
        self.unborn = 0  # workers that were lost while they loaded
        self.lost_workers = 0

    def run(self, next_job: Callable[[], Any | None]) -> Iterator[tuple[Any, Any]]:
        """Do all jobs.

        Args:
            next_job: Called whenever a worker has room; `None` means none at present. The run ends when
                it says so and nothing is in flight.

        Yields:
            Each job with its result or `parallel.WorkerLost`, as they finish.

        Raises:
            SoundsightError: A worker raised one, or no node is left for `wait_seconds`.
        """
        ray = self.cluster.ray
        try:
            while True:
                self._grow()
                more = self._feed(next_job)
                if not more and not self.open:
                    return
                self._nobody_ready()
                if not self.of_ref:
                    time.sleep(0.5)
                    continue
                for worker in self._hanging():
                    yield from self._abandon(worker)
                done, _ = ray.wait(list(self.of_ref), num_returns=1, timeout=1.0)
                for ref in done:
                    yield from self._settle(ref)
        finally:
            for worker in self.workers:
                ray.kill(worker.handle)

    def slots(self, node: dict[str, Any]) -> tuple[int, float]:
        """Workers that fit on a node, and the GPUs of each."""
        has = node["Resources"]
        by_cpu = int(has.get("CPU", 0) // self.config.cpus)
        gpus = self.config.gpus if self.config.gpus is not None else float(has.get("GPU", 0) >= 1)
        if not self.computes or not gpus:
            return by_cpu, 0.0
        return min(max(by_cpu, 1), int(has.get("GPU", 0) / gpus)), gpus

    def _grow(self) -> None:
        """Start workers where none are: at first, on nodes that joined, and after a loss."""
        if time.monotonic() - self.looked < GROW_SECONDS:
            return
        self.looked = time.monotonic()
        nodes = self.cluster.usable(say=self.say)
        if self.computes and self.config.gpus is None and any(n["Resources"].get("GPU", 0) >= 1 for n in nodes):
            nodes = [node for node in nodes if node["Resources"].get("GPU", 0) >= 1]
        hands = self.cluster.ray.remote(Hands)
        for node in nodes:
            count, gpus = self.slots(node)
            for _ in range(count - sum(worker.node == node["NodeID"] for worker in self.workers)):
                strategy = on_node(self.cluster.ray, node["NodeID"])
                options = {"num_cpus": self.config.cpus, "num_gpus": gpus, "scheduling_strategy": strategy}
                handle = hands.options(**options).remote(self.make, self.config.cpus, self.cluster.needs.folder)
                worker = _Worker(handle, node["NodeID"])
                self.workers.append(worker)
                self.of_ref[worker.handle.ready.remote()] = worker, None

    def _hanging(self) -> list[_Worker]:
        """Workers that are stuck, as in a file that never ends."""
        if self.long:
            return []
        now, wait = time.monotonic(), self.cluster.ray.wait
        late = [w for w in self.workers if w.flying and now - w.since > self.config.job_seconds]
        return [w for w in late if not wait(w.flying[:1], timeout=0)[0]]  # it may be we who did not look

    def _abandon(self, worker: _Worker) -> Iterator[tuple[Any, Any]]:
        """Kill a worker that is stuck; what it held counts as lost at once.

        A stopped or blocked process does not hear Ray's order to end, keeps its core and never answers, so a
        task beside it on its node kills it.
        """
        ray = self.cluster.ray
        ray.kill(worker.handle)
        with suppress(ray.exceptions.RayError):
            ray.remote(_end_process).options(
                num_cpus=0, max_retries=0, scheduling_strategy=on_node(ray, worker.node)
            ).remote(worker.pid)
        worker.blamed, worker.sure = worker.flying[0], len(worker.flying) == 1
        for ref in list(worker.flying):
            _, task = self.of_ref.pop(ref)
            yield from self._lost(worker, task, ref, HANG_LOSSES)

    def _feed(self, next_job: Callable[[], Any | None]) -> bool:
        """Give jobs to whoever has room, evenly; whether there may be more."""
        for depth in range(1 if self.long else self.config.in_flight):
            for worker in self.workers:
                if not worker.pid or len(worker.flying) > depth or self._has_suspect(worker):
                    continue
                if self.retry and not (worker.flying and self.retry[0].suspect):
                    task = self.retry.popleft()
                else:
                    job = next_job()
                    if job is None:
                        return self._help(worker)
                    task = _Open(job)
                    self.open.append(task)
                self._send(worker, task)
        return True

    def _has_suspect(self, worker: _Worker) -> bool:
        tasks = (self.of_ref[ref][1] for ref in worker.flying)
        return any(task is not None and task.suspect for task in tasks)

    def _help(self, worker: _Worker) -> bool:
        """Let an idle worker repeat the slowest job, unless it may be a killer; never more to feed."""
        if worker.flying or not self.times or self.long:
            return False
        limit = max(SLOW_SECONDS, SLOW_TIMES * statistics.median(self.times))
        fair = [task for task in self.open if len(task.flying) == 1 and not task.suspect]
        slow = [task for task in fair if time.monotonic() - task.since > limit]
        if slow:
            self._send(worker, min(slow, key=lambda task: task.since))
        return False

    def _send(self, worker: _Worker, task: _Open) -> None:
        ref = worker.handle.work.remote(task.job)
        task.since = task.since if task.flying else time.monotonic()
        task.flying.add(ref)
        worker.flying.append(ref)
        if len(worker.flying) == 1:
            worker.since = time.monotonic()
        self.of_ref[ref] = worker, task

    def _settle(self, ref: Any) -> Iterator[tuple[Any, Any]]:
        """Take what came of one reference."""
        errors = self.cluster.ray.exceptions
        worker, task = self.of_ref.pop(ref)
        try:
            result = self.cluster.ray.get(ref)
        except errors.RayTaskError as error:
            if isinstance(error.cause, SoundsightError):
                raise error.cause from None
            raise SoundsightError(f"A worker failed: {type(error.cause).__name__}: {error.cause}") from error
        except errors.RayError as error:  # the process, its node or its answer is gone
            if worker in self.workers:
                worker.blamed, worker.sure = self._busy_with(worker), len(worker.flying) == 1
            yield from self._lost(worker, task, ref, "node has died" not in str(error))
            return
        if task is None:
            worker.pid = result
            return
        worker.flying.remove(ref)
        worker.since = time.monotonic()
        task.flying.discard(ref)
        if task in self.open:
            self.open.remove(task)
            self.times.append(time.monotonic() - task.since)
            yield task.job, result

    def _busy_with(self, worker: _Worker) -> Any:
        """The reference that a lost worker was busy with: the oldest that has no result."""
        ray = self.cluster.ray
        ended, _ = ray.wait(worker.flying, num_returns=len(worker.flying), timeout=0) if worker.flying else ([], [])
        for ref in worker.flying:
            try:
                if ref not in ended:
                    return ref
                ray.get(ref)
            except ray.exceptions.RayTaskError:
                continue
            except ray.exceptions.RayError:
                return ref
        return None

    def _lost(self, worker: _Worker, task: _Open | None, ref: Any, losses: int) -> Iterator[tuple[Any, Any]]:
        """Take back a job of a worker that is lost; `losses` count if it was busy with it."""
        if worker in self.workers:
            self.workers.remove(worker)
            self.lost_workers += 1
            self.looked = -GROW_SECONDS if task else self.looked  # one that never started may be tried again later
        if task is None:
            self.unborn += 1
            return
        worker.flying.remove(ref)
        task.flying.discard(ref)
        task.losses += losses if ref == worker.blamed else 0
        task.suspect = task.suspect or losses > 0
        if task not in self.open or task.flying:
            return
        if task.losses > self.config.retries and worker.sure:
            self.open.remove(task)
            yield task.job, parallel.WorkerLost(_HOW_LOST[losses == HANG_LOSSES].format(self.config.job_seconds))
        else:
            self.retry.append(task)

    def _nobody_ready(self) -> None:
        """Wait for a worker, but not for ever."""
        now = time.monotonic()
        if any(worker.pid for worker in self.workers):
            self.idle_since = None
            return
        seconds = max(self.config.wait_seconds, CHECK_SECONDS if self.workers else 0.0)
        why = "No core of the cluster is free" if self.workers else "No node of the cluster can work"
        if self.unborn:
            why = f"No worker of the cluster is ready: {self.unborn} were killed while they loaded (out of memory?)"
        if self.idle_since is None:
            self.idle_since, self.told = now, False
        if not self.told and now - self.idle_since > min(QUIET_SECONDS, seconds / 2):
            self.told = True
            self.say(f"{why}; waiting up to {seconds:.0f} s for one.")
        if now - self.idle_since > seconds:
            raise SoundsightError(
                f"{why}, after {seconds:.0f} s; start nodes, or end other work there, and run the same command again: "
                "what is done is kept."
            )


_HOW_LOST = {
    False: "The process that worked on it was killed again and again.",
    True: "The process that worked on it did not end within {:.0f} s.",
}


def _end_process(pid: int) -> None:
    """On a node with /proc: kill a worker, unless its number means another process by now."""
    if sys.platform == "win32":
        return
    with suppress(OSError):
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            if not file.read().startswith(b"ray::Hands"):
                return
        os.kill(pid, signal.SIGKILL)
