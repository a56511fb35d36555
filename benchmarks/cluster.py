"""What a Ray cluster costs and gains, and what it survives: several nodes on this machine, in network namespaces.

    python -m benchmarks.cluster MODEL --clips 20000 --work FOLDER [--scenario NAME ...] [--prefix "taskset -c 0"]

All nodes share this machine's processors, so more nodes are not faster unless there are cores for them: the
processor time tells the overhead, and the faults tell whether the answers stay whole. Needs root and Linux.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from benchmarks import machine
from benchmarks.nodes import Nodes, possible

SCENARIOS = ("local", "one", "two", "three", "kill", "head", "slow", "poison", "million")


def synthesise(folder: Path, count: int) -> Path:
    """Half-second clips at 16 kHz, and a list of them."""
    rng, t = np.random.default_rng(0), np.arange(8000) / 16000
    names = [folder / f"{number // 1000:04d}" / f"{number:07d}.wav" for number in range(count)]
    for name in names:
        if not name.exists():
            name.parent.mkdir(parents=True, exist_ok=True)
            tone = 0.3 * np.sin(2 * np.pi * rng.uniform(200, 6000) * t) * np.exp(-t * rng.uniform(0, 10))
            soundfile.write(name, (tone + 0.02 * rng.standard_normal(8000)).astype(np.float32), 16000)
    listed = folder.with_name(f"list-{count}.txt")
    listed.write_text("".join(f"{name}\n" for name in names))
    return listed


class Bench:
    """One model, one list, one folder."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.work = Path(arguments.work).absolute()
        self.work.mkdir(parents=True, exist_ok=True)
        self.model, self.prefix = str(Path(arguments.model).absolute()), shlex.split(arguments.prefix)
        self.shard = arguments.shard
        self.clips = synthesise(self.work / "clips", arguments.clips)
        self.count = arguments.clips
        self.reference = self.work / f"local-{self.count}.csv"
        self.environment = machine.child_environment()

    def local(self) -> dict[str, Any]:
        """The local engine on the same list."""
        self.reference.unlink(missing_ok=True)
        command = [*self.prefix, *self._command(self.clips, self.reference), "--threads", "1"]
        before, started = os.times(), time.monotonic()
        subprocess.run(command, env=self.environment, check=True, stderr=subprocess.DEVNULL)
        after = os.times()
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        return {"seconds": time.monotonic() - started, "cpu_seconds": cpu, "inputs": self.count}

    def cluster(
        self,
        nodes: Nodes,
        name: str,
        *,
        listed: Path | None = None,
        trouble: Callable[[Nodes, Path], Any] | None = None,
        more: tuple[str, ...] = (),
    ) -> dict[str, Any]:
        """The same command on a cluster, with or without trouble on the way."""
        out = self.work / f"{name}.csv"
        folder = Path(f"{out}.shards")
        subprocess.run(["rm", "-rf", str(folder), str(out)], check=True)
        command = [*nodes.inside(0), *self._command(listed or self.clips, out), "--engine", "ray"]
        command += ["--address", nodes.address, "--cluster", f"shard={self.shard}", *more]
        cpu, started = nodes.cpu_seconds(), time.monotonic()
        environment = {**self.environment, **nodes.environment}
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        watch = Peak(nodes)
        found: dict[str, Any] = {}
        if trouble:
            found["trouble"] = trouble(nodes, folder / "shards")
        said = process.communicate(timeout=3600)[1]
        seconds = time.monotonic() - started
        found |= {"seconds": seconds, "cpu_seconds": nodes.cpu_seconds() - cpu, "driver_peak_mb": watch.stop()}
        found |= {"exit_code": process.returncode, "said": said.splitlines()[-8:]}
        if (folder / "manifest.json").exists():
            manifest = json.loads((folder / "manifest.json").read_text())
            found |= {key: manifest[key] for key in ("complete", "shards", "sources", "rows", "failures")}
            found["recovery_seconds"] = _gap(folder / "shards", found.get("trouble"))
        if out.exists() and self.reference.exists() and listed is None:
            found["same_bytes_as_local"] = filecmp.cmp(out, self.reference, shallow=False)
            names = [line.partition(",")[0] for line in out.read_text().splitlines()[1:]]
            found |= {"outputs": len(set(names)), "duplicates": len(names) - len(set(names))}
        return found

    def _command(self, listed: Path, out: Path) -> list[str]:
        words = [sys.executable, "-P", "-m", "soundsight", "predict", self.model, f"@{listed}"]
        return [*words, "--out", str(out), "--device", "cpu", "--top-k", "1"]


class Peak(threading.Thread):
    """Watches the driver's memory."""

    def __init__(self, nodes: Nodes) -> None:
        super().__init__(daemon=True)
        self.nodes, self.peak, self.over = nodes, 0.0, threading.Event()
        self.start()

    def run(self) -> None:
        while not self.over.wait(1.0):
            for pid in self.nodes.processes(0, sys.executable.encode()):
                try:
                    if b"soundsight" not in Path(f"/proc/{pid}/cmdline").read_bytes():
                        continue
                    status = Path(f"/proc/{pid}/status").read_text()
                    self.peak = max(self.peak, int(status.partition("VmHWM:")[2].split()[0]) / 1024)
                except (OSError, IndexError):
                    continue

    def stop(self) -> float:
        self.over.set()
        self.join()
        return round(self.peak, 1)


