"""A command that outlives the head of its cluster.

When the head goes, Ray ends the process that drives the work. So the command runs in a child process; if that
dies with the head, it is started again once the head is back, and continues from what is done.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from soundsight.cluster.connect import HEAD_LOST, answers, find_address
from soundsight.config import ClusterConfig
from soundsight.errors import SoundsightError
from soundsight.interrupts import Terminated

CHILD = "SOUNDSIGHT_ENGINE_CHILD"  # the descriptor on which the child says that it ended by itself
AGAIN = 20  # times that a command is started again, at most


def is_child() -> bool:
    """Whether this process is the one that may die."""
    return CHILD in os.environ


def follow_parent() -> None:
    """In the child: end with the parent, however that ended; nobody would hear of the work."""
    parent = os.getppid()

    def callback() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=callback, daemon=True, name="soundsight-parent").start()


def finished() -> None:
    """In the child: say that its exit code is its own."""
    descriptor = os.environ.get(CHILD)
    if descriptor:
        with suppress(OSError, ValueError):
            os.write(int(descriptor), b"x")


def supervise(words: Sequence[str], config: ClusterConfig, say: Callable[[str], None]) -> int:
    """Run `soundsight WORDS` in a child until it ends by itself.

    Returns:
        Its exit code.

    Raises:
        SoundsightError: The head went away and did not return within `wait_seconds`.
    """
    address = find_address(config)
    for _ in range(AGAIN):
        code, own = _child(words)
        if own:
            return code
        if code not in (HEAD_LOST, 1):
            raise SoundsightError(
                f"The process that drives the cluster was killed ({_signal(code)}); what is done is kept: run the same "
                "command again."
            )
        say(
            f"The head of the cluster at {address or 'this machine'} went away; what is done is kept. "
            f"Waiting up to {config.wait_seconds:.0f} s for its return."
        )
        _wait(address, config.wait_seconds)
        say("It is back; going on.")
    raise SoundsightError("The head of the cluster went away too often; run the same command again when it is stable.")


def _child(words: Sequence[str]) -> tuple[int, bool]:
    """Run the command; its exit code, and whether it ended by itself."""
    reading, writing = os.pipe()
    environment = {**os.environ, CHILD: str(writing)}
    command = [sys.executable, "-m", "soundsight", *words]
    child = subprocess.Popen(command, env=environment, pass_fds=(writing,))
    os.close(writing)
    try:
        code = child.wait()
    except KeyboardInterrupt as stop:  # the child got a Ctrl-C too, and stops by itself
        if isinstance(stop, Terminated):
            child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.wait(20)
        child.kill()
        raise
    finally:
        own = False
        if child.poll() is not None and sys.platform != "win32":
            os.set_blocking(reading, False)
            with suppress(BlockingIOError):
                own = os.read(reading, 1) == b"x"
        os.close(reading)
    return code, own


def _wait(address: str | None, seconds: float) -> None:
    until = time.monotonic() + seconds
    while address and not answers(address, 2):
        if time.monotonic() > until:
            raise SoundsightError(
                f"The head of the cluster at {address} did not return within {seconds:.0f} s; start it and run the "
                "same command again: what is done is kept."
            )
        time.sleep(1)


def _signal(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
