"""Live sound: the ring, the ticks, and a real sound server that plays a known clip."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from conftest import noise
from soundsight.cli import main
from soundsight.errors import ConfigError
from soundsight.inference import Options, Predictor, live, load

RATE = 22050


class Recorded:
    """An input that plays a part: samples in blocks, as fast as they are asked for."""

    sample_rate = RATE
    overruns = 0

    def __init__(self, samples: np.ndarray, *, block: int = 1000, waiting: dict[int, float] | None = None) -> None:
        self.samples, self.block, self.waiting = samples, block, waiting or {}
        self.given = 0

    def waiting_seconds(self) -> float:
        return self.waiting.get(self.given // self.block, 0.0)

    def blocks(self) -> Iterator[tuple[np.ndarray, float]]:
        for start in range(0, len(self.samples), self.block):
            block = self.samples[start : start + self.block]
            self.given = start + len(block)
            yield block, time.monotonic()


@pytest.fixture(scope="module")
def predictor(tiny_onnx: Path) -> Predictor:
    return load(tiny_onnx, device="cpu")


def test_the_ring_keeps_the_newest_samples() -> None:
    for size in (1, 3, 7, 10, 25):
        ring, heard = live.Ring(10), np.zeros(0, np.float32)
        for number in range(9):
            block = np.arange(size, dtype=np.float32) + 100 * number
            ring.add(block)
            heard = np.concatenate([heard, block])
            np.testing.assert_array_equal(ring.last(), heard[-10:])
        assert ring.total == len(heard)


def test_each_answer_is_that_of_the_last_clip_of_sound(predictor: Predictor) -> None:
    sound = noise(3.0, RATE)
    answers = list(live.listen(predictor, Recorded(sound, block=735), every_seconds=0.5))  # 30 blocks a second
    assert [answer.seconds for answer in answers] == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.5, 3.0])
    for answer in answers:
        end = round(answer.seconds * RATE)
        expected = predictor(sound[max(0, end - RATE) : end], RATE).predictions[0]
        np.testing.assert_array_equal(answer.probabilities, expected.probabilities)
        assert (answer.label, answer.probability) == (expected.label, expected.probability)
        assert 0 < answer.latency_seconds < 10


def test_a_busy_model_answers_the_newest_sound(predictor: Predictor) -> None:
    """Where sound for a tick or more waits already, predicting late is no use."""
    source = Recorded(noise(4.0, RATE), block=RATE // 10, waiting=dict.fromkeys(range(10, 25), 1.0))
    seconds = [round(answer.seconds, 2) for answer in live.listen(predictor, source, every_seconds=0.5)]
    assert seconds == [0.5, 2.5, 3.0, 3.5, 4.0]


def test_silence_and_thresholds(predictor: Predictor) -> None:
    (quiet,) = live.listen(predictor, Recorded(np.zeros(RATE, np.float32)), every_seconds=0.99)
    assert (quiet.label, quiet.probability) == ("silence", 0.0)
    options = Options(threshold=1.0)
    (unsure,) = live.listen(predictor, Recorded(noise(1, RATE)), every_seconds=0.99, options=options)
    assert unsure.label == "unknown"
    with pytest.raises(ConfigError, match="every=0 s is out of range"):
        next(live.listen(predictor, Recorded(noise(1, RATE)), every_seconds=0))


def test_the_command_says_what_is_missing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["listen"]) == 2
    assert "No model is named; write `soundsight listen MODEL`" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert main(["listen", "--list-devices"]) == 2
    assert 'run pip install "soundsight[live]"' in capsys.readouterr().err


@pytest.fixture(scope="module")
def sound_server() -> Iterator[dict[str, str]]:
    """A PulseAudio server of our own with a null sink; PortAudio reaches it through ALSA's pulse plugin."""
    pytest.importorskip(
        "sounddevice", reason="sounddevice or PortAudio is not installed", exc_type=(ImportError, OSError)
    )
    if not shutil.which("pulseaudio") or not shutil.which("paplay"):
        pytest.skip("PulseAudio is not installed")
    home = Path(tempfile.mkdtemp(prefix="ss-"))  # short, since socket names are
    (home / ".asoundrc").write_text("pcm.pulse { type pulse }\nctl.pulse { type pulse }\n")
    env = {**os.environ, "HOME": str(home), "XDG_RUNTIME_DIR": str(home)}
    env |= {"PULSE_SERVER": f"unix:{home}/native", "SOUNDSIGHT_CACHE": str(home / "cache")}
    modules = ["module-null-sink sink_name=speaker rate=44100", f"module-native-protocol-unix socket={home}/native"]
    command = ["pulseaudio", "-n", "--exit-idle-time=-1", "--daemonize=no", "--use-pid-file=no"]
    for module in modules:
        command += ["-L", module]
    server = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            if (home / "native").exists() or server.poll() is not None:
                break
            time.sleep(0.1)
        devices = subprocess.run(
            [sys.executable, "-m", "soundsight", "listen", "--list-devices"],
            env=env, capture_output=True, check=True, text=True, timeout=60,
        ).stdout  # fmt: skip
        if "pulse" not in devices:
            pytest.skip(f"PortAudio does not see the sound server; it sees: {devices or 'nothing'}")
        yield env
    finally:
        server.terminate()
        server.wait(10)
        shutil.rmtree(home, ignore_errors=True)


def test_a_microphone_hears_a_known_clip(
    sound_server: dict[str, str], tiny_onnx: Path, tiny_sounds: Path, tmp_path: Path
) -> None:
    siren = sorted((tiny_sounds / "audio").glob("1-*-0.wav"))[0]
    samples, rate = soundfile.read(siren)
    soundfile.write(tmp_path / "long.wav", np.tile(samples, 30), rate)
    command = [sys.executable, "-m", "soundsight", "listen", str(tiny_onnx), "--device-name", "pulse"]
    command += ["--every", "0.5", "--format", "jsonl"]
    process = subprocess.Popen(
        command, env=sound_server, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # jobs in the background begin without Ctrl-C
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    try:
        assert process.stderr.readline() == "Listening to 'pulse' at 44100 Hz; Ctrl-C ends.\n"
        heard = _hear(process, "silence", 2)
        with subprocess.Popen(["paplay", str(tmp_path / "long.wav")], env=sound_server) as player:
            heard += _hear(process, "siren", 3)
            player.terminate()
        heard += _hear(process, "silence", 2)
    finally:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert err.startswith("Stopped after ") and err.rstrip().endswith("overruns.")
    assert "Traceback" not in err
    seconds = [row["seconds"] for row in heard]
    assert seconds == sorted(seconds) and min(np.diff(seconds)) > 0.25
    assert 0 < np.median([row["latency_ms"] for row in heard]) < 1500


def _hear(process: Any, label: str, times: int) -> list[dict[str, Any]]:
    """Predictions until `label` came so many times in a row."""
    rows: list[dict[str, Any]] = []
    while len(rows) < 60:
        rows.append(json.loads(process.stdout.readline()))
        if len(rows) >= times and all(row["label"] == label for row in rows[-times:]):
            return rows
    raise AssertionError(f"{label} was not heard {times} times in a row: {rows}")
