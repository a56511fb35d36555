"""From file to image: our way beside what users would otherwise run, on one core.

    python -m benchmarks.render            # about ten minutes; writes benchmarks/results/render.json
    python -m benchmarks.render --quick    # about a minute, to see that it works; writes nothing

Protocol: each contender renders the same clips in a fresh process, pinned to one core, one thread a library,
files in the page cache, three clips of warm-up outside of the clock; contenders take turns, and the turns are
repeated. A figure is processor time (user and system) a clip, the median of the repetitions; a ratio is the
median of the repetitions' ratios. Processor time and not wall time, so that other work on the machine matters
little; both are in the results.

Clips: synthesised ones (44.1 kHz, 16 bits, 5 s), and ESC-50 where it is found (dataset/ESC-50 or --esc50).
Its digest is in docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import machine

WARM_UP = 3
TARGETS = {"seed": 20.0, "librosa": 3.0}  # at least so many times our time
FLOOR_TARGET = 3.0  # our time is at most so many times the floor


def main() -> None:
    """Run all, or be one of the measured processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--clips", type=int, default=60, help="of each set")
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--esc50", help="root of ESC-50")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--list", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        paths = [Path(line) for line in Path(arguments.list).read_text(encoding="utf-8").splitlines()]
        print(json.dumps(CHILDREN.get(arguments.child, measure)(arguments.child, paths)))
        return
    if arguments.quick:
        arguments.clips, arguments.repeat = 8, 2
    result: dict[str, Any] = {"machine": machine.describe(), "repetitions": arguments.repeat, "sets": []}
    with tempfile.TemporaryDirectory() as folder:
        for name, paths in clip_sets(Path(folder), arguments):
            result["sets"].append(compare(name, paths, Path(folder), arguments.repeat))
    if not arguments.quick:
        machine.write("render", result)


