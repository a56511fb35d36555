"""`soundsight prepare` as a whole: start-up, cores, clips left alone, memory, growth with the number of clips.

    python -m benchmarks.prepare            # about ten minutes; writes benchmarks/results/prepare.json
    python -m benchmarks.prepare --quick    # about a minute, to see that it works; writes nothing

Times here are wall times of fresh processes, so the machine must have nothing else to do; the load average
before the run is in the results. Clips are synthesised (16 kHz, 16 bits); a large data set is made of hard
links to a hundred of them, each rendered as if it were another recording.

- start-up: from calling the command to the first finished image in the cache;
- cores: the same data set, 5 s clips at the default settings, rendered by one worker and by two, in turn; and the
  limit, two commands of one worker at the same time;
- growth: data sets of short clips and small images, chosen anew and then left alone in a second run; peak
  memory of the main process and of each worker; straight lines fitted to all but the largest data set.

Its digest is in docs/performance.md.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks import machine

FOUNDATION = 100  # different recordings in a data set
SMALL = {"clip_seconds": 0.5, "image_size": 32}  # of the growth part
SIZES = (1000, 2000, 5000, 10000, 20000, 100000)
AIMS = {"startup_s": 0.5, "speedup": 1.8, "skipped_per_s": 10000}


def main() -> None:
    """Run all, or be one of the measured processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--clips", type=int, default=2000, help="of the part about cores")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--largest", type=int, default=SIZES[-1])
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measured_prepare(**json.loads(arguments.child))))
        return
    if arguments.quick:
        arguments.clips, arguments.repeat, arguments.largest = 200, 1, 2000
    result: dict[str, Any] = {"machine": machine.describe(), "repetitions": arguments.repeat}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        result["startup"] = startup(folder, arguments.repeat + 2)
        result["cores"] = cores(folder, arguments.clips, arguments.repeat)
        result["growth"] = growth(folder, [size for size in SIZES if size <= arguments.largest])
    if not arguments.quick:
        machine.write("prepare", result)


# -- data sets ------------------------------------------------------------------------------------------


def write_sounds(root: Path, clips: int, seconds: float) -> Path:
    """A data set in ESC-50's layout of `clips` recordings, hard links to a hundred synthesised ones."""
    from soundsight.synthesis import dataset as demo

    per_class = FOUNDATION // len(demo.CLASSES)
    foundation = root.with_name(f"foundation-{seconds:g}")
    demo.write_dataset(foundation, clips_per_class=per_class, takes=1, seconds=seconds)
    with open(foundation / "meta" / "esc50.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    random.Random(0).shuffle(rows)  # all folds early on
    for part in ("audio", "meta"):
        (root / part).mkdir(parents=True, exist_ok=True)
    with open(root / "meta" / "esc50.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        for number in range(clips):
            row = rows[number % len(rows)]
            fold, source, take, target = row["filename"].removesuffix(".wav").split("-")
            name = f"{fold}-{source}{number}-{take}-{target}.wav"
            if not (root / "audio" / name).exists():
                os.link(foundation / "audio" / row["filename"], root / "audio" / name)
            table.writerow({**row, "filename": name, "src_file": f"{source}{number}"})
    return root


# -- start-up -------------------------------------------------------------------------------------------


def startup(folder: Path, repeat: int) -> dict[str, Any]:
    """Seconds from calling the command to its first image, by number of workers."""
    root = write_sounds(folder / "few", 40, 5.0)
    result = {}
    print("\nstart-up")
    for workers in (1, 2):
        seconds = []
        for turn in range(repeat + 1):
            cache, data = folder / "few-cache", folder / "few-data"
            took = first_picture([f"root={root}", f"cache={cache}", f"data={data}", f"--workers={workers}"], cache)
            seconds += [took] if turn else []  # the first run writes byte code
            shutil.rmtree(cache)
            shutil.rmtree(data)
        result[f"workers_{workers}_s"] = round(statistics.median(seconds), 3)
        print(f"  {workers} workers: first image after {result[f'workers_{workers}_s']:.3f} s", flush=True)
    return result


def first_picture(words: list[str], cache: Path) -> float:
    """Run `soundsight prepare` and watch the cache for an image."""
    environment = machine.child_environment()
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "soundsight", "prepare", *words],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    took = None
    while process.poll() is None:
        if took is None and any(path.suffix == ".png" and path.name[0] != "." for path in cache.glob("*/*")):
            took = time.perf_counter() - started
        time.sleep(0.001)
    if took is None or process.returncode:
        raise RuntimeError(f"`soundsight prepare` failed: {process.stderr.read() if process.stderr else ''}")
    return took


# -- cores ----------------------------------------------------------------------------------------------


def cores(folder: Path, clips: int, repeat: int) -> dict[str, Any]:
    """Clips a second with one worker and with two, the whole command from its start to its end."""
    root = write_sounds(folder / "long", clips, 5.0)
    runs: dict[int, list[float]] = {1: [], 2: []}
    print(f"\ncores: {clips} clips of 5 s")
    for _ in range(repeat):
        for workers, measured in runs.items():
            measured.append(command(folder, root, workers=workers))
            print(f"  {workers} workers: {measured[-1]:.2f} s", flush=True)
            clear(folder)
    ratios = [one / two for one, two in zip(runs[1], runs[2], strict=True)]
    apart = [side_by_side(folder, root) for _ in range(repeat)]
    result = {
        "clips": clips,
        **{f"workers_{n}_s": round(statistics.median(runs[n]), 3) for n in runs},
        **{f"workers_{n}_clips_per_s": round(clips / statistics.median(runs[n])) for n in runs},
        "speedup": round(statistics.median(ratios), 3),
        "speedup_of_each": [round(ratio, 3) for ratio in ratios],
        "limit": round(2 * statistics.median(runs[1]) / statistics.median(apart), 3),
    }
    print(f"  speed-up {result['speedup']:.2f} (aim {AIMS['speedup']}; limit {result['limit']:.2f})")
    return result


def side_by_side(folder: Path, root: Path) -> float:
    """Seconds until two commands of one worker, each with the whole data set, are both done.

    Twice the time of one over this is what two cores give to work that shares nothing: cores that are two threads of
    one, or a shared memory bus, show here.
    """
    started = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda place: command(place, root, workers=1), (folder / "left", folder / "right")))
    took = time.perf_counter() - started
    for place in (folder / "left", folder / "right"):
        shutil.rmtree(place)
    return took


