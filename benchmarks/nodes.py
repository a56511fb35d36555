"""Several Ray nodes on one machine, each in namespaces of its own: a network address, and processes that die together.

Needs root and Linux. Every node gets one core in Ray's books; on what processors they really run is up to
`prefix`, such as `taskset -c 0`. Nothing outside the namespaces is touched.
"""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

PORT = 6379
WORKERS = (b"ray::_work", b"ray::Hands")  # how the command line of a process at work begins: now, and in 0.1.0
NETWORK = "10.77.0"
_NUMBERS = itertools.count()
RAY = "import sys; from ray.scripts.scripts import main; sys.argv[0] = 'ray'; sys.exit(main())"


def possible() -> bool:
    """Whether namespaces can be made here."""
    tools = all(shutil.which(tool) for tool in ("ip", "unshare", "nsenter"))
    return tools and os.name == "posix" and os.geteuid() == 0 and _run("ip", "netns", "list").returncode == 0


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, check=False)


def _must(*words: str) -> None:
    done = _run(*words)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")


class Nodes:
    """Machines 0 (the head) to `count - 1`; a context manager that leaves nothing behind."""

    def __init__(self, count: int, *, tag: str = "", prefix: Sequence[str] = (), source: str = "") -> None:
        # Namespaces vanish some time after they are deleted, so names are used once.
        self.tag = tag or f"n{os.getpid() % 100_000}{next(_NUMBERS)}"
        self.count, self.prefix, self.folder = count, list(prefix), Path("/tmp")
        self.machines: dict[int, subprocess.Popen[bytes]] = {}
        self.spaces: dict[int, str] = {}
        self.address = f"{NETWORK}.1:{PORT}"
        # A cluster predictions those who know its token.
        self.environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self.environment |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
        self.environment |= {"PYTHONPATH": source} if source else {}

    def __enter__(self) -> Nodes:
        _must("ip", "link", "add", f"{self.tag}br", "type", "bridge")
        _must("ip", "addr", "add", f"{NETWORK}.254/24", "dev", f"{self.tag}br")
        _must("ip", "link", "set", f"{self.tag}br", "up")
        for number in range(self.count):
            space, link = f"{self.tag}{number}", f"{self.tag}v{number}"
            _must("ip", "netns", "add", space)
            _must("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", space)
            _must("ip", "link", "set", link, "master", f"{self.tag}br", "up")
            _must("ip", "-n", space, "addr", "add", f"{NETWORK}.{number + 1}/24", "dev", "eth0")
            _must("ip", "-n", space, "link", "set", "eth0", "up")
            _must("ip", "-n", space, "link", "set", "lo", "up")
            self.power_on(number)
        return self

    def __exit__(self, *_: object) -> None:
        for number in list(self.machines):
            self.power_off(number)
        for number in range(self.count):
            _run("ip", "netns", "del", f"{self.tag}{number}")
            shutil.rmtree(self._temp(number), ignore_errors=True)
        _run("ip", "link", "del", f"{self.tag}br")

    def _temp(self, number: int) -> Path:
        return self.folder / f"{self.tag}{number}"

    def power_on(self, number: int) -> None:
        """Give a machine its first process; all others are its children."""
        command = ["ip", "netns", "exec", f"{self.tag}{number}", "unshare", "--pid", "--fork", "--kill-child"]
        self.machines[number] = subprocess.Popen([*command, "--mount-proc", "sleep", "infinity"])
        time.sleep(0.3)

    def power_off(self, number: int) -> None:
        """SIGKILL to all processes of a machine at once, as by a power cut."""
        machine = self.machines.pop(number)
        machine.kill()  # --kill-child takes the first process along, and the kernel all others of its namespace
        machine.wait()

    def inside(self, number: int) -> list[str]:
        """What to write before a command so that it runs on a machine."""
        pid = _run("pgrep", "-P", str(self.machines[number].pid)).stdout.split()[0]
        return ["nsenter", "-t", pid, "-n", "-p", "-m", *self.prefix]

    def start(self, number: int, *, cpus: int = 1, environment: dict[str, str] | None = None) -> None:
        """Start Ray on a machine: the head on number 0."""
        place = (
            ["--head", f"--port={PORT}", "--include-dashboard=false"] if not number else [f"--address={self.address}"]
        )
        command = [*self.inside(number), sys.executable, "-P", "-c", RAY, "start", *place]
        command += [f"--node-ip-address={NETWORK}.{number + 1}", f"--num-cpus={cpus}", "--disable-usage-stats"]
        command += ["--object-store-memory=100000000", f"--temp-dir={self._temp(number)}"]
        done = subprocess.run(
            command,
            env={**os.environ, **self.environment, **(environment or {})},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        if done.returncode:
            raise RuntimeError(f"node {number} does not start: {done.stdout[-2500:]} {done.stderr[-2500:]}")

    def kill_ray(self, number: int) -> None:
        """SIGKILL to Ray's processes on a machine, and to nothing else there."""
        listed = _run(*self.inside(number), "ps", "-eo", "pid,args")
        for line in listed.stdout.splitlines()[1:]:
            pid, _, arguments = line.strip().partition(" ")
            if "/ray/" in arguments or arguments.strip().startswith("ray::"):
                _run(*self.inside(number), "kill", "-9", pid)

    def processes(self, number: int, start: bytes | tuple[bytes, ...] = WORKERS) -> list[int]:
        """Process numbers, as seen from here, of a machine's processes whose command line begins so."""
        try:
            space = self._space(number)
        except (KeyError, IndexError, OSError):  # it is being switched off
            return []
        found = []
        for entry in Path("/proc").iterdir():
            try:
                same = entry.name.isdigit() and os.readlink(entry / "ns" / "pid") == space
                if same and (entry / "cmdline").read_bytes().startswith(start):
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    def _space(self, number: int) -> str:
        """The process namespace of a machine."""
        parent = self.machines[number].pid
        if parent not in self.spaces:
            first = _run("pgrep", "-P", str(parent)).stdout.split()[0]
            self.spaces[parent] = os.readlink(f"/proc/{first}/ns/pid")
        return self.spaces[parent]
