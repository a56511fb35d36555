"""What exported models have in common: files of other runtimes as classifiers, believed as far as they check out.

An exported file carries the same settings as a checkpoint, as JSON under the key `soundsight` of its own
metadata. `readers` holds one file per format.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from soundsight.backend import checkpoint
from soundsight.config import SpectrogramConfig
from soundsight.errors import ConfigError, ModelError
from soundsight.models.classifier import Classifier, Floats, Images, one_line
from soundsight.spectrogram import render

_MAX_TEXT = 1 << 20  # characters of names
_MAX_SETTINGS = 1 << 25  # characters of our settings, with the hashes of a million clips
AGREEMENT = 0.05  # of a network and the file from samples that holds it: an image may be one level off here and there
MAX_STEP = 1024  # images that an export with a fixed number of them may want at once


class Exported(Classifier):
    """A network that gives probabilities, and whose inner layers cannot be seen."""

    has_gradients = False
    step: int | None = None  # images at once, of a file with a fixed number of them

    def run(self, pixels: Floats) -> Floats:
        """What the runtime makes of a batch of a size that it takes, in memory of its own."""
        raise NotImplementedError

    def probabilities_of(self, pixels: Floats) -> Floats:
        """Class probabilities `(batch, classes)` of float32 images `(batch, 3, H, W)` in [0, 1]."""
        step = self.step or len(pixels)
        parts = []
        for first in range(0, len(pixels), step):
            part = pixels[first : first + step]
            if missing := step - len(part):
                part = np.concatenate([part, np.zeros((missing, *part.shape[1:]), part.dtype)])  # black images
            parts.append(self.run(part)[: len(pixels) - first])
        return np.concatenate(parts).astype(np.float32, copy=False)

    def outputs(self, images: Images) -> Floats:
        """Class probabilities `(batch, classes)`; see `logits` for the images."""
        pixels = np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32)
        pixels /= 255
        return self.probabilities_of(pixels)

    def logits(self, images: Images) -> Floats:
        return self.inverse(self.outputs(images))

    def features(self, images: Images) -> Floats:
        raise ConfigError("An exported model holds no feature vectors; use the checkpoint .pt it was made from.")


def checked_step(step: object, path: Path) -> int | None:
    """How many images a file takes at once, if it says; so many are computed, however few are asked for."""
    if not isinstance(step, int):
        return None
    if not 1 <= step <= MAX_STEP:
        raise ModelError(f"{path} takes {step} images at once; 1 to {MAX_STEP} are allowed, so export it again.")
    return step


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
    given = data.get("names")
    if not isinstance(given, list):
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


def checked_samples(classifier: Classifier, whole: Callable[[Floats], Floats], path: Path) -> Classifier:
    """The network inside a file that takes samples, if the file gives for samples what it gives for their image.

    Args:
        classifier: The network, from images.
        whole: The file's own output `(batch, classes)` for samples `(batch, samples)`.
        path: The file, for messages.
    """
    config = classifier.preprocessing.spectrogram
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, config.clip_samples).astype(np.float32)
    expected = classifier.probabilities(render(samples, config)[None])
    try:
        found = np.asarray(whole(samples[None]))
    except Exception as error:
        raise ModelError(
            f"{path} does not accept the samples of a clip ({one_line(error)}); export it again."
        ) from error
    agree = found.shape == expected.shape and float(np.abs(found - expected).max()) <= AGREEMENT
    if not (agree or classifier.preprocessing.supplied):
        raise ModelError(f"{path} renders samples otherwise than its settings say; export it again.")
    return classifier
