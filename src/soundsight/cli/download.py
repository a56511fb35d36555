"""Fetch a published data set: checked, resumable, unpacked safely, put in place only when it is whole.

soundsight download esc50
soundsight download urbansound8k --root /data/UrbanSound8K
soundsight download esc50 --archive ESC-50-master.zip    # a file brought by hand; nothing is fetched
soundsight download esc50 --mirror https://mirror.example/ESC-50-master.zip
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from soundsight.cli import console
from soundsight.cli.options import Given
from soundsight.config.commands import DownloadOptions
from soundsight.datasets.download import datasets, download, notice

OPTIONS = DownloadOptions
CHOICES = {"name": sorted(datasets())}


def run(options: DownloadOptions, given: Given) -> int:
    console.status(notice(options.name))
    with _bars() as progress:
        place = console.call(download, options, progress=progress)
    record = datasets()[options.name]
    print(f"{record.title} is whole in {place}: {record.clips} clips, {record.classes} classes, {record.folds} folds.")
    return 0


@contextmanager
def _bars() -> Iterator[Callable[[str, int, int], None]]:
    """One progress bar a stage, with rate and time left; none where the output is no terminal."""
    from tqdm import tqdm

    bars: dict[str, tqdm] = {}

    def show(stage: str, done: int, total: int) -> None:
        if stage not in bars:
            size = {"unit": "B", "unit_scale": True} if stage != "check" else {"unit": " files"}
            bars[stage] = tqdm(desc=stage, disable=not sys.stderr.isatty(), **size)
        bars[stage].total = total or None
        bars[stage].update(done - bars[stage].n)

    try:
        yield show
    finally:
        for bar in bars.values():
            bar.close()
