"""Where the samples of a recording lie in its file, found by its content, never by its name.

A length in a header is a claim. libsndfile believes it, guesses that of an MP3, and ends at the first link of a
chained OGG. So the file is walked first: chunks, pages or frames, none of them decoded. What comes out are the parts
that libsndfile has to read, and what is missing or left over. Decoding is the business of `audio`.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, Protocol

from soundsight.audio.packed import HEAD, TAGS, Contents, Part, flac, framed, frames, is_adts, is_frame, pages

# What a recording begins with: those that libsndfile knows, and those that only ffmpeg does (MP4 after four bytes).
_MARKS = (
    *b"RIFF RIFX RF64 BW64 FORM caff .snd dns. NIST_1A fLaC OggS ID3".split(),
    *(b"riff.\x91\xcf\x11", b"Creative Voice File"),
)
_OTHERS = (
    *(b"\x1aE\xdf\xa3", b"0&\xb2u\x8ef\xcf\x11", b"#!AMR", b"FLV\x01", b"\x0bw", b"wvpk", b"MAC ", b"TTA1", b"DSD "),
    *(b"FRM8", b".RMF", b"\0\0\x01\xba", b"tBaK", b"MP+", b"MPCK", b"qoaf", b"\x7f\xfe\x80\x01"),
)
_FRAMED = (b"\x0bw", b"wvpk", b"FLV\x01")  # AC3, WavPack
_CUT = "is cut off: a part of it is missing at its end"
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free")
# Chunks: where the first begins, its name and size, what they are filled up to, and what of them the size counts.
_CHUNKED = {
    b"RIFF": (12, "<4sI", 2, 0),
    b"RIFX": (12, ">4sI", 2, 0),
    b"RF64": (12, "<4sI", 2, 0),
    b"BW64": (12, "<4sI", 2, 0),
    b"FORM": (12, ">4sI", 2, 0),
    b"caff": (8, ">4sq", 1, 0),
    b"riff": (40, "<16sQ", 8, 24),  # Sony Wave64
}
_WHOLE = {8: "PCM_S8", 16: "PCM_16", 24: "PCM_24", 32: "PCM_32"}
_REAL = {32: "FLOAT", 64: "DOUBLE"}


@dataclass(frozen=True)
class Samples:
    """Where a header says that the samples are."""

    start: int  # bytes
    announced: int | None  # bytes; `None` where the header does not tell, as after a loss of power or from a pipe
    raw: dict[str, Any]  # see `Part`; empty for compressed samples
    bytes_a_second: float = 0.0
    wraps_at: int = 1 << 32  # sizes that do not fit were cut to their last bits


class View:
    """A part of a file as a file of its own, for libsndfile."""

    def __init__(self, file: IO[bytes], part: Part) -> None:
        self._file, self._part, self._at = file, part, 0
        self._size = len(part.head) + part.end - part.start

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of any file."""
        self._at = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence])
        return self._at

    def tell(self) -> int:
        """As of any file."""
        return self._at

    def read(self, count: int) -> bytes:
        """As of any file."""
        head = self._part.head[self._at : self._at + count]
        self._file.seek(self._part.start + max(0, self._at - len(self._part.head)))
        data = head + self._file.read(max(0, min(count, self._size - self._at) - len(head)))
        self._at += len(data)
        return data


def known(head: bytes) -> bool:
    """Whether a file that begins like this is a recording, as far as its first `HEAD` bytes tell."""
    return head.startswith(_MARKS) or is_frame(head) or _is_other(head)


def _is_other(head: bytes) -> bool:
    return (
        head.startswith(_OTHERS) or (head[:1] == head[188:189] == b"G") or head.startswith(_BOXES, 4) or is_adts(head)
    )


def streams(head: bytes) -> bool:
    """Whether this is MP3, which can be decoded as it comes."""
    return head.startswith(b"ID3") or is_frame(head)


