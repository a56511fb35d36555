"""The renderer: predictions known by hand, agreement with librosa, and images pinned by their hashes."""

from __future__ import annotations

import hashlib
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import librosa
import numpy as np
import pytest
from PIL import Image
from torture import models

from conftest import TINY_CLASSES
from soundsight import audio
from soundsight.backend.checkpoint import load_checkpoint
from soundsight.backend.export import export
from soundsight.cli import main
from soundsight.config import DatasetConfig, SpectrogramConfig
from soundsight.datasets import images as images
from soundsight.datasets.prepare import prepare
from soundsight.errors import ModelError
from soundsight.spectrogram import hz_to_mel, mel_edges, mel_filters, mel_power, mel_to_hz, render
from soundsight.synthesis import dataset as demo

DEFAULT = SpectrogramConfig()
FIXED = replace(DEFAULT, reference="full_scale")

# Other rates, sizes, windows, FFT lengths (odd, no power of two, prime), frequency and level ranges.
CONFIGS = {
    "default": DEFAULT,
    "full_scale": FIXED,
    "44100": SpectrogramConfig(sample_rate=44100, n_fft=8192),
    "44100 fixed": SpectrogramConfig(sample_rate=44100, n_fft=6000, db_floor=-110, reference="full_scale"),
    "large": SpectrogramConfig(image_size=400, n_fft=4096, windows_ms=(12.5, 100, 250)),
    "small": SpectrogramConfig(image_size=32, clip_seconds=0.4, n_fft=1024, windows_ms=(5, 20, 60)),
    "odd": SpectrogramConfig(image_size=225, n_fft=2401, windows_ms=(150, 30.3, 25)),
    "prime": SpectrogramConfig(image_size=100, n_fft=2053),
    "band": SpectrogramConfig(fmin_hz=0, fmax_hz=3000, db_floor=-60, db_ceiling=-5),
    "bats": SpectrogramConfig(sample_rate=250000, clip_seconds=0.5, fmin_hz=10000, windows_ms=(1, 2, 4)),
}


def seconds(config: SpectrogramConfig) -> np.ndarray:
    return np.arange(config.clip_samples) / config.sample_rate


def sine(hz: float, config: SpectrogramConfig = DEFAULT, amplitude: float = 1.0) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * hz * seconds(config))).astype(np.float32)


def noise(config: SpectrogramConfig = DEFAULT, level: float = 0.1) -> np.ndarray:
    return np.random.default_rng(3).normal(0, level, config.clip_samples).astype(np.float32)


def chirp(config: SpectrogramConfig = DEFAULT) -> np.ndarray:
    """From 2 % to 90 % of half the sample rate."""
    t, low, high = seconds(config), 0.01 * config.sample_rate, 0.45 * config.sample_rate
    return np.sin(2 * np.pi * (low * t + (high - low) * t**2 / (2 * config.clip_seconds))).astype(np.float32)


def click(at_seconds: float, config: SpectrogramConfig = DEFAULT) -> np.ndarray:
    waveform = np.zeros(config.clip_samples, np.float32)
    waveform[round(at_seconds * config.sample_rate)] = 1
    return waveform


def signals(config: SpectrogramConfig) -> dict[str, np.ndarray]:
    t = seconds(config)
    third = config.clip_samples // 3
    half_silent = noise(config)
    half_silent[third:] = 0
    return {
        "sine": sine(0.11 * config.sample_rate, config),
        "noise": noise(config),
        "chirp": chirp(config),
        "click": click(config.clip_seconds / 3, config),
        "half silent": half_silent,
        "decay": (np.exp(-12 * t / config.clip_seconds) * chirp(config)).astype(np.float32),
        "square": np.sign(sine(0.021 * config.sample_rate, config)),
        "short": noise(config)[:third],
    }


def reference_level(waveform: np.ndarray, config: SpectrogramConfig) -> np.ndarray:
    """The image before rounding, 0 to 255, by librosa in 64 bits: `(rows, columns, 3)`."""
    waveform = librosa.util.fix_length(waveform.astype(np.float64), size=config.clip_samples)
    power = []
    for window_ms in config.windows_ms:
        length = round(window_ms * config.sample_rate / 1000)
        window = librosa.filters.get_window("hann", length)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # empty bands of odd settings
            mel = librosa.feature.melspectrogram(
                y=waveform,
                sr=config.sample_rate,
                n_fft=config.n_fft,
                hop_length=config.hop_length,
                win_length=length,
                window=window / np.sqrt(np.sum(window**2)),
                pad_mode="constant",
                n_mels=config.image_size,
                fmin=config.fmin_hz,
                fmax=config.fmax,
                dtype=np.float64,
            )
        power.append(mel[::-1, : config.image_size])
    power = np.stack(power, axis=-1)
    top = power.max() if config.reference == "clip" else 1.0
    decibel = 10 * np.log10(np.maximum(power / top, 1e-30))
    return np.clip((decibel - config.db_floor) / (config.db_ceiling - config.db_floor), 0, 1) * 255


