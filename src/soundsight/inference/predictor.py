"""A model with its preprocessing: recordings in, timed predictions out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from soundsight import parallel
from soundsight.config import SpectrogramConfig, from_dict, under_present_names
from soundsight.deprecation import Former, renamed
from soundsight.errors import AudioError, ConfigError
from soundsight.inference.events import detect
from soundsight.inference.options import (
    GPU_BATCH,
    PROCESSOR_BATCH,
    Options,
    decide,
    off_thresholds,
    resolve,
    summary_thresholds,
    thresholds,
)
from soundsight.inference.pipeline import Ended, Rendered, compute
from soundsight.inference.results import OVERRIDE, OWN, Model, Prediction, Result, Summary, Tally, Vector
from soundsight.inference.segments import Source, array_source, file_source
from soundsight.inference.sources import expand

if TYPE_CHECKING:
    from soundsight.models.classifier import Classifier

Floats = npt.NDArray[np.float32]
T = TypeVar("T", Prediction, Vector)
Callback = Callable[[Prediction, Rendered], None]

_MAX_RENDERING_THREADS = 8


class Predictor:
    """A model with its preprocessing, ready to predict; made by `load`.

    Call it with a path, or with an array and its rate. The keywords of all methods are the fields of
    `Options`.
    """

    def __init__(self, classifier: Classifier, *, threads: int | None = None) -> None:
        self.classifier = classifier
        self._workers = max(1, min(_MAX_RENDERING_THREADS, (threads or parallel.cores()) - 1))
        settings = OVERRIDE if classifier.preprocessing.supplied else OWN
        self.model = Model(classifier.preprocessing.names, classifier.model_hash, settings, classifier.multi)

    @property
    def names(self) -> tuple[str, ...]:
        """The classes, in the order of `Prediction.probabilities`."""
        return self.model.names

    @property
    def spectrogram(self) -> SpectrogramConfig:
        """The model's preprocessing."""
        return self.classifier.preprocessing.spectrogram

    @property
    def model_hash(self) -> str:
        """Twelve hexadecimal digits of the model file; of several, joined by plus signs."""
        return self.model.model_hash

    @property
    def clip_seconds(self) -> float:
        """The model's clip length in seconds: the longest segment."""
        return self.spectrogram.clip_seconds

    fingerprint = Former("model_hash")
    windows = Former("predictions")
    answers = Former("results")

    def __repr__(self) -> str:
        return (
            f"Predictor({len(self.names)} classes, {self.clip_seconds:g} s at "
            f"{self.spectrogram.sample_rate} Hz, {self.model_hash})"
        )

    def __call__(
        self, source: str | Path | npt.ArrayLike, rate: int | None = None, *, top_k: int | None = None, **how: Any
    ) -> Result:
        """Predict one recording.

        Args:
            source: A path, or samples `(samples,)` or `(samples, channels)`, integers or floats in [-1, 1].
            rate: The sample rate of an array, in Hz.
            top_k: Classes that the prediction names; see `Options`.
            how: Other fields of `Options`, such as `hop_seconds=1.0` or `threshold=0.5`.

        Raises:
            AudioError: Nothing of the recording can be read. Of a damaged one, the good part is predicted, and its
                `failure`, also given as a warning, tells the damage.
            ConfigError: An option is not allowed.
        """
        options = _options({"top_k": top_k, **how})
        (result,) = self.results([_source(source, rate)], options)
        if result.failure and not result.predictions:
            raise AudioError(result.failure)
        if result.failure:
            warnings.warn(result.failure, stacklevel=2)
        return result

    def predictions(
        self, source: str | Path | npt.ArrayLike, rate: int | None = None, **how: Any
    ) -> Iterator[Prediction]:
        """Predict one recording segment by segment, in constant memory however long it is."""
        yield from _only(Prediction, self.stream([_source(source, rate)], _options(how)))

    def embed(self, source: str | Path | npt.ArrayLike, rate: int | None = None, **how: Any) -> Iterator[Vector]:
        """The network's features of each segment: pooled, before the classes."""
        yield from _only(Vector, self.vectors([_source(source, rate)], _options(how)))

    def resolve(self, options: Options) -> Options:
        """Options with this model's own values filled in."""
        batch = PROCESSOR_BATCH if str(self.classifier.device) == "cpu" else GPU_BATCH
        return resolve(options, self.classifier.preprocessing, batch=batch)

    def results(self, sources: Iterable[Source], options: Options) -> Iterator[Result]:
        """One prediction per recording; those that cannot be read say so in `Result.failure`."""
        predictions: list[Prediction] = []
        for event in self.stream(sources, options):
            if isinstance(event, Prediction):
                predictions.append(event)
                continue
            yield Result(event.recording, event.duration_seconds, tuple(predictions), event, options.top_k)
            predictions = []

    def stream(
        self, sources: Iterable[Source], options: Options, *, callback: Callback | None = None
    ) -> Iterator[Prediction | Summary]:
        """Segments, or events, of many recordings as they are predicted, and a summary at the end of each.

        Nothing is kept, so ten hours need no more memory than a minute. `callback` is told each segment and how it was
        rendered.
        """
        how = self.resolve(options)
        segments = self._segments(sources, how, callback)
        if not how.events:
            return segments
        return detect(
            segments,
            off_thresholds=off_thresholds(how, self.classifier.preprocessing),
            min_event_seconds=how.min_event_seconds,
            min_gap_seconds=how.min_gap_seconds,
        )

    def _segments(
        self, sources: Iterable[Source], how: Options, callback: Callback | None
    ) -> Iterator[Prediction | Summary]:
        tally: Tally | None = None
        model = self.classifier.preprocessing
        of_segment, of_summary = thresholds(how.threshold, model), summary_thresholds(how, model)
        network = partial(
            self.classifier.probabilities, shifts=how.tta_shifts, images_per_segment=1 + len(how.tta_speeds)
        )
        for event in self._compute(sources, network, how, how.tta_speeds):
            recording = event.recording if isinstance(event, Ended) else event[0].recording
            tally = tally or Tally(recording, self.model)
            if isinstance(event, Ended):
                yield tally.summary(event.duration_seconds, event.failure, of_summary)
                tally = None
                continue
            rendered, row = event
            if rendered.silent:
                row = np.zeros_like(row)
            label, probability, labels = decide(row, rendered.silent, self.names, of_segment, multi=self.model.multi)
            segment = Prediction(
                recording,
                rendered.start_seconds,
                rendered.end_seconds,
                label,
                probability,
                row,
                rendered.silent,
                self.model,
                rendered.weight,
                labels,
            )
            tally.add(segment)
            if callback:
                callback(segment, rendered)
            yield segment

    def vectors(self, sources: Iterable[Source], options: Options) -> Iterator[Vector | Ended]:
        """Feature vectors of many recordings, and the end of each."""
        how = self.resolve(options)
        for event in self._compute(sources, self.classifier.features, how):
            if isinstance(event, Ended):
                yield event
            else:
                rendered, vector = event
                yield Vector(rendered.recording, rendered.start_seconds, rendered.end_seconds, vector)

    def _compute(
        self,
        sources: Iterable[Source],
        network: Callable[[npt.NDArray[np.uint8]], Floats],
        how: Options,
        speeds: Sequence[float] = (),
    ) -> Iterator[tuple[Rendered, Floats] | Ended]:
        assert how.segment_seconds and how.hop_seconds and how.batch, "options are not resolved"
        return compute(
            sources,
            network,
            self.spectrogram,
            window_seconds=how.segment_seconds,
            hop_seconds=how.hop_seconds,
            batch=how.batch,
            workers=self._workers,
            speeds=speeds,
            steady=how.steady,
        )


