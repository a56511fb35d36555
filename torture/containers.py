"""Containers times damages: a recording comes whole, or what is missing of it is told, in all three ways to read one.

    python -m torture.containers

Each container that libsndfile or ffmpeg writes is damaged in each of the ways below, and read as `predict` reads a
file, as `prepare` does, and as `predict` reads a pipe. A problem is: fewer samples than were written without a
word, more of them, samples that differ, a complaint about a whole file, or two ways that disagree.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from soundsight import audio
from soundsight.audio import ffmpeg
from soundsight.errors import AudioError

RATE, SECONDS = 16000, 4.0
WRITTEN = {  # by libsndfile; what of a sample may differ
    **{f"{kind}-{sub}": (kind, sub, 1e-3) for kind in ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF")
       for sub in ("PCM_16", "PCM_24", "FLOAT")},
    "WAV-PCM_U8": ("WAV", "PCM_U8", 0.02), "WAV-ULAW": ("WAV", "ULAW", 0.1), "WAV-IMA": ("WAV", "IMA_ADPCM", 1.0),
    "WAV-MS": ("WAV", "MS_ADPCM", 1.0), "WAV-GSM": ("WAV", "GSM610", 2.0), "CAF-ALAC": ("CAF", "ALAC_16", 1e-3),
    "VOC": ("VOC", "PCM_16", 1e-3), "NIST": ("NIST", "PCM_16", 1e-3), "FLAC": ("FLAC", "PCM_16", 1e-3),
    "OGG-VORBIS": ("OGG", "VORBIS", 1.0), "OGG-OPUS": ("OGG", "OPUS", 1.0), "MP3": ("MP3", "MPEG_LAYER_III", 2.0),
}  # fmt: skip
ENCODED = {  # by ffmpeg
    "M4A": ("m4a", ["-c:a", "aac"]), "MP4-FAST": ("mp4", ["-c:a", "aac", "-movflags", "faststart"]),
    "ADTS": ("aac", ["-c:a", "aac"]), "WEBM": ("webm", ["-c:a", "libopus"]), "MKA": ("mka", ["-c:a", "flac"]),
    "WV": ("wv", []), "WMA": ("wma", []), "MP3-CBR": ("mp3", ["-b:a", "64k", "-write_xing", "0"]),
    "AC3": ("ac3", []), "MPEG-TS": ("ts", ["-c:a", "aac"]),
    "AVI": ("avi", ["-c:a", "pcm_s16le"]), "FLV": ("flv", ["-c:a", "aac"]),
}  # fmt: skip
EXACT = 0.0005  # seconds that a length may differ
PADDING = 0.15  # seconds that codecs may add or take
# What cannot be told: the half of this AC3 ends between two frames, and nothing in the format says how many there were.
KNOWN = ("AC3, cut in half",)
# Nothing is lost by these, so that a complaint would be a false alarm.
HARMLESS = {"whole", "size unknown", "zeros after", "tag after"}


def sound() -> np.ndarray:
    """A tone that rises, so that each place is unlike the others, and noise."""
    t = np.arange(round(SECONDS * RATE)) / RATE
    tone = 0.4 * np.sin(2 * np.pi * (300 * t + 100 * t * t))
    return (tone + 0.02 * np.random.default_rng(0).standard_normal(len(t))).astype(np.float32)


def containers(folder: Path) -> Iterator[tuple[str, bytes, float]]:
    """Name, content and tolerance of each."""
    for name, (kind, subtype, tolerance) in WRITTEN.items():
        target = io.BytesIO()
        soundfile.write(target, sound(), RATE, format=kind, subtype=subtype)
        yield name, target.getvalue(), tolerance
    soundfile.write(folder / "source.wav", sound(), RATE)
    for name, (ending, words) in ENCODED.items() if ffmpeg.installed() else ():
        path = folder / f"encoded.{ending}"
        command = ["ffmpeg", "-v", "error", "-y", "-i", folder / "source.wav", *words, path]
        if subprocess.run(command, check=False, capture_output=True).returncode == 0:
            yield name, path.read_bytes(), 2.0


def damages(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    """What of it, by name."""
    half = len(data) // 2
    yield "whole", data
    yield "zeros after", data + bytes(4096)
    yield "tag after", data + b"TAG" + b"x" * 125
    yield "cut in half", data[:half]
    yield "cut at its end", data[: -len(data) // 50]
    yield "cut in its header", data[:30]
    yield "a hole in its middle", data[:half] + data[half + len(data) // 20 :]
    yield "zeros in its middle", data[:half] + bytes(len(data) // 20) + data[half + len(data) // 20 :]
    yield "another file after", data + data
    at = data.find(b"data") if name.startswith(("WAV", "RF64", "CAF", "W64")) else data.find(b"SSND")
    if name.startswith("AU"):
        yield from _sizes(data, 8, ">u4", len(data) - 24)
    elif name.startswith("AIFF") and at > 0:
        yield from _sizes(data, at + 4, ">u4", int.from_bytes(data[at + 4 : at + 8], "big"))
    elif name.startswith("CAF") and at > 0:
        yield from _sizes(data, at + 4, ">i8", int.from_bytes(data[at + 4 : at + 12], "big"))
    elif name.startswith("W64") and at > 0:
        yield from _sizes(data, at + 16, "<i8", int.from_bytes(data[at + 16 : at + 24], "little"))
    elif name.startswith("RF64"):
        ds64 = data.find(b"ds64") + 16
        yield from _sizes(data, ds64, "<u8", int.from_bytes(data[ds64 : ds64 + 8], "little"))
    elif name.startswith("WAV") and at > 0:
        yield from _sizes(data, at + 4, "<u4", int.from_bytes(data[at + 4 : at + 8], "little"))
    elif name == "FLAC":
        for told, count in (("size unknown", 0), ("size too small", RATE), ("size too large", 9 * RATE)):
            yield told, data[:22] + count.to_bytes(4, "big") + data[26:]


def _sizes(data: bytes, at: int, layout: str, right: int) -> Iterator[tuple[str, bytes]]:
    """The same with another size in its header."""
    width = np.dtype(layout).itemsize
    for told, size in (("size unknown", -1), ("size too small", right // 4), ("size too large", 3 * right)):
        value = np.array([size % (1 << 8 * width)], f"{layout[0]}u{width}").tobytes()
        yield told, data[:at] + value + data[at + width :]


def as_predict(source: Any) -> tuple[np.ndarray, str]:
    """Samples and failure, as `predict` gets them of a file or a pipe."""
    parts, failure, rate = [np.zeros(0, np.float32)], "", RATE
    try:
        with audio.opened(source, block_seconds=0.7) as (info, blocks):
            rate = info.sample_rate
            parts.extend(blocks)
    except (AudioError, OSError) as error:
        failure = str(error)
    return audio.resample(np.concatenate(parts), rate, RATE), failure


def as_prepare(path: Path) -> tuple[np.ndarray, str]:
    """The same, clip by clip."""
    parts, failure, rate = [np.zeros(0, np.float32)], "", RATE
    try:
        with audio.recording(path) as recording:
            rate, start = recording.info.sample_rate, 0.0
            while start < recording.info.duration_seconds:
                with contextlib.suppress(AudioError):
                    parts.append(recording.read(sample_rate=rate, start_seconds=start, duration_seconds=1.0))
                start += 1.0
            failure = recording.damage
    except (AudioError, OSError) as error:
        failure = str(error)
    audio.forget()
    return audio.resample(np.concatenate(parts), rate, RATE), failure


def from_pipe(data: bytes) -> tuple[np.ndarray, str]:
    """As `predict -`."""
    reader, writer = os.pipe()

    def send() -> None:
        with contextlib.suppress(OSError), open(writer, "wb") as target:
            target.write(data)

    thread = threading.Thread(target=send)
    thread.start()
    with open(reader, "rb") as pipe:
        found = as_predict(pipe)
    thread.join()
    return found


def judge(damage: str, found: np.ndarray, failure: str, tolerance: float) -> str:
    """What is wrong with samples at `RATE`; empty if nothing is."""
    truth, slack = sound(), EXACT if tolerance < 0.5 else PADDING
    if damage in HARMLESS and failure:
        return f"complained: {failure}"
    short = (len(truth) - len(found)) / RATE
    if short > slack and not failure:
        return f"{short:.3f} s are missing without a word"
    if -short > slack and not failure and damage != "another file after":
        return f"{-short:.3f} s too many"
    both = min(len(truth), len(found))
    altered = damage in ("a hole in its middle", "zeros in its middle")  # which no checksum of these would tell
    if tolerance < 0.5 and not (failure or altered) and both and np.abs(truth[:both] - found[:both]).max() > tolerance:
        return "samples differ"
    return ""


def main() -> None:
    counts = {"cases": 0, "whole": 0, "told": 0}
    problems = []
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="soundsight-torture-") as name:
        folder = Path(name)
        for container, data, tolerance in containers(folder):
            for damage, content in damages(container, data):
                path = folder / "recording"
                path.write_bytes(content)
                ways: dict[str, Callable[[], tuple[np.ndarray, str]]] = {
                    "predict": lambda path=path: as_predict(path),  # type: ignore[misc]
                    "prepare": lambda path=path: as_prepare(path),  # type: ignore[misc]
                    "pipe": lambda content=content: from_pipe(content),  # type: ignore[misc]
                }
                results = {}
                for way, read in ways.items():
                    found, failure = results[way] = read()
                    counts["cases"] += 1
                    counts["told" if failure else "whole"] += 1
                    if wrong := judge(damage, found, failure, tolerance):
                        problems.append(f"{container}, {damage}, {way}: {wrong}")
                one, other = results["predict"], results["prepare"]
                if bool(one[1]) != bool(other[1]):
                    problems.append(f"{container}, {damage}: predict says {one[1]!r}, prepare {other[1]!r}")
                if len(one[0]) == len(other[0]) and not np.allclose(one[0], other[0], atol=1e-6):
                    problems.append(f"{container}, {damage}: prepare and predict read other samples")
    known = sorted({text.partition(":")[0] for text in problems if text.startswith(KNOWN)})
    problems = [text for text in problems if not text.startswith(KNOWN)]
    print(
        json.dumps(
            {**counts, "seconds": round(time.monotonic() - started), "known": known, "problems": problems}, indent=2
        )
    )


if __name__ == "__main__":
    sys.exit(main())
