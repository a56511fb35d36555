"""From waveform to picture: the one function through which training, prediction and exports hear.

Pure: no files, no plots. A picture is three log-mel spectrograms of the same clip, each with another
analysis window, as uint8 RGB: short windows show clicks, long ones show pitch.

Neighbours: `config` says how, `audio` supplies the waveform, `dataset` and `predict` call `render`.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import scipy.fft
import scipy.signal
import scipy.sparse

from soundsight.config import SpectrogramConfig

Waveform = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]

# Power below which a clip counts as digital silence: far under one step of 24-bit audio.
SILENCE_POWER = 1e-12


def render(waveform: Waveform, config: SpectrogramConfig) -> Image:
    """Draw one clip as a square picture.

    Args:
        waveform: Mono float32 `(samples,)` in [-1, 1] at `config.sample_rate`. It is cut or padded to
            `config.clip_samples`.
        config: The settings; the same ones must be used in training and prediction.

    Returns:
        uint8 `(image_size, image_size, 3)`, RGB. Row 0 is the highest mel band, column 0 the start of the
        clip; channel c uses `config.windows_ms[c]`. 0 is `db_floor` and below, 255 `db_ceiling` and above.
    """
    power = mel_power(fit(waveform, config.clip_samples, config.padding), config)
    peak = float(power.max())
    if config.reference == "full_scale":
        peak = 1.0
    if peak <= SILENCE_POWER:
        return np.zeros((config.image_size, config.image_size, 3), np.uint8)
    # 10 log10(power / peak), scaled so that db_floor..db_ceiling spans 0..255, rounded half up.
    scale = 255.0 / (config.db_ceiling - config.db_floor)
    floor = np.float32(peak * 10 ** (config.db_floor / 10))
    level = np.log10(np.maximum(power, floor))
    level -= np.float32(np.log10(peak) + config.db_floor / 10)
    level *= np.float32(10 * scale)
    level += np.float32(0.5)
    np.minimum(level, np.float32(255), out=level)
    return np.ascontiguousarray(level.astype(np.uint8)[:, ::-1].transpose(1, 2, 0))


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
    all three channels; a full-scale sine stays below 0 dB re 1.

    Args:
        waveform: float32 `(config.clip_samples,)`.
        config: The settings.

    Returns:
        float32 `(3, bands, frames)` with bands = frames = `image_size`, lowest band first.
    """
    half = config.n_fft // 2
    padded = np.pad(waveform, half)
    frames = np.lib.stride_tricks.sliding_window_view(padded, config.n_fft)
    frames = frames[:: config.hop_length][: config.image_size]
    filters = mel_filters(config)
    out = np.empty((3, config.image_size, config.image_size), np.float32)
    for channel, window in enumerate(analysis_windows(config)):
        start = (config.n_fft - len(window)) // 2
        block = np.zeros((config.image_size, config.n_fft), np.float32)
        np.multiply(frames[:, start : start + len(window)], window, out=block[:, start : start + len(window)])
        spectrum = scipy.fft.rfft(block, axis=1, overwrite_x=True)
        out[channel] = filters @ (spectrum.real**2 + spectrum.imag**2).T
    return out


@lru_cache(maxsize=8)
def analysis_windows(config: SpectrogramConfig) -> tuple[npt.NDArray[np.float32], ...]:
    """Periodic Hann windows with unit energy, one a channel, float32 `(samples,)` each."""
    windows = []
    for window_ms in config.windows_ms:
        window = scipy.signal.get_window("hann", round(window_ms * config.sample_rate / 1000))
        windows.append((window / np.sqrt(np.sum(window**2))).astype(np.float32))
    return tuple(windows)


@lru_cache(maxsize=8)
def mel_filters(config: SpectrogramConfig) -> scipy.sparse.csr_array:
    """Triangular mel filters, `(bands, n_fft // 2 + 1)`, equal to `librosa.filters.mel(norm="slaney")`.

    Slaney's scale: linear below 1 kHz, logarithmic above (Auditory Toolbox, 1998). Kept sparse, since a
    band covers few of the FFT bins.
    """
    edges = mel_edges(config)
    bins = np.fft.rfftfreq(config.n_fft, 1 / config.sample_rate)
    rising = (bins[None] - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins[None]) / (edges[2:] - edges[1:-1])[:, None]
    weights = np.maximum(0, np.minimum(rising, falling))
    weights *= (2.0 / (edges[2:] - edges[:-2]))[:, None]
    return scipy.sparse.csr_array(weights.astype(np.float32))


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
