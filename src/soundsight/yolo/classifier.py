"""A trained network as a function from pictures to logits, from a checkpoint or an exported file.

Importing this module loads no PyTorch: an ONNX model answers without it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import soundsight.yolo.quiet  # noqa: F401  (before Ultralytics)

# Threads of PyTorch that wait without spinning: beside other work, spinning ones are 20 times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# isort: split
import numpy as np
import numpy.typing as npt

from soundsight import checks
from soundsight.config import SpectrogramConfig
from soundsight.errors import ConfigError, ModelError
from soundsight.yolo import checkpoint

if TYPE_CHECKING:
    import torch

Images = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


class Classifier:
    """A network with its ears; made by `load_classifier`. This one is PyTorch's."""

    has_gradients = True  # so that it can say what it attended to

    def __init__(self, network: Any, ears: checkpoint.Ears, *, device: Any, fingerprint: str) -> None:
        self.network = network
        self.ears = ears
        self.device = device
        self.fingerprint = fingerprint

    def logits(self, images: Images) -> Floats:
        """Raw scores of a batch of pictures.

        Args:
            images: uint8 RGB `(batch, height, width, 3)`, as `spectrogram.render` draws them.

        Returns:
            float32 `(batch, classes)`: logarithms of probabilities up to a constant a row.
        """
        import torch

        with torch.inference_mode():
            pixels = torch.from_numpy(np.ascontiguousarray(images)).to(self.device)
            pixels = pixels.permute(0, 3, 1, 2).float() / 255  # channels-last in memory, RGB, [0, 1]
            output = self.network(pixels)
            scores = output[1] if isinstance(output, tuple | list) else torch.log(output.clamp_min(1e-12))
            return scores.float().cpu().numpy()  # type: ignore[no-any-return]

    def scores(self, images: Images, *, shifts: int = 1, views: int = 1) -> Floats:
        """Mean log-probabilities over several looks at each window, before any temperature.

        Args:
            images: As for `logits`; the pictures of one window stand beside each other.
            shifts: Look at each picture in so many circular shifts in time ...
            views: ... and at so many pictures of each window.

        Returns:
            float32 `(batch / views, classes)`.
        """
        turns = [round(images.shape[2] * k / shifts) for k in range(shifts)]
        shown = (images[view::views] for view in range(views))
        looks = (np.roll(some, turn, axis=2) if turn else some for some in shown for turn in turns)
        return np.mean([log_softmax(self.logits(look)) for look in looks], axis=0)  # type: ignore[no-any-return]

    def probabilities(self, images: Images, *, shifts: int = 1, views: int = 1) -> Floats:
        """Calibrated class probabilities `(batch / views, classes)`; see `scores`."""
        return softmax(self.scores(images, shifts=shifts, views=views), self.ears.temperature)

    def features(self, images: Images) -> Floats:
        """What the last layer sees of each picture: pooled features, float32 `(batch, features)`."""
        caught: list[Any] = []
        layer = self.network.model[-1].linear
        hook = layer.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
        try:
            self.logits(images)
        finally:
            hook.remove()
        return caught[0].float().cpu().numpy()  # type: ignore[no-any-return]


def softmax(logits: Floats, temperature: float = 1.0) -> Floats:
    """Probabilities `(batch, classes)` of logits divided by `temperature`."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    exponent = np.exp(scaled)
    return (exponent / exponent.sum(axis=1, keepdims=True)).astype(np.float32)  # type: ignore[no-any-return]


def log_softmax(logits: Floats) -> Floats:
    """Log-probabilities `(batch, classes)` of logits."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))  # type: ignore[no-any-return]


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
        ModelError: The file is missing, unsafe, no classifier, or has no ears and none were supplied.
        ConfigError: The device does not exist.
    """
    checkpoint.require_file(path)
    path = Path(path)
    if path.suffix.lower() == ".pt" and path.is_file():
        return _load_checkpoint(path, device=device, spectrogram=spectrogram, trust=trust, threads=threads)
    from soundsight.yolo.exported import READERS

    kind = "folder" if path.is_dir() else path.suffix.lower()
    if kind == ".torchscript":
        raise ModelError(
            f"{path} is a TorchScript program, which is not read since it could do anything; export the checkpoint to "
            "ONNX with `soundsight export`, and use that file."
        )
    if kind not in READERS:
        raise ModelError(
            f"{path} is no model that can be read: a checkpoint .pt, an exported .onnx file or an OpenVINO folder is "
            "needed."
        )
    return READERS[kind](path, device=device, spectrogram=spectrogram, trust=trust, threads=threads)


def _load_checkpoint(
    path: Path, *, device: str | None, spectrogram: SpectrogramConfig | None, trust: bool, threads: int | None
) -> Classifier:
    import torch

    chosen = choose_device(device)
    data = checkpoint.read_file(path)
    content = checkpoint.parse_checkpoint(data, path, trust=trust)
    model = checkpoint.checkpoint_model(content)
    ears = checkpoint.read_ears(
        getattr(model, "soundsight", None), path, checkpoint.class_names(model, path), supplied=spectrogram
    )
    trained = (content.get("train_args") or {}).get("imgsz")
    if ears.supplied and isinstance(trained, int) and trained != ears.spectrogram.image_size:
        raise ModelError(
            f"{path} was trained on images of {trained} pixels, but the given spectrogram settings have image_size="
            f"{ears.spectrogram.image_size}; it would answer wrongly. Give settings with image_size={trained}."
        )
    if threads:
        torch.set_num_threads(threads)
    try:
        network = model.float().eval().fuse(verbose=False).to(chosen).to(memory_format=torch.channels_last)
    except Exception as error:  # whatever layers that lack their parts provoke
        raise ModelError(f"{path} holds a network that does not fit together; it is damaged.") from error
    classifier = Classifier(network, ears, device=chosen, fingerprint=checkpoint.hash_of(data)[:12])
    return check_answer(classifier, path, ears)


def check_answer(classifier: Classifier, path: Path, ears: checkpoint.Ears) -> Classifier:
    """Ask for one black picture, so that a file that lies about its network is found out.

    Raises:
        ModelError: The network fails, or answers with something else than one number a class.
    """
    size = ears.spectrogram.image_size
    try:
        answer = classifier.logits(np.zeros((1, size, size, 3), np.uint8))
    except Exception as error:  # whatever layers that do not fit together provoke
        text = " ".join(str(error).split())[:160] or type(error).__name__
        raise ModelError(
            f"{path} does not accept the {size} x {size} pictures that its settings draw ({text})."
        ) from error
    if answer.shape != (1, len(ears.names)) or not np.isfinite(answer).all():
        raise ModelError(
            f"{path} names {len(ears.names)} classes, but answers with shape {answer.shape} or values that are no "
            "numbers; it is damaged."
        )
    return classifier


def choose_device(device: str | None) -> torch.device:
    """The device to compute on.

    Raises:
        ConfigError: A GPU was asked for that PyTorch does not see.
    """
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
    checks.check_gpus(text)
    raise ConfigError(f"device={text} is not understood; write cpu, mps, or the number of a GPU, such as 0.")
