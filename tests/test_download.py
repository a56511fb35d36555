"""Downloads from a real server on this machine that breaks off, lies and forgets; archives that mean harm."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import re
import signal
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import soundfile

from soundsight.datasets import fetch as fetch_module
from soundsight.datasets.catalogue import kinds
from soundsight.datasets.download import archive_url, datasets, download, notice
from soundsight.datasets.fetch import fetch
from soundsight.datasets.published import check, read_checksums
from soundsight.datasets.unpack import unpack
from soundsight.errors import ConfigError, DatasetError

BODY = np.random.default_rng(0).bytes(1_000_000)
LIMIT = 10_000_000


class Server:
    """Serves `body`; the switches are its bad habits."""

    def __init__(self) -> None:
        self.body = BODY
        self.etag = '"one"'
        self.status = 200
        self.ranges = True  # understands Range
        self.breaks: list[int] = []  # prediction n ends after so many bytes of the body
        self.length: int | None = None  # claims this Content-Length
        self.chunked = False
        self.wrong_part = False  # predictions a range with another one
        self.requests: list[dict[str, str]] = []
        self.paths: list[str] = []

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.requests.append(dict(handler.headers))
        self.paths.append(handler.path)
        if self.status != 200:
            handler.send_response(self.status)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        body, start = self.body, 0
        wanted = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        fresh = handler.headers.get("If-Range", self.etag) == self.etag
        if wanted and self.ranges and fresh:
            start = int(wanted[1])
            if start >= len(body):
                handler.send_response(416)
                handler.send_header("Content-Length", "0")
                handler.end_headers()
                return
            shown = start + 7 if self.wrong_part else start
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {shown}-{len(body) - 1}/{len(body)}")
        else:
            handler.send_response(200)
        part = body[start:]
        if self.etag:
            handler.send_header("ETag", self.etag)
        if not self.chunked:
            handler.send_header("Content-Length", str(len(part) if self.length is None else self.length))
        handler.end_headers()
        cut = self.breaks.pop(0) if self.breaks else len(part)
        handler.wfile.write(part[:cut])
        handler.wfile.flush()
        handler.close_connection = True


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(fetch_module, "PAUSE_SECONDS", 0.0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{http.server_port}/file.zip"  # type: ignore[attr-defined]
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    http.shutdown()
    http.server_close()
    thread.join()


def get(server: Server, file: Path, **changes: object) -> None:
    fetch(server.url, file, **{"limit": LIMIT, **changes})  # type: ignore[attr-defined, arg-type]


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Fetching


def test_a_whole_file_with_progress(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    md5 = hashlib.md5(BODY).hexdigest()
    get(server, tmp_path / "f", size=len(BODY), md5=md5, progress=lambda *step: seen.append(step))
    assert (tmp_path / "f").read_bytes() == BODY
    downloads = [step for step in seen if step[0] == "download"]
    assert downloads[-1] == ("download", len(BODY), len(BODY))
    assert [step[1] for step in downloads] == sorted(step[1] for step in downloads)
    assert seen[-1] == ("check", len(BODY), len(BODY))


def test_broken_connections_are_resumed_by_range(server: Server, tmp_path: Path) -> None:
    server.breaks = [300_000, 300_000]
    get(server, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == BODY
    first, second, _ = server.requests
    assert "Range" not in first
    # The last, half-filled piece is not counted as arrived.
    assert int(second["Range"].removeprefix("bytes=").rstrip("-")) in range(200_000, 300_001)
    assert second["If-Range"] == '"one"'


def test_a_second_call_goes_on_where_the_first_gave_up(server: Server, tmp_path: Path) -> None:
    server.breaks = [600_000, *[0] * 5]
    with pytest.raises(DatasetError, match=r"broke 5 times in a row \(.+\); the 0\.[56] MB so far are kept, so run"):
        get(server, tmp_path / "f")
    asked = len(server.requests)
    get(server, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == BODY
    assert server.requests[asked]["Range"].startswith("bytes=5")


def test_a_finished_file_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    get(server, tmp_path / "f")
    get(server, tmp_path / "f")
    assert len(server.requests) == 1


def test_a_file_that_changed_meanwhile_starts_over(server: Server, tmp_path: Path) -> None:
    server.breaks = [600_000, *[0] * 5]
    with pytest.raises(DatasetError, match="broke"):
        get(server, tmp_path / "f")
    server.body, server.etag = BODY[::-1], '"two"'
    get(server, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == BODY[::-1]


def test_a_server_that_ignores_ranges_starts_over(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    server.breaks = [600_000]
    get(server, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == BODY
    assert "Range" in server.requests[1]


def test_without_a_mark_of_the_version_only_a_checksum_allows_going_on(server: Server, tmp_path: Path) -> None:
    server.etag = ""
    server.breaks = [600_000]
    get(server, tmp_path / "a")
    assert "Range" not in server.requests[1]
    server.breaks = [600_000]
    get(server, tmp_path / "b", md5=hashlib.md5(BODY).hexdigest())
    assert "Range" in server.requests[3] and "If-Range" not in server.requests[3]
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == BODY


def test_another_part_than_asked_for_is_thrown_away(server: Server, tmp_path: Path) -> None:
    server.breaks, server.wrong_part = [600_000], True
    get(server, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == BODY


def test_a_part_from_elsewhere_is_not_continued(server: Server, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"something else")
    get(server, tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == BODY


def test_a_body_shorter_than_announced(server: Server, tmp_path: Path) -> None:
    server.length, server.ranges = len(BODY) + 1000, False
    with pytest.raises(DatasetError, match="broke 5 times in a row"):
        get(server, tmp_path / "f")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_short_file(server: Server, tmp_path: Path, chunked: bool) -> None:
    server.body, server.chunked = BODY[:-1], chunked
    with pytest.raises(DatasetError, match="has 999999 bytes, but its publisher names 1000000; it was cut"):
        get(server, tmp_path / "f", size=len(BODY))
    assert leftovers(tmp_path) == []


def test_a_long_file(server: Server, tmp_path: Path) -> None:
    server.chunked = True
    with pytest.raises(DatasetError, match=r"sends \d+ bytes or more, but at most 900000 are expected"):
        get(server, tmp_path / "f", limit=900_000)
    server.chunked = False
    with pytest.raises(DatasetError, match="sends 1000000 bytes or more, but at most 900000 are expected"):
        get(server, tmp_path / "f", limit=900_000)
    assert leftovers(tmp_path) == []


def test_an_altered_file_is_thrown_away(server: Server, tmp_path: Path) -> None:
    md5 = hashlib.md5(BODY).hexdigest()
    server.body = BODY[:-1] + bytes([BODY[-1] ^ 1])
    with pytest.raises(DatasetError, match=f"was altered: its MD5 is .*, but its publisher names {md5}; try"):
        get(server, tmp_path / "f", md5=md5)
    assert leftovers(tmp_path) == []
    server.body = BODY
    get(server, tmp_path / "f", md5=md5)
    assert (tmp_path / "f").read_bytes() == BODY


@pytest.mark.parametrize("status", [404, 410, 403])
def test_what_the_server_does_not_have(server: Server, tmp_path: Path, status: int) -> None:
    server.status = status
    with pytest.raises(DatasetError, match=rf"cannot be had \(HTTP {status} .*; name a mirror=ADDRESS, or fetch"):
        get(server, tmp_path / "f")
    assert len(server.requests) == 1


def test_a_server_in_trouble_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.status = 503
    with pytest.raises(DatasetError, match=r"broke 5 times in a row \(the server replied HTTP 503\); try again"):
        get(server, tmp_path / "f")
    assert len(server.requests) == 5


def test_no_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_module, "PAUSE_SECONDS", 0.0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(DatasetError, match=r"no connection to 127.0.0.1 \(Connection refused\); check the network"):
        fetch("http://127.0.0.1:9/file", tmp_path / "f", limit=LIMIT)


@pytest.mark.parametrize("url", ["ftp://x/file", "file:///etc/passwd", "nonsense", "http://", "http://[::1/x"])
def test_addresses_that_are_none(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match="cannot be downloaded; an address begins with http"):
        fetch(url, tmp_path / "f", limit=LIMIT)


def test_a_file_for_which_the_disk_is_too_small(server: Server, tmp_path: Path) -> None:
    server.length = 10**17
    with pytest.raises(DatasetError, match=r"is too full: 100000000\.0 GB are needed and .* are free; free some"):
        get(server, tmp_path / "f", limit=10**18)
    assert leftovers(tmp_path) == []


def test_a_disk_that_fills_up(server: Server, tmp_path: Path) -> None:
    """A real limit on what a process may write stands for the end of the disk."""
    code = (
        "import resource, signal, sys; from pathlib import Path; from soundsight.datasets.fetch import fetch\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, resource.RLIM_INFINITY))\n"
        "try: fetch(sys.argv[1], Path(sys.argv[2]), limit=10**9)\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    command = [sys.executable, "-c", code, server.url, str(tmp_path / "f")]  # type: ignore[attr-defined]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (
        result.stdout
        == f"FullDisk The disk that holds {tmp_path} is full; free some space and run the command again.\n"
    )
    get(server, tmp_path / "f")  # the second call finishes the job
    assert (tmp_path / "f").read_bytes() == BODY
    assert "Range" in server.requests[-1]


def test_proxies_of_the_environment_are_used(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("http_proxy", server.url.removesuffix("/file.zip"))  # type: ignore[attr-defined]
    fetch("http://data.invalid/file", tmp_path / "f", limit=LIMIT)
    assert server.paths == ["http://data.invalid/file"]


# Unpacking


def make_zip(path: Path, entries: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in entries.items():
            file.writestr(name, content)
        for name, target in (links or {}).items():
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o120777 << 16
            file.writestr(info, target)
    return path


def make_tar(path: Path, *members: tuple[str, bytes, bytes]) -> Path:
    """Members are (name, type, content or link target)."""
    with tarfile.open(path, "w:gz") as tar:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind == tarfile.REGTYPE:
                info.size = len(content)
            else:
                info.linkname = content.decode()
            tar.addfile(info, io.BytesIO(content))
    return path


def refused(archive: Path, folder: Path, message: str, limit: int = LIMIT) -> None:
    folder.mkdir()
    outside = leftovers(folder.parent)
    with pytest.raises(DatasetError, match=message):
        unpack(archive, folder, limit=limit)
    assert leftovers(folder.parent) == outside


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "..\\evil", "C:\\evil", "a/b:c"])
def test_paths_outside_are_refused(tmp_path: Path, name: str) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    message = "is refused: .* would be written outside of its folder; a data set's archive does not"
    refused(make_zip(inner / "a.zip", {name: b"x"}), inner / "one", message)
    refused(make_tar(inner / "a.tgz", (name, tarfile.REGTYPE, b"x")), inner / "two", message)
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (tarfile.SYMTYPE, "it holds a link"),
        (tarfile.LNKTYPE, "it holds a link"),
        (tarfile.CHRTYPE, "it holds a link or device"),
        (tarfile.FIFOTYPE, "it holds a link or device"),
    ],
)
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes, message: str) -> None:
    refused(make_tar(tmp_path / "a.tgz", ("x", kind, b"/etc/passwd")), tmp_path / "out", message)
    assert leftovers(tmp_path / "out") == []


def test_links_in_zips_are_refused(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {}, {"x": "/etc"})
    refused(archive, tmp_path / "out", r"it holds a link \('x'\)")


def test_bombs_are_refused(tmp_path: Path) -> None:
    zeros = bytes(60_000_000)
    bomb = make_zip(tmp_path / "a.zip", {"x": zeros})
    assert bomb.stat().st_size < 100_000
    refused(bomb, tmp_path / "one", r"it unpacks to 60000000 bytes or more, and \d+ are allowed", limit=10**9)
    bomb = make_tar(tmp_path / "a.tgz", ("x", tarfile.REGTYPE, zeros))
    refused(bomb, tmp_path / "two", "it unpacks to", limit=10**9)
    assert sum(path.stat().st_size for path in (tmp_path / "two").rglob("*")) < 50_000_000
    refused(make_zip(tmp_path / "b.zip", {"x": BODY}), tmp_path / "three", "and 1000 are allowed", limit=1000)


def test_a_zip_that_lies_about_a_size(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {"x": bytes(5000)})
    data = archive.read_bytes()
    archive.write_bytes(data.replace((5000).to_bytes(4, "little"), (50).to_bytes(4, "little")))
    refused(archive, tmp_path / "out", r"a.zip is damaged or cut short \(.*; fetch it again")


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("soundsight.datasets.unpack.FILES_LIMIT", 3)
    archive = make_zip(tmp_path / "a.zip", {str(n): b"" for n in range(4)})
    refused(archive, tmp_path / "out", "it holds more than 3 files")


def test_the_same_name_twice_is_refused(tmp_path: Path) -> None:
    member = ("x", tarfile.REGTYPE, b"1")
    refused(make_tar(tmp_path / "a.tgz", member, member), tmp_path / "out", "it holds 'x' twice")


def test_a_name_that_is_too_long_is_refused(tmp_path: Path) -> None:
    refused(make_zip(tmp_path / "a.zip", {"x" * 300: b""}), tmp_path / "out", "cannot be unpacked .File name too")


@pytest.mark.parametrize("ending", ["zip", "tgz"])
@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_damaged_archives(tmp_path: Path, ending: str, damage: str) -> None:
    path = tmp_path / f"a.{ending}"
    if ending == "zip":
        make_zip(path, {"x": BODY})
    else:
        make_tar(path, ("x", tarfile.REGTYPE, BODY))
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    path.write_bytes(data[:middle] if damage == "cut" else data[:middle] + bytes(64) + data[middle + 64 :])
    refused(path, tmp_path / "out", "is damaged or cut short|is neither a zip nor a tar archive, or it was cut")


@pytest.mark.parametrize("content", [b"", b"<html>Please log in</html>", BODY])
def test_what_is_no_archive(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    refused(tmp_path / "a.zip", tmp_path / "out", "is neither a zip nor a tar archive")


def test_modes_of_an_archive_are_not_taken_over(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        info = tarfile.TarInfo("x")
        info.mode, info.size = 0o6777, 1
        tar.addfile(info, io.BytesIO(b"1"))
    (tmp_path / "out").mkdir()
    unpack(tmp_path / "a.tar", tmp_path / "out", limit=LIMIT)
    assert (tmp_path / "out" / "x").stat().st_mode & 0o7111 == 0


# The whole way


def wav(seed: int, seconds: float = 0.25, rate: int = 8000) -> bytes:
    noise = np.random.default_rng(seed).normal(0, 0.1, round(seconds * rate)).astype(np.float32)
    buffer = io.BytesIO()
    soundfile.write(buffer, noise, rate, format="WAV")
    return buffer.getvalue()


def tiny_esc50(changes: dict[str, bytes | None] | None = None) -> dict[str, bytes]:
    """The official layout with 4 clips: 2 classes, 2 folds."""
    rows = [f"{1 + n % 2}-{n}-A-{n // 2}.wav,{1 + n % 2},{n // 2},class{n // 2},False,{n},A" for n in range(4)]
    table = "\n".join(["filename,fold,target,category,esc10,src_file,take", *rows]) + "\n"
    files: dict[str, bytes | None] = {f"audio/{row.split(',')[0]}": wav(n) for n, row in enumerate(rows)}
    files |= {"meta/esc50.csv": table.encode(), "LICENSE": b"CC BY-NC"}
    files |= changes or {}
    return {f"ESC-50-master/{name}": data for name, data in files.items() if data is not None}


def tiny_urbansound8k() -> dict[str, bytes]:
    rows = [f"{n}-{n % 2}-0-0.wav,{n},0,0.25,1,{1 + n % 3},{n % 2},class{n % 2}" for n in range(6)]
    table = "\n".join(["slice_file_name,fsID,start,end,salience,fold,classID,class", *rows]) + "\n"
    files = {f"audio/fold{1 + n % 3}/{row.split(',')[0]}": wav(n) for n, row in enumerate(rows)}
    files["metadata/UrbanSound8K.csv"] = table.encode()
    return {f"UrbanSound8K/{name}": data for name, data in files.items()}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records that describe the miniatures as those of the package describe the real data sets."""
    small = {"clips": 4, "classes": 2, "folds": 2, "sample_rate": 8000, "seconds": 0.25, "checksums": ""}
    for name in ("esc50", "esc10"):
        monkeypatch.setitem(kinds(), name, dataclasses.replace(kinds()[name], **small))
    content = as_tar(tiny_urbansound8k())
    record = dataclasses.replace(
        kinds()["urbansound8k"],
        clips=6,
        classes=2,
        folds=3,
        size=len(content),
        md5=hashlib.md5(content).hexdigest(),
    )
    monkeypatch.setitem(kinds(), "urbansound8k", record)


