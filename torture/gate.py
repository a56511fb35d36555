"""The ways around the gate for model files: what lies beside the file that was named, or comes after it was checked.

    python -m torture.gate --swaps 100

Each case names a crafted file otherwise than as the model of a command, or an honest one whose objects, bytes or cached
conversion were changed. None may have an effect; what is refused gets one sentence.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np

from torture import checkpoints, hostile, models


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--swaps", type=int, default=100)
    parser.add_argument("--peak", metavar="FILE", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        print(_peak_of(Path(arguments.peak)))
    else:
        print(json.dumps(run(arguments.swaps), indent=2))


def run(swaps: int) -> dict[str, Any]:
    """All cases; `swaps` times a file is replaced while it is loaded."""
    started = time.monotonic()
    problems: list[str] = []
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="soundsight-torture-") as name, chdir(name):
        place = Path(name)
        marker, bench = place / "marker", checkpoints._Bench(place)
        bad = place / "bad.pt"
        bad.write_bytes(hostile.archive(hostile.mapping(model=hostile.programs(marker, 9)["os.system"])))
        cases: dict[str, Callable[[], str]] = {
            **{text: lambda words=words: _refused(words) for text, words in _commands(bench, bad, marker).items()},
            "train.cache": lambda: _cached_list(bench, marker),
            "two directories": lambda: _two_directories(place, marker, figures),
            "methods on instances": lambda: _methods(place),
            "a swap while it is loaded": lambda: _swaps(place, bad, swaps),
            "a flipped bit in the cache": lambda: _cache(place),
        }
        for text, case in cases.items():
            problem = "it made its marker" if (said := case()) == "" and marker.exists() else said
            marker.unlink(missing_ok=True)
            if problem:
                problems.append(f"{text}: {problem}")
    count = len(cases) + swaps - 1
    return {"cases": count, **figures, "problems": problems, "seconds": round(time.monotonic() - started)}


def _commands(bench: checkpoints._Bench, bad: Path, marker: Path) -> dict[str, list[str]]:
    """Trainings that name the crafted file, or a description of a network with a call in it, in every way."""
    import torch

    last = bench.place / "run" / "weights" / "last.pt"
    last.parent.mkdir(parents=True)
    content = models.make_content()
    content["train_args"]["epochs"] = 3
    torch.save({**content, "epoch": 1, "optimizer": {"state": {}, "param_groups": []}}, last)
    shutil.copy(bad, last.with_name("best.pt"))
    plan = bench.place / "plan-cls.yaml"
    rows = "nc: 2\nbackbone: [[-1, 1, Conv, [8, 3, 2]]]\nhead: [[-1, 1, Classify, [nc]]]\n"
    plan.write_text(f"{rows}activation: \"__import__('os').mkdir('{marker}')\"\n")
    words = bench.words("train", Path("yolov8n-cls.yaml"))
    found = {"best.pt beside resume=": [*bench.words("resume", last)[:3]]}
    for key in ("pretrained", "distill_model"):
        file = bench.place / f"{key}.yaml"
        file.write_text(f"{key}: {bad}\n")
        found[f"{key}="] = [*words, f"{key}={bad}"]
        found[f"{key}=, --stock"] = [*words, f"{key}={bad}", "--stock"]
        found[f"{key} in a settings file"] = [*words, f"cfg={file}"]
    found["a network whose activation is a call"] = [*bench.words("train", plan)]
    return found


def _refused(words: list[str]) -> str:
    code, said = checkpoints.ended(words)
    lines = [line for line in said.splitlines() if line.startswith("soundsight: ")]
    return "" if code == 2 and lines and "Traceback" not in said else f"code {code}: {said[-200:]}"


def _cached_list(bench: checkpoints._Bench, marker: Path) -> str:
    """A list of images beside the data, which is a pickle: a training makes it anew."""

    class Runs:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(marker),)

    for split in ("train", "val"):
        with open(bench.place / "data" / f"{split}.cache", "wb") as file:
            np.save(file, np.array(Runs(), dtype=object), allow_pickle=True)
    code, said = checkpoints.ended([*bench.words("train", Path("yolov8n-cls.yaml")), "--stock", "name=cached"])
    return "" if code == 0 else f"code {code}: {said[-200:]}"


def _two_directories(place: Path, marker: Path, figures: dict[str, Any]) -> str:
    """Two directories in one ZIP, of which PyTorch reads the one with a program; and a ZIP that unpacks to 500 MB."""
    shell = hostile.programs(marker, 9)["os.system"]
    bomb = hostile.archive(hostile.mapping(model=b"N"), extra={"data/0": bytes(500_000_000)}, packed=True)
    for text, data in {
        "program": hostile.two_directories(hostile.archive(hostile.mapping(model=b"N")), shell),
        "bomb": bomb,
    }.items():
        path = place / f"two-{text}.pt"
        path.write_bytes(data)
        done = subprocess.run(
            [sys.executable, "-m", "torture.gate", "--peak", str(path)], capture_output=True, text=True, check=False,
            cwd=Path(__file__).parents[1],
        )  # fmt: skip
        found = re.search(r"^(\d+)$", done.stdout, re.MULTILINE)
        if not found:
            return f"{text}: {(done.stdout + done.stderr)[-200:]}"
        figures[f"refusal_of_a_{text}_mb"] = int(found[1])
        if int(found[1]) > 100:
            return f"{text}: the refusal took {found[1]} MB"
    return ""


def _peak_of(path: Path) -> int:
    """Megabytes that refusing a file takes beside what the process has: Linux' own mark, set back before."""
    from soundsight.backend import checkpoint
    from soundsight.errors import ModelError

    checkpoint.load_checkpoint(models.make_checkpoint(path.with_name("honest.pt")))  # all that is imported late
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    try:
        checkpoint.load_checkpoint(path)
    except ModelError:
        return (_status("VmHWM") - before) // 1024
    raise SystemExit("it was accepted")


