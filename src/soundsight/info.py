"""What a bug report needs to know of this machine and installation; nothing is sent anywhere.

PyTorch is imported only where a GPU's driver is installed, so that this is quick elsewhere.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import soundfile

from soundsight import machine
from soundsight.config.files import versions

RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "ncnn", "onnx", "ray", "sounddevice")
DRIVERS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")  # of NVIDIA, of Windows' Linux, of AMD


def collect() -> dict[str, Any]:
    """Facts by name, in the order in which they are shown; sizes in bytes."""
    found = machine.processors()  # before an import sets OMP_NUM_THREADS
    installed = {package.metadata["Name"].lower(): package.version for package in metadata.distributions()}
    formats = soundfile.available_formats()
    subtypes = {name for form in formats for name in soundfile.available_subtypes(form)}
    return {
        "system": f"{platform.platform()}, {platform.machine()}",
        "versions": versions(),
        "processors": {"count": found.count, "reason": found.reason, "of_machine": os.cpu_count()},
        "threads": {"train": found.count, "predict": found.count, "rendering": found.count},
        "free_memory": machine.free_memory(),
        "gpus": _gpus(),
        "ffmpeg": _ffmpeg(),
        "libsndfile": {
            "version": soundfile.__libsndfile_version__,
            "formats": sorted(formats),
            "compressed": sorted(subtypes & {"VORBIS", "OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III"}),
        },
        "runtimes": {name: installed[name] for name in RUNTIMES if name in installed},
        "variables": {
            name: value
            for name, value in sorted(os.environ.items())
            if re.match(r"(SOUNDSIGHT|YOLO|OMP|MKL|CUDA|SLURM_CPUS)_", name) and "PASSWORD" not in name
        },
    }


def lines(facts: dict[str, Any]) -> list[str]:
    """The facts as text, a line each."""
    shown = facts | {"free_memory": f"{facts['free_memory'] / 2**30:.1f} GiB"}
    shown["processors"] = "{count} ({reason}); the machine has {of_machine}".format(**facts["processors"])
    codecs = facts["libsndfile"]
    shown["libsndfile"] = "; ".join([codecs["version"], " ".join(codecs["formats"]), " ".join(codecs["compressed"])])
    return [f"{name.replace('_', ' ')}: {_text(value)}" for name, value in shown.items()]


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={of}" for key, of in value.items()) or "none"
    return ", ".join(value) or "none" if isinstance(value, list) else str(value or "not installed")


def _gpus() -> list[str]:
    """What PyTorch sees."""
    driver = shutil.which("nvidia-smi") or any(Path(device).exists() for device in DRIVERS)
    if not driver and sys.platform != "darwin":
        return []
    import torch

    if torch.backends.mps.is_available():
        return ["mps"]
    if not torch.cuda.is_available():
        return [f"a driver is installed, but PyTorch {torch.__version__} sees no GPU"]
    found = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return [f"{one.name} ({one.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda})" for one in found]


def _ffmpeg() -> str | None:
    """The version of the program ffmpeg; `None` if it is not installed."""
    if (program := shutil.which("ffmpeg")) is None:
        return None
    try:
        done = subprocess.run([program, "-version"], capture_output=True, text=True, errors="replace", timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"cannot be run ({type(error).__name__})"
    return done.stdout.removeprefix("ffmpeg version ").partition(" Copyright")[0].partition("\n")[0] or "no version"
