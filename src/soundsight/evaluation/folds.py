"""One fold of a cross-validation: laid out, trained, scored; here or on other machines.

All a fold needs is in its `Plan`, so it may run wherever the run's folder and the images are seen.
"""

from __future__ import annotations

import io
import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from soundsight import logs, parallel
from soundsight.backend.compat import is_unfinished, weights_of
from soundsight.backend.train import train as train_images
from soundsight.config import AugmentConfig, SpectrogramConfig
from soundsight.datasets.images import read_key, settings_key
from soundsight.datasets.manifest import Row
from soundsight.datasets.names import folder_labels
from soundsight.datasets.prepare import link
from soundsight.detection import DetectionScores
from soundsight.errors import ConfigError, DatasetError, ModelError, SoundsightError
from soundsight.evaluation import seen
from soundsight.evaluation.scoring import TTA, clips_of, headline, list_images, logits_of, score_images
from soundsight.files import locked, read_json, write_bytes, write_text
from soundsight.metrics import Scores

log = logging.getLogger(__name__)
FIGURES = {"top1": "top-1", "top5": "top-5", "macro_map": "macro mAP", "micro_map": "micro mAP"}  # of `headline`
TRAINED = "trained"  # marks a model that needs no more training
LOCK_SECONDS = 120.0  # for a worker of a lost driver to end
BUSY = "Another process trains in {folder}; wait until it ends, then run the same command again."


@dataclass(frozen=True)
class Plan:
    """What all folds share."""

    folder: Path
    root: Path  # of the data set
    cache: Path
    rows: list[Row]
    labels: list[str]
    multi: bool  # whether a clip has any number of the classes
    annotated: bool  # whether clips are segments of annotated recordings
    arguments: Mapping[str, Any]
    spectrogram: SpectrogramConfig
    augment: AugmentConfig
    tta: TTA


@dataclass(frozen=True)
class Scored:
    """Out-of-fold predictions of one model."""

    images: list[str]  # relative to the cache
    names: tuple[str, ...]
    targets: np.ndarray  # int64 (N,), or with several labels per clip uint8 (N, C)
    probabilities: np.ndarray  # float32 (N, C)


def score_folds(
    plan: Plan, jobs: list[tuple[int, int]], all_folds: list[int], protocol: str, run_folds: parallel.Run
) -> dict[tuple[int, int], Scored]:
    """Each fold and seed on a worker of its own, which sees the run's folder and the images."""
    device = "cpu" if plan.arguments.get("device") == "cpu" else None  # a worker sees only its own GPU
    there = replace(
        plan, root=plan.root.absolute(), cache=plan.cache.absolute(), arguments={**plan.arguments, "device": device}
    )
    scored: dict[tuple[int, int], Scored] = {}
    for job, result in run_folds(partial(_fold_there, there, all_folds, protocol), jobs):
        if isinstance(result, parallel.WorkerLost):
            raise SoundsightError(f"Fold {job[0]}, seed {job[1]}: {result} Run the same command again to continue.")
        scored[job], lines = result
        for line in lines:
            log.info(line)
    return scored


def _fold_there(plan: Plan, all_folds: list[int], protocol: str, job: tuple[int, int]) -> tuple[Scored, list[str]]:
    """On a worker: one fold, and its messages."""
    lines: list[str] = []
    with logs.sent_to(lines.append):
        return score_fold(plan, job[0], all_folds, protocol, job[1]), lines


def score_fold(plan: Plan, fold: int, all_folds: list[int], protocol: str, seed: int) -> Scored:
    """Train and score one fold with one seed, or read what a former run left."""
    work = plan.folder / f"fold{fold}-seed{seed}"
    with locked(work, busy=BUSY, seconds=LOCK_SECONDS):
        if is_scored(plan.folder, fold, seed, plan.tta):
            log.info("Fold %d, seed %d: done before, kept.", fold, seed)
            return read_scored(work / result_name(plan.tta))
        return _score_anew(plan, work, fold, all_folds, protocol, seed)


