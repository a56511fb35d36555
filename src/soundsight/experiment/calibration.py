"""Calibration: temperature and threshold of a checkpoint, fitted on validation clips, and what they rest on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from soundsight import report
from soundsight.experiment.scoring import list_pictures, logits_of
from soundsight.yolo.checkpoint import update_ears
from soundsight.yolo.classifier import load_classifier, softmax

KEPT_SHARE = 0.95  # of the right predictions, which must not become "unknown"
FEWEST_RIGHT = 40  # right predictions without which no threshold is set
FEWEST_CLIPS, FEWEST_WRONG = 50, 5  # without which no temperature is set; docs/predict.md has the measurement


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
    found = list_pictures(data, "val", classifier.ears.names)
    logits = logits_of(classifier, found.files)
    wrong = logits.argmax(axis=1) != found.targets
    clips, temperature, interval = len(wrong), 1.0, None
    if clips >= FEWEST_CLIPS and wrong.sum() >= FEWEST_WRONG:
        temperature, *interval = report.fit_temperature(logits, found.targets)
    right = softmax(logits, temperature).max(axis=1)[~wrong]
    stored = {
        "temperature": temperature,
        "threshold": round(float(np.quantile(right, 1 - KEPT_SHARE)), 4) if len(right) >= FEWEST_RIGHT else 0.0,
        "calibration": {"clips": clips, "wrong": int(wrong.sum()), "interval": interval},
    }
    update_ears(model, **stored)
    return stored


def calibration_lines(ears: Mapping[str, Any]) -> list[str]:
    """What a temperature and a threshold rest on, or why there is none; of what `calibrate_checkpoint` stored."""
    basis = ears.get("calibration")
    temperature, threshold = ears.get("temperature", 1.0), ears.get("threshold", 0.0)
    if basis is None:
        clips = "on how many clips it was fitted is not known" if temperature != 1 else "none was fitted"
        lines = [f"Temperature of its probabilities: {temperature:.3f}; {clips}."]
    else:
        clips = f"the {basis['clips']} clips of `val`, {basis['wrong']} of them predicted wrong"
        if basis["interval"]:
            low, high = basis["interval"]
            lines = [
                f"Temperature of its probabilities: {temperature:.3f} (95 % interval {low:.2f} to {high:.2f}), fitted "
                f"on {clips}."
            ]
        else:
            lines = [
                f"No temperature was fitted on {clips}: {FEWEST_CLIPS} clips and {FEWEST_WRONG} wrong ones are needed. "
                "Its probabilities are as the network gives them."
            ]
    if threshold:
        lines.append(f"A best class below {threshold:.2f} is `unknown`: {KEPT_SHARE:.0%} of the right ones reach that.")
    else:
        few = f" ({FEWEST_RIGHT} right predictions on `val` are needed)" if basis else ""
        lines.append(f"It has no threshold{few}, so it names a class for every sound, unless --threshold is given.")
    return lines
