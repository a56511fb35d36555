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

    def emit(record: logging.LogRecord) -> None:
        text = record.getMessage()
        receive(f"Warning: {text}" if record.levelno >= logging.WARNING else text)

    handler = logging.Handler()
    handler.emit = emit  # type: ignore[method-assign]
    level = _ROOT.level
    _ROOT.addHandler(handler)
    _ROOT.setLevel(logging.INFO)
    try:
        yield
    finally:
        _ROOT.removeHandler(handler)
        _ROOT.setLevel(level)
