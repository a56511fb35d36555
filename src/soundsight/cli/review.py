"""Check detections one by one, by keyboard in a page; or make annotations and thresholds of what was checked.

soundsight review predictions.csv                                # then open http://127.0.0.1:8000
soundsight review predictions.csv --sample uncertain --number 50 --reviews anna.json
soundsight review predictions.csv --annotations labels.csv       # a label table for `prepare`
soundsight review predictions.csv --precision 0.9 --store last.pt --shares shares.csv
soundsight review predictions.csv --reviews anna.json --reviews ben.json --annotations labels.csv
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from soundsight.cli import console, outputs
from soundsight.cli.options import Given
from soundsight.config.detections import ReviewOptions
from soundsight.errors import ConfigError

if TYPE_CHECKING:
    from soundsight.review.detections import Detections
    from soundsight.review.outcome import ClassShare, Merged
    from soundsight.review.progress import Decision

OPTIONS = ReviewOptions
ANNOTATIONS, SHARES = re.compile(rb"\Afile,start,end,label\n"), re.compile(rb"\Aclass,score_from,score_to,reviewed,")
LISTED = 20  # disagreements that are named


def run(options: ReviewOptions, given: Given) -> int:
    """Review, or make something of reviews."""
    from soundsight.review import detections

    found = detections.load(options.predictions, threshold=options.threshold, root=options.root)
    for problem in found.failures():
        console.status(f"  failed: {problem}")
    files = [Path(name) for name in options.reviews] or [Path(f"{options.predictions}.review.json")]
    if options.outputs:
        conclude(options, found, files)
    else:
        open_page(options, found, files)
    return 1 if found.missing else 0


def open_page(options: ReviewOptions, found: Detections, files: Sequence[Path]) -> None:
    """Serve the page until Ctrl-C."""
    from soundsight.cli.serve import require_packages
    from soundsight.review import detections
    from soundsight.review.progress import sitting

    require_packages()
    if len(files) > 1:
        raise ConfigError("The page writes one file; name one with --reviews, and merge several with --annotations.")
    from soundsight.serve.review import create_review_app
    from soundsight.serve.server import bind, serve

    queue = detections.sample(found.rows, how=options.sample, number=options.number, seed=options.seed)
    bound = bind(options.host, options.port)
    with sitting(files[0], found, queue) as review:
        app = create_review_app(
            review, classes=options.classes, context_seconds=options.context_seconds, host=options.host
        )
        message = f"{len(review.left)} of {len(queue)} detections are left; decisions are kept in {files[0]}."
        try:
            serve(app, bound, host=options.host, message=message)
        finally:
            console.status(f"{len(review.decisions)} decisions are in {files[0]}; {len(review.left)} detections left.")


def conclude(options: ReviewOptions, found: Detections, files: Sequence[Path]) -> None:
    """Write annotations, shares and thresholds."""
    from soundsight.review import outcome
    from soundsight.review.progress import read_decisions

    console.check_ending(options.annotations, ".csv")
    console.check_ending(options.shares, ".csv")
    merged = outcome.merge({str(file): read_decisions(file, found) for file in files})
    show_merged(merged, len(files))
    inputs = [options.predictions, *files, options.store]
    if options.annotations:
        path = Path(options.annotations)
        with outputs.claimed(options, [path], ANNOTATIONS, inputs):
            count = outcome.write_annotations(merged.decisions, found, path)
        cut = " cut=rows" if outcome.overlapping(merged.decisions) else ""
        root = found.common_folder()
        console.output(
            f"{count} annotations: {path}; to train on them: soundsight prepare {root} table={path.absolute()}{cut}"
        )
    shares = outcome.shares(merged.decisions, options.precision)
    if options.shares:
        with outputs.claimed(options, [options.shares], SHARES, inputs):
            outcome.write_shares(shares, Path(options.shares))
    show_shares(shares, options.precision)
    if options.store:
        values = outcome.store(shares, merged.decisions, Path(options.store), found)
        console.output(f"Thresholds of {', '.join(values)} are stored in {options.store}.")


def show_merged(merged: Merged, reviewers: int) -> None:
    """Print how much is decided, and on what reviewers disagree."""
    certain, disagreed = len(merged.decisions), len(merged.disagreements)
    text = f"{certain} decisions, {merged.unsure} unsure"
    console.output(text + (f", {disagreed} that {reviewers} reviewers disagree on" if reviewers > 1 else "") + ".")
    for decisions in merged.disagreements[:LISTED]:
        first = next(iter(decisions.values()))
        said = "; ".join(f"{name}: {described(decision)}" for name, decision in decisions.items())
        console.output(f"  {first.recording} at {first.start:g} s, {first.label} {first.probability:.3f}: {said}")
    if disagreed > LISTED:
        console.output(f"  ... and {disagreed - LISTED} more")
    if disagreed:
        console.output("They are left out of annotations and shares.")


def described(decision: Decision) -> str:
    """The classes that a reviewer named."""
    return ", ".join(decision.labels) or "none of the classes"


def show_shares(shares: Sequence[ClassShare], precision: float | None) -> None:
    """Print what was right, by class."""
    width = max([5, *(len(one.name) for one in shares)])
    wanted = "" if precision is None else f"  threshold for {precision:.0%}"
    console.output(f"{'class':{width}}  reviewed  right  share  95 % interval{wanted}")
    for one in shares:
        low, high = one.whole.interval
        share = one.whole.right / one.whole.reviewed
        text = (
            f"{one.name:{width}}  {one.whole.reviewed:8}  {one.whole.right:5}  {share:5.0%}  {low:4.0%} to {high:4.0%}"
        )
        if precision is not None:
            text += f"    {f'{one.threshold:.3f}' if one.threshold is not None else f'none: {one.reason}'}"
        console.output(text)
