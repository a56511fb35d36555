"""`spectrogram.render` as a PyTorch module, for exports: batches of waveforms to batches of images.

The Fourier transform is two matrix products (Cooley and Tukey, 1965): sample n2 a + b and frequency c + n1 d of
n_fft = n1 n2 meet in exp(-2 pi i (n2 a + b) (c + n1 d) / n_fft), which is a transform over a, then one over b with a
matrix of its own for each c. For a real signal c from 0 to n1 / 2 suffices: all others are conjugates. Frames are the
last axis throughout, so that no product needs its operands rearranged. All operators are in ONNX's opset 13.

Neighbours: `spectrogram` has windows and filters; `backend.waveform` exports the module.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from soundsight.config import SpectrogramConfig
from soundsight.errors import ConfigError
from soundsight.spectrogram import SILENCE_POWER, analysis_windows, mel_filters

BLOCK_BANDS = 16  # mel bands multiplied at once: most of their filters' zeros are left out
MAX_NUMBERS = 1 << 24  # in the matrices of one transform: 64 MB
MAX_OVERLAP = 256  # frames that share a sample: each is one copy in the graph


class FrontEnd(nn.Module):
    """Waveforms float32 `(batch, samples)` in [-1, 1] to images float32 `(batch, 3, H, W)`: levels / 255.

    Fewer samples than a clip has (but one at least) are filled as `config.padding` says, more are cut. Both this and
    `render` add up 32-bit numbers: what lies 100 dB and more below the loudest sound of its frame is their noise.

    Args:
        config: The preprocessing of the model.

    Raises:
        ConfigError: Settings for which the matrices or the graph would be too large.
    """

    inner: Tensor
    outer: Tensor

    def __init__(self, config: SpectrogramConfig) -> None:
        super().__init__()
        check(config)
        self.config = config
        n_fft, (n1, self.n2) = config.n_fft, factors(config)
        c, d = np.arange(n1 // 2 + 1), np.arange(self.n2)
        bins = np.minimum(c + n1 * d[:, None], n_fft - c - n1 * d[:, None])  # (d, c), below half the rate
        filters = mel_filters(config)[::-1]  # (bands, n_fft // 2 + 1), highest first
        used = [k for k in np.argsort(bins.min(axis=1), kind="stable") if filters[:, bins[k]].any()] or [0]

        inner = np.exp(-2j * np.pi / n1 * (np.outer(c, np.arange(n1)) % n1))  # (c, a)
        self._hold("inner", np.stack([inner.real, inner.imag], axis=1).reshape(-1, n1))
        turns = (c[:, None] + n1 * d[used])[..., None] * np.arange(self.n2) % n_fft
        outer = np.exp(-2j * np.pi / n_fft * turns)  # (c, d, b)
        rows = [np.concatenate(row, axis=2) for row in ((outer.real, -outer.imag), (outer.imag, outer.real))]
        self._hold("outer", np.concatenate(rows, axis=1))

        self.blocks = []
        order = bins[used].ravel()
        weights = np.zeros((len(filters), len(order)))
        first = np.unique(order, return_index=True)[1]  # some bins are there twice
        weights[:, first] = filters[:, order[first]]
        for low in range(0, len(weights), BLOCK_BANDS):
            block = weights[low : low + BLOCK_BANDS]
            covered = np.flatnonzero(block.any(axis=0))
            begin, end = (int(covered[0]), int(covered[-1]) + 1) if len(covered) else (0, 1)
            self.blocks.append((begin, end))
            self._hold(f"filters{len(self.blocks)}", block[:, begin:end])

        starts = [(n_fft - samples) // 2 for samples in config.window_samples]
        self.lead = n_fft // 2 - min(starts)  # from the start of frame 0 to that of the clip
        self.spans = []
        for number, (start, window) in enumerate(zip(starts, analysis_windows(config), strict=True)):
            count = math.ceil(len(window) / self.n2)
            self.spans.append((start - min(starts), count))
            self._hold(f"window{number}", np.pad(window, (0, count * self.n2 - len(window)))[:, None])
        self.samples = max(start + count * self.n2 for start, count in self.spans)  # of a frame

    def _hold(self, name: str, values: np.ndarray) -> None:
        self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(values, np.float32)))

    def forward(self, waveforms: Tensor) -> Tensor:
        """See the class."""
        level = self.mel_power(self.fit(waveforms))
        config = self.config
        steps = 255 / math.log(10) / (config.db_ceiling - config.db_floor) * 10  # per neper
        floor, ceiling = (10 ** (db / 10) for db in (config.db_floor, config.db_ceiling))
        if config.reference == "full_scale":
            level = level.clamp(max(floor, 1e-37), ceiling).log() * steps + (0.5 - steps * math.log(floor))
            return level.floor() / 255
        peak = level.amax((1, 2, 3), keepdim=True)
        reference = peak.clamp_min(SILENCE_POWER)
        level = level.maximum(reference * floor).minimum(reference * ceiling).log() * steps
        level = level + (0.5 - steps * (reference.log() + math.log(floor)))
        return level.floor() * (peak > SILENCE_POWER).float() / 255

    def fit(self, waveforms: Tensor) -> Tensor:
        """Waveforms `(batch, samples)`, cut or filled to `(batch, config.clip_samples)`."""
        samples = self.config.clip_samples
        if self.config.padding == "repeat":
            return waveforms[:, torch.arange(samples, device=waveforms.device) % waveforms.shape[1]]
        return torch.cat([waveforms, _zeros(waveforms, samples)], dim=1)[:, :samples]

    def mel_power(self, clips: Tensor) -> Tensor:
        """Mel power `(batch, 3, bands, frames)`, highest band first, of clips `(batch, config.clip_samples)`."""
        size, coefficients = self.config.image_size, len(self.outer)
        frames = self._frames(clips)
        channels = []
        for number, (start, count) in enumerate(self.spans):
            cut = frames[:, start : start + count * self.n2] * self.get_buffer(f"window{number}")
            inner = self.inner[:, :count] @ cut.reshape(-1, count, self.n2 * size)  # (2 c, b frames)
            spectrum = self.outer @ inner.reshape(-1, coefficients, 2 * self.n2, size)  # (c, 2 d, frames)
            real, imaginary = (spectrum * spectrum).chunk(2, dim=2)
            power = (real + imaginary).transpose(1, 2).flatten(1, 2)  # (d c, frames)
            bands = [
                self.get_buffer(f"filters{block}") @ power[:, begin:end]
                for block, (begin, end) in enumerate(self.blocks, 1)
            ]
            channels.append(torch.cat(bands, dim=1))
        return torch.stack(channels, dim=1)

    def _frames(self, clips: Tensor) -> Tensor:
        """The samples of each frame, `(batch, self.samples, frames)`: what starts every hop, seen from each hop on."""
        size, hop = self.config.image_size, self.config.hop_length
        rows = size + math.ceil(self.samples / hop) - 1
        missing = rows * hop - self.lead - self.config.clip_samples
        clips = clips[:, : clips.shape[1] + min(0, missing)]
        padded = torch.cat([_zeros(clips, self.lead), clips, _zeros(clips, max(0, missing))], dim=1)
        hops = padded.reshape(-1, rows, hop)[:, :, : self.samples].transpose(1, 2)
        return torch.cat([hops[:, :, first : first + size] for first in range(rows - size + 1)], dim=1)


def _zeros(like: Tensor, count: int) -> Tensor:
    return torch.zeros_like(like[:, :1]).expand(-1, count)


def factors(config: SpectrogramConfig) -> tuple[int, int]:
    """The two lengths n1 and n2 of the transform of n_fft = n1 n2 samples: those with the fewest products."""

    def products(n1: int) -> int:
        n2 = config.n_fft // n1
        first = sum(math.ceil(samples / n2) * n2 for samples in config.window_samples)
        return 2 * (n1 // 2 + 1) * (first + 6 * n2 * n2)

    n1 = min((n for n in range(1, config.n_fft + 1) if config.n_fft % n == 0), key=products)
    return n1, config.n_fft // n1


def check(config: SpectrogramConfig) -> None:
    """Raise `ConfigError` for settings that `FrontEnd` cannot express."""
    n1, n2 = factors(config)
    numbers = (n1 // 2 + 1) * (2 * n1 + 4 * n2 * n2)
    overlap = math.ceil(max(config.window_samples) / config.hop_length)
    if numbers > MAX_NUMBERS:
        problem = f"n_fft={config.n_fft} needs {numbers:,} numbers for its transform; take a power of two up to 16384"
    elif overlap > MAX_OVERLAP:
        problem = f"{overlap} frames overlap; {MAX_OVERLAP} are allowed, so take shorter windows or longer clips"
    else:
        return
    raise ConfigError(f"An export from waveforms cannot render these settings: {problem}, and train again.")
