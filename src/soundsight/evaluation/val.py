"""Val: a model's figures on one split, with tables and matrices."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from soundsight import reports as report
from soundsight.backend.compat import LAST, RUNS
from soundsight.config import BACKGROUND, SpectrogramConfig
from soundsight.config.files import versions
from soundsight.datasets import manifest
from soundsight.datasets.manifest import Row
from soundsight.deprecation import renamed
from soundsight.detection import DetectionScores
from soundsight.errors import ConfigError, ModelError
from soundsight.evaluation.scoring import (
    TTA,
    check_preprocessing,
    clips_of,
    headline,
    list_images,
    logits_of,
    score_images,
)
from soundsight.evaluation.seen import Seen, compare, refuse
from soundsight.evaluation.timed import timed_figures
from soundsight.inference.options import thresholds
from soundsight.metrics import Scores
from soundsight.models.load import load_classifier
from soundsight.reports.card import CARD, read_record, write_card


@dataclass(frozen=True)
class Validation:
    """Scores of a model on a split, and where they were written."""

    scores: Scores | DetectionScores  # the second of a model of several labels per clip
    folder: Path
    card: Path | None = None  # the model card that shows these scores
    seen: Seen | None = None  # which of the clips the model knows; `None`: it does not say
    timed: Mapping[str, Any] = field(default_factory=dict)  # see `timed_figures`


@renamed(folder="out", shifts="tta_shifts", speeds="tta_speeds", trust="trust_checkpoint")
def val(
    model: str | Path,
    *,
    data: str | Path = "data",
    split: str = "val",
    out: str | Path | None = None,
    device: str | None = None,
    batch: int = 64,
    tta_shifts: int = 1,
    tta_speeds: Sequence[float] = (),
    spectrogram: SpectrogramConfig | None = None,
    trust_checkpoint: bool = False,
    allow_seen: bool = False,
) -> Validation:
    """Score a model on a split of a prepared data folder.

    Args:
        model: A checkpoint or exported model.
        data: The folder with `train`, `val`, `test`.
        split: Which of them to score on.
        out: Where to write; `None` takes a new `runs/classify/val*`.
        device: See `load_classifier`.
        batch: Images a batch.
        tta_shifts: Average over this many circular time shifts; 1 takes the image as it is.
        tta_speeds: Average over these speeds as well, for which the clips are rendered anew from their recordings.
        spectrogram: Settings for a model that carries none.
        trust_checkpoint: Unpickle the checkpoint whatever it holds.
        allow_seen: Also score clips that the model was trained on, or others of their recordings.

    Raises:
        SoundsightError: The model, the split or the settings do not fit, or the model was trained on the clips.
    """
    tta = TTA(tta_shifts, tuple(tta_speeds))
    if batch < 1:
        raise ConfigError(f"batch={batch} is not allowed: it must be 1 or more.")
    classifier = load_classifier(model, device=device, spectrogram=spectrogram, trust=trust_checkpoint)
    found = list_images(data, split, classifier.preprocessing.names, multi=classifier.multi)
    if len(classifier.preprocessing.names) < 2 and not classifier.multi:
        raise ModelError(f"{model} knows one class only, so every score of it is 100 %; train it on two or more.")
    check_preprocessing(found.files, classifier.preprocessing.spectrogram, model)
    seen = compare(found, data, classifier.preprocessing, model)
    if not allow_seen:
        refuse(seen, split, data)
    clips = clips_of(found.rows, manifest.read_settings(data)["dataset"]["root"]) if tta_speeds else []
    logits = logits_of(classifier, found.files, batch=batch, tta=tta, clips=clips)
    scores = score_images(found.targets, classifier.activate(logits), classifier.preprocessing.names)
    target = Path(out) if out else new_folder(Path(RUNS), f"val-{split}")
    target.mkdir(parents=True, exist_ok=True)
    timed = write_results(
        scores,
        target,
        columns_of(found.rows, found.files, classifier.preprocessing.spectrogram.clip_seconds),
        thresholds=thresholds(None, classifier.preprocessing),
        annotated=bool(manifest.settings_of(data).get("annotated_recordings")),
        extra={
            "model": str(model),
            "model_fingerprint": classifier.model_hash,
            "temperature": classifier.preprocessing.temperature,
            "threshold": classifier.preprocessing.threshold,
            **({"thresholds": classifier.preprocessing.fitted} if classifier.multi else {}),
            "settings": "overridden" if classifier.preprocessing.supplied else "the model's own",
            "device": str(classifier.device),
            "versions": versions(),
            "data": str(data),
            "split": split,
            "seen": asdict(seen) if seen else None,
            "classes_without_clips": [n for n, some in zip(scores.names, scores.support, strict=True) if not some],
            **asdict(tta),
            **_data(data),
        },
    )
    plain = split == "test" and tta == TTA() and spectrogram is None and Path(model).name == LAST
    own = plain and read_record(Path(model)).get("data_fingerprint") == _data(data).get("data_fingerprint")
    run = Path(model).absolute().parent.parent
    card = write_card(run, scored=target) if own and (run / CARD).is_file() else None
    return Validation(scores, target, card, seen, timed)


def columns_of(rows: Sequence[Row | None], files: Sequence[object], clip_seconds: float) -> dict[str, list[Any]]:
    """What `report.prediction_rows` takes beside scores, of rows of a manifest and of files that are in none."""
    return {
        "clips": [row.file if row else str(file) for row, file in zip(rows, files, strict=True)],
        "sources": [row.source if row else "" for row in rows],
        "folds": [row.fold if row else "" for row in rows],
        "starts": [row.start_seconds if row else None for row in rows],
        "ends": [row.shown_until(clip_seconds) if row else None for row in rows],
    }


def write_results(
    scores: Scores | DetectionScores,
    folder: Path,
    columns: Mapping[str, list[Any]],
    *,
    extra: Mapping[str, object],
    thresholds: npt.NDArray[np.float32] | float,
    annotated: bool = False,
) -> dict[str, Any]:
    """Tables and images of a set of scores; `metrics.json` last. Returns the timed figures, see `timed_figures`."""
    timed, more = timed_figures(scores, columns, thresholds, annotated=annotated)
    extra = {**extra, **timed}
    if isinstance(scores, DetectionScores):
        rows = list(_rows(scores, thresholds, zip(*columns.values(), strict=True)))
        report.write_predictions(folder / "predictions.csv", rows)
        report.write_probabilities(folder / "probabilities.csv", rows, scores)
        report.plot_precision_recall(scores, folder / "precision_recall.png")
        counts = scores.at(thresholds)
        decided = {"precision": counts.precision, "recall": counts.recall, "f1": counts.f1, **more}
        decided["threshold"] = np.broadcast_to(thresholds, len(scores.names))
        top1 = {key: figure for key, figure in headline(scores).items() if key == "top1"}  # where each clip has one
        report.write_scores(scores, folder, extra={**extra, **top1}, columns=decided)
        return timed
    report.write_predictions(folder / "predictions.csv", report.prediction_rows(scores, **columns))
    report.plot_confusion(scores.confusion, scores.names, folder / "confusion_matrix.png", normalize=False)
    report.plot_confusion(scores.confusion, scores.names, folder / "confusion_matrix_normalized.png", normalize=True)
    report.plot_reliability(scores, folder / "reliability.png")
    report.plot_per_class(scores, folder / "per_class.png")
    report.plot_precision_recall(scores.one_vs_rest, folder / "precision_recall.png")
    report.write_scores(scores, folder, extra=extra, columns=more)
    return timed


def _rows(
    scores: DetectionScores, thresholds: npt.NDArray[np.float32] | float, columns: Iterable[tuple[Any, ...]]
) -> Iterator[report.PredictionRow]:
    """Rows of several labels per clip, joined by semicolons; the rank is 1 and the number of wrong decisions."""
    reported = scores.probabilities >= thresholds
    for number, (clip, source, fold, start, end) in enumerate(columns):
        true, named = (
            ";".join(name for name, there in zip(scores.names, row, strict=True) if there) or BACKGROUND
            for row in (scores.targets[number], reported[number])
        )
        wrong = int((scores.targets[number] != reported[number]).sum())
        best = float(scores.probabilities[number].max())
        yield report.PredictionRow(clip, source, fold, true, named, best, 1 + wrong, start, end)


def new_folder(parent: Path, name: str) -> Path:
    """`parent/name`, or with the first free number behind it."""
    candidate, number = parent / name, 2
    while candidate.exists():
        candidate, number = parent / f"{name}{number}", number + 1
    return candidate


def _data(data: str | Path) -> dict[str, object]:
    prepared = manifest.settings_of(data)
    return prepared and {"dataset": prepared.get("dataset"), "data_fingerprint": prepared.get("fingerprint")}
