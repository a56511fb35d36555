"""Bytes of a recording from a request to a temporary file that does not outlive the prediction."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request

from soundsight import audio
from soundsight.errors import AudioError, SoundsightError

MAX_CHANNELS = 16  # of an upload; what a few bytes claim must not take the memory
MAX_RATE = 384_000  # Hz
VALUES_A_SECOND = 2 * 48_000  # samples of all channels, for each second that the service takes


class TooLong(SoundsightError):
    """An upload holds more than this service takes; unlike one that is damaged, no part of it is predicted."""


@dataclass(frozen=True)
class Upload:
    """A recording that somebody sent."""

    path: Path
    name: str  # as its sender calls it; never opened


@asynccontextmanager
async def received(request: Request, name: str) -> AsyncIterator[Upload]:
    """Take in the body of a request: the bytes of a recording, or a form with a file in the field `file`."""
    place = getattr(request.app.state, "uploads", None)
    with tempfile.TemporaryDirectory(prefix="soundsight-", dir=place) as folder:
        path = Path(folder, "recording")
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        try:
            if kind == "multipart/form-data":
                name = await _from_form(request, path) or name
            else:
                with open(path, "wb") as file:
                    async for chunk in request.stream():
                        file.write(chunk)
        except ClientDisconnect:
            raise AudioError("The recording did not arrive whole; send it again.") from None
        if not path.stat().st_size:
            raise AudioError("No recording arrived: the request holds no bytes; send a file.")
        yield Upload(path, plain_name(name))


async def _from_form(request: Request, path: Path) -> str:
    try:
        form = await request.form(max_files=1, max_fields=8)
    except (MultiPartException, HTTPException, KeyError, ValueError):
        raise AudioError("The form cannot be read; send one file in the field `file`.") from None
    try:
        sent = form.get("file")
        if not isinstance(sent, UploadFile):
            raise AudioError("The form holds no file; send one in the field `file`.")
        with open(path, "wb") as file:
            await run_in_threadpool(shutil.copyfileobj, sent.file, file)
        return sent.filename or ""
    finally:
        await form.close()


def plain_name(name: str) -> str:
    """The last part of a name or path, without control characters, at most 120 of the rest."""
    last = PureWindowsPath(PurePosixPath(name).name).name
    return "".join(c for c in last if c.isprintable())[:120] or "recording"


@contextmanager
def opened(upload: Upload, max_seconds: float) -> Iterator[tuple[audio.AudioInfo, Iterator[audio.Waveform]]]:
    """Open an upload as `audio.opened` does, and decode no more samples than `max_seconds` of ordinary sound have."""
    with audio.opened(upload.path, block_seconds=2.0) as (info, blocks):
        if info.channels > MAX_CHANNELS or info.sample_rate > MAX_RATE:
            raise AudioError(
                f"{upload.name} has {info.channels} channels at {info.sample_rate} Hz; this service takes "
                f"{MAX_CHANNELS} channels and {MAX_RATE} Hz at most."
            )
        _bound(upload, info, info.frames, max_seconds)
        yield info, _bounded(upload, info, blocks, max_seconds)


def check(upload: Upload, max_seconds: float) -> audio.AudioInfo:
    """What is known of an upload before anything is decoded; raises as `opened` does."""
    with opened(upload, max_seconds) as (info, _):
        return info


def _bounded(
    upload: Upload, info: audio.AudioInfo, blocks: Iterator[audio.Waveform], max_seconds: float
) -> Iterator[audio.Waveform]:
    frames = 0
    for block in blocks:
        frames += len(block)
        _bound(upload, info, frames, max_seconds)
        yield block


def _bound(upload: Upload, info: audio.AudioInfo, frames: int, max_seconds: float) -> None:
    seconds = frames / info.sample_rate
    if seconds > max_seconds:
        raise TooLong(
            f"{upload.name} is {seconds:.0f} s long, but this service takes {max_seconds:g} s "
            "at most; send a shorter stretch, or use `soundsight predict`, which has no limit."
        )
    if frames * info.channels > max_seconds * VALUES_A_SECOND:
        raise TooLong(
            f"{upload.name} holds more samples than this service takes: {seconds:.0f} s of {info.channels} channels at "
            f"{info.sample_rate} Hz; send one channel, a lower rate or a shorter stretch."
        )