def difference(waveform: np.ndarray, config: SpectrogramConfig) -> np.ndarray:
    """Levels by which the image differs from librosa's."""
    expected = np.floor(reference_level(waveform, config) + 0.5)
    return np.abs(render(waveform, config).astype(int) - expected)


def row_of(hz: float, config: SpectrogramConfig = DEFAULT) -> int:
    centres = mel_edges(config)[1:-1]
    return config.image_size - 1 - int(np.argmin(np.abs(centres - hz)))


# -- predictions known by hand ------------------------------------------------------------------------------


@pytest.mark.parametrize("hz", [100, 440, 1000, 4000, 7000])
def test_a_sine_lands_in_its_band_in_all_three_channels(hz):
    image = render(sine(hz), DEFAULT)
    assert image.shape == (224, 224, 3) and image.dtype == np.uint8 and image.flags.c_contiguous
    for channel in range(3):
        loudest = image[:, 20:-20, channel].argmax(axis=0)
        assert np.all(np.abs(loudest - row_of(hz)) <= 1)


def test_longer_windows_draw_a_sine_narrower_and_a_click_wider():
    tone = (render(sine(1000), DEFAULT)[:, 112] > 100).sum(axis=0)
    assert tone[0] > tone[1] > tone[2]
    burst = (render(click(2.5), FIXED)[20] > 0).sum(axis=0)
    column_ms = 1000 * DEFAULT.hop_length / DEFAULT.sample_rate
    # The faint ends of a Hann window are below the floor, so a click is rendered a little narrower than it.
    for width, window_ms in zip(burst, DEFAULT.windows_ms, strict=True):
        assert 0.7 * window_ms / column_ms - 1 <= width <= window_ms / column_ms + 1


def test_silence_is_black():
    for config in (DEFAULT, FIXED):
        assert not render(np.zeros(config.clip_samples, np.float32), config).any()
        assert not render(np.zeros(0, np.float32), config).any()
    assert not render(noise(level=1e-8), DEFAULT).any()  # far below one step of 24 bits


@pytest.mark.parametrize(
    ("begin", "end"), [(0, 1), (0, 800), (20000, 20001), (30000, 61234), (79999, 80000), (0, 80000)]
)
def test_frames_that_hear_only_silence_are_skipped_without_a_trace(begin, end):
    sound = np.zeros(DEFAULT.clip_samples, np.float32)
    sound[begin:end] = 0.5
    filled = np.where(sound == 0, np.float32(1e-30), sound)  # too soft for any image, but not digital silence

    assert np.array_equal(mel_power(sound, DEFAULT) > 0, mel_power(filled, DEFAULT) > 1e-20)
    assert np.array_equal(render(sound, DEFAULT), render(filled, DEFAULT))


def test_a_chirp_rises_from_the_lower_left_to_the_upper_right():
    config = DEFAULT
    image = render(chirp(), config)
    for channel in range(3):
        rows = image[:, 5:-5, channel].argmax(axis=0).astype(int)
        assert np.all(np.diff(rows) <= 0) and rows[0] - rows[-1] > 100
    hz = 160 + (7200 - 160) * (112 * config.hop_length / config.sample_rate) / config.clip_seconds
    assert abs(int(image[:, 112, 1].argmax()) - row_of(hz)) <= 1


@pytest.mark.parametrize("at_seconds", [0.0, 0.3, 2.5, 4.4])
def test_a_click_is_an_upright_line_in_its_column(at_seconds):
    image = render(click(at_seconds), FIXED)
    column = at_seconds * DEFAULT.sample_rate / DEFAULT.hop_length
    for channel in range(3):
        assert abs(int(image[:150, :, channel].sum(axis=0).argmax()) - column) <= 0.5


