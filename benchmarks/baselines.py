"""Ways to turn a recording into an image file: ours, what users would otherwise run, and the lower limit.

Each contender is a function of (folder, config) that imports what it needs and returns a function of a clip's
path, which writes one image into the folder. All hear at `config.sample_rate`, but for the seed, which
takes recordings as they are. Each is written here from its description.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from soundsight.config import SpectrogramConfig

Draw = Callable[[Path], Path]


def soundsight(folder: Path, config: SpectrogramConfig) -> Draw:
    """What `soundsight prepare` does for a clip: header, SHA-256, decode, resample, render, PNG, rename."""
    from soundsight.datasets import images as images
    from soundsight.datasets.catalogue import Clip

    def draw(path: Path) -> Path:
        clip = Clip(path=path, file=path.name, label="", name=path.stem, source=path.stem)
        target = folder / f"{path.stem}.png"
        images._sha256.cache_clear()  # of the warm-up
        done = images.draw(images.Task(clip, target, config))
        if done.failure or not done.redrawn:
            raise RuntimeError(done.failure or f"{target} was there already")
        return target

    return draw


def floor(folder: Path, config: SpectrogramConfig) -> Draw:
    """Decode, resample, encode and write an image that was rendered before, with the fastest means we know."""
    from soundsight.datasets import images as images

    return _floor(folder, config, lambda path, image: path.write_bytes(images.encode_png(image, "floor")))


def floor_opencv(folder: Path, config: SpectrogramConfig) -> Draw:
    """The floor with OpenCV's PNG, as its `imwrite` writes it by default."""
    import cv2

    return _floor(folder, config, lambda path, image: cv2.imwrite(str(path), image))


def _floor(folder: Path, config: SpectrogramConfig, write: Callable[[Path, np.ndarray], object]) -> Draw:
    from soundsight import audio
    from soundsight.spectrogram import render

    rendered: dict[Path, np.ndarray] = {}

    def draw(path: Path) -> Path:
        waveform = audio.read(path, sample_rate=config.sample_rate, duration_seconds=config.clip_seconds)
        if path not in rendered:  # in the warm-up
            rendered[path] = render(waveform, config)
        target = folder / f"{path.stem}.png"
        write(target, rendered[path])
        return target

    return draw


def librosa(folder: Path, config: SpectrogramConfig) -> Draw:
    """The same three-window image by librosa, written by OpenCV with its defaults."""
    import cv2
    import librosa

    def draw(path: Path) -> Path:
        waveform, _ = librosa.load(path, sr=config.sample_rate, duration=config.clip_seconds)
        target = folder / f"{path.stem}.png"
        cv2.imwrite(str(target), librosa_picture(waveform, config)[:, :, ::-1])
        return target

    return draw


def librosa_picture(waveform: np.ndarray, config: SpectrogramConfig) -> np.ndarray:
    """uint8 RGB `(image_size, image_size, 3)` with librosa's functions and parameters only."""
    import librosa

    waveform = librosa.util.fix_length(waveform, size=config.clip_samples)
    channels = []
    for window_ms in config.windows_ms:
        length = round(window_ms * config.sample_rate / 1000)
        mel = librosa.feature.melspectrogram(
            y=waveform,
            sr=config.sample_rate,
            n_fft=config.n_fft,
            hop_length=config.hop_length,
            win_length=length,
            n_mels=config.image_size,
            fmin=config.fmin_hz,
            fmax=config.fmax,
        )
        channels.append(mel[::-1, : config.image_size] / (0.375 * length))  # a Hann window's energy
    power = np.stack(channels, axis=-1)
    decibel = librosa.power_to_db(power, ref=power.max() or 1.0, amin=1e-30, top_db=None)
    level = (decibel - config.db_floor) * (255 / (config.db_ceiling - config.db_floor))
    return np.floor(np.clip(level, 0, 255) + 0.5).astype(np.uint8) if power.any() else power.astype(np.uint8)


