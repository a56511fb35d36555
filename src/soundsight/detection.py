"""Figures of merit of detectors: several classes per clip or none, and events in recordings.

Pure: arrays and events in, numbers out. `metrics` has the figures of classifiers, which name one class per clip.
A class without positives has no average precision and no AUROC (NaN), and is left out of their means; precision, recall
and F1 of nothing are 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from soundsight.errors import ConfigError

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

PADDING = 5  # true positives that padded cmAP adds to each class (BirdCLEF 2023)


@dataclass(frozen=True, eq=False)
class Counts:
    """Hits and errors of each class at some threshold, and the figures made of them."""

    names: tuple[str, ...]  # of the C classes
    hits: IntArray  # true positives, int64 (C,)
    false: IntArray  # false positives, likewise
    missed: IntArray  # false negatives, likewise

    @property
    def precision(self) -> FloatArray:
        """Share of what was reported that is right, float64 `(C,)`; 0 if nothing was."""
        return ratio(self.hits, self.hits + self.false)

    @property
    def recall(self) -> FloatArray:
        """Share of what is there that was reported, float64 `(C,)`; 0 if nothing is there."""
        return ratio(self.hits, self.hits + self.missed)

    @property
    def f1(self) -> FloatArray:
        """Harmonic mean of precision and recall, float64 `(C,)`; 0 where both are 0."""
        return ratio(2 * self.hits, 2 * self.hits + self.false + self.missed)

    @property
    def macro(self) -> tuple[float, float, float]:
        """Mean precision, recall and F1 of the classes that are there or were reported; 0 if there are none."""
        occurs = self.hits + self.false + self.missed > 0
        precision, recall, f1 = (
            float(figure[occurs].mean()) if occurs.any() else 0.0 for figure in (self.precision, self.recall, self.f1)
        )
        return precision, recall, f1

    @property
    def micro(self) -> tuple[float, float, float]:
        """Precision, recall and F1 of all classes counted together."""
        hits, false, missed = (int(part.sum()) for part in (self.hits, self.false, self.missed))
        pairs = ((hits, hits + false), (hits, hits + missed), (2 * hits, 2 * hits + false + missed))
        precision, recall, f1 = (part / whole if whole else 0.0 for part, whole in pairs)
        return precision, recall, f1


@dataclass(frozen=True, eq=False)
class DetectionScores:
    """All figures of one set of clips or segments, each of which may have several classes, or none."""

    names: tuple[str, ...]  # of the C classes, in the order of the columns
    targets: BoolArray  # (N, C), which classes each clip has
    probabilities: npt.NDArray[np.float32]  # (N, C) in [0, 1]

    @property
    def count(self) -> int:
        """Number of clips."""
        return len(self.targets)

    @property
    def support(self) -> IntArray:
        """Clips of each class, int64 `(C,)`."""
        return self.targets.sum(axis=0, dtype=np.int64)  # type: ignore[no-any-return]

    @cached_property
    def average_precision(self) -> FloatArray:
        """Average precision of each class, float64 `(C,)`: the precision at each hit, averaged; not interpolated."""
        from sklearn.metrics import average_precision_score

        return self._per_class(average_precision_score, self.support > 0)

    @cached_property
    def auroc(self) -> FloatArray:
        """Area under the ROC curve of each class, float64 `(C,)`; NaN without positives or without negatives."""
        from sklearn.metrics import roc_auc_score

        return self._per_class(roc_auc_score, (self.support > 0) & (self.support < self.count))

    @property
    def macro_map(self) -> float:
        """Mean average precision of the classes that have clips, also called cmAP (Kahl et al., 2021)."""
        return _mean(self.average_precision)

    @cached_property
    def micro_map(self) -> float:
        """Average precision of all pairs of clip and class ranked together; NaN without positives."""
        from sklearn.metrics import average_precision_score

        if not self.targets.any():
            return math.nan
        return float(average_precision_score(self.targets.ravel(), self.probabilities.ravel()))

    @cached_property
    def padded_cmap(self) -> float:
        """cmAP as BirdCLEF 2023 counts it: each class gets `PADDING` certain hits, so that rare ones weigh less."""
        from sklearn.metrics import average_precision_score

        more = np.ones((PADDING, len(self.names)))
        targets, values = np.vstack([self.targets, more]), np.vstack([self.probabilities, more])
        return float(average_precision_score(targets, values, average="macro"))

    @property
    def macro_auroc(self) -> float:
        """Mean AUROC of the classes for which it is defined; NaN if there are none."""
        return _mean(self.auroc)

    @cached_property
    def best(self) -> list[BestF1]:
        """The threshold with the highest F1 of each class."""
        return [best_f1(self.targets[:, c], self.probabilities[:, c]) for c in range(len(self.names))]

    @property
    def macro_best_f1(self) -> float:
        """Mean of the highest F1 of the classes that have clips; chosen on these very clips, so an upper bound."""
        return _mean(np.where(self.support > 0, [best.f1 for best in self.best], np.nan))

    def at(self, thresholds: float | npt.ArrayLike) -> Counts:
        """Hits and errors where a class is reported from its threshold on, one for all or `(C,)`."""
        return count_errors(self.names, self.targets, self.probabilities >= np.asarray(thresholds, np.float32))

    def figures(self) -> dict[str, float]:
        """The means over classes, by name; NaN where nothing is there to be averaged."""
        return {
            "macro_map": self.macro_map,
            "micro_map": self.micro_map,
            "padded_cmap": self.padded_cmap,
            "macro_auroc": self.macro_auroc,
            "macro_best_f1": self.macro_best_f1,
        }

    def _per_class(self, figure: Callable[..., float], defined: BoolArray) -> FloatArray:
        values = np.full(len(self.names), np.nan)
        for c in np.flatnonzero(defined):
            values[c] = figure(self.targets[:, c], self.probabilities[:, c])
        return values


def count_errors(names: Sequence[str], targets: BoolArray, reported: BoolArray) -> Counts:
    """Hits and errors of what is reported, both bool `(N, C)`."""
    pairs = ((targets, reported), (~targets, reported), (targets, ~reported))
    return Counts(tuple(names), *((one & other).sum(axis=0, dtype=np.int64) for one, other in pairs))


def score_detections(targets: npt.ArrayLike, probabilities: npt.ArrayLike, names: Sequence[str]) -> DetectionScores:
    """Check targets and probabilities and make `DetectionScores` of them.

    Args:
        targets: 0 or 1, `(N, C)`; or whole numbers `(N,)`, the one class of each clip.
        probabilities: `(N, C)` in [0, 1]; rows need not add up to 1.
        names: The C class names.

    Raises:
        ConfigError: Shapes or values do not fit together.
    """
    values, truth = np.asarray(probabilities, np.float32), np.asarray(targets)
    if truth.ndim == 1:
        truth = truth[:, None] == np.arange(len(names))
    if values.ndim != 2 or values.shape[1] != len(names) or truth.shape != values.shape or not len(values):
        raise ConfigError(
            f"Targets of shape {truth.shape} and probabilities of shape {values.shape} cannot be scored for "
            f"{len(names)} classes; pass (clips, {len(names)}) for both, with at least one clip."
        )
    if not np.isin(truth, (0, 1)).all() or not ((values >= 0) & (values <= 1)).all():
        raise ConfigError("Targets must be 0 or 1 and probabilities 0 to 1; apply a sigmoid to logits first.")
    return DetectionScores(tuple(names), truth.astype(bool), values)


class Curve(NamedTuple):
    """Precision and recall by threshold, float64 `(K,)` each, from the highest probability to the lowest."""

    precision: FloatArray
    recall: FloatArray
    thresholds: FloatArray  # the probability from which on clips are reported

    @property
    def f1(self) -> FloatArray:
        """Harmonic mean of precision and recall, float64 `(K,)`."""
        return ratio(2 * self.precision * self.recall, self.precision + self.recall)


def precision_recall_curve(targets: npt.ArrayLike, probabilities: npt.ArrayLike) -> Curve:
    """The precision-recall curve of one class, by scikit-learn, of targets `(N,)` of which at least one is 1."""
    from sklearn.metrics import precision_recall_curve as curve

    precision, recall, thresholds = curve(np.asarray(targets, bool), np.asarray(probabilities, np.float64))
    return Curve(precision[-2::-1], recall[-2::-1], thresholds[::-1])


class BestF1(NamedTuple):
    """The highest F1 of a class, and the highest threshold that reaches it; 0 and NaN for a class without positives."""

    f1: float
    threshold: float


def best_f1(targets: npt.ArrayLike, probabilities: npt.ArrayLike) -> BestF1:
    """Where the precision-recall curve of one class has its highest F1."""
    if not np.any(targets):
        return BestF1(0.0, math.nan)
    curve = precision_recall_curve(targets, probabilities)
    place = int(np.argmax(curve.f1))
    return BestF1(float(curve.f1[place]), float(curve.thresholds[place]))


def ratio(part: npt.ArrayLike, whole: npt.ArrayLike) -> FloatArray:
    """Shares, float64; 0 where the whole is 0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)  # type: ignore[no-any-return]


def _mean(values: FloatArray) -> float:
    """Mean of what is no NaN; NaN if there is nothing."""
    return float(np.nanmean(values)) if not np.isnan(values).all() else math.nan
