"""`soundsight tune`."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

from soundsight import checks
from soundsight.cli import console, engine, key_values
from soundsight.errors import ConfigError

SUMMARY = "Search for better training settings by top-1 on data/val, with Ray Tune; needs soundsight[ray]."
EXAMPLES = [
    "soundsight tune --trials 16 epochs=20                      # learning rate, decay, mixup, gain; this machine",
    "soundsight tune lr0=0.0003..0.01 augment.mixup=0..0.8      # ranges; evenly in the logarithm if they are wide",
    "soundsight tune 'optimizer=AdamW|SGD' 'batch=32|64'        # choices",
    "soundsight tune --engine ray --address 10.0.0.1:6379 --name night   # a trial a GPU; again: continues",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare arguments."""
    console.add_training_files(parser)
    parser.add_argument("--trials", type=int, default=16, help="points to try (default: 16)")
    parser.add_argument("--grace", type=int, default=3, help="epochs before a trial may be stopped (default: 3)")
    parser.add_argument("--seed", type=int, default=0, help="of the points (default: 0)")
    parser.add_argument("--name", default="tune", help="folder below runs/tune; the same name continues a killed run")
    engine.add_arguments(parser)
    console.add_settings(parser, "lr0=0.0003..0.003, epochs=20, data=data")


def run(arguments: argparse.Namespace) -> int:
    """Tune."""
    cluster = replace(engine.cluster_settings(arguments), engine="ray")
    if arguments.trials < 1 or arguments.grace < 1:
        raise ConfigError(f"--trials {arguments.trials} --grace {arguments.grace}: both must be 1 or more.")
    code = engine.outlive(arguments, cluster)
    if code is not None:
        return code
    from soundsight.cluster.tune import SPACE, parse_space, tune
    from soundsight.evaluation.train import train

    words = key_values(arguments.settings)
    console.check_arguments(words, train, arguments)
    if arguments.config and "cfg" in words:
        raise ConfigError(f"cfg={words['cfg']} and --config {arguments.config} exclude each other; name one.")
    config = str(arguments.config or words.pop("cfg", None) or "train.yaml")
    space, fixed = parse_space(words)
    if not space:
        space, _ = parse_space({key: value for key, value in SPACE.items() if key not in fixed})
    data = os.path.abspath(str(fixed.get("data") or "data"))
    console.check_exists(data, "folder of images")
    folder = Path("runs/tune", arguments.name).absolute()
    checks.check_writable(folder)
    config = os.path.abspath(config) if os.path.exists(config) else config
    fixed |= {"data": data, "config": config, "augment": None if arguments.augment == "none" else arguments.augment}
    with engine.joined(cluster, read=[data], write=[str(folder)]) as joined:
        done = tune(
            joined,
            cluster,
            space,
            fixed,
            folder=folder,
            trials=arguments.trials,
            grace=arguments.grace,
            seed=arguments.seed,
            say=console.status,
        )
    best = " ".join(
        f"{key}={value:.6g}" if isinstance(value, float) else f"{key}={value}" for key, value in done.best.items()
    )
    print(f"Best of {done.trials} trials on data/val: top-1 {done.top1:.2%} with {best}")
    print("Score it on clips that no trial saw: train with these settings, then `soundsight val ... --split test`.")
    return 1 if done.failed else 0
