"""Joining a Ray cluster, and the end of the command when its head goes away.

Ray reports no usage and opens no dashboard.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from soundsight import parallel
from soundsight.cluster import nodes
from soundsight.config import ClusterConfig
from soundsight.errors import ConfigError

ANSWER_SECONDS = 5.0  # a head that does not take a connection within this is not there
JOIN_SECONDS = 120.0  # Ray waits for ever for what is no head
STORE_BYTES = 200_000_000  # shared memory of a Ray of our own; tasks and results are small


@dataclass
class Cluster:
    """A connection to Ray."""

    ray: Any  # the module
    folder: str  # that relative paths start from

    def resources(self) -> list[dict[str, float]]:
        """What each node that is alive has, in Ray's names: CPU, GPU, ..."""
        return [node["Resources"] for node in self.ray.nodes() if node["Alive"]]

    def slots(self, cpus: int, gpus: float) -> int:
        """Tasks of so many cores and GPUs that all nodes can run at once."""
        return sum(
            int(min(has.get("CPU", 0) // cpus, has.get("GPU", 0) / gpus if gpus else cpus * 1e9))
            for has in self.resources()
        )

    def gpus_of_task(self, config: ClusterConfig) -> float:
        """GPUs of one task or trial in which a network runs."""
        return float(any(has.get("GPU", 0) >= 1 for has in self.resources())) if config.gpus is None else config.gpus


def load_ray(config: ClusterConfig) -> Any:
    """The module ray, with our settings for it."""
    if find_address(config) is None:  # a Ray of our own has a token of its own, which is left in nobody's home
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # read when Ray is loaded
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_worker_niceness", "0")  # of a Ray of our own; its 15 starves beside other work
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # leave the GPUs of CPU tasks as they are
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            'The engine ray needs the package Ray, which is not installed; run pip install "soundsight[ray]", '
            "on every node."
        ) from error
    import ray._private.worker as worker

    worker.print_to_stdstream = lambda *_, **__: None  # a notice of each retry, on standard output
    return ray


def find_address(config: ClusterConfig) -> str | None:
    """The head's HOST:PORT; `None` for a Ray of our own on this machine."""
    address = config.address or os.environ.get("RAY_ADDRESS")
    if not address or address == "local":
        return None
    if address.startswith("ray://"):
        raise ConfigError(
            f"address={address} is Ray's client port, which is not supported: run the command on a machine of the "
            "cluster (or through `ray job submit`) with address=HOST:6379."
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigError(f"address={address} is not understood; write HOST:PORT of the head, such as 10.0.0.1:6379.")
    return address


def responds(address: str, seconds: float = ANSWER_SECONDS) -> bool:
    """Whether anything takes connections there."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=seconds):
            return True
    except OSError:
        return False


@contextmanager
def connect(config: ClusterConfig, *, read: Sequence[str] = (), write: Sequence[str] = ()) -> Iterator[Cluster]:
    """Join a cluster, for as long as the block runs; a Ray of our own ends with it.

    Every node must see the paths `read`, and our files in the folders `write`, where it writes its own; or else, as
    when nothing responds, `ConfigError` is raised.
    """
    address = find_address(config)
    if address and not responds(address):
        raise ConfigError(
            f"Nothing responds at {address} within {ANSWER_SECONDS:.0f} s: start a cluster there with "
            f"`ray start --head --port={address.rpartition(':')[2]}`, or correct the address."
        )
    ray = load_ray(config)
    own = {"num_cpus": parallel.cores(), "object_store_memory": STORE_BYTES, "include_dashboard": False}
    slow = f"{address or 'Ray here'} did not let us in within {JOIN_SECONDS:.0f} s; is it a Ray head?"
    limit = threading.Timer(JOIN_SECONDS, _end, [slow, 2])
    limit.daemon = True
    limit.start()
    on_term = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address or "local", log_to_driver=False, logging_level="ERROR", **({} if address else own))
    except (RuntimeError, ValueError, OSError, AssertionError, ray.exceptions.RayError) as error:
        raise ConfigError(_refusal(address, error)) from error
    finally:
        limit.cancel()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_term)  # Ray's own prints a stack
    if address:
        threading.Thread(target=_watch_head, args=(ray, address), daemon=True, name="soundsight-head").start()
    try:
        nodes.check(ray, os.getcwd(), read, write)
        yield Cluster(ray, os.getcwd())
    finally:
        ray.shutdown()


def _refusal(address: str | None, error: BaseException) -> str:
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    if address is None:
        return f"Ray does not start on this machine ({reason})."
    return (
        f"The cluster at {address} does not let this machine in ({reason}); run the command on the head or on what "
        f"joined it by `ray start --address={address}`, with the versions of Ray and Python that they have. If it asks "
        "for a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH to a copy of the head's ~/.ray/auth_token."
    )


def _watch_head(ray: Any, address: str) -> None:
    """End this process when the head has gone: Ray itself hangs for a minute, then kills it without a message."""
    failed = 0
    while failed < 3:
        time.sleep(1)
        failed = 0 if responds(address, 3) else failed + 1
    if ray.is_initialized():
        _end(
            f"The head of the cluster at {address} went away; what is done is kept: run the same command again when "
            "it is back.",
            1,
        )


def _end(message: str, code: int) -> None:
    os.write(2, f"soundsight: {message}\n".encode())
    os._exit(code)