def look(file: IO[bytes]) -> Contents:
    """Walk a file that can be sought in."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(HEAD)
    if head.startswith(b"OggS"):
        return pages(file, size)
    if head.startswith(b"fLaC"):
        return flac(file, size)
    if streams(head):
        return frames(file, size)
    if head.startswith(_FRAMED) or is_adts(head):
        return framed(file, size)
    if _is_other(head) or head[8:11] == b"AVI":
        return Contents(damage=_CUT if _lacks(file, size, head) else "", other=True)
    try:
        found = samples(file)
    except (struct.error, OverflowError, ValueError):
        found = None
    return _compare(file, size, found, head) if found else Contents()


def _lacks(file: IO[bytes], size: int, head: bytes) -> bool:
    """Whether a file ends before its container says, where ffmpeg would not tell: MPEG-TS, ASF, AVI."""
    if head[:1] == head[188:189] == b"G":
        return size % 188 > 0
    at = int.from_bytes(head[16:24], "little")
    if head.startswith(b"0&\xb2u"):  # the data after the header; 0: a live stream
        file.seek(at + 16)
        return at + int.from_bytes(file.read(8), "little") > size
    announced = int.from_bytes(head[4:8], "little")
    return head[8:11] == b"AVI" and not _unknown(announced) and announced + 8 > size


# -- Samples in chunks: WAV and its kin, AIFF, CAF; AU, VOC and NIST -------------------------------------------------


class Readable(Protocol):
    """A file, or a pipe of which what was read is kept."""

    def seek(self, at: int, whence: int = 0, /) -> int:
        """Go to a byte."""

    def read(self, count: int, /) -> bytes:
        """Read so many bytes, fewer at the end."""


def samples(file: Readable) -> Samples | None:
    """Read a header up to its samples, seeking forward only; `None` if it is none of these containers.

    Raises:
        struct.error, ValueError: It is cut off, or nonsense.
    """
    head = _read(file, 0, 12)
    if head.startswith(b".snd"):
        return _au(*struct.unpack(">5I", head[4:] + _read(file, 12, 12)))
    if head.startswith(b"Creative Voi"):
        return _voc(file)
    if head.startswith(b"NIST_1A\n"):
        return _nist(head + _read(file, 12, 1012))
    kind = head[:4]
    if kind not in _CHUNKED or (kind == b"FORM" and head[8:] not in (b"AIFF", b"AIFC")):
        return None
    if kind not in (b"FORM", b"caff", b"riff") and head[8:] != b"WAVE":
        return None
    form: tuple[dict[str, Any], float] = ({}, 0.0)
    long_size = None
    for name, at, size in _chunks(file, *_CHUNKED[kind]):
        if name == b"fmt ":
            form = _wave(_read(file, at, min(size, 40)), "BIG" if kind == b"RIFX" else "LITTLE")
        elif name == b"COMM":
            form = _aiff(_read(file, at, min(size, 22)), head[8:])
        elif name == b"desc":
            form = _caf(_read(file, at, 32))
        elif name == b"ds64":
            long_size = struct.unpack("<QQ", _read(file, at, 16))[1]
        elif name in (b"data", b"SSND"):
            if long_size is not None and size == 0xFFFFFFFF:
                size = long_size
            skip = {b"FORM": 8, b"caff": 4}.get(kind, 0)
            unknown = _unknown(size)
            return Samples(at + skip, None if unknown else size - skip, *form)
    return None


def _unknown(size: int) -> bool:
    """Whether a size was never filled in: 0, -1, or what arecord and sox put for a stream that has no end."""
    return size <= 8 or 0x7FFFF000 <= size <= 0x80000000 or 0xFFFFF000 <= size <= 0xFFFFFFFF or size >= 1 << 62


def _chunks(file: Readable, at: int, layout: str, fill: int, counted: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, first byte and size of each chunk."""
    while True:
        header = _read(file, at, struct.calcsize(layout))
        name, size = struct.unpack(layout, header)
        yield name[:4], at + len(header), size - counted
        if size < counted:
            raise ValueError
        at += (0 if counted else len(header)) + size
        at += -at % fill


def _read(file: Readable, at: int, count: int) -> bytes:
    file.seek(at)
    data = file.read(count)
    if len(data) < count:
        raise ValueError("the header is cut off")
    return data


def _raw(rate: float, channels: int, subtype: str | None, endian: str = "BIG") -> dict[str, Any]:
    if subtype is None or not 0 < rate < 1 << 31 or not channels:
        return {}
    return {"format": "RAW", "samplerate": round(rate), "channels": channels, "subtype": subtype, "endian": endian}


