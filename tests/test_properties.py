"""Properties that hold for all settings and signals, against float64 references written from the definitions alone.

`SOUNDSIGHT_EXAMPLES=2000` tries so many random examples of each; without it, a few that are always the same.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import subprocess
import sys

import cv2
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from soundsight import audio, spectrogram
from soundsight.config import SpectrogramConfig
from soundsight.datasets import images as images
from soundsight.inference.segments import cut, render_segment
from soundsight.spectrogram import render

EXAMPLES = int(os.environ.get("SOUNDSIGHT_EXAMPLES", "0"))


def examples(count: int) -> settings:
    return settings(
        max_examples=EXAMPLES or count,
        derandomize=not EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


# -- the renderer ---------------------------------------------------------------------------------------

# A float32 transform adds noise to each frequency, in proportion to the energy of its frame: 128 dB below it at most,
# so that levels lower than about 110 dB below the loudest sound of a frame are not to be trusted.
NOISE = 4e-7


@st.composite
def spectrograms(draw: st.DrawFn) -> SpectrogramConfig:
    """Any settings, but for those that take long to compute."""
    size = draw(st.integers(32, 96) | st.integers(32, 1024))
    n_fft = draw(
        st.sampled_from([64, 65, 127, 256, 1000, 1024, 2048]) | st.integers(64, (1 << 20) // size) | st.just(0)
    )
    n_fft = min(n_fft or 65536, (1 << 20) // size)
    rate = draw(st.sampled_from([8000, 16000, 22050, 44100, 48000]) | st.integers(1000, 384000))
    samples = draw(st.integers(max(size, math.ceil(0.1 * rate)), min(60 * rate, max(1 << 17, rate // 5))))
    windows = draw(st.lists(st.integers(2, n_fft) | st.just(n_fft), min_size=3, max_size=3))
    fmin = draw(st.just(0.0) | st.floats(0, rate / 2 - 2))
    fmax = draw(st.none() | st.floats(fmin + 1.01, rate / 2))
    floor = draw(st.sampled_from([-80.0, -100.0]) | st.floats(-200, 98))
    return SpectrogramConfig(
        sample_rate=rate,
        clip_seconds=samples / rate,
        image_size=size,
        windows_ms=tuple(1000 * window / rate for window in windows),
        n_fft=n_fft,
        fmin_hz=fmin,
        fmax_hz=fmax,
        db_floor=floor,
        db_ceiling=draw(st.floats(floor + 1.01, 100)),
        reference=draw(st.sampled_from(["clip", "full_scale"])),
        padding=draw(st.sampled_from(["silence", "repeat"])),
    )


@st.composite
def waveforms(draw: st.DrawFn, samples: int) -> np.ndarray:
    """Noise, tones, impulses and squares with silence here and there; shorter and longer than a clip, or empty."""
    length = draw(st.just(samples) | st.integers(0, 2 * samples))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    time, sound = np.arange(length), np.zeros(length)
    for kind in draw(st.lists(st.sampled_from(["noise", "tone", "impulses", "square", "offset"]), max_size=3)):
        part = {
            "noise": rng.normal(0, 0.3, length),
            "tone": np.sin(2 * np.pi * rng.uniform(0, 0.5) * time),
            "impulses": (rng.random(length) < 3 / (length + 1)).astype(float),
            "square": np.sign(np.sin(2 * np.pi * rng.uniform(0, 0.1) * time)),
            "offset": np.ones(length),
        }[kind]
        first, last = sorted(rng.integers(0, length + 1, 2)) if draw(st.booleans()) else (0, length)
        part[:first] = part[last:] = 0
        sound += part * 10 ** draw(st.floats(-5, 0))
    return np.clip(sound, -1, 1).astype(np.float32)


def reference_power(waveform: np.ndarray, config: SpectrogramConfig) -> tuple[np.ndarray, np.ndarray]:
    """Mel power `(3, frames, bands)` by the definition, and the amplitude of float32's noise beside it."""
    size, n_fft, total = config.image_size, config.n_fft, round(config.clip_seconds * config.sample_rate)
    samples = waveform.astype(np.float64)[:total]
    fill = np.resize(samples, total) if config.padding == "repeat" and len(samples) else np.zeros(total)
    samples = np.concatenate([samples, fill[len(samples) :]])

    def mel(hz: float) -> float:
        return hz * 3 / 200 if hz < 1000 else 15 + 27 * math.log(hz / 1000) / math.log(6.4)

    def hertz(value: float) -> float:
        return value * 200 / 3 if value < 15 else 1000 * 6.4 ** ((value - 15) / 27)

    top = config.sample_rate / 2 if config.fmax_hz is None else config.fmax_hz
    corners = [hertz(value) for value in np.linspace(mel(config.fmin_hz), mel(top), size + 2)]
    bins = np.arange(n_fft // 2 + 1) * config.sample_rate / n_fft
    filters = np.array(
        [
            2 / (high - low) * np.interp(bins, [low, middle, high], [0, 1, 0])
            for low, middle, high in zip(corners[:-2], corners[1:-1], corners[2:], strict=True)
        ]
    )
    hop = total // size
    power, noise = np.zeros((3, size, size)), np.zeros((3, size, size))
    for channel, window_ms in enumerate(config.windows_ms):
        length = round(window_ms * config.sample_rate / 1000)
        window = np.sin(np.pi * np.arange(length) / length) ** 2
        window /= np.sqrt((window**2).sum())
        for frame in range(size):
            where = frame * hop - n_fft // 2 + (n_fft - length) // 2 + np.arange(length)
            inside = (where >= 0) & (where < total)
            seen = np.where(inside, samples[np.clip(where, 0, total - 1)], 0) * window
            power[channel, frame] = filters @ np.abs(np.fft.rfft(seen, n_fft)) ** 2
            noise[channel, frame] = NOISE * np.sqrt((seen**2).sum() * filters.sum(axis=1))
    return power, noise


def levels(power: np.ndarray, config: SpectrogramConfig, peak: float) -> np.ndarray:
    """Mel power as an image of real numbers."""
    decibel = 10 * np.log10(np.maximum(power / peak, 1e-300))
    level = 255 * (decibel - config.db_floor) / (config.db_ceiling - config.db_floor)
    return np.clip(level, 0, 255).transpose(2, 1, 0)[::-1]


@pytest.fixture(scope="module")
def other_process():
    """Renders elsewhere, where fresh memory holds large numbers."""
    code = "import pickle, sys; from soundsight.spectrogram import render\nwhile True: " + (
        "pickle.dump(render(*pickle.load(sys.stdin.buffer)), sys.stdout.buffer); sys.stdout.flush()"
    )
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "MALLOC_PERTURB_": "1"}, **streams) as there:

        def ask(*case):
            pickle.dump(case, there.stdin)
            there.stdin.flush()
            return pickle.load(there.stdout)

        yield ask
        there.kill()