def _score_anew(plan: Plan, work: Path, fold: int, all_folds: list[int], protocol: str, seed: int) -> Scored:
    data = work / "data"
    _lay_out(plan, data, fold, all_folds, protocol)
    model = weights_of(work / "run", best=protocol != "last")
    if not (work / TRAINED).is_file():
        _train(plan, work, fold, seed, protocol)
    scored = _score(plan, model, data)
    _write(work / result_name(plan.tta), scored)
    shutil.rmtree(data, ignore_errors=True)
    figure, value = next(iter(headline(scores_of(scored)).items()))
    log.info("Fold %d, seed %d: %s %.1f%%.", fold, seed, FIGURES[figure], 100 * value)
    return scored


def _train(plan: Plan, work: Path, fold: int, seed: int, protocol: str) -> None:
    """Train one model, from the start or from where a killed run left off; a marker file says it is whole."""
    last = weights_of(work / "run")
    arguments = {**plan.arguments, "data": str(work / "data"), "seed": seed, "project": str(work), "name": "run"}
    arguments |= {"exist_ok": True, "val": protocol != "last", "plots": False}
    if resumable(last):
        log.info("Fold %d, seed %d: continuing.", fold, seed)
        arguments["resume"] = str(last)
    else:
        for text in seen.check_start(work / "data" / "test", plan.arguments):
            log.warning("Fold %d, seed %d: %s", fold, seed, text)
        log.info("Fold %d, seed %d: training.", fold, seed)
        shutil.rmtree(work / "run", ignore_errors=True)
    known = seen.with_start(seen.record(work / "data"), plan.arguments)
    labels = folder_labels(plan.labels)
    train_images(
        arguments, spectrogram=plan.spectrogram, augment=plan.augment, seen=known, labels=labels, multi=plan.multi
    )
    write_text(work / TRAINED, "")


def _lay_out(plan: Plan, data: Path, fold: int, all_folds: list[int], protocol: str) -> None:
    """Link the images of one fold's training and test.

    Ultralytics insists on a `val` folder. With protocol `last` it gets the first training clip of each
    class, so that not even its progress display reads the test fold.
    """
    held = all_folds[(all_folds.index(fold) + 1) % len(all_folds)] if protocol != "last" else None
    rows, shown = [], []
    for row in plan.rows:
        split = "test" if int(row.fold) == fold else "val" if int(row.fold) == held else "train"
        if row.speed == 1 or split == "train":
            rows.append(replace(row, split=split))
    if held is None:
        seen: set[str] = set()
        for row in rows:
            labels = set(row.labels(multi=plan.multi))
            if row.split == "train" and not labels <= seen:
                seen |= labels
                shown.append(replace(row, split="val"))
    link([*rows, *shown], plan.cache, data, multi=plan.multi)
    rendered = settings_key(plan.spectrogram)
    for row in rows:
        key = read_key(data / row.split / row.image)
        if key is None or not key.startswith(f"{rendered} {row.sha256} "):
            raise DatasetError(
                f"The image {plan.cache / row.image} was rendered anew by another command, with other settings or of "
                "another recording, while this one ran; give each its own folder with cache=FOLDER, and run this again."
            )


def resumable(last: Path) -> bool:
    """Whether a killed training left a checkpoint to continue from."""
    from soundsight.backend.checkpoint import load_checkpoint

    try:
        return last.is_file() and is_unfinished(load_checkpoint(last))
    except ModelError:  # half-written
        return False


def _score(plan: Plan, model: Path, data: Path) -> Scored:
    from soundsight.models.load import load_classifier

    # Sums depend on the number of threads: one, whoever scores, so that a killed run ends with the same bytes.
    classifier = load_classifier(model, device=plan.arguments.get("device"), threads=1)
    found = list_images(data, "test", classifier.preprocessing.names, multi=plan.multi)
    images = [f"{file.parent.name}/{file.name}" for file in found.files]
    if plan.multi:  # in the folder of the first of its classes, whichever that is here
        image_of = {Path(row.image).name: row.image for row in plan.rows}
        images = [image_of[file.name] for file in found.files]
    row_of = {row.image: row for row in plan.rows}
    clips = clips_of([row_of.get(image) for image in images], plan.root)
    scores = logits_of(classifier, found.files, tta=plan.tta, clips=clips)
    probabilities = classifier.activate(scores, calibrated=False)
    return Scored(images, classifier.preprocessing.names, found.targets, probabilities)


