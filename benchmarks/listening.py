"""Memory and processor share of `soundsight listen` on one thread, on sound that arrives in real time.

    python -m benchmarks.listening last.pt last.onnx --seconds 60

Samples (pink noise, or --sound) are written to standard input of `soundsight listen MODEL --raw 16000 --threads 1` as
fast as they would be recorded. The processor time of the first `WARM` seconds (start and loading) is not counted.
Writes benchmarks/results/listening.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import soundfile

from benchmarks import machine, scenes
from soundsight.audio import resample

RATE = 16_000  # Hz
BLOCK_SECONDS = 0.1
WARM = 30.0  # seconds


def main() -> None:
    """Measure each model with each interval."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--sound", type=Path, help="a recording, repeated")
    parser.add_argument("--seconds", type=float, default=60.0, help="that are measured")
    parser.add_argument("--every", type=float, nargs="+", default=[1.0, 2.0])
    arguments = parser.parse_args()
    if arguments.sound:
        samples, rate = soundfile.read(arguments.sound, dtype="float32", always_2d=True)
        sound = resample(samples.mean(axis=1), rate, RATE)
    else:
        sound = (0.1 * scenes.pink_noise(30 * RATE, np.random.default_rng(0))).astype(np.float32)
    rows = [measure(model, sound, every, arguments.seconds) for model in arguments.models for every in arguments.every]
    machine.write("listening", {"machine": machine.describe(), "seconds": arguments.seconds, "rows": rows})


def measure(model: Path, sound: np.ndarray, every: float, seconds: float) -> dict[str, Any]:
    """One process: its share of a processor, its largest memory, and how late its predictions were."""
    data = np.round(32767 * np.clip(sound, -1, 1)).astype("<i2")
    block = round(BLOCK_SECONDS * RATE)
    command = [sys.executable, "-m", "soundsight", "listen", str(model), "--raw", str(RATE), "--threads", "1"]
    command += ["--device", "cpu", "--every", str(every), "--format", "jsonl"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=False, env=machine.child_environment()
    ) as child:
        assert child.stdin is not None and child.stdout is not None
        process = psutil.Process(child.pid)
        begin, before, memory = time.monotonic(), 0.0, 0
        for number in range(round((WARM + seconds) / BLOCK_SECONDS)):
            start = number * block % (len(data) - block)
            child.stdin.write(data[start : start + block].tobytes())
            child.stdin.flush()
            if number == round(WARM / BLOCK_SECONDS):
                warm, before = time.monotonic(), sum(process.cpu_times()[:2])
            memory = max(memory, process.memory_info().rss)
            time.sleep(max(0.0, begin + (number + 1) * BLOCK_SECONDS - time.monotonic()))
        used, passed = sum(process.cpu_times()[:2]) - before, time.monotonic() - warm
        child.stdin.close()
        lines = [json.loads(line) for line in child.stdout.read().splitlines()]
    late = sorted(line["latency_ms"] for line in lines if line["seconds"] > WARM)
    row = {
        "model": model.suffix[1:],
        "every_seconds": every,
        "processor_share": round(used / passed, 4),
        "processor_ms_per_prediction": round(1000 * used / max(len(late), 1), 1),
        "memory_mib": round(memory / 2**20),
        "predictions": len(late),
        "latency_ms_median": late[len(late) // 2] if late else None,
    }
    print(row, flush=True)
    return row


if __name__ == "__main__":
    main()
