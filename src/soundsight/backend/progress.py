"""What a training says: a summary and a line per epoch, or a bar on a terminal; Ultralytics' own output goes to a file.

Of one process only: where Ultralytics starts one per GPU, their output stays on the terminal.
"""

from __future__ import annotations

import io
import logging
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from tqdm import tqdm

from soundsight.backend.compat import MACRO_MAP, TOP1
from soundsight.files import printable

LOG = "ultralytics.log"  # in the run's folder
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class Log(io.TextIOBase):
    """Takes what is printed: in memory until the run's folder is known. Of a progress bar its last state remains."""

    def __init__(self) -> None:
        self.kept: io.TextIOBase = io.StringIO()
        self.line = ""

    def write(self, text: str) -> int:
        """Take text; whole lines are kept."""
        *lines, rest = (self.line + _COLOUR.sub("", text)).split("\n")
        self.kept.write("".join(line.rpartition("\r")[2] + "\n" for line in lines))
        self.line = rest.rpartition("\r")[2]
        return len(text)

    def open(self, folder: Path) -> None:
        """Go on in a file of this folder."""
        file = open(folder / LOG, "a", encoding="utf-8", errors="backslashreplace", buffering=1)
        file.write(self.kept.getvalue() if isinstance(self.kept, io.StringIO) else "")
        self.kept = file

    def close(self) -> None:
        """Close the file."""
        self.kept.close()
        super().close()


class Progress:
    """Callbacks of a trainer that say how it goes on standard error."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.terminal = sys.stderr is not None and sys.stderr.isatty()
        self.bar: Any = None
        self.told = self.started = 0.0

    def attach(self, model: Any) -> None:
        """Register with an Ultralytics model."""
        model.add_callback("on_pretrain_routine_start", lambda trainer: self.log.open(Path(trainer.save_dir)))
        model.add_callback("on_train_start", self.begin)
        model.add_callback("on_train_batch_end", lambda trainer: self.bar.update())
        model.add_callback("on_fit_epoch_end", self.epoch)

    def begin(self, trainer: Any) -> None:
        """A summary."""
        batches, left = len(trainer.train_loader), trainer.epochs - trainer.start_epoch
        names = {"train": trainer.train_loader, "val": getattr(trainer, "test_loader", None)}
        counts = ", ".join(f"{len(loader.dataset):,} for {name}" for name, loader in names.items() if loader)
        where = f"{trainer.device}{' in mixed precision' if trainer.amp else ''}"
        self._say(
            f"Training {Path(str(trainer.args.model)).name} on {where}: "
            f"{counts} images of {len(trainer.data['names'])} classes; {left} epochs of {batches} batches."
        )
        self._say(f"Ultralytics' own output: {Path(trainer.save_dir) / LOG}")
        self.started, self.told = time.monotonic(), trainer.start_epoch
        self.bar = tqdm(total=left * batches, unit=" batches", leave=False, disable=not self.terminal)

    def epoch(self, trainer: Any) -> None:
        """A line, once per epoch; at the end Ultralytics scores the best weights again."""
        done = trainer.epoch + 1
        if done <= self.told or done > trainer.epochs:
            return
        seconds = time.monotonic() - self.started
        left = seconds / (done - trainer.start_epoch) * (trainer.epochs - done)
        self.told = done
        losses = trainer.tloss.values() if isinstance(trainer.tloss, dict) else [trainer.tloss.sum()]
        text = f"epoch {done}/{trainer.epochs}: loss {sum(map(float, losses)):.3f}"
        for column, name in ((TOP1, "top-1"), (MACRO_MAP, "mAP")):
            if column in (trainer.metrics or {}) and trainer.args.val:
                text += f", {name} on val {trainer.metrics[column]:.1%}"
        if self.terminal:
            self.bar.set_description(text)
        else:
            self._say(f"{text}; {seconds:.0f} s, {left:.0f} s left")

    def _say(self, text: str) -> None:
        print(printable(text), file=sys.stderr, flush=True)


@contextmanager
def reported() -> Iterator[Progress]:
    """Report the training in this block, once attached, and keep what Ultralytics prints in a file of the run."""
    from ultralytics.utils import LOGGER

    log = Log()
    progress = Progress(log)
    own = logging.StreamHandler(log)

    def mute(_: logging.LogRecord) -> bool:  # one per training, as one may run inside another
        return False

    shown = [handler for handler in LOGGER.handlers if type(handler) is logging.StreamHandler]  # no file, no test's
    for handler in shown:
        handler.addFilter(mute)
    LOGGER.addHandler(own)
    try:
        with redirect_stdout(log):
            yield progress
    finally:
        LOGGER.removeHandler(own)
        for handler in shown:
            handler.removeFilter(mute)
        if progress.bar is not None:
            progress.bar.close()
        log.close()
