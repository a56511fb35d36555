"""How fast predictions come, and how much memory they take: one clip, ten hours, 2,000 short files.

    python -m benchmarks.predicting [--model last.pt] [--hours 10] [--files 2000] [--parts latency,others] [--quick]

Without --model, an untrained YOLOv8n-cls of 50 classes stands in: it is as fast as a trained one. The parts:

commands   wall time of whole commands: --help, and one clip from a cold start
latency    one 5-second clip, model loaded: file to predict, beside its own parts and the floor (decoding and
           resampling by soundfile and soxr, then the network, and nothing else), each some calls at a time and all
           in turns, for three runtimes, one and two threads; a process that may use so many threads is pinned to so
           many cores
agreement  the largest difference of a probability from PyTorch's, for every runtime
short      a folder of 5-second files through the command
long       one long FLAC file through the command: hours a minute, and whether memory grows with the length; by
           the default runtime the whole of --hours, by the others an hour
others     what one might use instead, from waveform to probabilities: see benchmarks/others.py

Each measurement runs in a process of its own. benchmarks/results/predicting.json is written after every part, so
a run that is stopped leaves what it has measured.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from benchmarks import machine

COMMAND = [sys.executable, "-m", "soundsight"]
RATE = 44100  # Hz of the sounds that are written here; models resample to their own
RUNTIMES = ("pytorch", "onnxruntime", "openvino")
THREADS = (1, 2)
TURNS = 10  # of each part of a prediction


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--hours", type=float, default=10)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--repeat", type=int, default=200)
    parser.add_argument("--parts", default=",".join(PARTS), help="some of them, with commas (default: all)")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    parser.add_argument("--out", type=Path, default=machine.RESULTS / "answering.json")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--runtime", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(CHILDREN[arguments.child](arguments)))
        return
    if arguments.quick:
        arguments.hours, arguments.files, arguments.repeat = 0.05, 40, 20
    wanted = arguments.parts.split(",")
    if unknown := set(wanted) - set(PARTS):
        parser.error(f"there are no parts {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    with tempfile.TemporaryDirectory(prefix="soundsight-bench-") as folder:
        os.environ["SOUNDSIGHT_CACHE"] = str(Path(folder, "cache"))
        measure(arguments, Path(folder), wanted)


def measure(arguments: argparse.Namespace, place: Path, wanted: list[str]) -> None:
    """Measure part after part, and write down each as soon as it is there."""
    result: dict[str, Any] = {
        **machine.describe(),
        "model": arguments.model.name if arguments.model else "untrained yolov8n-cls, 50 classes",
    }
    model = place / "model.pt"
    if arguments.model:
        shutil.copy(arguments.model, model)
    else:
        child(arguments, "untrained", place, model)
    write_clips(place / "clips")
    models = {"pytorch": model}
    for runtime, form, name in (("onnxruntime", "onnx", "model.onnx"), ("openvino", "openvino", "openvino")):
        words = [*COMMAND, "export", str(model), "--format", form, "--out", str(place / name)]
        if subprocess.run(words, capture_output=True, check=False).returncode == 0:
            models[runtime] = place / name
    for part in wanted:
        begun = time.perf_counter()
        result[part] = PARTS[part](arguments, place, models)
        seconds = round(time.perf_counter() - begun, 1)
        result.setdefault("seconds_of_the_parts", {})[part] = seconds
        result["load_average_after"] = round(os.getloadavg()[0], 2)
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        print(f"{part} ({seconds} s): {json.dumps(result[part])}", flush=True)
    print(f"Written: {arguments.out}")


def child(arguments: argparse.Namespace, what: str, place: Path, model: Path, *more: str, cores: int = 0) -> Any:
    """What one measurement found in a process of its own, pinned to so many cores."""
    words = ["--child", what, "--place", str(place), "--model", str(model), "--repeat", str(arguments.repeat), *more]
    return json.loads(output([sys.executable, "-m", "benchmarks.answering", *words], cores=cores))


def output(command: list[str], *, cores: int = 0) -> str:
    """The last line that a command prints."""
    pin = None
    if cores and hasattr(os, "sched_setaffinity"):
        chosen = sorted(os.sched_getaffinity(0))[:cores]
        pin = lambda: os.sched_setaffinity(0, chosen)  # noqa: E731
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=machine.ROOT, preexec_fn=pin)
    return done.stdout.splitlines()[-1]


def write_clips(folder: Path, count: int = 50, seconds: float = 5.0) -> None:
    """Synthesised clips as 16-bit WAV."""
    from soundsight.synthesis.dataset import CLASSES, synthesise

    folder.mkdir()
    for number in range(count):
        name = CLASSES[number % len(CLASSES)]
        clip = synthesise(name, seed=number, sample_rate=RATE, seconds=seconds)
        soundfile.write(folder / f"{number:02d}-{name}.wav", clip, RATE, "PCM_16")


def clips_of(place: Path) -> list[Path]:
    return sorted((place / "clips").glob("*.wav"))


def commands(arguments: argparse.Namespace, place: Path, models: dict[str, Path]) -> dict[str, float]:
    """Wall seconds of whole commands, the median of three after one that fills the disk cache."""
    clip = str(clips_of(place)[0])
    words = {
        "--help": ["--help"],
        "predict --help": ["predict", "--help"],
        "first prediction, checkpoint, converted before": ["predict", str(models["pytorch"]), clip],
        "first prediction, checkpoint, PyTorch": ["predict", str(models["pytorch"]), clip, "--runtime", "pytorch"],
    }
    if "onnxruntime" in models:
        words["first prediction, ONNX file"] = ["predict", str(models["onnxruntime"]), clip]
    found = {}
    for name, line in words.items():
        times = []
        for _ in range(4):
            start = time.perf_counter()
            subprocess.run([*COMMAND, *line], check=True, capture_output=True)
            times.append(time.perf_counter() - start)
        if "converted" in name:
            found["first prediction, checkpoint, never used before"] = round(times[0], 3)
        found[name] = round(statistics.median(times[1:]), 3)
    return found


def latency(arguments: argparse.Namespace, place: Path, models: dict[str, Path]) -> dict[str, Any]:
    """One clip, by runtime and threads."""
    found = {}
    for runtime, model in models.items():
        for threads in THREADS:
            words = ("--threads", str(threads), "--runtime", "pytorch" if runtime == "pytorch" else "auto")
            found[f"{runtime}, {threads} thread{'s' * (threads > 1)}"] = child(
                arguments, "one_clip", place, model, *words, cores=threads
            )
    return found


def agreement(arguments: argparse.Namespace, place: Path, models: dict[str, Path]) -> dict[str, Any]:
    """Largest difference of a probability from PyTorch's over the clips, and how often the first class is the same."""
    answers = {}
    for runtime, model in models.items():
        how = ("--runtime", "pytorch" if runtime == "pytorch" else "auto")
        answers[runtime] = np.array(child(arguments, "probabilities", place, model, *how))
    expected = answers.pop("pytorch")
    return {
        runtime: {
            "clips": len(expected),
            "largest_difference": float(f"{np.abs(found - expected).max():.2g}"),
            "same_first_class": int((found.argmax(axis=1) == expected.argmax(axis=1)).sum()),
        }
        for runtime, found in answers.items()
    }


