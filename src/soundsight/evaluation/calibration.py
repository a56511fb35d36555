"""Calibration: temperature and threshold of a checkpoint, fitted on validation clips, and what they rest on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from soundsight.backend.checkpoint import update_preprocessing
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
