"""Calibration: temperature and threshold of a checkpoint, fitted on validation clips, and what they rest on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from soundsight.backend.checkpoint import update_preprocessing
from soundsight.errors import ModelError
from soundsight.evaluation import thresholds
from soundsight.evaluation.scoring import list_images, logits_of
from soundsight.metrics import FEWEST_CLIPS, FEWEST_RIGHT, FEWEST_WRONG, KEPT_SHARE, fit_temperature
from soundsight.models.classifier import softmax
from soundsight.models.load import load_classifier


def calibrate_checkpoint(model: str | Path, data: str | Path, *, device: str | None = None) -> dict[str, Any]:
    """Fit temperature and threshold on the `val` split, and store them in the checkpoint with what they rest on.

    The threshold is the probability that `KEPT_SHARE` of the right predictions reach; below it the label is "unknown".

    Args:
        model: The checkpoint.
        data: The folder with the split `val`.
        device: See `load_classifier`.

    Returns:
        What was stored: `temperature` (above 1 the network was too sure of itself; 1 without enough clips),
        `threshold` (0 without enough clips), and under `calibration` the numbers of `clips` and of `wrong` ones, and
        the 95 % `interval` of the temperature, `None` if there is no temperature.
    """
    classifier = load_classifier(model, device=device)
    found = list_images(data, "val", classifier.preprocessing.names)
    logits = logits_of(classifier, found.files)
    wrong = logits.argmax(axis=1) != found.targets
    clips, temperature, interval = len(wrong), 1.0, None
    if clips >= FEWEST_CLIPS and wrong.sum() >= FEWEST_WRONG:
        temperature, *interval = fit_temperature(logits, found.targets)
    right = softmax(logits, temperature).max(axis=1)[~wrong]
    stored = {
        "temperature": temperature,
        "threshold": round(float(np.quantile(right, 1 - KEPT_SHARE)), 4) if len(right) >= FEWEST_RIGHT else 0.0,
        "calibration": {"clips": clips, "wrong": int(wrong.sum()), "interval": interval},
    }
    update_preprocessing(model, **stored)
    return stored


def fit_thresholds(
    model: str | Path,
    data: str | Path,
    *,
    precision: float | None = None,
    device: str | None = None,
    trust: bool = False,
) -> dict[str, Any]:
    """Fit a threshold for each class on the `val` split, see `thresholds.fit`, and store them in the checkpoint.

    Args:
        model: The checkpoint.
        data: The folder with the split `val`.
        precision: The least precision wanted; `None`: the best F1.
        device: See `load_classifier`.
        trust: Likewise.

    Returns:
        What was stored: under `thresholds`, by class, the fields of `thresholds.Threshold`.

    Raises:
        ModelError: The model is no checkpoint, so nothing can be stored in it, or has several labels per clip.
    """
    if Path(model).suffix != ".pt":
        raise ModelError(
            f"{model} is an export, which keeps its thresholds: fit them in its checkpoint, and export again."
        )
    classifier = load_classifier(model, device=device, trust=trust)
    if classifier.multi:
        raise ModelError(f"{model} has several labels per clip; its thresholds, of the best F1, are fitted by `train`.")
    names = classifier.preprocessing.names
    found = list_images(data, "val", names)
    values = softmax(logits_of(classifier, found.files), classifier.preprocessing.temperature)
    truth = found.targets[:, None] == np.arange(len(names))
    fitted = thresholds.fit(truth, thresholds.named_only(values), precision)
    stored = {"thresholds": {name: each._asdict() for name, each in zip(names, fitted, strict=True)}}
    update_preprocessing(model, **stored)
    return stored