def as_zip(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in files.items():
            file.writestr(name, data)
    return buffer.getvalue()


def as_tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def mirror(server: Server) -> str:
    return server.url.removesuffix("file.zip")  # type: ignore[attr-defined, no-any-return]


def test_esc50_the_whole_way(server: Server, tiny: None, tmp_path: Path) -> None:
    server.body = as_zip(tiny_esc50())
    stages: list[str] = []
    root = tmp_path / "dataset" / "ESC-50"
    assert download("esc50", root=root, mirror=mirror(server), progress=lambda s, *_: stages.append(s)) == root
    assert leftovers(root) == ["LICENSE", "audio", "meta"]
    assert leftovers(root.parent) == ["ESC-50"]  # no archive, no temporary folder, no lock
    assert server.paths == ["/ESC-50-master.zip"]
    assert list(dict.fromkeys(stages)) == ["download", "unpack", "check"]
    download("esc10", root=root, mirror=mirror(server))
    assert len(server.requests) == 1  # it is there already


def test_urbansound8k_the_whole_way(server: Server, tiny: None, tmp_path: Path) -> None:
    server.body = as_tar(tiny_urbansound8k())
    server.breaks = [5000]
    root = download("urbansound8k", root=tmp_path / "us", mirror=mirror(server))
    assert leftovers(root) == ["audio", "metadata"]
    assert len(server.requests) == 2


def test_a_call_after_a_break_finishes_the_job(server: Server, tiny: None, tmp_path: Path) -> None:
    server.body = as_zip(tiny_esc50())
    server.breaks = [8000, *[0] * 5]
    root = tmp_path / "ESC-50"
    server.ranges = True
    with pytest.raises(DatasetError, match="broke 5 times"):
        download("esc50", root=root, mirror=mirror(server))
    assert not root.exists()
    download("esc50", root=root, mirror=mirror(server))
    assert leftovers(tmp_path) == ["ESC-50"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"audio/1-0-A-0.wav": None}, r"is not whole: 1 recordings of meta/esc50.csv are missing, such as audio/1-0"),
        ({"audio/1-0-A-0.wav": wav(0, rate=16000)}, r"1-0-A-0.wav has 16000 Hz and 0.250 s, but the published"),
        ({"audio/1-0-A-0.wav": wav(0, 0.2)}, r"1-0-A-0.wav has 8000 Hz and 0.200 s, but the published"),
        ({"audio/1-0-A-0.wav": b"<html>"}, "A recording is damaged: .* is no recording that can be read"),
        ({"meta/esc50.csv": None}, r"holds no meta/esc50.csv, so it is not ESC-50"),
        (
            {"meta/esc50.csv": b"filename,fold,target,category,esc10,src_file,take\n1-0-A-0.wav,1,0,a,False,0,A\n"},
            "lists 1 clips, 1 classes and 1 folds, but the published one lists 4, 2 and 2, as many in each",
        ),
    ],
)
def test_incomplete_archives_leave_nothing(
    server: Server, tiny: None, tmp_path: Path, changes: dict[str, bytes | None], message: str
) -> None:
    server.body = as_zip(tiny_esc50(changes))
    with pytest.raises(DatasetError, match=message):
        download("esc50", root=tmp_path / "ESC-50", mirror=mirror(server))
    assert leftovers(tmp_path) == []
    server.body, server.etag = as_zip(tiny_esc50()), '"two"'
    download("esc50", root=tmp_path / "ESC-50", mirror=mirror(server))
    assert leftovers(tmp_path) == ["ESC-50"]


