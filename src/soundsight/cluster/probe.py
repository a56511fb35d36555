"""Can a node work for us: does it run this package, with the same versions, and see the same storage?

A probe runs on the node; what it finds becomes a sentence. Beside `connect`, which asks it of every node.
"""

from __future__ import annotations

import hashlib
import os
import platform
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soundsight import __version__
from soundsight.cluster.storage import Place, exists
from soundsight.errors import SoundsightError

if TYPE_CHECKING:
    from soundsight.cluster.connect import Cluster

CHECK_SECONDS = 180.0  # for a node to start its first process, on a busy machine


def on_node(ray: Any, node: str) -> Any:
    """Ray's scheduling strategy that means one node and no other."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=False)


def versions() -> dict[str, str]:
    """Versions of the packages that decide the bits of a picture or an answer."""
    found = dict.fromkeys(("torch", "numpy", "scipy", "soundfile", "soxr", "opencv", "onnxruntime"), "not installed")
    for package in (*found, "opencv-python", "opencv-python-headless"):
        with suppress(metadata.PackageNotFoundError):
            found["opencv" if package.startswith("opencv") else package] = metadata.version(package)
    return found


def package_mark() -> str:
    """The version of this package and 8 digits of its source, which tell apart two checkouts of one version."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return f"{__version__}+{digest.hexdigest()[:8]}"


def check_node(cluster: Cluster, node: dict[str, Any]) -> str:
    """What stands in the way of a node, in a sentence; empty if nothing does."""
    ray, name = cluster.ray, node["NodeManagerAddress"]
    tokens = {folder: f".probe-{os.urandom(8).hex()}" for folder in cluster.needs.write}
    places = {folder: Place(folder) for folder in tokens}
    for folder, token in tokens.items():
        places[folder].write(token, token.encode())
    task = ray.remote(_probe_task())
    strategy = on_node(ray, node["NodeID"])
    found: dict[str, Any]
    try:
        remote = task.options(num_cpus=0, max_retries=0, scheduling_strategy=strategy)
        found = ray.get(remote.remote(list(cluster.needs.read), cluster.needs.folder, tokens), timeout=CHECK_SECONDS)
    except ray.exceptions.GetTimeoutError:
        return f"Node {name} of the cluster started no process within {CHECK_SECONDS:.0f} s."
    except (ray.exceptions.RayError, SoundsightError) as error:
        return f"Node {name} of the cluster cannot be asked ({' '.join(str(error).split())[:200]})."
    finally:
        for folder, token in tokens.items():
            places[folder].remove(token)
    return _sentence(name, found)


def _sentence(name: str, found: dict[str, Any]) -> str:
    mark = package_mark()
    if found["package"] is None:
        return (
            f"Node {name} of the cluster does not have the package soundsight ({found['reason']}); install "
            f"soundsight {__version__} there, for {found['python']}."
        )
    if found["package"] != mark:
        return (
            f"Node {name} of the cluster has soundsight {found['package']}, and this machine has {mark}; install the "
            "same version on both, or answers may differ."
        )
    for package, own in versions().items():
        if found["versions"].get(package) != own:
            return (
                f"Node {name} of the cluster has {package} {found['versions'].get(package)}, and this machine {own}; "
                "install the same version on both, or answers may differ."
            )
    if found["python"] != platform.python_version():
        return f"Node {name} runs Python {found['python']}, and this machine {platform.python_version()}."
    for path, reason in found["unseen"].items():
        return (
            f"Node {name} of the cluster cannot use {path} ({reason}); every node must see it under this name: "
            "use a shared folder or an address such as s3://BUCKET/FOLDER."
        )
    return ""


def _probe_task() -> Callable[..., dict[str, Any]]:
    """A function that Ray sends as code, not by name: it must run where the package is missing."""

    def probe(read: list[str], folder: str, tokens: dict[str, str]) -> dict[str, Any]:
        import platform

        found: dict[str, Any] = {"package": None, "python": platform.python_version(), "reason": "", "unseen": {}}
        try:
            from soundsight.cluster.probe import look, package_mark, versions
        except ImportError as error:
            found["reason"] = str(error)
            try:
                import soundsight

                found["package"] = soundsight.__version__
            except (ImportError, AttributeError):
                pass
            return found
        found["package"] = package_mark()
        found["versions"] = versions()
        found["unseen"] = look(read, folder, tokens)
        return found

    return probe


def look(read: Sequence[str], folder: str, tokens: dict[str, str]) -> dict[str, str]:
    """On a node: which paths cannot be used, and why."""
    unseen = {}
    if folder and not os.path.isdir(folder):
        unseen[folder] = "there is no such folder"
    for path in read:
        if not exists(path, folder):
            unseen[path] = "it is not there"
    for place, token in tokens.items():
        try:
            mine = f"{token}-{socket.gethostname()}-{os.getpid()}"
            if Place(place).read(token) != token.encode():
                unseen[place] = "it holds other files"
            Place(place).write(mine, b"")
            Place(place).remove(mine)
        except SoundsightError as error:
            unseen[place] = str(error).rstrip(".")
    return unseen
