"""Search for better training settings by top-1 on data/val, with Ray Tune; needs soundsight[ray].

soundsight tune --trials 16 epochs=20                      # learning rate, decay, mixup, gain; this machine
soundsight tune lr0=0.0003..0.01 augment.mixup=0..0.8      # ranges; evenly in the logarithm if they are wide
soundsight tune 'optimizer=AdamW|SGD' 'batch=32|64'        # choices
soundsight tune --engine ray --address 10.0.0.1:6379 --name night   # a trial a GPU; again: continues
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from soundsight import checks
from soundsight.cli import console, engine
from soundsight.cli.options import Given
from soundsight.config import ClusterConfig
from soundsight.config.commands import TuneOptions

OPTIONS = TuneOptions
SETTINGS = (ClusterConfig,)
OPEN = "lr0=0.0003..0.003, epochs=20, data=data, ...: ranges, choices and arguments of a training"


def run(options: TuneOptions, given: Given) -> int:
    cluster = replace(engine.cluster_settings(given), engine="ray")
    from soundsight.cluster.tune import COLUMNS, SPACE, TABLE, parse_space, tune
    from soundsight.evaluation.train import train

    console.check_arguments(given, train)
    config = options.cfg or "train.yaml"
    space, fixed = parse_space(given.rest)
    if not space:
        space, _ = parse_space({key: value for key, value in SPACE.items() if key not in fixed})
    data = os.path.abspath(str(fixed.get("data") or "data"))
    console.check_exists(data, "folder of images")
    folder = Path("runs/tune", options.name).absolute()
    checks.check_writable(folder)
    config = os.path.abspath(config) if os.path.exists(config) else config
    fixed |= {"data": data, "config": config, "augment": None if options.augment == "none" else options.augment}
    with engine.joined(cluster, read=[data], write=[str(folder)]) as joined:
        rows, continued = console.call(tune, options, joined, cluster, space, fixed, folder=folder)
    failed = sum(bool(row["failure"]) for row in rows)
    former = f"{folder} is continued: " if continued else ""
    console.status(f"{former}{len(rows)} trials, {failed} failed; the table is {folder / TABLE}.")
    best = ((key, value) for key, value in rows[0].items() if key not in COLUMNS)
    words = " ".join(f"{key}={value:.6g}" if isinstance(value, float) else f"{key}={value}" for key, value in best)
    print(f"Best of {len(rows)} trials on data/val: top-1 {rows[0]['top1']:.2%} with {words}")
    print("Score it on clips that no trial saw: train with these settings, then `soundsight val ... --split test`.")
    return 1 if failed else 0
