"""The page of `soundsight review` in a real Chromium, by keyboard alone."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from soundsight.cli import main
from soundsight.synthesis import dataset as demo

pytest.importorskip("playwright", reason="the package playwright is not installed")
pytest.importorskip("uvicorn", reason="the extra soundsight[web] is not installed")

from .conftest import wait_for
from .test_page import DESK, PHONE, contrast, inked, until

ROWS = [("siren", 0.9), ("rain", 0.8), ("siren", 0.7), ("rain", 0.6), ("siren", 0.5), ("rain", 0.4)]
RATE = 16000


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of six sounds of a second, and predictions of it."""
    folder = tmp_path_factory.mktemp("review")
    sounds = [demo.synthesise(name, seed=4, seconds=1.0) for name, _ in ROWS]
    soundfile.write(folder / "night.wav", np.concatenate(sounds), RATE)
    lines = [f"night.wav,{i},{i + 1},{name},{p},1,0,own" for i, (name, p) in enumerate(ROWS)]
    header = "recording,start,end,label,probability,rank,model,settings"
    (folder / "p.csv").write_text("\n".join([header, *lines]) + "\n")
    return folder


@pytest.fixture
def start(field: Path) -> Iterator:
    """Run `soundsight review` as a user does; gives its address."""
    running = []

    def run(*words: str) -> str:
        command = [sys.executable, "-m", "soundsight", "review", "p.csv", "--port", "0", *words]
        server = subprocess.Popen(command, cwd=field, stdout=subprocess.PIPE, text=True)
        running.append(server)
        line = server.stdout.readline()
        url = line.rsplit(" ", 1)[-1].strip()
        wait_for(url, server)
        return url

    yield run
    for server in running:
        server.send_signal(signal.SIGINT)
        server.wait(30)


@pytest.fixture
def address(start, field: Path) -> str:
    """A review that has just begun."""
    (field / "p.csv.review.json").unlink(missing_ok=True)
    return start("--sample", "best", "--classes", "dog_bark")


def ready(page, number: int) -> None:
    until(page, f"document.querySelector('#item').dataset.number === '{number}'")
    until(page, "!document.querySelector('#span').hidden")


def kept(field: Path) -> list[tuple[float, str, list[str]]]:
    content = json.loads((field / "p.csv.review.json").read_text())
    return [(d["start"], d["verdict"], d["labels"]) for d in content["decisions"]]


def test_a_whole_review_by_keyboard(visit, field, capsys, monkeypatch):
    page = visit(viewport=DESK)
    press, write = page.keyboard.press, page.keyboard.type
    # The best of each class in turn: rain at 1 s, siren at 0 s, rain at 3 s, siren at 2 s, rain at 5 s, siren at 4 s.
    ready(page, 0)
    assert page.inner_text("#label") == "rain?" and page.inner_text("#percent") == "80.0 %"
    assert page.inner_text("#left") == "0 of 6 reviewed · 6 left"
    assert "night.wav, 1.0 to 2.0 s" in page.inner_text("#recording")
    assert inked(page, "#picture") > 100
    until(page, "document.querySelector('#audio').duration > 2.9")
    press("y")
    ready(page, 1)
    assert kept(field) == [(1, "yes", ["rain"])]
    press("n")
    ready(page, 2)
    press("z")  # it was a siren after all
    ready(page, 1)
    assert kept(field) == [(1, "yes", ["rain"])]
    press("y")
    ready(page, 2)
    press("a")
    assert page.evaluate("document.activeElement.id") == "filter"
    write("dog")
    press("Enter")
    ready(page, 3)
    press("a")
    press("Escape")
    assert page.is_hidden("#chooser")
    press("s")
    write("sir")
    press("Enter")
    write("a new owl")
    press("Enter")
    press("Enter")
    ready(page, 4)
    press("u")
    ready(page, 5)
    page.reload()  # another sitting
    page.wait_for_selector("html[data-ready]")
    ready(page, 5)
    assert page.inner_text("#left") == "5 of 6 reviewed · 1 left"
    press("n")
    page.wait_for_selector("#done:not([hidden])")
    assert kept(field) == [
        (1, "yes", ["rain"]), (0, "yes", ["siren"]), (3, "other", ["dog_bark"]), (2, "several", ["siren", "a new owl"]),
        (5, "unsure", []), (4, "no", []),
    ]  # fmt: skip
    assert "yes: 2" in page.inner_text("#verdicts") and "several: 1" in page.inner_text("#verdicts")
    monkeypatch.chdir(field)
    assert main(["review", "p.csv", "--annotations", "labels.csv", "--overwrite"]) == 0
    labels = [line.split(",")[1:] for line in Path("labels.csv").read_text().splitlines()[1:]]
    assert labels == [
        ["0.0", "1.0", "siren"], ["1.0", "2.0", "rain"], ["2.0", "3.0", "a new owl"], ["2.0", "3.0", "siren"],
        ["3.0", "4.0", "dog_bark"], ["4.0", "5.0", "background"],
    ]  # fmt: skip


def test_a_review_goes_on_after_the_program_has_ended(visit, address, start, field):
    page = visit(viewport=DESK)
    ready(page, 0)
    page.keyboard.press("y")
    ready(page, 1)
    busy = subprocess.run(
        [sys.executable, "-m", "soundsight", "review", "p.csv", "--port", "0"],
        cwd=field,
        capture_output=True,
        text=True,
    )
    assert busy.returncode == 2 and "Another `soundsight review` has p.csv.review.json open" in busy.stderr


def test_space_plays_and_stops(visit, address):
    page = visit(viewport=DESK)
    ready(page, 0)
    until(page, "document.querySelector('#audio').readyState >= 2")
    if not page.evaluate("document.querySelector('#audio').paused"):
        page.keyboard.press(" ")
    until(page, "document.querySelector('#audio').paused")
    page.keyboard.press(" ")
    until(page, "document.querySelector('#audio').currentTime > 0")


def test_a_recording_that_cannot_be_read_is_said_and_passed_over(visit, address, field):
    sound = (field / "night.wav").read_bytes()
    try:
        (field / "night.wav").write_bytes(b"no sound at all" * 10)
        page = visit(viewport=DESK)
        page.wait_for_selector("#error:not([hidden])")
        assert "is no recording that can be read" in page.inner_text("#error")
        page.keyboard.press("u")
        until(page, "document.querySelector('#left').textContent.startsWith('1 of 6')")
    finally:
        (field / "night.wav").write_bytes(sound)


@pytest.mark.parametrize("how", [{"viewport": DESK, "color_scheme": "dark"}, {"viewport": DESK}, PHONE])
def test_it_can_be_read_on_every_screen(visit, address, how):
    page = visit(**how)
    ready(page, 0)
    page.keyboard.press("s")
    width = how["viewport"]["width"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for selector in ("#label", "#left", ".keys button", "kbd", "#chooser-text", "#names li[aria-selected=true]"):
        assert contrast(page, selector) >= 4.5, selector


def test_a_phone_needs_no_keyboard(visit, address, field):
    page = visit(**PHONE)
    ready(page, 0)
    page.click("[data-key=s]")
    assert page.is_disabled("#finish") and page.is_visible("#left")
    page.click("#names li:first-child")
    page.click("[data-key=Escape]")
    assert page.is_hidden("#chooser")
    page.click("[data-key=s]")
    for name in ("rain", "siren"):
        page.click(f"#names li:text('{name}')")
    page.click("#finish")
    ready(page, 1)
    assert kept(field) == [(1, "several", ["rain", "siren"])]
    page.click("#item [data-key=z]")
    ready(page, 0)
    assert kept(field) == []
