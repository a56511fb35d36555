"""Tuning: many short trainings, the worse half stopped early, by Ray Tune with ASHA (Li et al., 2020).

What is compared is top-1 on `data/val`, never on the test split. The state lies in the run's folder: a run that
was killed continues with the trials it had, and each trial from its last epoch.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from soundsight.backend.compat import weights_of
from soundsight.cluster.connect import Cluster
from soundsight.config import ClusterConfig
from soundsight.config.files import find_config, parse_yaml, read_yaml
from soundsight.errors import ConfigError, SoundsightError
from soundsight.files import replacing, write_text

Say = Callable[[str], None]
SPACE = {"lr0": "0.0003..0.003", "weight_decay": "0.001..0.1", "augment.mixup": "0..0.8", "augment.gain_db": "0..12"}
# Arguments of `train` that a search sets itself, and what to do instead.
GIVEN = {
    **dict.fromkeys(("exist_ok", "name", "project", "save_dir"), "it writes below runs/tune; write --name"),
    "val": "every epoch of a trial is scored",
    "plots": "it draws none",
    "save": "trials continue from what was saved",
    "resume": "the same command continues a search that was killed",
}
BEST, TABLE, STATE = "best.json", "trials.csv", "settings.json"


@dataclass(frozen=True)
class Tuned:
    """What came of a tuning."""

    folder: Path
    best: dict[str, Any]  # settings
    top1: float  # on data/val
    trials: int
    failed: int


def parse_space(words: Mapping[str, Any]) -> tuple[dict[str, tuple[Any, ...]], dict[str, Any]]:
    """Divide settings into what is searched and what is fixed.

    Args:
        words: `LOW..HIGH` is searched, evenly in its logarithm where HIGH is ten times LOW or more, and in whole
            numbers where both are; `A|B|C` too.

    Raises:
        ConfigError: A range is none.
    """
    space: dict[str, tuple[Any, ...]] = {}
    fixed: dict[str, Any] = {}
    for key, value in words.items():
        text = str(value)
        if ".." in text and not {"/", "\\"} & set(text):  # else a path
            low, _, high = text.partition("..")
            try:
                bounds = float(low), float(high)
            except ValueError:
                bounds = (1.0, 0.0)
            if bounds[0] >= bounds[1] or not all(map(math.isfinite, bounds)):
                raise ConfigError(f"{key}={text} is no range; write LOW..HIGH, such as lr0=0.0003..0.003.")
            kind = "log" if 0 < 10 * bounds[0] <= bounds[1] else "even"
            whole = low.strip().isdecimal() and high.strip().isdecimal()
            space[key] = (f"whole {kind}", int(low), int(high) + 1) if whole else (kind, *bounds)
        elif "|" in text:
            space[key] = ("choice", [parse_yaml(part, f"{key}=...") for part in text.split("|")])
        else:
            fixed[key] = value
    return space, fixed


def check_points(space: Mapping[str, tuple[Any, ...]], fixed: Mapping[str, Any]) -> None:
    """Try the settings that a search may come to, before any trial.

    Args:
        space: See `parse_space`; of a range its ends are tried.
        fixed: Other arguments of `train`, with `config` and `augment`.

    Raises:
        ConfigError: `train` would refuse one.
    """
    from soundsight.evaluation.train import AUGMENT, resolve

    words = {key: value for key, value in fixed.items() if key not in ("config", "augment")}
    ends: dict[str, list[Any]] = {}
    for key, (kind, *bounds) in space.items():
        whole = kind.startswith("whole")
        ends[key] = bounds[0] if kind == "choice" else [bounds[0], bounds[1] - 1 if whole else bounds[1]]
    first = {key: values[0] for key, values in ends.items()}
    for key, values in ends.items():
        for value in values:
            resolve(fixed.get("config"), fixed.get("augment", AUGMENT), {**words, **first, key: value}, given=GIVEN)


def tune(
    cluster: Cluster,
    config: ClusterConfig,
    space: Mapping[str, tuple[Any, ...]],
    fixed: Mapping[str, Any],
    *,
    folder: Path,
    trials: int,
    grace: int,
    seed: int,
    say: Say,
) -> Tuned:
    """Search `space`.

    Args:
        cluster: Where; a trial takes `config.cpus` cores, and a GPU where there are any.
        config: See `ClusterConfig`.
        space: See `parse_space`.
        fixed: Other arguments of `train`.
        folder: The run's folder, seen by all nodes; one that is there already is continued.
        trials: Points to try.
        grace: Epochs that every trial gets.
        seed: Of the points.
        say: Told of progress.

    Raises:
        ConfigError: The folder holds another tuning.
        SoundsightError: All trials failed.
    """
    check_points(space, fixed)
    _environment()
    from ray import tune as ray_tune

    state_of = {"space": dict(space), "fixed": dict(fixed), "files": _contents(fixed), "trials": trials, "seed": seed}
    text = json.dumps(state_of, sort_keys=True, default=str)
    state = folder / STATE
    if state.is_file() and state.read_text(encoding="utf-8") != text:
        raise ConfigError(f"{folder} holds a tuning of other settings; choose another --name.")
    write_text(state, text)
    gpus = _gpus(cluster, config, fixed)
    there = {**fixed, "device": None if gpus else "cpu"}
    trainable = ray_tune.with_resources(
        partial(_trial, fixed=there, folder=str(folder)), {"cpu": config.cpus, "gpu": gpus}
    )
    kept = str(folder / "ray")
    if ray_tune.Tuner.can_restore(kept):
        say(f"{folder} is continued.")
        tuner = ray_tune.Tuner.restore(kept, trainable, resume_unfinished=True, restart_errored=True)
    else:
        tuner = _new(ray_tune, trainable, space, folder, trials=trials, grace=grace, seed=seed, retries=config.retries)
    return _summary(tuner.fit(), folder, say)


def _contents(fixed: Mapping[str, Any]) -> dict[str, Any]:
    """What the files behind `fixed` hold: other data or settings under the same names are another tuning."""
    from soundsight.datasets import manifest

    data = str(fixed.get("data") or "data")
    contents = {key: read_yaml(find_config(fixed[key])) for key in ("config", "augment") if fixed.get(key)}
    return contents | {"data": manifest.settings_of(data)}


def _new(
    ray_tune: Any,
    trainable: Any,
    space: Mapping[str, tuple[Any, ...]],
    folder: Path,
    *,
    trials: int,
    grace: int,
    seed: int,
    retries: int,
) -> Any:
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search import BasicVariantGenerator

    makers = {"log": ray_tune.loguniform, "even": ray_tune.uniform, "choice": ray_tune.choice}
    makers |= {"whole log": ray_tune.lograndint, "whole even": ray_tune.randint}
    scheduler = ASHAScheduler(time_attr="epoch", max_t=100_000, grace_period=grace, reduction_factor=2)
    return ray_tune.Tuner(
        trainable,
        param_space={key: makers[kind](*bounds) for key, (kind, *bounds) in space.items()},
        tune_config=ray_tune.TuneConfig(
            metric="top1",
            mode="max",
            num_samples=trials,
            scheduler=scheduler,
            search_alg=BasicVariantGenerator(random_state=seed),
        ),
        run_config=ray_tune.RunConfig(
            name="ray",
            storage_path=str(folder),
            verbose=0,
            failure_config=ray_tune.FailureConfig(max_failures=retries),
        ),
    )


def _environment() -> None:
    """Ray Tune's habits that nobody asked for: other loggers, other folders, tables on the terminal."""
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"


