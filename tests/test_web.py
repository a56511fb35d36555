"""The JSON service, driven as a client drives it: predictions, refusals, limits, and nothing left behind."""

import asyncio
import base64
import gzip
import io
import socket
import tempfile
import threading
import time
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("fastapi")
pytest.importorskip("httpx")

from fastapi.testclient import TestClient

from conftest import noise
from soundsight import cli
from soundsight.errors import ConfigError
from soundsight.inference import load
from soundsight.serve.app import STATIC, Limits, create_app
from soundsight.serve.guard import Guard, hostname
from soundsight.serve.jobs import Busy, Jobs
from soundsight.serve.uploads import plain_name
from soundsight.synthesis import dataset as demo

LIMITS = Limits(max_seconds=20, max_megabytes=1, queue=4)


@pytest.fixture(scope="module", params=["tiny_model", "tiny_thresholded_model"])
def predictor(request):
    return load(request.getfixturevalue(request.param), device="cpu", threads=1)


@pytest.fixture(scope="module")
def client(predictor):
    with TestClient(create_app(predictor, LIMITS), base_url="http://127.0.0.1:8000") as client:
        yield client


@pytest.fixture(autouse=True)
def uploads_folder(tmp_path_factory, monkeypatch):
    """A folder of our own for temporary files, which must be empty after every test."""
    folder = tmp_path_factory.mktemp("uploads")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert not list(folder.iterdir())


def wav(seconds: float = 1.0, name: str = "siren", rate: int = 16000, channels: int = 1) -> bytes:
    """A synthesised WAV, its sound repeated to the length."""
    sound = np.resize(demo.synthesise(name, seed=4, seconds=1.0), round(seconds * 16000))
    buffer = io.BytesIO()
    soundfile.write(buffer, np.stack([sound] * channels, 1), rate, format="WAV")
    return buffer.getvalue()


def test_a_body_of_bytes_is_answered_like_a_file(client, predictor, tmp_path):
    reply = client.post("/api/predict", params={"name": "a/b\\clip.wav", "top_k": 3}, content=wav())
    said = reply.json()
    assert reply.status_code == 200 and said["recording"] == "clip.wav"
    path = tmp_path / "same.wav"
    path.write_bytes(wav())
    answer = predictor(path, top_k=3)
    assert said["label"] == answer.label and said["model"] == predictor.model_hash
    assert [(h["label"], h["probability"]) for h in said["top"]] == [
        (label, pytest.approx(p, abs=1e-6)) for label, p in answer.top()
    ]
    assert said["duration_seconds"] == 1 and len(said["windows"]) == 1 and said["picture"] is None


def test_a_form_is_answered_too(client):
    reply = client.post("/api/predict", files={"file": ("dög.wav", wav(), "audio/wav")})
    assert reply.status_code == 200 and reply.json()["recording"] == "dög.wav"


@pytest.mark.parametrize("kind", ["FLAC", "OGG", "MP3"])
def test_other_formats_are_known_by_their_bytes(client, kind):
    buffer = io.BytesIO()
    soundfile.write(buffer, demo.synthesise("siren", seed=4, seconds=1.0), 16000, format=kind)
    assert client.post("/api/predict", content=buffer.getvalue()).status_code == 200


def test_the_good_part_of_a_damaged_upload_is_predicted_and_the_damage_said(client):
    body = wav(3)[: 44 + 2 * 40_000]
    said = client.post("/api/predict", params={"name": "x.wav"}, content=body).json()
    assert said["damage"] == "x.wav is cut off: 0.500 s of 3.000 s are missing at its end."
    assert said["duration_seconds"] == 2.5 and [part["label"] for part in said["windows"]] == 3 * ["siren"]
    assert client.post("/api/predict", content=wav(3)).json()["damage"] == ""


def test_the_picture_and_the_tracks_come_on_request(client):
    import cv2

    said = client.post("/api/predict", params={"picture": True, "hop_seconds": 0.5}, content=wav(3)).json()
    png = base64.b64decode(said["picture"]["png"].partition(",")[2])
    grey = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    assert grey.shape == (64, pytest.approx(3 * 64, abs=2)) and grey.max() > 240
    assert said["picture"]["seconds"] == pytest.approx(3, abs=0.05)
    tracks = said["tracks"]
    assert len(tracks["strips"]) == len(tracks["classes"]) and len(tracks["strips"][0]) == len(tracks["edges"]) - 1
    assert (tracks["edges"][0], tracks["edges"][-1]) == (0, 3)
    assert len(said["windows"]) == 5 and said["windows"][1]["start"] == 0.5


def test_reasons_are_given_for_a_window(client):
    body = wav(3)
    said = client.post("/api/explain", params={"start": 1.5, "label": "siren"}, content=body).json()
    assert (said["label"], said["start"], said["end"]) == ("siren", 1.5, 2.5)
    assert 1.5 <= said["peak_seconds"] <= 2.5 and 20 <= said["peak_hz"] <= 8000
    assert client.post("/api/explain", params={"start": 3}, content=body).status_code == 422
    refused = client.post("/api/explain", params={"label": "dragon"}, content=body)
    assert refused.status_code == 400 and "knows no class 'dragon'" in refused.json()["error"]


