"""What a Ray cluster costs and gains, and what it survives: several nodes on this machine, in network namespaces.

    python -m benchmarks.cluster MODEL --clips 20000 --work FOLDER [--scenario NAME ...] [--prefix "taskset -c 0"]
    python -m benchmarks.cluster MODEL --engine former --source CHECKOUT/src    # another version, side by side

All nodes share this machine's processors, so more nodes are not faster unless there are cores for them: the
processor time tells the overhead, and the faults tell whether the predictions stay whole. Needs root and Linux.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import shlex
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from benchmarks import machine
from benchmarks.nodes import WORKERS, Nodes, possible
from benchmarks.troubles import Poison, Trouble, kill_head, kill_node, slow_node, stop_early, storm

SCENARIOS = ("local", "one", "two", "three", "kill", "head", "slow", "poison", "storm", "million")


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
        self.source = str(Path(arguments.source).absolute()) if arguments.source else ""
        self.environment = machine.child_environment() | ({"PYTHONPATH": self.source} if self.source else {})

    def local(self) -> dict[str, Any]:
        """The local engine on the same list."""
        self.reference.unlink(missing_ok=True)
        command = [*self.prefix, *self._command(self.clips, self.reference), "--threads", "1"]
        before, started = os.times(), time.monotonic()
        subprocess.run(command, env=self.environment, check=True, stderr=subprocess.DEVNULL)
        after = os.times()
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        return {"seconds": round(time.monotonic() - started, 1), "cpu_seconds": round(cpu, 1), "inputs": self.count}

    def cluster(
        self,
        nodes: Nodes,
        name: str,
        *,
        listed: Path | None = None,
        trouble: Trouble | None = None,
        more: tuple[str, ...] = (),
    ) -> dict[str, Any]:
        """The same command on a cluster, with or without trouble on the way."""
        out = self.work / f"{name}.csv"
        folder = Path(f"{out}.shards")
        subprocess.run(["rm", "-rf", str(folder), str(out)], check=True)
        command = [*nodes.inside(0), *self._command(listed or self.clips, out), "--engine", "ray"]
        command += ["--address", nodes.address, "--cluster", f"shard={self.shard}", *more]
        environment = {**self.environment, **nodes.environment}
        callback, started, over = Callback(nodes), time.monotonic(), threading.Event()
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        found: dict[str, Any] = {}
        struck = trouble(nodes, folder / "shards", over) if trouble else None
        said = process.communicate(timeout=5400)[1]
        while "went away; what is done is kept: run the same command again" in said.splitlines()[-1]:
            found["given_again"] = found.get("given_again", 0) + 1
            process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
            said = process.communicate(timeout=5400)[1]
        over.set()
        found |= {"seconds": round(time.monotonic() - started, 1), **callback.stop()}
        found |= {"exit_code": process.returncode, "said": said.splitlines()[-8:]}
        if (folder / "manifest.json").exists():
            manifest = json.loads((folder / "manifest.json").read_text())
            found |= {key: manifest[key] for key in ("complete", "shards", "sources", "rows", "failures")}
            found |= _recovery(folder / "shards", struck, 2 * nodes.count) if struck else {}
        if out.exists() and self.reference.exists():
            if name != "million":  # another list
                found["same_bytes_as_local"] = filecmp.cmp(out, self.reference, shallow=False)
            names = [line.partition(",")[0] for line in out.read_text().splitlines()[1:]]
            found |= {"outputs": len(set(names)), "duplicates": len(names) - len(set(names))}
        return found

    def _command(self, listed: Path, out: Path) -> list[str]:
        words = [sys.executable, "-P", "-m", "soundsight", "predict", self.model, f"@{listed}"]
        return [*words, "--out", str(out), "--device", "cpu", "--top-k", "1"]


class Callback(threading.Thread):
    """Watches processor time and memory: of the driver, the workers, and all that Ray runs beside them.

    Looks once a second, so what a process did in its last second may be missed.
    """

    def __init__(self, nodes: Nodes) -> None:
        super().__init__(daemon=True)
        self.nodes, self.peak, self.over = nodes, 0.0, threading.Event()
        self.seen: dict[tuple[int, str], tuple[str, float]] = {}  # (number, start): kind, seconds
        self._look()
        self.before = dict(self.seen)
        self.start()

    def run(self) -> None:
        """Until `stop`."""
        while not self.over.wait(1.0):
            self._look()

    def _look(self) -> None:
        for number in list(self.nodes.machines):
            for pid in self.nodes.processes(number, b""):
                try:
                    words = Path(f"/proc/{pid}/cmdline").read_bytes()
                    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                    started = pid, fields[19]
                    worked = self.seen.get(started, ("", 0.0))[0] == "workers"  # named so while it works
                    kind = "workers" if worked or words.startswith(WORKERS) else "ray"
                    if b"-m\0soundsight\0" in words:
                        kind = "driver"
                        status = Path(f"/proc/{pid}/status").read_text()
                        self.peak = max(self.peak, int(status.partition("VmHWM:")[2].split()[0]) / 1024)
                except (OSError, IndexError):
                    continue
                seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
                self.seen[started] = kind, seconds

    def stop(self) -> dict[str, float]:
        """Seconds by kind since the start, and the driver's largest memory."""
        self._look()
        self.over.set()
        self.join()
        found = {"driver": 0.0, "workers": 0.0, "ray": 0.0}
        for process, (kind, seconds) in self.seen.items():
            found[kind] += seconds - self.before.get(process, (kind, 0.0))[1]
        cpu = {f"cpu_seconds_{kind}": round(seconds, 1) for kind, seconds in found.items()}
        return {"cpu_seconds": round(sum(found.values()), 1), **cpu, "driver_peak_mb": round(self.peak, 1)}


