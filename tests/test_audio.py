"""Reading recordings: every format, rate and channel count; parts and streams equal the whole; clear errors."""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from soundsight import audio, files
from soundsight.audio import ffmpeg
from soundsight.errors import AudioError

ENDINGS = {
    "WAV": "wav",
    "WAVEX": "wav",
    "FLAC": "flac",
    "OGG": "ogg",
    "MP3": "mp3",
    "AIFF": "aiff",
    "AU": "au",
    "CAF": "caf",
    "W64": "w64",
    "RF64": "rf64",
    "VOC": "voc",
    "NIST": "sph",
}
# Largest error of a sine of amplitude 0.5. Codecs that are not listed come with heavy losses.
ERRORS = {
    "PCM_16": 4e-5,
    "PCM_24": 1e-6,
    "PCM_32": 1e-6,
    "FLOAT": 1e-6,
    "DOUBLE": 1e-6,
    "ALAC_16": 4e-5,
    "ALAC_20": 2e-6,
    "ALAC_24": 1e-6,
    "ALAC_32": 1e-6,
    "PCM_S8": 8e-3,
    "PCM_U8": 8e-3,
    "ULAW": 2e-2,
    "ALAW": 2e-2,
    "VORBIS": 5e-2,
}
WRITABLE = [
    (kind, subtype)
    for kind in ENDINGS
    if kind in soundfile.available_formats()
    for subtype in soundfile.available_subtypes(kind)
    if soundfile.check_format(kind, subtype) and subtype not in ("MPEG_LAYER_I", "MPEG_LAYER_II")
]


def blocks(source, **how):
    with audio.opened(source, **how) as (_, parts):
        yield from parts


def sine(rate: int, seconds: float = 1.0, hz: float = 500, amplitude: float = 0.5) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * hz * np.arange(round(rate * seconds)) / rate)


def noise(samples: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, (samples, channels)).squeeze()


def write(path: Path, samples: np.ndarray, rate: int = 16000, **options: str) -> Path:
    soundfile.write(path, samples, rate, **options)
    return path