def test_what_is_unknown_is_explained_by_its_best_class(tiny_thresholded_model):
    buffer = io.BytesIO()
    soundfile.write(buffer, noise(1.0), 16000, format="WAV")
    predictor = load(tiny_thresholded_model, device="cpu", threads=1)
    with TestClient(create_app(predictor, LIMITS), base_url="http://127.0.0.1:8000") as client:
        said = client.post("/api/predict", content=buffer.getvalue()).json()
        why = client.post("/api/explain", params={"label": said["label"]}, content=buffer.getvalue()).json()
        described = client.get("/openapi.json").json()["components"]["schemas"]
    assert said["label"] == said["windows"][0]["label"] == "unknown"
    assert why["label"] == said["top"][0]["label"] and why["probability"] == said["top"][0]["probability"]
    for schema in ("Result", "TimedResult"):
        assert "`unknown`" in described[schema]["properties"]["label"]["description"]


def test_silence_is_called_silence_and_not_explained(client):
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(16000), 16000, format="WAV")
    said = client.post("/api/predict", params={"picture": True}, content=buffer.getvalue()).json()
    assert said["label"] == "silence" and said["top"] == []
    assert "nothing to explain" in client.post("/api/explain", content=buffer.getvalue()).json()["error"]


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        (b"", 422, "No recording arrived"),
        (b"rubbish" * 100, 422, "x.wav is no recording that can be read"),
        (wav()[:30], 422, "x.wav is no recording that can be read"),
        (wav(21), 422, "x.wav is 21 s long, but this service takes 20 s at most"),
        (wav(0.1, channels=17), 422, "17 channels"),
        (b"0" * 1_000_001, 413, "larger than the 1 MB"),
    ],
)
def test_a_bad_body_is_refused_in_one_sentence(client, body, status, sentence):
    reply = client.post("/api/predict", params={"name": "x.wav"}, content=body)
    assert reply.status_code == status and sentence in reply.json()["error"]
    assert "/tmp" not in reply.json()["error"] and "soundsight-" not in reply.json()["error"]


def test_the_size_is_counted_where_it_is_not_stated(client):
    def chunks():
        for _ in range(30):
            yield b"0" * 50_000

    assert client.post("/api/predict", content=chunks()).status_code == 413
    form = {"file": ("big.wav", b"0" * 1_100_000)}
    assert client.post("/api/predict", files=form).status_code == 413


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"top_k": 0}, "The option top_k is not allowed"),
        ({"hop_seconds": "fast"}, "The option hop_seconds is not allowed"),
        ({"hop_seconds": 0.02}, "0.1 s or more"),
    ],
)
def test_a_bad_option_is_named(client, params, sentence):
    reply = client.post("/api/predict", params=params, content=wav())
    assert reply.status_code == 400 and sentence in reply.json()["error"]


def test_a_form_without_a_file_is_refused(client):
    assert "holds no file" in client.post("/api/predict", files={"other": ("a", b"b")}).json()["error"]
    reply = client.post("/api/predict", content=b"--x", headers={"content-type": "multipart/form-data"})
    assert reply.status_code == 422 and "form cannot be read" in reply.json()["error"]


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "127.0.0.1.evil.example:8000"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"sec-fetch-site": "cross-site"},
    ],
)
def test_strangers_are_refused(client, headers):
    for method, path in (("POST", "/api/predict"), ("GET", "/"), ("GET", "/api/model")):
        reply = client.request(method, path, headers=headers)
        assert reply.status_code == 403 and reply.json()["error"].endswith(".")


def test_its_own_page_is_welcome(client):
    own = {"origin": "http://127.0.0.1:8000", "sec-fetch-site": "same-origin"}
    assert client.post("/api/predict", content=wav(), headers=own).status_code == 200
    assert hostname("[::1]:80") == "::1" and hostname("LOCALHOST") == "localhost" and hostname("[") == ""


