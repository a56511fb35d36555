"""The front end of exports from waveforms: the image of `render`, by matrix products."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from soundsight import audio, spectrogram
from soundsight.config import SpectrogramConfig
from soundsight.errors import ConfigError
from soundsight.frontend import FrontEnd, check
from soundsight.spectrogram import render
from test_properties import examples, levels, reference_power, spectrograms, waveforms
from test_spectrogram import CONFIGS, DEFAULT, golden_signals, noise, signals

AGREEMENT = 1e-4  # share of the levels that may be one off
WORST = "2-83270-A-13.wav"  # at 16 kHz: 153 per million; from 64-bit numbers `render` differs in 86, the module in 106


def image_of(waveform: np.ndarray, front: FrontEnd) -> np.ndarray:
    with torch.inference_mode():
        (found,) = front(torch.from_numpy(waveform)[None])
    assert found.dtype == torch.float32 and found.min() >= 0 and found.max() <= 1
    return np.round(255 * found.permute(1, 2, 0).numpy()).astype(int)


def difference(waveform: np.ndarray, config: SpectrogramConfig) -> np.ndarray:
    return np.abs(image_of(waveform, FrontEnd(config)) - render(waveform, config))


def assert_same(differences: list[np.ndarray]) -> None:
    off = np.concatenate([each.ravel() for each in differences])
    assert off.max() <= 1 and (off > 0).mean() <= AGREEMENT


def test_golden_signals_have_the_image_of_render():
    assert_same([difference(*signal) for signal in golden_signals().values()])


def test_settings_of_all_kinds_have_the_image_of_render():
    found = []
    for config in CONFIGS.values():
        if config.db_floor >= -100:  # below lies what the sums of both round differently
            padded = [replace(config, padding=padding) for padding in ("silence", "repeat")]
            found += [difference(signals(config)["short"], each) for each in padded]
            found += [difference(signals(config)[name], config) for name in ("noise", "chirp", "half silent")]
    assert_same(found)


def test_clips_of_esc50_have_the_image_of_render(esc50):
    for config in (DEFAULT, CONFIGS["44100"]):
        front, rate = FrontEnd(config), config.sample_rate
        files = [*sorted((esc50 / "audio").glob("*.wav"))[::100], *(esc50 / "audio").glob(WORST)]
        sounds = [audio.read(path, sample_rate=rate) for path in files]
        found = [np.abs(image_of(sound, front) - render(sound, config)) for sound in sounds]
        assert_same(found)
        assert max((each > 0).mean() for each in found) <= 4 * AGREEMENT


def test_any_settings_have_the_image_of_render_for_any_signal():
    """Where 32-bit sums are noise, both lie where the definition does; elsewhere they are the same."""
    off = levels_compared = 0

    @examples(8)
    @given(st.data())
    def each(data):
        nonlocal off, levels_compared
        config = data.draw(spectrograms())
        try:
            front = FrontEnd(config)
        except ConfigError as refused:
            assert "An export from waveforms cannot render these settings: " in str(refused)
            return
        waveform = data.draw(waveforms(config.clip_samples))
        assume(len(waveform))
        power, blur = reference_power(waveform, config)
        peak = 1.0 if config.reference == "full_scale" else power.max()
        assume(not 0.99 < peak / spectrogram.SILENCE_POWER < 1.01)
        found, expected = image_of(waveform, front), render(waveform, config)
        if peak <= spectrogram.SILENCE_POWER:
            assert not found.any()
            return
        lowest = levels(np.maximum(np.sqrt(power) - blur, 0) ** 2, config, peak)
        highest = levels((np.sqrt(power) + blur) ** 2, config, peak)
        assert (found >= lowest - 1).all() and (found <= highest + 1).all()
        clear = highest - lowest < 0.01
        assert not clear.any() or np.abs(found - expected)[clear].max() <= 1
        off += int((found != expected)[clear].sum())
        levels_compared += int(clear.sum())

    each()
    assert levels_compared > 300_000 and off / levels_compared <= AGREEMENT


def test_batches_lengths_and_silence():
    front = FrontEnd(CONFIGS["small"])
    sound = noise(front.config)
    silent = np.zeros_like(sound)
    with torch.inference_mode():
        found = front(torch.from_numpy(np.stack([sound, silent, 0.5 * sound, 1e-8 * sound])))
        longer = front(torch.from_numpy(np.concatenate([sound, sound]))[None])
    assert found.shape == (4, 3, 32, 32)
    assert not found[1].any() and not found[3].any()
    assert torch.equal(found[0], longer[0]) and (found[0] - found[2]).abs().max() <= 1.01 / 255


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"n_fft": 16381}, "n_fft=16381 needs 268,386,306 numbers for its transform; take a power of two"),
        (
            {"clip_seconds": 0.1, "n_fft": 4096, "windows_ms": (25, 50, 200)},
            "frames overlap; 256 are allowed, so take shorter",
        ),
    ],
)
def test_settings_that_it_cannot_express_are_refused(settings, found):
    check(DEFAULT)
    with pytest.raises(ConfigError, match="An export from waveforms cannot render these settings") as refused:
        FrontEnd(replace(DEFAULT, **settings))
    assert found in str(refused.value)
