"""Scores and predictions as JSON and CSV files, for people and for other programs; results.csv read.

Every file appears whole or not at all: it is written beside its place and then renamed.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from soundsight.detection import DetectionScores, score_detections
from soundsight.errors import ConfigError
from soundsight.files import csv_text, write_text
from soundsight.metrics import Scores, confused_pairs

_DIGITS = 6  # decimals of every figure that is written


@dataclass(frozen=True)
class PredictionRow:
    """One line of predictions.csv: what a clip is and what the model took it for."""

    clip: str  # recording or image, as the caller names it
    source: str  # source recording the clip was cut from; empty if unknown
    fold: int | str  # fold or split in which it was scored; empty if there is none
    target: str  # true class
    predicted: str  # most probable class
    probability: float  # probability of the predicted class, 0 to 1
    rank: int  # rank of the true class; 1 is right
    start_seconds: float | None = 0.0  # where in its recording the clip begins; None: not known
    end_seconds: float | None = None

    @property
    def correct(self) -> bool:
        """Whether the most probable class is the true one."""
        return self.rank == 1


def prediction_rows(
    scores: Scores,
    clips: Sequence[str],
    *,
    sources: Sequence[str] | None = None,
    folds: Sequence[int | str] | None = None,
    starts: Sequence[float | None] | None = None,
    ends: Sequence[float | None] | None = None,
) -> list[PredictionRow]:
    """One row for each of the N scored clips, in the order of `scores`.

    `sources` are the recordings they were cut from, `folds` may be splits, `starts` and `ends` are in seconds; without
    starts every clip counts as a whole recording.
    """
    given = {"clips": clips, "sources": sources, "folds": folds, "starts": starts, "ends": ends}
    default = {"sources": "", "folds": "", "starts": 0.0}
    columns: dict[str, Sequence[Any]] = {
        name: [default.get(name)] * scores.count if column is None else column for name, column in given.items()
    }
    for name, column in columns.items():
        if len(column) != scores.count:
            raise ConfigError(
                f"{len(column)} {name} were given for {scores.count} scored clips; give one per clip, in order."
            )
    return [
        PredictionRow(
            str(clip),
            str(source),
            fold,
            target=scores.names[scores.targets[i]],
            predicted=scores.names[scores.predictions[i]],
            probability=float(scores.probabilities[i, scores.predictions[i]]),
            rank=int(scores.ranks[i]),
            start_seconds=start,
            end_seconds=end,
        )
        for i, (clip, source, fold, start, end) in enumerate(zip(*columns.values(), strict=True))
    ]


def write_predictions(path: str | Path, rows: Iterable[PredictionRow]) -> Path:
    """Write one CSV line per clip, with its stretch of the recording, its true class and what was predicted."""
    header = ("clip", "start_seconds", "end_seconds", "source", "fold", "target", "predicted", "probability", "rank")
    lines = [
        (
            row.clip,
            _figure(row.start_seconds),
            _figure(row.end_seconds),
            row.source,
            row.fold,
            row.target,
            row.predicted,
            _figure(row.probability),
            row.rank,
            str(row.correct).lower(),
        )
        for row in rows
    ]
    return write_text(path, csv_text([(*header, "correct"), *lines]))


def write_probabilities(path: Path, rows: Sequence[PredictionRow], scores: DetectionScores) -> Path:
    """Write the probability of each class, one line per clip as in predictions.csv."""
    places = [[row.clip, _figure(row.start_seconds)] for row in rows]
    values = scores.probabilities.tolist()
    lines = [[*place, *map(_figure, line)] for place, line in zip(places, values, strict=True)]
    return write_text(path, csv_text([("clip", "start_seconds", *scores.names), *lines]))


def read_probabilities(path: Path, rows: Sequence[PredictionRow], names: Sequence[str]) -> DetectionScores:
    """What `write_probabilities` wrote, with the true classes of `rows`; `ValueError` if it does not fit them."""
    with open(path, encoding="utf-8", newline="") as file:
        (_, _, *header), *lines = csv.reader(file)
    if header != list(names) or [line[0] for line in lines] != [row.clip for row in rows]:
        raise ValueError("probabilities.csv is of other clips or classes")
    values = np.array([line[2:] for line in lines], np.float32)
    return score_detections([[name in row.target.split(";") for name in names] for row in rows], values, names)


def write_scores(
    scores: Scores | DetectionScores,
    folder: str | Path,
    *,
    extra: Mapping[str, Any] | None = None,
    columns: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write per_class.csv, of one label per clip also confused_pairs.csv, and, last, metrics.json into `folder`.

    `extra` are further entries of metrics.json, `columns` further columns of per_class.csv, a value per class each.
    """
    folder = Path(folder)
    detection = scores.one_vs_rest if isinstance(scores, Scores) else scores
    figures: dict[str, Any] = {"clips": scores.count, "classes": len(scores.names)}
    columns = {"class": scores.names, "support": scores.support, **(columns or {})}
    if isinstance(scores, Scores):
        figures |= {
            "top1": scores.top1,
            "top1_interval_95": scores.interval,
            "top5": scores.top5,
            "macro_f1": scores.macro_f1,
            "ece": scores.ece,
            "nll": scores.nll,
            "brier": scores.brier,
        }
        columns |= {"precision": scores.precision, "recall": scores.recall, "f1": scores.f1}
    figures |= detection.figures()
    columns |= {"average_precision": detection.average_precision, "auroc": detection.auroc}
    columns |= {"best_f1": [best.f1 for best in detection.best]}
    columns |= {"best_threshold": [best.threshold for best in detection.best]}
    for key in extra or {}:
        if key in figures or key == "per_class":
            raise ConfigError(f"{key!r} is a figure of metrics.json already; name the extra entry otherwise.")
    table = [dict(zip(columns, row, strict=True)) for row in zip(*map(_plain, columns.values()), strict=True)]
    lines = [map(_figure, row.values()) for row in table]
    written = [write_text(folder / "per_class.csv", csv_text([columns, *lines]))]
    if isinstance(scores, Scores):
        pairs = confused_pairs(scores.confusion, scores.names, limit=len(scores.names) ** 2)
        confused = [("true", "predicted", "count", "share"), *(map(_figure, pair) for pair in pairs)]
        written.append(write_text(folder / "confused_pairs.csv", csv_text(confused)))
    everything = _plain({**figures, **(extra or {}), "per_class": table})
    text = json.dumps(everything, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return [*written, write_text(folder / "metrics.json", text)]


def read_results(results_csv: str | Path) -> dict[str, list[float]]:
    """Columns of results.csv by name; cells that are no number, and rows cut short, become NaN."""
    try:
        text = Path(results_csv).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ConfigError(f"{results_csv} cannot be read ({reason}); name the results.csv of a run.") from error
    rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines()) if row]
    if len(rows) < 2 or "epoch" not in rows[0]:
        raise ConfigError(
            f"{results_csv} holds no epochs; Ultralytics writes a header with a column `epoch` and a line "
            "an epoch, so wait for the first epoch to end."
        )

    def number(row: list[str], column: int) -> float:
        try:
            return float(row[column])
        except (IndexError, ValueError):
            return math.nan

    return {name: [number(row, column) for row in rows[1:]] for column, name in enumerate(rows[0])}


def _figure(value: Any) -> Any:
    return f"{value:.{_DIGITS}f}" if isinstance(value, float) else value


def _plain(value: Any) -> Any:
    """JSON types only: arrays become lists, paths text, figures rounded, what is not finite null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return round(value, _DIGITS) if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)