def _wave(body: bytes, endian: str) -> tuple[dict[str, Any], float]:
    order = ">" if endian == "BIG" else "<"
    tag, channels, rate, per_second, block, bits = struct.unpack(order + "HHIIHH", body[:16])
    if tag == 0xFFFE and len(body) >= 26:
        (tag,) = struct.unpack(order + "H", body[24:26])
    subtype = {1: _WHOLE | {8: "PCM_U8"}, 3: _REAL, 6: {8: "ALAW"}, 7: {8: "ULAW"}}.get(tag, {}).get(bits)
    if block != channels * bits // 8:
        subtype = None
    return _raw(rate, channels, subtype, endian), float(per_second if subtype is None else rate * block)


def _aiff(body: bytes, kind: bytes) -> tuple[dict[str, Any], float]:
    channels, _, bits, exponent, mantissa = struct.unpack(">hIhHQ", body[:18])
    rate = mantissa * 2.0 ** ((exponent & 0x7FFF) - 16383 - 63)
    codec = body[18:22] if kind == b"AIFC" else b"NONE"
    whole = _WHOLE.get(-(-bits // 8) * 8)
    names = {b"fl32": "FLOAT", b"FL32": "FLOAT", b"fl64": "DOUBLE", b"FL64": "DOUBLE", b"ulaw": "ULAW", b"alaw": "ALAW"}
    names |= {b"ULAW": "ULAW", b"ALAW": "ALAW", b"in24": "PCM_24", b"in32": "PCM_32"}
    subtype = names.get(codec, whole if codec in (b"NONE", b"twos", b"sowt") else None)
    return _plain(rate, channels, subtype, "LITTLE" if codec == b"sowt" else "BIG")


def _caf(body: bytes) -> tuple[dict[str, Any], float]:
    rate, codec, flags, packet, frames, channels, bits = struct.unpack(">d4s5I", body)
    names = {b"lpcm": (_REAL if flags & 1 else _WHOLE).get(bits), b"ulaw": "ULAW", b"alaw": "ALAW"}
    raw, speed = _plain(rate, channels, names.get(codec), "LITTLE" if flags & 2 else "BIG")
    return raw, speed or (rate * packet / frames if frames else 0.0)


def _plain(rate: float, channels: int, subtype: str | None, endian: str) -> tuple[dict[str, Any], float]:
    raw = _raw(rate, channels, subtype, endian)
    return raw, width(raw) * rate if raw else 0.0


def width(raw: dict[str, Any]) -> int:
    """Bytes of one sample of all channels."""
    sizes = {"PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}
    return raw["channels"] * sizes.get(raw["subtype"], 1)


def _au(start: int, size: int, codec: int, rate: int, channels: int) -> Samples:
    names = {1: "ULAW", 2: "PCM_S8", 3: "PCM_16", 4: "PCM_24", 5: "PCM_32", 6: "FLOAT", 7: "DOUBLE", 27: "ALAW"}
    return Samples(start, None if _unknown(size) else size, *_plain(rate, channels, names.get(codec), "BIG"))


def _voc(file: Readable) -> Samples | None:
    (at,) = struct.unpack("<H", _read(file, 20, 2))
    kind, low, high = struct.unpack("<BHB", _read(file, at, 4))
    size = low + (high << 16)
    if kind == 9:
        rate, bits, channels, codec = struct.unpack("<IBBH", _read(file, at + 4, 8))
        names = {0: "PCM_U8", 4: "PCM_16", 6: "ALAW", 7: "ULAW"}
        form = _plain(rate, channels, names.get(codec) if codec or bits == 8 else None, "LITTLE")
        return Samples(at + 16, size - 12 if size > 12 else None, *form, wraps_at=1 << 24)
    if kind == 1:
        divisor, codec = struct.unpack("BB", _read(file, at + 4, 2))
        form = _plain(1e6 / (256 - divisor), 1, None if codec else "PCM_U8", "LITTLE")
        return Samples(at + 6, size - 2 if size > 2 else None, *form, wraps_at=1 << 24)
    return None


def _nist(head: bytes) -> Samples | None:
    """Samples that are packed have a length to compare all the same."""
    words = {line.split()[0]: line.split()[-1] for line in head.split(b"\n") if len(line.split()) == 3}
    try:
        count, channels, size, rate = (
            int(words[key]) for key in (b"sample_count", b"channel_count", b"sample_n_bytes", b"sample_rate")
        )
        start = int(head[8:16])
    except (KeyError, ValueError):
        return None
    if b"shorten" in head or b"wavpack" in head:
        return None
    names = {b"ulaw": "ULAW", b"mu-law": "ULAW", b"alaw": "ALAW", b"pcm": _WHOLE.get(8 * size)}
    endian = "LITTLE" if words.get(b"sample_byte_format") == b"01" else "BIG"
    raw = _raw(rate, channels, names.get(words.get(b"sample_coding", b"pcm")), endian)
    return Samples(start, count * channels * size or None, raw, float(channels * size * rate))


def _compare(file: IO[bytes], size: int, found: Samples, head: bytes) -> Contents:
    """What a header announces beside what the file holds."""
    held = size - found.start
    if found.announced is None:
        if found.raw and held >= width(found.raw) and not _closes(file, found.start, size, head):
            return Contents((Part(found.start, size, raw=found.raw),))
        if not found.raw and held >> 31 == 0 < held and head[:4] in (b"RIFF", b"caff") and found.start < 1 << 20:
            return Contents((Part(found.start, size, _sized(file, found.start, held, head)),))
        return Contents(other=held > 0 and not found.raw)
    end = found.start + found.announced
    if end > size:
        damage = (
            f"is cut off: {_seconds(end - size, found)} of {_seconds(found.announced, found)} are missing at its end"
        )
        parts = (Part(found.start, size, raw=found.raw),) if found.raw and held > 0 else ()
        return Contents(parts, damage)
    wrapped = end + (size - end) // found.wraps_at * found.wraps_at
    for whole in (wrapped, end):  # a file of silence, too, may be longer than its size can tell
        if _closes(file, whole, size, head):
            # What libsndfile does not know, or reads up to the end of the file.
            own = (
                whole != end
                or head.startswith(b"BW64")
                or (whole < size and head.startswith((b"riff", b"Crea", b"NIST")))
            )
            return Contents(
                (Part(found.start, whole, raw=found.raw),) if own and found.raw else (), other=own and not found.raw
            )
    damage = f"holds {_seconds(held, found)}, but its header announces {_seconds(found.announced, found)}"
    if head.startswith(b"Crea") and not found.raw:
        return Contents(other=True)
    return Contents((Part(found.start, size, raw=found.raw),) if found.raw else (), damage)


def _sized(file: IO[bytes], start: int, held: int, head: bytes) -> bytes:
    """A header with the size of its samples filled in."""
    file.seek(0)
    header = file.read(start)
    if head.startswith(b"caff"):  # which counts its edits, too
        return header[:-12] + (held + 4).to_bytes(8, "big") + header[-4:]
    return header[:-4] + held.to_bytes(4, "little")


def _seconds(count: int, found: Samples) -> str:
    return f"{count / found.bytes_a_second:.3f} s" if found.bytes_a_second else f"{count} bytes"


def _closes(file: IO[bytes], at: int, size: int, head: bytes) -> bool:
    """Whether samples may end here: nothing follows but chunks, tags or what a recorder fills up with."""
    kind = head[:4]
    if kind in _CHUNKED:
        _, layout, fill, counted = _CHUNKED[kind]
        at += -at % fill
        after = 0
        try:
            for name, start, length in _chunks(file, at, layout, fill, counted):
                if (not name.strip().isalnum() and name[:1] not in (b"_", b"(")) or length < 0:
                    break
                after = start + length
                if after + -after % fill >= size:
                    break
        except (ValueError, struct.error):
            pass
        if after and after <= size + 1:
            at = after
    if at >= size - 1:
        return True
    file.seek(at)
    rest = file.read(1 << 16)
    if kind == b"Crea" and rest[:1] == b"\0":  # the terminator
        return True
    file.seek(max(at, size - (1 << 16)))
    return rest.lstrip(b"\0").startswith(TAGS) or not (rest.strip(b"\0") or file.read(1 << 16).strip(b"\0"))
