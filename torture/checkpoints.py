"""Hostile checkpoints against every command that takes a model: none may have an effect, each gets one sentence.

python -m torture.checkpoints
"""

from __future__ import annotations

import http.server
import io
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import soundfile

from torture import hostile, models, sounds

COMMANDS = ("predict", "embed", "explain", "val", "export", "serve", "listen", "train", "resume", "crossval")
LEARNING = ("train", "crossval")


def main() -> None:
    print(json.dumps(run(), indent=2))


def run(commands: tuple[str, ...] = COMMANDS, only: tuple[str, ...] = ()) -> dict[str, Any]:
    """Try all files (or `only` some techniques) against `commands`.

    Returns:
        Counts, and what went wrong: an effect, a traceback, an exit code of 0, or no sentence.
    """
    started, problems, tried = time.monotonic(), [], 0
    with (
        tempfile.TemporaryDirectory(prefix="soundsight-torture-") as name,
        _listening() as server,
        ExitStack() as stack,
    ):
        place = Path(name)
        before = os.getcwd()
        stack.callback(os.chdir, before)
        os.chdir(place)  # crossval writes below the folder that it is called in
        bench = _Bench(place)
        marker = place / "marker"
        crafted = place / "crafted"
        crafted.mkdir()
        found = [(n, p) for n, p in hostile.files(crafted, marker, server.port) if not only or n in only]
        for technique, path in found:
            for command in commands:
                tried += 1
                problem = bench.try_one(command, path)
                if problem == "it was accepted" and command in LEARNING and technique in hostile.ONLY_EARS:
                    problem = ""  # a training takes the weights only
                if marker.exists():
                    problem = "it made its marker"
                    marker.unlink() if marker.is_file() else marker.rmdir()
                if server.requests:
                    problem = f"it called out: {server.requests.pop()}"
                    server.requests.clear()
                if problem:
                    problems.append(f"{technique}, {command}: {problem}")
        bench.check_good(problems)
    return {
        "files": len(found),
        "commands": len(commands),
        "cases": tried,
        "problems": problems,
        "seconds": round(time.monotonic() - started),
    }


def ended(words: list[str]) -> tuple[int, str]:
    """Run a command in this process: its exit code, and what it said on standard error."""
    from soundsight.cli import main as soundsight
    from soundsight.inference import live

    out, err = io.TextIOWrapper(io.BytesIO()), io.StringIO()
    microphone = live.Microphone
    live.Microphone = _NoMicrophone  # type: ignore[assignment,misc]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = soundsight(words)
    finally:
        live.Microphone = microphone  # type: ignore[misc]
    return code, err.getvalue()


class _Bench:
    """Everything a command needs beside its model."""

    def __init__(self, place: Path) -> None:
        from soundsight.config import DatasetConfig, SplitConfig
        from soundsight.datasets.prepare import prepare

        self.place = place
        for label in models.NAMES:
            (place / "sounds" / label).mkdir(parents=True)
            for index in range(4):
                file = place / "sounds" / label / f"{index}.wav"
                soundfile.write(file, sounds.noise(4000, seed=index), sounds.RATE)
        self.clip = str(place / "sounds" / models.NAMES[0] / "0.wav")
        split = SplitConfig(strategy="random", fractions=(0.5, 0.25, 0.25))
        config = DatasetConfig(
            kind="folder", root=str(place / "sounds"), cache=str(place / "cache"), data=str(place / "data"), split=split
        )
        prepare(config, models.EARS, workers=1)
        self.preprocessing = [
            f"{k}={getattr(models.EARS, k)}" for k in ("sample_rate", "clip_seconds", "image_size", "n_fft")
        ]

    def words(self, command: str, model: Path) -> list[str]:
        """A command line."""
        quick = ["epochs=1", "batch=4", "workers=0", "device=cpu", "imgsz=32", "plots=false", "verbose=false"]
        place = self.place
        return {
            "predict": ["predict", str(model), self.clip],
            "embed": ["embed", str(model), self.clip, "--out", str(place / "vectors.parquet")],
            "explain": ["explain", str(model), self.clip, "--out", str(place / "reasons.png")],
            "val": ["val", str(model), "--data", str(place / "data"), "--out", str(place / "val")],
            "export": ["export", str(model), "--format", "torchscript", "--out", str(place / "x.torchscript")],
            "serve": ["serve", str(model), "--port", "0"],
            "listen": ["listen", str(model)],
            "train": ["train", f"model={model}", f"data={place / 'data'}", f"project={place / 'runs'}", *quick],
            "resume": ["train", f"resume={model}", f"data={place / 'data'}", f"project={place / 'runs'}", *quick],
            "crossval": ["crossval", str(place / "sounds"), f"cache={place / 'cv'}", f"model={model}", "--name",
                         model.stem, "--groups", "2", "--workers", "1", "epochs=1", "batch=4", "device=cpu",
                         *self.preprocessing],
        }[command]  # fmt: skip

    def try_one(self, command: str, model: Path) -> str:
        """Run a command in this process; what is wrong with how it ended, or nothing."""
        try:
            code, said = ended(self.words(command, model))
        except BaseException as error:  # noqa: BLE001  (whatever escapes is what we look for)
            return f"{type(error).__name__}: {str(error)[:200]}"
        lines = [line for line in said.splitlines() if line.startswith("soundsight: ")]
        if code == 0:
            return "it was accepted"
        if "Traceback" in said or not lines or str(model) not in lines[-1]:
            return f"no sentence: {said[-200:]}"
        return ""

    def check_good(self, problems: list[str]) -> None:
        """A good model must still pass, or refusing is no feat."""
        good = models.make_checkpoint(self.place / "good.pt")
        for command in ("predict", "val", "export", "train"):
            problem = self.try_one(command, good)
            if problem != "it was accepted":
                problems.append(f"a good model, {command}: {problem}")


class _NoMicrophone:
    """Stands for a sound input on machines that have none: the model is loaded before it is read."""

    def __init__(self, chosen: object) -> None:
        pass

    def __enter__(self) -> _NoMicrophone:
        raise SystemExit("the microphone was opened")

    def __exit__(self, *_: object) -> None:
        pass


class _Server:
    def __init__(self, port: int) -> None:
        self.port = port
        self.requests: list[str] = []


@contextmanager
def _listening() -> Iterator[_Server]:
    """A web server on this machine that remembers who asked."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.requests.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state = _Server(server.server_address[1])
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    main()
