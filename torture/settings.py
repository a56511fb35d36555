"""Random valid settings from end to end: prepare, train, val, export, and predict in each runtime; no dead end.

    python -m torture.settings --cases 300 --seed 1

Every command must succeed, or say what to change where no training is possible: a size that is no multiple of 32, a
last batch of one clip of 32 pixels. The checkpoint in both runtimes, the ONNX export and `val` must give the same
probabilities for the same clips.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

FORMATS = [  # ending, subtype, sample rate, channels
    ("wav", "PCM_16", 8000, 1),
    ("wav", "FLOAT", 44100, 2),
    ("flac", "PCM_24", 48000, 1),
    ("ogg", "VORBIS", 22050, 2),
    ("mp3", None, 32000, 1),
    ("aiff", "PCM_16", 96000, 1),
]
LABELS = {"low": 300.0, "high": 1200.0}  # Hz
AGREEMENT = 1e-3  # between runtimes, in probability


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    print(json.dumps(run(arguments.cases, arguments.seed), indent=2))


def run(cases: int, seed: int = 1) -> dict[str, Any]:
    """Try so many settings; what was trained, what was refused, and all that went wrong."""
    found: dict[str, Any] = {"cases": cases, "trained": 0, "refused": 0, "largest_difference": 0.0, "problems": []}
    with tempfile.TemporaryDirectory(prefix="soundsight-torture-") as name:
        write_sounds(Path(name, "sounds"))
        for case in range(cases):
            rng = np.random.default_rng([seed, case])
            words, training = random_settings(rng), random_training(rng)
            place = Path(name, f"case{case}")
            place.mkdir()
            try:
                with contextlib.chdir(place):
                    difference = walk(words, training)
            except Exception as error:  # noqa: BLE001  (a traceback is what this looks for)
                found["problems"].append(f"case {case} ({' '.join([*words, *training])}): {error!r}")
                continue
            found["refused" if difference is None else "trained"] += 1
            found["largest_difference"] = max(found["largest_difference"], difference or 0.0)
    return found


def write_sounds(root: Path) -> None:
    """A dozen short recordings of several rates and formats, each label of its own pitch."""
    for label, hz in LABELS.items():
        (root / label).mkdir(parents=True)
        for number, (suffix, subtype, rate, channels) in enumerate(FORMATS):
            time = np.arange(round((0.3 + 0.3 * number) * rate)) / rate
            rng = np.random.default_rng([number, round(hz)])
            sound = 0.4 * np.sin(2 * np.pi * hz * time) + rng.normal(0, 0.03, len(time))
            sound = np.stack([sound] * channels, axis=1)
            soundfile.write(root / label / f"{number}.{suffix}", sound, rate, subtype=subtype)


def random_settings(rng: np.random.Generator) -> list[str]:
    """Valid settings as a user types them; some windows are as long as `n_fft`, some sizes no multiple of 32."""
    rate = int(rng.choice([4000, 8000, 16000, 22050, 44100, rng.integers(3000, 50000)]))
    size = int(rng.choice([32, 64, 96])) if rng.random() < 0.9 else int(rng.integers(32, 97))
    n_fft = int(rng.choice([256, 512, 1024, 2048, rng.integers(64, 2049)]))
    windows = [n_fft if rng.random() < 0.3 else int(rng.integers(2, n_fft + 1)) for _ in range(3)]
    fmin = float(rng.choice([0.0, 20.0, rng.uniform(0, rate / 4)]))
    fmax = "null" if rng.random() < 0.5 else f"{rng.uniform(fmin + 1, rate / 2):.1f}"
    floor = float(rng.choice([-80.0, rng.uniform(-120, -20)]))
    return [
        f"sample_rate={rate}",
        f"clip_seconds={rng.choice([0.1, 0.5, 1.0, rng.uniform(0.1, 2)]):.3f}",
        f"image_size={size}",
        f"n_fft={n_fft}",
        f"windows_ms=[{','.join(f'{1000 * window / rate:.6f}' for window in windows)}]",
        f"fmin_hz={fmin:.1f}",
        f"fmax_hz={fmax}",
        f"db_floor={floor:.1f}",
        f"db_ceiling={floor + rng.uniform(10, 100):.1f}" if rng.random() < 0.3 else "db_ceiling=0",
        f"reference={rng.choice(['clip', 'full_scale'])}",
        f"padding={rng.choice(['silence', 'repeat'])}",
        f"speed_perturbation={rng.choice(['[]', '[0.8,1.25]'])}",
        f"split.seed={rng.integers(0, 5)}",
    ]


def random_training(rng: np.random.Generator) -> list[str]:
    """Arguments of `train`."""
    return [f"batch={rng.integers(1, 12)}", f"augment.mixup={rng.choice([0, 0.5])}", f"seed={rng.integers(0, 5)}"]


def walk(words: list[str], training: list[str]) -> float | None:
    """All commands in the current folder.

    Returns:
        The largest difference of a probability between the ways to compute it; `None` if the settings were refused.

    Raises:
        RuntimeError: A command failed, or its figures are not those of another.
    """
    size = int(next(word for word in words if word.startswith("image_size=")).partition("=")[2])
    prepare = [
        "prepare",
        "../sounds",
        "cache=cache",
        "data=data",
        "split.strategy=group",
        "split.fractions=[0.5,0.25,0.25]",
    ]
    code, text = command([*prepare, *words, "--workers", "1"])
    if size % 32 and code == 2 and "cannot be trained" in text:
        return None
    if code:
        raise RuntimeError(f"prepare ends with {code}: {text[-300:]}")
    train = ["model=yolov8n-cls.yaml", "epochs=2", f"imgsz={size}", "device=cpu", "workers=0", "plots=False"]
    code, text = command(["train", "data=data", *train, *training, "project=runs", "name=run"])
    if size == 32 and code == 2 and "change batch" in text:  # one clip is left for the last batch
        return None
    if code:
        raise RuntimeError(f"train ends with {code}: {text[-300:]}")
    last = "runs/run/weights/last.pt"
    must("val", last, "--data", "data", "--split", "test", "--out", "scored", "--device", "cpu")
    must("export", last, "--out", "model.onnx")
    ways = {
        "pytorch": table(last, "--runtime", "pytorch"),
        "onnxruntime": table(last, "--runtime", "onnxruntime"),
        "export": table("model.onnx"),
    }
    reference = ways["pytorch"]
    if any(found.keys() != reference.keys() for found in ways.values()):
        raise RuntimeError("the runtimes prediction other windows or classes")
    with open("scored/predictions.csv", encoding="utf-8", newline="") as file:
        of_clips = {
            (f"../sounds/{row['clip']}", float(row["start_seconds"]), float(row["end_seconds"]), row["predicted"]): row
            for row in csv.DictReader(file)
        }
    ways["val"] = {key: float(row["probability"]) for key, row in of_clips.items() if key in reference}
    if not ways["val"]:
        raise RuntimeError("predict predictions none of the clips that val scores")
    differences = {
        name: max(abs(probability - reference[key]) for key, probability in found.items())
        for name, found in ways.items()
    }
    if max(differences.values()) > AGREEMENT:
        raise RuntimeError(f"probabilities differ: {differences}")
    return max(differences.values())


def table(model: str, *words: str) -> dict[tuple[str, float, float, str], float]:
    """Probabilities by recording, start, end and class."""
    must("predict", model, "../sounds", *words, "--device", "cpu", "--out", "found.jsonl", "--threads", "1")
    rows = [json.loads(line) for line in Path("found.jsonl").read_text(encoding="utf-8").splitlines()]
    return {(row["recording"], row["start"], row["end"], row["label"]): row["probability"] for row in rows}


def must(*words: str) -> None:
    """Run a command that has to succeed."""
    code, text = command(list(words))
    if code:
        raise RuntimeError(f"{words[0]} ends with {code}: {text[-300:]}")


def command(words: list[str]) -> tuple[int, str]:
    """Run a command here: its exit code, and its messages."""
    from soundsight.cli import main as soundsight

    messages = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(messages):
        code = soundsight(words)
    return code, messages.getvalue()


if __name__ == "__main__":
    os.environ.setdefault("YOLO_VERBOSE", "false")
    main()
