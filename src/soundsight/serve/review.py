"""The page of `soundsight review`: one detection after the other, with its sound and spectrogram."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import soundfile
from fastapi import Body, FastAPI, HTTPException
from fastapi.responses import Response
from pydantic import BaseModel, Field

from soundsight.audio import Waveform, resample
from soundsight.config import BACKGROUND, SpectrogramConfig
from soundsight.reports.spectrograms import tick_positions
from soundsight.reports.templating import image_uri
from soundsight.review.clips import stretch
from soundsight.review.progress import Review
from soundsight.serve.app import add_failures, add_page
from soundsight.serve.guard import Guard
from soundsight.spectrogram import render

MAX_BYTES = 1_000_000  # of a decision
MAX_SECONDS = 60.0  # that are shown
MAX_RATE = 48_000  # Hz, that browsers play
SIZE = 256  # columns and bands of a picture


class Item(BaseModel):
    """A detection to decide about."""

    number: int = Field(description="its place in the queue, from 0")
    recording: str
    start: float = Field(description="seconds")
    end: float
    label: str
    probability: float
    shown_start: float = Field(description="where sound and picture begin, in seconds")


class State(BaseModel):
    """How far the review is, and what comes next."""

    names: list[str]
    total: int
    left: int
    verdicts: dict[str, int]
    item: Item | None
    following: int | None = Field(description="the number of the detection after that one")


class Picture(BaseModel):
    """A spectrogram; see `predictions.EmbeddedImage`."""

    png: str
    seconds: float = Field(description="what its width spans")
    duration: float = Field(description="length of the sound, in seconds")
    ticks: list[dict[str, Any]]


def create_review_app(
    review: Review, *, classes: Sequence[str] = (), context_seconds: float = 2.0, host: str = "127.0.0.1"
) -> FastAPI:
    """The page and its service as an ASGI application.

    Args:
        review: Is written after every decision.
        classes: Further ones to choose from.
        context_seconds: Sound before and after a detection.
        host: Where it is served.
    """
    app = FastAPI(title="Soundsight review", docs_url=None, redoc_url=None)
    app.add_middleware(Guard, host=host, max_bytes=MAX_BYTES)
    known = sorted({*review.detections.names, *classes} - {BACKGROUND})

    @app.get("/api/review")
    def state(first: int | None = None) -> State:
        left = review.left
        if first in left:  # as after an undo
            left.remove(first)
            left.insert(0, first)
        verdicts = [decision.verdict for decision in review.decisions.values()]
        further = {label for decision in review.decisions.values() for label in decision.labels}
        return State(
            names=sorted({*known, *further}),
            total=len(review.queue),
            left=len(left),
            verdicts={verdict: verdicts.count(verdict) for verdict in sorted(set(verdicts))},
            item=_item(review, left[0], context_seconds) if left else None,
            following=left[1] if len(left) > 1 else None,
        )

    @app.post("/api/review/undo")
    def undo() -> State:
        return state(review.undo())

    @app.post("/api/review/{number}")
    def decide(number: int, verdict: Annotated[str, Body()], labels: Annotated[list[str], Body()] = []) -> State:  # noqa: B006
        review.decide(number, verdict, [" ".join(label.split())[:200] for label in labels])
        return state()

    @app.get("/api/review/{number}/picture")
    def picture(number: int) -> Picture:
        samples, rate = _sound(review, number, context_seconds)
        config = _settings(len(samples), rate)
        image = render(samples, config)
        return Picture(
            png=image_uri(np.ascontiguousarray(image[..., 0]), level=6),
            seconds=config.image_size * config.hop_length / config.sample_rate,
            duration=len(samples) / rate,
            ticks=tick_positions(config, spacing=0.06),
        )

    @app.get("/api/review/{number}/sound.wav", response_class=Response)
    def sound(number: int) -> Response:
        samples, rate = _sound(review, number, context_seconds)
        file = io.BytesIO()
        soundfile.write(file, resample(samples, rate, min(rate, MAX_RATE)), min(rate, MAX_RATE), "PCM_16", format="WAV")
        return Response(file.getvalue(), media_type="audio/wav")

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    add_page(app, "review.html")
    add_failures(app)
    return app


def _item(review: Review, number: int, context_seconds: float) -> Item:
    row = review.queue[number]
    return Item(
        number=number,
        recording=row.recording,
        start=row.start,
        end=row.end,
        label=row.label,
        probability=min(1.0, max(0.0, row.probability)),
        shown_start=max(0.0, row.start - context_seconds),
    )


def _sound(review: Review, number: int, context_seconds: float) -> tuple[Waveform, int]:
    """Samples `(n,)` of a detection with what is around it, and their rate in Hz."""
    if not 0 <= number < len(review.queue):
        raise HTTPException(404, f"There is no detection {number}.")
    row = review.queue[number]
    start = max(0.0, row.start - context_seconds)
    end = min(row.end + context_seconds, start + MAX_SECONDS)
    return stretch(review.detections.files[row.recording], start, end)


def _settings(samples: int, rate: int) -> SpectrogramConfig:
    """Settings for people: the whole band of a recording, whatever the model was trained on."""
    n_fft = 16384 if rate > 24_000 else 8192  # fine enough for the lowest of so many bands
    window_ms = 62.5 * n_fft / rate
    seconds = min(max(samples / rate, 0.1), MAX_SECONDS)
    size = SIZE if seconds * rate >= SIZE else 64
    return SpectrogramConfig(
        sample_rate=rate, clip_seconds=seconds, image_size=size, windows_ms=(window_ms,) * 3, n_fft=n_fft,
        fmin_hz=min(20.0, rate / 100),
    )  # fmt: skip
