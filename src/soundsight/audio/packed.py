"""OGG, MP3 and FLAC looked through without decoding: what is there, and where it is damaged.

Neighbour: `container`, which knows the others.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import IO, Any

HEAD = 192  # bytes that tell what a file is
TAGS = (b"TAG", b"ID3", b"APETAGEX", b"LYRICSBEGIN", b"3DI")  # text that players hang on, whatever the container


@dataclass(frozen=True)
class Part:
    """A stretch of the file that libsndfile reads by itself."""

    start: int  # bytes
    end: int
    head: bytes = b""  # comes first: a header that is right
    raw: dict[str, Any] = field(default_factory=dict)  # keywords of `soundfile.SoundFile` where there is no header


@dataclass(frozen=True)
class Contents:
    """What was found in a file."""

    parts: tuple[Part, ...] = ()  # none: the file as it is
    damage: str = ""  # what is missing or left over, as the end of a sentence that begins with the file's name
    other: bool = False  # libsndfile would misread it


# -- OGG: pages ------------------------------------------------------------------------------------------------------

_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _page_sum(page: bytes) -> int:
    """CRC of a page (RFC 3533, 6): zlib's, with the bits of each byte and of the result mirrored, and begun at 0."""
    found = zlib.crc32(page[:22].translate(_MIRRORED), 0xFFFFFFFF)
    found = zlib.crc32((bytes(4) + page[26:]).translate(_MIRRORED), found) ^ 0xFFFFFFFF
    return int(f"{found:032b}"[::-1], 2)


def pages(file: IO[bytes], size: int) -> Contents:
    """Links of a chained OGG, up to the first page that is damaged."""
    links, at, opening, damage = [0], 0, True, ""
    numbers: dict[bytes, int] = {}
    file.seek(0)
    buffered = file
    while at < size:
        header = buffered.read(27)
        sizes = buffered.read(header[26]) if len(header) == 27 else b""
        body = buffered.read(sum(sizes))
        page = header + sizes + body
        if header[:4] != b"OggS" and not (header + buffered.read(1 << 12)).strip(b"\0"):
            break  # filled up
        if header[:3] in (b"TAG", b"ID3"):
            break
        if len(sizes) < (header[26] if len(header) == 27 else 1) or len(body) < sum(sizes):
            damage = "is cut off in the middle of a page: what follows is missing"
        elif header[:4] != b"OggS" or _page_sum(page) != int.from_bytes(header[22:26], "little"):
            damage = f"is damaged at byte {at}: what follows is not read"
        serial, number, first = (
            header[14:18],
            int.from_bytes(header[18:22], "little"),
            bool(header[5:6] > b"\1" and header[5] & 2),
        )
        if not damage and not first and number != numbers.get(serial, number - 1) + 1:
            damage = f"is damaged at byte {at}: a page is missing, and what follows is not read"
        if damage:
            break
        if first and not opening:
            links.append(at)
        opening, numbers[serial] = first, number
        at += len(page)
    if not at:
        return Contents(damage=damage)
    if len(links) == 1 and at == size:
        return Contents()
    return Contents(tuple(map(Part, links, [*links[1:], at])), damage)


# -- MP3: frames -----------------------------------------------------------------------------------------------------

