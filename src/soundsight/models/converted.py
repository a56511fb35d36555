"""The fastest way to predict on a processor that agrees with PyTorch: a checkpoint, converted once to ONNX.

The first time a checkpoint is used without a GPU it is exported into the user's cache folder, under its own hash and
that of the checkpoint, and compared with PyTorch on a few images. From then on it predicts without PyTorch being
loaded: in a fraction of a second, with the same probabilities. What ONNX Runtime cannot do (features, gradients)
loads PyTorch at that moment. Where a package is missing, or predictions differ, PyTorch predicts as before.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from soundsight.backend import checkpoint, quiet
from soundsight.errors import ConfigError, ModelError, SoundsightError
from soundsight.files import TEMP_PREFIX
from soundsight.models.classifier import Classifier, Floats, Images
from soundsight.models.load import load_classifier
from soundsight.models.readers import onnx

AGREEMENT = 1e-4  # largest difference of a probability
KEPT = 20  # converted checkpoints; the longest unused goes first
_PACKAGES = ("onnx", "onnxruntime", "onnxslim")
_GPUS = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
RUNTIMES = ("auto", "pytorch", "onnxruntime")


class Converted(Classifier):
    """A checkpoint whose probabilities ONNX Runtime computes; PyTorch is loaded for all else."""

    def __init__(self, fast: Classifier, load: Callable[[], Classifier], model_hash: str) -> None:
        self.fast = fast
        self.load = load
        self.preprocessing = fast.preprocessing
        self.device = fast.device
        self.model_hash = model_hash

    @cached_property
    def slow(self) -> Classifier:
        """The same model in PyTorch."""
        loaded = self.load()
        if loaded.model_hash != self.model_hash:
            raise ModelError("The model's file has changed since it was loaded; load it again.")
        return loaded

    @property
    def network(self) -> Any:  # type: ignore[override]
        """PyTorch's network."""
        return self.slow.network

    def logits(self, images: Images) -> Floats:
        return self.fast.logits(images)

    def features(self, images: Images) -> Floats:
        return self.slow.features(images)


def load_fastest(
    path: str | Path,
    *,
    runtime: str = "auto",
    device: str | None = None,
    threads: int | None = None,
    **more: Any,
) -> Classifier:
    """Load a model to predict with; the other arguments are those of `load_classifier`."""
    if runtime not in RUNTIMES:
        raise ConfigError(f"runtime={runtime!r} is not allowed; choose one of {', '.join(RUNTIMES)}.")
    checkpoint.require_file(path)
    path = Path(path)

    def pytorch() -> Classifier:
        return load_classifier(path, device=device, threads=threads, **more)

    is_checkpoint = path.suffix.lower() == ".pt" and path.is_file()
    plain = is_checkpoint and not any(more.values())
    if runtime == "onnxruntime" and not (plain and device in (None, "", "cpu")):
        raise ConfigError(
            "runtime=onnxruntime is for a checkpoint .pt with its own preprocessing on device=cpu; leave it out here."
        )
    if runtime == "pytorch" or not plain:
        return pytorch()
    if runtime == "auto" and not (_is_for_processor(device) and all(map(importlib.util.find_spec, _PACKAGES))):
        return pytorch()
    key = checkpoint.hash_of(checkpoint.read_file(path))
    try:
        fast = _find(path, key, threads)
    except SoundsightError:
        if runtime == "onnxruntime":
            raise
        return pytorch()
    return Converted(fast, pytorch, key[:12]) if fast else pytorch()


def _is_for_processor(device: str | None) -> bool:
    """Whether the processor is to compute; found out without loading PyTorch."""
    if device == "cpu":
        return True
    return device in (None, "") and os.name == "posix" and not any(map(os.path.exists, _GPUS))


def _find(path: Path, key: str, threads: int | None) -> Classifier | None:
    """The converted checkpoint, made if it is not there yet; `None` where it predicts otherwise than PyTorch.

    Its name is the hash of the checkpoint, the format, and its own hash: a changed file is not used.
    """
    folder = quiet.cache_folder() / "onnx"
    differs = folder / f"{key}-{checkpoint.FORMAT}.differs"
    if differs.is_file():
        return None
    for found in folder.glob(f"{key}-{checkpoint.FORMAT}-*.onnx"):
        with suppress(ModelError):
            data = checkpoint.read_file(found)
            if found.stem.endswith(checkpoint.hash_of(data)):
                os.utime(found)
                return onnx.read(found, device="cpu", spectrogram=None, trust=False, threads=threads, data=data)
        found.unlink(missing_ok=True)  # damaged: made again
    from soundsight.backend.export import export

    draft = export(path, "onnx", out=folder / f"{TEMP_PREFIX}{os.getpid()}-{key}.onnx")
    try:
        data = draft.read_bytes()
        fast = onnx.read(draft, device="cpu", spectrogram=None, trust=False, threads=threads, data=data)
        slow = load_classifier(path, device="cpu", threads=threads)
        if not checkpoint.file_hash(path) == key:
            raise ModelError(f"{path} changed while it was converted; try again.")
        if not agree(fast, slow):
            differs.touch()
            return None
        os.replace(draft, folder / f"{key}-{checkpoint.FORMAT}-{checkpoint.hash_of(data)}.onnx")
    finally:
        draft.unlink(missing_ok=True)
    kept = sorted(folder.glob("*.onnx"), key=lambda file: file.stat().st_mtime)
    for old in kept[:-KEPT]:
        with suppress(OSError):
            old.unlink()
    return fast


def agree(one: Classifier, other: Classifier) -> bool:
    """Whether two models give the same probabilities for a few images: noise, stripes, black."""
    size = one.preprocessing.spectrogram.image_size
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (2, size, size, 3), np.uint8)
    columns = np.broadcast_to(random.integers(0, 256, (1, 1, size, 3), np.uint8), (1, size, size, 3))
    rows = np.broadcast_to(random.integers(0, 256, (1, size, 1, 3), np.uint8), (1, size, size, 3))
    images = np.concatenate([noise, columns, rows, np.zeros((1, size, size, 3), np.uint8)])
    return float(np.abs(one.probabilities(images) - other.probabilities(images)).max()) <= AGREEMENT
