"""The page in a real Chromium: what people do, and what they see."""

import time

import numpy as np
import pytest
import soundfile

from soundsight.inference import load
from soundsight.synthesis import dataset as demo

pytest.importorskip("playwright", reason="the package playwright is not installed")
pytest.importorskip("uvicorn", reason="the extra soundsight[web] is not installed")

DESK = {"width": 1200, "height": 900}
PHONE = {"viewport": {"width": 390, "height": 800}, "has_touch": True, "is_mobile": True, "device_scale_factor": 3}

ANSWERED = "#result:not([hidden])"


def inked(page, selector: str) -> int:
    """Number of different colours on a canvas."""
    return page.evaluate(
        """(selector) => {
          const canvas = document.querySelector(selector);
          const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
          return new Set(new Uint32Array(data.buffer)).size;
        }""",
        selector,
    )


def until(page, expression: str, seconds: float = 60) -> None:
    """Wait until an expression is true; Playwright's own way needs `eval`, which the page's policy forbids."""
    deadline = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, expression
        time.sleep(0.05)


def test_a_file_is_answered(visit, clip, tiny_model):
    page = visit(viewport=DESK)
    page.set_input_files("#file", clip)
    page.wait_for_selector(ANSWERED)
    answer = load(tiny_model, device="cpu")(clip)
    assert page.inner_text("#label") == answer.label
    shown = "100 %" if answer.probability >= 0.9995 else f"{100 * answer.probability:.1f} %"
    assert page.inner_text("#percent") == shown
    names = [row.inner_text() for row in page.query_selector_all("#bars .name")]
    assert names == [label for label, _ in answer.top()]
    assert inked(page, "#picture") > 100
    assert "clip.wav, 1.0 s" in page.inner_text("#recording")


def test_the_reasons_are_shown_and_hidden(visit, clip):
    page = visit(viewport=DESK)
    page.set_input_files("#file", clip)
    page.wait_for_selector(ANSWERED)
    page.click("#why")
    until(page, "document.querySelector('#caption').textContent.includes('spoke for')")
    assert page.get_attribute("#why", "aria-pressed") == "true" and "Hz" in page.inner_text("#caption")
    page.click("#why")
    assert page.inner_text("#caption") == "" and page.get_attribute("#why", "aria-pressed") == "false"
    page.click("#bars li:nth-child(2) button")
    second = page.inner_text("#bars li:nth-child(2) .name")
    until(page, f"document.querySelector('#caption').textContent.includes('spoke for {second}')")


def test_the_microphone_is_answered(visit):
    page = visit(viewport=DESK)
    page.click("#record")
    until(page, "parseFloat(document.querySelector('#record-text').textContent.slice(6)) >= 3")
    assert page.is_visible("#meter")
    page.click("#record")
    page.wait_for_selector(ANSWERED)
    assert page.inner_text("#recording").startswith("recording-")
    assert 2.5 < page.evaluate("document.querySelector('#audio').duration") < 30
    assert inked(page, "#picture") > 100
    assert "rain" in [row.inner_text() for row in page.query_selector_all("#bars .name")[:2]]


def test_rubbish_gets_a_sentence(visit, tmp_path, clip):
    page = visit(viewport=DESK)
    rubbish = tmp_path / "notes.wav"
    rubbish.write_bytes(b"this is no sound" * 50)
    page.set_input_files("#file", rubbish)
    page.wait_for_selector("#error:not([hidden])")
    assert page.inner_text("#error").startswith("notes.wav is no recording that can be read")
    assert not page.is_visible("#status")
    page.set_input_files("#file", clip)  # and the page goes on
    page.wait_for_selector(ANSWERED)
    assert not page.is_visible("#error")


