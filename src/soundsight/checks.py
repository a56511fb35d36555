"""What cannot work is refused before long work begins: a forgotten mount, right, GPU or memory; data that cannot train.

Each check raises one message that says what to add, before long work begins. All of them hold outside a
container as well, where the advice is another. PyTorch is imported by those of devices only.
"""

from __future__ import annotations

import errno
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soundsight.config import SpectrogramConfig
from soundsight.errors import ConfigError, DatasetError, ModelError, SoundsightError

if TYPE_CHECKING:
    import torch

SHARED_MEMORY = Path("/dev/shm")
PREFETCHED = 4  # batches that Ultralytics lets each worker process render ahead


def in_container() -> bool:
    """Whether this is the image of `docker/Dockerfile`, or another container."""
    return workspace() is not None or Path("/.dockerenv").exists() or Path("/run/.containerenv").exists()


def workspace() -> Path | None:
    """The image's folder for the user's files, `/workspace`; `None` outside the image."""
    named = os.environ.get("SOUNDSIGHT_WORKSPACE")
    return Path(named) if named else None


def check_data(folder: str | Path) -> None:
    """Raise `DatasetError` if a folder holds nothing because no folder of the host is in the container."""
    folder, place = Path(folder), workspace()
    if place is None or is_mounted(place) or (folder.is_dir() and any(folder.iterdir())):
        return
    raise DatasetError(
        f"There is nothing in {folder}, since no folder of this computer is mounted at {place}: "
        f'add -v "$PWD":{place} to docker run.'
    )


def lost_results() -> str | None:
    """A warning if what is written disappears with the container, else `None`."""
    place = workspace()
    if place is None or is_mounted(place):
        return None
    return (
        f'Nothing is mounted at {place}: results end with the container, unless you add -v "$PWD":{place} '
        "to docker run."
    )


def check_writable(folder: str | Path) -> None:
    """Raise `ConfigError` if a folder can be neither written to nor made."""
    place = Path(folder).absolute()
    while not os.path.exists(place) and place != place.parent:  # False where we may not look, unlike Path.exists
        place = place.parent
    try:
        if not place.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        raise ConfigError(f"{place} cannot be written to: {_write_advice(place, error)}.") from error


def _write_advice(place: Path, error: OSError) -> str:
    if error.errno == errno.EROFS:
        return "it is mounted read-only; remove :ro from its -v" if in_container() else "it is read-only"
    if error.errno in (errno.EACCES, errno.EPERM) and hasattr(os, "geteuid"):
        owner = place.stat()
        whose = f"it belongs to user {owner.st_uid}, and this is user {os.geteuid()}"
        if not in_container() or owner.st_uid == os.geteuid():
            return f"{whose}; change its permissions, or name another folder"
        if owner.st_uid == 0:
            return f"{whose}; docker run makes a missing folder as root, so make it yours with chown first"
        return f"{whose}; add --user {owner.st_uid}:{owner.st_gid} to docker run"
    return f"{error.strerror or error}; name another folder".lower()


def check_gpus(device: object) -> None:
    """Raise `ConfigError` unless PyTorch sees every GPU that `device` names, such as 0, "cuda:1" or "0,1"."""
    wanted = [int(number) for number in re.findall(r"\d+", str(device))]
    if not wanted:
        return
    import torch

    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if max(wanted) >= seen:
        few = {0: "no CUDA GPU", 1: "one CUDA GPU, number 0"}
        found = few.get(seen, f"{seen} CUDA GPUs, numbers 0 to {seen - 1}")
        raise ConfigError(f"device={device} is not there: PyTorch sees {found}; {_gpu_advice(seen)}.")


def choose_device(device: str | None) -> torch.device:
    """The device to compute on."""
    import torch

    if device in (None, ""):
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    text = str(device)
    if text == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device=mps is not there: PyTorch sees no GPU of Apple; use another device, or device=cpu.")
    if text in ("cpu", "mps"):
        return torch.device(text)
    index = text.removeprefix("cuda").lstrip(":") or "0"
    if index.isdigit() and int(index) < torch.cuda.device_count():
        return torch.device(f"cuda:{index}")
    check_gpus(text)
    raise ConfigError(f"device={text} is not understood; write cpu, mps, or the number of a GPU, such as 0.")


def _gpu_advice(seen: int) -> str:
    import torch

    if torch.version.cuda is None:
        return "this PyTorch is built without CUDA, so use device=cpu"
    driver = Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists()  # the latter under Windows
    if not seen and driver:
        return f"update the NVIDIA driver to one for CUDA {torch.version.cuda}, or use device=cpu"
    return "add --gpus all to docker run, or use device=cpu" if in_container() else "use another device, or device=cpu"


def check_shared_memory(
    *, workers: int, batch: int, image_size: int, value_bytes: int = 1, folder: str | Path = SHARED_MEMORY
) -> None:
    """Raise `ConfigError` if worker processes cannot pass their batches through shared memory.

    Args:
        workers: Processes that read images, of all GPUs together.
        batch: Images in a batch of one process.
        image_size: Pixels of an image's side.
        value_bytes: Bytes of one value: 1 for uint8, 4 for float32 (Ultralytics' own loader).
        folder: Where shared memory is; a system without it is not checked.
    """
    if workers < 1 or not hasattr(os, "statvfs"):
        return
    try:
        found = os.statvfs(folder)
    except OSError:
        return
    free = found.f_bavail * found.f_frsize
    need = workers * PREFETCHED * batch * 3 * image_size**2 * value_bytes
    if need <= free:
        return
    add = "add --ipc=host to docker run, or set workers=0" if in_container() else "set fewer workers"
    raise ConfigError(
        f"Shared memory is too small: {folder} has {free / 1e6:.0f} MB free, and workers={workers} with "
        f"batch={batch} and imgsz={image_size} may fill {need / 1e6:.0f} MB; {add}."
    )


def is_mounted(place: Path, table: str | Path = "/proc/self/mountinfo") -> bool:
    """Whether a folder, or one below it, is a mount; where the system does not tell, yes."""
    try:
        lines = Path(table).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return True
    points = [Path(line.split()[4].replace("\\040", " ")) for line in lines if len(line.split()) > 4]
    return any(point == place or place in point.parents for point in points)


def check_renderer(config: SpectrogramConfig, found: object, what: object, error: type[SoundsightError]) -> None:
    """Raise `error` if data or a model (`what`) was made by a renderer (`found`) too old for its settings."""
    if not isinstance(found, int) or found < config.renderer:
        raise error(
            f"{what} was made with wrong spectrograms: Soundsight 0.1.0 read the wrong samples where one of "
            f"windows_ms={list(config.windows_ms)} is as long as n_fft={config.n_fft} samples. Prepare the data again "
            "with this version, and train again."
        )


def check_trainable(image_size: int) -> None:
    """Raise `ConfigError` for a size in pixels that no YOLO network can be trained with."""
    if rest := image_size % 32:
        raise ConfigError(
            f"image_size={image_size} cannot be trained: YOLO takes multiples of 32. Prepare the data with "
            f"image_size={image_size - rest} or image_size={image_size - rest + 32}."
        )


def require(package: str, source: str) -> Any:
    """Import a package, or say how to get it."""
    try:
        return __import__(package)
    except ImportError as error:
        raise ModelError(
            f'This needs the package {package.split(".")[0]}, which is not installed; run pip install "{source}".'
        ) from error
