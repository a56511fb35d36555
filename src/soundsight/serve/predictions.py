"""The JSON of the service, and the predictions and attributions in it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, Field

from soundsight.config import SpectrogramConfig
from soundsight.errors import AudioError, ConfigError
from soundsight.inference.explain import class_index, explain
from soundsight.inference.options import Options
from soundsight.inference.predictor import Predictor
from soundsight.inference.results import Prediction, Summary
from soundsight.inference.segments import Source, cut, render_segment
from soundsight.inference.timeline import COLUMNS, Timeline
from soundsight.reports.spectrograms import probability_strips, tick_positions
from soundsight.reports.templating import image_uri
from soundsight.serve.uploads import Upload, check, opened
from soundsight.spectrogram import hz_to_mel, mel_to_hz

MAX_COLUMNS = 4096  # of an image for the page
MIN_HOP_SECONDS = 0.1
MAX_SEGMENTS = 6000


class ClassProbability(BaseModel):
    """A class and its probability."""

    label: str
    probability: float = Field(ge=0, le=1)


class TimedResult(BaseModel):
    """The prediction for one segment."""

    start: float = Field(description="seconds")
    end: float = Field(description="seconds")
    label: str = Field(description="a class, `unknown` below its threshold, `background` or `silence`")
    labels: list[str] = Field(description="all classes above their thresholds, of a model of several labels per clip")
    probability: float
    top: list[ClassProbability]


class Tick(BaseModel):
    """A label of the frequency axis."""

    label: str
    position: float = Field(description="share of the height, from the bottom")


class EmbeddedImage(BaseModel):
    """The spectrogram, on one scale over the whole recording."""

    png: str = Field(
        description="data URI of a grey PNG: 0 is db_floor, 255 db_ceiling, one scale throughout; low frequencies below"
    )
    seconds: float = Field(description="what its width spans")
    db_floor: float
    db_ceiling: float
    ticks: list[Tick]


class Tracks(BaseModel):
    """Classes over time."""

    classes: list[str]
    edges: list[float] = Field(description="borders of the intervals, in seconds")
    strips: list[list[float | None]] = Field(description="for each class its probability in each interval")


class Result(BaseModel):
    """What is in a recording, and when."""

    recording: str
    duration_seconds: float
    label: str = Field(description="of the whole: a class, `unknown`, `background` or `silence`")
    labels: list[str] = Field(description="of the whole: all classes above their thresholds")
    probability: float = Field(
        description="mean over the segments that were not silent; the highest with several labels"
    )
    top: list[ClassProbability]
    windows: list[TimedResult]
    model: str = Field(description="twelve hexadecimal digits of the model file")
    damage: str = Field("", description="what is wrong with the recording, of which only the good part was predicted")
    picture: EmbeddedImage | None = None
    tracks: Tracks | None = None


class Attribution(BaseModel):
    """Which sounds speak for a class in one segment."""

    label: str
    probability: float
    start: float
    end: float
    seconds: float = Field(description="what the width of the map spans")
    png: str = Field(description="data URI of a grey PNG of the spectrogram's height: 255 speaks most for the class")
    peak_seconds: float
    peak_hz: float


class Failure(BaseModel):
    """Why there is no prediction."""

    error: str = Field(description="one message: what was found, what is allowed, what to do next")


class ModelInfo(BaseModel):
    """The model, and the limits of the service."""

    names: list[str]
    labels: Literal["single", "multi"] = Field(description="one label per clip, or several")
    fingerprint: str = Field(description="twelve hexadecimal digits of the model file")
    clip_seconds: float
    sample_rate: int
    fmin_hz: float
    fmax_hz: float
    reference: Literal["clip", "full_scale"]
    settings: Literal["own", "override"]
    explains: bool
    max_seconds: float
    max_bytes: int
    formats: list[str]
    examples: list[dict[str, str]]


def predict(
    predictor: Predictor,
    upload: Upload,
    *,
    max_seconds: float,
    hop_seconds: float | None = None,
    top_k: int = 5,
    image: bool = False,
    check_open: Callable[[], None] = lambda: None,
) -> Result:
    """Predict one upload; `check_open` is called after each segment, and ends the work with what it raises."""
    options = Options(hop_seconds=hop_seconds, top_k=top_k)
    hop = predictor.resolve(options).hop_seconds or predictor.clip_seconds
    info = check(upload, max_seconds)
    if hop < MIN_HOP_SECONDS or info.duration_seconds / hop > MAX_SEGMENTS:
        raise ConfigError(
            f"hop_seconds={hop:g} makes too many segments; {MIN_HOP_SECONDS:g} s or more, and "
            f"{MAX_SEGMENTS} segments at most are allowed."
        )
    timeline = Timeline(predictor.spectrogram)
    windows: list[Prediction] = []
    summary: Summary | None = None
    for event in predictor.stream(
        [Source(str(upload.path), lambda: opened(upload, max_seconds))],
        options,
        callback=timeline.add if image else None,
    ):
        check_open()
        if isinstance(event, Summary):
            summary = event
        else:
            windows.append(event)
            if len(windows) > MAX_SEGMENTS:  # of a length that was not known before
                raise ConfigError(f"hop_seconds={hop:g} makes more than {MAX_SEGMENTS} segments.")
    assert summary is not None
    damage = summary.failure.replace(str(upload.path), upload.name)
    if damage and not windows:
        raise AudioError(damage)
    return Result(
        recording=upload.name,
        duration_seconds=round(summary.duration_seconds, 3),
        **_named(summary.as_prediction(), top_k),
        windows=[_timed(window, top_k) for window in windows],
        model=predictor.model_hash,
        damage=damage,
        picture=_image(timeline, predictor.spectrogram, summary.duration_seconds) if image else None,
        tracks=_tracks(timeline, summary.duration_seconds) if image and len(windows) > 1 else None,
    )


def reason(
    predictor: Predictor, upload: Upload, *, max_seconds: float, start: float = 0.0, label: str | None = None
) -> Attribution:
    """Explain a class in the segment that begins at `start`; see `explain` for the label."""
    info, config = check(upload, max_seconds), predictor.spectrogram
    class_index(predictor.names, label)
    if start < 0 or (info.frames and start >= info.duration_seconds):
        raise AudioError(f"{upload.name} ends at {info.duration_seconds:.1f} s, so nothing begins at {start:g} s.")
    with opened(upload, max_seconds) as (info, blocks):
        stretches = cut(
            blocks, info.sample_rate, config, window_seconds=config.clip_seconds,
            hop_seconds=start or max_seconds + config.clip_seconds,
        )  # fmt: skip
        found = next((one for one in stretches if one.start_seconds >= start - 1e-6), None)  # at 0, start, 2 start ...
    if found is None:
        raise AudioError(f"{upload.name} holds no segment that begins at {start:g} s.")
    (image,), silent, _ = render_segment(found, config)
    if silent:
        raise AudioError(f"{upload.name} is silent from {start:g} s on, so there is nothing to explain.")
    why = explain(predictor.classifier, image, label)
    across, down = why.peak()
    span = config.image_size * config.hop_length / config.sample_rate
    low, high = float(hz_to_mel(config.fmin_hz)), float(hz_to_mel(config.fmax))
    return Attribution(
        label=why.label,
        probability=_round(why.probability),
        start=found.start_seconds,
        end=found.end_seconds,
        seconds=span,
        png=image_uri(np.rint(255 * why.saliency).astype(np.uint8), level=6),
        peak_seconds=round(found.start_seconds + across * span, 2),
        peak_hz=round(float(mel_to_hz(high - down * (high - low)))),
    )


def _timed(window: Prediction, top_k: int) -> TimedResult:
    start, end = round(window.start_seconds, 3), round(window.end_seconds, 3)
    return TimedResult(start=start, end=end, **_named(window, top_k))


def _named(found: Prediction, top_k: int) -> dict[str, Any]:
    top = [ClassProbability(label=label, probability=_round(value)) for label, value in found.top(top_k)]
    named = {"label": found.label, "labels": list(found.labels), "probability": _round(found.probability)}
    return {**named, "top": top}


def _image(timeline: Timeline, config: SpectrogramConfig, duration: float) -> EmbeddedImage:
    columns = max(1, min(COLUMNS, math.ceil(duration / timeline.column_seconds - 1e-6)))
    grey, step = timeline.grey(columns), timeline.column_seconds
    while grey.shape[1] > MAX_COLUMNS:
        even = grey[:, : grey.shape[1] // 2 * 2]
        grey, step = np.maximum(even[:, ::2], even[:, 1::2]), step * 2
    return EmbeddedImage(
        png=image_uri(grey, level=6),
        seconds=round(grey.shape[1] * step, 6),
        db_floor=config.db_floor,
        db_ceiling=config.db_ceiling,
        ticks=[Tick(**tick) for tick in tick_positions(config, spacing=0.06)],
    )


def _tracks(timeline: Timeline, duration: float) -> Tracks:
    classes = timeline.classes()
    edges, strips = probability_strips(timeline.scores(classes), classes, duration)
    return Tracks(
        classes=classes,
        edges=[round(float(edge), 3) for edge in edges],
        strips=[[None if math.isnan(v) else round(float(v), 3) for v in strip] for strip in strips],
    )


def _round(value: float) -> float:
    return round(min(1.0, max(0.0, float(value))), 6)
