"""The report room: figures counted by hand, tables read back. Its images: test_report_pictures.py."""

import csv
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import brier_score_loss, f1_score, log_loss, precision_recall_fscore_support

from soundsight import files, metrics
from soundsight.detection import score_detections
from soundsight.errors import ConfigError
from soundsight.reports import plots, tables

NAMES = ("cat", "dog", "sea_waves")
# Six clips: cats right, right, taken for a dog; dogs right, taken for a cat; no clip of sea waves.
TARGETS = [0, 0, 0, 1, 1]
PROBABILITIES = [
    [0.75, 0.25, 0.0],
    [0.75, 0.15, 0.1],
    [0.25, 0.75, 0.0],
    [0.0, 1.0, 0.0],
    [0.55, 0.2, 0.25],
]


@pytest.fixture
def scores() -> metrics.Scores:
    return metrics.score(TARGETS, PROBABILITIES, NAMES)


# --- metrics


def test_scores_by_hand(scores):
    assert scores.count == 5
    assert scores.confusion.tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert scores.support.tolist() == [3, 2, 0]
    assert scores.precision == pytest.approx([2 / 3, 1 / 2, 0])
    assert scores.recall == pytest.approx([2 / 3, 1 / 2, 0])
    assert scores.f1 == pytest.approx([2 / 3, 1 / 2, 0])
    assert scores.macro_f1 == pytest.approx(7 / 12)  # sea waves neither occur nor are predicted
    assert scores.top1 == pytest.approx(3 / 5)
    assert scores.top5 == 1.0  # only three classes
    assert scores.ranks.tolist() == [1, 1, 2, 1, 3]


def test_likelihood_and_brier_by_hand(scores):
    assert scores.nll == pytest.approx(-np.log([0.75, 0.75, 0.25, 1.0, 0.2]).mean())
    by_clip = [0.0625 + 0.0625, 0.0625 + 0.0225 + 0.01, 2 * 0.75**2, 0.0, 0.55**2 + 0.8**2 + 0.25**2]
    assert scores.brier == pytest.approx(np.mean(by_clip))


def test_calibration_error_by_hand(scores):
    # Confidence 0.75 three times with two right, 1.0 once and right, 0.55 once and wrong.
    assert scores.ece == pytest.approx(3 / 5 * abs(2 / 3 - 0.75) + 1 / 5 * 0 + 1 / 5 * 0.55)
    bins = metrics.reliability_bins(scores.targets, scores.probabilities)
    assert len(bins.count) == 15
    assert bins.count.sum() == 5
    assert bins.count[[8, 11, 14]].tolist() == [1, 3, 1]
    assert bins.accuracy[11] == pytest.approx(2 / 3)
    assert np.isfinite(bins.accuracy).all()
    assert np.isfinite(bins.confidence).all()


def test_a_confidence_on_a_border_belongs_to_the_lower_bin():
    bins = metrics.reliability_bins([0], [[0.5, 0.5]], bins=4)
    assert bins.count.tolist() == [0, 1, 0, 0]


def test_wilson_interval_known_values():
    # Hand-worked: z = 1.96, centre (p + z²/2n) / (1 + z²/n).
    assert metrics.wilson_interval(5, 10) == pytest.approx((0.236593, 0.763407), abs=1e-6)
    assert metrics.wilson_interval(0, 10) == pytest.approx((0.0, 0.277533), abs=1e-6)
    assert metrics.wilson_interval(10, 10) == pytest.approx((0.722467, 1.0), abs=1e-6)


def test_figures_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 7, 300)
    probabilities = softmax(rng.normal(size=(300, 8)) + 2 * np.eye(8)[targets], axis=1)
    ours = metrics.score(targets, probabilities, list("abcdefgh"))
    precision, recall, f1, support = precision_recall_fscore_support(
        targets, ours.predictions, labels=range(8), zero_division=0
    )
    assert ours.precision == pytest.approx(precision)
    assert ours.recall == pytest.approx(recall)
    assert ours.f1 == pytest.approx(f1)
    assert ours.support.tolist() == support.tolist()
    assert ours.macro_f1 == pytest.approx(f1_score(targets, ours.predictions, average="macro"))
    assert ours.nll == pytest.approx(log_loss(targets, probabilities, labels=range(8)), rel=1e-5)
    assert ours.brier == pytest.approx(
        brier_score_loss(targets, probabilities, labels=range(8), scale_by_half=False), rel=1e-5
    )


def test_equal_probabilities_earn_no_credit():
    ours = metrics.score([0, 1, 2, 3, 4, 5], np.full((6, 6), 1 / 6), list("abcdef"))
    assert ours.top1 == pytest.approx(1 / 6)
    assert ours.top5 == pytest.approx(5 / 6)
    assert ours.ranks.tolist() == [1, 2, 3, 4, 5, 6]


