"""The routes of the page and of the JSON service."""

from __future__ import annotations

import asyncio
import mimetypes
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.staticfiles import StaticFiles

from soundsight import __version__, audio
from soundsight.errors import ConfigError, SoundsightError, check_range
from soundsight.files import scratch
from soundsight.inference.explain import can_explain
from soundsight.inference.predictor import Predictor
from soundsight.serve import examples
from soundsight.serve import predictions as results
from soundsight.serve.guard import Guard, TooLarge, TooSlow
from soundsight.serve.jobs import Busy, Closing, Jobs
from soundsight.serve.uploads import Upload, received

T = TypeVar("T")

mimetypes.add_type("text/javascript", ".js")  # a Windows registry may say text/plain, which browsers do not run
# Folders of the page's files. `render.js` is shared with reports.
STATIC = [("soundsight.serve", "static"), ("soundsight.reports", "static")]
_STATUS: dict[type[Exception], int] = {TooLarge: 413, TooSlow: 408, Busy: 503, Closing: 503, ConfigError: 400}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            },
        },
    }
}
_FAILURES: dict[int | str, dict[str, Any]] = {
    400: {"model": results.Failure, "description": "An option is not allowed."},
    408: {"model": results.Failure, "description": "The recording did not arrive in time."},
    413: {"model": results.Failure, "description": "The recording is larger than allowed."},
    422: {"model": results.Failure, "description": "The recording cannot be read, or is too long."},
    503: {
        "model": results.Failure,
        "description": "The queue is full, and Retry-After says when to ask again; or the service is being closed.",
    },
}


@dataclass(frozen=True)
class Limits:
    """What one upload may be, and how many may wait."""

    max_seconds: float = 600.0
    max_megabytes: float = 50.0
    queue: int = 16

    def __post_init__(self) -> None:
        check_range("max_seconds", self.max_seconds, 1, 86_400)
        check_range("max_megabytes", self.max_megabytes, 0.1, 4096)
        check_range("queue", self.queue, 1, 1000)

    @property
    def max_bytes(self) -> int:
        """`max_megabytes` in bytes."""
        return int(self.max_megabytes * 1e6)


