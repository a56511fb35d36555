"""The reasons: which sounds, when and at which frequency, spoke for a class.

A heat map is the mean of two views, from `yolo.attention`: what each pixel is credited with, smoothed over a
few pixels since single ones say little, and where the network's layers saw it; 1 is the place that counted
most. Chosen by what masking does (benchmarks/masking.py, docs/page.md),
where it led Grad-CAM by less than the intervals. Why no library: grad-cam brings a second OpenCV
that overwrites the first, captum has one of the two views, and both are a page of PyTorch.

Neighbours: `predict` and `report` supply and render the images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from soundsight.errors import ConfigError, did_you_mean
from soundsight.inference.options import UNKNOWN
from soundsight.spectrogram import Image

if TYPE_CHECKING:
    from soundsight.models.classifier import Classifier

Floats = npt.NDArray[np.float32]

SMOOTHING = 1 / 64  # standard deviation of the smoothing, as a share of the image's side


@dataclass(frozen=True, eq=False)
class Attribution:
    """What spoke for one class in one image."""

    label: str
    probability: float  # of the label, 0 to 1
    saliency: Floats  # (height, width) in [0, 1]; row 0 is the highest band, column 0 the start

    def peak(self) -> tuple[float, float]:
        """Where it is hottest: shares of the width from the left and of the height from the top."""
        row, column = np.unravel_index(int(self.saliency.argmax()), self.saliency.shape)
        return (float(column) + 0.5) / self.saliency.shape[1], (float(row) + 0.5) / self.saliency.shape[0]


def can_explain(classifier: Classifier) -> bool:
    """Whether a model has the gradients that this needs: checkpoints do, exports do not."""
    return classifier.has_gradients


def explain(classifier: Classifier, image: Image, label: str | None = None) -> Attribution:
    """Say what spoke for a class in an image.

    Raises:
        ConfigError: The model knows no such class.
        ModelError: The model is an export.
    """
    from soundsight.models.attribution import attributions, layer_map

    names = classifier.preprocessing.names
    probabilities = classifier.probabilities(image[None])[0]
    index = class_index(names, label)
    index = int(probabilities.argmax()) if index is None else index
    saliency = saliency_of(attributions(classifier, image, index), layer_map(classifier, image, index))
    return Attribution(names[index], float(probabilities[index]), saliency)


def saliency_of(attribution: Floats, layers: Floats) -> Floats:
    """A heat map in [0, 1] of what pixels are credited with and of what layers saw, both `(height, width)`.

    It is all 0 where nothing spoke for the class.
    """
    import cv2

    smooth = np.maximum(cv2.GaussianBlur(attribution, (0, 0), SMOOTHING * attribution.shape[1]), 0)
    saliency = smooth / max(float(smooth.max()), 1e-12) + layers
    top = float(saliency.max())
    return (saliency / top if top > 0 else saliency).astype(np.float32)


def class_index(names: Sequence[str], label: str | None) -> int | None:
    """Position of a class; `None` for no class, or "unknown": the most probable one is meant."""
    if label is not None and label in names:
        return list(names).index(label)
    if label is None or label == UNKNOWN:
        return None
    hint = did_you_mean(label, names, f" It knows: {', '.join(sorted(names)[:60])}.")
    raise ConfigError(f"This model knows no class {label!r}.{hint}")
