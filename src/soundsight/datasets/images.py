"""One clip to one PNG. Each image says inside itself what it was rendered from.

The PNG's `soundsight` text holds the hash of the settings, the SHA-256 of the recording and the
stretch that was rendered. An image whose text differs from what is wanted is stale, whatever its date.
"""

from __future__ import annotations

import os
import stat
import struct
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from soundsight import audio
from soundsight.config import SpectrogramConfig, settings_hash
from soundsight.datasets import manifest
from soundsight.datasets.catalogue import Clip
from soundsight.datasets.manifest import Row
from soundsight.errors import AudioError, DatasetError
from soundsight.files import sha256, write_bytes
from soundsight.spectrogram import render

try:
    from isal import isal_zlib
except ImportError:  # no wheel for this processor
    isal_zlib = None  # type: ignore[assignment]

Image = npt.NDArray[np.uint8]

# Ends the text of an image whose recording is damaged: it is never up to date, so that each run tells.
DAMAGED = " damaged"
_KEYWORD = b"soundsight"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = len(_SIGNATURE) + 25  # signature and IHDR chunk


@dataclass(frozen=True)
class Task:
    """Render `clip` into `target`, unless an image with the right text is there already."""

    clip: Clip
    target: Path
    config: SpectrogramConfig


@dataclass(frozen=True)
class Rendered:
    """What became of a task."""

    row: Row | None  # without a split; None: there is no image
    again: bool = False  # whether it was not up to date
    failure: str = ""  # with a row, the clip was rendered all the same


def render_task(task: Task) -> Rendered:
    """Carry out a task; bad recordings are a result, not an exception."""
    clip, config = task.clip, task.config
    image = None
    try:
        with clip.opened() as recording:
            found = os.stat(clip.path)
            digest = _sha256(str(clip.path), found.st_size, found.st_mtime_ns)
            key = image_key(config, digest, clip)
            if read_key(task.target) != key:
                image = _render(clip, recording, config)
                key += DAMAGED if recording.damage else ""
    except AudioError as error:
        return Rendered(None, failure=str(error))
    if image is not None:
        write_bytes(task.target, encode_png(image, key))
    return Rendered(
        manifest.row_of(clip, recording.info, digest, found, task.target), image is not None, recording.damage
    )


def render_clip(clip: Clip, config: SpectrogramConfig) -> Image:
    """The image of a clip: at most `clip_seconds` from its start, at its speed, as `spectrogram.render` renders it."""
    with audio.recording(clip.path) as recording:
        return _render(clip, recording, config)


def _render(clip: Clip, recording: audio.Recording, config: SpectrogramConfig) -> Image:
    waveform = clip.read(recording, config.clip_seconds, config.sample_rate)
    least = audio.LEAST_SHARE * clip.used_seconds(config.clip_seconds) * config.sample_rate
    if recording.damage and clip.start_seconds and len(waveform) < least:
        raise AudioError(recording.damage)
    if clip.speed != 1:
        waveform = audio.change_speed(waveform, clip.speed, round(config.clip_seconds * config.sample_rate))
    return render(waveform, config)


def image_key(config: SpectrogramConfig, digest: str, clip: Clip) -> str:
    """What an image is rendered from: renderer, settings, recording, stretch and speed. No path, no date."""
    stretch = f"{clip.start_seconds:.6f}-{'' if clip.end_seconds is None else f'{clip.end_seconds:.6f}'}"
    speed = "" if clip.speed == 1 else f" x{clip.speed:g}"
    return f"{settings_key(config)} {digest} {stretch}{speed}"


def encode_png(image: Image, key: str) -> bytes:
    """Lossless PNG of uint8 RGB `(height, width, 3)` with `key` as its `soundsight` text.

    Written here rather than by OpenCV or Pillow, which take three to ten times as long: a row is stored as
    its difference from the row above (the next higher band), which suits spectrograms best, and deflated
    without a search for distant repetitions, of which they have none.
    """
    height, width, channels = image.shape
    if channels != 3 or image.dtype != np.uint8:
        raise ValueError(f"An image of shape {image.shape} and type {image.dtype} is no uint8 RGB image.")
    rows = image.reshape(height, 3 * width)
    lines = np.empty((height, 1 + 3 * width), np.uint8)
    lines[:, 0] = 2  # the filter "up" (PNG specification, 9.2)
    lines[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=lines[1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits a channel, RGB
    text = _KEYWORD + b"\0" + key.encode("latin-1")
    chunks = ((b"IHDR", header), (b"tEXt", text), (b"IDAT", _deflate(lines.data)), (b"IEND", b""))
    return _SIGNATURE + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def _deflate(data: memoryview) -> bytes:
    """A zlib stream: by Intel's ISA-L where it is installed, else by zlib, of the same size but slower."""
    if isal_zlib is not None:
        return isal_zlib.compress(data, 1)
    packer = zlib.compressobj(1, strategy=zlib.Z_RLE)
    return packer.compress(data) + packer.flush()


def read_key(path: Path) -> str | None:
    """The `soundsight` text of an image; `None` if the file is missing, damaged or not ours."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # to open a named pipe is to wait for ever
            return None
        with open(path, "rb") as file:
            head = file.read(512)
            file.seek(-12, os.SEEK_END)
            tail = file.read(12)
    except OSError:
        return None
    if not head.startswith(_SIGNATURE) or tail[4:8] != b"IEND":
        return None
    length = int.from_bytes(head[_HEADER : _HEADER + 4], "big")
    kind, body = head[_HEADER + 4 : _HEADER + 8], head[_HEADER + 8 : _HEADER + 8 + length]
    if kind != b"tEXt" or not body.startswith(_KEYWORD + b"\0"):
        return None
    return body[len(_KEYWORD) + 1 :].decode("latin-1")


@lru_cache(maxsize=64)
def settings_key(config: SpectrogramConfig) -> str:
    """How an image's text begins: the renderer, and the hash of the settings."""
    return f"v{config.renderer} {settings_hash(config)}"


@lru_cache(maxsize=64)
def _sha256(path: str, size: int, mtime_ns: int) -> str:
    """Hash a recording once for all the clips cut from it."""
    return sha256(path)


def read_image(file: Path) -> Image:
    """An image of any tool as uint8 RGB `(height, width, 3)`."""
    import cv2

    pixels = cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_COLOR_RGB)
    if pixels is None:
        raise DatasetError(
            f"The image {file} is damaged, or of a kind that OpenCV does not read; replace it, or run `soundsight "
            "prepare` again if that made it."
        )
    return np.asarray(pixels, np.uint8)
