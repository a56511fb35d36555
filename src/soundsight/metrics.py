"""Figures of merit of a classifier, counted from targets and probabilities.

Pure: arrays in, numbers out; no files, no plots. `tables` writes what is counted here, `plots` renders it.
A class without clips never makes a figure undefined: its precision, recall and F1 are 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from soundsight.detection import Counts, DetectionScores, FloatArray, IntArray, ratio
from soundsight.errors import ConfigError

TEMPERATURES = 0.01, 100.0  # what a model may carry; no fit ends here, because of the prior
CALIBRATION_BINS = 15  # as in Guo et al. (2017)
_Z95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution
PRIOR_DEVIATION = 0.35  # of the logarithm of a temperature, before any clip was seen
_SUM_TOLERANCE = 0.01  # half-precision and quantised exports do not add up to 1 exactly

KEPT_SHARE = 0.95  # of the right predictions, which must not become "unknown"
FEWEST_RIGHT = 40  # right predictions without which no threshold is set
FEWEST_CLIPS, FEWEST_WRONG = 50, 5  # without which no temperature is set; benchmarks/results/temperature_clips.csv


@dataclass(frozen=True, eq=False)
class Scores:
    """All figures of one set of clips; made by `score`. Every figure is counted on first use."""

    names: tuple[str, ...]  # of the C classes, in the order of the model's outputs
    targets: IntArray  # int64 (N,), true class of each clip, 0 to C - 1
    probabilities: npt.NDArray[np.float32]  # (N, C) in [0, 1], each row adds up to 1

    @property
    def count(self) -> int:
        """Number of clips."""
        return len(self.targets)

    @cached_property
    def predictions(self) -> IntArray:
        """Most probable class of each clip, int64 `(N,)`; of equal ones the first."""
        return np.argmax(self.probabilities, axis=1)  # type: ignore[no-any-return]

    @cached_property
    def ranks(self) -> IntArray:
        """Rank of the true class of each clip, int64 `(N,)`, 1 to C; of equal ones the first comes first."""
        true = self.probabilities[np.arange(self.count), self.targets, None]
        earlier = np.arange(len(self.names)) < self.targets[:, None]
        ahead = (self.probabilities > true) | ((self.probabilities == true) & earlier)
        return 1 + ahead.sum(axis=1)  # type: ignore[no-any-return]

    @property
    def top1(self) -> float:
        """Share of clips whose most probable class is the true one, 0 to 1."""
        return float(np.mean(self.ranks == 1))

    @property
    def top5(self) -> float:
        """Share of clips whose true class is among the five most probable, 0 to 1; with C < 5, the C."""
        return float(np.mean(self.ranks <= min(5, len(self.names))))

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of `top1` (Wilson, 1927); takes the clips to be independent."""
        return wilson_interval(int(np.sum(self.ranks == 1)), self.count)

    @cached_property
    def confusion(self) -> IntArray:
        """Clips by true class (rows) and predicted class (columns), int64 `(C, C)`."""
        size = len(self.names)
        cells = np.bincount(self.targets * size + self.predictions, minlength=size * size)
        return cells.reshape(size, size).astype(np.int64)

    @property
    def support(self) -> IntArray:
        """Clips of each true class, int64 `(C,)`."""
        return self.confusion.sum(axis=1)  # type: ignore[no-any-return]

    @cached_property
    def counts(self) -> Counts:
        """Hits and errors of each class, of which precision, recall and F1 are made."""
        hits = np.diagonal(self.confusion)
        return Counts(self.names, hits, self.confusion.sum(axis=0) - hits, self.support - hits)

    @property
    def precision(self) -> FloatArray:
        """Share of the clips given to a class that belong to it, float64 `(C,)`; 0 if none were given."""
        return self.counts.precision

    @property
    def recall(self) -> FloatArray:
        """Share of the clips of a class that were given to it, float64 `(C,)`; 0 if there are none."""
        return self.counts.recall

    @property
    def f1(self) -> FloatArray:
        """Harmonic mean of precision and recall, float64 `(C,)`; 0 where both are 0."""
        return self.counts.f1

    @property
    def macro_f1(self) -> float:
        """Mean F1 of the classes that occur among targets or predictions, as scikit-learn counts it."""
        return self.counts.macro[2]

    @cached_property
    def one_vs_rest(self) -> DetectionScores:
        """The same clips with each class against all others: average precision, AUROC and best-threshold F1."""
        truth = self.targets[:, None] == np.arange(len(self.names))
        return DetectionScores(self.names, truth, self.probabilities)

    @property
    def ece(self) -> float:
        """Expected calibration error, 0 to 1, 15 bins (Guo et al., ICML 2017, equation 5)."""
        bins = reliability_bins(self.targets, self.probabilities)
        return float(np.sum(bins.count * np.abs(bins.accuracy - bins.confidence)) / self.count)

    @property
    def nll(self) -> float:
        """Mean negative log-likelihood of the true class, in nats; a probability counts as 1e-7 at least."""
        true = self.probabilities[np.arange(self.count), self.targets].astype(np.float64)
        return float(-np.log(np.maximum(true, np.finfo(np.float32).eps)).mean())

    @property
    def brier(self) -> float:
        """Mean squared error over all classes of a clip, 0 (best) to 2 (Brier, 1950)."""
        error = self.probabilities.astype(np.float64)
        error[np.arange(self.count), self.targets] -= 1
        return float(np.mean(np.sum(error**2, axis=1)))


