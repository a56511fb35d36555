"""Show which sounds, when and at which frequency, spoke for a class: a heat map with s and Hz.

soundsight explain last.pt clip.wav                         # writes clip-reasons.png
soundsight explain last.pt clip.wav --class dog --out dog.pdf
soundsight explain last.pt night.flac --start 125           # the segment that begins at 125 s
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from soundsight.cli import console, outputs
from soundsight.cli.options import Given
from soundsight.config.commands import ExplainOptions
from soundsight.errors import AudioError

if TYPE_CHECKING:
    from soundsight.inference import Prediction, Predictor
    from soundsight.inference.pipeline import Rendered
    from soundsight.spectrogram import Image

OPTIONS = ExplainOptions


def run(options: ExplainOptions, given: Given) -> int:
    from soundsight.cli.predict import open_predictor
    from soundsight.inference.explain import class_index, explain
    from soundsight.reports.spectrograms import plot_saliency

    out = Path(options.out or f"{Path(options.clip).stem}-reasons.png")
    console.check_ending(str(out), *console.FIGURES)
    inputs = [options.model, options.clip, options.spectrogram]
    with outputs.claimed(options, [out], outputs.figure(outputs.EXPLAIN), inputs):
        predictor = open_predictor(options)
        index = class_index(predictor.names, options.class_)
        segment, image = find_window(predictor, options.clip, index, options.start)
        reason = explain(predictor.classifier, image, options.class_)
        title = f"{Path(options.clip).name}: {reason.label} {reason.probability:.1%}"
        plot_saliency(
            image, reason.saliency, predictor.spectrogram, out, title=title,
            start_seconds=segment.start_seconds, end_seconds=segment.end_seconds,
            creator=outputs.EXPLAIN,
        )  # fmt: skip
    console.output(f"{title}, from {segment.start_seconds:g} to {segment.end_seconds:g} s; heat map: {out}")
    return 0


def find_window(predictor: Predictor, clip: str, index: int | None, start: float | None) -> tuple[Prediction, Image]:
    """The segment to explain with its image: where asked for, or where the class is likeliest."""
    from soundsight.inference import Options
    from soundsight.inference.segments import array_source, file_source

    source = file_source(clip)
    if start is not None:
        from soundsight import audio

        rate = audio.probe(clip).sample_rate
        source = array_source(
            audio.read(clip, sample_rate=rate, start_seconds=start, duration_seconds=predictor.clip_seconds), rate
        )
    found: list[tuple[float, Prediction, Image]] = []

    def callback(segment: Prediction, rendered: Rendered) -> None:
        value = segment.probability if index is None else float(segment.probabilities[index])
        if not segment.silent and (not found or value > found[0][0]):
            found[:] = [(value, segment, rendered.image)]

    for event in predictor.stream([source], Options(), callback=callback):
        if getattr(event, "failure", ""):
            raise AudioError(event.failure)  # type: ignore[union-attr]
    if not found:
        raise AudioError(f"{clip} holds nothing but silence there, so there is nothing to explain.")
    _, segment, image = found[0]
    if start is not None:
        from dataclasses import replace

        segment = replace(segment, start_seconds=start, end_seconds=start + segment.end_seconds)
    return segment, image
