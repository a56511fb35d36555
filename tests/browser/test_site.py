"""The page without a server, in a real Chromium that can reach no other host: files, microphone, no connection."""

from __future__ import annotations

import os
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from browser.conftest import FLAGS, PROGRAM
from soundsight.cli import main
from soundsight.errors import ConfigError
from soundsight.inference import load
from soundsight.serve.site import RUNTIME, check_site, runtime_files
from soundsight.synthesis import dataset as demo

pytest.importorskip("playwright", reason="the package playwright is not installed")
pytest.importorskip("onnxruntime", reason="the extra soundsight[export] is not installed")


class Quiet(SimpleHTTPRequestHandler):
    extensions_map = {**SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript", ".wasm": "application/wasm"}

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def runtime() -> str:
    """The unpacked npm package onnxruntime-web."""
    folder = os.environ.get("ONNXRUNTIME_WEB", "")
    if not all((Path(folder) / "dist" / name).is_file() for name in RUNTIME):
        pytest.skip("ONNXRUNTIME_WEB names no unpacked npm package onnxruntime-web")
    return folder


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sounds one after the other, silence, and half a second of another."""
    path = tmp_path_factory.mktemp("sounds") / "several sounds.wav"
    parts = [demo.synthesise(name, seed=4, seconds=1.0) for name in ("siren", "siren", "rain", "crickets")]
    soundfile.write(path, np.concatenate([*parts, np.zeros(16000), parts[2][:9000]]), 16000, subtype="PCM_16")
    return path


def test_a_page_without_a_server(tiny_model: Path, runtime: str, recording: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "site"
    assert main(["export", str(tiny_model), "--format", "page", "--out", str(out), "--runtime", runtime]) == 0
    expected = load(tiny_model, device="cpu")(recording).predictions
    with serving(out) as server, browser(tmp_path) as page:
        requests: list[str] = []
        complaints: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
        page.goto(f"{server}/index.html")
        page.wait_for_selector("html[data-ready]")
        page.evaluate("navigator.serviceWorker.ready.then(() => 0)")

        compare(page, recording, expected)
        with page.expect_download() as saved:
            page.click("#save")
        lines = Path(saved.value.path()).read_text(encoding="utf-8").splitlines()
        assert lines[0] == "recording,start,end,label,probability,rank" and len(lines) > 2
        assert [line.split(",")[0] for line in lines[1:]] == [recording.name] * (len(lines) - 1)
        screenshot(page, "file")

        bad = tmp_path / "bad.wav"
        bad.write_bytes(b"no sound")
        page.set_input_files("#file", str(bad))
        page.wait_for_selector("#error:not([hidden])")
        assert "bad.wav is no sound that this browser can decode" in page.text_content("#error")

        page.click("#record")
        page.wait_for_selector("#recording:has-text('microphone')")
        for _ in range(600):
            if page.evaluate("window.soundsight.segments.length") >= 3:
                break
            page.wait_for_timeout(200)
        page.click("#record")
        assert page.text_content("#record-text") == "Microphone"
        heard = page.evaluate("window.soundsight.segments.map((s) => [s.start, s.end, s.labels[0]])")
        assert [(start, end) for start, end, _ in heard[:3]] == [(0, 1), (1, 2), (2, 3)]
        assert any(label != "silence" for _, _, label in heard)
        screenshot(page, "microphone")

        page.context.set_offline(True)
        page.reload()
        page.wait_for_selector("html[data-ready]")
        compare(page, recording, expected)
        assert not [url for url in requests if not url.startswith((server, "blob:", "data:"))]
        assert not [text for text in complaints if "decode" not in text]


def compare(page: Any, recording: Path, expected: Any) -> None:
    """The page gives for a file what `predict` does."""
    page.evaluate("delete document.documentElement.dataset.done")
    page.set_input_files("#file", str(recording))
    page.wait_for_selector(f"html[data-done='{recording.name}']")
    found = page.evaluate(
        "window.soundsight.segments.map(({ start, end, row, labels }) => ({ start, end, row, labels }))"
    )
    assert [each["labels"] for each in found] == [[right.label] for right in expected]
    assert np.allclose([each["start"] for each in found], [right.start_seconds for right in expected], atol=1e-4)
    assert np.allclose([each["end"] for each in found], [right.end_seconds for right in expected], atol=1e-4)
    assert np.allclose([each["row"] for each in found], [right.probabilities for right in expected], atol=1e-3)


def screenshot(page: Any, name: str) -> None:
    if folder := os.environ.get("SOUNDSIGHT_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)


class serving:
    """A static host of a folder, at localhost."""

    def __init__(self, folder: Path) -> None:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self) -> str:
        return f"http://localhost:{self.server.server_port}"

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


class browser:
    """Chromium that resolves no name but localhost, with a microphone that plays rain."""

    def __init__(self, folder: Path) -> None:
        from playwright.sync_api import sync_playwright

        sound = folder / "rain.wav"
        soundfile.write(sound, demo.synthesise("rain", seed=2, seconds=5.0), 16000)
        more = [
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost", "--use-fake-device-for-media-stream",
            "--use-fake-ui-for-media-stream", f"--use-file-for-fake-audio-capture={sound}",
        ]  # fmt: skip
        self.playwright = sync_playwright().start()
        self.program = self.playwright.chromium.launch(executable_path=PROGRAM, args=[*FLAGS, *more])

    def __enter__(self) -> Any:
        page = self.program.new_context(permissions=["microphone"]).new_page()
        page.set_default_timeout(120_000)
        return page

    def __exit__(self, *_: object) -> None:
        self.program.close()
        self.playwright.stop()


def test_what_is_missing_or_in_the_way(tiny_model: Path, tmp_path: Path, capsys) -> None:
    command = ["export", str(tiny_model), "--format", "page", "--out", str(tmp_path / "site")]
    for words, message in (
        ([], "format=page needs a runtime: name the unpacked npm package onnxruntime-web with --runtime FOLDER"),
        (["--runtime", str(tmp_path)], "holds no dist/ort.wasm.min.mjs: name the unpacked npm package"),
    ):
        assert main([*command, *words]) == 2 and message in capsys.readouterr().err
    assert main(["export", str(tiny_model), "--runtime", str(tmp_path)]) == 2
    assert "has no effect on format=onnx" in capsys.readouterr().err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is there already and no page of Soundsight"):
        check_site(tmp_path / "mine", overwrite=False)
    with pytest.raises(ConfigError):
        runtime_files(tmp_path)