def short(arguments: argparse.Namespace, place: Path, models: dict[str, Path]) -> dict[str, Any]:
    """A folder of 5-second files, through the command."""
    folder, clips = place / "short", clips_of(place)
    folder.mkdir()
    for number in range(arguments.files):
        os.link(clips[number % len(clips)], folder / f"{number:05d}.wav")
    found = {}
    for runtime, model in models.items():
        seconds, peak = watched([*answer(runtime, model, folder), "--out", str(place / "short.csv")])
        found[runtime] = {
            "files": arguments.files,
            "seconds": round(seconds, 1),
            "files_per_second": round(arguments.files / seconds, 1),
            "peak_mib": round(peak),
        }
    return found


def long(arguments: argparse.Namespace, place: Path, models: dict[str, Path]) -> dict[str, Any]:
    """One long FLAC file of clips in a row, through the command."""
    default = "onnxruntime" if "onnxruntime" in models else "pytorch"
    found: dict[str, Any] = {}
    for runtime, model in models.items():
        for hours in (0.1, arguments.hours if runtime == default else min(1.0, arguments.hours)):
            path = place / f"{hours:g}-hours.flac"
            if not path.exists():
                write_long(path, clips_of(place), round(hours * 720))
            csv = place / "long.csv"
            seconds, peak = watched([*answer(runtime, model, path), "--top-k", "1", "--out", str(csv)])
            with csv.open(encoding="utf-8") as lines:
                windows = sum(1 for _ in lines) - 1
            found.setdefault(runtime, {})[f"{hours:g} h"] = {
                "windows": windows,
                "seconds": round(seconds, 1),
                "hours_a_minute": round(hours / seconds * 60, 2),
                "peak_mib": round(peak),
            }
    return found


