"""Thresholds per class, from the precision-recall curve of validation clips, and how far they can be trusted."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from soundsight.detection import BoolArray, FloatArray, IntArray, ratio
from soundsight.errors import check_range
from soundsight.metrics import wilson_interval

FEWEST_POSITIVES = 5  # clips of a class without which it gets no threshold
ROUNDS = 200  # of the bootstrap

Interval = tuple[float, float]


class Threshold(NamedTuple):
    """From which probability on a class is reported, and what that rests on.

    With too few clips, `value` and all that follows from it is `None`. Where the wanted precision is not reached,
    `value` is above all that was seen, so that the class is hardly ever reported, and `precision` is `None`.
    """

    value: float | None
    clips: int  # of the class
    interval: Interval | None = None  # 95 % of `value`: bootstrap over all clips (Efron, 1979)
    precision: float | None = None  # of what is reported on these very clips ...
    precision_interval: Interval | None = None  # ... and its 95 % interval (Wilson, 1927)
    recall: float | None = None


def fit(targets: npt.ArrayLike, probabilities: npt.ArrayLike, precision: float | None = None) -> list[Threshold]:
    """A threshold for each class: the best F1, or the highest recall at a wanted precision.

    It lies halfway between the lowest probability that is reported and the next lower one, so that rounding decides
    nothing. Fit it on validation clips, never on the clips that are scored with it.

    Args:
        targets: 0 or 1, `(N, C)`.
        probabilities: `(N, C)` in [0, 1]; of a model that names one class per clip, see `named_only`.
        precision: The least precision wanted, above 0 to 1; `None`: the best F1.

    Returns:
        C thresholds, in the order of the columns.

    Raises:
        ConfigError: The precision is out of range.
    """
    if precision is not None:
        check_range("precision", precision, 0.01, 1)
    truth, values = np.asarray(targets, bool), np.asarray(probabilities, np.float64)
    draws = np.random.default_rng(0).poisson(1, (ROUNDS, len(truth))).astype(np.uint8)  # how often each clip counts
    return [_fit(truth[:, c], values[:, c], precision, draws) for c in range(truth.shape[1])]


def named_only(probabilities: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Probabilities with all but the highest of each row 0: such a model reports nothing else."""
    values = np.asarray(probabilities, np.float64)
    return np.where(values == values.max(axis=1, keepdims=True), values, 0.0)


def _fit(truth: BoolArray, values: FloatArray, wanted: float | None, draws: npt.NDArray[np.uint8]) -> Threshold:
    clips = int(truth.sum())
    if min(clips, len(truth) - clips) < FEWEST_POSITIVES:
        return Threshold(None, clips)
    order = np.argsort(-values, kind="stable")
    truth, values, draws = truth[order], values[order], draws[:, order]
    ends = np.flatnonzero((values > 0) & np.append(values[1:] != values[:-1], True))  # last clip of each probability
    borders = np.append((values[ends] + np.append(values, 0.0)[ends + 1]) / 2, (1 + values[0]) / 2)

    def place(hits: IntArray, reported: IntArray, positives: int) -> int:
        """Index of the chosen border; -1, the one above all clips, where none will do."""
        if wanted is None:
            f1 = ratio(2 * hits, reported + positives)
            return int(np.argmax(f1)) if f1.any() else -1
        enough = np.flatnonzero(ratio(hits, reported) >= wanted)
        return int(enough[-1]) if len(enough) else -1

    def counted(weights: npt.NDArray[np.uint8]) -> tuple[IntArray, IntArray, int]:
        hits = np.cumsum(weights * truth, dtype=np.int64)
        return hits[ends], np.cumsum(weights, dtype=np.int64)[ends], int(hits[-1])

    again = [borders[place(*counted(weights))] for weights in draws]
    low, high = (round(float(np.quantile(again, share)), 6) for share in (0.025, 0.975))
    hits, reported, positives = counted(np.ones(len(truth), np.uint8))
    chosen = place(hits, reported, positives)
    value = round(float(borders[chosen]), 6)
    if chosen < 0:
        return Threshold(value, clips, (low, high))
    right, of = int(hits[chosen]), int(reported[chosen])
    return Threshold(value, clips, (low, high), right / of, wilson_interval(right, of), right / positives)
