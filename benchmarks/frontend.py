"""The front end of exports from waveforms beside `render`: time per clip, and levels that differ.

    python -m benchmarks.frontend --esc50 dataset/ESC-50    # three minutes; writes results/frontend.json

Protocol: both take the same clips of 5 s, in turn, in one process on one thread; the front end runs in ONNX Runtime,
exported by PyTorch with opset 17, network left out. Times are processor time, medians over the clips. Levels are
compared on every `--every`-th clip; `definition` is the same spectrogram in 64-bit numbers.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import torch

from benchmarks import machine
from soundsight import audio
from soundsight.config import SpectrogramConfig
from soundsight.frontend import FrontEnd
from soundsight.spectrogram import analysis_windows, mel_filters, render

TIMED = 80  # clips


def main() -> None:
    """Run all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--esc50", required=True, help="root of ESC-50")
    parser.add_argument("--every", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    config = SpectrogramConfig()
    run = session(config)
    files = sorted(Path(arguments.esc50, "audio").glob("*.wav"))[:: arguments.every]
    clips = {file.name: audio.read(file, sample_rate=config.sample_rate) for file in files}
    times: dict[str, list[float]] = {"front_end_ms": [], "render_ms": []}
    per_clip = {}
    for number, (name, clip) in enumerate(clips.items()):
        began = time.process_time()
        found = run(clip)
        between = time.process_time()
        image = render(clip, config)
        ended = time.process_time()
        if 3 <= number < TIMED + 3:  # three of warm-up
            times["front_end_ms"].append(1e3 * (between - began))
            times["render_ms"].append(1e3 * (ended - between))
        per_clip[name] = different(found, image)
    worst = max(per_clip, key=lambda name: per_clip[name])
    exact = definition(clips[worst], config)
    result: dict[str, Any] = {
        "machine": machine.describe(),
        **{name: round(statistics.median(values), 2) for name, values in times.items()},
        "clips": len(clips),
        "different_per_million": round(statistics.mean(per_clip.values()), 1),
        "worst": {
            "clip": worst,
            "different_per_million": round(per_clip[worst], 1),
            "render_from_definition": round(different(render(clips[worst], config), exact), 1),
            "front_end_from_definition": round(different(run(clips[worst]), exact), 1),
        },
    }
    print(result)
    machine.write("frontend", result)


def session(config: SpectrogramConfig) -> Any:
    """A function from a clip `(samples,)` to its image, uint8 `(H, W, 3)`, by ONNX Runtime on one thread."""
    stream = io.BytesIO()
    example = (torch.zeros(1, config.clip_samples),)
    torch.onnx.export(FrontEnd(config).eval(), example, stream, opset_version=17, dynamo=False)  # type: ignore[arg-type]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    runtime = onnxruntime.InferenceSession(stream.getvalue(), options, providers=["CPUExecutionProvider"])
    name = runtime.get_inputs()[0].name

    def run(clip: np.ndarray) -> np.ndarray:
        (images,) = runtime.run(None, {name: clip[None]})
        return np.round(255 * images[0].transpose(1, 2, 0)).astype(np.uint8)

    return run


def different(one: np.ndarray, other: np.ndarray) -> float:
    """Levels of a million that differ."""
    return float(1e6 * (one != other).mean())


def definition(clip: np.ndarray, config: SpectrogramConfig) -> np.ndarray:
    """The image in 64-bit numbers; `config.reference` is "peak" or the like, the clip has `config.clip_samples`."""
    n_fft, size = config.n_fft, config.image_size
    padded = np.pad(clip.astype(np.float64), n_fft // 2)
    power = []
    for window in analysis_windows(config):
        starts = (n_fft - len(window)) // 2 + config.hop_length * np.arange(size)
        frames = np.stack([padded[start : start + len(window)] for start in starts]) * window
        power.append(np.abs(np.fft.rfft(frames, n_fft)) ** 2 @ mel_filters(config).T)
    level = np.stack(power, axis=2) / np.max(power)  # (frames, bands, 3)
    share = (10 * np.log10(np.maximum(level, 1e-30)) - config.db_floor) / (config.db_ceiling - config.db_floor)
    return np.floor(255 * share.clip(0, 1) + 0.5).astype(np.uint8)[:, ::-1].transpose(1, 0, 2)


if __name__ == "__main__":
    main()