@renamed(trust="trust_checkpoint")
def load(
    model: str | Path | Sequence[str | Path],
    *,
    device: str | None = None,
    spectrogram: SpectrogramConfig | None = None,
    trust_checkpoint: bool = False,
    threads: int | None = None,
    runtime: str = "auto",
) -> Predictor:
    """Load a model to predict recordings with.

    Args:
        model: A checkpoint `.pt`, or an exported `.onnx` or OpenVINO folder; or several of them,
            whose probabilities are averaged.
        device: "cpu", "cuda", "0"...; `None` takes the first GPU, or else the CPU.
        spectrogram: Other spectrogram settings than the model's own; predictions then say so.
        trust_checkpoint: Load a checkpoint that holds more than data; a hostile file then runs code.
        threads: Processor threads to use; `None` takes all.
        runtime: What computes the predictions of a checkpoint: "pytorch", "onnxruntime", or "auto": ONNX Runtime on a
            processor, where it is installed and agrees with PyTorch, which it is much quicker to load than.

    Raises:
        ModelError: The model is missing, unsafe, damaged, or has no preprocessing settings and none were supplied.
        ConfigError: Several models differ in classes or spectrogram settings.
    """
    if threads is not None and threads < 1:
        raise ConfigError(f"threads={threads} is not allowed; it must be 1 or more.")
    from soundsight.models.converted import load_fastest

    paths = [model] if isinstance(model, str | Path) else list(model)
    if not paths:
        raise ConfigError("No model is named; name a checkpoint .pt or an exported model.")
    how: dict[str, Any] = {"runtime": runtime, "device": device, "spectrogram": spectrogram, "threads": threads}
    members = [load_fastest(path, trust=trust_checkpoint, **how) for path in paths]
    if len(members) == 1:
        return Predictor(members[0], threads=threads)
    from soundsight.models.ensemble import Ensemble

    return Predictor(Ensemble(members), threads=threads)


