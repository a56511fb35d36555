"""How a recording is cut and decided on: segment, hop, thresholds; checked once, against the model's preprocessing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from soundsight.config import BACKGROUND
from soundsight.config.commands import InferenceOptions
from soundsight.errors import ConfigError, check_range, did_you_mean

if TYPE_CHECKING:
    from soundsight.backend.checkpoint import Preprocessing

SILENCE, UNKNOWN = "silence", "unknown"
MULTI_THRESHOLD = 0.5  # of a class of a model of several labels per clip that carries none
SHOWN_CLASSES = 5  # of the most probable ones
# Images at once: more of them fall out of a processor's cache, fewer leave a GPU idle.
PROCESSOR_BATCH, GPU_BATCH = 8, 32


Options = InferenceOptions


def narrowed(options: Any, **more: Any) -> Options:
    """Those of a command's options that say how to predict."""
    fields = Options.__dataclass_fields__  # type: ignore[attr-defined]
    return Options(**{name: getattr(options, name) for name in fields if hasattr(options, name)} | more)


def resolve(options: Options, model: Preprocessing, *, batch: int = PROCESSOR_BATCH) -> Options:
    """Options with the model's own values filled in."""
    clip = model.spectrogram.clip_seconds
    segment = clip if options.segment_seconds is None else options.segment_seconds
    if segment > clip:
        raise ConfigError(
            f"segment={segment:g} s is longer than this model's clip length, {clip:g} s; "
            "use a shorter segment (the hop sets how often one begins)."
        )
    check_range("tta_shifts", options.tta_shifts, 1, model.spectrogram.image_size)
    off_thresholds(options, model)
    hop = segment if options.hop_seconds is None else options.hop_seconds
    return replace(options, segment_seconds=segment, hop_seconds=hop, batch=options.batch or batch)


def off_thresholds(options: Options, model: Preprocessing) -> npt.NDArray[np.float32]:
    """Least probability with which an event goes on, by class; infinite where it has to be reported in each segment."""
    given, on = options.off_threshold, thresholds(options.threshold, model)
    if given is None:
        return np.full_like(on, np.inf)
    if on.all() and given > on.max():
        raise ConfigError(
            f"off_threshold={given:g} is above the threshold from which an event begins, {on.max():g} at most; an "
            "event goes on below that, so give a lower one."
        )
    return np.where(on > 0, np.minimum(on, given), given).astype(np.float32)


def summary_thresholds(options: Options, model: Preprocessing) -> npt.NDArray[np.float32]:
    """Least probabilities for a recording as a whole, by class.

    The threshold that a model of one label per clip carries does not count: it is for segments, not for their mean.
    """
    return thresholds(options.threshold, model if model.multi else replace(model, threshold=0.0, thresholds={}))


def thresholds(given: float | Mapping[str, float] | None, model: Preprocessing) -> npt.NDArray[np.float32]:
    """Least probability of each class, float32 `(classes,)`; the model's own where nothing is said."""
    names, own = model.names, MULTI_THRESHOLD if model.multi else model.threshold
    by_class = given if isinstance(given, Mapping) else {} if given is None else {"": given}
    for name, value in by_class.items():
        check_range(f"threshold of {name!r}" if name else "threshold", value, 0, 1)
        if name and name not in names:
            hint = did_you_mean(name, names, f" It knows: {', '.join(sorted(names)[:60])}.")
            raise ConfigError(f"This model knows no class {name!r}, so it can have no threshold.{hint}")
    least = [by_class.get(name, by_class.get("", model.thresholds.get(name, own))) for name in names]
    return np.array(least, np.float32)


def decide(
    probabilities: npt.NDArray[np.float32],
    silent: bool,
    names: Sequence[str],
    least: npt.NDArray[np.float32],
    *,
    multi: bool = False,
) -> tuple[str, float, tuple[str, ...]]:
    """Label of a segment, its probability, and all labels; see `Prediction`."""
    if silent:
        return SILENCE, 0.0, () if multi else (SILENCE,)
    if multi:
        order = np.argsort(-probabilities, kind="stable")
        labels = tuple(names[i] for i in order if probabilities[i] >= least[i])
        if not labels:
            return BACKGROUND, 1 - float(probabilities.max()), ()
        return labels[0], float(probabilities[names.index(labels[0])]), labels
    top = int(probabilities.argmax())
    value = float(probabilities[top])
    label = names[top] if value >= least[top] else UNKNOWN
    return label, value, (label,)
