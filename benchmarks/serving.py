"""How fast the page predictions, what it weighs, and how long a report takes. Loopback only, bounded.

    python benchmarks/serving.py MODEL CLIP.wav [--run FOLDER] [--threads 1] [--out FILE.json]

Starts `soundsight serve`, sends CLIP with the page's own request (image and tracks included) as one user and
then as eight at once, each user twenty times, one request after the other. --run is a folder of `soundsight
val` or `crossval`: its report is built as well, with heat maps.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from importlib import resources
from pathlib import Path
from typing import Any

USERS, REQUESTS = (1, 8), 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("clip", type=Path)
    parser.add_argument("--run")
    parser.add_argument("--threads", default="1")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    result: dict[str, Any] = {
        "model": arguments.model,
        "threads": int(arguments.threads),
        "processor": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg(),
        "page": page_weight(),
        "answers": answers(arguments),
    }
    if arguments.run:
        result["report"] = build_report(arguments.run)
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")


def page_weight() -> dict[str, int]:
    """Bytes of all files that the page loads, as they are and as they are sent."""
    from soundsight.serve.app import STATIC

    folders = [resources.files(package) / folder for package, folder in STATIC]
    files = [item.read_bytes() for folder in folders for item in folder.iterdir() if item.name != "api.html"]
    return {
        "files": len(files),
        "bytes": sum(map(len, files)),
        "bytes_compressed": sum(len(gzip.compress(data)) for data in files),
    }


def answers(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds from sending a clip to its whole prediction, by number of users."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "soundsight", "serve", arguments.model, "--port", str(port)]
    began = time.perf_counter()
    server = subprocess.Popen([*command, "--threads", arguments.threads], stdout=subprocess.DEVNULL)
    try:
        while server.poll() is None and time.perf_counter() - began < 300:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        found: dict[str, Any] = {"start_seconds": round(time.perf_counter() - began, 2)}
        url = f"http://127.0.0.1:{port}/api/predict?picture=true"
        body = arguments.clip.read_bytes()
        ask(url, body)  # the first prediction warms up
        for users in USERS:
            found[f"users_{users}"] = load(url, body, users)
        return found
    finally:
        server.terminate()
        server.wait(30)


def load(url: str, body: bytes, users: int) -> dict[str, Any]:
    """So many users at once, each with one request after the other."""
    seconds: list[float] = []
    turned_away: list[int] = []

    def user() -> None:
        for _ in range(REQUESTS):
            began = time.perf_counter()
            if ask(url, body):
                seconds.append(time.perf_counter() - began)
            else:
                turned_away.append(1)

    threads = [threading.Thread(target=user) for _ in range(users)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    whole = time.perf_counter() - began
    return {
        "answers": len(seconds),
        "turned_away": len(turned_away),
        "median_seconds": round(statistics.median(seconds), 4),
        "p95_seconds": round(statistics.quantiles(seconds, n=20)[-1], 4),
        "answers_a_second": round(len(seconds) / whole, 2),
    }


def ask(url: str, body: bytes) -> bool:
    """Send a clip; whether it was predicted."""
    request = urllib.request.Request(url, body, {"Content-Type": "audio/wav"})
    try:
        with urllib.request.urlopen(request, timeout=120) as reply:
            return "label" in json.load(reply)
    except urllib.error.HTTPError as error:
        if error.code == 503:
            return False
        raise


def build_report(run: str) -> dict[str, Any]:
    """Seconds and bytes of a report, with and without heat maps."""
    from soundsight.reports.run_report import read_run, report

    found: dict[str, Any] = {"clips": len(read_run(run).rows)}
    with tempfile.TemporaryDirectory() as folder:
        for name, saliency in (("without_heat", False), ("with_heat", True)):
            began = time.perf_counter()
            page = report(run, out=Path(folder, f"{name}.html"), saliency=saliency, device="cpu")
            found[name] = {"seconds": round(time.perf_counter() - began, 2), "bytes": page.stat().st_size}
    return found


if __name__ == "__main__":
    main()
