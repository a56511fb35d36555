"""How fast answers come, and how much memory they take: one clip, ten hours, 2,000 short files.

    python -m benchmarks.answering [--model last.pt] [--hours 10] [--files 2000] [--clips FOLDER --fold 1]

Without --model, an untrained YOLOv8n-cls of 50 classes stands in: it is as fast as a trained one. With
--clips, a folder of ESC-50 clips, their answers through `val` on pictures, `predict` on files, the API on
arrays, ONNX and TorchScript are compared too; that needs a trained model. Each measurement runs in a process
of its own. Writes benchmarks/results/answering.json.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-m", "soundsight"]
RATE = 44100  # Hz of the sounds that are written here; models resample to their own


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--hours", type=float, default=10)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--clips", type=Path, help="folder of ESC-50 clips, for the comparison of answers")
    parser.add_argument("--fold", type=int, default=1, help="the fold that the model has not heard (default: 1)")
    parser.add_argument("--repeat", type=int, default=100)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        print(json.dumps(PARTS[arguments.part](arguments)))
        return
    with tempfile.TemporaryDirectory(prefix="soundsight-bench-") as folder:
        result = measure(arguments, Path(folder))
    target = Path(__file__).parent / "results" / "answering.json"
    target.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


def measure(arguments: argparse.Namespace, place: Path) -> dict[str, Any]:
    """All measurements."""
    checkpoint = place / "model.pt"
    if arguments.model:
        shutil.copy(arguments.model, checkpoint)
    else:
        subprocess.run([*child(arguments, "untrained", place, checkpoint)], check=True, capture_output=True)
    exported = place / "model.onnx"
    subprocess.run([*COMMAND, "export", str(checkpoint), "--out", str(exported)], check=True, capture_output=True)
    clips = write_clips(place / "clips")
    load_before = os.getloadavg()[0]
    result: dict[str, Any] = {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "load_average_before": load_before,
        "model": arguments.model.name if arguments.model else "untrained yolov8n-cls, 50 classes",
        "command_seconds": command_seconds(checkpoint, exported, clips[0]),
    }
    for model, engine in ((checkpoint, "pytorch"), (exported, "onnxruntime")):
        for threads in (1, 2):
            key = f"{engine}, {threads} thread{'s' * (threads > 1)}"
            found = json.loads(output(child(arguments, "latency", place, model, "--threads", str(threads))))
            result.setdefault("latency_of_a_5_s_clip", {})[key] = found
            print(key, found, flush=True)
    for model, engine in ((checkpoint, "pytorch"), (exported, "onnxruntime")):
        short = many_files(model, place, arguments.files, clips)
        result.setdefault("short_files", {})[engine] = short
        long = {f"{hours:g} h": long_recording(model, place, hours, clips) for hours in (0.1, arguments.hours)}
        result.setdefault("long_recording", {})[engine] = long
        print(engine, short, long, flush=True)
    if arguments.clips:
        words = ["--clips", str(arguments.clips), "--fold", str(arguments.fold)]
        result["agreement"] = json.loads(output(child(arguments, "agreement", place, checkpoint, *words)))
    result["load_average_after"] = os.getloadavg()[0]
    return result


def child(arguments: argparse.Namespace, part: str, place: Path, model: Path, *more: str) -> list[str]:
    """The command that measures one part in a process of its own."""
    words = ["--part", part, "--place", str(place), "--model", str(model), "--repeat", str(arguments.repeat)]
    return [sys.executable, "-m", "benchmarks.answering", *words, *more]


def output(command: list[str]) -> str:
    """The last line that a command prints."""
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    return done.stdout.splitlines()[-1]


def write_clips(folder: Path, count: int = 50, seconds: float = 5.0) -> list[Path]:
    """Synthesised clips as 16-bit WAV."""
    from soundsight.demo import CLASSES, synthesise

    folder.mkdir()
    paths = []
    for number in range(count):
        name = CLASSES[number % len(CLASSES)]
        clip = synthesise(name, seed=number, sample_rate=RATE, seconds=seconds)
        paths.append(folder / f"{number:02d}-{name}.wav")
        soundfile.write(paths[-1], clip, RATE, "PCM_16")
    return paths


def command_seconds(checkpoint: Path, exported: Path, clip: Path) -> dict[str, float]:
    """Wall time of whole commands, the median of five after one that fills the disk cache."""

    def seconds(words: list[str]) -> float:
        times = []
        for _ in range(6):
            start = time.perf_counter()
            subprocess.run([*COMMAND, *words], check=True, capture_output=True)
            times.append(time.perf_counter() - start)
        return round(statistics.median(times[1:]), 3)

    return {
        "--help": seconds(["--help"]),
        "predict --help": seconds(["predict", "--help"]),
        "predict, checkpoint, one clip": seconds(["predict", str(checkpoint), str(clip)]),
        "predict, ONNX, one clip": seconds(["predict", str(exported), str(clip)]),
    }


def untrained(arguments: argparse.Namespace) -> str:
    """Write a checkpoint of a network that has learned nothing."""
    import torch

    from soundsight.config import SpectrogramConfig
    from soundsight.yolo.checkpoint import make_ears

    # isort: split
    from ultralytics.nn.tasks import ClassificationModel

    model = ClassificationModel("yolov8n-cls.yaml", nc=50, verbose=False)
    model.names = {number: f"class {number:02d}" for number in range(50)}
    model.args = {"imgsz": 224, "task": "classify", "model": "yolov8n-cls.yaml"}
    model.soundsight = make_ears(SpectrogramConfig(), list(model.names.values()))
    torch.save({"model": model.half(), "ema": None, "train_args": model.args}, arguments.model)
    return str(arguments.model)


def latency(arguments: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds from a file to its answer, the model being loaded."""
    from soundsight import load
    from soundsight.predict.windows import cut, draw, file_source

    clips = sorted((arguments.place / "clips").glob("*.wav"))
    start = time.perf_counter()
    listener = load(arguments.model, device="cpu", threads=arguments.threads)
    loading = time.perf_counter() - start
    for clip in clips[:10]:
        listener(clip)
    times, drawing = [], []
    for number in range(arguments.repeat):
        start = time.perf_counter()
        listener(clips[number % len(clips)])
        times.append(1000 * (time.perf_counter() - start))
    for number in range(arguments.repeat):
        start = time.perf_counter()
        with file_source(clips[number % len(clips)]).open() as (info, blocks):
            ears = listener.spectrogram
            for stretch in cut(blocks, info.sample_rate, ears, window_seconds=5.0, hop_seconds=5.0):
                draw(stretch, ears)
        drawing.append(1000 * (time.perf_counter() - start))
    p50, p95 = np.percentile(times, [50, 95])
    return {
        "p50_ms": round(p50, 1),
        "p95_ms": round(p95, 1),
        "least_ms": round(min(times), 1),
        "of_which_reading_and_drawing_p50_ms": round(statistics.median(drawing), 1),
        "import_and_load_seconds": round(loading, 2),
    }


