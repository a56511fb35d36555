"""`soundsight explain`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from soundsight.cli import console, outputs
from soundsight.errors import AudioError, ConfigError

if TYPE_CHECKING:
    from soundsight.inference import Listener, Window
    from soundsight.inference.pipeline import Drawn
    from soundsight.spectrogram import Image

SUMMARY = "Show which sounds, when and at which frequency, spoke for a class: a heat map with s and Hz."
EXAMPLES = [
    "soundsight explain last.pt clip.wav                         # writes clip-reasons.png",
    "soundsight explain last.pt clip.wav --class dog --out dog.pdf",
    "soundsight explain last.pt night.flac --start 125           # the window that begins at 125 s",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare arguments."""
    parser.add_argument("model", help="a checkpoint .pt")
    parser.add_argument("clip", help="a recording; of a long one the window where the class is likeliest")
    parser.add_argument("--class", dest="label", metavar="NAME", help="default: the most probable class")
    parser.add_argument("--start", type=float, metavar="S", help="second at which the window begins")
    parser.add_argument("--out", metavar="FILE", help=".png, .pdf or .svg; default: <clip>-reasons.png")
    outputs.add_overwrite(parser)
    console.add_model_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Explain."""
    from soundsight.cli.predict import open_listener
    from soundsight.inference.explain import class_index, explain
    from soundsight.reports.saliency import draw_heat

    out = Path(arguments.out or f"{Path(arguments.clip).stem}-reasons.png")
    console.check_ending(str(out), *console.FIGURES)
    if arguments.start is not None and arguments.start < 0:
        raise ConfigError(f"--start {arguments.start:g} is before the recording begins; 0 or more is allowed.")
    with outputs.claimed(arguments, [out], outputs.FIGURE, [arguments.model, arguments.clip, arguments.spectrogram]):
        listener = open_listener(arguments)
        index = class_index(listener.names, arguments.label)
        window, image = find_window(listener, arguments.clip, index, arguments.start)
        reason = explain(listener.classifier, image, arguments.label)
        title = f"{Path(arguments.clip).name}: {reason.label} {reason.probability:.1%}"
        draw_heat(
            image, reason.heat, listener.spectrogram, out, title=title,
            start_seconds=window.start_seconds, end_seconds=window.end_seconds,
        )  # fmt: skip
    console.tell(f"{title}, heard from {window.start_seconds:g} to {window.end_seconds:g} s; heat map: {out}")
    return 0


def find_window(listener: Listener, clip: str, index: int | None, start: float | None) -> tuple[Window, Image]:
    """The window to explain with its picture: where asked for, or where the class is likeliest.

    Raises:
        AudioError: The recording cannot be read, is silent, or is over before `start`.
    """
    from soundsight.inference import Options
    from soundsight.inference.segments import array_source, file_source

    source = file_source(clip)
    if start is not None:
        from soundsight import audio

        rate = audio.probe(clip).sample_rate
        source = array_source(
            audio.read(clip, sample_rate=rate, start_seconds=start, duration_seconds=listener.clip_seconds), rate
        )
    found: list[tuple[float, Window, Image]] = []

    def watch(window: Window, drawn: Drawn) -> None:
        value = window.probability if index is None else float(window.probabilities[index])
        if not window.silent and (not found or value > found[0][0]):
            found[:] = [(value, window, drawn.image)]

    for event in listener.stream([source], Options(), watch=watch):
        if getattr(event, "failure", ""):
            raise AudioError(event.failure)  # type: ignore[union-attr]
    if not found:
        raise AudioError(f"{clip} holds nothing but silence there, so there is nothing to explain.")
    _, window, image = found[0]
    if start is not None:
        from dataclasses import replace

        window = replace(window, start_seconds=start, end_seconds=start + window.end_seconds)
    return window, image