def _write(path: Path, scored: Scored) -> None:
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {name: np.array(value) for name, value in vars(scored).items()}
    np.savez(buffer, **arrays)
    write_bytes(path, buffer.getvalue())


def result_name(tta: TTA) -> str:
    """File of a fold's predictions."""
    return f"probabilities-{tta}.npz" if str(tta) else "probabilities.npz"


def is_scored(folder: Path, fold: int, seed: int, tta: TTA) -> bool:
    """Whether a run has the predictions for a fold."""
    return (folder / f"fold{fold}-seed{seed}" / result_name(tta)).is_file()


def read_scored(path: Path) -> Scored:
    """Read a fold's predictions."""
    with np.load(path, allow_pickle=False) as data:
        return Scored(data["images"].tolist(), tuple(data["names"].tolist()), data["targets"], data["probabilities"])


def scores_of(scored: Scored) -> Scores | DetectionScores:
    return score_images(scored.targets, scored.probabilities, scored.names)


def read_members(
    runs: Sequence[str | Path], tested: Iterable[int], settings: dict[str, Any], tta: TTA
) -> dict[int, list[Scored]]:
    """Predictions of earlier cross-validations, by fold, to be averaged with those of this one.

    A member may have any model, recipe or spectrogram. It must have been scored on the same recordings, labels and
    folds, so that each clip is still predicted only by models that never saw it.
    """
    members: dict[int, list[Scored]] = {fold: [] for fold in tested}
    for run in map(Path, runs):
        theirs = read_settings(run)
        if theirs.get("data_fingerprint") != settings["data_fingerprint"]:
            raise DatasetError(
                f"{run} was scored on other recordings, labels or folds; only runs on the same data can be averaged."
            )
        if theirs.get("protocol") != settings["protocol"]:
            raise ConfigError(
                f"{run} has protocol {theirs.get('protocol')}, this run {settings['protocol']}; average runs of one."
            )
        for fold, found in members.items():
            results = [run / f"fold{fold}-seed{seed}" / result_name(tta) for seed in theirs.get("seeds", [])]
            if not results or not all(result.is_file() for result in results):
                with_tta = f" with shifts={tta.shifts}, speeds={list(tta.speeds)}" if str(tta) else ""
                raise DatasetError(
                    f"{run} has no predictions for fold {fold}{with_tta}; finish it first, or choose --folds."
                )
            found.extend(read_scored(result) for result in results)
    return members


def read_settings(run: Path) -> dict[str, Any]:
    """What a cross-validation says of itself."""
    with suppress(OSError, ValueError):
        settings = read_json(run / "settings.json")
        if isinstance(settings, dict) and "data_fingerprint" in settings:
            return settings
    raise ConfigError(f"{run} holds no cross-validation; name folders below runs/crossval.")


def join(done: dict[int, list[Scored]], members: dict[int, list[Scored]]) -> dict[int, list[Scored]]:
    """Each fold's predictions and those of the members, in the order of the fold's first."""
    return {
        fold: several + [_in_order_of(several[0], other) for other in members[fold]] for fold, several in done.items()
    }


def _in_order_of(first: Scored, other: Scored) -> Scored:
    """The predictions of `other` for the images and classes of `first`, in its order."""
    if other.names != first.names or sorted(other.images) != sorted(first.images):
        raise DatasetError(
            "The runs do not predict the same clips and classes; only runs on the same data can be averaged."
        )
    place = {image: n for n, image in enumerate(other.images)}
    order = [place[image] for image in first.images]
    return replace(other, images=first.images, targets=other.targets[order], probabilities=other.probabilities[order])
