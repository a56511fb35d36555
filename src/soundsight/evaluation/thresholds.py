"""Thresholds per class, from the precision-recall curve of validation clips, and how far they can be trusted."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from soundsight.detection import BoolArray, FloatArray, ratio
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

    def choose(weights: npt.NDArray[np.uint8]) -> tuple[float, int, int]:
        """The threshold where clips count `weights` times; how many are reported with it, and how many rightly."""
        hits, reported = (np.cumsum(part, dtype=np.int64)[ends] for part in (weights * truth, weights))
        there = np.flatnonzero(np.diff(reported, prepend=0))
        hits, reported, levels = hits[there], reported[there], np.append(values[ends][there], 0.0)
        f1 = ratio(2 * hits, reported + int((weights * truth).sum(dtype=np.int64)))
        good = np.flatnonzero(f1 == f1.max(initial=1e-9) if wanted is None else ratio(hits, reported) >= wanted)
        if not len(good):
            return (1 + levels[0]) / 2, 0, 0
        place = good[0 if wanted is None else -1]
        return (levels[place] + levels[place + 1]) / 2, int(reported[place]), int(hits[place])

    again = [choose(weights)[0] for weights in draws]
    low, high = (round(float(np.quantile(again, share)), 6) for share in (0.025, 0.975))
    value, reported, right = choose(np.ones(len(truth), np.uint8))
    chosen = Threshold(round(float(value), 6), clips, (low, high))
    if not reported:
        return chosen
    interval = wilson_interval(right, reported)
    return chosen._replace(precision=right / reported, precision_interval=interval, recall=right / clips)