def _gap(shards: Path, since: Any) -> float | None:
    """Seconds from the trouble until the next shard was there."""
    if not isinstance(since, float):
        return None
    later = [path.stat().st_mtime for path in shards.iterdir() if path.stat().st_mtime > since]
    return round(min(later) - since, 1) if later else None


def _wait_for(shards: Path, count: int) -> None:
    until = time.monotonic() + 900
    while not shards.is_dir() or sum(not name.startswith(".") for name in os.listdir(shards)) < count:
        if time.monotonic() > until:
            raise TimeoutError(f"{count} shards are not there after 900 s")
        time.sleep(0.2)


def kill_node(nodes: Nodes, shards: Path) -> float:
    """Cut the power of node 2 after five shards; when."""
    _wait_for(shards, 5)
    nodes.power_off(2)
    return time.time()


def kill_head(nodes: Nodes, shards: Path) -> float:
    """Kill the head after five shards, and start it and its nodes again; when it was killed."""
    _wait_for(shards, 5)
    killed = time.time()
    nodes.kill_ray(0)
    for number in (1, 2):
        nodes.power_off(number)
        nodes.power_on(number)
    time.sleep(5)
    for number in (0, 1, 2):
        nodes.start(number)
    return killed


def slow_node(nodes: Nodes, shards: Path) -> str:
    """From the first shard on, node 2 works a tenth of the time."""
    _wait_for(shards, 1)

    def brake() -> None:
        while not shards.parent.joinpath("manifest.json").exists():
            for order, seconds in ((signal.SIGSTOP, 0.9), (signal.SIGCONT, 0.1)):
                for pid in nodes.processes(2):
                    try:
                        os.kill(pid, order)
                    except OSError:
                        continue
                time.sleep(seconds)

    threading.Thread(target=brake, daemon=True).start()
    return "node 2 stopped 90 % of the time"


def poisoned(bench: Bench) -> Path:
    """A list with a missing file, a damaged one, and one that never ends: a named pipe nobody writes to."""
    pipe, torn = bench.work / "pipe.wav", bench.work / "torn.wav"
    if not pipe.exists():
        os.mkfifo(pipe)
    lines = bench.clips.read_text().splitlines()[:500]
    torn.write_bytes(Path(lines[0]).read_bytes()[:30])
    listed = bench.work / "poisoned.txt"
    listed.write_text("\n".join([*lines[:200], str(pipe), str(torn), "missing.wav", *lines[200:]]) + "\n")
    return listed


def million(bench: Bench, count: int) -> Path:
    """A list of many names, of which only the first thousand are there."""
    listed = bench.work / f"names-{count}.txt"
    with open(listed, "w") as file:
        for line in bench.clips.read_text().splitlines()[:1000]:
            file.write(line + "\n")
        for number in range(1000, count):
            file.write(f"{bench.work}/absent/{number:08d}.wav\n")
    return listed


def run(bench: Bench, name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One scenario."""
    if name == "local":
        return bench.local()
    count = {"one": 1, "million": 1, "poison": 1, "two": 2}.get(name, 3)
    with Nodes(count, prefix=bench.prefix) as nodes:
        for number in range(count):
            nodes.start(number)
        if name == "poison":
            more = ("--cluster", "job_seconds=15", "--cluster", "retries=1", "--cluster", "shard=64")
            return bench.cluster(nodes, name, listed=poisoned(bench), more=more)
        if name == "million":
            more = ("--cluster", "shard=10000")
            return bench.cluster(nodes, name, listed=million(bench, arguments.listed), more=more)
        trouble = {"kill": kill_node, "head": kill_head, "slow": slow_node}.get(name)
        return bench.cluster(nodes, name, trouble=trouble)


def main() -> None:
    """Run the scenarios and write `benchmarks/results/cluster.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--clips", type=int, default=20_000)
    parser.add_argument("--listed", type=int, default=1_000_000)
    parser.add_argument("--shard", type=int, default=500)
    parser.add_argument("--work", default="cluster-bench")
    parser.add_argument("--prefix", default="", help="put before every node, such as 'taskset -c 0'")
    parser.add_argument("--scenario", choices=SCENARIOS, action="append")
    parser.add_argument("--results", default=str(machine.RESULTS / "cluster.json"))
    arguments = parser.parse_args()
    if not possible():
        sys.exit("benchmarks.cluster: network namespaces need root, Linux, and the tools ip, unshare and nsenter.")
    bench = Bench(arguments)
    path = Path(arguments.results)
    record = json.loads(path.read_text()) if path.exists() else {}
    record["machine"] = {**machine.describe(), "prefix": arguments.prefix}
    for name in arguments.scenario or SCENARIOS:
        print(name, flush=True)
        record[name] = {"clips": arguments.clips, **run(bench, name, arguments)}
        path.write_text(json.dumps(record, indent=1) + "\n")
        print(json.dumps(record[name], indent=1), flush=True)


if __name__ == "__main__":
    main()
