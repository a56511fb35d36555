"""Which sounds, when and at which frequency, spoke for a class; only a PyTorch checkpoint has the gradients for it.

`attributions` are integrated gradients (Sundararajan, Taly and Yan, ICML 2017, equation 1) on the path from the
black image, which is silence: all attributions of an image add up to what its sound did to the class's
log-probability. `layer_map` is LayerCAM (Jiang et al., IEEE TIP 2021, equations 5 and 6), the mean over all
resolutions of the network. A saliency map is the mean of both, since single pixels say little; 1 is the place that
counted most. Chosen by what masking does (benchmarks/masking.py, docs/page.md), where it led Grad-CAM by less than the
intervals. Why no library: grad-cam brings a second OpenCV that overwrites the first, captum has one of the two views.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from soundsight.errors import ConfigError, ModelError, did_you_mean
from soundsight.inference.options import UNKNOWN
from soundsight.spectrogram import Image

if TYPE_CHECKING:
    import torch

    from soundsight.models.classifier import Classifier

Floats = npt.NDArray[np.float32]

STEPS = 16  # images on the way from silence to the sound
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


def attributions(classifier: Classifier, image: Image, index: int, *, steps: int = STEPS) -> Floats:
    """What each pixel added to the log-probability of a class.

    Returns:
        float32 `(height, width)` in nats, summed over the channels; below 0 where sound spoke against the
        class.
    """
    import torch

    sound = _pixels(classifier, image)
    shares = (torch.arange(steps, device=classifier.device) + 0.5) / steps
    with torch.enable_grad():
        path = (shares[:, None, None, None] * sound).requires_grad_()
        (gradient,) = torch.autograd.grad(_score(classifier, path, index), path)
    return _array((gradient.mean(0) * sound).sum(0))


def layer_map(classifier: Classifier, image: Image, index: int) -> Floats:
    """Where the layers saw what speaks for a class.

    Returns:
        float32 `(height, width)` in [0, 1], the mean of one map for each resolution of the network, each
        with a maximum of 1.
    """
    import torch
    import torch.nn.functional as nn

    sound = _pixels(classifier, image)
    caught: dict[int, torch.Tensor] = {}  # the output of the last layer of each height

    def keep(_: Any, __: Any, output: torch.Tensor) -> None:
        caught[output.shape[2]] = output

    *body, head = classifier.network.model  # of the head, only its convolution keeps places apart
    hooks = [layer.register_forward_hook(keep) for layer in (*body, head.conv)]
    try:
        with torch.enable_grad():
            score = _score(classifier, sound[None].requires_grad_(), index)
            layers = list(caught.values())
            gradients = torch.autograd.grad(score, layers)
    finally:
        for hook in hooks:
            hook.remove()
    maps = []
    for layer, gradient in zip(layers, gradients, strict=True):
        saliency = (gradient.relu() * layer).sum(1, keepdim=True).relu().detach()
        saliency = nn.interpolate(saliency, sound.shape[1:], mode="bicubic").relu()
        maps.append(saliency[0, 0] / saliency.max().clamp_min(1e-12))
    return _array(torch.stack(maps).mean(0))


def _pixels(classifier: Classifier, image: Image) -> torch.Tensor:
    """An image as the network takes it, `(3, height, width)` in [0, 1]."""
    import torch

    if not classifier.has_gradients:
        raise ModelError(
            "An exported model cannot say what it attended to, since it has no gradients; use the checkpoint "
            ".pt it was made from."
        )
    pixels = torch.from_numpy(np.ascontiguousarray(image)).to(classifier.device)
    return pixels.permute(2, 0, 1).float() / 255


def _score(classifier: Classifier, pixels: torch.Tensor, index: int) -> torch.Tensor:
    """Sum over a batch of the log-probability of a class."""
    import torch
    import torch.nn.functional as nn

    output = classifier.network(pixels)
    scores = output[1] if isinstance(output, tuple | list) else torch.log(output.clamp_min(1e-12))
    scores = scores.float() / classifier.preprocessing.temperature
    return (nn.logsigmoid(scores) if classifier.multi else torch.log_softmax(scores, 1))[:, index].sum()


def _array(tensor: torch.Tensor) -> Floats:
    return tensor.detach().float().cpu().numpy()  # type: ignore[no-any-return]
