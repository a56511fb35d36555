"""`soundsight listen --on`: what is told of live sound, to whom, and what a slow receiver holds up: nothing."""

import io
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from soundsight.cli import main
from soundsight.inference import load, triggers
from soundsight.inference.live import LivePrediction
from soundsight.synthesis import dataset as demo

RATE = 16000


@pytest.fixture
def sound(tiny_onnx, monkeypatch, tmp_path) -> tuple[str, np.ndarray]:
    """Silence, one clip twice, silence, two seconds each, on standard input; and what the model calls the clip."""
    monkeypatch.chdir(tmp_path)
    clip = np.round(32767 * demo.synthesise("siren", seed=4, seconds=1.0)).astype("<i2")
    nothing = np.zeros(2 * RATE, "<i2")
    samples = np.concatenate([nothing, clip, clip, nothing])
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(samples.tobytes()), isatty=lambda: False))
    return load(tiny_onnx, device="cpu")((clip / 32768).astype(np.float32), RATE).predictions[0].top(1)[0][0], samples


@pytest.fixture
def hook() -> Iterator[tuple[str, list[dict], threading.Event]]:
    """A web server: its address, what was posted, and what it waits for before it replies."""
    posted: list[dict] = []
    go = threading.Event()
    go.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            go.wait(60)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", posted, go
    go.set()
    server.shutdown()


def listen(model: Path, *words: str) -> int:
    return main(["listen", str(model), "--raw", str(RATE), "--every", "1", "--threshold", "0", *words])


def test_a_command_a_web_address_and_the_sound_around(sound, tiny_onnx, hook, capfd):
    name, samples = sound
    url, posted, _ = hook
    Path("run.sh").write_text('cat >> told.jsonl; echo "$SOUNDSIGHT_LABEL $SOUNDSIGHT_EVENT" > env.txt\n')
    assert listen(tiny_onnx, "--on", name, "--exec", "sh run.sh", "--webhook", url, "--save", "heard",
                  "--save-seconds", "1") == 0  # fmt: skip
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [(line["event"], line["label"], line["seconds"]) for line in lines] == [("begin", name, 3), ("end", name, 5)]
    assert posted == lines[:1]
    assert [json.loads(line) for line in Path("told.jsonl").read_text().splitlines()] == lines[:1]
    assert Path("env.txt").read_text() == f"{name} begin\n"
    (file,) = Path("heard").rglob("*.flac")
    assert file.parent.name == name
    kept, rate = soundfile.read(file)
    assert rate == RATE
    np.testing.assert_allclose(kept, samples[RATE : 4 * RATE] / 32768, atol=2 / 32768)


def test_a_receiver_that_hangs_holds_up_nothing(sound, tiny_onnx, hook, capfd, monkeypatch):
    name, _ = sound
    url, _, go = hook
    go.clear()
    monkeypatch.setattr(triggers, "PATIENCE_SECONDS", 0.5)
    assert listen(tiny_onnx, "--on", name, "--webhook", url, "--exec", "sleep 60") == 0
    out, err = capfd.readouterr()
    assert len(out.splitlines()) == 2
    assert "--exec failed: the command took more than 0.5 s and was ended" in err
    assert "--webhook failed" in err


def test_what_does_not_fit_into_the_queue_is_dropped_and_counted():
    go, sent = threading.Event(), []

    class Slow:
        name = "slow"

        def send(self, message: triggers.Message) -> None:
            go.wait(60)
            sent.append(message)

        def close(self) -> None: ...

    worker = triggers.Worker(Slow())
    message = triggers.Message("begin", "siren", 1.0, 0.0, "")
    for _ in range(triggers.QUEUE + 10):
        worker.put(message)
    assert worker.dropped in (9, 10)  # one may be on its way
    go.set()
    worker.close()
    assert len(sent) == triggers.QUEUE + 10 - worker.dropped


def test_hysteresis_and_cooldown_by_hand():
    switch = triggers.Switch(["owl"], ("owl", "fox"), np.float32([0.3, 0.3]), cooldown=4)
    values = [0.6, 0.4, 0.2, 0.9, 0.2, 0.9, 0.2, 0.9]  # second by second; reported from 0.5 on
    told = []
    for second, value in enumerate(values):
        label = "owl" if value >= 0.5 else "unknown"
        probabilities = np.float32([value, 1 - value])
        told += switch.add(LivePrediction(second, label, value, probabilities, 0.0, (label,)))
    assert [(message.event, message.seconds) for message in told] == [
        ("begin", 0),
        ("end", 2),
        ("begin", 5),
        ("end", 6),
    ]


@pytest.fixture
def broker(tmp_path) -> Iterator[int]:
    """A real mosquitto; its port."""
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if not program:
        pytest.skip("mosquitto is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "mosquitto.conf").write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    process = subprocess.Popen([program, "-c", str(tmp_path / "mosquitto.conf")], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
    yield port
    process.terminate()
    process.wait(30)


def test_a_broker_and_home_assistant(sound, tiny_onnx, broker):
    paho = pytest.importorskip("paho.mqtt.client")
    name, _ = sound
    heard: list[tuple[str, str]] = []
    ready = threading.Event()
    client = paho.Client(paho.CallbackAPIVersion.VERSION2)
    client.on_message = lambda _, __, message: heard.append((message.topic, message.payload.decode()))
    client.on_subscribe = lambda *_: ready.set()
    client.connect("127.0.0.1", broker)
    client.loop_start()
    client.subscribe("#", 1)
    assert ready.wait(60)
    assert listen(tiny_onnx, "--on", name, "--mqtt", f"127.0.0.1:{broker}", "--node", "hut 7") == 0
    deadline = time.monotonic() + 60
    while ("soundsight/hut_7/status", "offline") not in heard:
        assert time.monotonic() < deadline, heard
        time.sleep(0.05)
    client.loop_stop()
    config = json.loads(dict(heard)[f"homeassistant/binary_sensor/soundsight_hut_7/{name}/config"])
    assert (config["state_topic"], config["device_class"]) == (f"soundsight/hut_7/{name}/state", "sound")
    assert config["availability_topic"] == "soundsight/hut_7/status"
    states = [text for topic, text in heard if topic == config["state_topic"]]
    assert "ON" in states and states[-1] == "OFF"
    events = [json.loads(text)["event"] for topic, text in heard if topic == "soundsight/hut_7/events"]
    assert events == ["begin", "end"]
    assert ("soundsight/hut_7/status", "online") in heard


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--webhook", "http://x"], "--webhook needs --on CLASS"), (["--on", "owl"], "this model knows no such class"),
        (["--on", "siren", "--webhook", "x"], "--webhook x is no address"),
        (["--on", "siren", "--exec", "'a"], "cannot be read"),
        (["--on", "siren", "--node", "x"], "without --mqtt HOST"),
        (["--on", "siren", "--mqtt", "a b"], "--mqtt a b is no broker"), (["--input", "3"], "--raw is standard input"),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit(sound, tiny_onnx, capsys, words, message):
    assert listen(tiny_onnx, *words) == 2
    assert message in capsys.readouterr().err
