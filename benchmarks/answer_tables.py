"""Put the figures of benchmarks.parity and benchmarks.predicting into docs/predict.md.

    python -m benchmarks.answer_tables

A table stands between `<!-- NAME -->` and `<!-- /NAME -->`; without results it is left as it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from benchmarks import machine

PAGE = machine.ROOT / "docs" / "predict.md"


def main() -> None:
    """Rewrite the tables for which there are results."""
    page = PAGE.read_text(encoding="utf-8")
    for name, table in TABLES.items():
        path = machine.RESULTS / f"{name}.json"
        before, begin, rest = page.partition(f"<!-- {name} -->")
        inside, end, after = rest.partition(f"<!-- /{name} -->")
        if path.is_file() and end:
            inside = f"\n{table(json.loads(path.read_text(encoding='utf-8')))}\n"
            page = before + begin + inside + end + after
            print(f"{name}: written")
    PAGE.write_text(page, encoding="utf-8")


def parity(result: dict[str, Any]) -> str:
    """One line a way."""
    lines = [
        f"{result['clips']} clips of the split `{result['split']}`, model {result['model']}, "
        f"top-1 {result['top_1']:.2%}; {where(result)}:",
        "",
        "| beside `val` on images | same first class | largest difference of a probability | allowed |",
        "|---|---:|---:|---:|",
    ]
    for way, found in result["ways"].items():
        if "skipped" in found:
            lines.append(f"| {way} | | {found['skipped']} | |")
            continue
        same = f"{found['same_top_1']} of {found['compared']}"
        lines.append(f"| {way} | {same} | {found['largest_difference']:.1e} | {found['allowed']:.0e} |")
    return "\n".join(lines)


def answering(result: dict[str, Any]) -> str:
    """All parts that were measured."""
    lines = [f"{result['model']}; {where(result)}; load average before {result['load_average_before']}."]
    if found := result.get("latency"):
        lines += [
            "",
            "| one 5-second clip, model loaded | p50, ms | p95, ms | read and render | network | × floor | load, s |",
            "|---|---:|---:|---:|---:|---:|---:|",
        ]
        for name, row in found.items():
            lines.append(
                f"| {name} | {row['p50_ms']:.1f} | {row['p95_ms']:.1f} | {row['read_and_draw_p50_ms']:.1f} | "
                f"{row['network_p50_ms']:.1f} | {row['times_the_floor']:.2f} | {row['import_and_load_seconds']:.2f} |"
            )
        for name, row in result.get("others", {}).items():
            lines.append(f"| {name}, waveform to probabilities | {row['p50_ms']:.1f} | {row['p95_ms']:.1f} | | | | |")
        lines += ["", "The floor is decoding and resampling by soundfile and soxr, then the network, and nothing else."]
    if found := result.get("commands"):
        lines += ["", "| command | seconds |", "|---|---:|"]
        lines += [f"| {name} | {seconds:.2f} |" for name, seconds in found.items()]
    if "short" in result or "long" in result:
        lines += [
            "",
            "| many sounds, through the command | seconds | speed | peak memory, MiB |",
            "|---|---:|---:|---:|",
        ]
    for runtime, row in result.get("short", {}).items():
        speed = f"{row['files_per_second']:.0f} files a second"
        lines.append(
            f"| {row['files']:,} files of 5 s, {runtime} | {row['seconds']:.1f} | {speed} | {row['peak_mib']} |"
        )
    for runtime, rows in result.get("long", {}).items():
        for hours, row in rows.items():
            speed = f"{row['hours_a_minute']:.1f} hours a minute"
            lines.append(f"| one file of {hours}, {runtime} | {row['seconds']:.1f} | {speed} | {row['peak_mib']} |")
    return "\n".join(lines)


def where(result: dict[str, Any]) -> str:
    """Machine, versions, date."""
    versions = result["versions"]
    named = ", ".join(f"{name} {versions[name]}" for name in ("torch", "onnxruntime", "openvino") if name in versions)
    return f"{result['processor']}, {result['cores']} cores, {named}; {result['date']}"


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {"parity": parity, "answering": answering}

if __name__ == "__main__":
    main()
