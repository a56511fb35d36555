"""Nothing is sent anywhere: every command under `strace`, which shows each attempt to connect, in a home of its own.

    python -m torture.quiet

The user's own Ultralytics settings file must be the same afterwards, byte for byte. Needs Linux and `strace`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from torture import kills, models
from torture.processes import hear_ctrl_c

# Connections that leave the process but not the machine are files, not network.
_CALL = re.compile(r"(connect|sendto|sendmsg)\(\d+, .*sa_family=(AF_INET6?).*")
SERVE_SECONDS = 40
LISTEN_SECONDS = 10  # of a looped recording in place of the microphone


def main() -> None:
    hear_ctrl_c()
    print(json.dumps(run(), indent=2))


def run() -> dict[str, Any]:
    """Run the commands; attempts to reach the network, and changes to the user's settings."""
    if shutil.which("strace") is None:
        return {"commands": 0, "left_out": "strace is not installed", "problems": []}
    problems = []
    with tempfile.TemporaryDirectory(prefix="soundsight-torture-") as name:
        place = Path(name)
        kills.write_clips(place / "sounds", 9)
        model = models.make_checkpoint(place / "model.pt", names=kills.LABELS)
        home = place / "home"
        settings = home / ".config" / "Ultralytics" / "settings.json"
        settings.parent.mkdir(parents=True)
        settings.write_text('{"sync": true, "mine": "as it was"}', encoding="utf-8")
        before = settings.read_bytes()
        commands = _commands(place, str(model))
        for command, words in commands.items():
            module = "torture.loop" if command == "listen" else "soundsight"
            problems += [f"{command}: {text}" for text in _watch(module, words, place, home)]
            if settings.read_bytes() != before:
                problems.append(f"{command} changed the user's Ultralytics settings")
        known = {"soundsight", "matplotlib", "Ultralytics"}  # below .config and .cache
        problems += [f"{path.relative_to(home)} was written to the home" for path in _strangers(home, known)]
    return {"commands": len(commands), "names": list(commands), "problems": problems}


def _strangers(home: Path, known: set[str]) -> list[Path]:
    """What a command left in its home beside folders that we know of: an identifier, say, for later reports."""
    found = [path for path in home.iterdir() if path.name not in (".config", ".cache")]
    for folder in (home / ".config", home / ".cache"):
        found += [path for path in folder.glob("*") if path.name not in known]
    return found


def _commands(place: Path, model: str) -> dict[str, list[str]]:
    config = kills.config_of(place)
    clip = str(next((place / "sounds" / "audio").glob("*.wav")))
    preprocessing = [f"{k}={getattr(models.EARS, k)}" for k in ("sample_rate", "clip_seconds", "image_size", "n_fft")]
    split = ["split.train=[1]", "split.val=[2]", "split.test=[3]"]
    quick = [f"{key}={value}" for key, value in kills.QUICK.items()]
    return {
        "prepare": [
            "prepare",
            f"root={config.root}",
            f"cache={config.cache}",
            f"data={config.data}",
            *preprocessing,
            *split,
        ],
        "train": ["train", f"data={config.data}", "epochs=1", f"project={place / 'runs'}", *quick, "imgsz=32"],
        "train with plots": [
            "train",
            f"data={config.data}",
            "epochs=1",
            f"project={place / 'runs'}",
            "imgsz=32",
            *(word for word in quick if not word.startswith("plots")),
            "plots=true",
        ],
        "val": ["val", model, "--data", config.data, "--out", str(place / "val")],
        "predict": ["predict", model, clip],
        "explain": ["explain", model, clip, "--out", str(place / "reasons.png")],
        "export": ["export", model, "--format", "onnx", "--out", str(place / "model.onnx")],
        "predict with ONNX": ["predict", str(place / "model.onnx"), clip],
        "embed": ["embed", model, clip, "--out", str(place / "vectors.parquet")],
        "crossval": [
            "crossval",
            f"root={config.root}",
            f"cache={config.cache}",
            "--name",
            "k",
            "--workers",
            "1",
            "epochs=1",
            "batch=16",
            "device=cpu",
            "model=yolov8n-cls.yaml",
            *preprocessing,
        ],
        "demo": [
            "demo",
            "--out",
            str(place / "demo"),
            "--clips",
            "10",
            "--image-size",
            "32",
            "epochs=1",
            "model=yolov8n-cls.yaml",
        ],  # or else it fetches weights
        "report": ["report", str(place / "val"), "--out", str(place / "report.html")],
        "inspect": ["inspect", f"root={config.root}", *split, "--page", str(place / "inspect.html"), "--workers", "1"],
        "listen": [str(LISTEN_SECONDS), model, "--format", "jsonl"],
        "serve": ["serve", model, "--port", "0"],
    }


def _watch(module: str, words: list[str], place: Path, home: Path) -> list[str]:
    log = place / "calls"
    traced = [
        "strace",
        "-f",
        "-qq",
        "-e",
        "trace=connect,sendto,sendmsg",
        "-o",
        str(log),
        sys.executable,
        "-m",
        module,
    ]
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("YOLO_", "ULTRALYTICS", "XDG_"))}
    kept.pop("SOUNDSIGHT_CACHE", None)
    kept["PYTHONPATH"] = os.pathsep.join(
        [str(Path(__file__).parents[1]), *kept.get("PYTHONPATH", "").split(os.pathsep)]
    )
    process = subprocess.Popen(
        [*traced, *words], cwd=place, env={**kept, "HOME": str(home)}, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    if words[0] == "serve":
        time.sleep(SERVE_SECONDS)
        os.killpg(process.pid, 2)
    said, _ = process.communicate(timeout=900)
    problems = [] if process.returncode in (0, 130) else [f"it fails: {said[-300:]}"]
    calls = [line for line in log.read_text(errors="replace").splitlines() if _CALL.search(line)]
    return problems + [f"it calls out: {line[:160]}" for line in calls[:3]]


if __name__ == "__main__":
    main()
