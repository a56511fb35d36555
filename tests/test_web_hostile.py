"""The service over real sockets, asked by those who mean harm: header injection, slow and endless senders, logs."""

import contextlib
import http.client
import io
import itertools
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import pytest
import soundfile

pytest.importorskip("fastapi")

from soundsight.inference import load
from soundsight.serve import guard, predictions, server
from soundsight.serve.app import Limits, create_app
from soundsight.serve.uploads import plain_name
from soundsight.synthesis import dataset as demo

LIMITS = Limits(max_seconds=20, max_megabytes=1, queue=4)


@pytest.fixture(scope="module")
def port(tiny_model):
    """A running service."""
    listening, ready = server.bind("127.0.0.1", 0), threading.Event()
    app = create_app(load(tiny_model, device="cpu", threads=1), LIMITS)
    running = server.make_server(app, log=True, ready=ready.set)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
    thread.start()
    assert ready.wait(60)
    yield listening.getsockname()[1]
    running.should_exit = True
    thread.join(30)


@pytest.fixture(autouse=True)
def uploads_folder(tmp_path_factory, monkeypatch):
    """A folder of our own for temporary files, which must be empty after every test."""
    folder = tmp_path_factory.mktemp("uploads")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    until = time.monotonic() + 5
    while list(folder.iterdir()) and time.monotonic() < until:
        time.sleep(0.02)
    assert not list(folder.iterdir())


def wav() -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, demo.synthesise("siren", seed=4, seconds=1.0), 16000, format="WAV")
    return buffer.getvalue()


