"""`soundsight crossval`."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from soundsight.cli import console, engine, key_values
from soundsight.datasets import manifest
from soundsight.errors import ConfigError

if TYPE_CHECKING:
    from soundsight.config import DatasetConfig, SpectrogramConfig

SUMMARY = "Train and score every fold once: the true score of a recipe, in one command."
EXAMPLES = [
    "soundsight crossval                          # the five official folds of ESC-50",
    "soundsight crossval root=/data/ESC-50 epochs=60 device=0",
    "soundsight crossval --folds 1 epochs=20      # one fold, for a quick comparison",
    "soundsight crossval --seeds 0,1,2            # an ensemble of three models a fold",
    "soundsight crossval model=yolo11n-cls.pt --with runs/crossval/a    # and averaged with the models of that run",
    "soundsight crossval --shifts 4 --speeds 0.9,1.1    # each clip is predicted from twelve versions of it",
    "soundsight crossval --dataset urbansound8k clip_seconds=4",
    "soundsight crossval --engine ray --address 10.0.0.1:6379    # one fold per GPU or node",
    "soundsight crossval my_sounds/               # own data: folds that never divide a recording",
]
UNUSED = ("data", "split.train", "split.val", "split.test", "split.fractions")  # what only `prepare` lays out


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare arguments."""
    console.add_data_files(parser)
    console.add_training_files(parser)
    parser.add_argument(
        "--protocol",
        choices=("last", "train-val-test"),
        default="last",
        help="score the last epoch (default), or the best one by a validation fold",
    )
    parser.add_argument("--folds", type=_numbers, default=(), help="test only these, such as 1,2")
    parser.add_argument("--groups", type=int, help="number of folds for data without (default: 5)")
    parser.add_argument("--seeds", type=_numbers, default=(0,), help="one model per seed, averaged (default: 0)")
    parser.add_argument(
        "--with",
        dest="others",
        metavar="RUN",
        action="append",
        default=[],
        help="finished run on the same data whose models join the average; may be repeated",
    )
    console.add_tta(parser)
    parser.add_argument("--name", help="folder below runs/crossval; the same name continues a killed run")
    parser.add_argument("--workers", type=int, help="processes that render (default: one a core)")
    engine.add_arguments(parser)
    parser.add_argument("settings", nargs="*", metavar="FOLDER|key=value", help="a folder of own sounds, settings")


def run(arguments: argparse.Namespace) -> int:
    """Cross-validate."""
    dataset, spectrogram, rest = console.data_settings(arguments.settings, arguments.dataset, arguments.spectrogram)
    words = key_values([word for word in arguments.settings if "=" in word])
    for key in words.keys() & set(UNUSED):
        raise ConfigError(f"{key}={words[key]} has no effect on a cross-validation, which takes each fold in turn.")
    from soundsight.evaluation.crossval import crossval

    console.check_arguments(rest, crossval, arguments)
    cluster = engine.cluster_settings(arguments)
    if cluster.engine == "ray":
        code = engine.outlive(arguments, cluster)
        if code is not None:
            return code
        dataset = replace(dataset, root=os.path.abspath(dataset.root), cache=os.path.abspath(dataset.cache))
        read, write = [dataset.root], [dataset.cache, os.path.abspath("runs/crossval")]
        with engine.joined(cluster, read=read, write=write) as joined:
            computes = str(rest.get("device")) != "cpu"
            folds = engine.runner(joined, cluster, computes=computes, chunk=1, long=True)
            return score(arguments, dataset, spectrogram, rest, run=engine.runner(joined, cluster), run_folds=folds)
    return score(arguments, dataset, spectrogram, rest)


def score(
    arguments: argparse.Namespace,
    dataset: DatasetConfig,
    spectrogram: SpectrogramConfig,
    rest: dict[str, Any],
    **where: Any,
) -> int:
    """Train and score all folds, here or where `run` and `run_folds` say, and print the figures."""
    from soundsight.evaluation.crossval import crossval

    done = crossval(
        dataset,
        spectrogram,
        config=arguments.config,
        augment=None if arguments.augment == "none" else arguments.augment,
        protocol=arguments.protocol,
        only=arguments.folds,
        groups=arguments.groups,
        seeds=arguments.seeds,
        shifts=arguments.shifts,
        speeds=arguments.speeds,
        others=arguments.others,
        name=arguments.name,
        workers=arguments.workers,
        **where,
        **rest,
    )
    for fold, (top1, top5) in done.per_fold.items():
        console.output(f"fold {fold}: top-1 {top1:.2%}, top-5 {top5:.2%}")
    spread = "" if done.top1.std is None else f" ± {done.top1.std:.2%} over folds"
    low, high = done.pooled.interval
    console.output(f"mean: top-1 {done.top1.mean:.2%}{spread}, top-5 {done.top5.mean:.2%}")
    console.output(
        f"all {done.pooled.count} clips: top-1 {done.pooled.top1:.2%} (95 % interval {low:.1%} to {high:.1%})"
    )
    console.output(f"Matrices, tables and every clip's prediction: {done.folder}")
    failures = manifest.read_failures(done.folder / manifest.FAILURES)
    return console.list_failures(failures, done.folder / manifest.FAILURES)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))
