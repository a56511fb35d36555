"""Coverage-guided fuzzing of reading and cutting recordings, with atheris (libFuzzer for Python).

    python -m torture.fuzz --seconds 300

The feedback is the coverage of Soundsight's own modules, `audio` and `predict.windows`; libsndfile itself is not
instrumented, so its branches are found by chance only. Inputs are bytes of a file; the first byte chooses the window.
An exception other than `AudioError`, samples that are no numbers, or windows with gaps end the run.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from torture import models, sounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--child", metavar="CORPUS", help=argparse.SUPPRESS)
    parser.add_argument("--finds", default=tempfile.gettempdir(), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        _fuzz(arguments.child, arguments.seconds, arguments.finds)
    else:
        print(json.dumps(run(arguments.seconds), indent=2))


def run(seconds: int) -> dict[str, Any]:
    """Fuzz for so long, starting from one good recording of each kind."""
    try:
        import atheris  # noqa: F401
    except ImportError:
        return {"cases": 0, "left_out": "atheris is not installed", "problems": []}
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="soundsight-torture-") as name:
        corpus = Path(name, "corpus")
        corpus.mkdir()
        for number, (ending, data) in enumerate(sounds.whole().items()):
            (corpus / ending).write_bytes(bytes([number]) + data)
        command = [sys.executable, "-m", "torture.fuzz", "--child", str(corpus), "--seconds", str(seconds)]
        done = subprocess.run(
            [*command, "--finds", name], capture_output=True, text=True, errors="replace", check=False
        )
        cases = re.findall(r"^#(\d+)", done.stderr, re.MULTILINE)
        covered = re.findall(r"cov: (\d+)", done.stderr)
        problems = [] if done.returncode == 0 else [done.stderr[-1500:]]
        kept = len(list(corpus.iterdir()))
    return {
        "cases": int(cases[-1]) if cases else 0,
        "edges_at_start_and_end": [int(covered[0]), int(covered[-1])] if covered else [],
        "inputs_kept": kept,
        "problems": problems,
        "seconds": round(time.monotonic() - started),
    }


def _fuzz(corpus: str, seconds: int, finds: str) -> None:
    import atheris

    for name in [name for name in sys.modules if name.startswith("soundsight")]:
        del sys.modules[name]  # only what is imported from now on gives feedback
    with atheris.instrument_imports(include=["soundsight.audio", "soundsight.predict.windows"]):
        from soundsight import audio
        from soundsight.predict import windows
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

    options = [f"-max_total_time={seconds}", "-max_len=16384", "-rss_limit_mb=4096", "-timeout=60", "-seed=1"]
    atheris.Setup([sys.argv[0], corpus, *options, f"-artifact_prefix={finds}/"], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
