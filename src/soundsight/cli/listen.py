"""Classify a microphone, live, until Ctrl-C.

soundsight listen last.pt
soundsight listen --list-devices
soundsight listen last.pt --device-name pulse --every 0.5 --threshold 0.6
soundsight listen last.onnx --input 3 --format jsonl >> predictions.jsonl
soundsight listen last.onnx --on siren --off-threshold 0.3 --cooldown 60 --exec 'notify-send siren'
soundsight listen last.onnx --on siren --on baby --mqtt homeassistant.local --save sounds/
arecord -f S16_LE -r 16000 -c 1 -t raw | soundsight listen last.onnx --raw 16000
"""

from __future__ import annotations

import os
import platform
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soundsight.cli import console
from soundsight.cli.options import Given
from soundsight.config.commands import ListenOptions
from soundsight.errors import ConfigError

if TYPE_CHECKING:
    from soundsight.inference.live import Input, LivePrediction
    from soundsight.inference.predictor import Predictor

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
    source: Any = live.Raw(sys.stdin.buffer, options.raw) if options.raw else live.Microphone(chosen)
    how = narrowed(options)
    predictor = open_predictor(options)
    latencies: list[float] = []
    total = 0.0
    with source if not options.raw else nullcontext(), Triggers(options, predictor, source) as triggers:
        name = "standard input" if options.raw else source.device.name
        console.status(f"Listening to {name!r} at {source.sample_rate} Hz; Ctrl-C ends.")
        try:
            for prediction in live.listen(predictor, triggers.source, every_seconds=options.every, options=how):
                if options.on:
                    triggers.add(prediction)
                else:
                    show(prediction, options.format)
                total = prediction.seconds
                latencies = [*latencies[-9999:], prediction.latency_seconds]
        except KeyboardInterrupt:
            pass
    summarise(latencies, total, source.overruns)
    return 0


class Triggers:
    """What is told when classes begin and end, to whom; on standard output, too."""

    def __init__(self, options: ListenOptions, predictor: Predictor, source: Input) -> None:
        from soundsight.inference.options import narrowed, off_thresholds
        from soundsight.inference.triggers import Command, Receiver, Switch, Tape, Webhook, Worker

        self.tape: Tape | None = None
        preprocessing = predictor.classifier.preprocessing
        off = off_thresholds(narrowed(options), preprocessing)
        self.switch = Switch(options.on, predictor.names, off, options.cooldown_seconds)
        found: list[Receiver] = []
        if options.exec_ is not None:
            found.append(Command(options.exec_))
        if options.webhook is not None:
            found.append(Webhook(options.webhook))
        if options.mqtt is not None:
            from soundsight.inference.mqtt import Mqtt

            user, password = options.mqtt_user or "", os.environ.get("SOUNDSIGHT_MQTT_PASSWORD", "")
            node = options.node or platform.node() or "listener"
            found.append(Mqtt(options.mqtt, labels=options.on, node=node, user=user, password=password))
        if options.save is not None:
            before = options.save_seconds + predictor.clip_seconds
            self.tape = Tape(source, Path(options.save), before=before, after=options.save_seconds)
        self.source: Input = self.tape or source
        self.workers = [Worker(receiver) for receiver in found]

    def __enter__(self) -> Triggers:
        return self

    def add(self, prediction: LivePrediction) -> None:
        """Tell what begins or ends with this prediction."""
        from soundsight.inference.triggers import BEGIN

        for message in self.switch.add(prediction):
            print(message.json(), flush=True)
            for worker in self.workers:
                worker.put(message)
            if self.tape and message.event == BEGIN:
                self.tape.keep(message)

    def __exit__(self, *_: object) -> None:
        if self.tape:
            self.tape.close()
        for worker in self.workers:
            worker.close()
            if worker.dropped or worker.failed:
                name = worker.receiver.name
                console.status(f"soundsight: {name}: {worker.failed} messages failed, {worker.dropped} were dropped.")


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
