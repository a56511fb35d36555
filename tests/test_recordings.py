"""Recordings as people have them: lengths that no header tells, wrong names, damage; `prepare` and `predict` alike."""

from __future__ import annotations

import io
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from conftest import TINY_EARS
from soundsight import audio, parallel
from soundsight.audio import ffmpeg
from soundsight.config import DatasetConfig, SplitConfig
from soundsight.datasets.prepare import prepare
from soundsight.errors import AudioError
from soundsight.inference.segments import cut, file_source
from soundsight.inference.sources import expand

RATE = 16000
needs_ffmpeg = pytest.mark.skipif(not ffmpeg.installed(), reason="ffmpeg is not installed")


def sound(seconds: float = 3.0, rate: int = RATE) -> np.ndarray:
    """A rising tone with some noise, so that each place is unlike the others."""
    t = np.arange(round(seconds * rate)) / rate
    tone = 0.4 * np.sin(2 * np.pi * (300 * t + 100 * t * t)) + 0.02 * np.random.default_rng(0).standard_normal(len(t))
    return tone.astype(np.float32)


def pcm(samples: np.ndarray) -> bytes:
    return (samples * 32767).astype("<i2").tobytes()


def wav(data: bytes, size: int | None = None, *, riff: int | None = None, after: bytes = b"") -> bytes:
    """A 16-bit WAV whose header tells `size` bytes."""
    size = len(data) if size is None else size
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    return (
        struct.pack("<4sI4s", b"RIFF", size + 36 if riff is None else riff, b"WAVE")
        + form
        + (struct.pack("<4sI", b"data", size) + data + after)
    )


def read(path: Path | io.IOBase) -> tuple[np.ndarray, str]:
    """All that `predict` gets of a recording, and what it says of it."""
    heard, failure = [np.zeros(0, np.float32)], ""
    try:
        with audio.opened(path, block_seconds=0.7) as (_, blocks):
            heard.extend(blocks)
    except AudioError as error:
        failure = str(error)
    return np.concatenate(heard), failure


def from_pipe(data: bytes) -> tuple[np.ndarray, str]:
    reader, writer = os.pipe()

    def send() -> None:
        try:
            with open(writer, "wb") as target:
                target.write(data)
        except BrokenPipeError:
            pass

    thread = threading.Thread(target=send)
    thread.start()
    with open(reader, "rb") as pipe:
        found = read(pipe)
    thread.join()
    return found


def written(kind: str, subtype: str | None = None, seconds: float = 3.0) -> bytes:
    target = io.BytesIO()
    soundfile.write(target, sound(seconds), RATE, format=kind, subtype=subtype)
    return target.getvalue()


def encoded(path: Path, *words: str) -> Path:
    """What ffmpeg makes of the sound."""
    source = path.with_name("source.wav")
    soundfile.write(source, sound(), RATE)
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-i", source, *words, path], check=True)
    source.unlink()
    return path


# -- A. Lengths are counted ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_a_wav_whose_size_was_never_filled_in_is_read_to_its_end(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(pcm(sound()), size, riff=0))
    for found, failure in (read(path), from_pipe(path.read_bytes()), read(io.BytesIO(path.read_bytes()))):
        assert not failure
        np.testing.assert_allclose(found, sound(), atol=1e-4)
    assert audio.probe(path).duration_seconds == 3


@pytest.mark.parametrize(("kind", "at"), [("AIFF", None), ("AU", 8), ("CAF", None), ("W64", None), ("RF64", None)])
def test_other_headers_without_a_size(tmp_path: Path, kind: str, at: int | None) -> None:
    data = bytearray(written(kind, "PCM_16"))
    if kind == "AU":
        data[8:12] = b"\xff" * 4
    elif kind == "AIFF":
        data[data.index(b"SSND") + 4 :][:4] = bytes(4)
        start = data.index(b"SSND") + 4
        data[start : start + 4] = bytes(4)
    elif kind == "CAF":
        start = data.index(b"data") + 4
        data[start : start + 8] = b"\xff" * 8
    elif kind == "W64":
        start = data.index(b"data\xf3") + 16
        data[start : start + 8] = bytes(8)
    else:
        start = data.index(b"ds64") + 8
        data[start : start + 24] = bytes(24)
    path = tmp_path / "a"
    path.write_bytes(data)
    for found, failure in (read(path), from_pipe(bytes(data))):
        assert not failure
        np.testing.assert_allclose(found, sound(), atol=1e-4)


