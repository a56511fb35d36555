"""A few clips to try the page with, synthesised when they are first asked for; no file is shipped."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import soundfile

from soundsight.synthesis import dataset as demo

RATE, SECONDS, MINUTE = 16000, 5.0, 60.0
COUNT = 5
SOUNDSCAPE = "minute"
_PREFERRED = ("siren", "birds", "footsteps", "rain", "alarm", "clock", "bell", "crickets", "engine", "wind")


def listing(names: Sequence[str]) -> list[dict[str, str]]:
    """Examples for a model that knows these classes: name and title, the long one last."""
    known = [name for name in _PREFERRED if name in names]
    chosen = (known + [name for name in _PREFERRED if name not in known])[:COUNT]
    single = [{"name": name, "title": name.capitalize()} for name in chosen]
    return [*single, {"name": SOUNDSCAPE, "title": "A minute of many"}]


@lru_cache(maxsize=8)
def clip(name: str) -> bytes | None:
    """A clip as FLAC; `None` if there is no such example."""
    if name == SOUNDSCAPE:
        with tempfile.TemporaryDirectory(prefix="soundsight-") as folder:
            path = Path(folder, "minute.flac")
            demo.write_soundscape(path, seconds=MINUTE, seed=8, gap_seconds=(0.5, 2.0), event_seconds=(4, 7))
            return path.read_bytes()
    if name not in demo.CLASSES:
        return None
    buffer = io.BytesIO()
    soundfile.write(buffer, demo.synthesise(name, seed=7, sample_rate=RATE, seconds=SECONDS), RATE, format="FLAC")
    return buffer.getvalue()
