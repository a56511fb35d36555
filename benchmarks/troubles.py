"""What may happen to a cluster while it works: power cuts, a lost head, a slow node, recordings that kill."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.nodes import Nodes

Trouble = Callable[[Nodes, Path, threading.Event], "float | None"]  # nodes, shards, end of the run; when it struck


def wait_for(shards: Path, count: int, over: threading.Event) -> None:
    """Until so many shards are there."""
    until = time.monotonic() + 1800
    while not shards.is_dir() or sum(not name.startswith(".") for name in os.listdir(shards)) < count:
        if time.monotonic() > until or over.is_set():
            raise TimeoutError(f"{count} shards were not there in time")
        time.sleep(0.2)


def kill_node(nodes: Nodes, shards: Path, over: threading.Event) -> float:
    """Cut the power of node 2 after six shards."""
    wait_for(shards, 6, over)
    nodes.power_off(2)
    return time.time()


def kill_head(nodes: Nodes, shards: Path, over: threading.Event) -> float:
    """Kill the head after six shards, and start it and its nodes again; the command is given again if it ended."""
    wait_for(shards, 6, over)
    return _restart_head(nodes)


def _restart_head(nodes: Nodes) -> float:
    killed = time.time()
    nodes.kill_ray(0)
    for number in range(1, nodes.count):
        if number in nodes.machines:
            nodes.power_off(number)
        nodes.power_on(number)
    time.sleep(5)
    for number in range(nodes.count):
        nodes.start(number)
    return killed


def stop_early(nodes: Nodes, shards: Path, over: threading.Event) -> None:
    """End the driver after three shards: its memory has been seen."""
    wait_for(shards, 3, over)
    for pid in nodes.processes(0, b""):
        if b"-m\0soundsight\0" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGTERM)


def slow_node(nodes: Nodes, shards: Path, over: threading.Event) -> None:
    """From the first shard on, node 1 works a tenth of the time."""
    wait_for(shards, 1, over)

    def brake() -> None:
        while not over.is_set():
            for order, seconds in ((signal.SIGSTOP, 0.9), (signal.SIGCONT, 0.1)):
                for pid in nodes.processes(1):
                    try:
                        os.kill(pid, order)
                    except OSError:
                        continue
                time.sleep(seconds)

    threading.Thread(target=brake, daemon=True).start()


def storm(nodes: Nodes, shards: Path, over: threading.Event) -> float:
    """All of it in one run: a slow node, a power cut after a quarter of an hour's work, then the head."""
    slow_node(nodes, shards, over)
    kill_node(nodes, shards, over)
    wait_for(shards, 16, over)
    return _restart_head(nodes)


class Poison(threading.Thread):
    """Two recordings that no worker survives: one is predicted by SIGKILL, the other by SIGSTOP.

    This is what an exhausted memory and a server that does not predict look like from outside.
    """

    def __init__(self, folder: Path, nodes: Nodes) -> None:
        super().__init__(daemon=True)
        self.signals = {str(folder / "kills.wav"): signal.SIGKILL, str(folder / "stops.wav"): signal.SIGSTOP}
        for path in self.signals:
            if not os.path.exists(path):
                soundfile.write(path, np.zeros(16000 * 900, np.float32), 16000)  # long enough to be seen open
        self.nodes, self.over, self.sent = nodes, threading.Event(), dict.fromkeys(self.signals, 0)

    def run(self) -> None:
        """Look every few milliseconds."""
        while not self.over.wait(0.02):
            for number in list(self.nodes.machines):
                for pid in self.nodes.processes(number):
                    self._strike(pid)

    def _strike(self, pid: int) -> None:
        try:
            for link in Path(f"/proc/{pid}/fd").iterdir():
                path = os.readlink(link)
                if path in self.signals and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
                    os.kill(pid, self.signals[path])
                    self.sent[path] += 1
        except OSError:
            return