@pytest.mark.parametrize(
    ("seconds", "rate", "sentence"), [(31, 8000, "31 s long"), (29, 48000, "larger than the 2 MB")]
)
def test_what_is_too_long_or_too_large_gets_a_sentence(visit, tmp_path, seconds, rate, sentence):
    page = visit(viewport=DESK)
    long = tmp_path / "long.wav"
    soundfile.write(long, np.zeros(seconds * rate), rate)
    page.set_input_files("#file", long)
    page.wait_for_selector("#error:not([hidden])")
    assert sentence in page.inner_text("#error")


def test_a_long_recording_has_a_timeline_that_plays_from_where_it_is_pressed(visit, tmp_path):
    page = visit(viewport=DESK)
    path = tmp_path / "two.wav"
    parts = [demo.synthesise(name, seed=4, seconds=4.0) for name in ("siren", "crickets")]
    soundfile.write(path, np.concatenate(parts), 16000)
    page.set_input_files("#file", path)
    page.wait_for_selector(ANSWERED)
    assert len(page.query_selector_all(".track")) >= 2 and page.is_visible("#scope")
    box = page.query_selector("#stage").bounding_box()
    page.mouse.click(box["x"] + 44 + 0.75 * (box["width"] - 44), box["y"] + 40)
    until(page, "document.querySelector('#audio').currentTime > 6")
    page.click("#play")
    assert page.get_attribute("#scope-here", "aria-pressed") == "true"
    until(page, "/^From [567]/.test(document.querySelector('#scope-text').innerText)")
    page.click("#why")
    page.wait_for_selector("#detail:not([hidden])")
    assert inked(page, "#detail") > 50
    page.click("#scope-whole")
    assert page.inner_text("#scope-text").startswith("Mean over")


def test_the_examples_are_answered(visit):
    page = visit(viewport=DESK)
    page.click("#examples button >> nth=0")
    page.wait_for_selector(ANSWERED)
    assert page.inner_text("#label")


def test_a_dropped_file_is_answered(visit, clip):
    page = visit(viewport=DESK)
    data = list(clip.read_bytes())
    page.evaluate(
        """(data) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(data)], "dropped.wav"));
          window.dispatchEvent(new DragEvent("dragenter", { dataTransfer: transfer }));
          if (document.querySelector("#drop").hidden) throw new Error("no sign that it may be dropped");
          window.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, cancelable: true }));
        }""",
        data,
    )
    page.wait_for_selector(ANSWERED)
    assert "dropped.wav" in page.inner_text("#recording") and not page.is_visible("#drop")


def test_a_format_the_server_does_not_know_is_decoded_here(visit, tmp_path, clip):
    page = visit(viewport=DESK)
    strange = tmp_path / "clip.m4a"  # a WAV in disguise: Chromium goes by its bytes
    strange.write_bytes(clip.read_bytes())
    page.set_input_files("#file", strange)
    page.wait_for_selector(ANSWERED)
    assert "clip.m4a" in page.inner_text("#recording")


def test_the_keyboard_suffices(visit, clip):
    page = visit(viewport=DESK)
    page.on("filechooser", lambda chooser: chooser.set_files(clip))
    seen = []
    for _ in range(9):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
    assert {"choose", "record"} <= set(seen) and "A minute of many" in seen
    page.focus("#choose")
    page.keyboard.press("Enter")
    page.wait_for_selector(ANSWERED)
    page.focus("#stage")
    page.keyboard.press("End")
    assert page.get_attribute("#stage", "aria-valuetext") == "1.0 of 1.0"
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert page.get_attribute("#stage", "aria-valuetext") == "0.1 of 1.0"
    page.focus("#why")
    page.keyboard.press("Space")
    page.wait_for_selector("#why[aria-pressed=true]")
    ring = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert ring == "solid"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_colour_schemes_can_be_read(visit, clip, scheme):
    page = visit(viewport=DESK, color_scheme=scheme)
    page.set_input_files("#file", clip)
    page.wait_for_selector(ANSWERED)
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 16, 22)"
    assert dark == (scheme == "dark")
    for selector in ("body", "#label", "#choose", ".eyebrow", ".caption", "#bars .value", "#error"):
        assert contrast(page, selector) >= 4.5, selector