def raw(port: int, data: bytes, *, seconds: float = 10) -> bytes:
    """What comes back to some bytes until the server hangs up."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as line:
        line.sendall(data)
        return rest(line)


def rest(line: socket.socket) -> bytes:
    found = b""
    try:
        while piece := line.recv(65536):
            found += piece
    except ConnectionResetError:
        pass
    return found


def head(reply: bytes) -> list[bytes]:
    """Lines of the head of a reply."""
    return reply.partition(b"\r\n\r\n")[0].split(b"\r\n")


# Header injection


NASTY = [
    'a"; filename="b.wav',
    "a.wav\r\nSet-Cookie: stolen=1",
    "a\r\n\r\n<script>alert(1)</script>.wav",
    "../../etc/\x00passwd\x1b[2J.wav",
    "<img src=x onerror=alert(1)>.wav",
    "\u202egnp.wav",
]


@pytest.mark.parametrize("name", NASTY)
def test_names_of_recordings_reach_no_header_and_no_line_of_their_own(port, name):
    """As an option in the address, and in the Content-Disposition of a form."""
    query = urllib.request.quote(name, safe="")
    escaped = name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A").encode()
    raw_name = name.replace("\r\n", " ").encode()
    form = b'--x\r\nContent-Disposition: form-data; name="file"; filename="%s"\r\n\r\n%s\r\n--x--\r\n'
    asked = [(f"/api/predict?name={query}", wav(), "application/octet-stream")]
    asked += [("/api/predict", form % (sent, wav()), "multipart/form-data; boundary=x") for sent in (escaped, raw_name)]
    for path, body, kind in asked:
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        line.request("POST", path, body, {"content-type": kind})
        reply = line.getresponse()
        said, headers = json.loads(reply.read()), reply.getheaders()
        line.close()
        if reply.status == 422:  # a form that cannot be read is refused
            assert "form cannot be read" in said["error"] or "holds no file" in said["error"]
        else:
            assert reply.status == 200 and said["recording"].isprintable() and "/" not in said["recording"]
        assert "set-cookie" not in {key.lower() for key, _ in headers}
        assert not any("stolen" in value or "script" in value for _, value in headers if "default-src" not in value)
        assert ("content-type", "application/json") in headers and ("x-content-type-options", "nosniff") in headers


@pytest.mark.parametrize("name", NASTY)
def test_errors_do_not_carry_names_into_lines_or_markup(port, name):
    query = urllib.request.quote(name, safe="")
    for path in (f"/static/{query}", f"/api/examples/{query}.flac", f"/{query}", f"/api/explain?label={query}"):
        reply = raw(port, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        assert b" 404 " in head(reply)[0] or b" 405 " in head(reply)[0]
        assert not any(line.lower().startswith((b"set-cookie", b"<script")) for line in head(reply))
        said = json.loads(reply.partition(b"\r\n\r\n")[2])["error"]
        assert "\n" not in said and "\x1b" not in said


@pytest.mark.parametrize(
    "lines",
    [
        b"Host: 127.0.0.1\r\n evil.example",  # folded
        b"Host: 127.0.0.1\rX-Injected: 1",
        b"Host: 127.0.0.1\nHost: evil.example",
        b"Host: 127.0.0.1\r\nHost: evil.example",
        b"Host: evil.example\r\nHost: 127.0.0.1",
        b"Host: evil.example@127.0.0.1",
        b"Host: 127.0.0.1\t.evil.example",
        b"Host: 127.0.0.1\x00",
        b"Host: 127.0.0.1#@evil.example",
        b"Host: localhost\r\nOrigin: http://evil.example\r\n x",
        b"Host: localhost\r\nOrigin: http://evil.example\r\nOrigin: http://localhost",
        b"Host: localhost\r\nOrigin: http://localhost\r\nOrigin: http://evil.example",
        b"Host: localhost\r\nOrigin: http://evil@localhost",
        b"Host: localhost\r\nOrigin: file://localhost",
        b"Host: localhost\r\nOrigin: http://localhost\x0bevil",
        b"Host: localhost\r\nContent-Length: 1\r\nContent-Length: 2",
        b"Host: localhost\r\nContent-Length: " + b"9" * 6000,
        b"Host: localhost\r\nContent-Length: -1",
        b"Host: localhost\r\nContent-Length: +5",
        b"Host: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked, identity",
        b"X: 1",
        b"Host: localhost\r\nX: " + b"a" * 200_000,
    ],
)
def test_odd_headers_are_refused(port, lines):
    reply = raw(port, b"POST /api/predict HTTP/1.1\r\n" + lines + b"\r\nConnection: close\r\n\r\nhello")
    assert re.match(rb"HTTP/1.1 (400|403|413) ", reply), reply[:200]
    assert b"Injected" not in reply and b"Traceback" not in reply
    assert urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=10).status == 200


def test_a_second_request_behind_a_refused_one_is_not_answered(port):
    """What follows a refused body is no request: its sender could have hidden one there."""
    hidden = b"GET /api/model HTTP/1.1\r\nHost: localhost\r\n\r\n"
    reply = raw(
        port,
        b"POST /api/predict HTTP/1.1\r\nHost: evil.example\r\nContent-Length: %d\r\n\r\n%s" % (len(hidden), hidden),
    )
    assert reply.count(b"HTTP/1.1 ") == 1 and b"fingerprint" not in reply


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "https://localhost.evil", ""])
def test_other_origins_are_refused_before_their_body_is_read(port, origin):
    """The body never comes: who waited for it would hang."""
    reply = raw(
        port,
        f"POST /api/predict HTTP/1.1\r\nHost: localhost:{port}\r\nOrigin: {origin}\r\n"
        "Content-Length: 500000\r\n\r\n".encode(),
        seconds=5,
    )
    assert head(reply)[0].startswith(b"HTTP/1.1 403 ") and b"access-control" not in reply.lower()


def test_a_preflight_is_refused(port):
    asked = "Host: localhost\r\nOrigin: http://evil.example\r\nAccess-Control-Request-Method: POST"
    reply = raw(port, f"OPTIONS /api/predict HTTP/1.1\r\n{asked}\r\nConnection: close\r\n\r\n".encode())
    assert head(reply)[0].startswith(b"HTTP/1.1 403 ") and b"access-control" not in reply.lower()


# Slow and endless senders


def test_who_says_nothing_is_hung_up_on(port, monkeypatch):
    monkeypatch.setattr(server, "HEADER_SECONDS", 0.3)
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
        assert rest(line) == b""
    assert time.monotonic() - started < 5


def test_headers_that_come_byte_by_byte_end(port, monkeypatch):
    monkeypatch.setattr(server, "HEADER_SECONDS", 0.5)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as line, pytest.raises(OSError):
        line.sendall(b"GET / HTTP/1.1\r\n")
        for _ in range(200):  # 10 s of a header that never ends
            line.sendall(b"X")
            time.sleep(0.05)


def test_the_second_request_has_no_more_time_for_its_headers(port, monkeypatch):
    monkeypatch.setattr(server, "HEADER_SECONDS", 0.5)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as line, pytest.raises(OSError):
        line.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert line.recv(65536).startswith(b"HTTP/1.1 200 ")
        for _ in range(200):
            line.sendall(b"X")
            time.sleep(0.05)


def test_a_body_that_pauses_is_given_up(port, monkeypatch):
    monkeypatch.setattr(guard, "PAUSE_SECONDS", 0.3)
    sent = b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n" + wav()[:50]
    reply = raw(port, sent)
    assert head(reply)[0].startswith(b"HTTP/1.1 408 ") and b"did not arrive in time" in reply


def test_a_body_that_drips_is_given_up(port, monkeypatch):
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.5)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
        line.sendall(b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n")
        try:
            for _ in range(100):
                line.sendall(b"x")
                time.sleep(0.02)
        except OSError:
            return
        assert b"HTTP/1.1 408 " in rest(line)


@pytest.mark.parametrize("kind", ["application/octet-stream", "multipart/form-data; boundary=x"])
def test_an_endless_body_ends_at_the_limit(port, kind, uploads_folder):
    """Chunks without an end; the server stops reading at the limit of 1 MB, whatever its sender does."""
    sent, most = 0, 0
    with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
        line.sendall(
            f"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
            "Transfer-Encoding: chunked\r\n\r\n".encode()
        )
        first = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        try:
            line.sendall(b"%x\r\n%s\r\n" % (len(first), first))
            while sent < 100_000_000:
                line.sendall(b"10000\r\n" + bytes(65536) + b"\r\n")
                sent += 65536
                most = max(most, sum(path.stat().st_size for path in uploads_folder.rglob("*") if path.is_file()))
        except OSError:
            pass
        reply = rest(line) if sent < 100_000_000 else b""
    assert sent < 50_000_000 and most <= 1_100_000
    assert not reply or b"HTTP/1.1 413 " in reply


def test_a_crowd_of_idle_connections_is_told_to_come_back(port, monkeypatch):
    monkeypatch.setattr(server, "HEADER_SECONDS", 2)
    crowd = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(server.CONNECTIONS + 5)]
    try:
        time.sleep(0.3)
        reply = raw(port, b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert b" 503 " in head(reply)[0]
    finally:
        for line in crowd:
            line.close()
    until = time.monotonic() + 10
    while time.monotonic() < until:
        reply = raw(port, b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        if b" 200 " in head(reply)[0]:
            return
    raise AssertionError("the service did not come back")


# Secrets


def test_logs_hold_no_queries_and_no_headers(port, caplog):
    """Tokens in an address, passwords of a proxy and cookies are nobody's business, nor names of recordings."""
    caplog.set_level(logging.DEBUG, logger="uvicorn.access")
    logging.getLogger("uvicorn.access").addHandler(caplog.handler)
    try:
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        secret = {"authorization": "Bearer s3cret", "cookie": "id=s3cret"}
        line.request("POST", "/api/predict?token=s3cret&name=s3cret.wav", b"rubbish", secret)
        said = line.getresponse().read()
        line.close()
    finally:
        logging.getLogger("uvicorn.access").removeHandler(caplog.handler)
    assert "POST /api/predict HTTP/1.1" in caplog.text and "s3cret" not in caplog.text
    assert b"token" not in said and b"Bearer" not in said


