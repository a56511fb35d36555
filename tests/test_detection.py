"""Figures of merit of detectors, and thresholds: against scikit-learn, and against what can be counted by hand."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import average_precision_score, precision_recall_fscore_support, roc_auc_score

from soundsight.detection import DetectionScores, best_f1, precision_recall_curve, score_detections
from soundsight.errors import ConfigError
from soundsight.evaluation import thresholds
from soundsight.metrics import score, wilson_interval

NAMES = ("dog", "rain", "wind")
# Six clips: a dog alone, dog and rain, rain, nothing, nothing, dog; nobody ever marked wind.
TRUTH = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0], [1, 0, 0]])
PROBABILITIES = np.array(
    [[0.9, 0.1, 0.0], [0.8, 0.6, 0.1], [0.2, 0.9, 0.0], [0.7, 0.2, 0.3], [0.1, 0.1, 0.0], [0.6, 0.3, 0.2]]
)


def clips(classes=3):
    """Targets and probabilities `(N, classes)`, with ties."""
    return st.integers(1, 40).flatmap(
        lambda n: st.tuples(
            arrays(bool, (n, classes)),
            arrays(np.float64, (n, classes), elements=st.integers(0, 8).map(lambda k: k / 8)),
        )
    )


def test_figures_known_by_hand():
    scores = score_detections(TRUTH, PROBABILITIES, NAMES)
    # Dogs at ranks 1, 2 and 4: (1/1 + 2/2 + 3/4) / 3. Rain at ranks 1 and 2.
    assert scores.average_precision[:2] == pytest.approx([(1 + 1 + 3 / 4) / 3, 1.0])
    assert math.isnan(scores.average_precision[2])
    assert scores.macro_map == pytest.approx(((1 + 1 + 3 / 4) / 3 + 1) / 2)
    assert scores.auroc[:2] == pytest.approx([8 / 9, 1.0])  # of 9 pairs of a dog and none, one is the wrong way round
    assert scores.macro_auroc == pytest.approx((8 / 9 + 1) / 2)
    assert [best.f1 for best in scores.best] == pytest.approx([6 / 7, 1.0, 0.0])  # three dogs among four reported
    assert [best.threshold for best in scores.best][:2] == pytest.approx([0.6, 0.6])
    assert scores.macro_best_f1 == pytest.approx((6 / 7 + 1) / 2)
    counts = scores.at(0.5)
    assert counts.hits.tolist() == [3, 2, 0]
    assert counts.false.tolist() == [1, 0, 0]
    assert counts.missed.tolist() == [0, 0, 0]
    assert counts.macro == pytest.approx(((3 / 4 + 1) / 2, 1.0, (6 / 7 + 1) / 2))
    assert counts.micro == pytest.approx((5 / 6, 1.0, 10 / 11))
    assert scores.at([0.85, 0.5, 0.5]).hits.tolist() == [1, 2, 0]


def test_padded_cmap_is_that_of_birdclef():
    """Five rows of certain hits below the others, then scikit-learn's macro average, as in Kaggle's metric."""
    scores = score_detections(TRUTH, PROBABILITIES, NAMES)
    padded = [np.vstack([values, np.ones((5, 3))]) for values in (TRUTH, PROBABILITIES)]
    assert scores.padded_cmap == pytest.approx(average_precision_score(*padded, average="macro"))
    assert scores.padded_cmap > scores.macro_map / 3 * 2


@settings(deadline=None, max_examples=40)
@given(clips())
def test_figures_agree_with_scikit_learn(drawn):
    truth, values = drawn
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = score_detections(truth, values, NAMES)
        figures = scores.figures()
        counts = scores.at(0.5)
    for c in range(3):
        if truth[:, c].any():
            assert scores.average_precision[c] == pytest.approx(average_precision_score(truth[:, c], values[:, c]))
        if 0 < truth[:, c].sum() < len(truth):
            assert scores.auroc[c] == pytest.approx(roc_auc_score(truth[:, c], values[:, c]))
        # The best of all thresholds, each tried.
        tried = [
            precision_recall_fscore_support(truth[:, c], values[:, c] >= t, average="binary", zero_division=0)[2]
            for t in np.unique(values[:, c])
        ]
        assert scores.best[c].f1 == pytest.approx(max(tried))
    if truth.any():
        assert figures["micro_map"] == pytest.approx(average_precision_score(truth, values, average="micro"))
    assert math.isnan(figures["macro_map"]) == (not truth.any())
    precision, recall, f1, _ = precision_recall_fscore_support(truth, values >= 0.5, average=None, zero_division=0)
    assert counts.precision == pytest.approx(precision)
    assert counts.recall == pytest.approx(recall)
    assert counts.f1 == pytest.approx(f1)
    micro = precision_recall_fscore_support(truth, values >= 0.5, average="micro", zero_division=0)
    assert counts.micro == pytest.approx(micro[:3])


def test_one_class_per_clip_has_the_same_figures():
    single = score([0, 1, 1], [[0.7, 0.3], [0.6, 0.4], [0.1, 0.9]], ("dog", "rain"))
    several = score_detections([0, 1, 1], single.probabilities, ("dog", "rain"))
    assert single.one_vs_rest.figures() == several.figures()
    assert several.targets.tolist() == [[True, False], [False, True], [False, True]]


@pytest.mark.parametrize(
    ("targets", "probabilities", "text"),
    [
        (np.zeros((0, 2)), np.zeros((0, 2)), "at least one clip"),
        (np.zeros((2, 2)), np.zeros((2, 3)), r"shape \(2, 2\) and probabilities of shape \(2, 3\)"),
        (np.full((1, 2), 0.5), np.zeros((1, 2)), "Targets must be 0 or 1"),
        (np.zeros((1, 2)), np.full((1, 2), 3.0), "apply a sigmoid"),
        (np.zeros((1, 2)), np.full((1, 2), np.nan), "apply a sigmoid"),
    ],
)
def test_what_cannot_be_scored_is_refused(targets, probabilities, text):
    with pytest.raises(ConfigError, match=text):
        score_detections(targets, probabilities, ("dog", "rain"))


def test_curve_runs_from_the_surest_clip_on():
    curve = precision_recall_curve(TRUTH[:, 0], PROBABILITIES[:, 0])
    assert curve.thresholds.tolist() == [0.9, 0.8, 0.7, 0.6, 0.2, 0.1]
    assert curve.precision.tolist() == pytest.approx([1, 1, 2 / 3, 3 / 4, 3 / 5, 3 / 6])
    assert curve.recall.tolist() == pytest.approx([1 / 3, 2 / 3, 2 / 3, 1, 1, 1])
    assert best_f1(TRUTH[:, 0], PROBABILITIES[:, 0]).threshold == pytest.approx(0.6)


# --- thresholds


def column(*values):
    return np.array(values, float)[:, None]


def test_the_best_f1_lies_between_two_clips():
    truth = column(*[1] * 6, 0, 0, 0, 0, 0, 0)
    values = column(0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05)
    (found,) = thresholds.fit(truth, values)
    assert found.value == pytest.approx(0.6)
    assert found.clips == 6
    assert (found.precision, found.recall) == (1.0, 1.0)
    assert found.precision_interval == pytest.approx(wilson_interval(6, 6))
    assert found.interval[0] <= found.value <= found.interval[1]


def test_a_wanted_precision_gives_the_lowest_threshold_that_has_it():
    truth = column(*[1] * 8, 0, 1, 0, 0, 0, 0, 0)
    values = column(*np.linspace(0.95, 0.25, 15))
    (found,) = thresholds.fit(truth, values, precision=0.9)
    assert found.value == pytest.approx((values[9, 0] + values[10, 0]) / 2)  # 9 of 10
    assert found.precision == pytest.approx(0.9)
    (strict,) = thresholds.fit(truth, values, precision=1.0)
    assert strict.value == pytest.approx((values[7, 0] + values[8, 0]) / 2)
    assert strict.recall == pytest.approx(8 / 9)


def test_a_precision_out_of_reach_reports_nothing_that_was_seen():
    (found,) = thresholds.fit(column(*[0, 1] * 6), column(*np.linspace(0.9, 0.1, 12)), precision=0.9)
    assert found.value == pytest.approx(0.95)
    assert found.precision is found.recall is None


def test_too_few_clips_give_no_threshold():
    rng = np.random.default_rng(0)
    truth = np.zeros((20, 3))
    truth[:4, 0] = truth[:5, 1] = truth[:, 2] = 1
    few, enough, always = thresholds.fit(truth, rng.random((20, 3)))
    assert few == (None, 4, None, None, None, None)
    assert enough.value is not None
    assert always.value is None  # no clip without it, so nothing tells them apart


def test_the_interval_narrows_with_more_clips():
    rng = np.random.default_rng(1)

    def width(count):
        truth = rng.random((count, 1)) < 0.3
        (found,) = thresholds.fit(truth, np.clip(rng.normal(0.3 + 0.4 * truth, 0.15), 0.001, 1))
        return found.interval[1] - found.interval[0]

    assert width(4000) < width(60)


def test_a_class_that_is_never_named_is_never_reported():
    values = thresholds.named_only(np.tile([0.6, 0.4], (12, 1)))
    assert values[0].tolist() == [0.6, 0.0]
    _, found = thresholds.fit(np.eye(2)[[0, 1] * 6], values)
    assert found.value >= 0.5
    assert found.precision is None


@settings(deadline=None, max_examples=40)
@given(clips(classes=1), st.sampled_from([None, 0.5, 0.9]))
def test_no_other_threshold_is_better(drawn, wanted):
    truth, values = drawn
    scores = DetectionScores(("a",), truth, values.astype(np.float32))
    (found,) = thresholds.fit(truth, values, precision=wanted)
    if found.value is None:
        assert min(truth.sum(), (~truth).sum()) < thresholds.FEWEST_POSITIVES
        return
    low, high = found.interval
    assert low <= high
    counts = scores.at(found.value)
    tried = [scores.at(t) for t in np.unique(values[values > 0])]
    if wanted is None:
        assert counts.f1[0] == pytest.approx(max([t.f1[0] for t in tried], default=0))
    else:
        good = [t.recall[0] for t in tried if t.precision[0] >= wanted]
        if not good and values.max() == 1:
            assert found.value == 1  # nothing is above that
            return
        assert counts.recall[0] == pytest.approx(max(good, default=0))
        assert not good or counts.precision[0] >= wanted
    if found.precision is not None:
        assert (found.precision, found.recall) == pytest.approx((counts.precision[0], counts.recall[0]))
