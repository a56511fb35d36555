"""Tuning: many short trainings, the worse half stopped early, by Ray Tune with ASHA (Li et al., 2020).

What is compared is top-1 on `data/val`, never on the test split. The state lies in the run's folder: a run that
was killed continues with the trials it had, and each trial from its last epoch.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from soundsight.backend.compat import weights_of
from soundsight.cluster.connect import Cluster
from soundsight.config import ClusterConfig
from soundsight.config.files import find_config, parse_yaml, read_yaml
from soundsight.errors import ConfigError, SoundsightError
from soundsight.files import replacing, write_text

SPACE = {"lr0": "0.0003..0.003", "weight_decay": "0.001..0.1", "augment.mixup": "0..0.8", "augment.gain_db": "0..12"}
# Arguments of `train` that a search sets itself, and what to do instead.
GIVEN = {
    **dict.fromkeys(("exist_ok", "name", "project", "save_dir"), "it writes below runs/tune; write --name"),
    "val": "every epoch of a trial is scored",
    "plots": "it draws none",
    "save": "trials continue from what was saved",
    "resume": "the same command continues a search that was killed",
}
TABLE, COLUMNS = "trials.csv", ("epochs", "top1", "failure")  # beside the settings


def parse_space(words: Mapping[str, Any]) -> tuple[dict[str, tuple[Any, ...]], dict[str, Any]]:
    """Divide settings into what is searched and what is fixed.

    `LOW..HIGH` is searched, evenly in its logarithm where HIGH is ten times LOW or more, and in whole numbers where
    both are; `A|B|C` too.
    """
    space: dict[str, tuple[Any, ...]] = {}
    for key, text in ((key, str(value)) for key, value in words.items()):
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
    return space, {key: value for key, value in words.items() if key not in space}


def check_points(space: Mapping[str, tuple[Any, ...]], fixed: Mapping[str, Any]) -> None:
    """Raise `ConfigError` before any trial if `train` would refuse what a search may come to: of a range its ends."""
    from soundsight.evaluation.train import AUGMENT, resolve

    words = {key: value for key, value in fixed.items() if key not in ("config", "augment")}
    ends = {
        key: bounds[0] if kind == "choice" else [bounds[0], bounds[1] - kind.startswith("whole")]
        for key, (kind, *bounds) in space.items()
    }
    first = {key: values[0] for key, values in ends.items()}
    for key, value in ((key, value) for key, values in ends.items() for value in values):
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
) -> tuple[list[dict[str, Any]], bool]:
    """Search `space` (see `parse_space`); `fixed` are other arguments of `train`, with `config` and `augment`.

    A trial takes `config.cpus` cores, a GPU where there are any, and at least `grace` epochs. A folder that is there
    already, seen by all nodes, is continued. Returns the trials, best first, each with its settings and `COLUMNS`, and
    whether a former run was continued.
    """
    check_points(space, fixed)
    # Ray Tune's habits: loggers of its own, another folder, tables on the terminal.
    os.environ |= {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_CHDIR_TO_TRIAL_DIR": "0", "RAY_AIR_NEW_OUTPUT": "0"}
    from ray import tune as ray
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search import BasicVariantGenerator

    _same_search(folder / "settings.json", space, fixed, trials, seed)
    gpus = 0.0 if str(fixed.get("device")) == "cpu" else cluster.gpus_of_task(config)
    there = {**fixed, "device": None if gpus else "cpu"}
    trainable = ray.with_resources(partial(_trial, fixed=there, folder=folder), {"cpu": config.cpus, "gpu": gpus})
    kept = str(folder / "ray")
    continued = ray.Tuner.can_restore(kept)
    if continued:
        tuner = ray.Tuner.restore(kept, trainable, resume_unfinished=True, restart_errored=True)
    else:
        makers: dict[str, Any] = {"log": ray.loguniform, "even": ray.uniform, "choice": ray.choice}
        makers |= {"whole log": ray.lograndint, "whole even": ray.randint}
        scheduler = ASHAScheduler(time_attr="epoch", max_t=100_000, grace_period=grace, reduction_factor=2)
        points = BasicVariantGenerator(random_state=seed)
        search: dict[str, Any] = {
            "metric": "top1",
            "mode": "max",
            "num_samples": trials,
            "scheduler": scheduler,
            "search_alg": points,
        }
        failures = ray.FailureConfig(max_failures=config.retries)
        tuner = ray.Tuner(
            trainable,
            param_space={key: makers[kind](*bounds) for key, (kind, *bounds) in space.items()},
            tune_config=ray.TuneConfig(**search),
            run_config=ray.RunConfig(name="ray", storage_path=str(folder), verbose=0, failure_config=failures),
        )
    return _summary(tuner.fit(), folder), continued


def _same_search(path: Path, space: Mapping[str, Any], fixed: Mapping[str, Any], trials: int, seed: int) -> None:
    """Keep what is searched, with what the files behind it hold; raise if a former run of the folder had other."""
    from soundsight.datasets import manifest

    contents = {key: read_yaml(find_config(fixed[key])) for key in ("config", "augment") if fixed.get(key)}
    contents |= {"data": manifest.settings_of(str(fixed.get("data") or "data"))}
    record = {"space": dict(space), "fixed": dict(fixed), "files": contents, "trials": trials, "seed": seed}
    text = json.dumps(record, sort_keys=True, default=str)
    if path.is_file() and path.read_text(encoding="utf-8") != text:
        raise ConfigError(f"{path.parent} holds a tuning of other settings; choose another --name.")
    write_text(path, text)


def _trial(point: dict[str, Any], *, fixed: dict[str, Any], folder: Path) -> None:
    """On a worker: one training, which tells its score after each epoch and continues where it was killed."""
    from ray import tune as ray

    from soundsight.evaluation.folds import resumable
    from soundsight.evaluation.train import train

    name = str(ray.get_context().get_trial_id())
    arguments = {"config": None, "augment": "augment.yaml", **fixed, **point, "val": True, "plots": False}
    arguments |= {"project": str(folder / "trials"), "name": name, "exist_ok": True}
    last = weights_of(folder / "trials" / name)
    if resumable(last):
        arguments |= {"resume": str(last), "config": None}  # it goes on as it was
    train(calibrate=False, callback=lambda epoch, top1: ray.report({"epoch": epoch, "top1": top1}), **arguments)


def _summary(results: Any, folder: Path) -> list[dict[str, Any]]:
    rows = []
    for result in results:
        metrics, failure = result.metrics or {}, " ".join(str(result.error or "").split())[:200]
        found = metrics.get("epoch", 0), metrics.get("top1", ""), failure
        rows.append({**(result.config or {}), **dict(zip(COLUMNS, found, strict=True))})
    rows.sort(key=lambda row: -(row["top1"] or -1))
    with replacing(folder / TABLE) as draft, open(draft, "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    if rows[0]["top1"] == "":
        raise SoundsightError(f"All {len(rows)} trials failed, the first with: {rows[0]['failure'] or 'no reason'}")
    best = {"settings": {key: rows[0][key] for key in rows[0] if key not in COLUMNS}, "top1": rows[0]["top1"]}
    write_text(folder / "best.json", json.dumps(best, indent=1) + "\n")
    return rows