def test_a_failure_of_the_service_tells_no_path(port, monkeypatch):
    def broken(*_, **__):
        raise OSError(28, "No space left on device", str(Path.home() / "secret" / "recording"))

    monkeypatch.setattr("soundsight.serve.uploads.tempfile.TemporaryDirectory", broken)
    reply = raw(
        port, b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"
    )
    assert head(reply)[0].startswith(b"HTTP/1.1 500 ")
    assert b"The service failed (OSError)" in reply and str(Path.home()).encode() not in reply


def test_model_info_tells_no_path(port, tiny_model):
    for path in ("/api/model", "/health", "/openapi.json", "/"):
        said = urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10).read().decode()
        assert str(tiny_model.parent) not in said and str(Path.home()) + "/" not in said


def test_names_in_answers_are_printable():
    for name in NASTY:
        assert plain_name(name).isprintable()


@contextlib.contextmanager
def served(model, folder):
    """A service of its own process, with `folder` for temporary files, and its port."""
    command = [sys.executable, "-m", "soundsight", "serve", str(model), "--port", "0", "--threads", "1"]
    environment = {**os.environ, "TMPDIR": str(folder)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            found = re.search(r"http://127.0.0.1:(\d+)", process.stdout.readline())
            yield process, int(found[1])
        finally:
            process.terminate()


def test_the_address_is_printed_when_it_accepts_connections(tiny_onnx, tmp_path):
    with served(tiny_onnx, tmp_path) as (_, port):
        assert urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=30).status == 200  # no second try


