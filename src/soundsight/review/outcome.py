"""What follows from reviews: where reviewers disagree, annotations to train on, how much is right at which score."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from soundsight.backend.checkpoint import checkpoint_model, load_checkpoint, short_file_hash, update_preprocessing
from soundsight.config import BACKGROUND
from soundsight.errors import ConfigError
from soundsight.evaluation.thresholds import FEWEST_POSITIVES, Interval, Threshold
from soundsight.files import csv_text, write_text
from soundsight.metrics import wilson_interval
from soundsight.review.detections import BANDS, Detections
from soundsight.review.progress import Decision, Key

ANNOTATIONS = ("file", "start", "end", "label")
SHARES = ("class", "score_from", "score_to", "reviewed", "right", "share", "low", "high", "threshold")
EDGE = 1e-6  # scores are kept this far from 0 and 1, whose logits are infinite
RIDGE = 100.0  # inverse strength of the penalty of the logistic fit: hardly any, but finite where classes separate


class Merged(NamedTuple):
    """The decisions of all reviewers together."""

    decisions: list[Decision]  # one for each detection that is certain
    disagreements: list[dict[str, Decision]]  # of each detection that is not, by reviewer
    unsure: int


def merge(reviews: Mapping[str, Sequence[Decision]]) -> Merged:
    """Join the decisions of several reviewers; those that name different classes disagree.

    Args:
        reviews: Decisions by reviewer. One who was unsure leaves the decision to the others.
    """
    found: dict[Key, dict[str, Decision]] = defaultdict(dict)
    for name, decisions in reviews.items():
        for decision in decisions:
            found[decision.key][name] = decision
    result = Merged([], [], 0)
    unsure = 0
    for by_reviewer in found.values():
        sure = {name: decision for name, decision in by_reviewer.items() if decision.verdict != "unsure"}
        if not sure:
            unsure += 1
        elif len({frozenset(decision.labels) for decision in sure.values()}) > 1:
            result.disagreements.append(sure)
        else:
            result.decisions.append(next(iter(sure.values())))
    return result._replace(unsure=unsure)


def write_annotations(decisions: Iterable[Decision], detections: Detections, path: Path) -> int:
    """Write a label table that `prepare` reads: the classes of each reviewed segment, or background.

    Segments that nobody reviewed, or nobody was sure about, have no row, so they are not trained on.

    Returns:
        The number of rows.
    """
    segments: dict[tuple[str, float, float], set[str]] = defaultdict(set)
    for decision in decisions:
        if decision.recording in detections.files:
            segments[decision.recording, decision.start, decision.end] |= set(decision.labels)
    rows = [
        (os.path.abspath(detections.files[recording]), start, end, label)
        for (recording, start, end), labels in sorted(segments.items())
        for label in sorted(labels) or [BACKGROUND]
    ]
    if not rows:
        raise ConfigError("Nothing is reviewed yet, so there are no annotations to write; review some detections.")
    write_text(path, csv_text([ANNOTATIONS, *rows]))
    return len(rows)


def overlapping(decisions: Iterable[Decision]) -> bool:
    """Whether reviewed segments of a recording overlap, so that each has to become a clip of its own."""
    places = sorted({decision[:3] for decision in decisions})
    return any(one[0] == two[0] and two[1] < one[2] - 1e-6 for one, two in zip(places, places[1:], strict=False))


class Share(NamedTuple):
    """How many detections of a class were right, at some scores."""

    low: float  # scores from here ...
    high: float  # ... to below here
    reviewed: int
    right: int

    @property
    def interval(self) -> Interval:
        """95 % interval of the share that is right (Wilson, 1927)."""
        return wilson_interval(self.right, self.reviewed) if self.reviewed else (0.0, 1.0)


class ClassShare(NamedTuple):
    """What reviews say of the score of one class."""

    name: str
    whole: Share
    bands: list[Share]  # that hold reviews
    threshold: float | None  # score with the wanted precision; None: cannot be told
    reason: str  # why not


def shares(decisions: Iterable[Decision], precision: float | None = None) -> list[ClassShare]:
    """How much was right at which score, for each class, and the score from which a share of `precision` is right.

    The share at a score is fitted as `1 / (1 + exp(-(a logit(score) + b)))`, and the threshold is where it reaches
    `precision`: C. M. Wood and S. Kahl, Guidelines for appropriate use of BirdNET scores, J. Ornithology 165, 2024. The
    fit is of a share given the score, so a sample that was chosen by score does not bias it.

    Args:
        decisions: Certain ones.
        precision: The share wanted, above 0 and below 1; `None`: no threshold.
    """
    by_class: dict[str, list[tuple[float, bool]]] = defaultdict(list)
    for decision in decisions:
        by_class[decision.label].append((decision.probability, decision.label in decision.labels))
    found = []
    for name, pairs in sorted(by_class.items()):
        bands = []
        for band in range(BANDS):
            inside = [right for score, right in pairs if min(int(score * BANDS), BANDS - 1) == band]
            if inside:
                bands.append(Share(band / BANDS, (band + 1) / BANDS, len(inside), sum(inside)))
        whole = Share(0.0, 1.0, len(pairs), sum(right for _, right in pairs))
        threshold, reason = _threshold(pairs, precision) if precision is not None else (None, "")
        found.append(ClassShare(name, whole, bands, threshold, reason))
    return found


def _threshold(pairs: Sequence[tuple[float, bool]], precision: float) -> tuple[float | None, str]:
    from sklearn.linear_model import LogisticRegression

    scores, right = np.array([score for score, _ in pairs]), np.array([good for _, good in pairs])
    fewest = min(int(right.sum()), int((~right).sum()))
    if fewest < FEWEST_POSITIVES:
        return None, f"{fewest} of the rarer kind, right or wrong; {FEWEST_POSITIVES} are needed"
    scores = np.clip(scores, EDGE, 1 - EDGE)
    model = LogisticRegression(C=RIDGE, max_iter=1000).fit(np.log(scores / (1 - scores))[:, None], right)
    slope, intercept = float(model.coef_[0, 0]), float(model.intercept_[0])
    if slope <= 0:
        return None, "higher scores are not more often right"
    logit = (math.log(precision / (1 - precision)) - intercept) / slope
    return round(1 / (1 + math.exp(-np.clip(logit, -30, 30))), 6), ""


def write_shares(found: Iterable[ClassShare], path: Path) -> None:
    """Write a table: each class as a whole, with its threshold, then its bands of the score."""
    rows: list[Sequence[Any]] = [SHARES]
    for one in found:
        for share in (one.whole, *one.bands):
            threshold = one.threshold if share is one.whole and one.threshold is not None else ""
            ends = (f"{value:.6f}" for value in (share.right / share.reviewed, *share.interval))
            rows.append((one.name, share.low, share.high, share.reviewed, share.right, *ends, threshold))
    write_text(path, csv_text(rows))


def store(
    found: Iterable[ClassShare], decisions: Sequence[Decision], model: Path, detections: Detections
) -> dict[str, float]:
    """Store thresholds in the model that made the predictions; those of other classes stay.

    Returns:
        The thresholds by class.

    Raises:
        ConfigError: The table is of another model, or no class has a threshold.
    """
    if model.suffix != ".pt":
        raise ConfigError(f"{model} is an export, which keeps its thresholds: store them in its checkpoint.")
    own = getattr(checkpoint_model(load_checkpoint(model)), "soundsight", {})
    known = {short_file_hash(model), *own.get("reviewed_as", ())}
    if not detections.models or not detections.models <= known:
        said = ", ".join(sorted(detections.models)) or "a model that it does not name"
        raise ConfigError(
            f"{detections.path} was predicted by {said}, but {model} is {short_file_hash(model)}; thresholds are of "
            "the scores of one model, so name that model, or predict and review again."
        )
    values = {one.name: one.threshold for one in found if one.threshold is not None}
    if not values:
        raise ConfigError("No class has a threshold, so nothing is stored in the model; review more detections.")
    records = dict(own.get("thresholds") or {})
    for name, value in values.items():
        above = [d for d in decisions if d.label == name and d.probability >= value]
        right, clips = (
            sum(name in d.labels for d in some) for some in (above, [d for d in decisions if d.label == name])
        )
        shares_right = (right / len(above), wilson_interval(right, len(above)), right / clips) if above else (None,) * 3
        records[name] = Threshold(value, clips, None, *shares_right)._asdict()
    update_preprocessing(model, thresholds=records, reviewed_as=sorted(known))
    return values
