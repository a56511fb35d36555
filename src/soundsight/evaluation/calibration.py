"""Calibration: temperature and thresholds of a checkpoint, fitted on validation clips, and what they rest on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from soundsight.backend.checkpoint import update_preprocessing
from soundsight.errors import ModelError
from soundsight.evaluation import thresholds
from soundsight.evaluation.scoring import list_images, logits_of
from soundsight.metrics import FEWEST_CLIPS, FEWEST_RIGHT, FEWEST_WRONG, KEPT_SHARE, Temperature, fit_temperature
from soundsight.models.classifier import Classifier, Floats, softmax
from soundsight.models.load import load_classifier


def calibrate_checkpoint(model: str | Path, data: str | Path, *, device: str | None = None) -> dict[str, Any]:
    """Fit temperature and threshold on the `val` split, and store them in the checkpoint with what they rest on.

    With several labels per clip, each class has its own: see `_of_each_class`. Else the threshold is the probability
    that `KEPT_SHARE` of the right predictions reach; below it the label is "unknown".

    Returns:
        What was stored: `temperature` (above 1 the network was too sure of itself; 1 without enough clips),
        `threshold` (0 without enough clips), and under `calibration` the numbers of `clips` and of `wrong` ones, and
        the 95 % `interval` of the temperature, `None` if there is no temperature.
    """
    classifier = load_classifier(model, device=device)
    found = list_images(data, "val", classifier.preprocessing.names, multi=classifier.multi)
    logits = logits_of(classifier, found.files)
    fit = _of_each_class if classifier.multi else _of_all
    stored = fit(classifier, logits, found.targets)
    update_preprocessing(model, **stored)
    return stored


def _of_all(classifier: Classifier, logits: Floats, targets: npt.NDArray[Any]) -> dict[str, Any]:
    wrong = logits.argmax(axis=1) != targets
    clips, temperature, interval = len(wrong), 1.0, None
    if clips >= FEWEST_CLIPS and wrong.sum() >= FEWEST_WRONG:
        temperature, *interval = fit_temperature(logits, targets)
    right = softmax(logits, temperature).max(axis=1)[~wrong]
    return {
        "temperature": temperature,
        "threshold": round(float(np.quantile(right, 1 - KEPT_SHARE)), 4) if len(right) >= FEWEST_RIGHT else 0.0,
        "calibration": {"clips": clips, "wrong": int(wrong.sum()), "interval": interval},
    }


def fit_thresholds(
    model: str | Path,
    data: str | Path,
    *,
    precision: float | None = None,
    device: str | None = None,
    trust: bool = False,
) -> dict[str, Any]:
    """Fit a threshold for each class on the `val` split, see `thresholds.fit`, and store them in the checkpoint."""
    if Path(model).suffix != ".pt":
        raise ModelError(
            f"{model} is an export, which keeps its thresholds: fit them in its checkpoint, and export again."
        )
    classifier = load_classifier(model, device=device, trust=trust)
    names = classifier.preprocessing.names
    found = list_images(data, "val", names, multi=classifier.multi)
    truth: npt.NDArray[Any] = found.targets
    values: npt.NDArray[Any] = classifier.activate(logits_of(classifier, found.files))
    if not classifier.multi:
        truth, values = truth[:, None] == np.arange(len(names)), thresholds.named_only(values)
    fitted = thresholds.fit(truth, values, precision)
    by_name = {name: each._asdict() for name, each in zip(names, fitted, strict=True)}
    stored = {"thresholds": by_name, "thresholds_precision": precision}
    update_preprocessing(model, **stored)
    return stored


def _of_each_class(classifier: Classifier, logits: Floats, targets: npt.NDArray[Any]) -> dict[str, Any]:
    """Temperatures and thresholds with several labels per clip, as `calibrate_checkpoint` stores them.

    A class has a temperature of its own where `FEWEST_CLIPS` clips have it and as many do not, and `FEWEST_WRONG` are
    decided wrong; for the others there is one of all decisions. Both are fitted to binary cross-entropy. Thresholds are
    those of the best F1, see `thresholds.fit`.
    """
    wrong = (logits > 0) != targets.astype(bool)
    names, clips = classifier.preprocessing.names, len(logits)
    temperature, interval, temperatures = 1.0, None, {}
    if clips >= FEWEST_CLIPS and wrong.sum() >= FEWEST_WRONG:
        temperature, *interval = _fit(logits, targets)
    for column, name in enumerate(names):
        positive = int(targets[:, column].sum())
        if min(positive, clips - positive) >= FEWEST_CLIPS and wrong[:, column].sum() >= FEWEST_WRONG:
            temperatures[name] = _fit(logits[:, column], targets[:, column]).value
    classifier.preprocessing = replace(classifier.preprocessing, temperature=temperature, temperatures=temperatures)
    fitted = thresholds.fit(targets, classifier.activate(logits))
    return {
        "labels": "multi",
        "temperature": temperature,
        "temperatures": temperatures,
        "threshold": 0.0,
        "thresholds": {name: found._asdict() for name, found in zip(names, fitted, strict=True)},
        "calibration": {"clips": clips, "wrong": int(wrong.any(axis=1).sum()), "interval": interval},
    }


def _fit(logits: Floats, targets: npt.NDArray[Any]) -> Temperature:
    """Temperature of sigmoids: the same as of a softmax over the logits 0 and x."""
    flat = logits.ravel()
    return fit_temperature(np.stack([np.zeros_like(flat), flat], axis=1), targets.ravel().astype(np.int64))
