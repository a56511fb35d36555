"""What only ffmpeg can read: streamed once and in parts alike, in little memory, and damage told."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from conftest import noise
from soundsight import audio
from soundsight.audio import ffmpeg
from soundsight.errors import AudioError

pytestmark = pytest.mark.skipif(not ffmpeg.installed(), reason="ffmpeg is not installed")


def encode(tmp_path: Path, name: str, *words: str, seconds: float = 7.0, rate: int = 44100, channels: int = 2) -> Path:
    """Noise, written by ffmpeg as the ending of `name` says."""
    source = tmp_path / "source.wav"
    soundfile.write(source, noise(seconds, rate, channels), rate)
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-i", source, *words, tmp_path / name], check=True)
    return tmp_path / name


def streamed(path: Path) -> tuple[audio.AudioInfo, np.ndarray]:
    with audio.opened(path, block_seconds=0.7) as (info, blocks):
        return info, np.concatenate(list(blocks))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.m4a", []),
        ("a.mp4", ["-f", "mp4", "-c:a", "alac"]),
        ("a.mkv", ["-c:a", "flac"]),
        ("a.wv", []),
        ("a.mka", ["-c:a", "libopus"]),
        ("a.wma", []),
        ("a.weird", ["-f", "matroska", "-c:a", "flac"]),  # an ending that nobody knows
        ("a.wav", ["-c:a", "adpcm_swf"]),  # a WAV whose codec libsndfile does not know
    ],
)
def test_a_stream_equals_what_is_read_in_parts(tmp_path: Path, name: str, words: list[str]) -> None:
    path = encode(tmp_path, name, *words)
    info, whole = streamed(path)
    assert info.channels == 2 and info.sample_rate in (44100, 48000)
    probed = audio.probe(path)
    assert probed.frames == len(whole) and abs(probed.duration_seconds - 7) < 0.15
    rate = info.sample_rate
    for start, duration in ((0.0, None), (1.0, 2.0), (6.5, 5.0)):
        part = audio.read(path, sample_rate=rate, start_seconds=start, duration_seconds=duration)
        first = round(start * rate)
        expected = whole[first:] if duration is None else whole[first : first + round(duration * rate)]
        np.testing.assert_array_equal(part, expected)


def test_windows_of_a_recording_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, other = encode(tmp_path, "a.m4a"), encode(tmp_path, "b.m4a", seconds=2)
    runs = []
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *words, **how: runs.append(words) or popen(*words, **how))
    audio.probe(path)
    for start in range(6):
        audio.read(path, sample_rate=16000, start_seconds=start, duration_seconds=1.0)
    assert len(runs) == 1
    audio.read(other, sample_rate=16000)
    audio.read(path, sample_rate=16000)
    assert len(runs) == 3  # one recording is kept, not all of them
    os.utime(path, (1, 1))
    audio.read(path, sample_rate=16000)
    assert len(runs) == 4  # a changed file is decoded again


def test_nothing_is_left_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path, "a.m4a")
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    audio.forget()
    audio.read(path, sample_rate=16000, duration_seconds=1.0)
    streamed(path)
    assert os.listdir(place) == []
    audio.read(path, sample_rate=16000, start_seconds=3.0)  # what was decoded can still be read
    audio.forget()


def test_threads_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = encode(tmp_path, "a.m4a", seconds=3)
    expected = audio.read(path, sample_rate=8000)
    found: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: found.append(audio.read(path, sample_rate=8000))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for heard in found:
        np.testing.assert_array_equal(heard, expected)


def test_who_stops_early_leaves_no_process(tmp_path: Path) -> None:
    path = encode(tmp_path, "a.mka", "-c:a", "flac", seconds=60)
    with audio.opened(path, block_seconds=0.1) as (_, blocks):
        assert len(next(blocks)) == 4410
    assert not subprocess.run(["pgrep", "-f", str(path)], capture_output=True, check=False).stdout


def test_a_quarter_of_an_hour_needs_no_more_memory_than_a_minute(tmp_path: Path) -> None:
    code = (
        "import resource, sys; from soundsight import audio\n"
        "with audio.opened(sys.argv[1]) as (info, blocks): total = sum(map(len, blocks))\n"
        "print(total / info.sample_rate, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    )
    peaks = []
    for minutes in (1, 15):
        path = tmp_path / f"{minutes}.mka"
        tone = f"sine=duration={60 * minutes}:sample_rate=16000"
        subprocess.run(["ffmpeg", "-v", "error", "-f", "lavfi", "-i", tone, "-c:a", "flac", path], check=True)
        done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, check=True, text=True)
        seconds, peak = map(float, done.stdout.split())
        assert seconds == pytest.approx(60 * minutes)
        peaks.append(peak)
    assert peaks[1] < peaks[0] + 20  # MiB; 14 minutes more are 51 MiB of samples


def test_damage_is_told_and_what_came_before_is_heard(tmp_path: Path) -> None:
    path = encode(tmp_path, "a.mka", "-c:a", "flac")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 20_000] = bytes(20_000)
    path.write_bytes(data)
    heard = []
    with pytest.raises(AudioError, match=r"a\.mka is damaged, and a part of it may be missing"):  # noqa: SIM117
        with audio.opened(path, block_seconds=0.5) as (_, blocks):
            for block in blocks:
                heard.append(len(block))
    assert sum(heard) > 3 * 44100
    for name, content in (("b.m4a", b"no sound"), ("c.mkv", os.urandom(3000)), ("d.odd", b"x" * 100)):
        (tmp_path / name).write_bytes(content)
        for read in (audio.probe, streamed):
            with pytest.raises(AudioError, match=f"{name} is no recording that can be read"):
                read(tmp_path / name)


def test_a_video_without_sound_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "silent.mp4"
    words = ["-f", "lavfi", "-i", "color=size=16x16:duration=1", path]
    if subprocess.run(["ffmpeg", "-v", "error", *words], capture_output=True, check=False).returncode:
        pytest.skip("this ffmpeg writes no video")
    with pytest.raises(AudioError, match=r"silent\.mp4 is no recording that can be read \(ffmpeg: "):
        streamed(path)


def test_playlists_reach_nothing_outside(tmp_path: Path) -> None:
    """A file that names an address is not a way to make this machine call it."""
    path = tmp_path / "list.m4a"
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(AudioError, match="no recording that can be read"):
        audio.probe(path)


def test_odd_names(tmp_path: Path) -> None:
    source = encode(tmp_path, "a.m4a", seconds=1)
    for name in ("-y.m4a", "concat:a|b.m4a", "100%d.m4a", "caf\udce9.m4a"):
        shutil.copy(source, tmp_path / name)
        assert audio.probe(tmp_path / name).channels == 2
        assert len(streamed(tmp_path / name)[1])
