"""SIGTERM, Ctrl-C and SIGKILL to the commands themselves: they end within seconds, with all that they started."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from torture import kills, models
from torture.processes import all_gone, survivors

SECONDS = 10.0  # within which all must be gone


def interrupt(place: Path, count: int, seed: int) -> dict[str, Any]:
    """Send each signal to each long command, `count` times, at a random moment of its first seconds."""
    from soundsight.datasets.prepare import prepare

    draw = random.Random(seed)
    kills.write_clips(place / "sounds", 400)
    config = kills.config_of(place)
    kills.write_clips(place / "few", 9)
    few = kills.config_of(place / "few-data")
    prepare(
        kills.DatasetConfig(root=str(place / "few"), cache=few.cache, data=few.data, split=few.split),
        models.EARS,
        workers=1,
    )
    model = str(models.make_checkpoint(place / "model.pt"))
    preprocessing = [f"{k}={getattr(models.EARS, k)}" for k in ("sample_rate", "clip_seconds", "image_size", "n_fft")]
    quick = [f"{key}={value}" for key, value in kills.QUICK.items()]
    commands = {
        "prepare": ["prepare", f"root={config.root}", f"cache={config.cache}", f"data={config.data}", *preprocessing,
                    "--workers", "2"],
        "predict": ["predict", model, str(place / "sounds" / "audio"), "--out", str(place / "answers.csv")],
        "train": ["train", f"data={few.data}", "epochs=1000", f"project={place / 'runs'}", *quick, "imgsz=32"],
        "crossval": ["crossval", f"root={place / 'few'}", f"cache={few.cache}", *preprocessing, "epochs=300",
                     "--name", "k",
                     *[word for word in quick if "workers" not in word]],
        "serve": ["serve", model, "--port", "0"],
    }  # fmt: skip
    problems, slowest, cases = [], 0.0, 0
    for number in range(count):
        for name, words in commands.items():
            for sent in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
                cases += 1
                took, problem = _one(words, sent, draw.uniform(0.5, 12), place)
                slowest = max(slowest, took)
                if problem:
                    problems.append(f"{name}, {sent.name}, round {number}: {problem}")
    return {"cases": cases, "slowest_end_s": round(slowest, 2), "problems": problems}


def _one(words: list[str], sent: signal.Signals, after: float, place: Path) -> tuple[float, str]:
    command = [sys.executable, "-m", "soundsight", *words]
    drafts = set(place.glob(".tmp-*"))
    with open(place / "said", "w+", encoding="utf-8") as said:
        process = subprocess.Popen(command, cwd=place, stdout=subprocess.DEVNULL, stderr=said, start_new_session=True)
        time.sleep(after)
        started = time.monotonic()
        if sent == signal.SIGINT:
            os.killpg(process.pid, sent)  # as a terminal does
        else:
            process.send_signal(sent)
        with suppress(subprocess.TimeoutExpired):
            process.wait(SECONDS)
        gone = all_gone(process.pid, seconds=SECONDS)
        took = time.monotonic() - started
        left = survivors(process.pid)
        if left:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        said.seek(0)
        text = said.read()
    if not gone:
        return took, f"{len(left)} processes are left after {SECONDS:g} s: {', '.join(left)}"
    if sent != signal.SIGKILL and (left := set(place.glob(".tmp-*")) - drafts):
        return took, f"a draft is left: {left}"
    if sent != signal.SIGKILL and "Traceback" in text:
        return took, f"a traceback: {text[-300:]}"
    return took, ""
