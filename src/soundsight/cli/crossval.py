"""Train and score every fold once: the true score of a recipe, in one command.

soundsight crossval                          # the five official folds of ESC-50
soundsight crossval root=/data/ESC-50 epochs=60 device=0
soundsight crossval --folds 1 epochs=20      # one fold, for a quick comparison
soundsight crossval --seeds 0,1,2            # an ensemble of three models a fold
soundsight crossval model=yolo11n-cls.pt --with runs/crossval/a    # and averaged with the models of that run
soundsight crossval --tta-shifts 4 --tta-speeds 0.9,1.1    # each clip is predicted from twelve versions of it
soundsight crossval --dataset urbansound8k clip_seconds=4
soundsight crossval --engine ray --address 10.0.0.1:6379    # one fold per GPU or node
soundsight crossval my_sounds/               # own data: folds that never divide a recording
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from soundsight.cli import console, engine
from soundsight.cli.options import Given
from soundsight.config import ClusterConfig, DatasetConfig, SpectrogramConfig
from soundsight.config.commands import CrossvalOptions
from soundsight.datasets import manifest
from soundsight.errors import ConfigError

if TYPE_CHECKING:
    from soundsight.config import DatasetConfig, SpectrogramConfig

OPTIONS = CrossvalOptions
SETTINGS = (DatasetConfig, SpectrogramConfig, ClusterConfig)
OPEN = "epochs=50, imgsz=256, device=0, ...: any training argument of `yolo`; augment.mixup=0.8, ...: augmentation"
UNUSED = ("data", "split.train", "split.val", "split.test", "split.fractions")  # what only `prepare` lays out


def run(options: CrossvalOptions, given: Given) -> int:
    dataset, spectrogram = console.data_settings(options, given)
    words = given.of(DatasetConfig)
    for key in words.keys() & set(UNUSED):
        raise ConfigError(f"{key}={words[key]} has no effect on a cross-validation, which takes each fold in turn.")
    from soundsight.evaluation.crossval import crossval

    console.check_arguments(given, crossval)
    cluster = engine.cluster_settings(given)
    if cluster.engine == "ray":
        dataset = replace(dataset, root=os.path.abspath(dataset.root), cache=os.path.abspath(dataset.cache))
        read, write = [dataset.root], [dataset.cache, os.path.abspath("runs/crossval")]
        with engine.joined(cluster, read=read, write=write) as joined:
            computes = str(given.rest.get("device")) != "cpu"
            folds = engine.runner(joined, cluster, computes=computes, chunk=1, long=True)
            return score(options, dataset, spectrogram, given.rest, run=engine.runner(joined, cluster), run_folds=folds)
    return score(options, dataset, spectrogram, given.rest)


def score(
    options: CrossvalOptions,
    dataset: DatasetConfig,
    spectrogram: SpectrogramConfig,
    rest: dict[str, Any],
    **where: Any,
) -> int:
    """Train and score all folds, here or where `run` and `run_folds` say, and print the figures."""
    from soundsight.evaluation.crossval import FIGURES, crossval, headline
    from soundsight.metrics import Scores
    from soundsight.reports.wording import timed_lines

    augment = None if options.augment == "none" else options.augment
    done = console.call(crossval, options, dataset, spectrogram, config=options.cfg, augment=augment, **where, **rest)
    names = [FIGURES[key] for key in done.figures]
    for fold, found in done.per_fold.items():
        told = ", ".join(f"{name} {value:.2%}" for name, value in zip(names, found, strict=True))
        console.output(f"fold {fold}: {told}")
    spreads = [f" ± {of.std:.2%} over folds" if of.std is not None else "" for of in done.figures.values()]
    means = [f"{name} {of.mean:.2%}" for name, of in zip(names, done.figures.values(), strict=True)]
    console.output(f"mean: {means[0]}{spreads[0]}, {', '.join(means[1:])}")
    pooled = ", ".join(f"{FIGURES[key]} {value:.2%}" for key, value in headline(done.pooled).items() if key != "top5")
    if isinstance(done.pooled, Scores):
        low, high = done.pooled.interval
        pooled += f" (95 % interval {low:.1%} to {high:.1%})"
    console.output(f"all {done.pooled.count} clips: {pooled}")
    for line in timed_lines(done.timed):
        console.output(line)
    console.output(f"Tables, figures and every clip's prediction: {done.folder}")
    listed = done.folder / manifest.FAILURES
    failures = manifest.read_failures(listed)
    what = f"clip{'s' * (len(failures) > 1)} failed"
    return console.list_failures(failures, what, f"all are listed in {listed}")
