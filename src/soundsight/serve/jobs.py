"""A bounded queue before one thread that computes: several people at once, one network, no surprise."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from soundsight.errors import SoundsightError


class Busy(SoundsightError):
    """The queue is full.

    Attributes:
        retry_seconds: When to ask again.
    """

    def __init__(self, retry_seconds: int) -> None:
        super().__init__(f"Too many recordings are waiting to be answered; try again in {retry_seconds} seconds.")
        self.retry_seconds = retry_seconds


class Jobs:
    """Work for one thread, first come, first served."""

    def __init__(self, size: int) -> None:
        self._waiting: queue.Queue[tuple[Future[Any], Callable[[], Any]] | None] = queue.Queue(size)
        self._mean_seconds = 0.5  # of recent jobs; for `Busy`
        self._running = 0
        self._thread = threading.Thread(target=self._work, name="soundsight-answer", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Jobs that are not done."""
        return self._waiting.qsize() + self._running

    def submit(self, work: Callable[[], Any]) -> Future[Any]:
        """Queue some work; a future that was cancelled before its turn is skipped.

        Raises:
            Busy: The queue is full.
        """
        future: Future[Any] = Future()
        try:
            self._waiting.put_nowait((future, work))
        except queue.Full:
            raise Busy(max(1, math.ceil(self._mean_seconds * self._waiting.qsize()))) from None
        return future

    def close(self) -> None:
        """Refuse what waits and end the thread after the job it is at."""
        while True:
            try:
                job = self._waiting.get_nowait()
            except queue.Empty:
                break
            if job:
                job[0].cancel()
        self._waiting.put(None)
        self._thread.join(timeout=30)

    def _work(self) -> None:
        while (job := self._waiting.get()) is not None:
            future, work = job
            if not future.set_running_or_notify_cancel():
                continue
            self._running, began = 1, time.monotonic()
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001  (raised again where the prediction is awaited)
                future.set_exception(error)
            self._running = 0
            self._mean_seconds += 0.2 * (time.monotonic() - began - self._mean_seconds)
