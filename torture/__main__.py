"""`make torture`: all parts, one after the other; the result goes to `torture/results.json`."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import describe

from soundsight.files import write_text

RESULTS = Path(__file__).parent / "results.json"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m torture", description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="part of the cases and of the time (default: 1)")
    parser.add_argument("--only", nargs="*", metavar="PART", help="run these parts, keep the others' last results")
    arguments = parser.parse_args()
    share = arguments.share

    def part(count: float) -> str:
        return str(max(1, round(share * count)))

    parts = {
        "recordings": ["--cases", part(20_000), "--seed", "1"],
        "containers": [],
        "names": [],
        "files": [],
        "strangers": ["--cases", part(200)],
        "fuzz": ["--seconds", part(600)],
        "checkpoints": [],
        "gate": ["--swaps", part(100)],
        "kills": ["--prepare", part(200), "--download", part(50), "--train", part(30), "--crossval", part(30),
                  "--signals", part(3)],
        "disks": [],
        "quotas": [],
        "sizes": ["--hours", part(10)],
        "many": ["--files", part(100_000)],
        "same": [],
        "settings": ["--cases", part(300)],
        "quiet": [],
        "soak": ["--minutes", part(60), "--rate", "5"],
    }  # fmt: skip
    for name, words in parts.items():
        if arguments.only and name not in arguments.only:
            continue
        print(f"{name} {' '.join(words)}", file=sys.stderr, flush=True)
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", f"torture.{name}", *words], stdout=subprocess.PIPE, text=True, check=False
        )
        begin = re.search(r"^\{$", done.stdout, re.MULTILINE)  # below what libraries print
        text = done.stdout[begin.start() :] if begin else "{}"
        result = json.loads(text) if done.returncode == 0 else {"problems": [f"the part ended with {done.returncode}"]}
        keep(name, {"machine": describe(), "seconds": round(time.monotonic() - started), **result})
    found = results()
    bad = [name for name, result in found.items() if problems_of(result)]
    print(f"Problems in: {', '.join(bad)}." if bad else "No problems.", f"See {RESULTS}.", file=sys.stderr)
    return 1 if bad else 0


def results() -> dict[str, Any]:
    """The last result of each part."""
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}


def keep(name: str, result: dict[str, Any]) -> None:
    """Put a part's result beside the others', which another process may have written meanwhile."""
    write_text(RESULTS, json.dumps({**results(), name: result}, indent=2) + "\n")


def problems_of(result: Any) -> list[str]:
    """All problems in the result of a part, and of the parts within it."""
    if not isinstance(result, dict):
        return []
    inner = [text for value in result.values() for text in problems_of(value)]
    return [*map(str, result.get("problems", [])), *inner]


if __name__ == "__main__":
    sys.exit(main())
