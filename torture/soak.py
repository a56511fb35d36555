"""Soak: `serve` under bounded load on this machine, and `listen` on a looped recording, for as long as you like.

    python -m torture.soak --minutes 60

Memory, latency and answers of the last quarter are held against those of the second one: the first warms up.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from torture import models, sounds

PAUSE_SECONDS = 0.05  # between two requests: load, not an attack
GROWTH_MB = 30
SLOWER = 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    minutes = parser.parse_args().minutes
    print(json.dumps({"serve": serve(30 * minutes), "listen": listen(30 * minutes)}, indent=2))


def serve(seconds: float) -> dict[str, Any]:
    """Send the same recording again and again to a real server; every answer must be the first one."""
    with tempfile.TemporaryDirectory(prefix="soundsight-torture-") as name:
        model = models.make_onnx(Path(name))
        command = [sys.executable, "-m", "soundsight", "serve", str(model), "--port", "0", "--threads", "1"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                address = _address(process)
                body = sounds.encode(sounds.noise(16000))
                first, samples, wrong = None, [], 0
                until = time.monotonic() + seconds
                while time.monotonic() < until:
                    started = time.monotonic()
                    answer = _ask(address, body)
                    samples.append((time.monotonic() - started, _memory_mb(process.pid)))
                    first = first or answer
                    wrong += answer != first
                    time.sleep(PAUSE_SECONDS)
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


def listen(seconds: float) -> dict[str, Any]:
    """Listen to a looped recording in real time; answers of one place in the loop must be the same."""
    from soundsight import live
    from soundsight.predict import load

    with tempfile.TemporaryDirectory(prefix="soundsight-torture-") as name:
        listener = load(models.make_onnx(Path(name)), device="cpu", threads=1)
        samples, wrong = [], 0
        seen: dict[int, np.ndarray] = {}
        for heard in live.listen(listener, _Loop(seconds), every_seconds=0.25):
            samples.append((heard.latency_seconds, _memory_mb("self")))
            place = round(heard.seconds / 0.25) % 8
            if heard.seconds >= 2:
                wrong += not np.array_equal(seen.setdefault(place, heard.probabilities), heard.probabilities)
    return _judge(samples, wrong)


class _Loop:
    """An input that plays two seconds of noise again and again, at the pace of a sound card."""

    sample_rate = sounds.RATE
    overruns = 0

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.sound = sounds.noise(2 * sounds.RATE)[:, 0]

    def waiting_seconds(self) -> float:
        """Nothing waits: a block comes when it is due."""
        return 0.0

    def blocks(self) -> Iterator[tuple[np.ndarray, float]]:
        """Blocks of 0.25 s with the time at which they ended."""
        started, size = time.monotonic(), sounds.RATE // 4
        for number in range(round(4 * self.seconds)):
            time.sleep(max(0.0, started + (number + 1) / 4 - time.monotonic()))
            begin = number % 8 * size
            yield self.sound[begin : begin + size], time.monotonic()


def _judge(samples: list[tuple[float, int]], wrong: int) -> dict[str, Any]:
    """Latency in ms and memory in MB in the second and the last quarter, and what is wrong with them."""
    quarter = max(1, len(samples) // 4)
    parts = {"second_quarter": samples[quarter : 2 * quarter] or samples, "last_quarter": samples[-quarter:]}
    found: dict[str, Any] = {"answers": len(samples), "wrong": wrong}
    for name, part in parts.items():
        found[name] = {
            "latency_ms": round(1000 * statistics.median(latency for latency, _ in part), 1),
            "memory_mb": round(statistics.median(memory for _, memory in part)),
        }
    early, late = (found[name] for name in parts)
    problems = [f"{wrong} answers differ"] if wrong else []
    if late["memory_mb"] > early["memory_mb"] + GROWTH_MB:
        problems.append("memory grows")
    if late["latency_ms"] > SLOWER * early["latency_ms"] + 20:
        problems.append("answers get slower")
    return {**found, "problems": problems}


def _memory_mb(pid: int | str) -> int:
    """Resident memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS"))


if __name__ == "__main__":
    main()
