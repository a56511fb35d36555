"""How much each place of an image counts for a class, seen at the pixels and seen in the layers.

`attributions` are integrated gradients (Sundararajan, Taly and Yan, ICML 2017, equation 1) on the path from the
black image, which is silence: all attributions of an image add up to what its sound did to the class's
log-probability. `layer_map` is LayerCAM (Jiang et al., IEEE TIP 2021, equations 5 and 6), the mean over all
resolutions of the network. `explain` makes heat maps of both. Only a PyTorch checkpoint has gradients.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from soundsight.errors import ModelError
from soundsight.models.classifier import Classifier

if TYPE_CHECKING:
    import torch

Images = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

STEPS = 16  # images on the way from silence to the sound


def attributions(classifier: Classifier, image: Images, index: int, *, steps: int = STEPS) -> Floats:
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


def layer_map(classifier: Classifier, image: Images, index: int) -> Floats:
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


def _pixels(classifier: Classifier, image: Images) -> torch.Tensor:
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
