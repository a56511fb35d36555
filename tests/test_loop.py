"""The loop: predict, review the detections, train on what was decided, and predict unheard recordings better."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from soundsight.cli import main

pytest.importorskip("uvicorn", reason="the extra soundsight[web] is not installed")

RATE, SECONDS = 8000, 16
SETTINGS = ["clip_seconds=1", "image_size=64", "sample_rate=8000", "fmax_hz=4000", "n_fft=2048"]
SPLIT = ["split.strategy=group", "split.fractions=[0.75,0.25,0]"]
QUICK = ["model=yolov8n-cls.yaml", "imgsz=64", "batch=8", "nbs=8", "amp=False", "optimizer=AdamW", "lr0=0.002"]
QUICK += ["warmup_epochs=0", "device=cpu", "workers=0", "plots=False", "val=False", "epochs=16"]


def recorded(path: Path, kinds: tuple[str, ...], seed: int) -> list[tuple[Any, ...]]:
    """Write a recording with one of `kinds` in each second: a row of a label table for each."""
    random = np.random.default_rng(seed)
    time = np.arange(RATE) / RATE
    parts, rows = [], []
    for second in range(SECONDS):
        kind = kinds[second % len(kinds)]
        pitch = random.uniform(900, 1100)
        tone = {
            "owl": np.sin(2 * np.pi * (pitch * time + 300 * time**2)),  # rises
            "frog": np.sin(2 * np.pi * pitch * time) * (np.sin(2 * np.pi * 12 * time + random.uniform(0, 6)) > 0),
            "background": 0 * time,
        }[kind]
        parts.append(random.uniform(0.2, 0.5) * tone + 0.01 * random.standard_normal(RATE))
        rows.append((path.as_posix(), second, second + 1, kind if kind == "owl" else "background"))
    path.parent.mkdir(exist_ok=True)
    soundfile.write(path, np.concatenate(parts), RATE)
    return rows


def write_table(path: str, rows: list[tuple[Any, ...]]) -> None:
    with open(path, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("file", "start", "end", "label"), *rows])


def trained(name: str) -> str:
    """A model of all label tables in `labels`."""
    words = [f"data={name}", f"cache=cache-{name}", *SETTINGS, *SPLIT, "--workers", "1"]
    assert main(["prepare", ".", f"table={Path('labels').absolute()}/*.csv", *words]) == 0
    assert main(["train", f"data={name}", "project=runs", f"name={name}", *QUICK]) == 0
    return f"runs/{name}/weights/last.pt"


def predicted(weights: str, folder: str, out: str) -> None:
    words = ["--threshold", "0", "--device", "cpu", "--threads", "1", "--format", "csv", "--out", out]
    assert main(["predict", weights, folder, *words]) == 0


def unheard(weights: str) -> dict[str, float]:
    """Precision, recall and F1 by segment in recordings that no model was trained on."""
    out = f"unheard-{Path(weights).parts[1]}"
    predicted(weights, "unheard", f"{out}.csv")
    assert main(["score", f"{out}.csv", "unheard.csv", "--out", f"{out}.json"]) == 0
    (owl,) = (row for row in json.loads(Path(f"{out}.json").read_text())["per_class"] if row["class"] == "owl")
    return owl


def review(truth: dict[tuple[str, float], str]) -> int:
    """Decide about every detection, as the page does; how many there were."""
    command = [sys.executable, "-m", "soundsight", "review", "field.csv", "--port", "0", "--sample", "uncertain"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().rsplit(" ", 1)[-1].strip()

        def ask(path: str, **decision: Any) -> dict[str, Any]:
            body = json.dumps(decision).encode() if decision else None
            request = urllib.request.Request(f"{url}/api/review{path}", body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=60) as reply:
                return json.loads(reply.read())

        state = ask("")
        while item := state["item"]:
            right = truth[item["recording"], item["start"]] == item["label"]
            state = ask(f"/{item['number']}", verdict="yes" if right else "no")
        server.send_signal(signal.SIGINT)
    return state["total"]


def test_reviewed_detections_make_the_next_model_better(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("labels").mkdir()
    first = [recorded(Path(f"first/{n}.wav"), ("owl", "background"), seed=n) for n in range(4)]
    write_table("labels/first.csv", [row for rows in first for row in rows])
    field = [recorded(Path(f"field/night{n}.wav"), ("frog", "owl", "background"), seed=10 + n) for n in range(6)]
    truth = {(file, start): label for rows in field for file, start, _, label in rows}
    rows = [
        recorded(Path(f"unheard/test{n}.wav"), ("background", "frog", "owl", "frog"), seed=20 + n) for n in range(3)
    ]
    write_table("unheard.csv", [row for part in rows for row in part if row[3] == "owl"])

    weights = trained("before")
    before = unheard(weights)
    predicted(weights, "field", "field.csv")
    count = review(truth)
    assert len(json.loads(Path("field.csv.review.json").read_text())["decisions"]) == count > 20
    assert main(["review", "field.csv", "--annotations", "labels/reviewed.csv"]) == 0
    after = unheard(trained("after"))
    # The first model takes frogs, of which it knows nothing, for owls: there are 12 owls and 24 frogs.
    assert before["segment_precision"] < 0.6 and min(before["segment_recall"], after["segment_recall"]) > 0.7
    assert after["segment_f1"] > before["segment_f1"] + 0.15