def test_empty_classes_leave_no_nan_and_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = metrics.score([0], [[0.0, 1.0, 0.0]], NAMES)
        figures = [ours.top1, ours.top5, ours.macro_f1, ours.ece, ours.nll, ours.brier, *ours.interval]
        figures += [*ours.precision, *ours.recall, *ours.f1]
    assert np.isfinite(figures).all()
    assert ours.macro_f1 == 0.0


@pytest.mark.parametrize(
    ("targets", "probabilities", "names", "text"),
    [
        ([], np.zeros((0, 3)), NAMES, "There are no clips to score"),
        ([0, 1], [[1.0, 0.0, 0.0]], NAMES, r"targets have shape \(2,\), but there are 1 rows"),
        ([0], [[0.5, 0.5]], NAMES, r"shape \(1, 2\), but 3 class names need \(clips, 3\)"),
        ([3], [[1.0, 0.0, 0.0]], NAMES, "target 3 is not a class: 0 to 2 is allowed"),
        ([0.5], [[1.0, 0.0, 0.0]], NAMES, "of type float64, but must be whole numbers from 0 to 2"),
        ([0], [[4.0, -1.0, 0.0]], NAMES, "Row 0 .* is no distribution .* apply softmax"),
        ([0], [[np.nan, 0.5, 0.5]], NAMES, "Row 0 .* is no distribution"),
        ([0], [[1.0, 0.0]], ("a", "a"), "2 class names, 1 of them different"),
    ],
)
def test_score_says_what_is_wrong(targets, probabilities, names, text):
    with pytest.raises(ConfigError, match=text):
        metrics.score(targets, probabilities, names)


def test_confused_pairs_come_most_frequent_first():
    confusion = [[8, 2, 0], [3, 7, 0], [2, 0, 2]]
    pairs = metrics.confused_pairs(confusion, NAMES)
    assert pairs == [
        ("dog", "cat", 3, 0.3),
        ("sea_waves", "cat", 2, 0.5),
        ("cat", "dog", 2, 0.2),
    ]
    assert metrics.confused_pairs(confusion, NAMES, limit=1) == pairs[:1]
    assert metrics.confused_pairs(np.zeros((3, 3), int), NAMES) == []


def test_temperature_is_found_again():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 5)) * 2
    targets = [rng.choice(5, p=row) for row in softmax(logits, axis=1)]
    for factor in (3, 0.5):
        value, low, high = metrics.fit_temperature(logits * factor, targets)
        assert value == pytest.approx(factor, rel=0.06)
        assert low < factor < high and high / low < 1.2


def test_temperature_at_its_limits():
    """A handful of clips, all right or all wrong, moves the prediction a little, and never to a bound."""
    assert metrics.fit_temperature([[1.0, 1.0], [2.0, 2.0]], [0, 1])[0] == pytest.approx(1.0)
    sure = np.eye(4) * 20
    for targets, low, high in (([0, 1, 2, 3], 0.5, 1.0), ([1, 2, 3, 0], 1.5, 8.0), ([0, 1, 2, 0], 1.2, 5.0)):
        value, *interval = metrics.fit_temperature(sure, targets)
        assert low < value < high and interval[0] < value < interval[1]
    few, many = (metrics.fit_temperature(np.tile(sure / 10, (n, 1)), [0, 1, 2, 0] * n) for n in (1, 50))
    assert many.high / many.low < few.high / few.low / 2
    with pytest.raises(ConfigError, match="logits of shape"):
        metrics.fit_temperature([[1.0, -np.inf]], [0])


def test_mean_and_spread_by_hand():
    found = metrics.mean_and_spread([0.8, 0.82, 0.84, 0.86, 0.88])
    assert found.mean == pytest.approx(0.84)
    assert found.std == pytest.approx(0.0316228, abs=1e-6)  # sqrt(0.004 / 4)
    assert found.interval == pytest.approx((0.84 - 2.776445 * 0.0141421, 0.84 + 2.776445 * 0.0141421), abs=1e-6)
    assert metrics.mean_and_spread([0.5]) == (0.5, None, None)
    with pytest.raises(ConfigError, match=r"\[0.5, nan\] cannot be averaged"):
        metrics.mean_and_spread([0.5, float("nan")])
    with pytest.raises(ConfigError, match="cannot be averaged"):
        metrics.mean_and_spread([])


