"""Servers and archives that mean harm: header injection, secrets in addresses, bombs of every shape."""

from __future__ import annotations

import gzip
import io
import json
import socket
import struct
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from soundsight.cli import main
from soundsight.datasets import fetch as fetch_module
from soundsight.datasets.fetch import fetch, shown_url
from soundsight.datasets.unpack import unpack
from soundsight.errors import ConfigError, DatasetError

LIMIT = 1_000_000


class RawServer:
    """Sends the same bytes to everybody and remembers what was asked."""

    def __init__(self) -> None:
        self.replies: list[bytes] = []  # the last one again and again
        self.asked: list[bytes] = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                line, _ = self.socket.accept()
            except OSError:
                return
            with line:
                asked = b""
                while b"\r\n\r\n" not in asked and (piece := line.recv(65536)):
                    asked += piece
                self.asked.append(asked)
                reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
                # or else the next request may be sent on this connection while it is being closed
                line.sendall(reply.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[RawServer]:
    monkeypatch.setattr(fetch_module, "PAUSE_SECONDS", 0.0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    state = RawServer()
    yield state
    state.socket.close()


def whole(body: bytes, *headers: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *headers, b"", body])


# Headers


def test_a_name_in_content_disposition_is_not_used(server: RawServer, tmp_path: Path) -> None:
    """Nor one in the address: the file is called what we call it."""
    for name in (b"../../evil", b"/tmp/evil", b'x"; filename="evil', b"evil\r\n\tevil"):
        server.replies = [whole(b"abc", b'Content-Disposition: attachment; filename="%s"' % name)]
        fetch(f"http://{server.address}/..%2f..%2fevil", tmp_path / "a.zip", limit=LIMIT)
        assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.zip", "a.zip.json"]
        (tmp_path / "a.zip.json").unlink()


@pytest.mark.parametrize("mark", [b'"one\r\n X-Injected: 1"', b'"one\x00"', b'"\xff"', b'"' + b"a" * 5000 + b'"'])
def test_a_mark_of_the_version_is_not_sent_back_if_it_is_odd(server: RawServer, tmp_path: Path, mark: bytes) -> None:
    """The first prediction breaks off; the second request would carry the mark in its If-Range."""
    body = bytes(range(256)) * 100
    server.replies = [whole(body, b"ETag: " + mark)[:-5000], whole(body, b"ETag: " + mark)]
    file = tmp_path / "a.zip"
    fetch(f"http://{server.address}/a.zip", file, limit=LIMIT)
    assert file.read_bytes() == body and len(server.asked) == 2
    assert all(b"Injected" not in asked and b"If-Range" not in asked for asked in server.asked)


def test_words_of_a_server_cannot_steer_a_terminal(server: RawServer, tmp_path: Path) -> None:
    server.replies = [b"HTTP/1.1 404 \x1b[2J\x1b]0;owned\x07No\r\nContent-Length: 0\r\n\r\n"]
    with pytest.raises(DatasetError, match=r"HTTP 404 \\x1b\[2J\\x1b\]0;owned\\x07No\)") as refused:
        fetch(f"http://{server.address}/a.zip", tmp_path / "a.zip", limit=LIMIT)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    "place", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1/x", "//[bad", "/\x00"]
)
def test_redirections_lead_to_web_addresses_only(server: RawServer, tmp_path: Path, place: str) -> None:
    server.replies = [f"HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n".encode()]
    with pytest.raises((DatasetError, ConfigError)) as refused:
        fetch(f"http://{server.address}/a.zip", tmp_path / "a.zip", limit=LIMIT)
    assert "\n" not in str(refused.value) and "root:" not in str(refused.value)
    assert not (tmp_path / "a.zip").exists()


def test_a_redirection_in_circles_ends(server: RawServer, tmp_path: Path) -> None:
    server.replies = [b"HTTP/1.1 302 Found\r\nLocation: /a.zip\r\nContent-Length: 0\r\n\r\n"]
    with pytest.raises(DatasetError, match="leads in circles"):
        fetch(f"http://{server.address}/a.zip", tmp_path / "a.zip", limit=LIMIT)


def test_endless_headers_end(server: RawServer, tmp_path: Path) -> None:
    server.replies = [b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(5000)) + b"\r\n"]
    with pytest.raises(DatasetError, match="broke 5 times in a row|There is no connection"):
        fetch(f"http://{server.address}/a.zip", tmp_path / "a.zip", limit=LIMIT)