@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
def test_uploads_of_an_ended_service_are_gone_and_of_a_killed_one_after_the_next_start(tiny_onnx, tmp_path):
    notes = tmp_path / "soundsight-serve-notes" / "mine.txt"
    notes.parent.mkdir()
    notes.write_text("somebody's")
    for number in (signal.SIGKILL, signal.SIGINT):
        with served(tiny_onnx, tmp_path) as (process, port), socket.create_connection(("127.0.0.1", port)) as line:
            assert len(list(tmp_path.iterdir())) == 2  # of the killed one nothing
            line.sendall(b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\nRIFF")
            until = time.monotonic() + 60
            while not list(tmp_path.glob("*/*/recording")) and time.monotonic() < until:
                time.sleep(0.02)
            process.send_signal(number)
            said = process.communicate(timeout=60)[1]
            assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL)
            assert "Traceback" not in said, said
            assert len(list(tmp_path.glob("*/*/recording"))) == (number == signal.SIGKILL)
    assert list(tmp_path.iterdir()) == [notes.parent] and notes.read_text() == "somebody's"


def test_closing_ends_what_is_predicted_and_what_waits(tiny_model, monkeypatch):
    """However long the recording is: here it has no end."""

    @contextlib.contextmanager
    def endless(upload, max_seconds):
        with opened(upload, max_seconds) as (info, blocks):
            yield info, itertools.repeat(next(iter(blocks)))

    opened = predictions.opened
    monkeypatch.setattr(predictions, "opened", endless)
    monkeypatch.setattr(predictions, "MAX_SEGMENTS", 10**9)
    listening, ready, replies = server.bind("127.0.0.1", 0), threading.Event(), []
    app = create_app(load(tiny_model, device="cpu", threads=1), LIMITS)
    running = server.make_server(app, ready=ready.set)
    request = b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(wav()) + wav()

    def send():
        replies.append(raw(listening.getsockname()[1], request, seconds=120))

    threads = [threading.Thread(target=run) for run in (lambda: running.run(sockets=[listening]), send, send)]
    threads[0].start()
    assert ready.wait(60)
    for thread in threads[1:]:
        thread.start()
    until = time.monotonic() + 60
    while running.config.app.state.jobs.waiting < 2 and time.monotonic() < until:
        time.sleep(0.02)
    running.should_exit = True
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert len(replies) == 2  # or nothing, to whom no reply could be sent in time
    assert all(not reply or (b" 503 " in reply and b"is being closed" in reply) for reply in replies)