# --- tables


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_write_scores_reads_back(scores, tmp_path):
    extra = {"model": Path("runs/last.pt"), "split": "test", "seconds": np.float32(1.5), "lost": float("nan")}
    written = tables.write_scores(scores, tmp_path / "new" / "folder", extra=extra)
    assert [path.name for path in written] == ["per_class.csv", "confused_pairs.csv", "metrics.json"]
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == sorted(
        path.name for path in written
    )
    figures = json.loads(written[2].read_text(encoding="utf-8"))
    assert figures["clips"] == 5
    assert figures["top1"] == 0.6
    assert figures["top1_interval_95"] == pytest.approx(scores.interval, abs=1e-6)
    assert figures["macro_f1"] == pytest.approx(7 / 12, abs=1e-6)
    assert figures["macro_map"] == pytest.approx((11 / 12 + 3 / 4) / 2, abs=1e-6)  # of cats and dogs
    assert (figures["model"], figures["seconds"], figures["lost"]) == ("runs/last.pt", 1.5, None)
    assert figures["per_class"][0] == pytest.approx(
        {
            "class": "cat",
            "support": 3,
            "precision": 0.666667,
            "recall": 0.666667,
            "f1": 0.666667,
            "average_precision": 0.916667,
            "auroc": 0.833333,
            "best_f1": 0.857143,
            "best_threshold": 0.25,
        }
    )
    rows = read_csv(written[0])
    assert [row["class"] for row in rows] == list(NAMES)
    assert rows[2] == {
        "class": "sea_waves", "support": "0", "precision": "0.000000", "recall": "0.000000", "f1": "0.000000",
        "average_precision": "", "auroc": "", "best_f1": "0.000000", "best_threshold": "",
    }  # fmt: skip
    assert read_csv(written[1]) == [
        {"true": "dog", "predicted": "cat", "count": "1", "share": "0.500000"},
        {"true": "cat", "predicted": "dog", "count": "1", "share": "0.333333"},
    ]


def test_write_scores_of_several_labels_per_clip(tmp_path):
    several = score_detections([[1, 1], [0, 1], [0, 0]], [[0.9, 0.8], [0.1, 0.7], [0.2, 0.1]], ("cat", "dog"))
    written = tables.write_scores(several, tmp_path)
    assert [path.name for path in written] == ["per_class.csv", "metrics.json"]
    figures = json.loads(written[1].read_text(encoding="utf-8"))
    assert (figures["clips"], figures["macro_map"], figures["micro_map"]) == (3, 1.0, 1.0)
    assert "top1" not in figures
    assert read_csv(written[0])[1] == {
        "class": "dog", "support": "2", "average_precision": "1.000000", "auroc": "1.000000", "best_f1": "1.000000",
        "best_threshold": "0.700000",
    }  # fmt: skip
    image = plots.plot_precision_recall(several, tmp_path / "curve.png")
    assert image.read_bytes().startswith(b"\x89PNG")


def test_extra_may_not_overwrite_a_figure(scores, tmp_path):
    with pytest.raises(ConfigError, match=r"'top1' is a figure of metrics\.json already"):
        tables.write_scores(scores, tmp_path, extra={"top1": 1.0})
    assert not list(tmp_path.iterdir())


def test_predictions_read_back(scores, tmp_path):
    clips = [f"clip, {i}.wav" for i in range(5)]
    places = {"starts": [0.0, 5.0, None, 0.0, 3600.5], "ends": [5.0, 7.25, None, None, 3605.5]}
    rows = tables.prediction_rows(scores, clips, sources=list("aabbc"), folds=[1, 1, 2, 2, 3], **places)
    lines = read_csv(tables.write_predictions(tmp_path / "predictions.csv", rows))
    assert list(lines[0]) == [
        "clip", "start_seconds", "end_seconds", "source", "fold", "target", "predicted", "probability", "rank",
        "correct",
    ]  # fmt: skip
    rest = ["c", "3", "dog", "cat", "0.550000", "3", "false"]
    assert list(lines[4].values()) == ["clip, 4.wav", "3600.500000", "3605.500000", *rest]
    assert [line["end_seconds"] for line in lines[1:4]] == ["7.250000", "", ""]
    assert [line["correct"] for line in lines] == ["true", "true", "false", "true", "false"]
    with pytest.raises(ConfigError, match="2 sources were given for 5 scored clips"):
        tables.prediction_rows(scores, clips, sources=["a", "b"])


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = files.write_text(tmp_path / "note.txt", "old")

    def write_half() -> None:
        with files.replacing(path) as draft:
            draft.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["note.txt"]


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"note.txt cannot be written \(.*\); free some space, or choose another"):
        files.write_text(tmp_path / "file" / "note.txt", "text")


# --- the room


def test_the_room_is_light_and_never_starts_pyplot():
    code = (
        "import sys, soundsight.reports as r; "
        "light = not {'matplotlib', 'scipy', 'sklearn', 'torch'} & set(sys.modules); "
        "[getattr(r, name) for name in r.__all__]; "
        "print(light, not {'matplotlib.pyplot', 'sklearn', 'torch', 'ultralytics'} & set(sys.modules))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(metrics.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == ["True", "True"]


def test_unknown_names_are_refused():
    import soundsight.reports

    assert "plot_confusion" in dir(soundsight.reports)
    with pytest.raises(AttributeError, match="has no attribute 'draw_everything'"):
        soundsight.reports.draw_everything  # noqa: B018