def test_a_body_packed_as_a_bomb_ends_at_the_limit(server: RawServer, tmp_path: Path) -> None:
    """A server may pack a body though nobody asked for that; what it unpacks to is counted."""
    server.replies = [whole(gzip.compress(bytes(50_000_000)), b"Content-Encoding: gzip")]
    with pytest.raises(DatasetError, match=r"sends \d+ bytes or more, but at most 1000000 are expected"):
        fetch(f"http://{server.address}/a.zip", tmp_path / "a.zip", limit=LIMIT)
    assert not (tmp_path / "a.zip").exists()


# Secrets


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:s3cret@host/a.zip?token=s3cret&b=2#s3cret", "https://host/a.zip?token=...&b=..."),
        ("https://host:81/a@b.zip", "https://host:81/a@b.zip"),
        ("https://h/a.zip?s3cret=1\x1b[2J", "https://h/a.zip?s3cret=..."),
        ("https://a:b@c:s3cret@host/x", "https://host/x"),
    ],
)
def test_shown_addresses_hold_no_secrets(url: str, shown: str) -> None:
    assert shown_url(url) == shown


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n",
        b"rubbish\r\n\r\n",
        b"",
        b"HTTP/1.1 302 Found\r\nLocation: /?again=s3cret\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: file:///x?s3cret\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999999\r\n\r\n",
        whole(b"no archive"),
    ],
)
def test_passwords_and_tokens_stay_out_of_errors_and_files(
    server: RawServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], reply: bytes
) -> None:
    server.replies = [reply]
    mirror = f"http://me:s3cret@{server.address}/a.zip?token=s3cret"
    assert main(["download", "esc50", "--root", str(tmp_path / "set"), "--mirror", mirror]) in (1, 2)
    said = "".join(capsys.readouterr())
    assert "soundsight: " in said and "Traceback" not in said and "s3cret" not in said
    assert server.asked and b"token=s3cret" in server.asked[0] and b"Authorization: Basic " in server.asked[0]
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or b"s3cret" not in path.read_bytes(), path


def test_a_proxys_password_stays_out_of_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fetch_module, "PAUSE_SECONDS", 0.0)
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://me:s3cret@127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    words = ["download", "esc50", "--root", str(tmp_path / "set"), "--mirror", "http://host.example/a.zip"]
    assert main(words) in (1, 2)
    said = capsys.readouterr().err
    assert "There is no connection" in said and "s3cret" not in said


# Bombs


