"""`soundsight prepare` and `soundsight inspect` on a whole data set: wall time, processor time, peak memory.

    python -m benchmarks.folders                       # 20,000 synthesised clips of 5 s, 3.2 GB in a temporary folder
    python -m benchmarks.folders --clips 2000
    python -m benchmarks.folders --esc50 ESC-50        # a real data set instead

Every synthesised clip is another one (coloured noise and tones of its own seed, 16 kHz, 16 bits), so that the search
for duplicates has as much to do as with real recordings. Adds to benchmarks/results/folders.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from benchmarks import machine

CLASSES, RATE, SECONDS = 50, 16000, 5.0


def main() -> None:
    """Synthesise, prepare, inspect."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=20000)
    parser.add_argument("--esc50", type=Path, help="a real data set in ESC-50's layout")
    parser.add_argument("--tmp", help="parent of the temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.tmp) as name:
        work = Path(name)
        if arguments.esc50:
            source, title = [f"root={arguments.esc50.absolute()}"], "ESC-50"
        else:
            started = time.perf_counter()
            source, title = [str(synthesise(work / "sounds", arguments.clips))], f"{arguments.clips} synthesised"
            print(f"synthesised in {time.perf_counter() - started:.0f} s", flush=True)
        result: dict[str, Any] = {"machine": machine.describe()}
        places = [f"cache={work}/cache", f"data={work}/data"]
        for key, words in {
            "prepare": ["prepare", *source, *places],
            "prepare again": ["prepare", *source, *places],
            "inspect": ["inspect", *source, "--page", f"{work}/page.html"],
        }.items():
            result[key] = watched(words, work)
            print(key, result[key], flush=True)
        result["page_megabytes"] = round((work / "page.html").stat().st_size / 1e6, 1)
    path = machine.RESULTS / "folders.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    machine.write("folders", {**known, title: result})


def synthesise(root: Path, clips: int) -> Path:
    """A folder of own sounds with `CLASSES` classes; a clip is another one than all others."""
    for number in range(min(CLASSES, clips)):
        (root / f"class{number:02d}").mkdir(parents=True)
    files = [root / f"class{n % CLASSES:02d}" / f"{n:06d}.wav" for n in range(clips)]
    with ProcessPoolExecutor() as pool:
        list(pool.map(write_clip, files, range(clips), chunksize=64))
    return root


def write_clip(path: Path, seed: int) -> None:
    """Coloured noise with a few tones that come and go."""
    draw = np.random.default_rng(seed)
    samples = round(SECONDS * RATE)
    spectrum = draw.normal(size=samples // 2 + 1) + 1j * draw.normal(size=samples // 2 + 1)
    spectrum *= np.linspace(0.01, 1, len(spectrum)) ** draw.uniform(-1.5, 0.5)
    wave = np.fft.irfft(spectrum, samples)
    wave *= 0.1 / wave.std()
    time_s = np.arange(samples) / RATE
    for _ in range(draw.integers(1, 6)):
        start, length = draw.uniform(0, 4), draw.uniform(0.1, 3)
        inside = (time_s > start) & (time_s < start + length)
        wave[inside] += 0.2 * np.sin(2 * np.pi * draw.uniform(100, 7000) * time_s[inside])
    soundfile.write(path, np.clip(wave, -1, 1), RATE, subtype="PCM_16")


def watched(words: list[str], folder: Path) -> dict[str, float | int]:
    """Run one command; the peak is the largest sum over its processes, sampled ten times a second."""
    import psutil

    peak, samples = 0, threading.Event()
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "soundsight", *words],
        cwd=folder,
        env=machine.child_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    busy: dict[int, float] = {}

    def callback() -> None:
        nonlocal peak
        parent = psutil.Process(process.pid)
        while not samples.wait(0.1):
            total = 0
            try:
                for one in (parent, *parent.children(recursive=True)):
                    total += one.memory_info().rss
                    busy[one.pid] = sum(one.cpu_times()[:2])
            except psutil.Error:
                continue
            peak = max(peak, total)

    thread = threading.Thread(target=callback)
    thread.start()
    code = process.wait()
    seconds = time.perf_counter() - started
    samples.set()
    thread.join()
    return {
        "exit_code": code,
        "wall_seconds": round(seconds, 1),
        "processor_seconds": round(sum(busy.values()), 1),
        "peak_memory_megabytes": round(peak / 1e6),
    }


if __name__ == "__main__":
    main()
