"""Several models as one: the mean of their probabilities, as `crossval --with` scores it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from soundsight.errors import ConfigError
from soundsight.models.classifier import Classifier, Floats, Images

_TINY = 1e-12  # probabilities below count as this


class Ensemble(Classifier):
    """Models of the same classes and spectrogram settings, so that each image is rendered once for all."""

    has_gradients = False

    def __init__(self, members: Sequence[Classifier]) -> None:
        """Join two or more.

        Raises:
            ConfigError: One knows other classes than the first, or renders other images.
        """
        first = members[0].preprocessing
        for number, member in enumerate(members[1:], 2):
            if member.preprocessing.names != first.names:
                raise ConfigError(
                    f"Model {number} knows other classes than the first; only models of the same ones can be averaged."
                )
            if member.preprocessing.spectrogram != first.spectrogram:
                raise ConfigError(
                    f"Model {number} has other spectrogram settings than the first; only models with the same ones "
                    "can be averaged."
                )
        self.members = tuple(members)
        thresholds = [
            member.preprocessing.threshold for member in members if member.preprocessing.threshold > 0
        ]  # 0 is none
        self.preprocessing = replace(
            first,
            temperature=1.0,
            threshold=float(np.mean(thresholds)) if thresholds else 0.0,
            supplied=any(member.preprocessing.supplied for member in members),
        )
        self.device = members[0].device
        self.model_hash = "+".join(member.model_hash for member in members)

    def logits(self, images: Images) -> Floats:
        """See `Classifier.logits`."""
        return np.log(np.maximum(self.probabilities(images), _TINY))  # type: ignore[no-any-return]

    def probabilities(self, images: Images, *, shifts: int = 1, images_per_segment: int = 1) -> Floats:
        """Mean of the members' calibrated probabilities; see `Classifier.probabilities`."""
        each = [
            member.probabilities(images, shifts=shifts, images_per_segment=images_per_segment)
            for member in self.members
        ]
        return np.mean(each, axis=0)  # type: ignore[no-any-return]

    def features(self, images: Images) -> Floats:
        """Not possible."""
        raise ConfigError("Several models have no feature vector in common; name one.")