# -- formats, channels, rates ---------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "subtype"), WRITABLE, ids=[" ".join(pair) for pair in WRITABLE])
def test_every_format_of_libsndfile_is_heard(tmp_path, kind, subtype):
    rate = 8000
    path = tmp_path / f"tone.{ENDINGS[kind]}"
    try:
        write(path, sine(rate), rate, format=kind, subtype=subtype)
        soundfile.read(path)
    except soundfile.LibsndfileError as error:
        pytest.skip(f"libsndfile cannot write and read this combination: {error}")
    info = audio.probe(path)
    assert (info.sample_rate, info.channels) == (rate, 1)
    assert info.format.split("/")[1] == subtype
    heard = audio.read(path, sample_rate=rate)
    assert heard.dtype == np.float32 and heard.ndim == 1
    assert abs(len(heard) - rate) <= 1200  # some codecs fill their last block
    if subtype in ERRORS:
        assert np.abs(heard[:rate] - sine(rate)[: len(heard)]).max() < ERRORS[subtype]
    spectrum = np.abs(np.fft.rfft(heard[: rate // 2] * np.hanning(rate // 2)))
    assert spectrum.argmax() * 2 == 500  # bins of 2 Hz


@pytest.mark.parametrize("channels", [1, 2, 3, 6, 8, 64])
def test_channels_are_averaged(tmp_path, channels):
    samples = noise(1000, channels)
    path = write(tmp_path / "a.wav", samples, subtype="FLOAT")
    assert audio.probe(path).channels == channels
    expected = samples.reshape(1000, channels).mean(axis=1)
    assert np.abs(audio.read(path, sample_rate=16000) - expected).max() < 1e-6


def test_opposite_channels_cancel(tmp_path):
    tone = sine(16000)
    path = write(tmp_path / "a.wav", np.stack([tone, -tone], axis=1), subtype="FLOAT")
    assert np.abs(audio.read(path, sample_rate=16000)).max() == 0


@pytest.mark.parametrize("rate", [4000, 8000, 11025, 22050, 32000, 44100, 48000, 96000, 192000])
def test_every_rate_becomes_the_one_asked_for(tmp_path, rate):
    path = write(tmp_path / "a.wav", sine(rate), rate, subtype="FLOAT")
    heard = audio.read(path, sample_rate=16000)
    assert len(heard) == 16000
    assert np.abs(heard - sine(16000))[400:-400].max() < 1e-4


def test_what_the_new_rate_cannot_hold_is_filtered_out(tmp_path):
    path = write(tmp_path / "a.wav", sine(48000, hz=15000), 48000, subtype="FLOAT")
    assert np.abs(audio.read(path, sample_rate=16000)[400:-400]).max() < 1e-4


def test_a_few_samples_are_enough(tmp_path):
    assert len(audio.read(write(tmp_path / "a.wav", np.array([0.5])), sample_rate=16000)) == 1
    assert len(audio.read(write(tmp_path / "b.wav", noise(10), 44100), sample_rate=16000)) == 4


def test_m4a_goes_through_ffmpeg(tmp_path):
    path = tmp_path / "a.m4a"
    if not ffmpeg.installed():
        pytest.skip("ffmpeg is not installed")
    source = write(tmp_path / "a.wav", sine(16000))
    subprocess.run(["ffmpeg", "-v", "error", "-i", source, "-c:a", "aac", path], check=True)
    heard = audio.read(path, sample_rate=16000, duration_seconds=0.5)
    assert len(heard) == 8000 and abs(np.sqrt(np.mean(heard[2000:] ** 2)) - 0.5 / np.sqrt(2)) < 0.02


# -- parts, streams -------------------------------------------------------------------------------------


# In OGG Vorbis, libsndfile may land 128 samples early in the last page, so no part begins there.
@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.aiff", "a.ogg"])
@pytest.mark.parametrize(("start", "duration"), [(0, 0.5), (0.75, 1.0), (1.5, None), (1.9, 5.0), (0.0001, 0.01)])
def test_a_part_equals_that_part_of_the_whole(tmp_path, name, start, duration):
    path = write(tmp_path / name, noise(3 * 16000))
    whole = audio.read(path, sample_rate=16000)
    part = audio.read(path, sample_rate=16000, start_seconds=start, duration_seconds=duration)
    first = round(start * 16000)
    last = len(whole) if duration is None else first + round(duration * 16000)
    assert np.array_equal(part, whole[first:last])


@pytest.mark.parametrize("rate", [11025, 44100, 48000])
def test_a_resampled_part_equals_that_part_of_the_whole(tmp_path, rate):
    path = write(tmp_path / "a.wav", noise(3 * rate), rate)
    whole = audio.read(path, sample_rate=16000)
    part = audio.read(path, sample_rate=16000, start_seconds=1.0, duration_seconds=1.5)
    assert len(part) - 24000 in (0, 1)  # half a sample of the recording more
    error = np.abs(part[:24000] - whole[16000:40000])
    assert error[160:].max() < 1e-4  # to the last sample, since reading goes on beyond it
    head = audio.read(path, sample_rate=16000, duration_seconds=1.5)
    assert np.abs(head[:24000] - whole[:24000]).max() < 1e-4


@pytest.mark.parametrize("rate", [8000, 44100])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_stream_equals_the_whole(tmp_path, rate, channels):
    path = write(tmp_path / "a.flac", noise(round(2.05 * rate), channels), rate)
    parts = list(blocks(path, block_seconds=0.3))
    assert [len(part) for part in parts] == [0.3 * rate] * 6 + [0.25 * rate]
    assert all(part.dtype == np.float32 for part in parts)
    assert np.array_equal(np.concatenate(parts), audio.read(path, sample_rate=rate))


def test_a_long_recording_is_streamed_in_blocks_of_ten_seconds(tmp_path):
    path = write(tmp_path / "a.wav", np.zeros(25 * 8000), 8000)
    assert [len(block) for block in blocks(path)] == [80000, 80000, 40000]


def test_a_stream_is_read_from_an_open_file_and_from_a_pipe(tmp_path):
    path = write(tmp_path / "a.wav", noise(20000))
    whole = audio.read(path, sample_rate=16000)
    assert np.array_equal(np.concatenate(list(blocks(io.BytesIO(path.read_bytes())))), whole)
    reader, writer = os.pipe()
    data = path.read_bytes()
    thread = threading.Thread(target=lambda: open(writer, "wb").write(data))
    thread.start()
    with open(reader, "rb") as pipe:
        streamed = np.concatenate(list(blocks(pipe)))
    thread.join()
    assert np.array_equal(streamed, whole)


# -- headers, hashes, arrays ----------------------------------------------------------------------------


def test_probe_says_what_the_header_says(tmp_path):
    info = audio.probe(write(tmp_path / "a.flac", noise(11025, 2), 22050, subtype="PCM_24"))
    assert info == audio.AudioInfo(22050, 2, 11025, "FLAC/PCM_24")
    assert info.duration_seconds == 0.5


def test_sha256_is_that_of_the_bytes(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")  # the example of FIPS 180-2
    assert files.sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_names_that_look_like_recordings():
    assert audio.is_audio(Path("a.WAV")) and audio.is_audio(Path("b.flac"))
    assert not audio.is_audio(Path("notes.txt")) and not audio.is_audio(Path("wav"))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16, np.int32])
def test_integers_are_scaled_by_their_range(dtype):
    limits = np.iinfo(dtype)
    middle = (int(limits.max) + int(limits.min) + 1) // 2
    quarter = middle + (int(limits.max) - middle + 1) // 4
    waveform = audio.to_mono(np.array([limits.min, middle, quarter], dtype))
    assert waveform.dtype == np.float32 and waveform.tolist() == [-1, 0, 0.25]


def test_arrays_of_floats_and_channels():
    assert np.array_equal(audio.to_mono([0.5, -0.5]), np.float32([0.5, -0.5]))
    assert np.array_equal(audio.to_mono(np.array([[1.0, 0.0], [0.5, -0.5]])), np.float32([0.5, 0]))


# -- errors: one sentence that says what was found ------------------------------------------------------


def message(path: Path | str, **options: float) -> str:
    with pytest.raises(AudioError) as caught:
        audio.read(path, **{"sample_rate": 16000, **options})
    text = str(caught.value)
    assert text.endswith(".") and "\n" not in text and str(path) in text
    return text


def test_missing_files_folders_and_devices(tmp_path):
    assert "does not exist" in message(tmp_path / "no.wav")
    assert "is a folder, not a recording" in message(tmp_path)
    if sys.platform != "win32":
        assert "no regular file" in message("/dev/null")


@pytest.mark.parametrize(
    "content", [b"", b"no sound at all", b"RIFF\x00\x00\x00\x00WAVE", random.Random(0).randbytes(5000)]
)
def test_files_that_are_no_recordings(tmp_path, content):
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    assert "no recording that can be read" in message(path)


def test_recordings_without_samples(tmp_path):
    assert "holds no samples" in message(write(tmp_path / "a.wav", np.zeros(0)))
    with pytest.raises(AudioError, match="holds no samples"):
        audio.probe(tmp_path / "a.wav")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers(tmp_path, bad):
    samples = np.zeros(100, np.float32)
    samples[42] = bad
    path = write(tmp_path / "a.wav", samples, subtype="FLOAT")
    assert "no numbers (NaN or infinity, first at sample 42)" in message(path)
    with pytest.raises(AudioError, match="first at sample 42"):
        audio.to_mono(samples)
    with pytest.raises(AudioError, match="first at sample 42"):
        list(blocks(path))


def test_a_start_outside_of_the_recording(tmp_path):
    path = write(tmp_path / "a.wav", noise(16000))
    assert "is 1.000 s long, so nothing is left at 1 s; choose an earlier start" in message(path, start_seconds=1)
    assert "nothing is left at -0.5 s" in message(path, start_seconds=-0.5)


def test_rates_and_channels_beyond_reason(tmp_path):
    assert "a sample rate of 50 Hz; 100 to 1000000 Hz" in message(write(tmp_path / "a.wav", noise(100), 50))
    crowd = write(tmp_path / "b.wav", noise(10, 300), 16000)
    assert "has 300 channels; at most 256" in message(crowd)


@pytest.mark.parametrize("damage", ["cut", "overwritten"])
def test_damaged_flac_is_an_error_not_a_shorter_recording(tmp_path, damage):
    path = write(tmp_path / "a.flac", noise(5 * 16000))
    data = path.read_bytes()
    half = len(data) // 2
    path.write_bytes(data[:half] if damage == "cut" else data[:half] + bytes(2000) + data[half + 2000 :])
    assert audio.probe(path).frames == 80000
    assert "cannot be decoded" in message(path)
    with pytest.raises(AudioError, match=r"cannot be decoded after \d\.\d s"):
        list(blocks(path))


def test_wav_that_was_cut_off_is_read_as_far_as_it_goes(tmp_path):
    path = write(tmp_path / "a.wav", noise(16000))
    path.write_bytes(path.read_bytes()[:-16000])
    assert len(audio.read(path, sample_rate=16000)) == 8000


def test_files_that_may_not_be_read(tmp_path):
    path = write(tmp_path / "a.wav", noise(100))
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    assert "change its permissions" in message(path)


def test_without_ffmpeg_the_sentence_says_so(tmp_path, monkeypatch):
    path = tmp_path / "a.m4a"
    path.write_bytes(b"anything")
    if ffmpeg.installed():
        assert "is no recording that can be read (ffmpeg: " in message(path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert audio.is_audio(path)  # listed as failed rather than passed over
    assert "needs the program ffmpeg, which is not installed" in message(path)


@pytest.mark.parametrize("array", [np.zeros(0), np.zeros((2, 3, 4)), np.float32(1)])
def test_arrays_that_are_no_recordings(array):
    with pytest.raises(AudioError, match=r"An array of shape .* is no recording"):
        audio.to_mono(array)


def test_a_stream_that_is_no_recording():
    with pytest.raises(AudioError, match="Standard input is no recording"):
        list(blocks(io.BytesIO(b"no sound at all")))
