"""Score predictions against annotations of the same recordings, segment by segment and event by event.

soundsight score predictions.csv annotations.csv
soundsight score tables/ night.Table.1.selections.txt --out score.json  # what `predict --format raven` wrote
soundsight score scores.csv labels/ --threshold 0.4 --threshold dog=0.7 # what `predict --format scores` wrote
soundsight score night.csv night.txt --segment 5 --collar 1             # Audacity; seconds
"""

from __future__ import annotations

import re
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soundsight.cli import console, outputs
from soundsight.cli.options import Given
from soundsight.config.commands import ScoreOptions

if TYPE_CHECKING:
    from soundsight.evaluation.score import RecordingScores

OPTIONS = ScoreOptions
MADE = re.compile(rb'\A(?:class,annotated,reported,|\{\n  "recordings": )')
SHOWN = {  # column of the table: its title, width and digits
    "annotated": ("annotated", 9, 0), "reported": ("reported", 8, 0),
    "segment_precision": ("precision", 9, 3), "segment_recall": ("recall", 6, 3), "segment_f1": ("F1", 6, 3),
    "event_f1": ("event F1", 8, 3), "false_alarms_per_hour": ("false/h", 8, 2),
    "average_precision": ("AP", 6, 3), "auroc": ("AUROC", 6, 3),
}  # fmt: skip
PROBLEMS = 10  # that are listed


def run(options: ScoreOptions, given: Given) -> int:
    from soundsight.evaluation.score import score_recordings

    console.check_ending(options.out, ".csv", ".json")
    inputs = [options.predictions, options.annotations]
    with outputs.claimed(options, [options.out], MADE, inputs) if options.out else nullcontext():
        scores = console.call(score_recordings, options)
        if options.out:
            scores.write(Path(options.out))
    show(scores, options)
    for problem in scores.problems[:PROBLEMS]:
        console.status(f"  left out: {problem}")
    if len(scores.problems) > PROBLEMS:
        console.status(f"  ... and {len(scores.problems) - PROBLEMS} more")
    return 1 if scores.problems else 0


def show(scores: RecordingScores, options: ScoreOptions) -> None:
    """Print the figures."""
    rows = scores.table()
    columns = {key: SHOWN[key] for key in SHOWN if scores.ranking or key not in ("average_precision", "auroc")}
    width = max(len(str(row["class"])) for row in rows)
    hours = f"{scores.hours:.2f} h" + ("" if scores.measured else " at least (the recordings are not here)")
    count = len(scores.recordings)
    console.output(f"{count} recording{'s' * (count != 1)}, {hours}; segments of {options.segment_seconds:g} s:")
    console.output(" ".join([" " * width, *(f"{title:>{size}}" for title, size, _ in columns.values())]))
    for row in rows:
        values = (_shown(row[key], digits) for key, (_, _, digits) in columns.items())
        sizes = (size for _, size, _ in columns.values())
        console.output(
            " ".join([f"{row['class']:{width}}", *(f"{v:>{s}}" for v, s in zip(values, sizes, strict=True))])
        )
    console.output(
        f"An event is right if its onset is within {options.collar_seconds:g} s and its offset within that or "
        f"{options.collar_fraction:.0%} of its length; a false alarm is one where its class is not annotated at all."
    )
    if scores.ranking:
        figures = scores.ranking.figures()
        console.output(
            f"{scores.ranking.count} predicted segments: cmAP {figures['macro_map']:.3f}, padded "
            f"{figures['padded_cmap']:.3f}, micro mAP {figures['micro_map']:.3f}, best-threshold F1 "
            f"{figures['macro_best_f1']:.3f}; {scores.uncertain} that hold too little of a class to tell are left out."
        )
    for note in scores.notes:
        console.output(note)
    if options.out:
        console.output(f"All figures: {options.out}")


def _shown(value: Any, digits: int) -> str:
    return "-" if value != value else f"{value:.{digits}f}"  # NaN