def contrast(page, selector: str) -> float:
    """WCAG contrast of an element's text with what is behind it."""
    ink, ground = page.evaluate(
        """(selector) => {
          let element = document.querySelector(selector);
          const ink = getComputedStyle(element).color;
          const clear = (colour) => /, 0\\)$|transparent/.test(colour);
          while (clear(getComputedStyle(element).backgroundColor)) element = element.parentElement;
          const rgb = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map(Number);
          return [rgb(ink), rgb(getComputedStyle(element).backgroundColor)];
        }""",
        selector,
    )

    def luminance(colour: list[float]) -> float:
        parts = [c / 255 for c in colour]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(ink), luminance(ground)))
    return (high + 0.05) / (low + 0.05)


def test_a_phone_shows_it_all_without_scrolling_sideways(visit, clip):
    page = visit(**PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.set_input_files("#file", clip)
    page.wait_for_selector(ANSWERED)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for selector in ("#choose", "#record", "#play"):
        box = page.query_selector(selector).bounding_box()
        assert box["height"] >= 44 and box["x"] >= 0 and box["x"] + box["width"] <= 390
    assert page.query_selector("#picture").bounding_box()["width"] > 330


def test_the_description_page_opens(visit):
    page = visit()
    page.click("text=JSON service")
    page.wait_for_selector("h1:has-text('The same predictions as JSON')")


def test_the_report_opens_from_disk(visit, tmp_path, tiny_model, tiny_sounds, tiny_data):
    from soundsight.evaluation.val import val
    from soundsight.reports.run_report import report

    folder = tmp_path / "val"
    val(tiny_model, data=tiny_data, split="train", out=folder, device="cpu")
    text = (folder / "predictions.csv").read_text(encoding="utf-8").splitlines()
    header, first = text[0].split(","), text[1].split(",")
    wrong = "rain" if first[header.index("target")] != "rain" else "siren"
    for column, value in {"predicted": wrong, "probability": "0.900000", "rank": "2", "correct": "false"}.items():
        first[header.index(column)] = value
    (folder / "predictions.csv").write_text("\n".join([text[0], ",".join(first), *text[2:]]) + "\n", encoding="utf-8")
    address = report(folder, root=tiny_sounds, device="cpu").as_uri()
    for width in (375, 320):
        page = visit(address, viewport={"width": width, "height": 700})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page = visit(address, viewport=DESK)
    assert inked(page, "#matrix") > 3
    page.click("#classes thead button >> nth=4")
    assert page.get_attribute("#classes thead th:nth-child(5)", "aria-sort") == "descending"
    page.focus("#matrix")
    page.keyboard.press("ArrowDown")
    assert "clips of" in page.inner_text("#cell")
    page.select_option("#order", "confused")
    page.locator("#mistakes canvas").first.scroll_into_view_if_needed()
    until(page, "document.querySelector('#mistakes canvas').width > 300")
    page.click("#mistakes .row button >> nth=0")
    played = page.evaluate(
        """async () => {
          const audio = document.querySelector("#mistakes audio");
          await audio.play();
          return audio.duration;
        }"""
    )
    assert played == pytest.approx(1.0, abs=0.05)


def test_the_damage_of_a_recording_is_shown_beside_what_is_predicted(visit, clip, tmp_path):
    half = tmp_path / "half.wav"
    half.write_bytes(clip.read_bytes()[:20_000])
    page = visit(viewport=DESK)
    page.set_input_files("#file", half)
    page.wait_for_selector(ANSWERED)
    assert page.is_visible("#damage") and "is cut off" in page.inner_text("#damage")
    assert page.inner_text("#label")
    page.set_input_files("#file", clip)
    until(page, "document.querySelector('#recording').textContent.includes('clip.wav')")
    assert not page.is_visible("#damage")
