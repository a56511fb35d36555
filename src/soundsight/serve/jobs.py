"""A bounded queue before one thread that predicts: requests are worked on one at a time, in the order they came."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from soundsight.errors import SoundsightError

T = TypeVar("T")


class Busy(SoundsightError):
    """The queue is full."""

    def __init__(self, retry_seconds: int) -> None:
        super().__init__(f"Too many recordings are waiting; try again in {retry_seconds} seconds.")
        self.retry_seconds = retry_seconds


class Closing(SoundsightError):
    """The service is being closed."""


class Jobs:
    """One job runs, at most `size` wait."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._thread = ThreadPoolExecutor(1, "soundsight-predict")
        self._jobs: set[Future[Any]] = set()
        self._mean_seconds = 0.5  # of recent jobs; for `Busy`
        self._closing = threading.Event()

    @property
    def waiting(self) -> int:
        """Jobs that are not done."""
        return len(self._jobs)

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Queue some work; a future that is cancelled before it starts leaves the queue."""
        if self.waiting > self._size:
            raise Busy(max(1, math.ceil(self._mean_seconds * self.waiting)))
        future = self._thread.submit(self._timed, work)
        self._jobs.add(future)
        future.add_done_callback(self._jobs.discard)
        return future

    def end(self) -> None:
        """From now on each job ends with `Closing`, the running one at its next `check`."""
        self._closing.set()

    def check(self) -> None:
        """Called by work between its parts.

        Raises:
            Closing: It should stop.
        """
        if self._closing.is_set():
            raise Closing("The service is being closed; send the recording again later.")

    def close(self) -> None:
        """End all jobs, and wait for the running one."""
        self.end()
        self._thread.shutdown()

    def _timed(self, work: Callable[[], T]) -> T:
        self.check()
        began = time.monotonic()
        try:
            return work()
        finally:
            self._mean_seconds += 0.2 * (time.monotonic() - began - self._mean_seconds)