def refused(archive: Path, folder: Path, message: str, *, megabytes: int = 200) -> None:
    """Unpacked by a process of its own, whose memory is counted."""
    code = (
        "import re, sys; from pathlib import Path; from soundsight.datasets.unpack import unpack\n"
        "from soundsight.errors import DatasetError\n"
        "Path(sys.argv[2]).mkdir()\n"
        "try: unpack(Path(sys.argv[1]), Path(sys.argv[2]), limit=10**9)\n"
        "except DatasetError as error: print(error)\n"
        "status = Path('/proc/self/status')\n"
        "print(int(re.search('VmHWM: *([0-9]+)', status.read_text().replace('\\t', ' '))[1]) // 1024 "
        "if status.exists() else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(archive), str(folder)], capture_output=True, text=True)
    assert not done.stderr, done.stderr
    said, _, peak = done.stdout.strip().rpartition("\n")
    assert message in said and "\n" not in said
    assert int(peak) < megabytes


def header(kind: bytes, size: int, name: str = "x") -> bytes:
    """A tar header without what follows it."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


KINDS = {"pax": tarfile.XHDTYPE, "pax for all": tarfile.XGLTYPE, "long name": tarfile.GNUTYPE_LONGNAME}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_tar_header_that_unpacks_to_gigabytes(tmp_path: Path, kind: bytes) -> None:
    """The library reads such a header whole; packed, 300 MB of it are 300 kB."""
    size = 300_000_000
    with gzip.open(tmp_path / "a.tgz", "wb", compresslevel=6) as file:
        file.write(header(kind, size))
        for _ in range(size // 10_000_000):
            file.write(bytes(10_000_000))
    assert (tmp_path / "a.tgz").stat().st_size < 1_000_000
    refused(tmp_path / "a.tgz", tmp_path / "out", "it holds a header of 300000")


def test_a_thousand_tar_headers_before_a_file(tmp_path: Path) -> None:
    chain = (header(tarfile.GNUTYPE_LONGNAME, 4) + b"name".ljust(512, b"\0")) * 5000
    (tmp_path / "a.tar").write_bytes(chain + header(tarfile.REGTYPE, 0) + bytes(1024))
    refused(tmp_path / "a.tar", tmp_path / "out", "a.tar ")


def test_a_sparse_file_counts_in_full(tmp_path: Path) -> None:
    """A GNU sparse file of 8 GB that stores nothing but its size."""
    info = tarfile.TarInfo("x")
    info.type = tarfile.GNUTYPE_SPARSE
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[483:495] = b"%011o\0" % 8_000_000_000
    block[148:156] = b"%06o\0 " % (256 + sum(block[:148]) + sum(block[156:]))
    (tmp_path / "a.tar").write_bytes(bytes(block) + bytes(1024))
    refused(tmp_path / "a.tar", tmp_path / "out", "a.tar ")
    assert sum(path.stat().st_blocks * 512 for path in (tmp_path / "out").rglob("*")) < 100_000_000


def test_an_archive_in_an_archive_stays_packed(tmp_path: Path) -> None:
    """42.zip holds archives in archives; nothing here unpacks what it unpacked."""
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("zeros", bytes(30_000_000))
    for name in ("b.zip", "c.zip", "d.zip"):
        outer = io.BytesIO()
        with zipfile.ZipFile(outer, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr(name, inner.getvalue())
        inner = outer
    (tmp_path / "a.zip").write_bytes(inner.getvalue())
    (tmp_path / "out").mkdir()
    unpack(tmp_path / "a.zip", tmp_path / "out", limit=10**9)
    assert [path.name for path in (tmp_path / "out").rglob("*")] == ["d.zip"]


def test_many_names_for_the_same_bytes(tmp_path: Path) -> None:
    """Entries that overlap: 30 MB of zeros, packed once, listed 200 times."""
    once = io.BytesIO()
    with zipfile.ZipFile(once, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("0000", bytes(30_000_000))
    data = once.getvalue()
    start = data.index(b"PK\x01\x02")
    local, central, end = data[:start], data[start : data.index(b"PK\x05\x06")], data[data.index(b"PK\x05\x06") :]
    many = b"".join(central.replace(b"0000", b"%04d" % number) for number in range(200))
    end = end[:8] + struct.pack("<HHI", 200, 200, len(many)) + end[16:]
    (tmp_path / "a.zip").write_bytes(local + many + end)
    refused(tmp_path / "a.zip", tmp_path / "out", "it unpacks to 6000000000 bytes or more")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("ending", ["zip", "tar"])
def test_very_many_empty_entries(tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which would fill the file system's table."""
    monkeypatch.setattr("soundsight.datasets.unpack.FILES_LIMIT", 10_000)
    archive = tmp_path / f"a.{ending}"
    if ending == "zip":
        with zipfile.ZipFile(archive, "w") as file:
            for number in range(10_001):
                file.writestr(zipfile.ZipInfo(f"x/{number % 10}/" + "./" * (number // 10 % 100)), b"")
    else:
        with gzip.open(archive, "wb", compresslevel=1) as packed:
            packed.write(header(tarfile.DIRTYPE, 0, "x") * 10_001)
    (tmp_path / "out").mkdir()
    with pytest.raises(DatasetError, match="it holds more than 10000 files"):
        unpack(archive, tmp_path / "out", limit=10**9)


def test_a_record_of_a_download_that_lies(server: RawServer, tmp_path: Path) -> None:
    """Beside a part lies a record; one that was altered must not make us ask elsewhere or believe in a whole file."""
    server.replies = [whole(b"abc")]
    file = tmp_path / "a.zip"
    for record in ("[]", "{}", '{"url": 1, "validator": 2, "total": "x"}', "\x00", json.dumps({"url": "http://evil"})):
        file.write_bytes(b"evil")
        file.with_name("a.zip.json").write_text(record, encoding="utf-8")
        fetch(f"http://{server.address}/a.zip", file, limit=LIMIT)
        assert file.read_bytes() == b"abc"
