"""What exported models have in common: files of other runtimes as classifiers, believed as far as they check out.

An exported file carries the same settings as a checkpoint, as JSON under the key `soundsight` of its own
metadata. `readers` holds one file per format.
"""

from __future__ import annotations

import ast
import json
import math
from pathlib import Path

import numpy as np

from soundsight.backend import checkpoint
from soundsight.config import SpectrogramConfig
from soundsight.errors import ConfigError, ModelError
from soundsight.models.classifier import Classifier, Floats, Images

_MAX_TEXT = 1 << 20  # characters of names
_MAX_SETTINGS = 1 << 25  # characters of our settings, with the hashes of a million clips
MAX_STEP = 1024  # images that an export with a fixed number of them may want at once


class Exported(Classifier):
    """A network that gives probabilities, and whose inner layers cannot be seen."""

    has_gradients = False

    def probabilities_of(self, pixels: Floats) -> Floats:
        """Class probabilities `(batch, classes)` of float32 images `(batch, 3, H, W)` in [0, 1]."""
        raise NotImplementedError

    def logits(self, images: Images) -> Floats:
        """See `Classifier.logits`."""
        pixels = np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32)
        pixels /= 255
        return self.inverse(self.probabilities_of(pixels))

    def features(self, images: Images) -> Floats:
        """Not possible."""
        raise ConfigError("An exported model holds no feature vectors; use the checkpoint .pt it was made from.")


def filled(part: Floats, count: int) -> Floats:
    """A batch with black images after it, `count` in all; itself if it is full."""
    missing = count - len(part)
    return np.concatenate([part, np.zeros((missing, *part.shape[1:]), part.dtype)]) if missing else part


def check_step(step: object, path: Path) -> None:
    """Refuse a number of images at once that nobody exports: so many are computed, however few are asked for."""
    if isinstance(step, int) and not 1 <= step <= MAX_STEP:
        raise ModelError(f"{path} takes {step} images at once; 1 to {MAX_STEP} are allowed, so export it again.")


def read_metadata(
    text: str | None, stated: object, path: Path, supplied: SpectrogramConfig | None
) -> checkpoint.Preprocessing:
    """The preprocessing in a file's metadata, checked before it is believed."""
    names = _names(stated)
    if not text:
        if supplied is not None and not names:
            raise ModelError(f"{path} does not name its classes; export it again with `soundsight export`.")
        return checkpoint.read_preprocessing(None, path, names, supplied=supplied)
    try:
        data = json.loads(text) if len(text) <= _MAX_SETTINGS else None
    except (ValueError, RecursionError):
        data = None
    damaged = f"The settings of Soundsight inside {path} are damaged; export the model again."
    if not isinstance(data, dict) or type(data.get("format")) is not int:
        raise ModelError(damaged)
    given, temperature = data.get("names"), data.get("temperature", 1.0)
    if type(data.get("threshold", 0.0)) not in (int, float) or not 0 <= data.get("threshold", 0.0) <= 1:
        raise ModelError(damaged)
    if not isinstance(given, list) or not given or not all(isinstance(name, str) and name for name in given):
        raise ModelError(damaged)
    if type(temperature) not in (int, float) or not math.isfinite(temperature) or not 0.01 <= temperature <= 100:
        raise ModelError(damaged)
    return checkpoint.read_preprocessing(data, path, tuple(given), supplied=supplied)


def _names(stated: object) -> tuple[str, ...]:
    """Class names as Ultralytics writes them: `{0: "dog", ...}`, as text or as a dictionary."""
    if isinstance(stated, str) and len(stated) <= _MAX_TEXT:
        try:
            stated = ast.literal_eval(stated)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return ()
    if not isinstance(stated, dict):
        return ()
    try:
        return tuple(str(stated[key]) for key in sorted(stated, key=int))
    except (ValueError, TypeError):
        return ()


def checked(classifier: Exported, path: Path) -> Classifier:
    """Predict one black image, so that a file that lies about its shapes is found out."""
    size, classes = classifier.preprocessing.spectrogram.image_size, len(classifier.preprocessing.names)
    try:
        prediction = classifier.probabilities_of(np.zeros((1, 3, size, size), np.float32))
    except Exception as error:
        raise ModelError(
            f"{path} does not accept the {size} x {size} images that its settings render ({one_line(error)}); "
            "export it again."
        ) from error
    if prediction.shape != (1, classes):
        raise ModelError(f"{path} names {classes} classes but its output has shape {prediction.shape}; it is damaged.")
    possible = np.isfinite(prediction).all() and prediction.min() >= 0 and prediction.max() <= 1.01
    if not possible or not (classifier.multi or abs(float(prediction.sum()) - 1) <= 0.01):
        raise ModelError(f"{path} does not predict with probabilities; export it again with `soundsight export`.")
    return classifier


def one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:160].rstrip(".")
