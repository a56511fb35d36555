"""From waveform to image: the one function through which training, prediction and exports go.

Pure: no files, no plots. An image is three log-mel spectrograms of the same clip, each with another
analysis window, as uint8 RGB: short windows show clicks, long ones show pitch.

Written for speed on one core (docs/performance.md says where the time goes): frames are worked through a
few dozen at a time, so that they stay in the processor's cache, and nothing larger is held twice.

Neighbours: `config` says how, `audio` supplies the waveform, `dataset` and `predict` call `render`.
"""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from soundsight.config import SpectrogramConfig

Waveform = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]

# Power below which a clip counts as digital silence: far under one step of 24-bit audio.
SILENCE_POWER = 1e-12
# A clip whose samples span less than this, of full scale 1, is digital silence: no sound, whatever a network makes of
# its image. One step of 16-bit audio is 15 times as much.
SILENT_SPAN = 2e-6
# Samples of the frames transformed at once (1 MB) and mel bands multiplied at once: small enough for the
# cache, and for BLAS to stay on one thread.
BLOCK_SAMPLES = 1 << 18
BLOCK_BANDS = 12


def render(waveform: Waveform, config: SpectrogramConfig) -> Image:
    """Render one clip as a square image.

    Args:
        waveform: Mono float32 `(samples,)` in [-1, 1] at `config.sample_rate`. It is cut or padded to
            `config.clip_samples`.
        config: The settings; the same ones must be used in training and prediction.

    Returns:
        uint8 `(image_size, image_size, 3)`, RGB. Row 0 is the highest mel band, column 0 the start of the
        clip; channel c uses `config.windows_ms[c]`. 0 is `db_floor` and below, 255 `db_ceiling` and above.
    """
    return render_with_reference(waveform, config)[0]


def render_with_reference(waveform: Waveform, config: SpectrogramConfig) -> tuple[Image, float]:
    """As `render`, and the level in dB re full scale that is 0 dB in the image; -inf for digital silence."""
    level = mel_power(fit(waveform, config.clip_samples, config.padding), config)
    peak = 1.0 if config.reference == "full_scale" else float(level.max())
    if peak <= SILENCE_POWER:
        return np.zeros((config.image_size, config.image_size, 3), np.uint8), -math.inf
    # 10 log10(power / peak), scaled so that db_floor..db_ceiling spans 0..255, rounded half up.
    low, high = (peak * 10 ** (db / 10) for db in (config.db_floor, config.db_ceiling))
    steps_per_neper = 255 / math.log(high / low)
    np.clip(level, np.float32(max(low, 1e-37)), np.float32(high), out=level)
    np.log(level, out=level)
    level *= np.float32(steps_per_neper)
    level += np.float32(0.5 - steps_per_neper * math.log(low))
    columns = cv2.merge(tuple(level.astype(np.uint8)))  # (frames, bands, 3), lowest band first
    return cv2.rotate(columns, cv2.ROTATE_90_COUNTERCLOCKWISE), 10 * math.log10(peak)


def fit(waveform: Waveform, samples: int, padding: str) -> Waveform:
    """Cut or pad a waveform `(n,)` to exactly `samples`; `padding` is "silence" or "repeat"."""
    if len(waveform) >= samples:
        return waveform[:samples]
    if padding == "repeat" and len(waveform):
        return np.resize(waveform, samples)
    return np.concatenate([waveform, np.zeros(samples - len(waveform), np.float32)])