def _recovery(shards: Path, since: float, in_flight: int) -> dict[str, float]:
    """How long a trouble at `since` was felt: the longest time without a new shard, and when all was made up for.

    Shards are given out in order; so those in flight at the time are the first that were not there yet.
    """
    times = {int(p.stem.rpartition("-")[2]): p.stat().st_mtime for p in shards.glob("part-*.parquet")}
    later = sorted(t for t in times.values() if t > since)
    if not later:
        return {}
    flying = [times[index] for index in sorted(times) if times[index] > since][:in_flight]
    pause = max(b - a for a, b in zip([since, *later], later, strict=False))
    return {"longest_pause_seconds": round(pause, 1), "recovery_seconds": round(max(flying) - since, 1)}


def poisoned(bench: Bench) -> Path:
    """The list with four more: a missing file, a damaged one, one that kills its worker and one that stops it."""
    torn = bench.work / "torn.wav"
    lines = bench.clips.read_text().splitlines()
    torn.write_bytes(Path(lines[0]).read_bytes()[:30])
    middle = len(lines) // 2
    bad = [str(bench.work / "kills.wav"), str(torn), "missing.wav", str(bench.work / "stops.wav")]
    listed = bench.work / f"poisoned-{bench.count}.txt"
    listed.write_text("\n".join([*lines[:middle], *bad, *lines[middle:]]) + "\n")
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
    count = {"one": 1, "million": 1, "two": 2}.get(name, 3)
    with Nodes(count, prefix=bench.prefix, source=bench.source) as nodes:
        for number in range(count):
            nodes.start(number)
        if name == "million":
            more = ("--cluster", "shard=10000")
            listed = million(bench, arguments.listed)
            return bench.cluster(nodes, name, listed=listed, more=more, trouble=stop_early)
        if name not in ("poison", "storm"):
            trouble = {"kill": kill_node, "head": kill_head, "slow": slow_node}.get(name)
            return bench.cluster(nodes, name, trouble=trouble)
        poison = Poison(bench.work, nodes)
        poison.start()
        try:
            more = ("--cluster", "job_seconds=60", "--cluster", "retries=1")
            trouble = storm if name == "storm" else None
            found = bench.cluster(nodes, name, listed=poisoned(bench), trouble=trouble, more=more)
        finally:
            poison.over.set()
        return {**found, "signals": {Path(path).name: count for path, count in poison.sent.items()}}


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
    parser.add_argument("--engine", default="now", help="name of the version in the results")
    parser.add_argument("--source", default="", help="src/ of another checkout, which works in place of this one")
    parser.add_argument("--results", default=str(machine.RESULTS / "cluster.json"))
    arguments = parser.parse_args()
    if not possible():
        sys.exit("benchmarks.cluster: network namespaces need root, Linux, and the tools ip, unshare and nsenter.")
    bench = Bench(arguments)
    path = Path(arguments.results)
    everything = json.loads(path.read_text()) if path.exists() else {}
    record = everything.setdefault(arguments.engine, {})
    record["machine"] = {**machine.describe(), "prefix": arguments.prefix}
    for name in arguments.scenario or SCENARIOS:
        print(name, flush=True)
        record[name] = {"clips": arguments.clips, **run(bench, name, arguments)}
        path.write_text(json.dumps(everything, indent=1) + "\n")
        print(json.dumps(record[name], indent=1), flush=True)


if __name__ == "__main__":
    main()
