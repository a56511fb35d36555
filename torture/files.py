"""What commands do to files of others: outputs that name an input or somebody's work, links and pipes in their way."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from soundsight import reports
from soundsight.cli.outputs import EXPLAIN, GALLERY, TIMELINE
from soundsight.inference.formats.base import COLUMNS
from torture import models, sounds
from torture.recordings import SETTINGS, _command


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="soundsight-torture-") as place:
        print(json.dumps(run(Path(place)), indent=2))


def run(place: Path) -> dict[str, Any]:
    """All cases; what each of them lost or said wrongly is a problem."""
    former = Path.cwd()
    os.chdir(place)
    try:
        return _run(place)
    finally:
        os.chdir(former)


def _run(place: Path) -> dict[str, Any]:
    onnx = models.make_onnx(place).rename("model.onnx")
    Path("torture.pt").rename("model.pt")
    for label in ("bark", "meow"):
        for number in range(4):
            path = Path("sounds", label, f"{label}{number}.wav")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(sounds.encode(sounds.noise(4000, seed=number + len(label))))
    Path("list").write_text("sounds/bark/bark0.wav\n")
    for name in (
        "mine.csv",
        "mine.png",
        "mine.html",
        "mine.parquet",
        "mine.jsonl",
        "mine.txt",
        "mine.onnx",
        "mine.svg",
    ):
        Path(name).write_text("recording,label\nmine\n")
    Path("mine-too.csv").write_text(",".join([*COLUMNS, "checked by"]) + "\n")
    clips = [("bark", sounds.noise(4000, seed=1)[:, 0])]
    for creator in ("Soundsight", EXPLAIN, TIMELINE, GALLERY):
        reports.plot_gallery(clips, models.EARS, f"mine-{creator.split()[-1]}.png", creator=creator)
    models.make_checkpoint(place / "mine.pt")
    before = _content(place)
    problems: list[str] = []
    cases = 0
    for words in outputs(str(onnx)):
        cases += 1
        code, _, said, wrong = _command(*words)
        problems += wrong
        if code != 2:
            problems.append(f"{' '.join(words)}: {code}, {said[-200:]}")
        for name in [name for name, data in before.items() if _content(place).get(name) != data]:
            problems.append(f"{' '.join(words)}: {name} is lost")
            Path(name).write_bytes(before[name])
    again = list(repeated(str(onnx)))
    for words in [words for words in again for _ in range(2)]:
        code, _, said, wrong = _command(*words)
        problems += wrong if not code else [f"{' '.join(words)}, again: {code}, {said[-200:]}"]
    return {"outputs": cases, "repeated": len(again), "problems": problems}


def outputs(onnx: str) -> Iterator[list[str]]:
    """Commands that name as their output what would be lost."""
    sound, data = "sounds/bark/bark0.wav", ["sounds", *SETTINGS]
    of = {
        "predict": ["predict", onnx, sound, "--out"],
        "predict list": ["predict", onnx, "@list", "--out"],
        "audacity": ["predict", onnx, sound, "--format", "audacity", "--out"],
        "timeline": ["predict", onnx, sound, "--timeline"],
        "embed": ["embed", "model.pt", sound, "--out"],
        "explain": ["explain", "model.pt", sound, "--out"],
        "export": ["export", "model.pt", "--out"],
        "inspect": ["inspect", *data, "--page"],
        "gallery": ["prepare", *data, "--gallery"],
    }
    mine = ("csv", "png", "html", "parquet", "jsonl", "txt", "onnx", "svg")
    for name, words in of.items():
        for victim in (*(f"mine.{kind}" for kind in mine), sound, "model.pt", "model.onnx", "list"):
            if (name, victim) != ("export", "model.onnx"):  # which it made
                yield [*words, victim]
        figures = {"explain": "explain", "timeline": "predict", "gallery": "prepare"}
        for maker in {"Soundsight", *figures.values()} - {figures.get(name, "")}:
            yield [*words, f"mine-{maker}.png"]
        yield [*words, "mine.pt" if name == "export" else "mine-too.csv"]
        if name != "export":
            yield [*words, sound, "--overwrite"]


def repeated(onnx: str) -> Iterator[list[str]]:
    """Commands that replace their own outputs without a word."""
    sound = "sounds/bark/bark0.wav"
    for name in ("a.csv", "a.jsonl", "a.parquet", "a.txt"):
        yield ["predict", onnx, sound, "--out", name, "--timeline", "a.png"]
    yield ["embed", "model.pt", sound, "--out", "vectors.parquet"]
    yield ["export", "model.pt", "--out", "again.onnx"]
    for name in ("why.png", "why.svg", "why.pdf"):
        yield ["explain", "model.pt", sound, "--out", name]
    yield ["inspect", "sounds", *SETTINGS, "--page", "page.html"]
    yield ["prepare", "sounds", *SETTINGS, "--gallery", "gallery.png"]


def _content(place: Path) -> dict[str, bytes]:
    """What was there before: inputs and somebody's work."""
    paths = [*place.glob("sounds/*/*"), *place.glob("mine*"), *place.glob("model.*"), place / "list"]
    return {str(path.relative_to(place)): path.read_bytes() for path in paths}


if __name__ == "__main__":
    main()
