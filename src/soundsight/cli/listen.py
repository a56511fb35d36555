"""Classify a microphone, live, until Ctrl-C.

soundsight listen last.pt
soundsight listen --list-devices
soundsight listen last.pt --device-name pulse --every 0.5 --threshold 0.6
soundsight listen last.onnx --input 3 --format jsonl >> predictions.jsonl
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from soundsight.cli import console
from soundsight.cli.options import Given
from soundsight.config.commands import ListenOptions
from soundsight.errors import ConfigError

if TYPE_CHECKING:
    from soundsight.inference.live import LivePrediction

OPTIONS = ListenOptions


def run(options: ListenOptions, given: Given) -> int:
    from soundsight.cli.predict import open_predictor
    from soundsight.inference import live
    from soundsight.inference.options import narrowed

    if options.list_devices:
        found = live.devices()
        if not found:
            console.status("This machine has no sound input.")
        for device in found:
            mark = "*" if device.default else " "
            console.output(
                f"{mark}{device.index:4}  {device.sample_rate:6} Hz  {device.channels:3} channels  {device.name}"
            )
        return 0
    if not options.model:
        raise ConfigError("No model is named; write `soundsight listen MODEL`, or --list-devices.")
    if options.input is not None and options.device_name:
        raise ConfigError("--input and --device-name both name a sound input; give one of them.")
    chosen = options.input if options.input is not None else options.device_name
    microphone = live.Microphone(chosen)
    how = narrowed(options)
    predictor = open_predictor(options)
    latencies: list[float] = []
    total = 0.0
    with microphone:
        name, rate = microphone.device.name, microphone.sample_rate
        console.status(f"Listening to {name!r} at {rate} Hz; Ctrl-C ends.")
        try:
            for prediction in live.listen(predictor, microphone, every_seconds=options.every, options=how):
                show(prediction, options.format)
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
