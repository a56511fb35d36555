"""`soundsight listen`."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from soundsight.cli import console
from soundsight.cli.predict import add_members, add_runtime
from soundsight.errors import ConfigError

if TYPE_CHECKING:
    from soundsight.inference.live import LivePrediction

SUMMARY = "Classify a microphone, live, until Ctrl-C."
EXAMPLES = [
    "soundsight listen last.pt",
    "soundsight listen --list-devices",
    "soundsight listen last.pt --device-name pulse --every 0.5 --threshold 0.6",
    "soundsight listen last.onnx --input 3 --format jsonl >> predictions.jsonl",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare arguments."""
    parser.add_argument("model", nargs="?", help="a checkpoint .pt or an exported model")
    parser.add_argument("--list-devices", action="store_true", help="list the sound inputs of this machine")
    parser.add_argument("--input", type=int, metavar="N", help="number of the sound input")
    parser.add_argument("--device-name", metavar="NAME", help="sound input whose name contains NAME")
    parser.add_argument(
        "--every", type=float, default=1.0, metavar="S", help="seconds between predictions (default: 1)"
    )
    parser.add_argument("--format", choices=("table", "jsonl"), default="table", help="default: table")
    parser.add_argument(
        "--threshold",
        action="append",
        default=[],
        metavar="P",
        help="a top class below P is 'unknown'; CLASS=P for one class; may be repeated (default: the model's, if any)",
    )
    add_members(parser)
    console.add_tta(parser)
    parser.add_argument("--threads", type=int, metavar="N", help="processor threads (default: all)")
    add_runtime(parser)
    console.add_model_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Listen."""
    from soundsight.cli.predict import open_predictor, parse_thresholds
    from soundsight.inference import Options, live

    if arguments.list_devices:
        found = live.devices()
        if not found:
            console.status("This machine has no sound input.")
        for device in found:
            mark = "*" if device.default else " "
            console.output(
                f"{mark}{device.index:4}  {device.sample_rate:6} Hz  {device.channels:3} channels  {device.name}"
            )
        return 0
    if not arguments.model:
        raise ConfigError("No model is named; write `soundsight listen MODEL`, or --list-devices.")
    if arguments.input is not None and arguments.device_name:
        raise ConfigError("--input and --device-name both name a sound input; give one of them.")
    chosen = arguments.input if arguments.input is not None else arguments.device_name
    microphone = live.Microphone(chosen)
    thresholds = parse_thresholds(arguments.threshold)
    options = Options(threshold=thresholds, shifts=arguments.shifts, speeds=arguments.speeds)
    predictor = open_predictor(arguments)
    latencies: list[float] = []
    total = 0.0
    with microphone:
        name, rate = microphone.device.name, microphone.sample_rate
        console.status(f"Listening to {name!r} at {rate} Hz; Ctrl-C ends.")
        try:
            for prediction in live.listen(predictor, microphone, every_seconds=arguments.every, options=options):
                show(prediction, arguments.format)
                total = prediction.seconds
                latencies = [*latencies[-9999:], prediction.latency_seconds]
        except KeyboardInterrupt:
            pass
    summarise(latencies, total, microphone.overruns)
    return 0


def show(prediction: LivePrediction, form: str) -> None:
    """Print one prediction."""
    if form == "jsonl":
        from soundsight.inference.formats.base import json_line

        row = {
            "seconds": round(prediction.seconds, 3),
            "label": prediction.label,
            "labels": list(prediction.labels),
            "probability": round(prediction.probability, 6),
            "latency_ms": round(1000 * prediction.latency_seconds, 1),
        }
        print(json_line(row), flush=True)
        return
    minutes, seconds = divmod(prediction.seconds, 60)
    clock = f"{int(minutes // 60)}:{int(minutes % 60):02d}:{seconds:04.1f}"
    label = ", ".join(prediction.labels) or prediction.label
    console.output(f"{clock}  {label:24} {prediction.probability:5.3f}  {1000 * prediction.latency_seconds:5.0f} ms")


def summarise(latencies: list[float], seconds: float, overruns: int) -> None:
    """Say how it went."""
    sys.stdout.flush()
    if not latencies:
        console.status("Stopped before the first prediction.")
        return
    ordered = sorted(latencies)
    middle, high = ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    console.status(
        f"Stopped after {seconds:.1f} s and {len(latencies)} answers; latency {1000 * middle:.0f} ms (median), "
        f"{1000 * high:.0f} ms (95 %); {overruns} overruns."
    )