def _gpus(cluster: Cluster, config: ClusterConfig, fixed: Mapping[str, Any]) -> float:
    has = any(node["Resources"].get("GPU", 0) >= 1 for node in cluster.nodes())
    if str(fixed.get("device")) == "cpu" or not has:
        return 0.0
    return 1.0 if config.gpus is None else config.gpus


def _trial(point: dict[str, Any], *, fixed: dict[str, Any], folder: str) -> None:
    """On a worker: one training, which tells its score after each epoch and continues where it was killed."""
    from ray import tune as ray_tune

    from soundsight.evaluation.folds import resumable
    from soundsight.evaluation.train import train

    name = str(ray_tune.get_context().get_trial_id())
    last = weights_of(Path(folder, "trials", name))
    arguments = {**fixed, **point, "project": str(Path(folder, "trials")), "name": name, "exist_ok": True}
    arguments |= {"val": True, "plots": False}
    if resumable(last):
        arguments["resume"] = str(last)

    def callback(epoch: int, top1: float) -> None:
        ray_tune.report({"epoch": epoch, "top1": top1})

    config, augment = arguments.pop("config", None), arguments.pop("augment", "augment.yaml")
    if "resume" in arguments:
        config = None  # it goes on as it was
    train(config, augment=augment, calibrate=False, callback=callback, **arguments)


def _summary(results: Any, folder: Path, say: Say) -> Tuned:
    rows = []
    for result in results:
        metrics = result.metrics or {}
        rows.append({**(result.config or {}), "epochs": metrics.get("epoch", 0), "top1": metrics.get("top1", "")})
        rows[-1]["failure"] = " ".join(str(result.error).split())[:200] if result.error else ""
    good = [row for row in rows if row["top1"] != ""]
    failed = sum(bool(row["failure"]) for row in rows)
    rows.sort(key=lambda row: -(row["top1"] or -1))
    with replacing(folder / TABLE) as draft, open(draft, "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    if not good:
        reason = rows[0]["failure"] or "no reason was given"
        raise SoundsightError(f"All {len(rows)} trials failed, the first with: {reason}")
    best = {key: value for key, value in rows[0].items() if key not in ("epochs", "top1", "failure")}
    write_text(folder / BEST, json.dumps({"settings": best, "top1": rows[0]["top1"]}, indent=1) + "\n")
    say(f"{len(rows)} trials, {failed} failed; the table is {folder / TABLE}.")
    return Tuned(folder, best, float(rows[0]["top1"]), len(rows), failed)
