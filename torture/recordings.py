"""Damaged recordings through `soundsight prepare` and `soundsight predict`: nothing may be lost without a word.

    python -m torture.recordings --cases 20000 --seed 1

Cases go in batches to a child process with limited memory, which runs both commands on each batch. After each,
every file must be in the output or among the failures, with a reason. A batch that takes longer than
PATIENCE_SECONDS counts as a hang; what a child that died was working on is tried again file by file.
"""

from __future__ import annotations

import argparse
import csv
import faulthandler
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from itertools import chain, islice
from pathlib import Path
from typing import Any

from torture import models, sounds

BATCH = 200
PATIENCE_SECONDS = 300.0
MEMORY_BYTES = 6 << 30  # of address space: 2 GB are the libraries
SETTINGS = [f"{key}={value}" for key, value in (
    ("sample_rate", models.EARS.sample_rate), ("clip_seconds", models.EARS.clip_seconds),
    ("image_size", models.EARS.image_size), ("n_fft", models.EARS.n_fft), ("split.strategy", "random"),
)]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--child", nargs=2, metavar=("FOLDER", "MODEL"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(_child(Path(arguments.child[0]), arguments.child[1])))
        return
    print(json.dumps(run(arguments.cases, arguments.seed), indent=2))


def run(count: int, seed: int = 1, *, limited: bool = True) -> dict[str, Any]:
    """Try `count` cases: the systematic ones first, then random ones; with `limited`, in a child process.

    Returns:
        How many files were predicted, refused and lost, the worst memory, and what went wrong.
    """
    systematic = list(sounds.systematic())
    if count < len(systematic):  # a sample that holds some of every kind
        systematic = systematic[seed % 7 :: -(-2 * len(systematic) // count)]
    cases = chain(systematic, sounds.mutated(max(0, count - len(systematic)), seed))
    total: dict[str, Any] = {"cases": 0, "seed": seed, "problems": [], "peak_memory_mb": 0, "slowest_batch_s": 0.0}
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="soundsight-torture-") as name:
        place = Path(name)
        model = str(models.make_onnx(place))
        for batch in _batches(cases):
            began = time.monotonic()
            _add(total, _try(place / "batch", batch, model, limited=limited))
            total["slowest_batch_s"] = round(max(total["slowest_batch_s"], time.monotonic() - began), 1)
            if limited and sys.stderr.isatty():
                print(f"\r{total['cases']} of {count}", end="", file=sys.stderr)
    return {**total, "seconds": round(time.monotonic() - started)}


def _batches(cases: Iterable[sounds.Case]) -> Iterator[list[sounds.Case]]:
    rest = iter(cases)
    while batch := list(islice(rest, BATCH)):
        yield batch


def _add(total: dict[str, Any], found: dict[str, Any]) -> None:
    for key, value in found.items():
        if key == "peak_memory_mb":
            total[key] = max(total[key], value)
        else:
            total[key] = total.get(key, [] if isinstance(value, list) else 0) + value


def _try(place: Path, batch: list[sounds.Case], model: str, *, limited: bool) -> dict[str, Any]:
    shutil.rmtree(place, ignore_errors=True)
    for index, case in enumerate(batch):
        folder = place / "sounds" / models.NAMES[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / case.name).write_bytes(case.data)
    if not limited:
        return _child(place, model)
    command = [sys.executable, "-m", "torture.recordings", "--child", str(place), model]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, preexec_fn=_limit, check=False
        )
        if done.returncode == 0:
            return json.loads(done.stdout.splitlines()[-1])
        end = f"ended with {done.returncode}: {done.stderr[-600:]}"
    except subprocess.TimeoutExpired as error:
        end = f"hung; {(error.stderr or b'')[-600:].decode(errors='replace')}"
    if len(batch) == 1:
        _keep(batch[0])
        return {"cases": 1, "problems": [f"{batch[0].name} {end}"]}
    total: dict[str, Any] = {"peak_memory_mb": 0}
    half = len(batch) // 2
    for part in (batch[:half], batch[half:]):  # in halves, until the culprit is alone
        _add(total, _try(place, part, model, limited=limited))
    if not total.get("problems"):
        total["problems"] = [f"the batch from {batch[0].name} {end}"]
    return total


