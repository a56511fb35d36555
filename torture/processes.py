"""What the parts that kill have in common: runs in forked processes, who is left of a session, trees of files."""

from __future__ import annotations

import hashlib
import importlib
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def hear_ctrl_c() -> None:
    """Let children hear SIGINT, though this process was started in the background by a shell, which ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def forked(work: Callable[[], object], *, log: Path) -> int:
    """Start `work` in a process of its own session, which has all libraries loaded already; its number."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.setsid()
        with open(log, "w", encoding="utf-8") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        work()
        code = 0
    except BaseException:  # noqa: BLE001  (the process ends here in any case)
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def rehearse(work: Callable[[], object], *, log: Path) -> float:
    """Run `work` in a forked process, then load here what it loaded, so that kills fall into work and not into imports.

    Returns:
        Seconds that the same work takes then.

    Raises:
        RuntimeError: It fails.
    """
    names = log.with_name(f"{log.name}-modules")

    def once() -> None:
        work()
        names.write_text("\n".join(sorted(sys.modules)), encoding="utf-8")

    if finish(forked(once, log=log)):
        raise RuntimeError(f"it fails before any kill: {log.read_text(encoding='utf-8')[-500:]}")
    for name in names.read_text(encoding="utf-8").split("\n"):
        if name not in sys.modules and not name.startswith("__"):
            with suppress(Exception):  # made by others, or only for some systems
                importlib.import_module(name)
    started = time.monotonic()
    if finish(forked(work, log=log)):
        raise RuntimeError(f"it fails the second time: {log.read_text(encoding='utf-8')[-500:]}")
    return time.monotonic() - started


def finish(pid: int, *, seconds: float = 300) -> int:
    """Wait for a process; its exit code, or minus the signal that ended it.

    Raises:
        TimeoutError: It was still there after so many seconds, and was killed.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise TimeoutError(f"process {pid} hung")


def killed(
    work: Callable[[], object], after_seconds: float, *, log: Path, once: Callable[[], bool] = lambda: True
) -> bool:
    """Start `work`, wait until `once` holds and some time more, and send it SIGKILL; whether it was still at work."""
    pid = forked(work, log=log)
    until = time.monotonic() + 300
    while (
        not once()
        and time.monotonic() < until
        and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    ):
        time.sleep(0.002)
    time.sleep(after_seconds)
    os.kill(pid, signal.SIGKILL)
    return finish(pid) == -signal.SIGKILL


def survivors(session: int) -> list[str]:
    """Names of the processes that are left of a session, by Linux's list of processes."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = entry.read_text(encoding="utf-8").rpartition(")")
            state, _, _, own = rest.split()[:4]
        except (OSError, ValueError):
            continue
        if int(own) == session and state not in "ZX":
            found.append(name.partition("(")[2])
    return found


def all_gone(session: int, *, seconds: float = 10) -> bool:
    """Whether no process of a session is left, or will be after so many seconds at most."""
    until = time.monotonic() + seconds
    while survivors(session):
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def tree(*roots: Path, without: Callable[[Path], bool] = lambda path: path.name == ".lock") -> dict[str, str]:
    """SHA-256 of every file below some folders."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for root in roots
        for path in sorted(root.rglob("*"))
        if path.is_file() and not without(path)
    }


def difference(found: dict[str, str], wanted: dict[str, str]) -> str:
    """How two trees differ, in a few words; nothing if they do not."""
    parts = [f"{len(more)} files more" for more in [set(found) - set(wanted)] if more]
    parts += [f"{len(less)} files fewer" for less in [set(wanted) - set(found)] if less]
    parts += [
        f"{len(other)} files differ"
        for other in [{k for k in set(found) & set(wanted) if found[k] != wanted[k]}]
        if other
    ]
    return ", ".join(parts)


def moments(count: int, longest_seconds: float, seed: int) -> list[float]:
    """Random moments within a run, in seconds from its start, spread over its whole length."""
    draw = random.Random(seed)
    return [longest_seconds * (number + draw.random()) / count for number in draw.sample(range(count), count)]
