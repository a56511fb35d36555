"""Ctrl-C and SIGTERM: both end a command tidily, and wait for what may not be broken off half-way."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived: all that is open is closed, and drafts are removed, as after Ctrl-C."""


@contextmanager
def terminable() -> Iterator[None]:
    """Turn SIGTERM into `Terminated` during the block; outside the main thread this does nothing."""
    process = os.getpid()

    def stop(number: int, _: FrameType | None) -> None:
        if os.getpid() == process:
            raise Terminated
        signal.signal(number, signal.SIG_DFL)  # in a process that was forked from ours
        os.kill(os.getpid(), number)

    with handled(signal.SIGTERM, stop):
        yield


@contextmanager
def later() -> Iterator[None]:
    """Hold back Ctrl-C and SIGTERM until the block is done: while a process starts, or a C++ library is loaded.

    A signal that is ignored, or ends the process without Python, is left as it is.

    Raises:
        KeyboardInterrupt: One of them arrived meanwhile.
    """
    caught: list[type[KeyboardInterrupt]] = []
    with ExitStack() as stack:
        for number, kind in ((signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)):
            if callable(signal.getsignal(number)):
                stack.enter_context(handled(number, lambda *_, kind=kind: caught.append(kind)))
        yield
    if caught:
        raise caught[0]


@contextmanager
def handled(number: int, handler: Any) -> Iterator[None]:
    """Let `handler` have a signal during the block; outside the main thread this does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, former)
