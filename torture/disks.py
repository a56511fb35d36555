"""Disks that are full, read-only or gone: one sentence, no half-written file, and the work goes on later.

    python -m torture.disks

A real file system of a few megabytes in memory is mounted for it, so this part needs Linux and the right to mount;
without, it says so and is left out.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from torture import kills, models
from torture.processes import difference, finish, forked, tree
from torture.recordings import SETTINGS, _command


def main() -> None:
    print(json.dumps(run(), indent=2))


def run(*, training: bool = True) -> dict[str, Any]:
    """All cases, `training` among them or not; what went wrong."""
    with tempfile.TemporaryDirectory(prefix="soundsight-torture-") as name:
        place = Path(name)
        kills.write_clips(place / "sounds", 40)
        model = str(models.make_onnx(place))
        try:
            with small_disk(place / "probe", 1):
                pass
        except OSError as error:
            return {"cases": 0, "left_out": f"no disk can be mounted here ({error})", "problems": []}
        cases = [full_prepare, full_predict, full_train, read_only, two_at_once, vanished_source, vanished_target]
        cases = [case for case in cases if training or case is not full_train]
        problems = [f"{case.__name__}: {text}" for case in cases for text in case(place, model)]
    return {"cases": len(cases), "problems": problems}


@contextmanager
def small_disk(folder: Path, megabytes: int, *, options: str = "") -> Iterator[Path]:
    """A file system in memory.

    Raises:
        OSError: This user may not mount.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m{options}", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise OSError(getattr(error, "stderr", "") or str(error)) from error
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)


def _prepare(place: Path, disk: Path) -> tuple[int, str, list[str]]:
    words = [f"root={place / 'sounds'}", f"cache={disk / 'cache'}", f"data={disk / 'data'}"]
    words += [word for word in SETTINGS if not word.startswith("split.")]
    words += ["split.train=[1]", "split.val=[2]", "split.test=[3]"]
    code, _, said, problems = _command("prepare", *words, "--workers", "1")
    return code, said, problems


def full_prepare(place: Path, model: str) -> list[str]:
    """120 images of 3 kB do not fit into what is left of 1 MB; after making room, all is as it would have been."""
    with small_disk(place / "disk", 1) as disk:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(800_000))
        code, said, problems = _prepare(place, disk)
        problems += _sentence(code, said, "cannot be written (No space left on device)")
        problems += _whole(disk)
        ballast.unlink()
        code, said, more = _prepare(place, disk)
        problems += [*more, *([f"it does not go on: {said[-200:]}"] if code else [])]
        found = {
            path.replace(str(disk), ""): digest for path, digest in tree(disk / "data").items() if path.endswith(".png")
        }
    with small_disk(place / "disk", 8) as disk:
        _prepare(place, disk)
        wanted = {
            path.replace(str(disk), ""): digest for path, digest in tree(disk / "data").items() if path.endswith(".png")
        }
    differs = difference(found, wanted)
    return problems + ([f"after making room {differs}"] if differs else [])


def full_predict(place: Path, model: str) -> list[str]:
    """The predictions do not fit: no file of predictions is left."""
    with small_disk(place / "disk", 1) as disk:
        (disk / "ballast").write_bytes(bytes(1_044_000))
        code, _, said, problems = _command(
            "predict", model, str(place / "sounds" / "audio"), "--out", str(disk / "a.csv")
        )
        problems += _sentence(code, said, "No space left on device")
        if (left := [path.name for path in disk.iterdir()]) != ["ballast"]:
            problems.append(f"these are left: {left}")
    return problems


def full_train(place: Path, model: str) -> list[str]:
    """A checkpoint does not fit: one sentence, and none that is half written."""
    _, _, problems = _prepare(place, place)
    with small_disk(place / "disk", 4) as disk:
        words = [f"{key}={value}" for key, value in kills.QUICK.items()]
        words += [f"data={place / 'data'}", "imgsz=32", "epochs=2", f"project={disk}", "name=k", "--augment", "none"]
        command = [sys.executable, "-m", "soundsight", "train", *words]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        problems += _sentence(done.returncode, done.stderr, "No space left on device")
        left = [path.name for path in disk.rglob("*.pt") if not path.name.startswith(".tmp-")]
    return problems + ([f"checkpoints are left: {left}"] if left else [])