def test_altered_recordings_are_found_by_their_md5(
    server: Server, tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {name.rpartition("/")[2]: hashlib.md5(data).hexdigest() for name, data in tiny_esc50().items()}
    monkeypatch.setattr("soundsight.datasets.published.read_checksums", lambda record: known)
    server.body = as_zip(tiny_esc50({"audio/1-2-A-1.wav": wav(77)}))
    with pytest.raises(DatasetError, match=r"1-2-A-1.wav differs from the published recording: its MD5 is .*, not"):
        download("esc50", root=tmp_path / "ESC-50", mirror=mirror(server))
    assert leftovers(tmp_path) == []
    download("esc50", root=tmp_path / "ESC-50", mirror=mirror(server), checksums=False)


def test_an_archive_brought_by_hand_passes_the_same_checks(tiny: None, tmp_path: Path) -> None:
    archive = tmp_path / "brought.bin"
    archive.write_bytes(as_tar(tiny_urbansound8k()) + b"more")
    with pytest.raises(DatasetError, match=r"bytes, but its publisher names .*; it was cut or repacked, so"):
        download("urbansound8k", root=tmp_path / "us", archive=archive)
    content = bytearray(as_tar(tiny_urbansound8k()))
    content[2000] ^= 1
    archive.write_bytes(content)
    with pytest.raises(DatasetError, match="was altered: its MD5 is"):
        download("urbansound8k", root=tmp_path / "us", archive=archive)
    archive.write_bytes(as_tar(tiny_urbansound8k()))
    download("urbansound8k", root=tmp_path / "us", archive=archive)
    assert leftovers(tmp_path) == ["brought.bin", "us"]  # what was brought is kept
    hostile = make_zip(tmp_path / "evil.zip", {"../../evil": b"x"})
    with pytest.raises(DatasetError, match="is refused"):
        download("esc50", root=tmp_path / "ESC-50", archive=hostile)
    with pytest.raises(ConfigError, match=r"The archive .*none.zip does not exist; name a file downloaded from"):
        download("esc50", root=tmp_path / "ESC-50", archive=tmp_path / "none.zip")


def test_what_is_in_the_place_already_stays(server: Server, tiny: None, tmp_path: Path) -> None:
    root = tmp_path / "ESC-50"
    (root / "spectrogram").mkdir(parents=True)
    (root / "spectrogram" / "x.png").write_bytes(b"picture")
    server.body = as_zip(tiny_esc50())
    download("esc50", root=root, mirror=mirror(server))
    assert leftovers(root) == ["LICENSE", "audio", "meta", "spectrogram"]
    assert (root / "spectrogram" / "x.png").read_bytes() == b"picture"


def test_a_call_killed_while_moving_is_finished(server: Server, tiny: None, tmp_path: Path) -> None:
    """Such a call leaves some entries and no table."""
    root = tmp_path / "ESC-50"
    files = tiny_esc50()
    (root / "audio").mkdir(parents=True)
    (root / "spectrogram").mkdir()
    (root / "audio" / "1-0-A-0.wav").write_bytes(files["ESC-50-master/audio/1-0-A-0.wav"])
    server.body = as_zip(files)
    download("esc50", root=root, mirror=mirror(server))
    assert len(leftovers(root / "audio")) == 4


def test_files_of_the_user_are_not_overwritten(server: Server, tiny: None, tmp_path: Path) -> None:
    root = tmp_path / "ESC-50"
    (root / "audio").mkdir(parents=True)
    (root / "audio" / "mine.wav").write_bytes(b"mine")
    server.body = as_zip(tiny_esc50())
    with pytest.raises(ConfigError, match=r"mine.wav is not part of the data set and would be lost; move it away"):
        download("esc50", root=root, mirror=mirror(server))
    assert (root / "audio" / "mine.wav").read_bytes() == b"mine"
    (root / "audio" / "mine.wav").rename(tmp_path / "mine.wav")
    asked = len(server.requests)
    download("esc50", root=root, mirror=mirror(server))
    assert len(server.requests) == asked  # the archive was kept


def test_a_damaged_copy_is_named(server: Server, tiny: None, tmp_path: Path) -> None:
    server.body = as_zip(tiny_esc50())
    root = download("esc50", root=tmp_path / "ESC-50", mirror=mirror(server))
    (root / "audio" / "1-0-A-0.wav").unlink()
    with pytest.raises(DatasetError, match=r"exists, but .* is not whole: 1 recordings .*; move .* away to download"):
        download("esc50", root=root, mirror=mirror(server))


def test_leftovers_of_a_killed_call_do_no_harm(server: Server, tiny: None, tmp_path: Path) -> None:
    half = tmp_path / ".tmp-ESC-50" / "ESC-50-master" / "meta"
    half.mkdir(parents=True)
    (half / "esc50.csv").write_text("half")
    server.body = as_zip(tiny_esc50())
    download("esc50", root=tmp_path / "ESC-50", mirror=mirror(server))
    assert leftovers(tmp_path) == ["ESC-50"]


def test_a_call_killed_while_it_notes_where_a_file_is_from_leaves_nothing(
    server: Server, tiny: None, tmp_path: Path
) -> None:
    """SIGKILL between the draft of the record and its renaming."""
    server.body = as_zip(tiny_esc50())
    part = tmp_path / f"{kinds()['esc50'].archive}.part"
    code = (
        "import os, signal, sys; from pathlib import Path; from soundsight.datasets.fetch import fetch\n"
        "Path.replace = os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "fetch(sys.argv[1], Path(sys.argv[2]), limit=1 << 20)"
    )
    address = archive_url(kinds()["esc50"], mirror(server))
    killed = subprocess.run([sys.executable, "-c", code, address, str(part)], check=False)
    assert killed.returncode == -signal.SIGKILL and [path.suffix for path in tmp_path.iterdir()] == [".json"]
    download("esc50", root=tmp_path / "ESC-50", mirror=mirror(server))
    assert leftovers(tmp_path) == ["ESC-50"]


def test_one_download_at_a_time(tiny: None, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from soundsight.datasets.download import _locked\n"
        "with _locked(Path(sys.argv[1])): print('locked', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "ESC-50")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "locked\n"
        with pytest.raises(ConfigError, match=r"Another download to .* is running; wait until it ends"):
            download("esc50", root=tmp_path / "ESC-50", archive=make_zip(tmp_path / "a.zip", {}))
        other.communicate("")


def test_a_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"x is a file; set root=FOLDER"):
        download("esc50", root=tmp_path / "x")
    with pytest.raises(ConfigError, match=r"The folder .* cannot be written"):
        download("esc50", root=tmp_path / "x" / "y" / "z")


def test_unknown_data_sets() -> None:
    with pytest.raises(ConfigError, match="'fsd50k' cannot be downloaded; esc50, esc10, urbansound8k can"):
        download("fsd50k")


# Facts


def test_notices_tell_licence_and_citation() -> None:
    assert "CC BY-NC 3.0" in notice("esc50") and "10.1145/2733373.2806390" in notice("esc50")
    assert "CC BY 3.0" in notice("esc10")
    assert "(6.0 GB)" in notice("urbansound8k") and "10.1145/2647868.2655045" in notice("urbansound8k")


@pytest.mark.parametrize("name", datasets())
def test_records_are_complete(name: str) -> None:
    record = kinds()[name]
    assert record.url.startswith("https://") and record.source
    assert bool(record.md5) != bool(record.checksums)  # one or the other tells that a copy is true


def test_checksums_of_esc50() -> None:
    known = read_checksums(kinds()["esc50"])
    assert len(known) == len(set(known.values())) == 2000
    assert all(re.fullmatch("[0-9a-f]{32}", digest) for digest in known.values())
    assert known["1-100032-A-0.wav"] == "ca7345a4c89c5394aa44419de0971ade"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, "https://zenodo.org/records/1203745/files/UrbanSound8K.tar.gz"),
        ("http://here/sets", "http://here/sets/UrbanSound8K.tar.gz"),
        ("http://here/sets/", "http://here/sets/UrbanSound8K.tar.gz"),
        ("http://here/us8k.tgz", "http://here/us8k.tgz"),
        ("http://here/us8k.tgz?key=1", "http://here/us8k.tgz?key=1"),
        ("http://here/sets/?key=1", "http://here/sets/UrbanSound8K.tar.gz?key=1"),
    ],
)
def test_addresses_of_mirrors(given: str | None, expected: str) -> None:
    assert archive_url(kinds()["urbansound8k"], given) == expected


def test_the_reduced_mirror_is_not_taken_for_the_published_data_set(esc50: Path) -> None:
    with pytest.raises(DatasetError, match=r"has 16000 Hz and 5.000 s, but the published recordings have 44100 Hz"):
        check(esc50, kinds()["esc50"])