def test_the_level_of_a_click_is_what_the_formula_says():
    # A click of 1 in the middle of a Hann window of n samples with unit energy has the power 1 / (0.375 n)
    # in every FFT bin; Slaney's filters have unit area, so that a band adds up n_fft / sample_rate of them.
    at = 100 * DEFAULT.hop_length / DEFAULT.sample_rate
    image = render(click(at), FIXED)
    for channel, window_ms in enumerate(DEFAULT.windows_ms):
        power = DEFAULT.n_fft / DEFAULT.sample_rate / (0.375 * window_ms * DEFAULT.sample_rate / 1000)
        level = 255 * (1 + 10 * np.log10(power) / 80)
        assert np.abs(image[:20, 100, channel] - level).max() <= 1


def test_noise_is_as_bright_in_all_channels():
    means = render(noise(), FIXED).mean(axis=(0, 1))
    assert np.ptp(means) < 3


@pytest.mark.parametrize("band", [150, 185, 215])
def test_the_power_of_a_sine_is_what_the_formula_says(band):
    # By Parseval a full-scale sine has n_fft / 4 over the positive FFT bins, nearly all of it within 20 Hz
    # for the longest window, so at the peak of a wide triangle of unit area.
    low, centre, high = mel_edges(DEFAULT)[band : band + 3]
    power = mel_power(sine(centre), DEFAULT)
    assert power.shape == (3, 224, 224) and power.dtype == np.float32
    assert power[2, 100].argmax() == band
    assert 0.85 < power[2, 100, band] / (DEFAULT.n_fft / 4 * 2 / (high - low)) < 1


def test_reference_clip_ignores_loudness_and_full_scale_shows_it():
    waveform = noise(level=0.2)
    assert render(waveform, DEFAULT).max() == 255
    assert np.abs(render(waveform, DEFAULT).astype(int) - render(0.1 * waveform, DEFAULT)).max() <= 1
    loud, soft = (render(w, FIXED).astype(int) for w in (waveform, 0.1 * waveform))
    steps = (loud - soft)[soft > 0]
    assert np.abs(steps - 20 * 255 / 80).max() <= 1  # a tenth is 20 dB


def test_db_floor_and_ceiling_are_black_and_white():
    image = render(noise(), DEFAULT).astype(float)
    closer = render(noise(), replace(DEFAULT, db_floor=-60, db_ceiling=-20)).astype(float)
    decibel = image / 255 * 80 - 80
    expected = np.clip((decibel + 60) / 40 * 255, 0, 255)
    assert np.abs(closer - expected).max() <= 2.1
    assert (closer[decibel > -19] == 255).all() and (closer[decibel < -61] == 0).all()


def test_padding_with_silence_or_repetition_and_cutting():
    short, config = noise()[:20000], replace(FIXED, padding="repeat")
    end = 20000 // FIXED.hop_length
    image = render(short, FIXED)
    assert image[:, : end - 7].min() > 0 and not image[:, end + 6 :].any()
    assert np.array_equal(render(short, config), render(np.tile(short, 5)[:80000], FIXED))
    long = np.concatenate([noise(), sine(1000)])
    assert np.array_equal(render(long, DEFAULT), render(noise(), DEFAULT))


def test_render_leaves_its_input_alone_and_takes_views():
    waveform = np.repeat(noise(), 2)
    waveform.flags.writeable = False
    assert np.array_equal(render(waveform[::2], DEFAULT), render(noise(), DEFAULT))


def test_threads_draw_what_one_thread_draws():
    waveforms = [chirp(), noise(), click(1.0), sine(700)] * 6
    alone = [render(w, DEFAULT) for w in waveforms]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda w: render(w, DEFAULT), waveforms))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


# -- mel scale and filters ------------------------------------------------------------------------------


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_mel_filters_are_librosas(config):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # empty bands of odd settings
        expected = librosa.filters.mel(
            sr=config.sample_rate, n_fft=config.n_fft, n_mels=config.image_size, fmin=config.fmin_hz, fmax=config.fmax
        )
    assert np.abs(mel_filters(config) - expected).max() < 1e-6


def test_no_band_of_the_defaults_is_empty():
    for config in (DEFAULT, CONFIGS["44100"]):
        assert (mel_filters(config) > 0).any(axis=1).all()
        assert render(noise(config), config).min() > 0


def test_the_mel_scale_is_slaneys_and_its_own_inverse():
    hz = np.array([0, 20, 500, 999.9, 1000, 1000.1, 4000, 22050])
    assert hz_to_mel(1000) == pytest.approx(15) and hz_to_mel(6400) == pytest.approx(42)
    assert np.allclose(hz_to_mel(hz), librosa.hz_to_mel(hz))
    assert np.allclose(mel_to_hz(hz_to_mel(hz)), hz)