def read_only(place: Path, model: str) -> list[str]:
    """The target is mounted read-only."""
    with small_disk(place / "disk", 1, options=",ro") as disk:
        code, said, problems = _prepare(place, disk)
        problems += _sentence(code, said, "read-only")
        code, _, said, more = _command("predict", model, str(place / "sounds" / "audio"), "--out", str(disk / "a.csv"))
        return [*problems, *more, *_sentence(code, said, "Read-only file system")]


def two_at_once(place: Path, model: str) -> list[str]:
    """Two runs on one target, with other settings: one is told to wait, and the other's tree is whole."""
    from soundsight.datasets.prepare import prepare
    from soundsight.errors import ConfigError

    config = kills.config_of(place)
    other = models.SpectrogramConfig(**{**vars(models.EARS), "fmin_hz": 100.0})
    problems, refused = [], 0

    def work(preprocessing: models.SpectrogramConfig) -> object:
        try:
            return prepare(config, preprocessing, workers=1)
        except ConfigError as error:
            os._exit(3 if "Another command is rendering images" in str(error) else 4)

    for _ in range(10):
        shutil.rmtree(config.data, ignore_errors=True)
        shutil.rmtree(config.cache, ignore_errors=True)
        runs = [
            forked(lambda preprocessing=preprocessing: work(preprocessing), log=place / "log")
            for preprocessing in (models.EARS, other)
        ]
        codes = sorted(finish(pid) for pid in runs)
        refused += codes == [0, 3]
        if codes not in ([0, 3], [0, 0]):
            problems.append(f"they end with {codes}")
        if len({_ears_of(path) for path in Path(config.data).rglob("*.png")}) != 1:
            problems.append("images of both are mixed")
    return problems if refused else [*problems, "the two never met"]


def _ears_of(path: Path) -> str:
    from soundsight.datasets.images import read_key

    return (read_key(path) or "").split()[1]


def vanished_source(place: Path, model: str) -> list[str]:
    """A disk of recordings that goes away meanwhile: each recording is among the failures, none is lost."""
    from soundsight.datasets import prepare as room

    with small_disk(place / "source", 8) as disk:
        shutil.copytree(place / "sounds", disk / "sounds")
        config = models_config(disk, place)

        def gone(done: int, total: int) -> None:
            if done == 50:
                subprocess.run(["umount", "-l", str(disk)], check=True)

        found = room.prepare(config, models.EARS, workers=1, progress=gone)
    count = sum(found.counts.values()) + len(found.failures)
    return (
        [] if count == 120 and len(found.failures) >= 60 else [f"{count} of 120 clips, {len(found.failures)} failures"]
    )


def models_config(disk: Path, place: Path) -> kills.DatasetConfig:
    """Recordings on one disk, images on another."""
    split = kills.SplitConfig(train=(1,), val=(2,), test=(3,))
    return kills.DatasetConfig(
        root=str(disk / "sounds"), cache=str(place / "v-cache"), data=str(place / "v-data"), split=split
    )


def vanished_target(place: Path, model: str) -> list[str]:
    """The disk of the images goes away meanwhile: no manifest, wherever the rest was written."""
    from soundsight.datasets import prepare as room
    from soundsight.errors import ConfigError

    with small_disk(place / "disk", 8) as disk:
        config = kills.DatasetConfig(**{
            **vars(kills.config_of(place)), "cache": str(disk / "cache"), "data": str(disk / "data")
        })  # fmt: skip

        def shut(done: int, total: int) -> None:
            if done == 50:
                subprocess.run(["umount", "-l", str(disk)], check=True)

        try:
            room.prepare(config, models.EARS, workers=1, progress=shut)
        except ConfigError as error:
            whole = (disk / "data" / "manifest.csv").exists()
            return [f"a manifest is there in spite of: {error}"] if whole else []
    return ["it did not notice"]


def _sentence(code: int, said: str, expected: str) -> list[str]:
    lines = [line for line in said.splitlines() if line.startswith("soundsight: ")]
    if code in (1, 2) and len(lines) == 1 and expected in lines[0] and "Traceback" not in said:
        return []
    return [f"exit {code}, no such sentence as {expected!r}: {said[-300:]!r}"]


def _whole(disk: Path) -> list[str]:
    """Complaints about files that a reader could take for whole."""
    import cv2

    if (disk / "data" / "manifest.csv").exists():
        return ["a manifest is there"]
    images = [path for path in disk.rglob("*.png") if not path.name.startswith(".tmp-")]
    bad = [p.name for p in images if cv2.imdecode(np.fromfile(p, np.uint8), cv2.IMREAD_COLOR) is None]
    return [f"{name} is half an image" for name in bad]


if __name__ == "__main__":
    main()
