"""Put the measured figures into docs/performance.md.

    python -m benchmarks.tables

A table stands between `<!-- NAME -->` and `<!-- /NAME -->` and comes from benchmarks/results/; everything
else in the page is left as it is. Tables without results are left as they are, too.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from benchmarks import machine

PAGE = machine.ROOT / "docs" / "performance.md"
WAYS = {
    "soundsight": "**soundsight**: what `prepare` does for a clip",
    "floor": "floor: decode, resample, PNG by our encoder",
    "floor (OpenCV)": "floor with OpenCV's PNG",
    "librosa": "librosa, same image",
    "torchaudio": "torchaudio, same image",
    "specshow": "librosa, `specshow`, `savefig`",
    "seed": "seed notebook: NumPy STFT, matplotlib, JPEG",
    "seed (cropped)": "the same with margins cropped",
}


def main() -> None:
    """Rewrite the tables for which there are results."""
    page = PAGE.read_text(encoding="utf-8")
    for name, (source, table) in TABLES.items():
        path = machine.RESULTS / f"{source}.json"
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if not path.is_file() or begin not in page:
            print(f"{name}: left as it is")
            continue
        before, rest = page.split(begin, 1)
        after = rest.split(end, 1)[1]
        text = table(json.loads(path.read_text(encoding="utf-8")))
        page = f"{before}{begin}\n{text}\n{end}{after}"
        print(f"{name}: written")
    PAGE.write_text(page, encoding="utf-8")


def render_table(result: dict[str, Any]) -> str:
    """Time a clip of every contender."""
    lines = [where(result), ""]
    for part in result["sets"]:
        lines += [
            f"{part['name']}, {part['clips']} clips of 5 s, median of {result['repetitions']} turns:",
            "",
            "| | ms a clip | × ours (range) | kB an image | start to first image, s |",
            "|---|---:|---:|---:|---:|",
        ]
        for name, figure in part["contenders"].items():
            low, high = figure["ratio_range"]
            spread = "" if name == "soundsight" else f" ({low:.2f}–{high:.2f})"
            lines.append(
                f"| {WAYS[name]} | {figure['cpu_ms']:.2f} | {figure['ratio']:.2f}{spread} "
                f"| {figure['kilobytes']:.0f} | {figure['first_cpu_s']:.2f} |"
            )
        lines += [f"| {WAYS[name]} | – | did not import: {why} | | |" for name, why in part["not_run"].items()]
        pixels = part["pixels"]
        lines += ["", aims(part["contenders"])]
        lines += [
            "",
            f"Pixels that differ from librosa's: {pixels['differing_per_million']:.1f} in a million, "
            f"by {pixels['largest_difference']} of 255 at most.",
            "",
        ]
    return "\n".join(lines).rstrip()


def aims(figures: dict[str, Any]) -> str:
    """Which aims are met."""
    seed, librosa = figures["seed"]["ratio"], figures["librosa"]["ratio"]
    floors = [1 / figures[name]["ratio"] for name in ("floor", "floor (OpenCV)")]
    said = [
        f"{seed:.1f} times as fast as the seed ({verdict(seed >= 20)})",
        f"{librosa:.1f} times as fast as librosa ({verdict(librosa >= 3)})",
        f"{floors[0]:.1f} times the floor ({verdict(floors[0] <= 3)})",
        f"{floors[1]:.1f} times the floor with OpenCV's PNG ({verdict(floors[1] <= 3)})",
    ]
    return f"Ours: {', '.join(said)}."


def verdict(met: bool) -> str:
    """Whether an aim is met."""
    return "met" if met else "**missed**"


def stages_table(result: dict[str, Any]) -> str:
    """Where our time goes."""
    names = list(result["sets"][0]["stages"])
    names = [n for n in names if not n.startswith("render: ") and n != "all"]
    parts = [n for n in result["sets"][0]["stages"] if n.startswith("render: ")]
    at = names.index("render") + 1
    order = [*names[:at], *parts, *names[at:], "all"]
    lines = ["| ms a clip | " + " | ".join(part["name"] for part in result["sets"]) + " |"]
    lines.append("|---|" + "---:|" * len(result["sets"]))
    for name in order:
        label = f"&nbsp;&nbsp;{name.removeprefix('render: ')}" if name in parts else name
        lines.append(f"| {label} | " + " | ".join(f"{part['stages'][name]:.2f}" for part in result["sets"]) + " |")
    return "\n".join(lines)


def prepare_table(result: dict[str, Any]) -> str:
    """Start-up, cores, growth."""
    start, cores, growth = result["startup"], result["cores"], result["growth"]
    lines = [
        where(result),
        "",
        "| | |",
        "|---|---:|",
        f"| command to first image, 1 worker | {start['workers_1_s']:.2f} s |",
        f"| command to first image, 2 workers | {start['workers_2_s']:.2f} s |",
        f"| {cores['clips']:,} clips, 1 worker | {cores['workers_1_s']:.1f} s, "
        f"{cores['workers_1_clips_per_s']} clips/s |",
        f"| {cores['clips']:,} clips, 2 workers | {cores['workers_2_s']:.1f} s, "
        f"{cores['workers_2_clips_per_s']} clips/s |",
        f"| two workers beside one | {cores['speedup']:.2f} × |",
        *(
            [f"| limit: two commands of one worker at the same time | {cores['limit']:.2f} × |"]
            if "limit" in cores
            else []
        ),
        "",
        "| clips | rendered in, s | left alone in, s | left alone a second | main process, MiB | worker, MiB |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {step['clips']:,} | {step['draw_s']:.2f} | {step['skip_s']:.2f} | {step['skipped_per_s']:,} "
        f"| {step['main_mib']} | {step['worker_mib']} |"
        for step in growth["steps"]
    ]
    lines.append("")
    what = {"draw_s": "Drawing takes", "skip_s": "Leaving alone takes", "main_mib": "The main process holds"}
    for key, fit in growth["fits"].items():
        unit = "MiB" if key == "main_mib" else "s"
        lines.append(
            f"- {what[key]} {fit['offset']:.2f} {unit} + {fit['per_1000_clips']:.3f} {unit} per 1,000 clips, fitted "
            f"to all but the last; the last is {fit['ratio_last']:.2f} × what that line predicts."
        )
    return "\n".join(lines)


def where(result: dict[str, Any]) -> str:
    """The machine in one line."""
    facts = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    return (
        f"{facts['processor']}, {facts['cores']} cores, {facts['system']}, Python {facts['python']}, {versions}, "
        f"IPP in OpenCV: {facts['intel_ipp_in_opencv']}; load average before the run "
        f"{facts['load_average_before']}, niceness {facts.get('niceness', 'not recorded')}; {facts['date']}."
    )


TABLES: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "render": ("render", render_table),
    "stages": ("render", stages_table),
    "prepare": ("prepare", prepare_table),
}


if __name__ == "__main__":
    main()
