"""The way to a cluster: is anybody there, and can its nodes work for us (see `probe`)?

Each question has its sentence, before any work begins. Ray reports no usage and opens no dashboard.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from soundsight import parallel
from soundsight.cluster.probe import check_node
from soundsight.config import ClusterConfig
from soundsight.errors import ConfigError

CHECKERS = 16  # nodes that are asked at once
ANSWER_SECONDS = 5.0  # a head that does not take a connection within this is not there
JOIN_SECONDS = 120.0  # ... and one that does not let us in within this is no head
HEAD_LOST = 75  # exit code of a driver whose head has gone
STORE_BYTES = 200_000_000  # shared memory of a Ray of our own; jobs and answers are small


@dataclass(frozen=True)
class Needs:
    """What every node must be able to do."""

    read: Sequence[str] = ()  # paths that must be there
    write: Sequence[str] = ()  # folders where a file of ours must be seen, and one of theirs written
    folder: str = ""  # the folder that relative paths start from


@dataclass
class Cluster:
    """A connection to Ray."""

    ray: Any
    address: str  # of the head, or "this machine"
    needs: Needs
    checked: dict[str, str] = field(default_factory=dict)  # node: its sentence if it cannot work, or ""

    def nodes(self) -> list[dict[str, Any]]:
        """The nodes that are alive, as Ray describes them."""
        return [node for node in self.ray.nodes() if node["Alive"]]

    def usable(self, *, say: Callable[[str], None] | None = None) -> list[dict[str, Any]]:
        """The nodes that can work for us; new ones are checked first.

        Args:
            say: Told of a node that is left out; `None` raises.

        Raises:
            ConfigError: A node lacks the package, has another version of it, or does not see the storage.
        """
        alive = self.nodes()
        new = [node for node in alive if node["NodeID"] not in self.checked]
        with ThreadPoolExecutor(CHECKERS) as threads:  # each starts a process on its node, which takes seconds
            sentences = list(threads.map(partial(check_node, self), new))
        for node, sentence in zip(new, sentences, strict=True):
            if sentence and say is None:
                raise ConfigError(sentence)
            if sentence and say:
                say(f"{sentence} It is left out.")
            self.checked[node["NodeID"]] = sentence
        return [node for node in alive if not self.checked[node["NodeID"]]]

    def close(self) -> None:
        """Let go of the cluster, or end a Ray of our own."""
        self.ray.shutdown()


def load_ray() -> Any:
    """The module ray.

    Raises:
        ConfigError: It is not installed.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_worker_niceness", "0")  # of a Ray of our own; its 15 starves beside other work
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # leave the GPUs of CPU jobs as they are
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            'The engine ray needs the package Ray, which is not installed; run pip install "soundsight[ray]", '
            "on every node."
        ) from error
    return ray


def find_address(config: ClusterConfig) -> str | None:
    """The head's HOST:PORT; `None` for a Ray of our own on this machine.

    Raises:
        ConfigError: The address has another form.
    """
    address = config.address or os.environ.get("RAY_ADDRESS") or None
    if address in (None, "local"):
        return None
    if address is not None and address.startswith("ray://"):
        raise ConfigError(
            f"address={address} is Ray's client port, which is not supported: run the command on a machine of the "
            "cluster (or through `ray job submit`) with address=HOST:6379."
        )
    host, _, port = str(address).rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigError(f"address={address} is not understood; write HOST:PORT of the head, such as 10.0.0.1:6379.")
    return address


def answers(address: str, seconds: float = ANSWER_SECONDS) -> bool:
    """Whether anything takes connections there."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=seconds):
            return True
    except OSError:
        return False


def connect(config: ClusterConfig, needs: Needs) -> Cluster:
    """Join a cluster and check all of its nodes.

    Args:
        config: The address, or none for a Ray of our own.
        needs: What the nodes must see.

    Raises:
        ConfigError: Nothing answers, something else answers, or a node cannot work.
    """
    address = find_address(config)
    if address and not answers(address):
        raise ConfigError(
            f"Nothing answers at {address} within {ANSWER_SECONDS:.0f} s: start a cluster there with "
            f"`ray start --head --port={address.rpartition(':')[2]}`, or correct the address."
        )
    if address is None:  # a Ray of our own has a token of its own, which is left in nobody's home
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # read when Ray is loaded
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    ray = load_ray()
    own: dict[str, Any] = {"num_cpus": parallel.cores(), "object_store_memory": STORE_BYTES}
    own["include_dashboard"] = False
    with _limit(address):
        try:
            ray.init(
                address=address or "local",
                log_to_driver=False,
                logging_level="ERROR",
                **({} if address else own),
            )
        except (RuntimeError, ValueError, OSError, AssertionError, ray.exceptions.RayError) as error:
            raise ConfigError(_refused(address, error)) from error
    cluster = Cluster(ray, address or "this machine", needs)
    if address:
        threading.Thread(target=_watch_head, args=(ray, address), daemon=True, name="soundsight-head").start()
    cluster.usable()
    return cluster


def _refused(address: str | None, error: BaseException) -> str:
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    if address is None:
        return f"Ray does not start on this machine ({reason})."
    if "AuthenticationError" in type(error).__name__ or "token" in reason:
        return (
            f"The cluster at {address} asks for a token that this machine does not have: set RAY_AUTH_MODE=token and "
            "RAY_AUTH_TOKEN_PATH to a copy of the head's ~/.ray/auth_token."
        )
    if "ersion mismatch" in reason:
        return (
            f"The cluster at {address} runs another Ray or Python than this machine ({reason}); install the same "
            "versions on every node."
        )
    return (
        f"The cluster at {address} does not let this machine in ({reason}); run the command on one of its nodes: "
        f"the head, or a machine that joined it with `ray start --address={address}`."
    )


class _limit:
    """End this process with a sentence if Ray waits for ever, as it does for what is no head."""

    def __init__(self, address: str | None) -> None:
        self.timer = threading.Timer(JOIN_SECONDS, self._end, args=(address,))
        self.timer.daemon = True

    def __enter__(self) -> None:
        self.timer.start()

    def __exit__(self, *_: object) -> None:
        self.timer.cancel()

    @staticmethod
    def _end(address: str | None) -> None:
        from soundsight.cluster import supervise

        where = f"What answers at {address}" if address else "Ray on this machine"
        os.write(2, f"soundsight: {where} did not let us in within {JOIN_SECONDS:.0f} s; is it a Ray head?\n".encode())
        supervise.finished()
        os._exit(2)


def _watch_head(ray: Any, address: str) -> None:
    """End this process when the head or the local node has gone: Ray itself hangs for a minute, then kills it."""
    local = None
    with suppress(AttributeError):  # no public way to ask
        local = ray._private.worker._global_node.raylet_socket_name
    failed = 0
    while failed < 3:
        time.sleep(2)
        failed = 0 if answers(address, 3) and (local is None or _listens(local)) else failed + 1
    if ray.is_initialized():
        os._exit(HEAD_LOST)


def _listens(path: str) -> bool:
    if sys.platform == "win32":  # no such sockets
        return True
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True