def test_a_wav_over_four_gigabytes_is_read_whole(tmp_path: Path) -> None:
    path, total = tmp_path / "a.wav", 2**32 + 6 * RATE
    path.write_bytes(wav(pcm(sound()), total % 2**32))
    with open(path, "r+b") as file:
        file.truncate(44 + total)  # sparse
        file.seek(-2 * RATE, os.SEEK_END)
        file.write(pcm(sound(1)))
    assert audio.probe(path).frames == total // 2
    last = audio.read(path, sample_rate=RATE, start_seconds=total / 2 / RATE - 1)
    np.testing.assert_allclose(last, sound(1), atol=1e-4)


def test_samples_beyond_what_the_header_tells_are_read_and_told(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(pcm(sound()), 2 * RATE))
    found, failure = read(path)
    assert len(found) == 3 * RATE and "holds 3.000 s, but its header announces 1.000 s" in failure
    for after in (b"LIST\4\0\0\0INFO", b"bext\1\0\0\0x\0", b"TAG" + bytes(125), bytes(4096), b"id3 \3\0\0\0abc"):
        path.write_bytes(wav(pcm(sound()), after=after))
        assert not read(path)[1] and len(read(path)[0]) == 3 * RATE


def test_bw64_is_read(tmp_path: Path) -> None:
    data = written("RF64", "PCM_16").replace(b"RF64", b"BW64", 1)
    (tmp_path / "a.wav").write_bytes(data)
    found, failure = read(tmp_path / "a.wav")
    assert not failure and len(found) == 3 * RATE


