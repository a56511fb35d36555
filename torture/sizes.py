"""Very large inputs: what the commands need of memory for a recording of ten hours, 64 channels, a lying header.

    python -m torture.sizes --hours 10

Peak memory is that of the whole process (Linux's `VmHWM`), libraries included; an ONNX model predicts without PyTorch.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from torture import models, sounds
from torture.recordings import SETTINGS

LIMIT_MB = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=10)
    print(json.dumps(run(parser.parse_args().hours), indent=2))


def run(hours: float) -> dict[str, Any]:
    """Peak memory of each case, in MB, and what went wrong."""
    with tempfile.TemporaryDirectory(prefix="soundsight-torture-") as name:
        place = Path(name)
        model = str(models.make_onnx(place))
        long = _long(place / "long" / "bark" / "long.flac", hours)
        wide = _wide(place / "wide" / "bark" / "wide.wav")
        lying = _lying(place / "lying" / "bark" / "lying.wav")
        cases = {
            "predict, a minute": ["predict", model, str(_long(place / "minute.flac", 1 / 60)), "--summary"],
            f"predict, {hours:g} hours": ["predict", model, str(long), "--summary", "--out", str(place / "a.csv")],
            f"prepare, {hours:g} hours": _prepare(place, long),
            "predict, 64 channels": ["predict", model, str(wide), "--summary"],
            "prepare, 64 channels": _prepare(place, wide),
            "predict, a header of 4 GB": ["predict", model, str(lying), "--summary"],
            "prepare, a header of 4 GB": _prepare(place, lying),
        }
        found: dict[str, Any] = {}
        problems = []
        for case, words in cases.items():
            started = time.monotonic()
            code, peak, said = measure(words)
            found[case] = {"peak_mb": peak, "seconds": round(time.monotonic() - started)}
            if code not in (0, 1) or peak > LIMIT_MB:
                problems.append(f"{case}: exit {code}, {peak} MB, {said[-200:]}")
    return {"limit_mb": LIMIT_MB, "cases": found, "problems": problems}


def _prepare(place: Path, file: Path) -> list[str]:
    root = file.parent.parent
    target = place / f"{root.name}-out"
    return ["prepare", str(root), f"cache={target / 'c'}", f"data={target / 'd'}", *SETTINGS, "--workers", "1"]


def _long(path: Path, hours: float) -> Path:
    """A quiet recording at the model's rate."""
    path.parent.mkdir(parents=True, exist_ok=True)
    minute = 0.01 * sounds.noise(60 * sounds.RATE)
    with soundfile.SoundFile(path, "w", sounds.RATE, 1, "PCM_16") as file:
        for _ in range(round(60 * hours)):
            file.write(minute)
    return path


def _wide(path: Path) -> Path:
    path.parent.mkdir(parents=True)
    soundfile.write(path, np.repeat(0.1 * sounds.noise(60 * 48000), 64, axis=1), 48000)
    return path


def _lying(path: Path) -> Path:
    """A short WAV whose header claims four gigabytes."""
    path.parent.mkdir(parents=True)
    data = bytearray(sounds.whole()["wav"])
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    return path


def measure(words: list[str]) -> tuple[int, int, str]:
    """Run a command; its exit code, its peak memory in MB, and what it said."""
    code = (
        "import sys; from soundsight.cli import main; code = main(sys.argv[1:])\n"
        "status = open('/proc/self/status').read().split()\n"
        "print('PEAK', int(status[status.index('VmHWM:') + 1]) // 1024, file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, errors="replace", check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    said, _, peak = done.stderr.rpartition("PEAK ")
    return done.returncode, int(peak) if peak.strip().isdigit() else -1, said or done.stderr


if __name__ == "__main__":
    main()
