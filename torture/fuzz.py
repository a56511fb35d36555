"""Coverage-guided fuzzing of reading recordings and checkpoints, with atheris (libFuzzer for Python).

    python -m torture.fuzz --seconds 300 --targets recordings checkpoints

The feedback is the coverage of Soundsight's own modules. libsndfile is not instrumented, so its branches are found by
chance only. For `recordings`, inputs are bytes of a file; the first byte chooses the window. An exception other than
`AudioError`, samples that are no numbers, or windows with gaps end the run. For `checkpoints`, inputs are the pickle of
a small checkpoint, which is put into an archive with its weights, or the whole archive. An exception other than
`ModelError`, an attempt to open, run or connect to anything, or a network of other than known layers end the run.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torture import hostile, models, sounds

TARGETS = ("recordings", "checkpoints")
FORBIDDEN = ("open", "os.", "shutil.", "socket.", "subprocess.", "ctypes.", "pickle.", "marshal.", "webbrowser.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--targets", nargs="*", choices=TARGETS, default=TARGETS)
    parser.add_argument("--child", metavar="CORPUS", help=argparse.SUPPRESS)
    parser.add_argument("--finds", default=tempfile.gettempdir(), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        _fuzz(arguments.targets[0], arguments.child, arguments.seconds, arguments.finds)
    else:
        print(json.dumps({target: run(arguments.seconds, target) for target in arguments.targets}, indent=2))


def run(seconds: int, target: str) -> dict[str, Any]:
    """Fuzz for so long, starting from one good recording of each kind, or a good and all hostile checkpoints."""
    try:
        import atheris  # noqa: F401
    except ImportError:
        return {"cases": 0, "left_out": "atheris is not installed", "problems": []}
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="soundsight-torture-") as name:
        corpus = Path(name, "corpus")
        corpus.mkdir()
        for number, (ending, data) in enumerate(_seeds(target, Path(name))):
            (corpus / ending).write_bytes(bytes([number % 256]) + data)
        command = [sys.executable, "-m", "torture.fuzz", "--child", str(corpus), "--seconds", str(seconds)]
        command += ["--targets", target]
        done = subprocess.run(
            [*command, "--finds", name], capture_output=True, text=True, errors="replace", check=False
        )
        cases = re.findall(r"^#(\d+)", done.stderr, re.MULTILINE)
        covered = re.findall(r"cov: (\d+)", done.stderr)
        problems = [] if done.returncode == 0 else [(done.stdout + done.stderr)[-3000:]]
        kept = len(list(corpus.iterdir()))
    return {
        "cases": int(cases[-1]) if cases else 0,
        "edges_at_start_and_end": [int(covered[0]), int(covered[-1])] if covered else [],
        "inputs_kept": kept,
        "problems": problems,
        "seconds": round(time.monotonic() - started),
    }


def _seeds(target: str, place: Path) -> list[tuple[str, bytes]]:
    if target == "recordings":
        return list(sounds.whole().items())
    whole = _small_checkpoint()
    program = zipfile.ZipFile(io.BytesIO(whole)).read("archive/data.pkl")
    seeds = [("good", program), ("archive", whole), ("also good", program)]
    for technique, made in hostile.programs(place / "marker", 9).items():
        seeds += [(technique.replace(" ", "-"), b"\x80\x02" + made + b".")]
    return [(name, data) for name, data in seeds if len(data) < 1 << 17]


def _fuzz(target: str, corpus: str, seconds: int, finds: str) -> None:
    import atheris

    one = {"recordings": _recordings, "checkpoints": _checkpoints}[target](atheris, finds)
    options = [f"-max_total_time={seconds}", f"-max_len={16384 if target == 'recordings' else 1 << 17}"]
    options += ["-rss_limit_mb=4096", "-timeout=300", "-seed=1", f"-artifact_prefix={finds}/"]
    atheris.Setup([sys.argv[0], corpus, *options], one)
    atheris.Fuzz()


def _instrumented(atheris: Any, *modules: str) -> Any:
    for name in [name for name in sys.modules if name.startswith("soundsight")]:
        del sys.modules[name]  # only what is imported from now on gives feedback
    return atheris.instrument_imports(include=list(modules))


def _recordings(atheris: Any, finds: str) -> Callable[[bytes], None]:
    with _instrumented(atheris, "soundsight.audio", "soundsight.inference.segments"):
        from soundsight import audio
        from soundsight.inference import segments as windows
    import numpy as np

    from soundsight.errors import AudioError

    file = Path(finds, "input.wav")
    config = models.EARS

    def one(data: bytes) -> None:
        choice, content = data[:1], data[1:]
        file.write_bytes(content)
        hop = (0.5, 0.25, 0.1, 0.5)[(choice[0] if choice else 0) % 4]
        try:
            info = audio.probe(file)
            heard = audio.read(file, sample_rate=config.sample_rate, duration_seconds=2.0)
            assert np.isfinite(heard).all() and info.frames
        except AudioError:
            pass
        end = 0.0
        try:
            with audio.opened(file, block_seconds=0.1) as (info, blocks):
                for stretch in windows.cut(blocks, info.sample_rate, config, window_seconds=0.5, hop_seconds=hop):
                    (image,), _ = windows.draw(stretch, config)
                    assert image.shape == (32, 32, 3) and stretch.start_seconds <= end + 1e-3 < stretch.end_seconds + 1
                    end = stretch.end_seconds
                    if end > 60:
                        break
        except AudioError:
            pass

    return one


def _is_imported(event: str, given: tuple[Any, ...]) -> bool:
    """Whether an installed library imports a part of itself late; the loader of checkpoints imports nothing."""
    if event in ("open", "os.listdir") and str(given[0]).startswith((sys.prefix, sys.base_prefix)):
        return True
    frame = sys._getframe()
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back  # type: ignore[assignment]
    return frame is not None


def _small_checkpoint() -> bytes:
    """A checkpoint with few weights, as `torch.save` writes it."""
    import torch
    from ultralytics.nn.tasks import ClassificationModel

    plan = {"nc": 2, "backbone": [[-1, 1, "Conv", [4, 3, 2]], [-1, 1, "C2f", [8, True]]]}
    network = ClassificationModel({**plan, "head": [[-1, 1, "Classify", ["nc"]]]}, verbose=False)
    network.names, network.soundsight = {0: "a", 1: "b"}, {"format": 1}
    buffer = io.BytesIO()
    torch.save({"epoch": -1, "model": network.half(), "train_args": {"imgsz": 32}}, buffer)
    return buffer.getvalue()


def _checkpoints(atheris: Any, finds: str) -> Callable[[bytes], None]:
    with _instrumented(atheris, "soundsight.backend.unpickle", "soundsight.backend.architecture"):
        from soundsight.backend import architecture, checkpoint, unpickle  # noqa: F401
    import torch
    import torch._dynamo  # which PyTorch imports late, at some errors

    from soundsight.errors import ModelError

    whole = _small_checkpoint()
    with zipfile.ZipFile(io.BytesIO(whole)) as file:
        parts = {name.partition("/")[2]: file.read(name) for name in file.namelist()}
    program = parts.pop("data.pkl")
    seen: list[str] = []
    watched = [False]

    def callback(event: str, given: tuple[Any, ...]) -> None:
        if watched[0] and event.startswith(FORBIDDEN) and not _is_imported(event, given):
            seen.append(f"{event}{given}"[:200])

    def one(data: bytes) -> None:
        raw = data[:1] == b"\x01"
        content = data[1:] if raw else hostile.archive(data[1:], extra=parts, whole=True)
        watched[0] = True
        try:
            network = checkpoint.checkpoint_model(checkpoint.parse_checkpoint(content, "x.pt"))
            for module in network.modules():
                assert type(module).__module__.startswith(("torch.nn.", "ultralytics.nn.")), type(module)
                assert not any(callable(value) for key, value in vars(module).items() if key != "forward"), module
            network.float()(torch.zeros(1, 3, 32, 32))
        except ModelError as error:
            assert "\n" not in str(error) and len(str(error)) < 500
        except (RuntimeError, ValueError, TypeError, IndexError):
            pass  # of layers that do not fit together, told by `check_answer`
        finally:
            watched[0] = False
        assert not seen, seen

    one(b"\x00" + program)  # all that is imported late
    sys.addaudithook(callback)
    return one


if __name__ == "__main__":
    main()
