"""SIGKILL at random moments of `download`, from a web server on this machine."""

from __future__ import annotations

import dataclasses
import http.server
import io
import shutil
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

from torture import sounds
from torture.processes import difference, finish, forked, killed, moments, tree

CLIPS = 40


def kill_download(place: Path, count: int, seed: int) -> dict[str, Any]:
    """Kill `download` while it fetches, unpacks, checks and moves; the same call must finish the job."""
    from soundsight.datasets import download as command
    from soundsight.datasets.catalogue import kinds

    small = {"clips": CLIPS, "classes": 4, "folds": 5, "sample_rate": sounds.RATE, "seconds": 0.5, "checksums": ""}
    kinds()["esc50"] = dataclasses.replace(kinds()["esc50"], **small)
    server = _Server(_archive())
    root, log = place / "in" / "ESC-50", place / "log"

    def work() -> object:
        return command.download("esc50", root=root, mirror=server.address)

    started = time.monotonic()
    if finish(forked(work, log=log)):
        raise RuntimeError(f"download fails: {log.read_text(encoding='utf-8')[-500:]}")
    length = time.monotonic() - started
    wanted = tree(place / "in")
    problems, hits = [], 0
    for number, moment in enumerate(moments(count, 1.05 * length, seed)):
        shutil.rmtree(place / "in")
        hits += killed(work, moment, log=log)
        if (root / "meta" / "esc50.csv").is_file() and len(list((root / "audio").glob("*.wav"))) != CLIPS:
            problems.append(f"kill {number}: the table is there, but not all recordings")
        if finish(forked(work, log=log)):
            problems.append(f"kill {number}: the restart fails: {log.read_text(encoding='utf-8')[-300:]}")
        elif differs := difference(tree(place / "in"), wanted):
            problems.append(f"kill {number}: after the restart {differs}")
    server.stop()
    return {"kills": count, "killed_at_work": hits, "problems": problems, "length_s": round(length, 2)}


def _archive() -> bytes:
    """A small data set in the layout of the archive that ESC-50's publisher offers."""
    rows, buffer = ["filename,fold,target,category,esc10,src_file,take"], io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for index in range(CLIPS):
            fold, target = 1 + index % 5, index % 4
            name = f"{fold}-{index}-A-{target}.wav"
            rows.append(f"{name},{fold},{target},class{target},False,{index},A")
            file.writestr(f"ESC-50-master/audio/{name}", sounds.encode(sounds.noise(4000, seed=index)))
        file.writestr("ESC-50-master/meta/esc50.csv", "\n".join(rows) + "\n")
    return buffer.getvalue()


class _Server:
    """Serves one file slowly, and from any byte on."""

    def __init__(self, body: bytes) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                wanted = self.headers.get("Range", "")
                start = int(wanted[6:-1]) if wanted.startswith("bytes=") else 0
                self.send_response(206 if start else 200)
                self.send_header("ETag", '"1"')
                self.send_header("Content-Length", str(len(body) - start))
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
                self.end_headers()
                try:
                    for place in range(start, len(body), 16384):
                        self.wfile.write(body[place : place + 16384])
                        time.sleep(0.005)
                except OSError:  # the client was killed
                    pass

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Stop serving."""
        self.server.shutdown()
        self.server.server_close()
