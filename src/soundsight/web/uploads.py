"""Bytes of a recording from a request to a temporary file that does not outlive the answer."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request

from soundsight import audio
from soundsight.errors import AudioError

MAX_CHANNELS = 16  # of an upload; what a few bytes claim must not take the memory
MAX_RATE = 384_000  # Hz


@dataclass(frozen=True)
class Upload:
    """A recording that somebody sent."""

    path: Path
    name: str  # as its sender calls it; never opened


@asynccontextmanager
async def received(request: Request, name: str) -> AsyncIterator[Upload]:
    """Take in the body of a request: the bytes of a recording, or a form with a file in the field `file`.

    Args:
        request: The request; `guard` limits its size and its time.
        name: What a body of bytes is called; a form says so itself.

    Raises:
        AudioError: There is no recording in it.
    """
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


def check(upload: Upload, max_seconds: float) -> audio.AudioInfo:
    """Read the header of an upload before anything is decoded.

    Raises:
        AudioError: It is no recording, or larger than this service takes.
    """
    info = audio.probe(upload.path)
    if info.duration_seconds > max_seconds:
        raise AudioError(
            f"{upload.name} is {info.duration_seconds:.0f} s long, but this service takes {max_seconds:g} s "
            "at most; send a shorter stretch, or use `soundsight predict`, which has no limit."
        )
    if info.channels > MAX_CHANNELS or info.sample_rate > MAX_RATE:
        raise AudioError(
            f"{upload.name} has {info.channels} channels at {info.sample_rate} Hz; this service takes "
            f"{MAX_CHANNELS} channels and {MAX_RATE} Hz at most."
        )
    return info
