"""Can a node work: does it run this package, with the same versions, and see the same storage?"""

from __future__ import annotations

import hashlib
import os
import platform
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from soundsight import __version__
from soundsight.cluster.storage import Storage, exists
from soundsight.errors import ConfigError, SoundsightError

CHECK_SECONDS = 180.0  # for a node to start its first process, on a busy machine


def environment() -> dict[str, str]:
    """Versions of what decides the bits of an image or a prediction.

    That of this package ends in 8 digits of its source's SHA-256, which differ between two checkouts of one version.
    """
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    names = ("torch", "numpy", "scipy", "soundfile", "soxr", "onnxruntime", "opencv")
    found = {"soundsight": f"{__version__}+{digest.hexdigest()[:8]}", "Python": platform.python_version()}
    found |= dict.fromkeys(names, "not installed")
    for package in (*names, "opencv-python", "opencv-python-headless"):
        with suppress(metadata.PackageNotFoundError):
            found["opencv" if package.startswith("opencv") else package] = metadata.version(package)
    return found


def mismatch(expected: Mapping[str, str], found: Mapping[str, str]) -> str:
    """What a node has of another version than the driver; empty if nothing."""
    for name, version in expected.items():
        if found.get(name) != version:
            return (
                f"has {name} {found.get(name)}, and this machine {version}; install the same version on both, or "
                "predictions may differ"
            )
    return ""


def check(ray: Any, folder: str, read: Sequence[str], write: Sequence[str]) -> None:
    """Ask all nodes at once whether they can work.

    Raises:
        ConfigError: One lacks the package, has another version of something, or does not see the storage.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    tokens = {place: f".probe-{os.urandom(8).hex()}" for place in write}
    task = ray.remote(num_cpus=0, max_retries=0)(_question())
    try:
        for place, token in tokens.items():
            Storage(place).write(token, token.encode())
        asked = [
            (
                node["NodeManagerAddress"],
                task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
                    environment(), list(read), folder, tokens
                ),
            )
            for node in ray.nodes()
            if node["Alive"]
        ]
        for name, reference in asked:
            try:
                said = ray.get(reference, timeout=CHECK_SECONDS)
            except ray.exceptions.GetTimeoutError:
                said = f"started no process within {CHECK_SECONDS:.0f} s"
            except ray.exceptions.RayError as error:
                said = f"cannot be asked ({' '.join(str(error).split())[:200]})"
            if said:
                raise ConfigError(f"Node {name} of the cluster {said}.")
    finally:
        for place, token in tokens.items():
            with suppress(ConfigError):
                Storage(place).remove(token)


def _question() -> Callable[..., str]:
    """A function that Ray sends as code, not by name: it must run where the package is missing."""

    def ask(expected: dict[str, str], read: list[str], folder: str, tokens: dict[str, str]) -> str:
        try:
            from soundsight.cluster import nodes
        except ImportError as error:
            try:
                import soundsight

                found = soundsight.__version__
            except (ImportError, AttributeError):
                wanted = expected["soundsight"].partition("+")[0]
                return f"does not have the package soundsight ({error}); install soundsight {wanted} there"
            return f"has soundsight {found}, and this machine {expected['soundsight']}; install the same on both"
        return nodes.mismatch(expected, nodes.environment()) or nodes.unseen(read, folder, tokens)

    return ask


def unseen(read: Sequence[str], folder: str, tokens: Mapping[str, str]) -> str:
    """On a node: the first path that it cannot use, and why; empty if it can use all."""
    wrong = {folder: "there is no such folder"} if not os.path.isdir(folder) else {}
    wrong |= {path: "it is not there" for path in read if not exists(path, folder)}
    for place, token in tokens.items():
        try:
            storage, mine = Storage(place), f"{token}-{socket.gethostname()}-{os.getpid()}"
            if storage.read(token) != token.encode():
                wrong[place] = "it holds other files"
            storage.write(mine, b"")
            storage.remove(mine)
        except SoundsightError as error:
            wrong[place] = str(error).rstrip(".")
    for path, reason in wrong.items():
        return (
            f"cannot use {path} ({reason}); every node must see it under this name: use a shared folder or an address "
            "such as s3://BUCKET/FOLDER"
        )
    return ""