_KBITS = {  # by version 1 or later, and layer
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = (44100, 48000, 32000)


def _frame_bytes(header: bytes) -> int:
    """Length of the MPEG audio frame that begins with these four bytes; 0 if none does, or its length is free."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return 0
    version, layer, kbits, rate = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3), header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or layer == 4 or kbits in (0, 15) or rate == 3:
        return 0
    bits = 1000 * _KBITS[version == 3, layer][kbits - 1]
    hertz = _RATES[rate] >> {3: 0, 2: 1, 0: 2}[version]
    padding = header[2] >> 1 & 1
    if layer == 1:
        return (12 * bits // hertz + padding) * 4
    return (72 if layer == 3 and version != 3 else 144) * bits // hertz + padding


def is_frame(head: bytes) -> bool:
    """Whether a frame of MPEG audio begins here."""
    return _frame_bytes(head) > 0


def is_adts(head: bytes) -> bool:
    """Whether a frame of AAC begins here, which libsndfile takes for MP3."""
    return len(head) > 2 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0 and head[2] >> 2 & 15 < 13


@dataclass
class _Track:
    """Frames of one encoder, one after the other."""

    start: int  # bytes
    header: bytes
    head: bytes = b""  # the frame that only says how many follow
    announced: int | None = None
    frames: int = 0
    end: int = 0


def frames(file: IO[bytes], size: int) -> Contents:
    """Count the frames of an MP3 (or of layer 1 and 2), of which libsndfile guesses the number."""
    at, tracks, damage = _after_tags(file, 0), list[_Track](), ""
    if is_adts(_peek(file, at)):
        return framed(file, size)
    first = at
    while at < size:
        file.seek(at)
        header = file.read(4)
        length = _frame_bytes(header)
        if not length or at + length > size:
            tag = _after_tags(file, at)
            if tag > at:
                at = tag
                continue
            rest = header + file.read(1 << 12)
            if not rest.strip(b"\0") or rest.startswith(TAGS):
                break
            if not tracks:
                return Contents()
            damage = damage or f"is {'cut off' if length else f'damaged at byte {at}'}: a part of it is missing"
            at = _resume(file, at + 1, size)
            continue
        body = file.read(length - 4)
        mark = max(body[:48].find(b"Xing"), body[:48].find(b"Info"))
        if mark >= 0 and not body[:mark].strip(b"\0"):
            told = (
                int.from_bytes(body[mark + 8 : mark + 12], "big")
                if body[mark + 7 : mark + 8] > b"\0" and body[mark + 7] & 1
                else None
            )
            tracks.append(_Track(at + length, header, header + body, told))
        elif body[32:36] == b"VBRI":
            tracks.append(_Track(at + length, header, announced=int.from_bytes(body[46:50], "big")))
        else:
            if not tracks or tracks[-1].end not in (0, at) or not _alike(tracks[-1].header, header):
                tracks.append(_Track(at, header))
            tracks[-1].frames += 1
            tracks[-1].end = at + length
        at += length
    tracks = [track for track in tracks if track.frames]
    if not tracks or (tracks[0].frames < 2 and tracks[0].end < size and not tracks[0].head and first == 0):
        return Contents()
    short = [track for track in tracks if track.announced is not None and track.frames != track.announced]
    if short and not damage:
        damage = (
            f"is cut off: {short[0].frames} frames of {short[0].announced} are there"
            if short[0].frames < (short[0].announced or 0)
            else ""
        )
    if len(tracks) == 1 and not short and tracks[0].announced is not None and tracks[0].head:
        return Contents(damage=damage)
    return Contents(tuple(Part(track.start, track.end, _counted(track)) for track in tracks), damage)


def _alike(one: bytes, other: bytes) -> bool:
    """Whether two frames have the same version, layer and sample rate."""
    return (one[1] & 0xFE, one[2] & 0x0C) == (other[1] & 0xFE, other[2] & 0x0C)


def _peek(file: IO[bytes], at: int) -> bytes:
    file.seek(at)
    return file.read(HEAD)


def _after_tags(file: IO[bytes], at: int) -> int:
    """The first byte after the tags that begin here."""
    while True:
        head = _peek(file, at)
        if head.startswith(b"ID3") and len(head) >= 10:
            at += 10 + sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        elif head.startswith(b"TAG"):
            at += 128
        elif head.startswith(b"APETAGEX") and len(head) >= 16:
            at += 32 * bool(head[23] & 0x20) + int.from_bytes(head[12:16], "little")
        else:
            return at


def _resume(file: IO[bytes], at: int, size: int) -> int:
    """Where two frames follow each other again."""
    while at < size:
        file.seek(at)
        block = file.read(1 << 16)
        found = block.find(b"\xff")
        if found < 0:
            at += len(block) or 1
            continue
        at += found
        header = _peek(file, at)
        length = _frame_bytes(header)
        if (
            length
            and at + length < size
            and _alike(header, _peek(file, at + length))
            and is_frame(_peek(file, at + length))
        ):
            return at
        at += 1
    return size


def _counted(track: _Track) -> bytes:
    """A first frame that tells the right number, in the way of Xing."""
    number = track.frames.to_bytes(4, "big")
    if 4 - (track.header[1] >> 1 & 3) != 3:
        return b""  # layers 1 and 2 know no Xing, and have one bit rate
    if track.announced is not None and track.head:
        at = max(track.head.find(b"Xing"), track.head.find(b"Info")) + 8
        length = (len(track.head) + track.end - track.start).to_bytes(4, "big")
        length = length if track.head[at - 1] & 2 else track.head[at + 4 : at + 8]
        return track.head[:at] + number + length + track.head[at + 8 :]
    header = bytes([0xFF, track.header[1] | 1, 0x90 | track.header[2] & 0x0C, track.header[3]])
    stereo, first = header[3] >> 6 != 3, header[1] >> 3 & 3 == 3
    side = (32 if stereo else 17) if first else (17 if stereo else 9)
    return (header + bytes(side) + b"Xing\0\0\0\1" + number).ljust(_frame_bytes(header), b"\0")


def uncounted(file: Any) -> bytes:
    """The frame that has an MP3 of unknown length decoded as if it were counted; empty if it has one of its own."""
    at = _after_tags(file, 0)
    header, body = _peek(file, at)[:4], _peek(file, at)[4:]
    if not is_frame(header) or b"Xing" in body or b"Info" in body or body[32:36] == b"VBRI":
        return b""
    return _counted(_Track(at, header, frames=(1 << 31) - 1))


def framed(file: IO[bytes], size: int) -> Contents:
    """Walk frames that announce no total, for ffmpeg takes tags and zeros behind them for damage, and no cut."""
    at = _after_tags(file, 0)
    while at < size and (length := _other_frame_bytes(_peek(file, at))):
        at += length
    file.seek(_after_tags(file, at))
    while (rest := file.read(1 << 16)) and not (rest := rest.lstrip(b"\0")):
        pass
    if at > size or 0 < len(rest) < 8:
        return Contents(damage="is cut off in the middle of a frame: what follows is missing", other=True)
    return Contents((Part(0, at),) if at < size and not rest else (), other=True)


def _other_frame_bytes(head: bytes) -> int:
    """Length of a frame of AC3 (ETSI TS 102 366), WavPack or AAC (ADTS), or of a tag of FLV; 0 if none begins here."""
    if len(head) < 8:
        return 0
    if head.startswith(b"FLV"):
        return 13
    if head[0] in (8, 9, 18) and not any(head[8:11]):
        return 15 + int.from_bytes(head[1:4], "big")
    if head.startswith(b"wvpk"):
        return int.from_bytes(head[4:8], "little") + 8
    if is_adts(head):
        return (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
    if not head.startswith(b"\x0bw"):
        return 0
    if head[5] >> 3 > 10:  # E-AC3
        return 2 * ((head[2] & 7) << 8 | head[3]) + 2
    code, kbits = head[4] & 63, (*_KBITS[True, 3], 384, 448, 512, 576, 640)
    if code >= 2 * len(kbits):
        return 0
    rate = kbits[code >> 1]
    return {0: 4 * rate, 1: 2 * (320 * rate // 147 + (code & 1)), 2: 6 * rate}.get(head[4] >> 6, 0)


def _without_tail(tail: bytes) -> bytes:
    """Without a tag and what a recorder fills up with; of a frame, few bytes are 0 at its end."""
    if tail[-128:-125] == b"TAG":
        tail = tail[:-128]
    return kept if len(kept := tail.rstrip(b"\0")) < len(tail) - 16 else tail


# -- FLAC: the last frame --------------------------------------------------------------------------------------------

_FLAC_FRAME = re.compile(rb"\xff[\xf8\xf9][\x10-\xff][\x00-\xaf]", re.DOTALL)


def flac(file: IO[bytes], size: int) -> Contents:
    """Compare the total of the header, where libsndfile stops, with the last frame (RFC 9639, 8.2 and 9.1)."""
    file.seek(0)
    head = file.read(26)
    if len(head) < 26 or head[4] & 127:
        return Contents()
    starts = [0]
    for at in range(0, size, 1 << 20):
        file.seek(at)
        block = file.read((1 << 20) + 7)
        starts += [at + found.start() for found in re.finditer(b"fLaC\0\0\0\x22", block) if at + found.start()]
    if len(starts) > 1:  # joined
        return Contents(tuple(Part(start, end) for start, end in pairwise([*starts, size])))
    rate, announced = int.from_bytes(head[18:21], "big") >> 4, int.from_bytes(head[21:26], "big") & (1 << 36) - 1
    largest = int.from_bytes(head[15:18], "big") or 1 << 20  # bytes of a frame
    file.seek(max(0, size - 2 * largest - (1 << 16)))
    whole = file.read()
    tail = _without_tail(whole)
    for found in reversed(list(_FLAC_FRAME.finditer(tail)) if announced and rate else []):
        end = _flac_frame_end(tail[found.start() :], int.from_bytes(head[8:10], "big"))
        if end == announced:
            for own in range(3 if len(tail) < len(whole) else 0):
                if not _sum(tail[found.start() :] + bytes(own), 0x8005, 16):
                    return Contents((Part(0, size - len(whole) + len(tail) + own),))
            break
        if end > announced and not _sum(tail[found.start() :], 0x8005, 16):
            total = (int.from_bytes(head[21:26], "big") - announced + end).to_bytes(5, "big")
            damage = f"holds {end / rate:.3f} s, but its header announces {announced / rate:.3f} s"
            return Contents((Part(26, size - len(whole) + len(tail), head[:21] + total),), damage)
    return Contents()


def _flac_frame_end(frame: bytes, fixed: int) -> int:
    """The number of the first sample after a frame; 0 if none begins here."""
    coded = 8 - (frame[4] ^ 0xFF).bit_length() if len(frame) > 16 else 1  # ones that begin the number, as in UTF-8
    length = coded or 1
    if coded in (1, 8):
        return 0
    number = frame[4] & 0xFF >> coded + 1 if coded else frame[4]
    for byte in frame[5 : 4 + length]:
        number = number << 6 | byte & 0x3F
    at, code, rate = 4 + length, frame[2] >> 4, frame[2] & 15
    samples = {1: 192, 6: frame[at] + 1, 7: int.from_bytes(frame[at : at + 2], "big") + 1}.get(
        code, 576 << code - 2 if 2 <= code <= 5 else 256 << max(0, code - 8)
    )
    at += {6: 1, 7: 2}.get(code, 0) + {12: 1, 13: 2, 14: 2}.get(rate, 0)
    if _sum(frame[: at + 1], 0x07, 8):
        return 0
    return (number if frame[1] & 1 else number * fixed) + samples


def _sum(data: bytes, polynomial: int, bits: int) -> int:
    """CRC, begun at 0; 0 where the data ends with its own."""
    table, mask, value = _sum_table(polynomial, bits), (1 << bits) - 1, 0
    for byte in data:
        value = (value << 8 & mask) ^ table[value >> bits - 8 ^ byte]
    return value


@cache
def _sum_table(polynomial: int, bits: int) -> list[int]:
    table = [byte << bits - 8 for byte in range(256)]
    for _ in range(8):
        table = [(entry << 1 ^ (polynomial if entry >> bits - 1 else 0)) & (1 << bits) - 1 for entry in table]
    return table