def predict(
    model: str | Path | Sequence[str | Path] | Predictor,
    sources: str | Path | Iterable[str | Path],
    *,
    top_k: int | None = None,
    **how: Any,
) -> Iterator[Result]:
    """Predict many recordings, one after the other, as they are asked for.

    Args:
        model: What `load` takes, or a loaded model.
        sources: Files, folders (searched for recordings) and globs.
        top_k: Classes that a prediction names; see `Options`.
        how: Other fields of `Options`; and the keywords of `load`.

    Returns:
        One prediction per recording, in order. What cannot be read comes with a `failure` instead of segments.

    Raises:
        ConfigError: An option is not allowed.
        ModelError: See `load`.
    """
    keys = ("device", "spectrogram", "trust_checkpoint", "trust", "threads", "runtime")
    loading = {key: how.pop(key) for key in keys if key in how}
    options = _options({"top_k": top_k, **how})
    if isinstance(model, Predictor) and loading:
        raise ConfigError(f"{', '.join(loading)} belong to load(), and this model is loaded already.")
    predictor = model if isinstance(model, Predictor) else load(model, **loading)
    words = [sources] if isinstance(sources, str | Path) else sources
    predictor.resolve(options)  # complain now, not at the first prediction
    return predictor.results((file_source(path) for path in expand(words)), options)


def _only(kind: type[T], events: Iterable[T | Summary | Ended]) -> Iterator[T]:
    for event in events:
        if isinstance(event, kind):
            yield event
        elif failure := getattr(event, "failure", ""):
            raise AudioError(failure)


def _options(how: dict[str, Any]) -> Options:
    return from_dict(Options, under_present_names(Options, how, "option"), where="the options of prediction")


def _source(source: str | Path | npt.ArrayLike, rate: int | None) -> Source:
    if isinstance(source, str | Path):
        if rate is not None:
            raise ConfigError(f"{source} tells its own sample rate; rate={rate} is for arrays only.")
        return file_source(source)
    return array_source(source, rate)
