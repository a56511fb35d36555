"""SIGKILL at random moments: a restart must give the same tree, and nothing half-written may pass for whole.

    python -m torture.kills --prepare 200 --download 50 --train 30 --crossval 30 --signals 2

The killed processes are forked from this one, which has loaded all libraries, so that the moments fall into the
work itself and not into imports. `--signals` runs the installed commands and sends SIGTERM and Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from soundsight.config import DatasetConfig, SpectrogramConfig, SplitConfig
from torture import models, sounds
from torture.processes import difference, finish, forked, hear_ctrl_c, killed, moments, rehearse, tree

LABELS = ("bark", "meow", "moo")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepare", type=int, default=200)
    parser.add_argument("--download", type=int, default=50)
    parser.add_argument("--train", type=int, default=30)
    parser.add_argument("--crossval", type=int, default=30)
    parser.add_argument("--signals", type=int, default=2, help="rounds")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    hear_ctrl_c()
    print(json.dumps(run(**vars(arguments)), indent=2))


def run(prepare: int, download: int, train: int, crossval: int, signals: int, seed: int = 1) -> dict[str, Any]:
    """Kill each command so many times; what happened."""
    from torture import downloads, interrupts

    parts: dict[str, tuple[Callable[[Path, int, int], dict[str, Any]], int]] = {
        "prepare": (kill_prepare, prepare),
        "download": (downloads.kill_download, download),
        "train": (kill_train, train),
        "crossval": (kill_crossval, crossval),
        "signals": (interrupts.interrupt, signals),
    }
    found = {}
    for name, (part, count) in parts.items():
        if count:
            started = time.monotonic()
            with tempfile.TemporaryDirectory(prefix="soundsight-torture-") as place:
                found[name] = part(Path(place), count, seed)
            found[name]["seconds"] = round(time.monotonic() - started)
    return found


def write_clips(root: Path, count: int, *, labels: tuple[str, ...] = LABELS, folds: int = 3) -> None:
    """Short sounds in the layout of ESC-50: `count` of each label, each label of its own pitch."""
    (root / "audio").mkdir(parents=True)
    (root / "meta").mkdir()
    lines = ["filename,fold,target,category,esc10,src_file,take"]
    time_s = np.arange(4000) / sounds.RATE
    for target, label in enumerate(labels):
        for index in range(count):
            fold = 1 + index % folds
            name = f"{fold}-{target}{index:03d}-A-{target}.wav"
            sound = 0.3 * np.sin(2 * np.pi * 300 * 2**target * time_s)
            sound += 0.05 * sounds.noise(4000, seed=100 * target + index)[:, 0]
            soundfile.write(root / "audio" / name, sound, sounds.RATE)
            lines.append(f"{name},{fold},{target},{label},False,{target}{index:03d},A")
    (root / "meta" / "esc50.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def config_of(place: Path) -> DatasetConfig:
    """Settings for the clips of `write_clips` in `place`/sounds."""
    split = SplitConfig(train=(1,), val=(2,), test=(3,))
    return DatasetConfig(root=str(place / "sounds"), cache=str(place / "cache"), data=str(place / "data"), split=split)


def kill_prepare(place: Path, count: int, seed: int) -> dict[str, Any]:
    """Kill `prepare` of an empty folder, of one with other settings, and with worker processes, in turn."""
    from soundsight.datasets.prepare import prepare

    write_clips(place / "sounds", 40)
    config, log = config_of(place), place / "log"
    other = SpectrogramConfig(**{**vars(models.EARS), "fmin_hz": 100.0})
    folders = (place / "cache", place / "data")

    def clear(number: int) -> None:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        if number % 3 == 1:  # images of other settings are there
            finish(forked(lambda: prepare(config, other, workers=1), log=log))

    def work(number: int) -> Callable[[], object]:
        return lambda: prepare(config, models.EARS, workers=2 if number % 10 == 9 else 1)

    clear(0)
    lengths = {}
    for kind in (0, 1, 9):
        clear(kind)
        started = time.monotonic()
        if finish(forked(work(kind), log=log)):
            raise RuntimeError(f"prepare fails: {log.read_text(encoding='utf-8')[-500:]}")
        lengths[kind] = time.monotonic() - started
    wanted = tree(*folders)
    problems, hits = [], 0
    for number, share in enumerate(moments(count, 1.05, seed)):
        clear(number)
        kind = 9 if number % 10 == 9 else number % 3 % 2
        hits += killed(work(number), share * lengths[kind], log=log)
        problems += [f"kill {number}: {text}" for text in _half_written(config)]
        if finish(forked(work(number), log=log)):
            problems.append(f"kill {number}: the restart fails: {log.read_text(encoding='utf-8')[-300:]}")
        elif differs := difference(tree(*folders), wanted):
            problems.append(f"kill {number}: after the restart {differs}")
    return {"kills": count, "killed_at_work": hits, "problems": problems, "length_s": round(lengths[0], 2)}


def _half_written(config: DatasetConfig) -> list[str]:
    """Files under final names that are not whole, and a manifest that lists what is not there."""
    import cv2

    from soundsight.datasets import manifest

    data, found = Path(config.data), []
    for path in (*Path(config.cache).rglob("*.png"), *data.rglob("*.png")):
        if not path.name.startswith(".tmp-") and cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR) is None:
            found.append(f"{path.name} is half an image")
    if (data / manifest.MANIFEST).exists():
        rows = manifest.read_rows(data / manifest.MANIFEST)
        if not rows or not all((data / row.split / row.image).is_file() for row in rows if row.split):
            found.append("the manifest lists images that are not there")
        if len({manifest.read_spectrogram(data)} | {None}) > 2:
            found.append("the settings are damaged")
    return found


QUICK = {
    "model": "yolov8n-cls.yaml", "batch": 16, "nbs": 16, "device": "cpu", "workers": 0, "plots": False,
    "verbose": False, "amp": False, "optimizer": "AdamW", "lr0": 0.003, "warmup_epochs": 0,
}  # fmt: skip


def kill_train(place: Path, count: int, seed: int) -> dict[str, Any]:
    """Kill a training of three epochs; go on with `resume`, or from the start where nothing was saved."""
    import soundsight.backend.trainer
    import soundsight.evaluation.train  # (loaded before forking)
    from soundsight.datasets.prepare import prepare
    from soundsight.errors import ConfigError

    write_clips(place / "sounds", 9)
    config, log = config_of(place), place / "log"
    prepare(config, models.EARS, workers=1)
    runs = place / "runs"
    last = runs / "k" / "weights" / "last.pt"

    def fresh() -> object:
        return soundsight.evaluation.train.train(
            None,
            augment=None,
            data=config.data,
            imgsz=32,
            epochs=3,
            project=str(runs),
            name="k",
            exist_ok=True,
            **QUICK,
        )

    def again() -> object:
        if not last.is_file():
            return fresh()
        try:
            return soundsight.evaluation.train.train(
                None, augment=None, data=config.data, imgsz=32, device="cpu", resume=str(last)
            )
        except ConfigError as error:
            if "at the end of its training" not in str(error):
                raise
        return None

    length = rehearse(fresh, log=log)
    problems, hits, resumed = [], 0, 0
    for number, moment in enumerate(moments(count, 0.2 * length, seed)):
        shutil.rmtree(runs, ignore_errors=True)
        epochs = number % 4  # finished before the kill; the last ones fall into the end of the training
        once = lambda epochs=epochs: _epochs(runs / "k" / "results.csv") >= epochs  # noqa: E731
        hits += killed(fresh, moment, log=log, once=once)
        resumed += last.is_file()
        problems += [f"kill {number}: {text}" for text in _bad_checkpoints(runs, place)]
        if finish(forked(again, log=log)):
            problems.append(f"kill {number}: the restart fails: {log.read_text(encoding='utf-8')[-400:]}")
            continue
        problems += [f"kill {number}, restarted: {text}" for text in _bad_checkpoints(runs, place)]
        if not last.is_file():
            problems.append(f"kill {number}: the restart left no last.pt")
        lines = (runs / "k" / "results.csv").read_text(encoding="utf-8").splitlines()[1:]
        if [line.split(",")[0].strip() for line in lines] != ["1", "2", "3"]:
            problems.append(f"kill {number}: results.csv has the epochs {[line.split(',')[0] for line in lines]}")
    return {
        "kills": count,
        "killed_at_work": hits,
        "had_a_checkpoint": resumed,
        "problems": problems,
        "length_s": round(length, 2),
    }


def _epochs(table: Path) -> int:
    """Epochs that a run has finished, by its table of results."""
    try:
        return max(0, table.read_text(encoding="utf-8").count("\n") - 1)
    except OSError:
        return 0


def _bad_checkpoints(folder: Path, place: Path) -> list[str]:
    """Checkpoints under their final names that cannot be loaded, by a process of its own (this one never computes)."""
    from soundsight.backend.checkpoint import load_checkpoint

    files = [path for path in folder.rglob("*.pt") if not path.name.startswith(".tmp-")]
    log = place / "load-log"
    if files and finish(forked(lambda: [load_checkpoint(path) for path in files], log=log)):
        return [f"a checkpoint does not load: {log.read_text(encoding='utf-8')[-300:]}"]
    return []


def kill_crossval(place: Path, count: int, seed: int) -> dict[str, Any]:
    """Kill a cross-validation of three folds; the same call goes on, and must end with the same predictions."""
    import soundsight.backend.trainer
    import soundsight.evaluation.crossval

    write_clips(place / "sounds", 6)
    config, log, runs = config_of(place), place / "log", place / "runs"

    def work() -> object:
        return soundsight.evaluation.crossval.crossval(
            config,
            models.EARS,
            augment=None,
            name="k",
            runs=runs,
            epochs=1,
            **QUICK,  # (workers=0 draws with all cores)
        )

    length = rehearse(work, log=log)
    wanted = (runs / "k" / "predictions.csv").read_bytes()
    problems, hits = [], 0
    for number, moment in enumerate(moments(count, 0.2 * length, seed)):
        shutil.rmtree(runs, ignore_errors=True)
        fold, trained = 1 + number // 2 % 3, number % 2  # the kill falls into this fold, its training or its scoring
        place_of = runs / "k" / f"fold{fold}-seed0"
        sign = place_of / "run" / "results.csv" if trained else place_of
        hits += killed(work, moment, log=log, once=sign.exists)
        problems += [f"kill {number}: {text}" for text in _bad_checkpoints(runs, place)]
        if finish(forked(work, log=log)):
            problems.append(f"kill {number}: the restart fails: {log.read_text(encoding='utf-8')[-400:]}")
        elif (runs / "k" / "predictions.csv").read_bytes() != wanted:
            problems.append(f"kill {number}: the predictions differ from those of a run that was not killed")
    return {"kills": count, "killed_at_work": hits, "problems": problems, "length_s": round(length, 2)}


if __name__ == "__main__":
    main()