def test_flac_of_unknown_length(tmp_path: Path) -> None:
    data = bytearray(written("FLAC"))
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    path = tmp_path / "a.flac"
    path.write_bytes(data)
    for found, failure in (read(path), from_pipe(bytes(data))):
        assert not failure
        np.testing.assert_allclose(found, sound(), atol=1e-4)
    assert audio.probe(path).frames == 3 * RATE
    path.write_bytes(data[: len(data) // 2])
    found, failure = read(path)
    assert RATE < len(found) < 2 * RATE and "cannot be decoded after 1." in failure


@pytest.mark.parametrize("seconds", [1.0, 3.0])
def test_flac_that_holds_more_than_its_header_tells_is_read_whole(tmp_path: Path, seconds: float) -> None:
    data = bytearray(written("FLAC"))
    data[22:26] = round(seconds * RATE).to_bytes(4, "big")
    path = tmp_path / "a.flac"
    path.write_bytes(data)
    for found, failure in (read(path), from_pipe(bytes(data))):
        np.testing.assert_allclose(found, sound(), atol=1e-4)
        assert ("holds 3.000 s, but its header announces 1.000 s" in failure) == (seconds == 1)
    assert audio.probe(path).frames == 3 * RATE
    path.write_bytes(written("FLAC") + written("FLAC", seconds=0.5))
    assert len(read(path)[0]) == audio.probe(path).frames == 3.5 * RATE and not read(path)[1]


def variable_mp3(seconds: float) -> bytes:
    """MP3 of variable rate, noise first, so that a guess from its first frames is too short; without a Xing frame."""
    samples = sound(seconds)
    samples[: len(samples) // 3] *= np.random.default_rng(1).standard_normal(len(samples) // 3).astype(np.float32)
    target = io.BytesIO()
    soundfile.write(target, samples, RATE, format="MP3", bitrate_mode="VARIABLE", compression_level=0.3)
    data = target.getvalue()
    return data[data.index(b"\xff\xf3", max(data.find(b"Xing"), data.find(b"Info"))) :]


def test_mp3_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    path.write_bytes(variable_mp3(12))
    found, failure = read(path)
    assert not failure and 12 <= len(found) / RATE < 12.15
    assert audio.probe(path).frames == len(found)
    whole = written("MP3")
    path.write_bytes(whole + whole)
    assert len(read(path)[0]) == 6 * RATE and not read(path)[1]
    tagged = b"ID3\3\0\0\0\0\6\0" + bytes(768) + whole
    for joined in (whole + whole, tagged + tagged):
        found, failure = from_pipe(joined)
        assert not failure and 0 <= 6 * RATE - len(found) < 2304  # the padding of its encoder
    found, failure = from_pipe(whole + variable_mp3(60))
    assert 0 <= 3 * RATE - len(found) < 2304 and "goes on with another recording" in failure
    path.write_bytes(whole + b"TAG" + bytes(125))
    assert len(read(path)[0]) == 3 * RATE and not read(path)[1]
    path.write_bytes(whole[: len(whole) // 2] + bytes(700) + whole[len(whole) // 2 :])
    found, failure = read(path)
    assert len(found) > 2.7 * RATE and "is damaged at byte" in failure


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_a_chained_ogg_is_read_whole(tmp_path: Path, subtype: str) -> None:
    path = tmp_path / "a.ogg"
    path.write_bytes(written("OGG", subtype) + written("OGG", subtype, 1.0))
    found, failure = read(path)
    assert not failure and len(found) == 4 * RATE and audio.probe(path).frames == 4 * RATE
    for seconds in (0.2, 60.0):
        found, failure = from_pipe(written("OGG", subtype, 1.0) + 2 * written("OGG", subtype, seconds))
        assert not failure and len(found) == round((1 + 2 * seconds) * RATE)
    found, failure = from_pipe(written("OGG", subtype, 1.0) + written("OGG", subtype)[:-2000])
    assert RATE < len(found) < 4 * RATE and "Standard input is cut off" in failure
    data = bytearray(written("OGG", subtype, 20.0))
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert "is damaged at byte" in read(path)[1]


CUT = ["WAV", "AIFF", "AU", "CAF", "W64", "RF64", "VOC", "NIST", "FLAC", "OGG", "MP3"]


@pytest.mark.parametrize("kind", [*CUT, "OPUS"])
def test_a_recording_cut_in_half_is_read_to_there_and_told(tmp_path: Path, kind: str) -> None:
    data = written("OGG", "OPUS", 20.0) if kind == "OPUS" else written(kind, seconds=20.0)
    path = tmp_path / "a"
    path.write_bytes(data[: len(data) // 2])
    found, failure = read(path)
    assert 8 * RATE < len(found) < 12 * RATE
    assert str(path) in failure and any(word in failure for word in ("cut off", "damaged", "cannot be decoded"))
    piped, failure = from_pipe(data[: len(data) // 2])
    assert len(piped) > 7 * RATE and (failure or kind in ("OGG", "OPUS"))  # a live stream may stop at any page


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(wav(pcm(sound(20))))
    heard = 0
    with pytest.raises(AudioError, match=r"is cut off: it ends after .* of 20\.000 s"):  # noqa: SIM117
        with audio.opened(path, block_seconds=1.0) as (_, blocks):
            for block in blocks:
                heard += len(block)
                os.truncate(path, 10 * 2 * RATE)
    assert 8 * RATE < heard < 12 * RATE


CODECS = {
    "a.ac3": ["-c:a", "ac3"], "a.eac3": ["-c:a", "eac3"], "a.wv": [], "a.aac": ["-c:a", "aac"], "a.ts": ["-c:a", "aac"],
    "a.wma": [], "a.avi": ["-c:a", "pcm_s16le"], "a.flv": ["-c:a", "aac"],
}  # fmt: skip


@needs_ffmpeg
@pytest.mark.parametrize("name", CODECS)
def test_what_only_ffmpeg_decodes_is_whole_or_told(tmp_path: Path, name: str) -> None:
    path = encoded(tmp_path / name, *CODECS[name])
    data, (whole, failure) = path.read_bytes(), read(path)
    assert not failure and len(whole) > 2.9 * audio.probe(path).sample_rate
    for part in (0.4, 0.6, 0.8):
        path.write_bytes(data[: round(part * len(data)) | 1])  # odd, so within a frame, a packet or a sample
        assert read(path)[1], part
    if name.endswith((".ac3", ".eac3", ".wv", ".aac")):
        for after in (b"TAG" + b"x" * 125, bytes(100_000)):
            path.write_bytes(data + after)
            found, failure = read(path)
            assert not failure and len(found) == len(whole)


@needs_ffmpeg
@pytest.mark.parametrize("words", [["-b:a", "64k"], ["-b:a", "64k", "-write_xing", "0"], ["-q:a", "4"]])
def test_an_mp3_from_a_pipe_has_the_samples_of_the_file(tmp_path: Path, words: list[str]) -> None:
    path = encoded(tmp_path / "a.mp3", *words)
    whole = read(path)[0]
    for after in (b"", b"TAG" + b"x" * 125, bytes(5000)):
        found, failure = from_pipe(path.read_bytes() + after)
        assert not failure
        np.testing.assert_array_equal(found, whole)


@pytest.mark.parametrize(("kind", "subtype"), [("WAV", "GSM610"), ("WAV", "IMA_ADPCM"), ("CAF", "ALAC_16")])
def test_codecs_without_a_size(tmp_path: Path, kind: str, subtype: str) -> None:
    data = written(kind, subtype)
    path = tmp_path / "a"
    path.write_bytes(data)
    whole = read(path)[0]
    at, width = data.index(b"data") + 4, 8 if kind == "CAF" else 4
    for unknown in (b"\xff" * width, bytes(width)):
        path.write_bytes(data[:at] + unknown + data[at + width :])
        found, failure = read(path)
        assert not failure
        np.testing.assert_array_equal(found, whole)


# -- B. The decoder is chosen by the content -------------------------------------------------------------------------


@needs_ffmpeg
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.wav", ["-c:a", "libopus", "-f", "webm"]),
        ("b.wav", ["-c:a", "aac", "-f", "ipod"]),
        ("c.wav", ["-c:a", "aac", "-f", "adts"]),
        ("d.mp3", ["-c:a", "aac", "-f", "adts"]),
        ("e.mp3", ["-c:a", "aac", "-f", "ipod"]),
        ("f.m4a", ["-f", "wav"]),
        ("g.flac", ["-f", "ogg", "-c:a", "libvorbis"]),
        ("h", ["-f", "matroska", "-c:a", "flac"]),
        ("i.2026-11-28", ["-f", "mp3"]),
    ],
)
def test_the_content_tells_the_decoder(tmp_path: Path, name: str, words: list[str]) -> None:
    path = encoded(tmp_path / name, *words)
    assert audio.is_audio(path)
    found, failure = read(path)
    assert not failure and 3 <= len(found) / audio.probe(path).sample_rate < 3.2
    assert not from_pipe(path.read_bytes())[1]


def test_what_macos_lays_beside_a_recording_is_no_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "a.mp3").write_bytes(written("MP3"))
    (tmp_path / "._a.mp3").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        ")
    assert expand([tmp_path]) == [tmp_path / "a.mp3"]
    assert len(read(tmp_path / "a.mp3")[0]) == 3 * RATE and not read(tmp_path / "a.mp3")[1]


def test_what_is_no_recording_is_not_taken_for_one(tmp_path: Path) -> None:
    for name, content in (
        ("a.txt", b"ID3 is no tag here"),
        ("b", b"some text"),
        ("c.json", b"{}"),
        ("d.jpg", b"\xff\xd8"),
    ):
        (tmp_path / name).write_bytes(content)
        assert not audio.is_audio(tmp_path / name)
    for name in ("e.wav", "f.wac", "g.ds2"):  # by name, so listed; of the last two, nothing decodes the content either
        (tmp_path / name).write_bytes(b"some text")
        assert audio.is_audio(tmp_path / name)
        with pytest.raises(AudioError, match="no recording that can be read"):
            audio.probe(tmp_path / name)


# -- C. `prepare` and `predict` alike --------------------------------------------------------------------------------


def damages(data: bytes) -> dict[str, bytes]:
    half = len(data) // 2
    return {
        "whole": data,
        "half": data[:half],
        "most": data[:-100],
        "hole": data[:half] + bytes(3000) + data[half + 3000 :],
        "noise": data[:half] + np.random.default_rng(2).bytes(3000) + data[half + 3000 :],
        "twice": data + data,
        "start": data[:200],
        "none": data[:10],
    }


def generated(folder: Path) -> list[Path]:
    """Containers and damages, by libsndfile and ffmpeg."""
    whole: dict[str, bytes] = {}
    for kind, subtype in [*((kind, None) for kind in CUT), ("OGG", "OPUS"), ("WAV", "GSM610"), ("WAV", "FLOAT")]:
        whole[f"{kind}-{subtype}"] = written(kind, subtype, 2.7)
    if ffmpeg.installed():
        for name, words in {
            "m4a": ["-c:a", "aac", "-f", "ipod", "-movflags", "faststart"],
            "webm": ["-c:a", "libopus", "-f", "webm"],
            "wma": ["-f", "asf"],
            "wv": ["-c:a", "wavpack", "-f", "wv"],
        }.items():
            whole[name] = encoded(folder / name, *words).read_bytes()
            (folder / name).unlink()
    paths = []
    for name, data in whole.items():
        for damage, content in damages(data).items():
            paths.append(folder / f"{name}-{damage}.wav")
            paths[-1].write_bytes(content)
    return paths


def test_a_recording_is_usable_by_prepare_and_predict_or_by_neither_with_the_same_samples(tmp_path: Path) -> None:
    for path in generated(tmp_path):
        whole, failure = read(path)
        try:
            with audio.recording(path) as recording:
                rate = recording.info.sample_rate
                parts = []
                for start in np.arange(0, len(whole) / rate, 0.5):
                    if audio.span(start, 0, rate)[0] < len(whole):
                        parts.append(recording.read(sample_rate=rate, start_seconds=start, duration_seconds=0.5))
                quarter = rate // 4 if len(whole) > rate // 4 else 0
                rest = recording.read(sample_rate=rate, start_seconds=quarter / rate)
                damage = recording.damage
        except AudioError as error:
            assert not len(whole), path
            assert str(error) == failure, path
            continue
        assert len(whole) and damage == failure, path
        # MP3 alone is rounded otherwise (by 1e-7) where it is read in other blocks.
        np.testing.assert_allclose(np.concatenate(parts), whole, rtol=0, atol=1e-6, err_msg=str(path))
        np.testing.assert_allclose(rest, whole[quarter:], rtol=0, atol=1e-6, err_msg=str(path))
        assert not failure or "whole" not in path.name, (path, failure)
        assert failure or not any(word in path.name for word in ("half", "start", "none")), path


@needs_ffmpeg
def test_prepare_draws_what_is_good_and_lists_the_damage_each_time(tmp_path: Path) -> None:
    folder = tmp_path / "sounds" / "a"
    folder.mkdir(parents=True)
    for name, data in (("a.wav", wav(pcm(sound(6)))), ("b.wav", wav(pcm(sound(6)))[: -5 * RATE])):
        (folder / name).write_bytes(data)
    (folder / "c.flac").write_bytes(written("FLAC", seconds=6.0)[:-60_000])
    m4a = encoded(folder / "d.m4a", "-c:a", "aac", "-movflags", "faststart")
    m4a.write_bytes(m4a.read_bytes()[: m4a.stat().st_size * 3 // 4])
    config = DatasetConfig(
        kind="folder", root=str(tmp_path / "sounds"), cache=str(tmp_path / "cache"), data=str(tmp_path / "data")
    )
    config = replace(config, split=SplitConfig(strategy="group"))
    for _ in range(2):
        done = prepare(config, TINY_EARS, workers=1)
        assert sorted(Path(file).name for file, _ in done.failures) == ["b.wav", "c.flac", "d.m4a"]
    rendered = {path.name for path in (tmp_path / "cache" / "a").glob("*.png")}
    assert {"a@5.0.png", "b@2.0.png", "c@2.0.png", "d@1.0.png"} <= rendered
    assert not any(name.startswith(("b@4", "c@5", "d@2")) for name in rendered)


def test_linked_folders_are_followed_and_litter_is_left_alone(tmp_path: Path) -> None:
    field = tmp_path / "field" / "a"
    for folder in (field, tmp_path / "nas", field / "__MACOSX", field / "$RECYCLE.BIN", field / ".hidden"):
        folder.mkdir(parents=True)
        soundfile.write(folder / "x.wav", sound(1), RATE)
    for name in ("x.wav~", "y.wav.crdownload", "p_data/e00/d00/e0000a1b.au"):  # a backup, a download, Audacity's blocks
        (field / name).parent.mkdir(parents=True, exist_ok=True)
        (field / name).write_bytes((field / "x.wav").read_bytes())
    (field / "p.aup").write_text("<project/>")
    (field / "day").symlink_to(tmp_path / "nas")
    (field / "day" / "loop").symlink_to(tmp_path / "field")
    assert [path.relative_to(field).as_posix() for path in expand([field])] == ["x.wav", "day/x.wav"]
    config = DatasetConfig(kind="folder", root=str(field.parent), cache=str(tmp_path / "c"), data=str(tmp_path / "d"))
    config = replace(config, split=SplitConfig(strategy="group"))
    (field.parent / "__MACOSX").mkdir()
    done = prepare(config, TINY_EARS, workers=1)
    assert not done.failures and sum(done.counts.values()) == 2


# -- D. Nothing is passed over without a word ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["a.WAV", "a.bwf", "a.amb", "a", "a.0001", "a.oga", "a.Wave", "a.xyz", "a.ogv", "a.weba"]
)
def test_recordings_of_any_name_are_found(tmp_path: Path, name: str) -> None:
    soundfile.write(tmp_path / name, sound(1), RATE, format="WAV")
    (tmp_path / "notes.txt").write_text("nothing to hear")
    assert expand([tmp_path]) == [tmp_path / name]
    assert not read(tmp_path / name)[1]


# -- E. Segments as training made them -------------------------------------------------------------------------------


def spans(seconds: float, rate: int = RATE, window: float = 1.0) -> list[tuple[float, float, float]]:
    found = cut([sound(seconds, rate)], rate, TINY_EARS, window_seconds=window, hop_seconds=window)
    return [(part.start_seconds, part.end_seconds, round(part.weight, 3)) for part in found]


def test_a_short_rest_is_seen_by_a_whole_segment_that_weighs_what_is_new() -> None:
    assert spans(2.05) == [(0, 1, 1), (1, 2, 1), (1.05, 2.05, 0.05)]
    assert spans(2.5) == [(0, 1, 1), (1, 2, 1), (2, 2.5, 0.5)]  # as `prepare` pads it
    assert spans(0.3) == [(0, 0.3, 0.3)]


@pytest.mark.parametrize("seconds", [3.3, 1 / 3, 0.1, 2.7182818])
@pytest.mark.parametrize("rate", [8000, 11025, 44100])
def test_prepare_and_predict_cut_the_same_samples(tmp_path: Path, seconds: float, rate: int) -> None:
    path, count, window = tmp_path / "a.wav", 7, min(seconds, 1.0)
    soundfile.write(path, sound(seconds * count + 0.01, rate), rate)
    config = TINY_EARS
    with file_source(path).open() as (info, blocks):
        found = list(cut(blocks, info.sample_rate, config, window_seconds=window, hop_seconds=seconds))
    for part in found[:count]:
        length = min(window, part.end_seconds - part.start_seconds)  # as `prepare` asks for it
        with audio.recording(path) as recording:
            own = recording.read(sample_rate=rate, start_seconds=part.start_seconds, duration_seconds=length)
        np.testing.assert_array_equal(own, part.waveform[: part.samples])


@needs_ffmpeg
def test_damage_is_told_whoever_decodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """libsndfile takes a file `._` for a part of any recording without a name; then ffmpeg reads an MP3."""
    monkeypatch.chdir(tmp_path)
    data = written("MP3", seconds=20.0)
    Path("a.mp3").write_bytes(data[: len(data) // 2])
    told = read(Path("a.mp3"))[1]
    Path("._").touch()
    assert "a.mp3 is cut off" in told and read(Path("a.mp3"))[1] == told


# -- F. Arrays -------------------------------------------------------------------------------------------------------


def test_a_plausible_side_of_an_array_is_time() -> None:
    mono = sound(1)
    for array in (mono, mono[:, None], mono[None], np.stack([mono, mono]), np.stack([mono, mono], axis=1)):
        np.testing.assert_allclose(audio.to_mono(array), mono, atol=1e-7)
    assert audio.to_mono(np.zeros((1, 2))).shape == (1,) and audio.to_mono(np.zeros((3, 50))).shape == (50,)
    with pytest.raises(AudioError, match="it has 300 channels"):
        audio.to_mono(np.zeros((300, 400)))


# -- ffmpeg is not left behind ---------------------------------------------------------------------------------------


@needs_ffmpeg
@pytest.mark.skipif(sys.platform != "linux", reason="the death signal is Linux's")
def test_ffmpeg_ends_with_who_started_it(tmp_path: Path) -> None:
    path = encoded(tmp_path / "a.mka", "-c:a", "flac", "-af", "aloop=loop=200:size=48000")
    code = (
        "import sys, time; from soundsight import audio\n"
        "with audio.opened(sys.argv[1], block_seconds=0.1) as (_, blocks):\n"
        "    next(blocks); print('on', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"on\n"
        assert subprocess.run(["pgrep", "-f", f"file:{path}"], check=False, capture_output=True).stdout
        process.kill()
    end = time.monotonic() + 5
    while subprocess.run(["pgrep", "-f", f"file:{path}"], check=False, capture_output=True).stdout:
        assert time.monotonic() < end, "ffmpeg goes on"
        time.sleep(0.05)
    shutil.rmtree(tmp_path)


@needs_ffmpeg
@pytest.mark.skipif(sys.platform != "linux", reason="the death signal is Linux's")
@pytest.mark.parametrize("stage", ["measuring", "rendering"])
def test_killed_prepare_leaves_no_ffmpeg_and_no_file_that_grows(tmp_path: Path, stage: str) -> None:
    for label in "ab":
        (tmp_path / "sounds" / label).mkdir(parents=True)
    first = encoded(tmp_path / "sounds" / "a" / "x.mka", "-c:a", "flac", "-af", "aloop=loop=500:size=48000")
    shutil.copyfile(first, tmp_path / "sounds" / "b" / "x.mka")
    short_folder = tempfile.mkdtemp()  # names of sockets in it are limited to 107 bytes
    words = [f"data={tmp_path / 'data'}", f"cache={tmp_path / 'cache'}", "--workers", "2"]
    command = [sys.executable, "-m", "soundsight", "prepare", str(tmp_path / "sounds"), *words, "split.strategy=random"]

    def ffmpegs() -> list[str]:
        found = subprocess.run(["pgrep", "-f", f"file:{tmp_path}"], check=False, capture_output=True, text=True)
        return found.stdout.split()

    def grown() -> dict[str, int]:
        folders = tmp_path, Path(short_folder)
        return {str(p): p.stat().st_size for folder in folders for p in folder.rglob("*") if p.is_file()}

    with subprocess.Popen(command, env={**os.environ, "TMPDIR": short_folder}, stderr=subprocess.PIPE) as process:
        while not (ffmpegs() and (stage == "measuring" or any(tmp_path.glob("cache/*/*.png")))):
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.05)
        process.kill()
    end = time.monotonic() + 30
    while ffmpegs():
        assert time.monotonic() < end, "ffmpeg goes on"
        time.sleep(0.05)
    time.sleep(0.5)  # workers end with their parent
    before = grown()
    time.sleep(0.5)
    assert grown() == before
    shutil.rmtree(short_folder)


def test_the_page_decodes_no_more_samples_than_it_takes_seconds(tmp_path: Path) -> None:
    from soundsight.serve.uploads import TooLong, Upload, opened

    path = tmp_path / "a.flac"
    soundfile.write(path, np.zeros((96_000 * 2, 8), np.int16), 96_000)
    data = bytearray(path.read_bytes())
    for known in (True, False):
        if not known:
            data[21] &= 0xF0
            data[22:26] = bytes(4)
        path.write_bytes(data)
        with pytest.raises(TooLong, match="a.flac holds more samples than this service takes"):  # noqa: SIM117
            with opened(Upload(path, "a.flac"), 10.0) as (_, blocks):
                list(blocks)
    with opened(Upload(path, "a.flac"), 20.0) as (_, blocks):
        assert sum(map(len, blocks)) == 2 * 96_000


def test_prepare_decodes_a_recording_once_for_all_its_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("FLAC", "OGG", "MP3", "WAV"):
        folder = tmp_path / "sounds" / "ab"[kind < "M"]
        folder.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / f"x.{kind.lower()}", sound(12.0), RATE, format=kind)
    decoded: list[str] = []
    blocks = audio.decoding.Stream.blocks

    def counted(self: audio.decoding.Stream, *arguments: int) -> object:
        decoded.append(Path(self.name).suffix)
        return blocks(self, *arguments)

    monkeypatch.setattr(audio.decoding.Stream, "blocks", counted)
    told: list[list[str]] = []

    def run(function, items, *, workers=None, together=None):  # type: ignore[no-untyped-def]
        for chunk in parallel.chunks(items, 4, together):
            told.append([item.clip.path.suffix for item in chunk])
            yield from ((item, function(item)) for item in chunk)

    config = DatasetConfig(
        kind="folder",
        root=str(tmp_path / "sounds"),
        data=str(tmp_path / "data"),
        cache=str(tmp_path / "cache"),
        split=SplitConfig(strategy="random"),
    )
    done = prepare(config, TINY_EARS, workers=1, run=run)
    clips = done.rendered // 4
    assert clips > 8
    assert {kind: decoded.count(kind) for kind in (".flac", ".ogg", ".mp3")} == {".flac": 1, ".ogg": 1, ".mp3": 1}
    for kind in (".flac", ".ogg", ".mp3"):  # by one worker
        assert sum(kind in chunk for chunk in told) == 1
    assert sum(".wav" in chunk for chunk in told) > 1


@pytest.mark.parametrize("kind", ["FLAC", "W64", "VOC", "NIST"])
def test_what_players_and_recorders_hang_on_is_no_sound_and_no_damage(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a"
    for after in (b"TAG" + b"x" * 125, bytes(5000)):
        path.write_bytes(written(kind) + after)
        found, failure = read(path)
        assert not failure and len(found) == 3 * RATE
    assert not from_pipe(written(kind) + after)[1]


@pytest.mark.parametrize("kind", ["OGG", "WAV", "AIFF", "AU", "CAF"])
def test_what_a_pipe_lacks_or_holds_beyond_its_header_is_told(kind: str) -> None:
    data = bytearray(written(kind))
    if kind == "OGG":
        assert "is cut off" in from_pipe(bytes(data[: len(data) // 2]))[1]
        data[len(data) // 2 : len(data) // 2 + 500] = bytes(500)
        assert "is damaged at byte" in from_pipe(bytes(data))[1]
        return
    at = {"AU": 8, "AIFF": data.find(b"SSND") + 4}.get(kind, data.find(b"data") + 4)
    width, order = (8 if kind == "CAF" else 4), ("little" if kind == "WAV" else "big")
    data[at : at + width] = RATE.to_bytes(width, order)
    found, failure = from_pipe(bytes(data))
    assert RATE / 2 - 8 <= len(found) <= RATE / 2 and "holds more than its header announces" in failure
