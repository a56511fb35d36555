"""Soak: `serve` under bounded load on this machine, and `listen` on a looped recording, both for as long as you like.

    python -m torture.soak --minutes 60 --rate 2

Both run at the same time. Latency, memory, open files and processor time of the last quarter are held against those
of the second one: the first warms up. The predictions to the same sound must be the same to the last bit printed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torture import loop, models, sounds

GROWTH_MB = 5
SLOWER = 2.0


@dataclass(frozen=True)
class Sample:
    """One prediction: how long it took, and what the process had by then."""

    latency_seconds: float
    memory_mb: float
    open_files: int
    processor_seconds: float  # in all


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=float, default=2.0, help="requests a second to the server (default: 2)")
    arguments = parser.parse_args()
    print(json.dumps(run(60 * arguments.minutes, arguments.rate), indent=2))


def run(seconds: float, rate: float = 2.0) -> dict[str, Any]:
    """Both parts side by side for so many seconds."""
    with tempfile.TemporaryDirectory(prefix="soundsight-torture-") as name, ThreadPoolExecutor(2) as pool:
        model = models.make_onnx(Path(name))
        parts = {"serve": pool.submit(serve, model, seconds, rate), "listen": pool.submit(listen, model, seconds)}
        return {"minutes": round(seconds / 60, 1), **{part: done.result() for part, done in parts.items()}}


def serve(model: Path, seconds: float, rate: float) -> dict[str, Any]:
    """Send four recordings in turn to a real server; every prediction must be the first one to that recording."""
    bodies = [sounds.encode(sounds.noise(round(2000 * (3 + 5 * number)), seed=number)) for number in range(4)]
    command = [sys.executable, "-m", "soundsight", "serve", str(model), "--port", "0", "--threads", "1"]
    firsts: dict[int, object] = {}
    samples: list[Sample] = []
    wrong, tell = 0, _teller("serve")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            address = _address(process)
            began = time.monotonic()
            while (due := began + len(samples) / rate) < began + seconds:
                time.sleep(max(0.0, due - time.monotonic()))
                started, place = time.monotonic(), len(samples) % len(bodies)
                answer = _ask(address, bodies[place])
                samples.append(_sample(process.pid, time.monotonic() - started))
                wrong += answer != firsts.setdefault(place, answer)
                tell(samples)
        finally:
            process.terminate()
    return _judge(samples, wrong)


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    found = re.search(r"http://\S+", process.stdout.readline())
    if not found:
        raise RuntimeError("the server did not start")
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"{found[0]}/health", timeout=10):
                break
        except OSError:
            time.sleep(0.1)
    return found[0]


def _ask(address: str, body: bytes) -> object:
    request = urllib.request.Request(f"{address}/api/predict?picture=true&hop_seconds=0.25", body, method="POST")
    with urllib.request.urlopen(request, timeout=120) as reply:
        return json.load(reply)["windows"]


def listen(model: Path, seconds: float) -> dict[str, Any]:
    """The command on a loop, at its real pace; predictions of one place in the loop must be the same."""
    command = [sys.executable, "-m", "torture.loop", str(seconds), str(model), "--every", str(loop.BLOCK_SECONDS)]
    places = round(loop.LOOP_SECONDS / loop.BLOCK_SECONDS)
    seen: dict[int, tuple[str, float]] = {}
    samples: list[Sample] = []
    wrong, tell = 0, _teller("listen")
    with subprocess.Popen(
        [*command, "--format", "jsonl", "--threads", "1"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            heard = json.loads(line)
            if process.poll() is None:
                samples.append(_sample(process.pid, heard["latency_ms"] / 1000))
            answer = (heard["label"], heard["probability"])
            if heard["seconds"] >= loop.LOOP_SECONDS:  # the window is full of the loop
                place = round(heard["seconds"] / loop.BLOCK_SECONDS) % places
                wrong += answer != seen.setdefault(place, answer)
            tell(samples)
    found = _judge(samples, wrong)
    expected = round(seconds / loop.BLOCK_SECONDS)
    if process.returncode or len(samples) < expected - 2:
        found["problems"].append(f"{len(samples)} of {expected} predictions, exit code {process.returncode}")
    return found


def _teller(name: str) -> Callable[[list[Sample]], None]:
    """Something that writes a line about every five minutes to standard error."""
    last = time.monotonic()

    def tell(samples: list[Sample]) -> None:
        nonlocal last
        if time.monotonic() >= last + 300:
            last = time.monotonic()
            print(f"{name}: {len(samples)} predictions, {samples[-1]}", file=sys.stderr, flush=True)

    return tell


def _sample(pid: int, latency_seconds: float) -> Sample:
    """What Linux says about a process now."""
    place = Path(f"/proc/{pid}")
    lines = (place / "status").read_text(encoding="utf-8").splitlines()
    memory = next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))
    times = (place / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[11:13]
    return Sample(
        latency_seconds, memory, len(os.listdir(place / "fd")), sum(map(int, times)) / os.sysconf("SC_CLK_TCK")
    )


def _judge(samples: list[Sample], wrong: int) -> dict[str, Any]:
    """Figures of each quarter, and what is wrong with the last one against the second."""
    found: dict[str, Any] = {"answers": len(samples), "wrong": wrong, "quarters": []}
    ends = [round(len(samples) * quarter / 4) for quarter in range(5)]
    for begin, end in zip(ends, ends[1:], strict=False):
        part = samples[begin:end]
        if len(part) < 2:
            return {**found, "problems": ["too few predictions"]}
        latencies = sorted(sample.latency_seconds for sample in part)
        spent = part[-1].processor_seconds - part[0].processor_seconds
        found["quarters"].append(
            {
                "answers": len(part),
                "latency_ms": round(1000 * statistics.median(latencies), 2),
                "latency_95_ms": round(1000 * latencies[int(0.95 * len(part))], 2),
                "slowest_ms": round(1000 * latencies[-1], 1),
                "processor_ms": round(1000 * spent / (len(part) - 1), 2),
                "memory_mb": round(statistics.median(sample.memory_mb for sample in part), 1),
                "memory_most_mb": round(max(sample.memory_mb for sample in part), 1),
                "open_files": max(sample.open_files for sample in part),
            }
        )
    early, late = found["quarters"][1], found["quarters"][3]
    problems = [f"{wrong} predictions differ"] if wrong else []
    if late["memory_mb"] > early["memory_mb"] + GROWTH_MB:
        problems.append("memory grows")
    if late["open_files"] > early["open_files"] + 5:
        problems.append("open files grow")
    if late["latency_ms"] > SLOWER * early["latency_ms"] + 20:
        problems.append("predictions get slower")
    return {**found, "problems": problems}


if __name__ == "__main__":
    main()
