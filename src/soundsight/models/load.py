"""From a model file to a classifier: the reader of its format is found in the registry `readers`."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from soundsight.backend import checkpoint
from soundsight.config import SpectrogramConfig
from soundsight.errors import ModelError
from soundsight.models import readers
from soundsight.models.classifier import Classifier


def load_classifier(
    path: str | Path,
    *,
    device: str | None = None,
    spectrogram: SpectrogramConfig | None = None,
    trust: bool = False,
    threads: int | None = None,
) -> Classifier:
    """Load a trained model.

    Args:
        path: A `.pt` checkpoint, or what `export` made of one: `.onnx`, an OpenVINO folder.
        device: "cpu", "cuda", "0"...; `None` takes the first GPU, or else the CPU.
        spectrogram: Settings for a model that carries none, or to override its own.
        trust: See `checkpoint.load_checkpoint`.
        threads: Processor threads to compute with; `None` takes all.

    Raises:
        ModelError: The file is missing, unsafe, no classifier, or has no preprocessing and none were supplied.
        ConfigError: The device does not exist.
    """
    checkpoint.require_file(path)
    path = Path(path)
    kind = "folder" if path.is_dir() else path.suffix.lower()
    if kind == ".torchscript":
        raise ModelError(
            f"{path} is a TorchScript program, which is not read since it could do anything; export the checkpoint to "
            "ONNX with `soundsight export`, and use that file."
        )
    modules = [import_module(f"{readers.__name__}.{module.name}") for module in iter_modules(readers.__path__)]
    reader = next((module for module in modules if kind in module.KINDS), None)
    if reader is None:
        raise ModelError(
            f"{path} is no model that can be read: a checkpoint .pt, an exported .onnx file or an OpenVINO folder is "
            "needed."
        )
    found: Classifier = reader.read(path, device=device, spectrogram=spectrogram, trust=trust, threads=threads)
    return found