def others(arguments: argparse.Namespace, place: Path, models: dict[str, Path]) -> dict[str, Any]:
    """What one might use instead, in processes of their own."""
    from benchmarks.others import NETWORKS

    found = {}
    for name in NETWORKS:
        for threads in THREADS:
            words = [sys.executable, "-m", "benchmarks.others", name, "--threads", str(threads)]
            words += ["--repeat", str(max(3, min(20, arguments.repeat // 5)))]
            found[f"{name}, {threads} thread{'s' * (threads > 1)}"] = json.loads(output(words, cores=threads))
    return found


def answer(runtime: str, model: Path, source: Path) -> list[str]:
    """The command that predictions."""
    return [*COMMAND, "predict", str(model), str(source), "--device", "cpu"] + (
        ["--runtime", "pytorch"] if runtime == "pytorch" else []
    )


def watched(command: list[str]) -> tuple[float, float]:
    """Wall seconds and peak memory in MiB of a command, found by its own parent."""
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)"
    )
    start = time.perf_counter()
    peak = float(output([sys.executable, "-c", code, *command]))
    return time.perf_counter() - start, peak


def write_long(path: Path, clips: list[Path], count: int) -> None:
    """So many clips in a row as one FLAC file."""
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16", compression_level=0.0) as file:
        for sound in endless(clips, count):
            file.write(sound)


def endless(clips: list[Path], count: int) -> Iterator[np.ndarray]:
    sounds = [soundfile.read(clip, dtype="int16")[0] for clip in clips]
    for number in range(count):
        yield sounds[number % len(sounds)]


# -- in processes of their own ----------------------------------------------------------------------------


def untrained(arguments: argparse.Namespace) -> str:
    """Write a checkpoint of a network that has learned nothing."""
    import torch

    from soundsight.backend.checkpoint import make_preprocessing
    from soundsight.config import SpectrogramConfig

    # isort: split
    from ultralytics.nn.tasks import ClassificationModel

    model = ClassificationModel("yolov8n-cls.yaml", nc=50, verbose=False)
    model.names = {number: f"class {number:02d}" for number in range(50)}
    model.args = {"imgsz": 224, "task": "classify", "model": "yolov8n-cls.yaml"}
    model.soundsight = make_preprocessing(SpectrogramConfig(), list(model.names.values()))
    torch.save({"model": model.half(), "ema": None, "train_args": model.args}, arguments.model)
    return str(arguments.model)


def probabilities(arguments: argparse.Namespace) -> list[list[float]]:
    """Predictions to all clips."""
    predictor = loaded(arguments)
    return [predictor(clip).summary.probabilities.tolist() for clip in clips_of(arguments.place)]


def one_clip(arguments: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds from a file to its prediction, of its parts, and of the floor, the model being loaded."""
    import soxr

    from soundsight.inference.segments import cut, draw, file_source

    start = time.perf_counter()
    predictor = loaded(arguments)
    loading = time.perf_counter() - start
    clips, preprocessing = clips_of(arguments.place), predictor.spectrogram
    images: list[Any] = []

    def read_and_draw(clip: Path) -> None:
        with file_source(clip).open() as (info, blocks):
            for stretch in cut(blocks, info.sample_rate, preprocessing, window_seconds=5.0, hop_seconds=5.0):
                images[:] = draw(stretch, preprocessing)[0]

    def decode_and_resample(clip: Path) -> None:
        samples, rate = soundfile.read(clip, dtype="float32")
        soxr.resample(samples, rate, preprocessing.sample_rate, quality="HQ")

    def answer_picture(_: Path) -> None:
        predictor.classifier.probabilities(images[0][None])

    def decode_and_answer(clip: Path) -> None:
        decode_and_resample(clip)
        answer_picture(clip)

    start = time.perf_counter()
    predictor(clips[0])
    first = time.perf_counter() - start
    ways = {
        "whole": predictor,
        "draw": read_and_draw,
        "network": answer_picture,
        "decode": decode_and_resample,
        "floor": decode_and_answer,
    }
    turns: list[dict[str, float]] = []
    whole: list[float] = []
    for _ in range(TURNS):
        found = {way: times(function, clips, arguments.repeat // TURNS) for way, function in ways.items()}
        whole += found["whole"]
        turns.append({way: statistics.median(several) for way, several in found.items()})
    median = {way: round(statistics.median(turn[way] for turn in turns), 2) for way in ways}
    ratios = [turn["whole"] / turn["floor"] for turn in turns]
    return {
        "p50_ms": median["whole"],
        "p95_ms": round(np.percentile(whole, 95), 2),
        "least_ms": round(min(whole), 2),
        "read_and_draw_p50_ms": median["draw"],
        "network_p50_ms": median["network"],
        "decode_and_resample_p50_ms": median["decode"],
        "floor_p50_ms": median["floor"],
        "times_the_floor": round(statistics.median(ratios), 2),
        "times_the_floor_range": [round(min(ratios), 2), round(max(ratios), 2)],
        "import_and_load_seconds": round(loading, 2),
        "first_answer_seconds": round(first, 3),
    }


def times(function: Callable[[Path], Any], clips: list[Path], repeat: int) -> list[float]:
    """Milliseconds of each call, after three that warm up."""
    found = []
    for number in range(-3, repeat):
        start = time.perf_counter()
        function(clips[number % len(clips)])
        if number >= 0:
            found.append(1000 * (time.perf_counter() - start))
    return found


def loaded(arguments: argparse.Namespace) -> Any:
    from soundsight import load

    return load(arguments.model, device="cpu", threads=arguments.threads, runtime=arguments.runtime)


PARTS: dict[str, Callable[..., Any]] = {
    "commands": commands,
    "latency": latency,
    "agreement": agreement,
    "short": short,
    "others": others,
    "long": long,
}
CHILDREN: dict[str, Callable[[argparse.Namespace], Any]] = {
    "untrained": untrained,
    "one_clip": one_clip,
    "probabilities": probabilities,
}

if __name__ == "__main__":
    main()
