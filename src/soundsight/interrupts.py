"""Ctrl-C at a better moment. For what may not be broken off half-way: starting a process, loading C++ libraries."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def later() -> Iterator[None]:
    """Hold back Ctrl-C until the block is done. Where none arrives, as outside the main thread, this does nothing.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed meanwhile.
    """
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or handler in (None, signal.SIG_IGN):
        yield
        return
    caught: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: caught.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if caught:
        raise KeyboardInterrupt