def _status(key: str) -> int:
    """A figure of this process, in kB."""
    found = re.search(rf"^{key}:\s+(\d+)", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def _methods(place: Path) -> str:
    """Classes and functions among the attributes of layers: no module of the program has them."""
    import torch

    from soundsight.backend.checkpoint import checkpoint_model, load_checkpoint

    for method in ("forward", "_predict_once", "fuse", "state_dict", "args"):
        content = models.make_content()
        content["model"].model[1].__dict__[method] = torch.nn.Conv2d
        torch.save(content, place / "methods.pt")
        network = checkpoint_model(load_checkpoint(place / "methods.pt"))
        if method in vars(network.model[1]):
            return f"{method} was taken over"
    return ""


def _swaps(place: Path, bad: Path, count: int) -> str:
    """An honest file is replaced by a crafted one, and back, all the while: it is accepted or refused, never run."""
    from soundsight.backend.checkpoint import load_checkpoint
    from soundsight.errors import ModelError

    path, good = place / "swapped.pt", models.make_checkpoint(place / "good.pt")
    shutil.copy(good, path)
    ended = threading.Event()

    def swap() -> None:
        while not ended.is_set():
            for source in (bad, good):
                os.link(source, place / "next.pt")
                os.replace(place / "next.pt", path)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(count):
            try:
                load_checkpoint(path)
            except ModelError as error:
                if "it names" not in str(error):
                    return str(error)
    finally:
        ended.set()
        thread.join()
    return ""


def _cache(place: Path) -> str:
    """A converted model with a flipped bit, or named for another checkpoint whose hash begins alike, is made again."""
    from soundsight.backend import quiet
    from soundsight.backend.checkpoint import hash_of
    from soundsight.models.converted import load_fastest

    kept, quiet.cache_folder = quiet.cache_folder, lambda: place  # type: ignore[assignment]
    try:
        model = models.make_checkpoint(place / "cached.pt")
        load_fastest(model, device="cpu", runtime="onnxruntime")
        (made,) = (place / "onnx").glob("*.onnx")
        data = made.read_bytes()
        flipped = bytearray(data)
        flipped[len(data) // 2] ^= 1
        key, version, own = made.stem.split("-")
        collided = f"{key[:12]}{hash_of(b'')[12:]}-{version}-{hash_of(bytes(flipped))}"
        for stem in (made.stem, collided):
            made.unlink()
            made.with_stem(stem).write_bytes(flipped)
            load_fastest(model, device="cpu", runtime="onnxruntime")
            found = list(made.parent.glob(f"{key}-*.onnx"))
            if len(found) != 1 or hash_of(found[0].read_bytes()) != found[0].stem.rpartition("-")[2]:
                return f"{stem} was used"
            made = found[0]
        return "" if len(key) == len(own) == 64 else "its name is no whole hash"
    finally:
        quiet.cache_folder = kept


if __name__ == "__main__":
    main()
