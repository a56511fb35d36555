"""When a recording began: by its header, by its file name, or by a pattern of one's own."""

from __future__ import annotations

import os
import re
import struct
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from pathlib import Path, PureWindowsPath
from typing import BinaryIO

from soundsight.errors import ConfigError

AUTO = "auto"
# SongMeter, AudioMoth, Swift and most others: 20240501_203000
_NAME = re.compile(r"(?<!\d)(\d{8})[_T-]?(\d{6})(?!\d)")
_HEXADECIMAL = re.compile(r"[0-9A-Fa-f]{8}")  # AudioMoth before firmware 1.2.1: seconds since 1970
_FIRST, _LAST = 1_388_534_400, 4_102_444_800  # 2014 and 2100: other numbers are no time
_COMMENT = re.compile(
    r"Recorded at (\d\d:\d\d:\d\d)(?:\.(\d{3}))? (\d\d/\d\d/\d{4}) \(UTC(?:([+-]\d{1,2})(?::(\d\d))?)?\)"
)
_DIRECTIVES = {
    "Y": r"\d{4}", "y": r"\d\d", "m": r"\d\d", "d": r"\d\d", "j": r"\d{3}", "H": r"\d\d", "I": r"\d\d", "M": r"\d\d",
    "S": r"\d\d", "f": r"\d{1,6}", "p": r"[AaPp][Mm]", "b": r"[A-Za-z]{3}", "z": r"(?:Z|[+-]\d\d:?\d\d)", "%": "%",
}  # fmt: skip
_MAX_TEXT = 1 << 20  # bytes of a chunk of text


class Clock:
    """Tells when recordings began, each looked up once."""

    def __init__(self, pattern: str = AUTO, zone: str | None = None) -> None:
        """Choose how.

        Args:
            pattern: "auto": the header (GUANO, or AudioMoth's comment), or else the name (20240501_203000, or
                AudioMoth's hexadecimal seconds). Otherwise directives of `strptime` that are found in the name.
            zone: Such as "Europe/Berlin": names are in its time, and all times are given in it. `None`: names have
                no zone.

        Raises:
            ConfigError: The pattern or the zone is not understood.
        """
        self.pattern = pattern
        self.search = None if pattern == AUTO else _compiled(pattern)
        self.zone = _zone(zone) if zone else None
        self.known: dict[str, datetime | None] = {}

    def began(self, recording: str, path: Path | None = None) -> datetime | None:
        """When a recording began; `None` if neither header nor name tells.

        Args:
            recording: Its name, with any folders.
            path: Where it is, if not there.
        """
        if recording not in self.known:
            found = self._look(PureWindowsPath(recording).name, path or Path(recording))
            if found is not None and self.zone is not None:
                found = found.replace(tzinfo=self.zone) if found.tzinfo is None else found.astimezone(self.zone)
            self.known[recording] = found
        return self.known[recording]

    def at(self, recording: str, seconds: float) -> str:
        """The time so many seconds into a recording, ISO 8601 to the millisecond; empty if it is not known."""
        began = self.began(recording)
        return "" if began is None else shifted(began, seconds).isoformat(timespec="milliseconds")

    def _look(self, name: str, path: Path) -> datetime | None:
        if self.search is not None:
            found = self.search.search(name)
            with suppress(ValueError):
                return datetime.strptime(found[0], self.pattern) if found else None
            return None
        return _from_header(path) or _from_name(name)


def shifted(began: datetime, seconds: float) -> datetime:
    """A time so many seconds later, also across a change of summer time."""
    if began.tzinfo is None:
        return began + timedelta(seconds=seconds)
    return (began.astimezone(UTC) + timedelta(seconds=seconds)).astimezone(began.tzinfo)


def _zone(name: str) -> tzinfo:
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:  # ZoneInfoNotFoundError is a KeyError
        raise ConfigError(
            f"timezone={name} is not known; write one such as Europe/Berlin or UTC (Windows needs the package tzdata)."
        ) from error


def _compiled(pattern: str) -> re.Pattern[str]:
    """A pattern of `strptime` as one to search with."""
    text, parts = "", re.split(r"%(.)", pattern)
    for place, part in enumerate(parts):
        if place % 2 and part not in _DIRECTIVES:
            known = ", ".join(f"%{name}" for name in _DIRECTIVES)
            raise ConfigError(f"begin_time={pattern}: %{part} is not known here; use {known}.")
        text += _DIRECTIVES[part] if place % 2 else re.escape(part)
    if not {"Y", "y"} & set(parts[1::2]) or not {"H", "I"} & set(parts[1::2]):
        raise ConfigError(f"begin_time={pattern} has no year or no hour; write one such as %Y%m%d_%H%M%S, or auto.")
    return re.compile(text)


def _from_name(name: str) -> datetime | None:
    stem = os.path.splitext(name)[0]
    for found in _NAME.finditer(stem):
        with suppress(ValueError):
            return datetime.strptime("".join(found.groups()), "%Y%m%d%H%M%S")
    if _HEXADECIMAL.fullmatch(stem) and _FIRST <= int(stem, 16) < _LAST:
        return datetime.fromtimestamp(int(stem, 16), UTC)
    return None


def _from_header(path: Path) -> datetime | None:
    """The time that a WAV's GUANO or AudioMoth comment states."""
    try:
        with open(path, "rb") as file:
            texts = _texts(file)
    except (OSError, ValueError, struct.error):
        return None
    for line in texts.get(b"guan", "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "Timestamp":
            with suppress(ValueError):
                return datetime.fromisoformat(value.strip())
    if found := _COMMENT.search(texts.get(b"ICMT", "")):
        clock, milliseconds, day, hours, minutes = found.groups()
        offset = timedelta(hours=int(hours or 0), minutes=int(f"{(hours or '+')[0]}{minutes or 0}"))
        with suppress(ValueError):
            time = datetime.strptime(f"{day} {clock}", "%d/%m/%Y %H:%M:%S")
            return time.replace(microsecond=int(milliseconds or 0) * 1000, tzinfo=timezone(offset))
    return None


def _texts(file: BinaryIO) -> dict[bytes, str]:
    """Chunks of text of a WAV by name: `guan`, and those in the list INFO."""
    texts: dict[bytes, str] = {}
    head = file.read(12)
    if head[:4] not in (b"RIFF", b"RF64", b"BW64") or head[8:] != b"WAVE":
        return texts
    while len(header := file.read(8)) == 8:
        name, size = struct.unpack("<4sI", header)
        after = file.tell() + size + size % 2
        if name == b"guan" and size <= _MAX_TEXT:
            texts[name] = file.read(size).decode("utf-8", "replace")
        elif name == b"LIST" and size <= _MAX_TEXT and file.read(4) == b"INFO":
            while file.tell() + 8 <= after and len(header := file.read(8)) == 8:
                inner, length = struct.unpack("<4sI", header)
                data = file.read(min(length + length % 2, _MAX_TEXT))
                texts[inner] = data[:length].split(b"\0")[0].decode("utf-8", "replace")
        file.seek(after)
    return texts
