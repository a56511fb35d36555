"""What a stranger's folder, settings, run and environment can do to a command: nothing but end it with one message."""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from torture import models, sounds
from torture.recordings import SETTINGS, _command

LONGEST = 3000  # characters of a message
SECONDS = 60  # of a command, before it counts as hanging
KEYS = ("n_fft", "fmin_hz", "windows_ms", "reference", "image_size", "db_floor")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=200)
    with tempfile.TemporaryDirectory(prefix="soundsight-torture-") as place:
        print(json.dumps(run(Path(place), random.Random(1), parser.parse_args().cases), indent=2))


def run(place: Path, draw: random.Random, count: int) -> dict[str, Any]:
    """`count` random cases each of folders and settings, and all cases of runs, devices and environments."""
    former = Path.cwd()
    os.chdir(place)
    try:
        for label in models.NAMES:
            for number in range(4):
                path = Path("sounds", label, f"{label}{number}.wav")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(sounds.encode(sounds.noise(4000, seed=number + len(label))))
        onnx = str(models.make_onnx(place))
        parts = {
            "folders": [_folder(draw) for _ in range(count)],
            "settings": [_settings(draw) for _ in range(count)],
            "runs": _runs(onnx),
            "devices": _devices(onnx),
            "environments": _environments(onnx),
        }
    finally:
        os.chdir(former)
    return {name: {"cases": len(found), "problems": [p for p in found if p]} for name, found in parts.items()}


def _told(*words: str, codes: tuple[int, ...] = (2,)) -> str:
    """Run a command that must end soon, with one of `codes` and one short message; else the problem."""
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(TimeoutError()))
    signal.alarm(SECONDS)
    try:
        code, _, said, wrong = _command(*words)
    finally:
        signal.alarm(0)
    if wrong:
        return wrong[0]
    return "" if code in codes and len(said) <= LONGEST else f"{' '.join(words)[:200]}: {code}, {said[-300:]}"


def _folder(draw: random.Random) -> str:
    """`prepare`, twice, into folders that hold what it would make, files like its own, or obstacles."""
    for name in ("cache", "data", "mine"):
        shutil.rmtree(name, ignore_errors=True)
    Path("mine").mkdir()
    cache = draw.choice(("cache", "."))
    words = ["prepare", "sounds", "data=data", f"cache={cache}", *SETTINGS]
    Path("mine", "kept").write_bytes(b"mine")
    where = ["data", cache, "data/train", f"{cache}/bark", "data/val/meow", "data/notes/deep"]
    names = [".tmp-notes", f".tmp-{draw.randbytes(5).hex()}", "val.cache", "x.lock", "bark0_0.npy", "empty/", "b.txt"]
    kept = {Path(folder, name) for folder in where for name in names if draw.random() < 0.3}
    if draw.random() < 0.5:
        _command(*words)
    for path in kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(exist_ok=True) if path.name == "empty" else path.write_bytes(b"mine")
    places = ("data/train", "data/.lock", "cache/manifest.csv", "cache/bark", "data/val/meow")
    if draw.random() < 0.5:
        obstacle = Path(draw.choice(places))
        shutil.rmtree(obstacle) if obstacle.is_dir() else obstacle.unlink(missing_ok=True)
        kept = {path for path in kept if obstacle not in path.parents}
        obstacle.parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(obstacle) if draw.random() < 0.5 else obstacle.symlink_to(
            Path("mine", draw.choice(("", "kept"))).absolute()
        )
    problem = _told(*words, codes=(0, 2)) or _told(*words, codes=(0, 2))
    lost = [str(path) for path in kept if not (path.is_dir() or (path.is_file() and path.read_bytes() == b"mine"))]
    if os.listdir("mine") != ["kept"] or Path("mine", "kept").read_bytes() != b"mine":
        lost.append("what a link leads to")
    for path in kept:  # for the next case, which may have the working directory as its cache
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return problem or (f"{sorted(lost)} lost by {' '.join(words)}" if lost else "")