# -- growth ---------------------------------------------------------------------------------------------


def growth(folder: Path, sizes: list[int]) -> dict[str, Any]:
    """Time and memory by number of clips, and straight lines through all but the last."""
    steps = []
    print("\ngrowth")
    for size in sizes:
        root = write_sounds(folder / "short", size, SMALL["clip_seconds"])
        rendered = call(folder, root, workers=2, settings=SMALL)
        kept = call(folder, root, workers=2, settings=SMALL)
        clear(folder)
        if (rendered["drawn"], kept["kept"]) != (size, size):
            raise RuntimeError(f"Of {size} clips, {rendered['drawn']} were rendered and {kept['kept']} kept.")
        steps.append(
            {
                "clips": size,
                "draw_s": rendered["prepare_s"],
                "skip_s": kept["prepare_s"],
                "skipped_per_s": round(size / kept["prepare_s"]),
                "main_mib": rendered["main_mib"],
                "worker_mib": rendered["worker_mib"],
            }
        )
        print("  " + ", ".join(f"{key} {value}" for key, value in steps[-1].items()), flush=True)
    shutil.rmtree(folder / "short")
    return {
        "settings": SMALL,
        "steps": steps,
        "fits": {key: fit(steps, key) for key in ("draw_s", "skip_s", "main_mib")},
    }


def fit(steps: list[dict[str, Any]], key: str) -> dict[str, float]:
    """A line through all steps but the last, and how far the last is from it."""
    import numpy as np

    clips = np.array([step["clips"] for step in steps[:-1]], float)
    values = np.array([step[key] for step in steps[:-1]], float)
    if len(clips) < 2:
        return {}
    slope, offset = np.polyfit(clips, values, 1)
    predicted = offset + slope * steps[-1]["clips"]
    return {
        "offset": round(float(offset), 4),
        "per_1000_clips": round(1000 * float(slope), 4),
        "predicted_last": round(float(predicted), 3),
        "measured_last": steps[-1][key],
        "ratio_last": round(steps[-1][key] / float(predicted), 3),
    }


# -- measured processes ---------------------------------------------------------------------------------


def command(folder: Path, root: Path, *, workers: int) -> float:
    """Seconds that `soundsight prepare` takes."""
    words = [f"root={root}", f"cache={folder / 'cache'}", f"data={folder / 'data'}", f"--workers={workers}"]
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "soundsight", "prepare", *words],
        env=machine.child_environment(),
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - started


def call(folder: Path, root: Path, *, workers: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Prepare a data set in a fresh process."""
    words = {"root": str(root), "cache": str(folder / "cache"), "data": str(folder / "data")}
    return machine.run_child(
        "benchmarks.prepare", "--child", json.dumps({"words": words, "workers": workers, "settings": settings})
    )


def clear(folder: Path) -> None:
    """Forget what was rendered."""
    for name in ("cache", "data"):
        shutil.rmtree(folder / name, ignore_errors=True)


def measured_prepare(words: dict[str, str], workers: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Prepare here; seconds, counts, and peak memory of this process and of the largest worker."""
    from soundsight.config import DatasetConfig, SpectrogramConfig
    from soundsight.datasets.prepare import prepare

    callback = WorkerMemory()
    callback.start()
    done = prepare(DatasetConfig(**words), SpectrogramConfig(**settings), workers=workers)
    callback.done.set()
    callback.join()
    return {
        "prepare_s": round(done.seconds, 3),
        "drawn": done.rendered,
        "kept": done.kept,
        "main_mib": peak_mib(os.getpid()),
        "worker_mib": max(callback.peaks.values(), default=None),
    }


class WorkerMemory(threading.Thread):
    """Peak resident memory of the processes that our children started, by process; Linux only."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.done = threading.Event()
        self.peaks: dict[int, int] = {}

    def run(self) -> None:
        """Look four times a second."""
        while not self.done.wait(0.25):
            parents = {}
            for status in Path("/proc").glob("[0-9]*/stat"):
                try:
                    parents[int(status.parent.name)] = int(status.read_text().rsplit(")", 1)[1].split()[1])
                except (OSError, ValueError, IndexError):
                    continue
            children = {pid for pid, parent in parents.items() if parent == os.getpid()}
            for pid in (pid for pid, parent in parents.items() if parent in children):
                if peak := peak_mib(pid):
                    self.peaks[pid] = peak


def peak_mib(pid: int) -> int | None:
    """Peak resident memory of a process in MiB."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((round(int(line.split()[1]) / 1024) for line in lines if line.startswith("VmHWM")), None)


if __name__ == "__main__":
    main()