# -- agreement with librosa -----------------------------------------------------------------------------


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_pictures_are_librosas_within_one_level(config):
    for name, waveform in signals(config).items():
        levels = difference(waveform, config)
        assert levels.max() <= 1, name
        assert (levels > 0).mean() < 3e-3, name


@pytest.mark.parametrize("config", [CONFIGS[key] for key in ("default", "odd", "prime", "44100")])
def test_pictures_without_intels_library_are_the_same_within_one_level(config):
    if not cv2.ipp.useIPP():
        pytest.skip("this OpenCV has none")
    waveforms = signals(config).values()
    fast = [render(w, config) for w in waveforms]
    cv2.ipp.setUseIPP(False)
    try:
        plain = [render(w, config) for w in waveforms]
    finally:
        cv2.ipp.setUseIPP(True)
    for one, other in zip(fast, plain, strict=True):
        levels = np.abs(one.astype(int) - other)
        assert levels.max() <= 1 and (levels > 0).mean() < 1e-3


@pytest.mark.parametrize("rate", [16000, 44100])
def test_images_of_esc50_are_librosas_within_one_level(esc50, rate):
    config = DEFAULT if rate == 16000 else CONFIGS["44100"]
    files = sorted((esc50 / "audio").glob("*.wav"))[:: 150 if rate == 16000 else 400]
    assert files
    for path in files:
        levels = difference(audio.read(path, sample_rate=rate, duration_seconds=5), config)
        assert levels.max() <= 1 and (levels > 0).mean() < 1e-3, path


# -- pinned images ------------------------------------------------------------------------------------

GOLDEN = {
    "chirp over noise": "e82615341f3da378d0868ef7a88cd29e0541e979f45b01b9c0aa809f7153350a",
    "clicks": "b7aa52799eccc396f85bf34294b21ea02ae7ea757caecc2a99b2861499a04b44",
    "tones, then silence": "be8a932fd0d271fe3ed7712e5e21f778195327079b60c0eae000b934056af3f4",
    "hum, 44100 Hz": "90bc5e875a5503ce7d572dec767022b7c5edb8bb90820fa3112389707222cae6",
}


def whole(samples: np.ndarray) -> np.ndarray:
    """Samples of 16 bits, so that the last bit of a sine, which differs by machine, does not matter."""
    return (np.round(32767 * samples) / 32768).astype(np.float32)


def golden_signals() -> dict[str, tuple[np.ndarray, SpectrogramConfig]]:
    t = seconds(DEFAULT)
    hiss = np.random.RandomState(5).randint(-900, 900, len(t)) / 32768  # a stream that NumPy promises to keep
    glide = 0.5 * np.sin(2 * np.pi * (100 * t + 700 * t**2)) + hiss
    clicks = hiss / 20
    clicks[4000::16000] = 0.9
    tones = sum(0.2 * np.sin(2 * np.pi * hz * t) for hz in (220, 880, 3520)) + hiss
    tones[48000:] = 0
    wide = CONFIGS["44100"]
    slow = seconds(wide)
    hiss = np.random.RandomState(6).randint(-3000, 3000, len(slow)) / 32768
    hum = 0.4 * np.sin(2 * np.pi * 50 * slow) * np.sin(2 * np.pi * 0.7 * slow) + hiss
    return {
        "chirp over noise": (whole(glide), DEFAULT),
        "clicks": (whole(clicks), FIXED),
        "tones, then silence": (whole(tones), DEFAULT),
        "hum, 44100 Hz": (whole(hum), wide),
    }


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_pictures(name):
    """No speed is bought with a change of the images: they are what they were.

    The last bits of 32-bit sums differ from processor to processor, which can turn a level that lies on the
    border of two. A 64-bit calculation tells which those are; they are left out of the hash, and all others
    must be right to the last pixel.
    """
    waveform, config = golden_signals()[name]
    level = reference_level(waveform, config)
    clear = np.abs(level - np.floor(level) - 0.5) > 0.02
    assert clear.mean() > 0.95
    image = render(waveform, config)
    assert np.abs(image - level).max() < 0.51
    assert hashlib.sha256(np.where(clear, image, 0).tobytes()).hexdigest() == GOLDEN[name]


def test_synthesised_sounds_are_drawn_as_librosa_draws_them():
    for number, name in enumerate(demo.CLASSES[:3]):
        assert difference(demo.synthesise(name, seed=number), DEFAULT).max() <= 1