def _settings(draw: random.Random) -> str:
    """A settings file, or a word of the command, with a value that no setting has."""
    aliases = "".join(f"k{n}: &k{n} [{', '.join([f'*k{n - 1}'] * draw.randint(2, 12))}]\n" for n in range(1, 12))
    depth = draw.randint(200, 20000)
    value = draw.choice(
        [
            "*k11", "&c [*c]", "[" * depth, "{a: " * depth, "9" * draw.randint(19, 9000), ".nan", "-.inf", "1e999",
            "2026-01-31", "2026-13-77", "x" * draw.randint(1, 10**6), "!!binary aGVsbG8=", "!!set {a, b}",
            "!!python/object/apply:os.getcwd []", "\\x00", '"\\u202e\\x1b[2J"', "? [a]", "0o17_", "0x" + "f" * 400,
        ]
    )  # fmt: skip
    key = draw.choice(KEYS)
    if "*" not in value and draw.random() < 0.5:
        return _told("prepare", "sounds", "data=odd", "cache=odd-cache", f"{key}={value}")
    Path("odd.yaml").write_text(f"k0: &k0 [x, x]\n{aliases}" * ("*k" in value) + f"{key}: {value}\n")
    return _told("prepare", "sounds", "data=odd", "cache=odd-cache", "--spectrogram", "odd.yaml")


def _runs(onnx: str) -> list[str]:
    """`report` of a run whose tables name recordings of this computer: none of them is read."""
    from soundsight.evaluation.val import val
    from soundsight.reports.run_report import collect, read_run

    _command("prepare", "sounds", "data=scored", "cache=scored-cache", *SETTINGS)
    folder = val(onnx, data="scored", split="test", out="work/run", device="cpu", allow_seen=True).folder
    shutil.copy("sounds/bark/bark0.wav", "private.wav")
    Path("work/here").mkdir()
    Path("work/here/link.wav").symlink_to(Path("private.wav").absolute())
    with open(folder / "predictions.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    private, problems, here = Path("private.wav").absolute(), [], Path.cwd()
    os.chdir("work")
    for root in (str(private.parent), "..", "/", ".", "here", "run/../..", str(private.parent / "work" / "..")):
        for name in (str(private), "private.wav", "../private.wav", "../../private.wav", "link.wav", "here/link.wav"):
            with open("run/predictions.csv", "w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows([{**row, "clip": name, "predicted": models.NAMES[0]} for row in rows])
            Path("run/metrics.json").write_text(json.dumps({**metrics, "dataset": {"root": root}}))
            clips = collect(read_run("run"), saliency=False).clips.values()
            read = not clips or any(clip.audio or clip.image is not None for clip in clips)
            problems.append(f"{name} below {root} was embedded, or nothing asked for it" if read else "")
    os.chdir(here)
    return problems


def _devices(onnx: str) -> list[str]:
    """Pipes and devices where files belong."""
    os.mkfifo("pipe")
    found = []
    for device in ("pipe", "/dev/zero", "/dev/null"):
        for suffix in ("", ".onnx", ".pt", ".yaml", ".csv"):
            link = Path(f"device{suffix}")
            link.symlink_to(Path(device).absolute())
            found += [
                _told(*words, codes=(1, 2))
                for words in (
                    ["predict", str(link), "private.wav"],
                    ["predict", onnx, f"@{link}"] if device != "pipe" else ["predict", onnx, str(link), "--out", onnx],
                    ["prepare", "sounds", "data=odd", "cache=odd-cache", "--spectrogram", str(link), "clip_seconds=x"],
                    ["report", str(link)],
                )
            ]
            link.unlink()
    return found


def _environments(onnx: str) -> list[str]:
    """No home, no name, closed streams, no folder for temporary files."""
    nameless = (
        "import pwd, sys; pwd.getpwuid = {}.__getitem__; from soundsight.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    bare = {k: v for k, v in os.environ.items() if k not in ("HOME", "SOUNDSIGHT_CACHE", "XDG_CACHE_HOME")}
    command = [sys.executable, "-c", nameless, "predict", onnx, "private.wav"]
    found = []
    for closing, code in (("", 0), (">&-", 2), ("2>&-", 0), ("<&-", 0), (">/dev/full", 1)):
        done = subprocess.run(
            ["sh", "-c", f'exec "$@" {closing}', "sh", *command], env=bare | {"TMPDIR": "/nowhere"},
            capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        good = done.returncode == code and len(done.stderr.splitlines()) == bool(code)
        found.append("" if good else f"{closing}: {done.returncode} {done.stderr[-300:]}")
    return found


if __name__ == "__main__":
    main()
