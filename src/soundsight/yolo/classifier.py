"""A trained network as a function from pictures to logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import soundsight.yolo.quiet  # noqa: F401  (before Ultralytics)

# isort: split
import numpy as np
import numpy.typing as npt
import torch

from soundsight.config import SpectrogramConfig
from soundsight.errors import ConfigError
from soundsight.yolo import checkpoint

Images = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


class Classifier:
    """A network with its ears; made by `load_classifier`."""

    def __init__(self, network: Any, ears: checkpoint.Ears, *, device: torch.device, fingerprint: str) -> None:
        self.network = network
        self.ears = ears
        self.device = device
        self.fingerprint = fingerprint

    @torch.inference_mode()
    def logits(self, images: Images) -> Floats:
        """Raw scores of a batch of pictures.

        Args:
            images: uint8 RGB `(batch, height, width, 3)`, as `spectrogram.render` draws them.

        Returns:
            float32 `(batch, classes)`: logarithms of probabilities up to a constant a row.
        """
        pixels = torch.from_numpy(np.ascontiguousarray(images)).to(self.device)
        pixels = pixels.permute(0, 3, 1, 2).float() / 255  # channels-last in memory, RGB, [0, 1]
        output = self.network(pixels)
        scores = output[1] if isinstance(output, tuple | list) else torch.log(output.clamp_min(1e-12))
        return scores.float().cpu().numpy()

    def probabilities(self, images: Images) -> Floats:
        """Calibrated class probabilities `(batch, classes)` of pictures; see `logits`."""
        return softmax(self.logits(images), self.ears.temperature)


def softmax(logits: Floats, temperature: float = 1.0) -> Floats:
    """Probabilities `(batch, classes)` of logits divided by `temperature`."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    exponent = np.exp(scaled)
    return (exponent / exponent.sum(axis=1, keepdims=True)).astype(np.float32)


def load_classifier(
    path: str | Path,
    *,
    device: str | None = None,
    spectrogram: SpectrogramConfig | None = None,
    trust: bool = False,
) -> Classifier:
    """Load a trained model.

    Args:
        path: A `.pt` checkpoint.
        device: "cpu", "cuda", "0"...; `None` takes the first GPU, or else the CPU.
        spectrogram: Settings for a model that carries none, or to override its own.
        trust: See `checkpoint.load_checkpoint`.

    Raises:
        ModelError: The file is missing, unsafe, no classifier, or has no ears and none were supplied.
        ConfigError: The device does not exist.
    """
    checkpoint.require_file(path)
    chosen = choose_device(device)
    data = checkpoint.load_checkpoint(path, trust=trust)
    model = checkpoint.checkpoint_model(data).float().eval()
    names = tuple(model.names[i] for i in sorted(model.names))
    ears = checkpoint.read_ears(getattr(model, "soundsight", None), path, names, supplied=spectrogram)
    network = model.fuse(verbose=False).to(chosen).to(memory_format=torch.channels_last)
    return Classifier(network, ears, device=chosen, fingerprint=checkpoint.file_fingerprint(path))


def choose_device(device: str | None) -> torch.device:
    """The device to compute on.

    Raises:
        ConfigError: A GPU was asked for that PyTorch does not see.
    """
    if device in (None, ""):
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    text = str(device)
    if text == "cpu" or text == "mps":
        return torch.device(text)
    index = text.removeprefix("cuda").lstrip(":") or "0"
    if index.isdigit() and int(index) < torch.cuda.device_count():
        return torch.device(f"cuda:{index}")
    raise ConfigError(
        f"device={text} is not there: PyTorch sees {torch.cuda.device_count()} CUDA GPUs; use device=cpu, "
        "or start the container with --gpus all."
    )