def run_and_watch(command: list[str]) -> tuple[float, float]:
    """Wall seconds and peak memory in MiB of a command, found by its own parent."""
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)"
    )
    start = time.perf_counter()
    peak = float(output([sys.executable, "-c", code, *command]))
    return time.perf_counter() - start, peak


def many_files(model: Path, place: Path, count: int, clips: list[Path]) -> dict[str, float]:
    """A folder of 5-second files, through the command."""
    folder = place / "many"
    if not folder.exists():
        folder.mkdir()
        for number in range(count):
            shutil.copy(clips[number % len(clips)], folder / f"{number:05d}.wav")
    words = ["predict", str(model), str(folder), "--out", str(place / "many.csv"), "--device", "cpu"]
    seconds, peak = run_and_watch([*COMMAND, *words])
    return {
        "files": count,
        "seconds": round(seconds, 1),
        "files_per_second": round(count / seconds, 1),
        "peak_mib": round(peak),
    }


def long_recording(model: Path, place: Path, hours: float, clips: list[Path]) -> dict[str, float]:
    """One long FLAC file of clips in a row, through the command."""
    path = place / f"{hours:g}-hours.flac"
    if not path.exists():
        with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16") as file:
            for block in endless(clips, round(hours * 720)):
                file.write(block)
    words = ["predict", str(model), str(path), "--out", str(place / "long.csv"), "--device", "cpu"]
    seconds, peak = run_and_watch([*COMMAND, *words])
    lines = sum(1 for _ in (place / "long.csv").open(encoding="utf-8"))
    return {
        "windows": (lines - 1) // 5,
        "seconds": round(seconds, 1),
        "hours_a_minute": round(hours / seconds * 60, 2),
        "peak_mib": round(peak),
    }


def endless(clips: list[Path], count: int) -> Iterator[np.ndarray]:
    """So many clips in a row."""
    sounds = [soundfile.read(clip, dtype="int16")[0] for clip in clips]
    for number in range(count):
        yield sounds[number % len(sounds)]


def agreement(arguments: argparse.Namespace) -> dict[str, Any]:
    """Answers to all clips of one fold, by five ways; the first is `val` on pictures."""
    from soundsight import load
    from soundsight.dataset.catalogue import Clip
    from soundsight.dataset.pictures import draw_clip, encode_png
    from soundsight.experiment.scoring import logits_of
    from soundsight.yolo.classifier import softmax
    from soundsight.yolo.export import export

    files = sorted(arguments.clips.glob(f"{arguments.fold}-*.wav"))
    listener = load(arguments.model, device="cpu")
    pictures = []
    (arguments.place / "png").mkdir(exist_ok=True)
    for number, file in enumerate(files):
        pictures.append(arguments.place / "png" / f"{number:04d}.png")
        image = draw_clip(Clip(file, file.name, "", "", ""), listener.spectrogram)
        pictures[-1].write_bytes(encode_png(image, "benchmark"))
    temperature = listener.classifier.ears.temperature
    by_way = {"val on pictures": softmax(logits_of(listener.classifier, pictures), temperature)}

    def answers(model: Any, sources: list[Any]) -> np.ndarray:
        return np.stack([model(*source).windows[0].probabilities for source in sources])

    paths = [(file,) for file in files]
    by_way["predict on files"] = answers(listener, paths)
    by_way["API on arrays"] = answers(listener, [soundfile.read(file, dtype="int16") for file in files])
    for form in ("onnx", "torchscript"):
        made = export(arguments.model, form, out=arguments.place / f"agree.{form}")
        by_way[form] = answers(load(made, device="cpu"), paths)
    first = by_way["val on pictures"]
    return {
        "clips": len(files),
        **{
            way: {
                "same_top_1": int((found.argmax(1) == first.argmax(1)).sum()),
                "largest_difference": float(f"{np.abs(found - first).max():.2g}"),
            }
            for way, found in by_way.items()
        },
    }


PARTS = {"untrained": untrained, "latency": latency, "agreement": agreement}

if __name__ == "__main__":
    main()
