"""Same inputs, same settings, same bytes: on one worker and on eight, after a rename, and from the same seed.

python -m torture.same
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from torture import kills, models
from torture.processes import finish, forked


def main() -> None:
    print(json.dumps(run(), indent=2))


def run() -> dict[str, Any]:
    """What was compared, and what differs."""
    from soundsight.datasets.prepare import prepare

    problems = []
    with tempfile.TemporaryDirectory(prefix="soundsight-torture-") as name:
        place = Path(name)
        kills.write_clips(place / "sounds", 100)
        config = kills.config_of(place)
        trees = {}
        for workers in (1, 2, 8):
            goal = replace(config, cache=str(place / f"cache{workers}"), data=str(place / f"data{workers}"))
            done = prepare(goal, models.EARS, workers=workers)
            trees[f"{workers} workers"] = _images(done.data)
        (place / "sounds").rename(place / "renamed")
        moved = replace(config, root=str(place / "renamed"))
        trees["a renamed folder"] = _images(prepare(moved, models.EARS, workers=1).data)
        first = trees.pop("1 workers")
        problems += [f"{what} give other images" for what, found in trees.items() if found != first]
        weights = {_train(place, config.data, number) for number in (1, 2)}
        if len(weights) != 1:
            problems.append("two trainings with one seed give other weights")
        if _train(place, config.data, 3, seed=1) in weights:
            problems.append("another seed gives the same weights, so it reaches nothing")
    return {"pictures": len(first), "compared": ["one worker", *trees, "two trainings, one seed"], "problems": problems}


def _images(data: Path) -> dict[str, str]:
    return {
        path.relative_to(data).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in data.rglob("*.png")
    }


def _train(place: Path, data: str, number: int, *, seed: int = 0) -> str:
    """Train one epoch in a process of its own, augmentation included; SHA-256 of the weights."""
    import soundsight.backend.trainer
    import soundsight.evaluation.train  # (loaded before forking)

    digest = place / f"digest{number}"

    def work() -> None:
        from soundsight.backend.checkpoint import checkpoint_model, load_checkpoint

        options = {**kills.QUICK, "data": data, "imgsz": 32, "epochs": 1, "seed": seed, "name": f"run{number}"}
        done = soundsight.evaluation.train.train(None, project=str(place / "runs"), calibrate=False, **options)
        state = checkpoint_model(load_checkpoint(done.last)).state_dict()
        found = hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in state.values()))
        digest.write_text(found.hexdigest(), encoding="utf-8")

    log = place / "log"
    if finish(forked(work, log=log), seconds=1200):
        raise RuntimeError(f"train fails: {log.read_text(encoding='utf-8')[-500:]}")
    return digest.read_text(encoding="utf-8")


if __name__ == "__main__":
    main()
