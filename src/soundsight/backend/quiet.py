"""What must be set before Ultralytics and ONNX Runtime are imported: nothing is sent, fetched or installed unasked.

Importing this module sets process environment variables only; the user's own Ultralytics settings file is
neither read nor written, since settings live in a folder of our own.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import sys
import tempfile
import warnings
from functools import cache
from pathlib import Path
from typing import Any

from soundsight import interrupts, parallel
from soundsight.checks import require
from soundsight.files import write_bytes


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


def place_fonts() -> None:
    """Put matplotlib's font where Ultralytics' plots look for Arial, which they would fetch otherwise."""
    with interrupts.later():  # a Ctrl-C into the loading of its C++ would abort the process
        import matplotlib
    from ultralytics.utils import USER_CONFIG_DIR

    if not Path(USER_CONFIG_DIR).is_relative_to(cache_folder()):
        return  # the user's own folder
    font = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    for name in ("Arial.ttf", "Arial.Unicode.ttf"):
        if font.is_file() and not (USER_CONFIG_DIR / name).exists():
            write_bytes(USER_CONFIG_DIR / name, font.read_bytes())


def switch_on_tensorboard() -> None:
    """Honour `yolo settings tensorboard=True`: it stands in the user's own settings, and sends nothing anywhere."""
    from ultralytics.utils import LINUX, MACOS, SETTINGS, USER_CONFIG_DIR

    if not Path(USER_CONFIG_DIR).is_relative_to(cache_folder()):
        return  # the user's own folder, which Ultralytics has read
    base = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") if LINUX else Path.home()
    base /= "" if LINUX else "Library/Application Support" if MACOS else "AppData/Roaming"
    try:
        wanted = json.loads((base / "Ultralytics" / "settings.json").read_text(encoding="utf-8"))["tensorboard"] is True
    except (OSError, ValueError, LookupError, TypeError):
        return
    if wanted and importlib.util.find_spec("tensorboard") is None:
        print("TensorBoard is switched on, but not installed; run pip install tensorboard.", file=sys.stderr)
    warnings.filterwarnings("ignore", message=r"`torch\.jit\.")  # by which the graph for TensorBoard is traced
    dict.update(SETTINGS, tensorboard=wanted)  # here only: the file stays as it is


logging.getLogger("ultralytics").addFilter(lambda record: "Creating new Ultralytics Settings" not in str(record.msg))
os.environ.setdefault("YOLO_CONFIG_DIR", str(cache_folder()))
os.environ.setdefault("YOLO_OFFLINE", "true")  # no update checks, no usage reporting
os.environ.setdefault("YOLO_AUTOINSTALL", "false")  # no pip at run time
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime 1.29 and later reports its use otherwise
os.environ.setdefault("OMP_NUM_THREADS", str(parallel.cores()))


def require_openvino() -> Any:
    """Import OpenVINO as if its usage reporting, which begins with the import, were not installed."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return require("openvino", "openvino")
