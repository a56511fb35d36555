"""How much each pixel of a picture counts for a class: integrated gradients, from silence to the sound.

Sundararajan, Taly and Yan (ICML 2017, equation 1). The path begins at the black picture, which is silence,
so what is credited is sound, and all credits of a picture add up to what the sound did to the class's
log-probability. `explain` makes heat maps of it. Only a PyTorch checkpoint has gradients.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from soundsight.errors import ModelError
from soundsight.yolo.classifier import Classifier

Images = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

STEPS = 16  # pictures on the way from silence to the sound; with 8, sums are 1.5 times as far off


def credits(classifier: Classifier, images: Images, classes: npt.ArrayLike, *, steps: int = STEPS) -> Floats:
    """What each pixel added to the log-probability of a class.

    Args:
        classifier: A loaded checkpoint.
        images: uint8 RGB `(batch, height, width, 3)`, as `spectrogram.render` draws them.
        classes: Whole numbers `(batch,)`, one class a picture.
        steps: Points of the path, at the middle of equal parts.

    Returns:
        float32 `(batch, height, width)` in nats, summed over the channels; below 0 where sound spoke
        against the class.

    Raises:
        ModelError: The model is an export, which has no gradients.
    """
    import torch

    if type(classifier) is not Classifier:
        raise ModelError(
            "An exported model cannot say what it attended to, since it has no gradients; use the checkpoint "
            ".pt it was made from."
        )
    wanted = np.asarray(classes, np.int64)
    shares = (torch.arange(steps, device=classifier.device) + 0.5) / steps
    rows = []
    for image, index in zip(images, wanted, strict=True):
        sound = torch.from_numpy(np.ascontiguousarray(image)).to(classifier.device)
        sound = sound.permute(2, 0, 1).float() / 255
        with torch.enable_grad():
            path = (shares[:, None, None, None] * sound).requires_grad_()
            output = classifier.network(path)
            scores = output[1] if isinstance(output, tuple | list) else torch.log(output.clamp_min(1e-12))
            score = torch.log_softmax(scores.float() / classifier.ears.temperature, 1)[:, index].sum()
            (gradient,) = torch.autograd.grad(score, path)
        rows.append((gradient.mean(0) * sound).sum(0).cpu().numpy())
    return np.stack(rows).astype(np.float32, copy=False)
