"""A trained network as a function from pictures to logits, from a checkpoint or an exported file.

Importing this module loads no PyTorch: an ONNX model answers without it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import soundsight.backend.quiet  # noqa: F401  (before Ultralytics)

# Threads of PyTorch that wait without spinning: beside other work, spinning ones are 20 times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# isort: split
import numpy as np
import numpy.typing as npt

from soundsight.backend import checkpoint

if TYPE_CHECKING:
    pass

Images = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


class Classifier:
    """A network with its ears; made by `load_classifier`. This one is PyTorch's."""

    has_gradients = True  # so that it can say what it attended to

    def __init__(self, network: Any, ears: checkpoint.Ears, *, device: Any, fingerprint: str) -> None:
        self.network = network
        self.ears = ears
        self.device = device
        self.fingerprint = fingerprint

    def logits(self, images: Images) -> Floats:
        """Raw scores of a batch of pictures.

        Args:
            images: uint8 RGB `(batch, height, width, 3)`, as `spectrogram.render` draws them.

        Returns:
            float32 `(batch, classes)`: logarithms of probabilities up to a constant a row.
        """
        import torch

        with torch.inference_mode():
            pixels = torch.from_numpy(np.ascontiguousarray(images)).to(self.device)
            pixels = pixels.permute(0, 3, 1, 2).float() / 255  # channels-last in memory, RGB, [0, 1]
            output = self.network(pixels)
            scores = output[1] if isinstance(output, tuple | list) else torch.log(output.clamp_min(1e-12))
            return scores.float().cpu().numpy()  # type: ignore[no-any-return]

    def scores(self, images: Images, *, shifts: int = 1, views: int = 1) -> Floats:
        """Mean log-probabilities over several looks at each window, before any temperature.

        Args:
            images: As for `logits`; the pictures of one window stand beside each other.
            shifts: Look at each picture in so many circular shifts in time ...
            views: ... and at so many pictures of each window.

        Returns:
            float32 `(batch / views, classes)`.
        """
        turns = [round(images.shape[2] * k / shifts) for k in range(shifts)]
        shown = (images[view::views] for view in range(views))
        looks = (np.roll(some, turn, axis=2) if turn else some for some in shown for turn in turns)
        return np.mean([log_softmax(self.logits(look)) for look in looks], axis=0)  # type: ignore[no-any-return]

    def probabilities(self, images: Images, *, shifts: int = 1, views: int = 1) -> Floats:
        """Calibrated class probabilities `(batch / views, classes)`; see `scores`."""
        return softmax(self.scores(images, shifts=shifts, views=views), self.ears.temperature)

    def features(self, images: Images) -> Floats:
        """What the last layer sees of each picture: pooled features, float32 `(batch, features)`."""
        caught: list[Any] = []
        layer = self.network.model[-1].linear
        hook = layer.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
        try:
            self.logits(images)
        finally:
            hook.remove()
        return caught[0].float().cpu().numpy()  # type: ignore[no-any-return]


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