def create_app(predictor: Predictor, limits: Limits | None = None, *, host: str = "127.0.0.1") -> FastAPI:
    """The whole service as an ASGI application."""
    limits = limits or Limits()
    jobs = Jobs(limits.queue)

    @asynccontextmanager
    async def lifespan(service: FastAPI) -> AsyncIterator[None]:
        with scratch() as service.state.uploads:
            yield
            await run_in_threadpool(jobs.close)

    app = FastAPI(
        title="Soundsight",
        summary="What is this sound, and when?",
        description="Send a recording, get timed predictions. Nothing that is sent is kept.",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.jobs = jobs
    app.add_middleware(Guard, host=host, max_bytes=limits.max_bytes)
    _add_predictions(app, predictor, limits, jobs)
    _add_examples(app)
    add_page(app, "index.html")
    add_failures(app)
    return app


def _add_predictions(app: FastAPI, predictor: Predictor, limits: Limits, jobs: Jobs) -> None:
    @app.post("/api/predict", openapi_extra=_BODY, responses=_FAILURES, tags=["predictions"])
    async def predict(
        request: Request,
        name: Annotated[str, Query(max_length=500, description="what to call a body of bytes")] = "",
        hop_seconds: Annotated[float | None, Query(gt=0, description="default: the model's clip")] = None,
        top_k: Annotated[int, Query(ge=1, le=1000)] = 5,
        picture: Annotated[bool, Query(description="with the spectrogram and class tracks")] = False,
    ) -> results.Result:
        """Predict what is in a recording, and when: WAV, FLAC, OGG, MP3 and others, as a body of bytes or a form."""
        async with received(request, name) as upload:
            work = partial(
                results.predict, predictor, upload, max_seconds=limits.max_seconds, hop_seconds=hop_seconds,
                top_k=top_k, image=picture, check_open=jobs.check,
            )  # fmt: skip
            return await _queued(request, jobs, _named(upload, work))

    @app.post("/api/explain", openapi_extra=_BODY, responses=_FAILURES, tags=["predictions"])
    async def explain(
        request: Request,
        name: Annotated[str, Query(max_length=500)] = "",
        start: Annotated[float, Query(ge=0, description="where the segment begins, in seconds")] = 0.0,
        label: Annotated[
            str | None, Query(max_length=500, description="default, and for `unknown`: the best class")
        ] = None,
    ) -> results.Attribution:
        """Explain a prediction: a saliency map over time and frequency."""
        async with received(request, name) as upload:
            work = partial(results.reason, predictor, upload, max_seconds=limits.max_seconds, start=start, label=label)
            return await _queued(request, jobs, _named(upload, work))

    @app.get("/api/model", tags=["service"])
    def model() -> results.ModelInfo:
        """The model, and the limits of the service."""
        preprocessing = predictor.spectrogram
        return results.ModelInfo(
            names=list(predictor.names),
            labels="multi" if predictor.model.multi else "single",
            fingerprint=predictor.model_hash,
            clip_seconds=preprocessing.clip_seconds,
            sample_rate=preprocessing.sample_rate,
            fmin_hz=preprocessing.fmin_hz,
            fmax_hz=preprocessing.fmax,
            reference=preprocessing.reference,
            settings=predictor.model.settings,  # type: ignore[arg-type]
            explains=can_explain(predictor.classifier),
            max_seconds=limits.max_seconds,
            max_bytes=limits.max_bytes,
            formats=sorted(audio.EXTENSIONS),
            examples=examples.listing(predictor.names),
        )

    @app.get("/health", tags=["service"])
    def health() -> dict[str, Any]:
        """Whether the service is up, and how many recordings wait."""
        return {"status": "ok", "model": predictor.model_hash, "waiting": jobs.waiting}


def _named(upload: Upload, work: Callable[[], T]) -> Callable[[], T]:
    """Work whose errors call the upload by its sender's name, not by the temporary file's."""

    def run() -> T:
        try:
            return work()
        except SoundsightError as error:
            raise type(error)(str(error).replace(str(upload.path), upload.name)) from error

    return run


async def _queued(request: Request, jobs: Jobs, work: Callable[[], T]) -> T:
    """Wait for a job; take it out of the queue if its sender goes away."""
    future = jobs.submit(work)
    waiting = asyncio.ensure_future(asyncio.wrap_future(future))
    while not (await asyncio.wait([waiting], timeout=1.0))[0]:
        if await request.is_disconnected() and future.cancel():
            raise HTTPException(499, "The sender went away.")
    result: T = await waiting
    return result


def add_page(app: FastAPI, name: str) -> None:
    """Serve a page and the files that it needs."""
    files = StaticFiles(packages=STATIC)  # type: ignore[arg-type]
    app.mount("/static", GZipMiddleware(files))

    @app.get("/", include_in_schema=False)
    async def page(request: Request) -> Response:
        return await files.get_response(name, request.scope)


def _add_examples(app: FastAPI) -> None:
    @app.get("/api/examples/{name}.flac", tags=["service"], response_class=Response)
    def example(name: str) -> Response:
        """A synthesised recording to try; /api/model lists them."""
        data = examples.clip(name)
        if data is None:
            raise HTTPException(404, f"There is no example {name[:80]!r}; /api/model lists them.")
        return Response(data, media_type="audio/flac", headers={"cache-control": "max-age=3600"})


def add_failures(app: FastAPI) -> None:
    """Turn every error into a status and one message."""

    @app.exception_handler(SoundsightError)
    async def refused(_: Request, error: Exception) -> JSONResponse:
        status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 422)
        headers = {"retry-after": str(error.retry_seconds)} if isinstance(error, Busy) else {}
        if status in (408, 413):
            headers["connection"] = "close"
        return JSONResponse({"error": str(error)}, status, headers)

    @app.exception_handler(HTTPException)
    async def failed(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return JSONResponse({"error": str(error.detail)}, error.status_code)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where, problem = first["loc"][-1], first["msg"]
        return JSONResponse({"error": f"The option {where} is not allowed: {problem}."}, 400)

    @app.exception_handler(Exception)
    async def broken(_: Request, error: Exception) -> JSONResponse:
        text = f"The service failed ({type(error).__name__}); its terminal says why."
        return JSONResponse({"error": text}, 500)
