"""Damaged recordings: every kind that a disk, a recorder or a stranger can produce, from one seed.

`systematic` lists cases one by one: cuts and altered bytes all along the header of each container, wrong
lengths, odd samples, rates and channels, every subtype of libsndfile, other files under a recording's name.
`mutated` draws any number of further ones at random. A case is a name and the bytes of a file.
"""

from __future__ import annotations

import io
import random
import struct
import zipfile
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import soundfile

from soundsight.audio import EXTENSIONS

RATE = 8000  # Hz
# Container and subtype of the whole recordings that damage starts from.
WHOLE = {
    "wav": ("WAV", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "aiff": ("AIFF", "PCM_16"),
    "au": ("AU", "PCM_16"),
    "caf": ("CAF", "PCM_16"),
    "w64": ("W64", "PCM_16"),
    "rf64": ("RF64", "PCM_24"),
    "voc": ("VOC", "PCM_16"),
}
# Values that programs that read lengths, counts and rates stumble over.
BOUNDARIES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


class Case(NamedTuple):
    """A file to try: its name within its class folder, and its bytes."""

    name: str
    data: bytes


def encode(samples: np.ndarray, kind: str = "WAV", subtype: str = "PCM_16", rate: int = RATE) -> bytes:
    """Samples as the bytes of a file."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def noise(frames: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    """White noise, float32 `(frames, channels)`, within [-0.5, 0.5]."""
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (frames, channels)).astype(np.float32)


def whole() -> dict[str, bytes]:
    """One good recording of 0.3 s for each ending of `WHOLE`."""
    return {ending: encode(noise(2400), *how) for ending, how in WHOLE.items()}


def systematic() -> Iterator[Case]:
    """All cases that are not chosen at random, about 5,000."""
    yield from _cuts()
    yield from _altered_headers()
    yield from _wrong_lengths()
    yield from _odd_samples()
    yield from _odd_formats()
    yield from _other_files()


def _cuts() -> Iterator[Case]:
    for ending, data in whole().items():
        points = {*range(min(128, len(data))), *range(128, len(data), max(1, len(data) // 24)), len(data) - 1}
        for point in sorted(points):
            yield Case(f"cut-{point}.{ending}", data[:point])


def _altered_headers() -> Iterator[Case]:
    for ending, data in whole().items():
        for place in range(min(72, len(data))):
            for name, value in (("0", 0), ("255", 255), ("flip", data[place] ^ 0x80), ("one", data[place] ^ 1)):
                yield Case(f"byte-{place}-{name}.{ending}", _put(data, place, bytes([value])))


def _wrong_lengths() -> Iterator[Case]:
    for ending in ("wav", "aiff", "au", "w64", "rf64", "caf"):
        data = whole()[ending]
        order = ">" if ending in ("aiff", "au", "caf") else "<"
        for place in range(0, min(88, len(data) - 4), 4):
            for value in BOUNDARIES:
                yield Case(f"word-{place}-{value:x}.{ending}", _put(data, place, struct.pack(f"{order}I", value)))


def _odd_samples() -> Iterator[Case]:
    one = np.ones((1200, 1), np.float32)
    square = np.where(np.arange(1200) // 20 % 2, 1.0, -1.0).astype(np.float32)[:, None]
    kinds = {
        "none": one[:0], "one": one[:1], "two": one[:2], "nan": one * np.nan, "inf": one * np.inf,
        "minus-inf": -one * np.inf, "zeros": one * 0, "dc": one * 0.5, "full-dc": one, "square": square,
        "huge": one * 3e38, "tiny": one * 1e-44, "loud": one * 1000, "nan-last": np.append(one[:-1], [[np.nan]], 0),
        "inf-first": np.append([[np.inf]], one, 0), "inf-minus-inf": np.array([[np.inf, -np.inf]] * 600),
    }  # fmt: skip
    for name, samples in kinds.items():
        for ending, kind in (("wav", "WAV"), ("au", "AU"), ("caf", "CAF"), ("w64", "W64")):
            for subtype in ("FLOAT", "DOUBLE", "PCM_16"):
                with np.errstate(all="ignore"):
                    yield Case(f"samples-{name}-{subtype}.{ending}", encode(samples, kind, subtype))


def _odd_formats() -> Iterator[Case]:
    for rate in (1, 2, 99, 100, 101, 999, 11025, 44100, 192000, 768000, 999_999, 1_000_000, 1_000_001, 2**31 - 1):
        yield Case(f"rate-{rate}.wav", encode(noise(600), rate=rate))
        yield Case(f"rate-{rate}.au", encode(noise(600), "AU", rate=rate))
    for channels in (*range(1, 65), 127, 128, 255, 256, 257, 1024):
        yield Case(f"channels-{channels}.wav", encode(noise(64, channels)))
    for kind in sorted(
        soundfile.available_formats().keys() - {"SD2"}
    ):  # which leaves its header in the current directory
        ending = kind.lower() if f".{kind.lower()}" in EXTENSIONS else "wav"  # the content tells the format
        for subtype in soundfile.available_subtypes(kind):
            for channels in (1, 2, 8):
                try:
                    data = encode(noise(1600, channels), kind, subtype)
                except (soundfile.LibsndfileError, ValueError, TypeError):
                    continue  # not every format holds every rate and number of channels
                yield Case(f"type-{kind}-{subtype}-{channels}.{ending}", data)


def _other_files() -> Iterator[Case]:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("clip.wav", whole()["wav"])
    wav = whole()["wav"]
    contents = {
        "empty": b"", "newline": b"\n", "text": b"this is no sound\n" * 40, "zip": archive.getvalue(),
        "png": b"\x89PNG\r\n\x1a\n" + bytes(200), "html": b"<html><body>404</body></html>", "nul": bytes(4096),
        "ff": b"\xff" * 4096, "playlist": b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.wav\n",
        "concat": b"ffconcat version 1.0\nfile /etc/hostname\n", "pickle": b"\x80\x02cos\nsystem\n.",
        "id3": b"ID3" + bytes(64),
        "double": wav + wav, "inside": bytes(100) + wav, "riff-only": b"RIFF",
        "riff-list": b"RIFF\xff\xff\xff\xffLIST" * 50,
    }  # fmt: skip
    for name, data in contents.items():
        for ending in WHOLE:
            yield Case(f"other-{name}.{ending}", data)
        yield Case(f"other-{name}.m4a", data)


def mutated(count: int, seed: int) -> Iterator[Case]:
    """`count` recordings with random damage, the same ones for the same seed."""
    draw = random.Random(seed)
    seeds = [(ending, data) for ending, data in whole().items()]
    seeds += [
        ("wav", encode(noise(900, 3), "WAVEX", "PCM_24")),
        ("wav", encode(noise(900, 2), "WAV", "IMA_ADPCM")),
        ("flac", encode(noise(9000, 2), "FLAC", "PCM_24", rate=44100)),
        ("aiff", encode(noise(900), "AIFF", "FLOAT")),
    ]
    for number in range(count):
        ending, data = draw.choice(seeds)
        for _ in range(draw.choice((1, 1, 1, 2, 3, 8))):
            data = _damage(draw, data, draw.choice(seeds)[1])
        yield Case(f"random-{seed}-{number}.{ending}", data)


def _damage(draw: random.Random, data: bytes, other: bytes) -> bytes:
    """One change at a random place, in the first 256 bytes half of the time."""
    end = len(data) if draw.random() < 0.5 else min(256, len(data))
    place = draw.randrange(end) if end else 0
    length = draw.choice((1, 2, 4, 8, 64, 512))
    kind = draw.randrange(7)
    if kind == 0:
        return data[:place]
    if kind == 1:
        return _put(data, place, bytes([(data[place] if data else 0) ^ (1 << draw.randrange(8))]))
    if kind == 2:
        value = draw.choice(BOUNDARIES)
        return _put(data, place, struct.pack(draw.choice("<>") + "I", value)[: draw.choice((1, 2, 4))])
    if kind == 3:
        return data[:place] + data[place + length :]
    if kind == 4:
        return data[:place] + data[place : place + length] * 2 + data[place + length :]
    if kind == 5:
        return data[:place] + other[draw.randrange(max(1, len(other))) :]
    return _put(data, place, draw.randbytes(length))


def _put(data: bytes, place: int, new: bytes) -> bytes:
    return data[:place] + new + data[place + len(new) :]


# Names that file systems allow and programs forget.
ODD_NAMES = [
    b"new\nline.wav", b"quote'.wav", b'double".wav', b"\xf0\x9f\x90\x95 dog.wav", b"-rf.wav", b"--help.wav",
    b"a" * 251 + b".wav", "é".encode() * 125 + b".wav", b"tab\t.wav", b"back\\slash.wav", b"$(reboot).wav",
    b"semi;colon.wav", b"percent%s%n.wav", b"not-utf8-\xff\xfe.wav", b"escape\x1b[31mred.wav", b"return\r.wav",
    b"comma,comma.wav", b"=1+1.wav", b"trailing .wav", b"%2e%2e%2f.wav", b"star*[a].wav", b"CON.wav", b".wav.wav",
    "\u202egnp.wav".encode(), "e\u0301.wav".encode(), "\u00e9.wav".encode(),
]  # fmt: skip
