"""Score a model on a split: figures, tables, confusion matrices.

soundsight val runs/classify/train/weights/last.pt --split test
soundsight val last.pt --precision 0.9         # a threshold per class from data/val, stored in the model
soundsight val last.pt --split test --tta-shifts 4 --tta-speeds 0.9,1.1  # the mean of twelve
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from soundsight.cli import console
from soundsight.cli.options import Given
from soundsight.config.commands import ValOptions
from soundsight.errors import ConfigError
from soundsight.files import check_folder

if TYPE_CHECKING:
    from soundsight.detection import DetectionScores
    from soundsight.metrics import Scores

OPTIONS = ValOptions


def run(options: ValOptions, given: Given) -> int:
    from soundsight.datasets.split import lacking
    from soundsight.evaluation.calibration import fit_thresholds
    from soundsight.evaluation.val import val
    from soundsight.metrics import Scores
    from soundsight.reports.wording import seen_message, threshold_lines, timed_lines

    if options.out:
        check_folder(options.out, "metrics.json", overwrite=options.overwrite)
    if options.thresholds or options.precision is not None:
        if options.split != "val":
            raise ConfigError(
                f"--split {options.split}: thresholds are fitted on the split val, never on clips that test them; "
                "leave --split out."
            )
        fitted = console.call(fit_thresholds, options, trust=options.trust_checkpoint)
        for line in threshold_lines(fitted):
            console.output(line)
    done = console.call(val, options, spectrogram=console.own_spectrogram(options))
    scores = done.scores
    console.output(f"{scores.count} clips of {len(scores.names)} classes, split {options.split}:")
    for line in score_lines(scores):
        console.output(f"  {line}")
    for line in timed_lines(done.timed):
        console.output(f"  {line}")
    console.output(f"  {seen_message(asdict(done.seen) if done.seen else None)}")
    there = {name for name, clips in zip(scores.names, scores.support, strict=True) if clips}
    for text in lacking(scores.names, there, f"in the split {options.split}"):
        console.output(f"  {text} Nothing is known of them.")
    matrices = "Confusion matrices, tables" if isinstance(scores, Scores) else "Tables, curves"
    console.output(f"{matrices} and predictions: {done.folder}")
    if done.card:
        console.output(f"Model card, now with these figures: {done.card}")
    return 0


def score_lines(scores: Scores | DetectionScores) -> Iterator[str]:
    """The figures that are told first."""
    from soundsight.evaluation.scoring import headline
    from soundsight.metrics import Scores

    told = headline(scores)
    if isinstance(scores, Scores):
        low, high = scores.interval
        yield f"top-1 {told['top1']:.2%} (95 % interval {low:.1%} to {high:.1%}), top-5 {told['top5']:.2%}"
        yield f"macro F1 {scores.macro_f1:.3f}, expected calibration error {scores.ece:.3f}"
        return
    none = int((~scores.targets.any(axis=1)).sum())
    yield f"mAP {told['macro_map']:.3f} (macro), {told['micro_map']:.3f} (micro); {none} clips are background"
    yield f"AUROC {scores.macro_auroc:.3f}, F1 at the best thresholds of these clips {scores.macro_best_f1:.3f}"
    if "top1" in told:
        yield f"every clip has one class: top-1 {told['top1']:.2%}"