def torchaudio(folder: Path, config: SpectrogramConfig) -> Draw:
    """The same three-window image by torchaudio's transforms, written by OpenCV."""
    import cv2
    import soundfile
    import torch
    from torchaudio import functional, transforms

    torch.set_num_threads(1)
    mels = [
        transforms.MelSpectrogram(
            sample_rate=config.sample_rate,
            n_fft=config.n_fft,
            win_length=round(window_ms * config.sample_rate / 1000),
            hop_length=config.hop_length,
            f_min=config.fmin_hz,
            f_max=config.fmax,
            n_mels=config.image_size,
            normalized="window",
            pad_mode="constant",
            norm="slaney",
            mel_scale="slaney",
        )
        for window_ms in config.windows_ms
    ]

    def draw(path: Path) -> Path:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        waveform = torch.from_numpy(samples).mean(dim=1)
        if rate != config.sample_rate:
            waveform = functional.resample(waveform, rate, config.sample_rate)
        waveform = torch.nn.functional.pad(waveform, (0, max(0, config.clip_samples - len(waveform))))
        power = torch.stack([mel(waveform[: config.clip_samples]) for mel in mels], dim=-1)
        power = power.flip(0)[:, : config.image_size]
        decibel = 10 * torch.log10(power / power.max().clamp(min=1e-12) + 1e-30)
        level = (decibel - config.db_floor) * (255 / (config.db_ceiling - config.db_floor))
        target = folder / f"{path.stem}.png"
        cv2.imwrite(str(target), (level.clamp(0, 255) + 0.5).to(torch.uint8).flip(-1).numpy())
        return target

    return draw


def specshow(folder: Path, config: SpectrogramConfig) -> Draw:
    """The tutorial's way: librosa's mel spectrogram, `librosa.display.specshow`, `savefig`."""
    import librosa
    import librosa.display
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    def draw(path: Path) -> Path:
        waveform, rate = librosa.load(path, sr=config.sample_rate)
        mel = librosa.power_to_db(librosa.feature.melspectrogram(y=waveform, sr=rate), ref=np.max)
        figure, axes = plt.subplots()
        librosa.display.specshow(mel, sr=rate, ax=axes)
        axes.set_axis_off()
        target = folder / f"{path.stem}.png"
        figure.savefig(target)
        plt.close(figure)
        return target

    return draw


def seed(folder: Path, config: SpectrogramConfig) -> Draw:
    """The notebooks that this project began with (DESIGN.md, section 8), at the recording's own rate.

    NumPy STFT (1024-sample Hann window, hop 512) in dB, jet, a 15 x 7.5 inch matplotlib figure without axes,
    saved as JPEG. The description says nothing of cropping, so the margins stay: that is the faster way.
    """
    return _seed(folder, {})


def seed_cropped(folder: Path, config: SpectrogramConfig) -> Draw:
    """The seed with its margins cropped, as many notebooks do; slower, and not what the aim is judged by."""
    return _seed(folder, {"bbox_inches": "tight", "pad_inches": 0})


def _seed(folder: Path, saving: dict[str, Any]) -> Draw:
    import matplotlib
    import soundfile

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    window = np.hanning(1024)

    def draw(path: Path) -> Path:
        samples, _ = soundfile.read(path)
        samples = np.concatenate([np.zeros(512), samples.reshape(len(samples), -1)[:, 0], np.zeros(1024)])
        frames = np.lib.stride_tricks.sliding_window_view(samples, 1024)[::512]
        decibel = 20 * np.log10(np.abs(np.fft.rfft(frames * window)) + 1e-10)
        plt.figure(figsize=(15, 7.5))
        plt.imshow(decibel.T, origin="lower", aspect="auto", cmap="jet", interpolation="none")
        plt.axis("off")
        image = io.BytesIO()
        plt.savefig(image, format="jpg", **saving)
        plt.close()
        target = folder / f"{path.stem}.jpg"
        target.write_bytes(image.getvalue())
        return target

    return draw


CONTENDERS: dict[str, Callable[[Path, SpectrogramConfig], Draw]] = {
    "soundsight": soundsight,
    "floor": floor,
    "floor (OpenCV)": floor_opencv,
    "librosa": librosa,
    "torchaudio": torchaudio,
    "specshow": specshow,
    "seed": seed,
    "seed (cropped)": seed_cropped,
}
