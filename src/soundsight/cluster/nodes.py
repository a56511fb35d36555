"""Can a node work: does it run this package, with the same versions, and see the same storage?"""

from __future__ import annotations

import hashlib
import os
import platform
import socket
from collections.abc import Mapping, Sequence
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
    found = {"soundsight": f"{__version__}+{digest.hexdigest()[:8]}", "Python": platform.python_version()}
    for name in "torch numpy scipy soundfile soxr onnxruntime opencv-python opencv-python-headless".split():
        with suppress(metadata.PackageNotFoundError):
            found["opencv" if name.startswith("opencv") else name] = metadata.version(name)
    return found


def mismatch(expected: Mapping[str, str], found: Mapping[str, str]) -> str:
    """What a node has of another version than the driver; empty if nothing."""
    for name in {**expected, **found}:
        here, there = (versions.get(name, "not installed") for versions in (expected, found))
        if here != there:
            return f"has {name} {there}, and this machine {here}; install the same on both, or predictions may differ"
    return ""


def check(ray: Any, folder: str, read: Sequence[str], write: Sequence[str]) -> None:
    """Raise `ConfigError` if a node lacks the package, has another version of anything, or sees another storage."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

    tokens = {place: f".probe-{os.urandom(8).hex()}" for place in write}
    task, problems = ray.remote(num_cpus=0, max_retries=0)(_problem), []
    try:
        for place, token in tokens.items():
            Storage(place).write(token, token.encode())
        names = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
        there = [task.options(scheduling_strategy=On(key, soft=False)) for key in names]
        replies = [on.remote(environment(), list(read), folder, tokens) for on in there]
        for (key, name), reply in zip(names.items(), replies, strict=True):
            try:
                problem = ray.get(reply, timeout=CHECK_SECONDS)
            except ray.exceptions.GetTimeoutError:
                problem = f"started no process within {CHECK_SECONDS:.0f} s"
            except ray.exceptions.RayError as error:  # its last line is that of the error on the node
                last = str(error).strip().splitlines()[-1]
                problem = f"cannot work ({last}); install soundsight {__version__} with the extra ray there"
                if key not in [node["NodeID"] for node in ray.nodes() if node["Alive"]]:
                    continue  # it went away meanwhile
            if problem:
                problems.append(f"Node {name} of the cluster {problem}.")
    finally:
        for place, token in tokens.items():
            with suppress(ConfigError):
                Storage(place).remove(token)
    if problems:
        raise ConfigError(" ".join(problems[:5]))


def _problem(expected: dict[str, str], read: list[str], folder: str, tokens: dict[str, str]) -> str:
    """On a node: why it cannot work."""
    return mismatch(expected, environment()) or unseen(read, folder, tokens)


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
