"""Several models as one: the mean of their probabilities, as `crossval --with` scores it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from soundsight.errors import ConfigError
from soundsight.models.classifier import Classifier, Floats, Images


class Ensemble(Classifier):
    """Models of the same classes and spectrogram settings, so that each image is rendered once for all."""

    has_gradients = False

    def __init__(self, members: Sequence[Classifier]) -> None:
        """Join two or more."""
        first = members[0].preprocessing
        for number, member in enumerate(members[1:], 2):
            if member.preprocessing.names != first.names:
                raise ConfigError(
                    f"Model {number} knows other classes than the first; only models of the same ones can be averaged."
                )
            if member.multi != members[0].multi:
                kind = "several labels per clip (labels=multi)", "one label per clip (labels=single)"
                raise ConfigError(
                    f"Model {number} gives {kind[not member.multi]}, the first {kind[member.multi]}; only models of "
                    "one kind can be averaged, so train them alike."
                )
            if member.preprocessing.spectrogram != first.spectrogram:
                raise ConfigError(
                    f"Model {number} has other spectrogram settings than the first; only models with the same ones "
                    "can be averaged."
                )
        self.members = tuple(members)
        found = [member.preprocessing for member in members]
        by_class = [_mean([each.thresholds[name] for each in found if name in each.thresholds]) for name in first.names]
        self.preprocessing = replace(
            first,
            temperature=1.0,
            temperatures={},
            threshold=_mean([each.threshold for each in found if each.threshold > 0]),  # 0 is none
            thresholds={name: value for name, value in zip(first.names, by_class, strict=True) if value},
            supplied=any(each.supplied for each in found),
        )
        self.device = members[0].device
        self.model_hash = "+".join(member.model_hash for member in members)

    def logits(self, images: Images) -> Floats:
        return self.inverse(self.probabilities(images))

    def probabilities(self, images: Images, *, shifts: int = 1, images_per_segment: int = 1) -> Floats:
        """Mean of the members' calibrated probabilities; see `Classifier.probabilities`."""
        each = [
            member.probabilities(images, shifts=shifts, images_per_segment=images_per_segment)
            for member in self.members
        ]
        return np.mean(each, axis=0)  # type: ignore[no-any-return]

    def features(self, images: Images) -> Floats:
        raise ConfigError("Several models have no feature vector in common; name one.")


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0