def score(targets: npt.ArrayLike, probabilities: npt.ArrayLike, names: Sequence[str]) -> Scores:
    """Check targets and probabilities and make `Scores` of them.

    Args:
        targets: Whole numbers `(N,)`, the true class of each clip, 0 to C - 1.
        probabilities: `(N, C)` in [0, 1]; each row adds up to 1, within 0.01.
        names: The C class names, in the order of the columns.

    Raises:
        ConfigError: Shapes, values or names do not fit together.
    """
    names = tuple(names)
    if not names or len(set(names)) != len(names):
        raise ConfigError(
            f"{len(names)} class names, {len(set(names))} of them different, cannot be scored; "
            "give at least one name and every name once."
        )
    values = np.asarray(probabilities, np.float32)
    if values.ndim != 2 or values.shape[1] != len(names):
        raise ConfigError(
            f"probabilities have shape {values.shape}, but {len(names)} class names need "
            f"(clips, {len(names)}); pass one row per clip and one column per class."
        )
    classes = _check_targets(targets, len(values), len(names))
    sums = values.sum(axis=1, dtype=np.float64)
    wrong = ~(np.isfinite(values).all(axis=1) & (values >= 0).all(axis=1) & (abs(sums - 1) < _SUM_TOLERANCE))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ConfigError(
            f"Row {row} of the probabilities is no distribution (smallest {values[row].min():g}, sum "
            f"{sums[row]:g}); values must be 0 to 1 and add up to 1, so apply softmax to logits first."
        )
    return Scores(names, classes, values)


def _check_targets(targets: npt.ArrayLike, clips: int, size: int) -> IntArray:
    classes = np.asarray(targets)
    if classes.shape != (clips,):
        raise ConfigError(
            f"targets have shape {classes.shape}, but there are {clips} rows to score; pass one class per row."
        )
    if not clips:
        raise ConfigError("There are no clips to score; at least one is needed, so check the split.")
    if classes.dtype.kind not in "iu":
        raise ConfigError(
            f"targets are of type {classes.dtype}, but must be whole numbers from 0 to {size - 1}; "
            "pass class indices, not names or shares."
        )
    bad = classes[(classes < 0) | (classes >= size)]
    if len(bad):
        raise ConfigError(
            f"target {bad[0]} is not a class: 0 to {size - 1} is allowed; "
            "check that data and model have the same classes."
        )
    return classes.astype(np.int64)


def wilson_interval(hits: int, count: int) -> tuple[float, float]:
    """95 % score interval of a share of `hits` in `count` (E. B. Wilson, JASA 22, 1927)."""
    share, z2 = hits / count, _Z95**2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = _Z95 / (1 + z2 / count) * np.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


@dataclass(frozen=True, eq=False)
class ReliabilityBins:
    """Clips grouped by confidence, the probability of the predicted class. Empty bins hold zeros."""

    edges: FloatArray  # (B + 1,), 0 to 1; bin b holds confidences above edge b, up to edge b + 1
    count: IntArray  # (B,), clips in each bin
    confidence: FloatArray  # (B,), mean confidence of each bin
    accuracy: FloatArray  # (B,), share of correct clips of each bin


def reliability_bins(
    targets: npt.ArrayLike, probabilities: npt.ArrayLike, *, bins: int = CALIBRATION_BINS
) -> ReliabilityBins:
    """Group clips, targets `(N,)` and probabilities `(N, C)`, into B `bins` of equal width by confidence.

    Guo et al., 2017, section 2.
    """
    values = np.asarray(probabilities, np.float64)
    confidence = values.max(axis=1)
    correct = values.argmax(axis=1) == np.asarray(targets)
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.digitize(confidence, edges, right=True) - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins).astype(np.int64)
    return ReliabilityBins(
        edges=edges,
        count=count,
        confidence=ratio(np.bincount(place, confidence, bins), count),
        accuracy=ratio(np.bincount(place, correct, bins), count),
    )


