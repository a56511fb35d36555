"""Very many recordings: 100,000 files through `prepare` and `predict`, each one used or listed with a reason.

    python -m torture.many --files 100000

Every hundredth file is damaged. Peak memory is that of the whole process (Linux's `VmHWM`), libraries included.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from soundsight.datasets import manifest
from torture import models, sounds
from torture.recordings import SETTINGS
from torture.sizes import measure

LIMIT_MB = 1000
DAMAGED = 100  # every so many


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    print(json.dumps(run(parser.parse_args().files), indent=2))


def run(count: int) -> dict[str, Any]:
    """Peak memory in MB, seconds and counts of both commands, and what went wrong."""
    with tempfile.TemporaryDirectory(prefix="soundsight-torture-") as name:
        place = Path(name)
        model = str(models.make_onnx(place))
        files, damaged = _write(place / "sounds", count)
        found: dict[str, Any] = {"files": count, "damaged": len(damaged), "limit_mb": LIMIT_MB, "problems": []}
        found["prepare"] = _prepare(place, files, damaged, found["problems"])
        found["predict"] = _predict(place, model, files, damaged, found["problems"])
    return found


def _write(root: Path, count: int) -> tuple[set[str], set[str]]:
    """Recordings of 50 ms, each of other noise: all names, and those of the damaged ones."""
    long = sounds.noise(sounds.RATE * 60)
    frames = sounds.RATE // 20
    names, damaged = set(), set()
    for label in models.NAMES:
        (root / label).mkdir(parents=True)
    for index in range(count):
        name = f"{models.NAMES[index % 2]}/{index:06d}.wav"
        begin = index * 37 % (len(long) - frames)  # 37 has no factor in common with that: no two are alike
        data = sounds.encode(long[begin : begin + frames])
        if index % DAMAGED == DAMAGED - 1:
            data = data[: 20 + index // DAMAGED % 20]
            damaged.add(name)
        (root / name).write_bytes(data)
        names.add(name)
    return names, damaged


def _prepare(place: Path, files: set[str], damaged: set[str], problems: list[str]) -> dict[str, Any]:
    data = place / "data"
    words = ["prepare", str(place / "sounds"), f"cache={place / 'cache'}", f"data={data}", *SETTINGS, "--workers", "1"]
    started = time.monotonic()
    code, peak, said = measure(words)
    seconds = round(time.monotonic() - started)
    if code != 1 or peak > LIMIT_MB:
        problems.append(f"prepare: exit {code}, {peak} MB, {said[-200:]}")
        return {"peak_mb": peak, "seconds": seconds}
    rows = manifest.read_rows(data / manifest.MANIFEST)
    failed = dict(manifest.read_failures(data / manifest.FAILURES))
    rendered = {row.file for row in rows}
    _hold("prepare", files, damaged, rendered, set(failed), problems)
    missing = sum(not (data / row.split / row.image).is_file() for row in rows)
    if missing or len(rows) != len(rendered):
        problems.append(f"prepare: {missing} images are missing, {len(rows)} rows for {len(rendered)} clips")
    return {"peak_mb": peak, "seconds": seconds, "drawn": len(rendered), "refused": len(failed)}


def _predict(place: Path, model: str, files: set[str], damaged: set[str], problems: list[str]) -> dict[str, Any]:
    out, root = place / "answers.csv", place / "sounds"
    started = time.monotonic()
    code, peak, said = measure(["predict", model, str(root), "--out", str(out), "--threads", "1"])
    seconds = round(time.monotonic() - started)
    if code != 1 or peak > LIMIT_MB:
        problems.append(f"predict: exit {code}, {peak} MB, {said[-200:]}")
        return {"peak_mb": peak, "seconds": seconds}
    with open(out, encoding="utf-8", newline="") as file:
        answered = {Path(row["recording"]).relative_to(root).as_posix() for row in csv.DictReader(file)}
    reasons = " ".join(line for line in said.splitlines() if line.startswith("  failed: "))
    refused = {name for name in damaged if str(root / name) in reasons}
    _hold("predict", files, damaged, answered, refused, problems)
    return {"peak_mb": peak, "seconds": seconds, "answered": len(answered), "refused": len(refused)}


def _hold(
    name: str, files: set[str], damaged: set[str], done: set[str], refused: set[str], problems: list[str]
) -> None:
    """Hold what a command did to what it was given."""
    if done != files - damaged or refused != damaged:
        lost, wrong = len(files - done - refused), len(done & damaged) + len(refused - damaged)
        problems.append(f"{name}: {lost} files are lost, {wrong} wrongly rendered or refused")


if __name__ == "__main__":
    main()
