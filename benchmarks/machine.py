"""What all benchmarks share: a description of the machine, quiet child processes, and where results go."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
}
PACKAGES = [
    "numpy",
    "scipy",
    "opencv-python",
    "librosa",
    "soundfile",
    "soxr",
    "matplotlib",
    "isal",
    "torch",
    "torchaudio",
    "ultralytics",
    "onnxruntime",
    "openvino",
]


def describe() -> dict[str, Any]:
    """Processor, memory, system and versions, and how busy the machine is."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "gpu": ask_gpu("name") if shutil.which("nvidia-smi") else None,
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
        "intel_ipp_in_opencv": _ipp(),
        "load_average_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "niceness": os.nice(0) if hasattr(os, "nice") else None,
        "date": time.strftime("%Y-%m-%d"),
    }


def child_environment(**more: str) -> dict[str, str]:
    """The environment of a measured process: one thread a library, byte code cached as on a user's machine."""
    environment = {**os.environ, **ONE_THREAD, "MPLBACKEND": "Agg", "YOLO_OFFLINE": "true", **more}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    environment["PYTHONPYCACHEPREFIX"] = str(Path(tempfile.gettempdir()) / "soundsight-bench-bytecode")
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    return environment


def run_child(module: str, *arguments: str, core: int | None = None) -> dict[str, Any]:
    """Run `python -m module arguments` and read the JSON of its last line; `core` pins it to one core."""
    pin = None
    if core is not None and hasattr(os, "sched_setaffinity"):
        pin = lambda: os.sched_setaffinity(0, {core})  # noqa: E731
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env=child_environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        preexec_fn=pin,
    )
    return json.loads(done.stdout.splitlines()[-1])


def write(name: str, result: dict[str, Any]) -> Path:
    """Write `benchmarks/results/<name>.json`."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"\nWritten: {path.relative_to(ROOT)}")
    return path


def last_core() -> int:
    """The core that measured processes are pinned to."""
    return max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0


def ask_gpu(what: str, device: str = "0") -> str:
    """One fact about a GPU, by the name that `nvidia-smi --help-query-gpu` lists."""
    query = [f"--query-gpu={what}", "--format=csv,noheader,nounits", "-i", device]
    return subprocess.run(["nvidia-smi", *query], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        facts = dict(map(str.strip, line.split(":", 1)) for line in lines if ":" in line)
        flags = facts.get("flags", "")
        widest = next((name for name in ("avx512f", "avx2", "sse4_2") if name in flags), "")
        return f"{facts.get('model name', platform.machine())} ({widest})" if widest else facts["model name"]
    except (OSError, KeyError):
        return platform.processor() or platform.machine()


def _memory_gib() -> int | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    except (ValueError, OSError, AttributeError):
        return None


def _ipp() -> str:
    import cv2

    return " ".join(cv2.ipp.getIppVersion().split()[:3]) if cv2.ipp.useIPP() else "none"