@examples(60)
@given(st.data())
def test_any_settings_render_any_signal_as_the_definition_says(other_process, data):
    config = data.draw(spectrograms())
    waveform = data.draw(waveforms(config.clip_samples))
    image = render(waveform, config)

    size, n_fft = config.image_size, config.n_fft
    for count in (size * n_fft, 3 * size**2, config.clip_samples + n_fft, n_fft):
        np.full(count, np.nan, np.float32)  # and let go at once: what is allocated next holds it
    assert np.array_equal(render(waveform, config), image)
    assert np.array_equal(other_process(waveform, config), image)

    power, noise = reference_power(waveform, config)
    peak = 1.0 if config.reference == "full_scale" else power.max()
    assume(not 0.99 < peak / spectrogram.SILENCE_POWER < 1.01)
    if peak <= spectrogram.SILENCE_POWER:
        assert not image.any()
        return
    lowest = levels(np.maximum(np.sqrt(power) - noise, 0) ** 2, config, peak)
    highest = levels((np.sqrt(power) + noise) ** 2, config, peak)
    assert (image >= lowest - 1).all() and (image <= highest + 1).all()


GUARDED = """\
import ctypes, mmap, sys, types
import numpy as np
from soundsight import spectrogram
from soundsight.config import SpectrogramConfig

def guarded(shape, dtype=np.float32):
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    whole = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, whole + mmap.PAGESIZE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert not ctypes.CDLL(None).mprotect(ctypes.c_void_p(start + whole), mmap.PAGESIZE, 0)
    return np.frombuffer(memory, dtype, int(np.prod(shape)), whole - size).reshape(shape)

numpy = types.ModuleType("numpy"); numpy.__dict__.update(vars(np), zeros=guarded, empty=guarded)
noise = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
for n_fft, windows in ((1024, (16, 32, 64)), (512, (32, 32, 32)), (1025, (1, 32, 64)), (2048, (25, 50, 100))):
    config = SpectrogramConfig(n_fft=n_fft, windows_ms=windows, clip_seconds=1, image_size=64)
    expected = spectrogram.render(noise, config)
    spectrogram.np = numpy
    assert np.array_equal(spectrogram.render(noise, config), expected)
    spectrogram.np = np
print("read nothing else")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mprotect")
def test_the_renderer_reads_nothing_past_the_end_of_its_arrays():
    """Each is followed by a page that may not be read; renderer 1 ends with a segmentation fault."""
    done = subprocess.run([sys.executable, "-c", GUARDED], capture_output=True, text=True)
    assert done.stdout.strip() == "read nothing else", f"exit code {done.returncode}: {done.stderr[-500:]}"


@examples(60)
@given(st.data())
def test_opencv_gets_whole_arrays_only(data):
    """It would take rows that overlap for one continuous row, and read past their end."""
    config = data.draw(spectrograms())
    shown = []

    class Watched:
        def __getattr__(self, name):
            found = getattr(cv2, name)
            return watched(found) if callable(found) else found

    def watched(function):
        def call(*arguments):
            for argument in arguments:
                for array in argument if isinstance(argument, tuple) else [argument]:
                    if isinstance(array, np.ndarray):
                        shown.append(array.flags.c_contiguous)
            return function(*arguments)

        return call

    spectrogram.cv2 = Watched()
    try:
        render(np.ones(config.clip_samples, np.float32), config)
    finally:
        spectrogram.cv2 = cv2
    assert shown and all(shown)


# -- PNG ------------------------------------------------------------------------------------------------


@examples(60)
@given(
    st.integers(1, 70),
    st.integers(1, 70),
    st.integers(0, 1 << 32),
    st.sampled_from([1, 2, 256]),
    st.sampled_from(["whole", "steps", "reversed", "turned", "repeated", "part", "mirrored channels"]),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=300),
    st.booleans(),
)
def test_any_image_and_text_survive_as_png(tmp_path_factory, height, width, seed, span, view, key, slow):
    whole = np.random.default_rng(seed).integers(0, span, (3 * height, 2 * width, 3)).astype(np.uint8)
    image = {
        "whole": whole,
        "steps": whole[::3, ::2],
        "reversed": whole[::-1, ::-1],
        "turned": whole.transpose(1, 0, 2),
        "repeated": np.broadcast_to(whole[:1], whole.shape),
        "part": whole[height : 2 * height, width:],
        "mirrored channels": whole[..., ::-1],
    }[view]
    kept, images.isal_zlib = images.isal_zlib, None if slow else images.isal_zlib
    try:
        data = images.encode_png(image, key)
    finally:
        images.isal_zlib = kept
    assert np.array_equal(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB), image)
    with Image.open(io.BytesIO(data)) as opened:
        assert np.array_equal(np.asarray(opened), image) and opened.text == {"soundsight": key}
    path = tmp_path_factory.getbasetemp() / "property.png"
    path.write_bytes(data)
    assert images.read_key(path) == key


# -- sound ----------------------------------------------------------------------------------------------

TYPES = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64"]


@examples(100)
@given(
    st.sampled_from(TYPES), st.integers(1, 300), st.integers(0, 9), st.sampled_from([1, 2, -1]), st.integers(0, 1 << 32)
)
def test_any_array_becomes_the_mean_of_its_channels(name, samples, channels, step, seed):
    rng, kind = np.random.default_rng(seed), np.dtype(name)
    shape = (samples, channels) if channels else (samples,)
    if kind.kind == "f":
        array = rng.uniform(-1, 1, shape).astype(kind)[::step]
        expected = array.astype(np.float64)
    else:
        limits = np.iinfo(kind)
        array = rng.integers(limits.min, limits.max, shape, dtype=kind, endpoint=True)[::step]
        half = 2.0 ** (limits.bits - 1)
        expected = (array.astype(np.float64) - (half if kind.kind == "u" else 0)) / half
    mono = audio.to_mono(array)
    assert mono.dtype == np.float32 and mono.flags.c_contiguous
    np.testing.assert_allclose(mono, expected if not channels else expected.mean(axis=1), atol=2e-7)


class Melody:
    """Three faded tones, known at any time: what a resampler should find between the samples."""

    def __init__(self, seconds: float, highest_hz: float, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.seconds, self.hz, self.phases = seconds, rng.uniform(0.05, 1, 3) * highest_hz, rng.uniform(0, 7, 3)

    def __call__(self, time: np.ndarray) -> np.ndarray:
        tones = sum(np.sin(2 * np.pi * hz * time + phase) for hz, phase in zip(self.hz, self.phases, strict=True))
        inside = (time >= 0) & (time <= self.seconds)
        return np.where(inside, 0.3 * tones * np.sin(np.pi * time / self.seconds) ** 2, 0)

    def sampled(self, rate: float) -> np.ndarray:
        return self(np.arange(round(self.seconds * rate)) / rate).astype(np.float32)


@examples(60)
@given(st.integers(1000, 96000), st.integers(1000, 96000), st.integers(0, 1 << 32))
def test_any_rate_becomes_any_other(rate, target, seed):
    melody = Melody(20000 / max(rate, target), 0.3 * min(rate, target), seed)
    found = audio.resample(melody.sampled(rate), rate, target)
    assert abs(len(found) - melody.seconds * target) <= 1 + target / rate
    assert np.abs(found - melody(np.arange(len(found)) / target)).max() < 2e-3


@examples(60)
@given(st.floats(0.25, 4), st.integers(3000, 20000), st.floats(0.1, 1), st.integers(0, 1 << 32))
def test_any_speed_is_the_sound_played_faster(speed, samples, share, seed):
    rate, length = 16000, max(500, round(share * samples))
    melody = Melody(length / rate, 0.3 * rate / max(1, speed), seed)
    found = audio.change_speed(melody.sampled(rate), speed, samples)
    once = math.ceil(length / speed)
    if length < samples:  # left to the padding
        assert abs(len(found) - min(samples, length / speed)) <= 1
        once = len(found)
    else:
        assert len(found) == samples
    whole = found[: min(once - 1, samples)]
    assert np.abs(whole - melody(np.arange(len(whole)) * speed / rate)).max() < 2e-3
    if len(found) > once + 1:  # begins again
        period = once if np.array_equal(found[once:][:500], found[: len(found) - once][:500]) else once - 1
        assert np.array_equal(found[period:], found[: len(found) - period][: len(found) - period])


@examples(40)
@given(st.data())
def test_a_recording_read_in_parts_is_the_one_read_at_once(tmp_path_factory, data):
    rate = data.draw(st.sampled_from([8000, 11025, 16000, 44100]))
    config = SpectrogramConfig(
        sample_rate=data.draw(st.sampled_from([rate, 8000, 16000])),
        clip_seconds=0.5,
        image_size=32,
        windows_ms=(5, 20, 40),
    )
    channels = data.draw(st.integers(1, 3))
    count = data.draw(st.integers(10, 2 * rate))  # less than 10 may be no sample at all at the lower rate
    sound = np.random.default_rng(count).uniform(-1, 1, (count, channels)).astype(np.float32)
    path = tmp_path_factory.getbasetemp() / "parts.wav"
    soundfile.write(path, sound, rate, subtype="FLOAT")
    whole = audio.read(path, sample_rate=rate)
    np.testing.assert_allclose(whole, sound.astype(np.float64).mean(axis=1), atol=2e-7)
    start = data.draw(st.integers(0, count - 1))
    part = audio.read(path, sample_rate=rate, start_seconds=start / rate, duration_seconds=0.3)
    assert np.array_equal(part, whole[start:][: math.ceil(0.3 * rate)])

    seconds = data.draw(st.floats(0.1, 0.5))
    hop = data.draw(st.floats(0.05, 1))
    with audio.opened(path, block_seconds=data.draw(st.floats(0.001, 3))) as (info, blocks):
        stretches = list(cut(blocks, info.sample_rate, config, window_seconds=seconds, hop_seconds=hop))
    assert stretches
    for number, stretch in enumerate(stretches):
        at = round(number * hop * rate) / rate
        length = math.ceil(round(seconds, 6) * rate - 1e-6)
        assume(abs(count - at * rate - length / 2) > 1)  # where half a segment ends is a matter of rounding
        if count - at * rate < length / 2 and count >= length and number:  # a short rest is seen by a whole clip
            at = (count - length) / rate
        heard = audio.read(path, sample_rate=config.sample_rate, start_seconds=at, duration_seconds=seconds)
        assert np.array_equal(render_segment(stretch, config)[0][0], render(heard, config))


@examples(40)
@given(st.integers(1, 8), st.integers(1, 3), st.integers(1, 4), st.integers(32, 70), st.integers(0, 1 << 32))
def test_any_time_shifts_are_averaged(shifts, views, windows, size, seed):
    torch = pytest.importorskip("torch")
    from soundsight.backend.checkpoint import Preprocessing
    from soundsight.models.classifier import Classifier

    torch.manual_seed(seed % (1 << 31))
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * size**2, 4), torch.nn.Softmax(1))
    config = SpectrogramConfig(image_size=size)
    classifier = Classifier(network, Preprocessing(tuple("abcd"), config), device=torch.device("cpu"), model_hash="")
    images = np.random.default_rng(seed).integers(0, 256, (windows * views, size, size, 3), np.uint8)
    weights, bias = (value.detach().numpy().astype(np.float64) for value in network[1].parameters())
    expected = np.zeros((windows, 4))
    for window in range(windows):
        for view in range(views):
            for shift in range(shifts):
                by = round(size * shift / shifts)
                columns = [(column - by) % size for column in range(size)]
                pixels = images[window * views + view][:, columns].transpose(2, 0, 1).ravel() / 255
                scores = weights @ pixels + bias
                expected[window] += scores - np.log(np.exp(scores).sum())
    found = classifier.scores(images, shifts=shifts, images_per_segment=views)
    np.testing.assert_allclose(found, expected / (shifts * views), atol=1e-4)
