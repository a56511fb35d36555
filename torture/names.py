"""File names that programs forget, and things that are no files, through `prepare` and `predict`."""

from __future__ import annotations

import csv
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from soundsight.files import printable
from torture import models, sounds
from torture.recordings import SETTINGS, _command


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="soundsight-torture-") as place:
        print(json.dumps(run(Path(place), str(models.make_onnx(Path(place)))), indent=2))


def fill(folder: Path) -> tuple[set[str], set[str]]:
    """Make a class folder: names of good recordings, and of things that only look like some."""
    folder.mkdir(parents=True)
    good, bad = set(), set()
    for number, name in enumerate(sounds.ODD_NAMES):
        path = os.path.join(os.fsencode(folder), name)
        with open(path, "wb") as file:
            file.write(sounds.encode(sounds.noise(4000, seed=number)))
        good.add(os.fsdecode(name))
    if os.name == "posix":
        os.mkfifo(folder / "fifo.wav")
        os.symlink("nowhere.wav", folder / "dangling.wav")
        os.symlink("loop.wav", folder / "loop.wav")
        os.symlink("loop-b.flac", folder / "loop-a.flac")
        os.symlink("loop-a.flac", folder / "loop-b.flac")
        os.symlink("..", folder / "above")
        os.symlink("/dev/zero", folder / "endless.wav")
        bad |= {"fifo.wav", "dangling.wav", "loop.wav", "loop-a.flac", "loop-b.flac", "endless.wav"}
    (folder / "folder.wav").mkdir()
    bad.add("folder.wav")
    return good - {name for name in good if name.startswith(".")}, bad


def run(place: Path, model: str) -> dict[str, Any]:
    """Both commands on such a folder: what was predicted, and what went wrong."""
    root = place / "odd"
    good, bad = fill(root / "bark")
    other = root / "meow"
    other.mkdir()
    (other / "plain.wav").write_bytes(sounds.encode(sounds.noise(4000)))
    data = place / "odd-data"
    words = [str(root), f"cache={place / 'odd-cache'}", f"data={data}", *SETTINGS, "--workers", "1"]
    code, _, said, problems = _command("prepare", *words)
    if code != 1:
        problems.append(f"prepare exits with {code}: {said[-300:]}")
    rows = _rows(data / "manifest.csv", "file")
    failed = _rows(data / "failures.csv", "file")
    problems += [f"prepare lost {name!r}" for name in good if f"bark/{printable(name)}" not in rows]
    problems += [f"prepare says nothing of {name!r}" for name in bad if f"bark/{name}" not in failed]
    out = place / "odd.csv"
    code, _, told, more = _command("predict", model, str(root), "--out", str(out), "--threads", "1")
    problems += more
    if code != 1:
        problems.append(f"predict exits with {code}: {told[-300:]}")
    answered = _rows(out, "recording")
    problems += [f"predict lost {name!r}" for name in good if f"{root}/bark/{printable(name)}" not in answered]
    problems += [f"predict says nothing of {name!r}" for name in bad if f"/{name}" not in told]
    problems += [
        f"a control character is printed: {line!r}" for line in (said + told).splitlines() if not line.isprintable()
    ]
    return {"good": len(good), "bad": len(bad), "problems": problems}


def _rows(path: Path, column: str) -> set[str]:
    if not path.is_file():
        return set()
    with open(path, encoding="utf-8", newline="") as file:
        return {row[column] for row in csv.DictReader(file)}


if __name__ == "__main__":
    main()