# -- images as files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("compressor", ["isal", "zlib"])
def test_a_png_holds_the_picture_and_what_it_was_drawn_from(tmp_path, monkeypatch, compressor):
    if compressor == "zlib":
        monkeypatch.setattr(images, "isal_zlib", None)
    elif images.isal_zlib is None:
        pytest.skip("isal is not installed")
    noisy = np.random.default_rng(0).integers(0, 256, (33, 57, 3)).astype(np.uint8)
    for number, image in enumerate((render(chirp(), DEFAULT), noisy, noisy[::2, ::3])):
        path = tmp_path / f"{number}.png"
        path.write_bytes(images.encode_png(image, "v1 key"))
        assert np.array_equal(cv2.imread(str(path))[:, :, ::-1], image)
        with Image.open(path) as opened:
            opened.verify()
        with Image.open(path) as opened:
            assert opened.mode == "RGB" and opened.text == {"soundsight": "v1 key"}
            assert np.array_equal(np.asarray(opened), image)
        assert images.read_key(path) == "v1 key"


@pytest.mark.parametrize("image", [np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)])
def test_what_is_no_rgb_picture_is_not_written(image):
    with pytest.raises(ValueError, match="no uint8 RGB image"):
        images.encode_png(image, "")


# -- what Soundsight 0.1.0 rendered wrong ------------------------------------------------------------------

LONG = SpectrogramConfig(n_fft=1024, windows_ms=(16, 32, 64), clip_seconds=1, image_size=32)
FAULT = r"was made with wrong spectrograms: Soundsight 0\.1\.0 .* as long as n_fft=1024 .* Prepare the data again"


def test_only_overlapping_frames_as_long_as_n_fft_were_rendered_wrong():
    assert LONG.renderer == 2
    for right in (DEFAULT, replace(LONG, n_fft=1025), replace(LONG, clip_seconds=3)):
        assert right.renderer == 1


def test_data_caches_and_models_that_were_rendered_wrong_are_refused(tmp_path, tiny_sounds, monkeypatch, capsys):
    pytest.importorskip("onnxruntime", reason="the extra soundsight[export] is not installed")
    monkeypatch.chdir(tmp_path)
    dataset = DatasetConfig(root=str(tiny_sounds), cache="cache", data="data")
    with monkeypatch.context() as former:
        images.settings_key.cache_clear()
        former.setattr(SpectrogramConfig, "renderer", 1)  # as all that 0.1.0 made says, or implies
        prepare(dataset, LONG, workers=1)
        models.make_checkpoint(Path("old.pt"), preprocessing=LONG, names=TINY_CLASSES)
        export("old.pt", "onnx", out="old.onnx")
    images.settings_key.cache_clear()
    models.make_checkpoint(Path("new.pt"), preprocessing=LONG, names=TINY_CLASSES)
    clip = str(next((tiny_sounds / "audio").glob("1-*.wav")))
    data = ["data=data", "imgsz=32", "device=cpu", "epochs=1", "model=yolov8n-cls.yaml"]
    for words in (
        ["train", *data],
        ["val", "new.pt"],
        ["val", "old.pt"],
        ["predict", "old.pt", clip],
        ["predict", "old.onnx", clip],
        ["export", "old.pt"],
        ["train", "resume=old.pt"],
    ):
        assert main(words) == 2, words
        assert re.match(f"soundsight: .* {FAULT}", capsys.readouterr().err), words

    again = prepare(dataset, LONG, workers=1)
    assert again.rendered == 80 and again.kept == 0
    assert main(["val", "new.pt"]) == 0
    assert main(["predict", "new.pt", clip]) == 0
    with pytest.raises(ModelError, match=FAULT):
        load_checkpoint("old.pt")


def test_sizes_that_cannot_be_trained_are_refused_where_they_are_made(tmp_path, tiny_sounds, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = [f"root={tiny_sounds}", "image_size=100"]
    message = "image_size=100 cannot be trained: YOLO takes multiples of 32. .* image_size=96 or image_size=128"
    for command in ("prepare", "crossval"):
        assert main([command, *words]) == 2 and re.search(message, capsys.readouterr().err)
    assert not list(tmp_path.rglob("*.png"))
    with monkeypatch.context() as former:
        former.setattr("soundsight.checks.check_trainable", lambda _: None)
        prepare(DatasetConfig(root=str(tiny_sounds), cache="cache"), replace(LONG, image_size=100), workers=1)
    assert main(["train", "imgsz=100", "device=cpu"]) == 2 and re.search(message, capsys.readouterr().err)