def clip_sets(folder: Path, arguments: argparse.Namespace) -> list[tuple[str, list[Path]]]:
    """The clips that are rendered, by set."""
    from soundsight import audio
    from soundsight.synthesis import dataset as demo

    each = -(-arguments.clips // len(demo.CLASSES))
    root = demo.write_dataset(folder / "sounds", clips_per_class=max(5, each), takes=1, sample_rate=44100)
    made = thinned(sorted((root / "audio").glob("*.wav")), arguments.clips)
    sets = [("synthesised", made)]
    beside = [machine.ROOT / "dataset" / "ESC-50", machine.ROOT.parent / "shared" / "ESC-50"]
    for esc50 in [Path(arguments.esc50)] if arguments.esc50 else beside:
        if paths := sorted((esc50 / "audio").glob("*.wav")):
            info = audio.probe(paths[0])
            mirror = "" if info.sample_rate == 44100 else ", mirror"
            sets.append((f"ESC-50{mirror}", thinned(paths, arguments.clips)))
            break
    return [
        (f"{name}, {info.sample_rate / 1000:g} kHz, {info.format.split('/')[1]}", paths)
        for name, paths in sets
        for info in [audio.probe(paths[0])]
    ]


def thinned(paths: list[Path], count: int) -> list[Path]:
    """`count` of the paths, evenly spread."""
    return [paths[len(paths) * i // count] for i in range(min(count, len(paths)))]


def compare(name: str, paths: list[Path], folder: Path, repeat: int) -> dict[str, Any]:
    """Measure all contenders on one set of clips, in turn."""
    from benchmarks.baselines import CONTENDERS

    listing = folder / "clips.txt"
    listing.write_text("\n".join(map(str, paths)), encoding="utf-8")
    call = lambda child: machine.run_child(  # noqa: E731
        "benchmarks.render", "--child", child, "--list", str(listing), core=machine.last_core()
    )
    print(f"\n{name}: {len(paths)} clips")
    runs: dict[str, list[dict[str, float]]] = {contender: [] for contender in CONTENDERS}
    failed: dict[str, str] = {}
    for turn in range(repeat):
        for contender in CONTENDERS:
            if contender in failed:
                continue
            run = call(contender)
            if "error" in run:
                failed[contender] = run["error"]
                continue
            runs[contender].append(run)
            print(f"  turn {turn + 1}  {contender:14} {run['cpu_ms']:7.2f} ms", flush=True)
    figures = {contender: summary(some, runs["soundsight"]) for contender, some in runs.items() if some}
    result = {
        "name": name,
        "clips": len(paths),
        "contenders": figures,
        "not_run": failed,
        "pixels": call("pixels"),
        "stages": call("stages"),
    }
    show(result)
    return result


def summary(runs: list[dict[str, float]], ours: list[dict[str, float]]) -> dict[str, Any]:
    """Medians of the repetitions, and the ratio to our time in the same turn."""
    ratios = [run["cpu_ms"] / our["cpu_ms"] for run, our in zip(runs, ours, strict=True)]
    return {
        **{key: round(statistics.median(run[key] for run in runs), 4) for key in runs[0]},
        "ratio": round(statistics.median(ratios), 3),
        "ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
        "cpu_ms_of_each": [round(run["cpu_ms"], 4) for run in runs],
    }


def show(result: dict[str, Any]) -> None:
    """Print the figures and whether the aims are met."""
    figures = result["contenders"]
    for contender, figure in figures.items():
        low, high = figure["ratio_range"]
        print(f"  {contender:14} {figure['cpu_ms']:7.2f} ms  {figure['ratio']:6.2f} x ours ({low:.2f} to {high:.2f})")
    for contender, aim in TARGETS.items():
        ratio = figures[contender]["ratio"]
        print(f"  aim: {contender} at least {aim:g} x ours: {ratio:.1f} {'met' if ratio >= aim else 'MISSED'}")
    times = 1 / figures["floor"]["ratio"]
    print(f"  aim: at most {FLOOR_TARGET:g} x the floor: {times:.2f} {'met' if times <= FLOOR_TARGET else 'MISSED'}")
    print(f"  pixels beside librosa's: {result['pixels']}")
    print("  " + ", ".join(f"{stage} {ms:.2f}" for stage, ms in result["stages"].items()))


# -- inside the measured processes ----------------------------------------------------------------------


def measure(contender: str, paths: list[Path]) -> dict[str, Any]:
    """Render all clips once; milliseconds a clip."""
    from benchmarks.baselines import CONTENDERS
    from soundsight.config import SpectrogramConfig

    with tempfile.TemporaryDirectory() as folder:
        try:
            draw = CONTENDERS[contender](Path(folder), SpectrogramConfig())
        except ImportError as error:
            return {"error": f"{type(error).__name__}: {error}"}
        for path in paths:
            path.read_bytes()
        draw(paths[0]).unlink()
        first = time.process_time()  # since the process began
        for path in paths if contender.startswith("floor") else paths[:WARM_UP]:
            draw(path).unlink()
        cpu, wall, size = time.process_time(), time.perf_counter(), 0
        for path in paths:
            size += draw(path).stat().st_size
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    clips = len(paths)
    return {
        "cpu_ms": 1000 * cpu / clips,
        "wall_ms": 1000 * wall / clips,
        "kilobytes": size / clips / 1000,
        "first_cpu_s": first,
    }


def pixels(_: str, paths: list[Path]) -> dict[str, Any]:
    """How far our images are from librosa's."""
    import numpy as np

    from benchmarks.baselines import librosa_picture
    from soundsight import audio
    from soundsight.config import SpectrogramConfig
    from soundsight.spectrogram import render

    config, largest, differing, number = SpectrogramConfig(), 0, 0, 0
    for path in paths:
        waveform = audio.read(path, sample_rate=config.sample_rate, duration_seconds=config.clip_seconds)
        levels = np.abs(render(waveform, config).astype(int) - librosa_picture(waveform, config))
        largest, differing, number = (
            max(largest, int(levels.max())),
            differing + int((levels > 0).sum()),
            number + levels.size,
        )
    return {"largest_difference": largest, "differing_per_million": round(1e6 * differing / number, 2)}


def stages(_: str, paths: list[Path]) -> dict[str, float]:
    """Where our time goes: milliseconds a clip of each stage, and of the parts of `render`; medians."""
    import numpy as np

    from benchmarks.baselines import CONTENDERS
    from soundsight import audio, spectrogram
    from soundsight.config import SpectrogramConfig
    from soundsight.datasets import images as images

    spent: list[dict[str, float]] = []

    def timed(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter_ns()
            try:
                return function(*args, **kwargs)
            finally:
                spent[-1][stage] = spent[-1].get(stage, 0) + (time.perf_counter_ns() - started) / 1e6

        return call

    audio._open = timed("header", audio._open)
    audio._info = timed("header", audio._info)
    audio.Recording.read = timed("decode and resample", audio.Recording.read)
    images.sha256 = timed("SHA-256", images.sha256)
    images.render = timed("render", images.render)
    images.encode_png = timed("encode PNG", images.encode_png)
    images.write_bytes = timed("write and rename", images.write_bytes)
    spectrogram._packed_rfft = timed("render: FFT", spectrogram._packed_rfft)
    parts = {"einsum": "windows", "square": "squares", "matmul": "mel bands"}
    spectrogram.np = _Proxy(np, **{name: timed(f"render: {part}", getattr(np, name)) for name, part in parts.items()})
    with tempfile.TemporaryDirectory() as folder:
        draw = timed("all", CONTENDERS["soundsight"](Path(folder), SpectrogramConfig()))
        for path in [*paths[:WARM_UP], *paths]:
            spent.append({})
            draw(path).unlink()
    result = {stage: statistics.median(clip[stage] for clip in spent[WARM_UP:]) for stage in spent[-1]}
    parts = sum(ms for stage, ms in result.items() if stage.startswith("render: "))
    result["render: levels and rest"] = result["render"] - parts
    return {stage: round(ms, 3) for stage, ms in result.items()}


class _Proxy:
    """A module with some functions exchanged."""

    def __init__(self, module: Any, **exchanged: Any) -> None:
        self.__dict__.update(exchanged)
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


CHILDREN: dict[str, Callable[[str, list[Path]], dict[str, Any]]] = {"pixels": pixels, "stages": stages}


if __name__ == "__main__":
    main()