def test_every_reply_forbids_other_hosts(client):
    for path in ("/", "/static/app.js", "/api/model", "/nowhere"):
        policy = client.get(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy and "http" not in policy and "unsafe" not in policy


def test_the_page_names_no_other_host_and_is_light():
    folders = [Path(str(resources.files(package) / folder)) for package, folder in STATIC]
    paths = [
        path for folder in folders for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    ]
    files = {path.name: path.read_bytes() for path in paths if path.parent.name != "alone"}
    others = {path.name: path.read_bytes() for path in paths if path.parent.name == "alone"}
    assert {"index.html", "app.js", "view.js", "draw.js", "style.css", "api.html"} <= set(files)
    for name, data in [*files.items(), *others.items()]:
        for found in data.split(b"http")[1:]:
            assert found.startswith((b"://127.0.0.1", b"://www.w3.org/2000/svg", b"s or from", b"-equiv")), (
                name,
                found[:40],
            )
    assert sum(len(data) for data in files.values()) < 80_000
    assert sum(len(gzip.compress(data)) for data in files.values()) < 30_000


def test_files_are_served_by_name_only(client):
    page = client.get("/")
    assert page.status_code == 200 and "What is this sound?" in page.text
    again = client.get("/", headers={"if-none-match": page.headers["etag"]})
    assert again.status_code == 304
    for path in ("/static/app.py", "/static/..%2f__init__.py", "/static/%2e%2e/app.py", "/docs", "/redoc"):
        assert client.get(path).status_code == 404


def test_the_description_covers_every_answer(client):
    description = client.get("/openapi.json").json()
    post = description["paths"]["/api/predict"]["post"]
    assert set(post["requestBody"]["content"]) == {"application/octet-stream", "multipart/form-data"}
    assert {"200", "400", "408", "413", "422", "503"} <= set(post["responses"])
    assert "cdn" not in str(description)


def test_model_health_and_examples(client, predictor):
    facts = client.get("/api/model").json()
    assert facts["names"] == list(predictor.names) and facts["explains"] and facts["max_bytes"] == 1_000_000
    assert client.get("/health").json() == {"status": "ok", "model": predictor.model_hash, "waiting": 0}
    name = facts["examples"][0]["name"]
    sound = client.get(f"/api/examples/{name}.flac")
    assert soundfile.info(io.BytesIO(sound.content)).duration == 5
    assert client.get("/api/examples/..%2fsecret.flac").status_code == 404
    assert client.get("/api/examples/secret.flac").status_code == 404


def test_a_full_queue_says_when_to_come_back(predictor):
    app = create_app(predictor, Limits(queue=1))
    gate = threading.Event()
    with TestClient(app, base_url="http://127.0.0.1") as client:
        running = app.state.jobs.submit(gate.wait)
        while not running.running():
            time.sleep(0.01)
        app.state.jobs.submit(lambda: None)
        reply = client.post("/api/predict", content=wav())
        assert reply.status_code == 503 and int(reply.headers["retry-after"]) >= 1
        assert client.get("/health").json()["waiting"] == 2
        gate.set()


def test_jobs_run_one_at_a_time_in_order_and_survive_failures():
    jobs, order = Jobs(8), []

    def work(number):
        order.append(number)
        if number == 1:
            raise ValueError("no")
        return number

    futures = [jobs.submit(lambda n=n: work(n)) for n in range(4)]
    assert futures[3].result(10) == 3 and order == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="no"):
        futures[1].result()
    jobs.close()


def test_what_waits_can_be_taken_back():
    jobs, gate, ran = Jobs(1), threading.Event(), []
    first = jobs.submit(gate.wait)
    while not first.running():
        time.sleep(0.01)
    second = jobs.submit(lambda: ran.append(1))
    with pytest.raises(Busy, match="try again in"):
        jobs.submit(lambda: None)
    assert second.cancel()
    gate.set()
    jobs.close()
    assert not ran


def test_a_slow_sender_is_left(monkeypatch):
    monkeypatch.setattr("soundsight.serve.guard.PAUSE_SECONDS", 0.05)

    async def app(scope, receive, send):
        await receive()

    async def receive():
        await asyncio.sleep(5)

    scope = {"type": "http", "path": "/", "headers": [(b"host", b"localhost")]}
    from soundsight.serve.guard import TooSlow

    with pytest.raises(TooSlow, match="did not arrive in time"):
        asyncio.run(Guard(app, host="127.0.0.1", max_bytes=10)(scope, receive, None))


def test_other_names_are_fine_when_bound_to_the_world(predictor):
    with TestClient(create_app(predictor, LIMITS, host="0.0.0.0"), base_url="http://lab.example") as client:
        assert client.get("/health").status_code == 200
        assert client.get("/health", headers={"origin": "http://evil.example"}).status_code == 403


def test_an_export_answers_but_does_not_explain(tiny_onnx):
    app = create_app(load(tiny_onnx, device="cpu"), LIMITS)
    with TestClient(app, base_url="http://localhost") as client:
        assert client.get("/api/model").json()["explains"] is False
        assert client.post("/api/predict", content=wav()).status_code == 200
        assert "no gradients" in client.post("/api/explain", content=wav()).json()["error"]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("a.wav", "a.wav"),
        ("../../etc/x", "x"),
        ("C:\\x\\y.wav", "y.wav"),
        ("a\nb\x00.wav", "ab.wav"),
        ("", "recording"),
    ],
)
def test_names_are_made_plain(given, name):
    assert plain_name(given) == name


def test_limits_and_ports_are_checked(tiny_model, capsys):
    with pytest.raises(ConfigError, match=r"max_megabytes=0 is out of range: 0\.1 to 4096"):
        Limits(max_megabytes=0)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert cli.main(["serve", str(tiny_model), "--port", port]) == 2
    assert f"127.0.0.1 port {port} cannot be used" in capsys.readouterr().err
    assert cli.main(["serve", "missing.pt", "--port", "0"]) == 2
    assert "missing.pt does not exist" in capsys.readouterr().err


def test_the_page_is_package_data():
    assert (Path(__file__).parents[1] / "src" / "soundsight" / "serve" / "static" / "index.html").is_file()