class ConfusedPair(NamedTuple):
    """`clips` of class `true` were taken for `predicted`: `share` (0 to 1) of all of that class."""

    true: str
    predicted: str
    clips: int
    share: float


def confused_pairs(confusion: npt.ArrayLike, names: Sequence[str], limit: int = 20) -> list[ConfusedPair]:
    """The most frequent mistakes in counts `(C, C)`, most frequent first; of equal counts by their share."""
    table = np.asarray(confusion)
    support = table.sum(axis=1)
    mistakes = np.argwhere((table > 0) & ~np.eye(len(table), dtype=bool))
    pairs = [
        ConfusedPair(names[row], names[column], int(table[row, column]), float(table[row, column] / support[row]))
        for row, column in mistakes
    ]
    pairs.sort(key=lambda pair: (-pair.clips, -pair.share, pair.true, pair.predicted))
    return pairs[:limit]


class Temperature(NamedTuple):
    """Temperature T of softmax(logits / T) and its 95 % interval; above 1 the model was too sure of itself."""

    value: float
    low: float
    high: float


def fit_temperature(logits: npt.ArrayLike, targets: npt.ArrayLike) -> Temperature:
    """Most probable temperature (Guo et al., 2017, section 4.2, with a prior), and where it may lie.

    The prior on T is log-normal with median 1 and log-deviation `PRIOR_DEVIATION`: 19 of 20 such temperatures lie
    between 1/2 and 2. It decides where few clips, or none that is wrong, would send it to 0 or to infinity;
    benchmarks/results/temperature_clips.csv has the measurement that it was chosen by. The interval is where the
    posterior's logarithm is within 1.92 of its peak, half the 95 % quantile of chi-squared with one degree of freedom
    (Wilks, 1938).

    Fit it on validation clips, never on the clips that are scored with it.

    Args:
        logits: `(N, C)`, the model's outputs before softmax (log-probabilities serve as well).
        targets: Whole numbers `(N,)`.

    Raises:
        ConfigError: Shapes do not fit together, or a logit is not finite.
    """
    from scipy.optimize import brentq, minimize_scalar
    from scipy.special import logsumexp

    values = np.asarray(logits, np.float64)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise ConfigError(
            f"logits of shape {values.shape} cannot be calibrated: finite numbers of shape (clips, classes) "
            "are needed; clip log-probabilities of 0 first."
        )
    classes = _check_targets(targets, len(values), values.shape[1])
    true = values[np.arange(len(values)), classes]

    def loss(log_temperature: float) -> float:  # minus the logarithm of the posterior
        beta = np.exp(-log_temperature)
        likelihood = float(np.sum(logsumexp(values * beta, axis=1) - true * beta))
        return likelihood + 0.5 * (log_temperature / PRIOR_DEVIATION) ** 2

    edges = np.log(TEMPERATURES)
    best = float(minimize_scalar(loss, bounds=edges, method="bounded", options={"xatol": 1e-6}).x)
    limit = loss(best) + 0.5 * _Z95**2
    low, high = (brentq(lambda t: loss(t) - limit, best, end) if loss(end) > limit else end for end in edges)
    return Temperature(float(np.exp(best)), float(np.exp(low)), float(np.exp(high)))


class Spread(NamedTuple):
    """Mean of several values, sample standard deviation, 95 % interval of the mean; `None` for one value."""

    mean: float
    std: float | None
    interval: tuple[float, float] | None


def mean_and_spread(values: Sequence[float]) -> Spread:
    """Summarise one figure over folds or seeds.

    The interval is Student's t. Folds share training clips, so it is a guide, not an exact coverage
    (Bengio and Grandvalet, JMLR 5, 2004).
    """
    from scipy.special import stdtrit

    array = np.asarray(values, np.float64)
    if array.ndim != 1 or not len(array) or not np.isfinite(array).all():
        raise ConfigError(
            f"{list(values)} cannot be averaged; give one finite number a fold and leave out failed folds."
        )
    mean = float(array.mean())
    if len(array) == 1:
        return Spread(mean, None, None)
    std = float(array.std(ddof=1))
    half = float(stdtrit(len(array) - 1, 0.975)) * std / len(array) ** 0.5
    return Spread(mean, std, (mean - half, mean + half))