def mel_power(waveform: Waveform, config: SpectrogramConfig) -> npt.NDArray[np.float32]:
    """Mel power spectrograms of one clip, one a window.

    Each window is normalised to unit energy gain (sum of squares 1), so that noise has the same level in
    all three channels. With the defaults, white noise of RMS 1 lies at -9 dB re 1 and a full-scale sine at
    7 (8 kHz) to 14 dB (below 1 kHz) in the channel of the longest window.

    Args:
        waveform: float32 `(config.clip_samples,)`.
        config: The settings.

    Returns:
        float32 `(3, frames, bands)` with bands = frames = `image_size`, lowest band first.
    """
    size, n_fft = config.image_size, config.n_fft
    padded = np.zeros(config.clip_samples + n_fft, np.float32)
    padded[n_fft // 2 :][: len(waveform)] = waveform
    rows = math.ceil(size / math.ceil(size * n_fft / BLOCK_SAMPLES))
    block = np.empty((rows, n_fft), np.float32)
    sounding = (waveform != 0).tobytes()
    first, last = sounding.find(1), sounding.rfind(1)
    if first < 0:
        return np.zeros((3, size, size), np.float32)
    out = np.empty((3, size, size), np.float32)
    band_blocks = _band_blocks(config)
    for channel, window in enumerate(analysis_windows(config)):
        length = len(window)
        start = (n_fft - length) // 2
        # Overlapping rows, which only NumPy understands: OpenCV would take them for one continuous row.
        frames = np.ndarray((size, length), np.float32, padded[start:], strides=(4 * config.hop_length, 4))
        lead = n_fft // 2 - start  # from the start of frame 0 to that of the waveform
        begin = max(0, math.ceil((lead + first - length + 1) / config.hop_length))
        end = min(size, (lead + last) // config.hop_length + 1)
        out[channel, :begin] = out[channel, end:] = 0  # frames that hold no sound
        for row in range(begin, end, rows):
            part = block[: min(rows, end - row)]
            power = out[channel, row : row + len(part)]
            np.einsum("ij,j->ij", frames[row : row + len(part)], window, out=part[:, :length])
            part[:, length:] = 0  # where in its row a frame lies only turns phases
            _packed_rfft(part)
            np.square(part, out=part)
            for bands, bins, weights in band_blocks:
                np.matmul(part[:, bins], weights, out=power[:, bands])
    return out


def _packed_rfft(rows: npt.NDArray[np.float32]) -> None:
    """Replace each row of `(rows, n)` by its Fourier transform: re 0, re 1, im 1, re 2, im 2 and so on.

    OpenCV's is 2.8 times as fast as SciPy's where it was built with Intel's IPP, and half as fast elsewhere.
    """
    if cv2.ipp.useIPP():
        cv2.dft(rows, rows, cv2.DFT_ROWS)
        return
    from scipy.fftpack import rfft

    rows[:] = rfft(rows, axis=1)


@lru_cache(maxsize=8)
def _band_blocks(config: SpectrogramConfig) -> list[tuple[slice, slice, npt.NDArray[np.float32]]]:
    """The mel filters for packed spectra, cut into blocks without most of their zeros.

    Returns:
        For some neighbouring bands: which they are, which part of the packed, squared spectrum they cover,
        and their weights `(part, bands)`, each once for the real and once for the imaginary part.
    """
    weights = np.repeat(mel_filters(config), 2, axis=1)[:, 1 : 1 + config.n_fft]
    blocks = []
    for first in range(0, config.image_size, BLOCK_BANDS):
        bands = slice(first, min(first + BLOCK_BANDS, config.image_size))
        used = np.flatnonzero(weights[bands].any(axis=0))
        bins = slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 1)
        blocks.append((bands, bins, np.ascontiguousarray(weights[bands, bins].T)))
    return blocks


@lru_cache(maxsize=8)
def analysis_windows(config: SpectrogramConfig) -> tuple[npt.NDArray[np.float32], ...]:
    """Periodic Hann windows with unit energy, one a channel, float32 `(samples,)` each."""
    windows = []
    for samples in config.window_samples:
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(samples) / samples)
        windows.append((window / np.sqrt(np.sum(window**2))).astype(np.float32))
    return tuple(windows)


@lru_cache(maxsize=8)
def mel_filters(config: SpectrogramConfig) -> npt.NDArray[np.float32]:
    """Triangular mel filters, `(bands, n_fft // 2 + 1)`, equal to `librosa.filters.mel(norm="slaney")`.

    Slaney's scale: linear below 1 kHz, logarithmic above (Auditory Toolbox, 1998).
    """
    edges = mel_edges(config)
    bins = np.fft.rfftfreq(config.n_fft, 1 / config.sample_rate)
    rising = (bins[None] - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins[None]) / (edges[2:] - edges[1:-1])[:, None]
    weights = np.maximum(0, np.minimum(rising, falling))
    weights *= (2.0 / (edges[2:] - edges[:-2]))[:, None]
    return weights.astype(np.float32)


def mel_edges(config: SpectrogramConfig) -> npt.NDArray[np.float64]:
    """Corner frequencies of the mel bands in Hz, `(image_size + 2,)`; band i spans edges i to i + 2."""
    mels = np.linspace(hz_to_mel(config.fmin_hz), hz_to_mel(config.fmax), config.image_size + 2)
    return mel_to_hz(mels)


_LINEAR_HZ, _BREAK_HZ, _LOG_STEP = 200.0 / 3, 1000.0, np.log(6.4) / 27.0


def hz_to_mel(hz: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Slaney mel of frequencies in Hz."""
    hz = np.asarray(hz, np.float64)
    above = _BREAK_HZ / _LINEAR_HZ + np.log(np.maximum(hz, _BREAK_HZ) / _BREAK_HZ) / _LOG_STEP
    return np.where(hz < _BREAK_HZ, hz / _LINEAR_HZ, above)


def mel_to_hz(mel: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Frequencies in Hz of Slaney mels; the inverse of `hz_to_mel`."""
    mel = np.asarray(mel, np.float64)
    above = _BREAK_HZ * np.exp(_LOG_STEP * (mel - _BREAK_HZ / _LINEAR_HZ))
    return np.where(mel < _BREAK_HZ / _LINEAR_HZ, mel * _LINEAR_HZ, above)
