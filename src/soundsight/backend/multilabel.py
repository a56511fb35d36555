"""What a training on several labels per clip has of its own: the loss, the bias to begin with, and the validator.

Ultralytics' network and head stay as they are; only what its logits mean is another.
"""

from __future__ import annotations

from typing import Any, ClassVar

import soundsight.backend.quiet  # noqa: F401  (before Ultralytics)

# isort: split
import torch
from torch import Tensor
from torch.nn import functional
from ultralytics.models.yolo.classify import ClassificationValidator
from ultralytics.utils import LOGGER

from soundsight.backend.compat import MACRO_MAP, MICRO_MAP
from soundsight.detection import score_detections


class BinaryLoss:
    """Binary cross-entropy of each class, summed over the classes, mean over the clips, in nats."""

    def __init__(self, positive_weight: Tensor | None = None) -> None:
        """`positive_weight` `(classes,)` counts the presence of a class so many times."""
        self.positive_weight = positive_weight

    def __call__(self, predicted: Any, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of logits `(batch, classes)` or (softmax, logits) against 0 to 1 in `batch["cls"]`, same shape."""
        logits = predicted[1] if isinstance(predicted, list | tuple) else predicted
        each = functional.binary_cross_entropy_with_logits(
            logits, batch["cls"].to(logits.dtype), pos_weight=self.positive_weight, reduction="none"
        )
        loss = each.sum(1).mean()
        return loss, {"loss": loss.detach()}


def begin_at_prior(layer: torch.nn.Linear, targets: Tensor) -> None:
    """Let an untrained last layer predict each class as often as it is in `targets` (N, classes).

    Else most of the first epochs teach it that a clip has few of the classes (Lin et al., Focal loss, ICCV 2017, 4.1).
    A layer whose bias has left the range of PyTorch's random start was trained, and is left as it is.
    """
    if layer.bias.abs().max() > layer.in_features**-0.5:
        return
    share = (targets.float().sum(0) + 1) / (len(targets) + 2)
    with torch.no_grad():
        layer.bias.copy_(torch.logit(share))


class MultiLabelValidator(ClassificationValidator):
    """Mean average precision on the validation images; the macro mean over classes is the fitness of an epoch."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.metrics: Any = _Figures()

    def init_metrics(self, model: Any) -> None:
        """See Ultralytics'."""
        super().init_metrics(model)
        self.confusion_matrix = None

    def preprocess(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Images as float in [0, 1], whoever loaded them."""
        levels = 255 if batch["img"].dtype == torch.uint8 else 1
        batch = super().preprocess(batch)
        batch["img"] = batch["img"] / levels
        return batch

    def postprocess(self, preds: Any) -> Tensor:
        """Probabilities of each class on its own."""
        logits: Tensor = preds[1]
        return logits.float().sigmoid()

    def update_metrics(self, preds: Tensor, batch: dict[str, Any]) -> None:
        """Keep a batch."""
        kept: Any = self
        kept.pred.append(preds.cpu())
        kept.targets.append(batch["cls"].cpu())

    def finalize_metrics(self) -> None:
        """Nothing is left to do: there is no confusion matrix of several labels."""
        self.metrics.speed = self.speed
        self.metrics.save_dir = self.save_dir

    def get_desc(self) -> str:
        """Head of the line of figures."""
        return ("%22s" + "%11s" * 2) % ("classes", "macro mAP", "micro mAP")

    def print_results(self) -> None:
        """The line of figures."""
        LOGGER.info(("%22s" + "%11.3g" * 2) % ("all", self.metrics.macro, self.metrics.micro))

    def plot_val_samples(self, batch: dict[str, Any], ni: int) -> None:
        """No plot: Ultralytics' would show one label for each image."""

    def plot_predictions(self, batch: dict[str, Any], preds: Tensor, ni: int) -> None:
        """See `plot_val_samples`."""


class _Figures:
    """In the place of Ultralytics' `ClassifyMetrics`."""

    keys: ClassVar = [MACRO_MAP, MICRO_MAP]

    def __init__(self) -> None:
        self.macro = self.micro = 0.0
        self.speed: dict[str, float] = {}
        self.save_dir: Any = None

    def process(self, targets: list[Tensor], pred: list[Tensor]) -> None:
        """Take all batches."""
        truth, values = torch.cat(targets).numpy(), torch.cat(pred).numpy()
        scores = score_detections(truth, values, [str(index) for index in range(truth.shape[1])])
        self.macro, self.micro = (value if value == value else 0.0 for value in (scores.macro_map, scores.micro_map))

    @property
    def results_dict(self) -> dict[str, float]:
        """All figures by column."""
        return {MACRO_MAP: self.macro, MICRO_MAP: self.micro, "fitness": self.macro}
