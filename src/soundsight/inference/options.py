"""How a recording is cut and decided on: segment, hop, thresholds; checked once, against the model's preprocessing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from soundsight.config import BACKGROUND, check_speeds
from soundsight.errors import ConfigError, check_range, did_you_mean

if TYPE_CHECKING:
    from soundsight.backend.checkpoint import Preprocessing

SILENCE, UNKNOWN = "silence", "unknown"
MULTI_THRESHOLD = 0.5  # of a class of a model of several labels per clip that carries none
SHOWN_CLASSES = 5  # of the most probable ones
MIN_SECONDS = 0.01  # shortest segment and hop
# Images at once: more of them fall out of a processor's cache, fewer leave a GPU idle.
PROCESSOR_BATCH, GPU_BATCH = 8, 32


@dataclass(frozen=True)
class Options:
    """How to predict; the defaults give one prediction per clip length, as in training."""

    window_seconds: float | None = None  # length of a segment; None is the model's clip length
    hop_seconds: float | None = None  # from one segment to the next; None is the segment's length
    top_k: int | None = None  # classes that are named; None: 5 where people read it, 1 in rows
    # Least probability of a class, below which it is "unknown", or not reported by a model of several labels per clip;
    # by class name, "" for the others; None: the model's.
    threshold: float | Mapping[str, float] | None = None
    # Events instead of segments, where one of these is given; see `inference.events`.
    off_threshold: float | None = None  # an event goes on while its class has this probability; None: while reported
    min_event_seconds: float = 0.0  # shorter events are left out
    min_gap_seconds: float = 0.0  # events of a class that are less than this apart become one
    shifts: int = 1  # circular time shifts of each image whose probabilities are averaged
    speeds: Sequence[float] = ()  # each segment is also predicted at these speeds, as a tape that runs slower or faster
    batch: int | None = None  # images that the network sees at once; None: what suits the processor or GPU
    steady: bool = False  # fill every batch up, so that no digit of a prediction depends on what is listed beside it


@dataclass(frozen=True)
class Resolved:
    """Options with the model's own values filled in."""

    window_seconds: float
    hop_seconds: float
    thresholds: npt.NDArray[np.float32]  # (classes,), of segments
    summary_thresholds: npt.NDArray[np.float32]  # (classes,), of a recording as a whole, see `resolve`
    shifts: int
    speeds: tuple[float, ...]
    batch: int
    steady: bool
    off_thresholds: npt.NDArray[np.float32]  # (classes,), see `inference.events`
    min_event_seconds: float
    min_gap_seconds: float
    events: bool  # whether segments become events


def resolve(options: Options, model: Preprocessing, *, batch: int = PROCESSOR_BATCH) -> Resolved:
    """Check options against a model.

    For a recording as a whole, the threshold that a model of one label per clip carries does not count: it is for
    segments, not for their mean.

    Args:
        options: What the user asked for.
        model: Its preprocessing, classes and thresholds.
        batch: Images at once where the options do not say.

    Raises:
        ConfigError: A value is out of range, or a threshold names a class that the model does not know.
    """
    config = model.spectrogram
    segment = config.clip_seconds if options.window_seconds is None else options.window_seconds
    if segment > config.clip_seconds:
        raise ConfigError(
            f"window={segment:g} s is longer than this model's clip length, {config.clip_seconds:g} s; "
            "use a shorter segment (the hop sets how often one begins)."
        )
    hop = segment if options.hop_seconds is None else options.hop_seconds
    check_range("window", segment, MIN_SECONDS, config.clip_seconds, " s")
    check_range("hop", hop, MIN_SECONDS, 86400, " s")
    check_range("top_k", SHOWN_CLASSES if options.top_k is None else options.top_k, 1, 100_000)
    check_range("shifts", options.shifts, 1, config.image_size)
    check_speeds(options.speeds)
    check_range("min_event", options.min_event_seconds, 0, 86400, " s")
    check_range("min_gap", options.min_gap_seconds, 0, 86400, " s")
    check_range("batch", batch if options.batch is None else options.batch, 1, 4096)
    on = thresholds(options.threshold, model)
    return Resolved(
        float(segment),
        float(hop),
        on,
        thresholds(options.threshold, model if model.multi else replace(model, threshold=0.0, thresholds={})),
        options.shifts,
        tuple(options.speeds),
        batch if options.batch is None else options.batch,
        options.steady,
        _off(options.off_threshold, on),
        options.min_event_seconds,
        options.min_gap_seconds,
        (options.off_threshold, options.min_event_seconds, options.min_gap_seconds) != (None, 0, 0),
    )


def _off(given: float | None, on: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Least probability with which an event goes on, by class; infinite where it has to be reported in each segment."""
    if given is None:
        return np.full_like(on, np.inf)
    check_range("off_threshold", given, 0, 1)
    if on.all() and given > on.max():
        raise ConfigError(
            f"off_threshold={given:g} is above the threshold from which an event begins, {on.max():g} at most; an "
            "event goes on below that, so give a lower one."
        )
    return np.where(on > 0, np.minimum(on, given), given).astype(np.float32)


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