def _keep(case: sounds.Case) -> None:
    """Keep a file that broke something."""
    folder = Path(tempfile.gettempdir(), "soundsight-torture-finds")
    folder.mkdir(exist_ok=True)
    (folder / case.name).write_bytes(case.data)


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def _child(place: Path, model: str) -> dict[str, Any]:
    """Run both commands on the files below `place/sounds`, and hold their outputs to the list of files."""
    faulthandler.dump_traceback_later(0.9 * PATIENCE_SECONDS)
    root = place / "sounds"
    files = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    prepared, first = _prepare(place, root, files)
    predicted, second = _predict(place, root, files, model)
    faulthandler.cancel_dump_traceback_later()
    return {
        "cases": len(files),
        "prepare_drawn": len(prepared),
        "prepare_refused": len(files) - len(prepared),
        "predict_answered": len(predicted),
        "predict_refused": len(files) - len(predicted),
        "problems": first + second,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def _prepare(place: Path, root: Path, files: set[str]) -> tuple[set[str], list[str]]:
    from soundsight.datasets import manifest

    data = place / "data"
    words = [str(root), f"cache={place / 'cache'}", f"data={data}", *SETTINGS, "--workers", "1"]
    code, _, said, problems = _command("prepare", *words)
    rows = manifest.read_rows(data / manifest.MANIFEST)
    failed = dict(manifest.read_failures(data / manifest.FAILURES))
    rendered = {row.file for row in rows}
    if code not in (0, 1) and "No clips were found" not in said:
        problems.append(f"prepare exits with {code}: {said[-300:]}")
    problems += [f"prepare lost {file}" for file in files - rendered - set(failed)]
    problems += [f"prepare invented {file}" for file in (rendered | set(failed)) - files]
    problems += [f"prepare gives no sentence for {file}: {why!r}" for file, why in failed.items() if len(why) < 15]
    problems += [f"{row.image} is missing" for row in rows if not (data / row.split / row.image).is_file()]
    if (code == 1) != bool(failed):
        problems.append(f"prepare exits with {code}, but {len(failed)} clips failed")
    return rendered, problems


def _predict(place: Path, root: Path, files: set[str], model: str) -> tuple[set[str], list[str]]:
    out = place / "answers.csv"
    code, _, said, problems = _command("predict", model, str(root), "--out", str(out), "--threads", "1")
    if code not in (0, 1):
        return set(), [*problems, f"predict exits with {code}: {said[-300:]}"]
    with open(out, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    answered = {Path(row["recording"]).relative_to(root).as_posix() for row in rows}
    reasons = [line for line in said.splitlines() if line.startswith("  failed: ")]
    refused = {file for file in files if any(str(root / file) in reason for reason in reasons)}
    problems += [f"predict lost {file}" for file in files - answered - refused]
    problems += [f"predict has a window without an end: {row}" for row in rows if not _is_stretch(row)]
    if (code == 1) != bool(reasons):
        problems.append(f"predict exits with {code}, but {len(reasons)} recordings failed")
    return answered, problems


def _is_stretch(row: dict[str, str]) -> bool:
    return 0 <= float(row["start"]) < float(row["end"])


def _command(*words: str) -> tuple[int, str, str, list[str]]:
    """Run a command in this process: its exit code, what it printed, and an exception that escaped."""
    import traceback

    from soundsight.cli import main as soundsight

    out, err = io.StringIO(), io.StringIO()
    problems, code = [], 70
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = soundsight(list(words))
    except BaseException:  # noqa: BLE001  (whatever escapes is what we look for)
        problems.append(f"{words[0]}: {traceback.format_exc()[-900:]}")
    if "Traceback" in err.getvalue():
        problems.append(f"{words[0]} shows a traceback: {err.getvalue()[-500:]}")
    return code, out.getvalue(), err.getvalue(), problems


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
