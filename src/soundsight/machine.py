"""Processors and memory that this process may use: one count for training, rendering, runtimes and Ray alike.

Control groups are read as the Linux kernel documents them, version 1 and 2, with those above ours.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROCESS = Path("/proc/self")
VARIABLES = ("OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK")


@dataclass(frozen=True)
class Processors:
    """How many processors are ours, and what limits them."""

    count: int
    reason: str


def processors(process: Path = PROCESS) -> Processors:
    """The least of what the system, the quotas of control groups and the environment allow.

    A quota of 1.5 processors counts as one, since threads that compute together wait for the one that is held back; a
    quota below one counts as one.

    Args:
        process: The kernel's folder of this process.
    """
    if hasattr(os, "process_cpu_count"):  # Python 3.13
        found = [Processors(os.process_cpu_count() or 1, "processors of this process")]
    elif hasattr(os, "sched_getaffinity"):
        found = [Processors(len(os.sched_getaffinity(0)), "processors of this process")]
    else:
        found = [Processors(os.cpu_count() or 1, "processors of the machine")]
    for folder in _groups("cpu", process):
        with suppress(OSError, ValueError, ZeroDivisionError):  # "max" stands for no limit
            if (folder / "cpu.max").is_file():
                quota, period = map(int, (folder / "cpu.max").read_text().split())
            else:
                quota, period = (int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
            if quota > 0:
                found.append(Processors(max(1, quota // period), f"quota of {quota / period:g} in {folder}"))
    for name in VARIABLES:
        first = os.environ.get(name, "").partition(",")[0].strip()  # "4,2": further levels of OpenMP
        if first.isdecimal() and int(first):
            found.append(Processors(int(first), f"{name}={first}"))
    return min(found, key=lambda limit: limit.count)


class Threads:
    """Threads to compute with beside others: as many as processors that are ours and that nobody else keeps busy.

    Threads that wait for each other by spinning, as PyTorch's do, are slower than a single one where they get less than
    a processor each: two trainings with two threads each, on two processors, take five times as long as with one each.
    Who comes later takes what is left, at least one.
    """

    LEAST_SECONDS = 1.0  # between two readings: the system counts in hundredths

    def __init__(self) -> None:
        self.count = processors().count
        self._since, self._others = time.monotonic(), _busy_elsewhere()

    def choose(self) -> int:
        """The number for now, by what others did since the last choice; in less than a second it stays."""
        now = time.monotonic()
        if now - self._since >= self.LEAST_SECONDS:
            others = _busy_elsewhere()
            busy = max(0.0, others - self._others) / (now - self._since)
            free = int(len(_ours()) - busy + 0.5)
            self.count = max(1, min(processors().count, free))
            self._since, self._others = now, others
        return self.count


def _ours() -> Collection[int]:
    """Numbers of the processors that this process may run on."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)


def _busy_elsewhere() -> float:
    """Seconds that our processors have worked for other processes than this and those it started, since some time."""
    import psutil

    ours, seconds = _ours(), 0.0
    for number, times in enumerate(psutil.cpu_times(percpu=True)):
        if number in ours:
            seconds += times.user + times.system + getattr(times, "nice", 0.0) + getattr(times, "steal", 0.0)
    own = psutil.Process().cpu_times()
    seconds -= own.user + own.system + own.children_user + own.children_system
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            times = process.cpu_times()
            seconds -= times.user + times.system
    return seconds


def free_memory(process: Path = PROCESS) -> int:
    """Main memory in bytes that is left to this process: what the system can give without swapping, or its groups."""
    import psutil

    free: int = psutil.virtual_memory().available  # with the cache of files, which gives way
    for folder in _groups("memory", process):
        for names in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            with suppress(ValueError, OSError):
                most, now = (int((folder / name).read_text()) for name in names)
                free = min(free, max(0, most - now))
    return free


def _groups(controller: str, process: Path) -> Iterator[Path]:
    """Folders of the control groups that limit this process: ours first, then those above it that are mounted."""
    try:
        groups = [line.split(":", 2) for line in (process / "cgroup").read_text().splitlines()]
        mounts = [line.split() for line in (process / "mountinfo").read_text().splitlines() if " cgroup" in line]
    except OSError:
        return
    for fields in mounts:
        kind, options, root, top = fields[-3], fields[-1].split(","), fields[3], Path(fields[4])
        if kind == "cgroup" and controller not in options:
            continue
        for _, names, path in groups:
            if (controller in names.split(",")) if kind == "cgroup" else not names:
                below = path.removeprefix(root.rstrip("/")).strip("/") if path.startswith(root) else ""
                folder = top / below if ".." not in below else top
                yield from (place for place in (folder, *folder.parents) if place == top or top in place.parents)
