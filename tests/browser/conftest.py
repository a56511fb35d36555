"""A real Chromium and a real server for the browser tests; they are skipped where either is missing.

What is needed: the program `chromium` (Debian: apt-get install chromium) and the package `playwright`. No
browser is downloaded. CHROMIUM names another program.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile

from soundsight.synthesis import dataset as demo

PROGRAM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or ""
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run", "--autoplay-policy=no-user-gesture-required",
]  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Name the mark of the tests here."""
    config.addinivalue_line("markers", "browser: needs a Chromium program and the package playwright")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests here, and skip them where there is no Chromium."""
    for item in items:
        if Path(str(item.fspath)).parent == Path(__file__).parent:
            item.add_marker(pytest.mark.browser)
            if not PROGRAM:
                item.add_marker(pytest.mark.skip(reason="there is no program chromium"))


@pytest.fixture(scope="module")
def address(tiny_model: Path) -> Iterator[str]:
    """A running `soundsight serve`, as a user starts it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "soundsight", "serve", str(tiny_model), "--port", str(port)]
    command += ["--device", "cpu", "--threads", "1", "--max-seconds", "30", "--max-megabytes", "2"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(url, server)
        yield url
    finally:
        server.terminate()
        server.wait(30)


def wait_for(url: str, server: subprocess.Popen[bytes], seconds: float = 300) -> None:
    """Wait until a server predictions."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert server.poll() is None, "the server has ended"
        try:
            urllib.request.urlopen(f"{url}/health", timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"the server has not answered within {seconds:g} s")


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A siren of one second."""
    path = tmp_path_factory.mktemp("clip") / "clip.wav"
    soundfile.write(path, demo.synthesise("siren", seed=4, seconds=1.0), 16000)
    return path


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium with a fake microphone that hears `rain.wav`."""
    from playwright.sync_api import sync_playwright

    heard = tmp_path_factory.mktemp("microphone") / "rain.wav"
    soundfile.write(heard, demo.synthesise("rain", seed=2, seconds=5.0), 16000)
    microphone = [
        "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={heard}",
    ]  # fmt: skip
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PROGRAM, args=[*FLAGS, *microphone])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Any, address: str) -> Iterator[Callable[..., Any]]:
    """Open the page with any size and scheme; whatever it requests or complains of is watched."""
    contexts = []
    requests: list[str] = []
    complaints: list[str] = []

    def open_page(url: str = address, **how: Any) -> Any:
        context = chromium.new_context(permissions=["microphone"], **how)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda line: complaints.append(line.text) if "Content Security" in line.text else None)
        page.goto(url)
        page.wait_for_selector("html[data-ready]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    strangers = [url for url in requests if not url.startswith((f"{address}/", "blob:", "data:", "file:"))]
    assert not strangers
    assert not complaints
