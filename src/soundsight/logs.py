"""Messages of long work: loggers below "soundsight" carry them; the command line, and who asks, gets them as text."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_ROOT = logging.getLogger("soundsight")


@contextmanager
def sent_to(receive: Callable[[str], object]) -> Iterator[None]:
    """Hand each message of Soundsight to `receive`, meanwhile; a warning says in its first word that it is one.

    Example:
        with sent_to(lines.append):
            crossval(...)
    """
    handler = _Receiver(receive)
    level = _ROOT.level
    _ROOT.addHandler(handler)
    _ROOT.setLevel(logging.INFO)
    try:
        yield
    finally:
        _ROOT.removeHandler(handler)
        _ROOT.setLevel(level)


class _Receiver(logging.Handler):
    def __init__(self, receive: Callable[[str], object]) -> None:
        super().__init__()
        self.receive = receive

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        self.receive(f"Warning: {text}" if record.levelno >= logging.WARNING else text)
