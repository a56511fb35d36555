"""What one might use instead of Soundsight to classify five seconds of sound, timed from waveform to probabilities.

    python -m benchmarks.others ast-base|mobilenetv3 [--threads 1] [--repeat 20]

Both have random weights and 50 classes: that is enough to time them, and says nothing of how right they are.

ast-base     the architecture of the Audio Spectrogram Transformer (Gong et al., 2021) as its authors run it on
             ESC-50: 128 mel bands, 512 frames of 10 ms at 16 kHz, patches of 16 x 16 every 10, so 600 of them and
             two tokens, 12 layers of width 768. Rebuilt here from PyTorch's own transformer layers.
mobilenetv3  torchvision's MobileNetV3-Large with one input channel, on 128 mel bands and 500 frames of 10 ms at
             32 kHz. EfficientAT's mn10 (Schmid et al., 2023) has this body; its own code is not used here.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

CLASSES, SECONDS = 50, 5.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=20)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.network, arguments.threads, arguments.repeat)))


def measure(name: str, threads: int, repeat: int) -> dict[str, Any]:
    """Milliseconds from waveform to probabilities."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    start = time.perf_counter()
    rate, n_fft, hop, frames, build = NETWORKS[name]
    network = build().eval()
    loading = time.perf_counter() - start
    filters = torch.from_numpy(mel_filters(rate, n_fft))
    window = torch.hann_window(n_fft)
    waveform = torch.from_numpy(np.random.default_rng(0).standard_normal(round(rate * SECONDS)).astype(np.float32) / 10)

    def answer() -> torch.Tensor:
        power = torch.stft(waveform, n_fft, hop, window=window, return_complex=True).abs().square()
        levels = torch.log(filters @ power + 1e-10)
        levels = torch.nn.functional.pad(levels, (0, frames - levels.shape[1])) / 10
        return torch.softmax(network(levels[None, None]), dim=1)

    found = []
    with torch.inference_mode():
        for number in range(-2, repeat):
            start = time.perf_counter()
            probabilities = answer()
            if number >= 0:
                found.append(1000 * (time.perf_counter() - start))
    if probabilities.shape != (1, CLASSES):
        raise SystemExit(f"{name} gave {tuple(probabilities.shape)} probabilities.")
    return {
        "p50_ms": round(statistics.median(found), 1),
        "p95_ms": round(float(np.percentile(found, 95)), 1),
        "parameters_in_millions": round(sum(p.numel() for p in network.parameters()) / 1e6, 1),
        "build_seconds": round(loading, 2),
    }


def mel_filters(rate: int, n_fft: int, bands: int = 128) -> np.ndarray:
    """Triangular filters `(bands, n_fft // 2 + 1)`."""
    from soundsight.spectrogram import hz_to_mel, mel_to_hz

    edges = mel_to_hz(np.linspace(hz_to_mel(0), hz_to_mel(rate / 2), bands + 2))[:, None]
    bins = np.fft.rfftfreq(n_fft, 1 / rate)
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)


def ast_base() -> Any:
    """The transformer."""
    import torch
    from torch import nn

    class Transformer(nn.Module):
        def __init__(self, width: int = 768, layers: int = 12, heads: int = 12, patches: int = 12 * 50) -> None:
            super().__init__()
            self.patches = nn.Conv2d(1, width, 16, stride=10)
            self.tokens = nn.Parameter(torch.randn(1, 2, width) / 50)
            self.places = nn.Parameter(torch.randn(1, patches + 2, width) / 50)
            layer = nn.TransformerEncoderLayer(
                width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            self.layers = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
            self.head = nn.Linear(width, CLASSES)

        def forward(self, levels: torch.Tensor) -> torch.Tensor:
            """Scores of log-mel levels `(1, 1, 128, 512)`."""
            found = self.patches(levels).flatten(2).transpose(1, 2)
            found = self.layers(torch.cat([self.tokens, found], dim=1) + self.places)
            return self.head(found[:, :2].mean(dim=1))  # type: ignore[no-any-return]

    return Transformer()


def mobilenetv3() -> Any:
    """The convolutional network, channels last."""
    import torch
    from torchvision.models import mobilenet_v3_large

    network = mobilenet_v3_large(num_classes=CLASSES)
    first = network.features[0][0]
    network.features[0][0] = torch.nn.Conv2d(1, first.out_channels, 3, stride=2, padding=1, bias=False)
    return network.to(memory_format=torch.channels_last)


# rate in Hz, n_fft, hop, frames, how to build it
NETWORKS: dict[str, tuple[int, int, int, int, Callable[[], Any]]] = {
    "ast-base": (16000, 400, 160, 512, ast_base),
    "mobilenetv3": (32000, 1024, 320, 501, mobilenetv3),
}

if __name__ == "__main__":
    main()
