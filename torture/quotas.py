"""A disk with a quota, and a slow one: one sentence, no half-written file, the same images in the end.

    python -m torture.quotas

The disk is a FUSE file system of our own (`torture.slow_disk`); where that cannot be had, this part is left out.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from torture import disks, kills, models
from torture.processes import difference, hear_ctrl_c, tree
from torture.recordings import _command
from torture.slow_disk import slow_disk

DELAY_SECONDS = 0.02
END_SECONDS = 10.0  # within which a signal ends a command that waits for a slow disk


def main() -> None:
    hear_ctrl_c()
    print(json.dumps(run(), indent=2))


def run() -> dict[str, Any]:
    """All cases; what went wrong."""
    with tempfile.TemporaryDirectory(prefix="soundsight-torture-") as name:
        place = Path(name)
        kills.write_clips(place / "sounds", 40)
        model = str(models.make_onnx(place))
        _, _, problems = disks._prepare(place, place)
        wanted = _images(place)
        cases = [quota_prepare, quota_predict, quota_train, slow_prepare, slow_source, slow_and_interrupted]
        try:
            for case in cases:
                folder = place / case.__name__
                folder.mkdir()
                problems += [f"{case.__name__}: {text}" for text in case(place, folder, model, wanted)]
        except (OSError, ImportError) as error:
            return {"cases": 0, "left_out": str(error), "problems": problems}
    return {"cases": len(cases), "problems": problems}


def _images(root: Path) -> dict[str, str]:
    return {
        path.replace(str(root), ""): digest for path, digest in tree(root / "data").items() if path.endswith(".png")
    }


def quota_prepare(place: Path, folder: Path, model: str, wanted: dict[str, str]) -> list[str]:
    """The quota is used up by images; after making room, all is as it would have been."""
    with slow_disk(folder, quota=1_000_000) as disk:
        (disk / "ballast").write_bytes(bytes(900_000))
        code, said, problems = disks._prepare(place, disk)
        problems += disks._sentence(code, said, "cannot be written (Disk quota exceeded)") + disks._whole(disk)
        (disk / "ballast").unlink()
        code, said, more = disks._prepare(place, disk)
        differs = difference(_images(disk), wanted)
    problems += [*more, *([f"it does not go on: {said[-200:]}"] if code else [])]
    return problems + ([f"after making room {differs}"] if differs else [])


def quota_predict(place: Path, folder: Path, model: str, wanted: dict[str, str]) -> list[str]:
    """The predictions do not fit: no file of predictions is left."""
    with slow_disk(folder, quota=2000) as disk:
        sounds = str(place / "sounds" / "audio")
        code, _, said, problems = _command("predict", model, sounds, "--out", str(disk / "a.csv"))
        problems += disks._sentence(code, said, "Disk quota exceeded")
        left = [path.name for path in disk.iterdir()]
    return problems + ([f"these are left: {left}"] if left else [])


def quota_train(place: Path, folder: Path, model: str, wanted: dict[str, str]) -> list[str]:
    """A checkpoint does not fit: one sentence, and none that is half written."""
    with slow_disk(folder, quota=4_000_000) as disk:
        words = [f"{key}={value}" for key, value in kills.QUICK.items()]
        words += [f"data={place / 'data'}", "imgsz=32", "epochs=2", f"project={disk}", "name=k", "--augment", "none"]
        command = [sys.executable, "-m", "soundsight", "train", *words]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        problems = disks._sentence(done.returncode, done.stderr, "Disk quota exceeded")
        left = [path.name for path in disk.rglob("*.pt") if not path.name.startswith(".tmp-")]
    return problems + ([f"checkpoints are left: {left}"] if left else [])


def slow_prepare(place: Path, folder: Path, model: str, wanted: dict[str, str]) -> list[str]:
    """Every operation takes 20 ms: the same images, later."""
    with slow_disk(folder, delay=DELAY_SECONDS) as disk:
        code, said, problems = disks._prepare(place, disk)
        differs = difference(_images(disk), wanted)
    problems += [f"exit {code}: {said[-200:]}"] if code else []
    return problems + ([differs] if differs else [])


def slow_source(place: Path, folder: Path, model: str, wanted: dict[str, str]) -> list[str]:
    """Recordings that come slowly are predicted as the others are."""
    clips = sorted((place / "sounds" / "audio").glob("*.wav"))[:20]
    with slow_disk(folder, delay=DELAY_SECONDS) as disk:
        for clip in clips:
            (disk / clip.name).write_bytes(clip.read_bytes())
        code, _, said, problems = _command("predict", model, str(disk), "--out", str(folder / "slow.csv"))
        other, _, _, more = _command("predict", model, *map(str, clips), "--out", str(folder / "quick.csv"))
        slow, quick = ((folder / name).read_text(encoding="utf-8") for name in ("slow.csv", "quick.csv"))
    if code or other or slow.replace(str(disk), "") != quick.replace(str(clips[0].parent), ""):
        problems.append(f"exit {code} and {other}, or other predictions: {said[-200:]}")
    return [*problems, *more]


def slow_and_interrupted(place: Path, folder: Path, model: str, wanted: dict[str, str]) -> list[str]:
    """Ctrl-C while a command waits for a disk on which each operation takes a second."""
    config = kills.config_of(place)
    with slow_disk(folder, delay=1.0) as disk:
        words = [f"root={config.root}", f"cache={disk / 'cache'}", f"data={disk / 'data'}", "image_size=32"]
        words += ["sample_rate=8000", "clip_seconds=0.5", "n_fft=1024", "--workers", "1"]
        words += ["split.train=[1]", "split.val=[2]", "split.test=[3]"]
        command = [sys.executable, "-m", "soundsight", "prepare", *words]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            until = time.monotonic() + 120
            while not list(disk.rglob("*.png")) and process.poll() is None and time.monotonic() < until:
                time.sleep(0.2)
            process.send_signal(signal.SIGINT)
            started = time.monotonic()
            try:
                _, said = process.communicate(timeout=6 * END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                said = "it had to be killed"
            took = time.monotonic() - started
        problems = disks._whole(disk)
    if took > END_SECONDS or process.returncode != 130 or "Traceback" in said:
        problems.append(f"it ended after {took:.1f} s with {process.returncode}: {said[-200:]}")
    return problems


if __name__ == "__main__":
    main()
