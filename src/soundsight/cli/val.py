"""`soundsight val`."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from soundsight import config as settings
from soundsight.cli import console, outputs
from soundsight.config import SpectrogramConfig
from soundsight.config.files import find_config
from soundsight.files import check_folder

SUMMARY = "Score a model on a split: figures, tables, confusion matrices."
EXAMPLES = [
    "soundsight val runs/classify/train/weights/last.pt --split test",
    "soundsight val last.pt --split test --shifts 4 --speeds 0.9,1.1   # average over twelve versions of each clip",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare arguments."""
    parser.add_argument("model", help="a checkpoint or an exported model")
    parser.add_argument("--split", default="val", choices=("train", "val", "test"), help="default: val")
    parser.add_argument("--data", default="data", help="prepared folder (default: data)")
    parser.add_argument("--out", metavar="FOLDER", help="default: a new folder runs/classify/val-<split>")
    outputs.add_overwrite(parser)
    parser.add_argument("--batch", type=int, default=64, help="images a batch (default: 64)")
    parser.add_argument("--allow-seen", action="store_true", help="also score clips that the model was trained on")
    console.add_tta(parser)
    console.add_model_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Score."""
    from soundsight.datasets.split import lacking
    from soundsight.evaluation.val import val
    from soundsight.reports.wording import seen_message

    if arguments.out:
        check_folder(arguments.out, "metrics.json", overwrite=arguments.overwrite)
    chosen = arguments.spectrogram
    done = val(
        arguments.model,
        data=arguments.data,
        split=arguments.split,
        folder=arguments.out,
        device=arguments.device,
        batch=arguments.batch,
        shifts=arguments.shifts,
        speeds=arguments.speeds,
        spectrogram=settings.load(SpectrogramConfig, find_config(chosen)) if chosen else None,
        trust=arguments.trust_checkpoint,
        allow_seen=arguments.allow_seen,
    )
    scores = done.scores
    low, high = scores.interval
    console.output(f"{scores.count} clips of {len(scores.names)} classes, split {arguments.split}:")
    console.output(f"  top-1 {scores.top1:.2%} (95 % interval {low:.1%} to {high:.1%}), top-5 {scores.top5:.2%}")
    console.output(f"  macro F1 {scores.macro_f1:.3f}, expected calibration error {scores.ece:.3f}")
    console.output(f"  {seen_message(asdict(done.seen) if done.seen else None)}")
    there = {name for name, clips in zip(scores.names, scores.support, strict=True) if clips}
    for text in lacking(scores.names, there, f"in the split {arguments.split}"):
        console.output(f"  {text} Nothing is known of them.")
    console.output(f"Confusion matrices, tables and predictions: {done.folder}")
    if done.card:
        console.output(f"Model card, now with these figures: {done.card}")
    return 0
