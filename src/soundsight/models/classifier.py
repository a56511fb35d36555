"""A trained network as a function from images to logits, from a checkpoint or an exported file.

Importing this module loads no PyTorch: an ONNX model predicts without it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import soundsight.backend.quiet  # noqa: F401  (before Ultralytics)

# Threads of PyTorch that wait without spinning: beside other work, spinning ones are 20 times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# isort: split
import numpy as np
import numpy.typing as npt

from soundsight.backend import checkpoint
from soundsight.errors import ModelError

Images = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
TINY = 1e-12  # probabilities below count as this


class Classifier:
    """A network with its preprocessing; made by `load_classifier`. This one is PyTorch's."""

    has_gradients = True  # so that it can say what it attended to

    def __init__(self, network: Any, preprocessing: checkpoint.Preprocessing, *, device: Any, model_hash: str) -> None:
        self.network = network
        self.preprocessing = preprocessing
        self.device = device
        self.model_hash = model_hash

    @property
    def multi(self) -> bool:
        """Whether a clip has any number of the classes: a sigmoid of each, not a softmax over all."""
        return self.preprocessing.multi

    def logits(self, images: Images) -> Floats:
        """Raw scores of uint8 RGB images `(batch, height, width, 3)`, as `spectrogram.render` renders them.

        Returns:
            float32 `(batch, classes)`: log-odds of each class, or of a model of one label per clip logarithms of
            probabilities up to a constant per row.
        """
        import torch

        with torch.inference_mode():
            pixels = torch.from_numpy(np.ascontiguousarray(images)).to(self.device)
            pixels = pixels.permute(0, 3, 1, 2).float() / 255  # channels-last in memory, RGB, [0, 1]
            output = self.network(pixels)
            scores = output[1] if isinstance(output, tuple | list) else torch.log(output.clamp_min(1e-12))
            return scores.float().cpu().numpy()  # type: ignore[no-any-return]

    def outputs(self, images: Images) -> Floats:
        """What the network itself gives: logits, or of an export probabilities."""
        return self.logits(images)

    def scores(self, images: Images, *, shifts: int = 1, images_per_segment: int = 1) -> Floats:
        """Mean logits (normalised, where they become a softmax) over the versions of each segment, no temperature.

        The images of one segment stand beside each other; of each come `shifts` circular time shifts. The result is
        float32 `(batch / images_per_segment, classes)`.
        """
        offsets = [round(images.shape[2] * k / shifts) for k in range(shifts)]
        versions = (images[version::images_per_segment] for version in range(images_per_segment))
        inputs = (np.roll(some, offset, axis=2) if offset else some for some in versions for offset in offsets)
        each = [self.logits(batch) if self.multi else log_softmax(self.logits(batch)) for batch in inputs]
        return np.mean(each, axis=0)  # type: ignore[no-any-return]

    def probabilities(self, images: Images, *, shifts: int = 1, images_per_segment: int = 1) -> Floats:
        """Calibrated class probabilities `(batch / images_per_segment, classes)`; see `scores`."""
        return self.activate(self.scores(images, shifts=shifts, images_per_segment=images_per_segment))

    def activate(self, scores: Floats, *, calibrated: bool = True) -> Floats:
        """Probabilities `(batch, classes)` of what `scores` returns: softmax or sigmoid, at the model's temperature."""
        found = self.preprocessing
        if not found.multi:
            return softmax(scores, found.temperature if calibrated else 1.0)
        each = [found.temperatures.get(name, found.temperature) if calibrated else 1.0 for name in found.names]
        return sigmoid(scores, np.array(each))

    def inverse(self, probabilities: Floats) -> Floats:
        """Logits that uncalibrated `probabilities` came from, up to a constant per row under a softmax."""
        odds = np.clip(probabilities, TINY, 1 - 1e-7) if self.multi else np.maximum(probabilities, TINY)
        return np.log(odds) - np.log1p(-odds) if self.multi else np.log(odds)

    def features(self, images: Images) -> Floats:
        """What the last layer sees of each image: pooled features, float32 `(batch, features)`."""
        caught: list[Any] = []
        hook = checkpoint.last_layer(self.network).register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
        try:
            self.logits(images)
        finally:
            hook.remove()
        return caught[0].float().cpu().numpy()  # type: ignore[no-any-return]


def checked(classifier: Classifier, path: Path) -> Classifier:
    """Predict one black image, so that a file that lies about its network or its shapes is found out."""
    size, classes = classifier.preprocessing.spectrogram.image_size, len(classifier.preprocessing.names)
    try:
        prediction = classifier.outputs(np.zeros((1, size, size, 3), np.uint8))
    except Exception as error:  # whatever layers that do not fit together provoke
        raise ModelError(
            f"{path} does not accept the {size} x {size} images that its settings render ({one_line(error)})."
        ) from error
    if prediction.shape != (1, classes):
        raise ModelError(f"{path} names {classes} classes but its output has shape {prediction.shape}; it is damaged.")
    possible = bool(np.isfinite(prediction).all())
    if not classifier.has_gradients:  # an export, which gives probabilities
        possible = possible and prediction.min() >= 0 and prediction.max() <= 1.01
        possible = possible and (classifier.multi or abs(float(prediction.sum()) - 1) <= 0.01)
    if not possible:
        raise ModelError(f"{path} does not predict with probabilities; train or export the model again.")
    return classifier


def one_line(error: Exception) -> str:
    """The text of an error of a runtime."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:160].rstrip(".")


def sigmoid(logits: Floats, temperature: float | npt.NDArray[np.float64] = 1.0) -> Floats:
    """Probability of each class on its own, `(batch, classes)`, of logits divided by `temperature`."""
    return (0.5 + 0.5 * np.tanh(0.5 * logits.astype(np.float64) / temperature)).astype(np.float32)


def softmax(logits: Floats, temperature: float = 1.0) -> Floats:
    """Probabilities `(batch, classes)` of logits divided by `temperature`."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    exponent = np.exp(scaled)
    return (exponent / exponent.sum(axis=1, keepdims=True)).astype(np.float32)  # type: ignore[no-any-return]


def log_softmax(logits: Floats) -> Floats:
    """Log-probabilities `(batch, classes)` of logits."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))  # type: ignore[no-any-return]
