"""What must be set before Ultralytics and ONNX Runtime are imported: nothing is sent, fetched or installed unasked.

Importing this module sets process environment variables only; the user's own Ultralytics settings file is
neither read nor written, since settings live in a folder of our own.
"""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path


@cache
def cache_folder() -> Path:
    """A writable folder of our own: Ultralytics' settings file and fonts, converted models."""
    base = os.environ.get("SOUNDSIGHT_CACHE") or os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(base) / "soundsight"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="soundsight-"))


os.environ.setdefault("YOLO_CONFIG_DIR", str(cache_folder()))
os.environ.setdefault("YOLO_OFFLINE", "true")  # no update checks, no usage reporting
os.environ.setdefault("YOLO_AUTOINSTALL", "false")  # no pip at run time
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime 1.29 and later reports its use otherwise
os.environ.setdefault("ULTRALYTICS_SAFE_LOAD", "true")  # checkpoints are data, not programs
os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1))
