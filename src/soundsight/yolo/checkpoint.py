"""Checkpoints: loaded as data, never as programs, and carrying the ears of their model.

The ears are a plain dictionary on the model object, `model.soundsight`: format version, spectrogram
settings, class names, temperature. They travel with every copy that Ultralytics makes of the model.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import soundsight.yolo.quiet  # noqa: F401  (before Ultralytics)
from soundsight.config import SpectrogramConfig, from_dict, to_dict
from soundsight.errors import ConfigError, ModelError
from soundsight.files import write_bytes
from soundsight.yolo.screen import screen, screen_content

FORMAT = 1


@dataclass(frozen=True)
class Ears:
    """What a model must know to hear: how to draw clips, and what its outputs mean."""

    names: tuple[str, ...]  # classes in the order of the model's outputs
    spectrogram: SpectrogramConfig
    temperature: float = 1.0  # logits are divided by it before the softmax
    threshold: float = 0.0  # below it a probability counts as "unknown", unless the user says otherwise; 0: none
    seen: Any = None  # hashes of the clips of its training, see `experiment.seen`; None: it does not say
    supplied: bool = False  # given by the user for a model that carries none


def make_ears(config: SpectrogramConfig | None, names: list[str], **more: Any) -> dict[str, Any]:
    """What a checkpoint carries: plain data, so that the safest way of loading suffices."""
    return {"format": FORMAT, "spectrogram": to_dict(config) if config else None, "names": names, **more}


def read_ears(data: object, path: str | Path, names: tuple[str, ...], *, supplied: SpectrogramConfig | None) -> Ears:
    """Check the ears found in a model file.

    Args:
        data: What the file holds under `soundsight`, or `None`.
        path: The file, for messages.
        names: The class names that the model itself states.
        supplied: Settings from the user, which win over the model's own.

    Raises:
        ModelError: There are no ears and none were supplied, or they are damaged or of a newer format.
    """
    found = data if isinstance(data, dict) else {}
    if found.get("format", FORMAT) not in range(1, FORMAT + 1):
        raise ModelError(
            f"{path} was written by a newer Soundsight (format {found.get('format')!r}, this one reads up to "
            f"{FORMAT}); upgrade soundsight."
        )
    if not found.get("spectrogram"):
        if supplied is None:
            raise ModelError(
                f"{path} does not say how its spectrograms were drawn (it was not trained by `soundsight "
                "train`); supply the settings with --spectrogram FILE.yaml."
            )
        return Ears(names, supplied, supplied=True)
    try:
        config = from_dict(SpectrogramConfig, found["spectrogram"], where=f"{path}")
        temperature, threshold = float(found.get("temperature", 1.0)), float(found.get("threshold", 0.0))
        ears = Ears(tuple(map(str, found["names"])), config, temperature, threshold, found.get("seen"))
    except (ConfigError, KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise ModelError(f"The spectrogram settings inside {path} are damaged ({str(error)[:300]}).") from error
    if not 0.01 <= ears.temperature <= 100:
        raise ModelError(f"The temperature inside {path} is {ears.temperature:g}; 0.01 to 100 is allowed.")
    if len(ears.names) != len(names) or not 0 <= ears.threshold <= 1:
        raise ModelError(
            f"{path} names {len(ears.names)} classes but its network has {len(names)} outputs; it is damaged."
        )
    if supplied is not None and supplied != config:
        return replace(ears, spectrogram=supplied, supplied=True)
    return ears


def load_checkpoint(path: str | Path, *, trust: bool = False) -> dict[str, Any]:
    """Load a `.pt` checkpoint without running code from it.

    Args:
        path: The file.
        trust: Unpickle whatever it holds; a hostile file then runs code.

    Raises:
        ModelError: The file is missing, damaged, no YOLO classifier, or holds more than data and known layers.
    """
    require_file(path)
    if not trust:
        screen(path)
    from ultralytics.nn.tasks import torch_safe_load

    try:
        checkpoint, _ = torch_safe_load(str(path), safe_only=not trust)
    except Exception as error:  # whatever a damaged or hostile pickle provokes
        raise ModelError(
            f"{path} is not a checkpoint that can be loaded safely ({_first_line(error)}); use a file from "
            "`soundsight train`, or, if you trust its origin, add --trust-checkpoint."
        ) from error
    model = checkpoint_model(checkpoint) if isinstance(checkpoint, dict) else None
    if type(model).__name__ != "ClassificationModel":
        raise ModelError(f"{path} holds no YOLO classifier (found {type(model).__name__}); use a `-cls` model.")
    if not trust:
        screen_content(checkpoint, path)
    return checkpoint


def checkpoint_model(checkpoint: dict[str, Any]) -> Any:
    """The network of a checkpoint: its running average where there is one."""
    average = checkpoint.get("ema")
    return checkpoint.get("model") if average is None else average


def class_names(model: Any, path: str | Path) -> tuple[str, ...]:
    """The classes that a network states, in the order of its outputs.

    Raises:
        ModelError: They are not a list of texts, numbered from 0.
    """
    names = getattr(model, "names", None)
    if isinstance(names, dict) and list(names) == list(range(len(names))):
        names = list(names.values())
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise ModelError(f"{path} does not name its classes, numbered from 0; it is damaged.")
    return tuple(names)


def update_ears(path: str | Path, **values: Any) -> None:
    """Change entries of the ears inside a checkpoint, in place and atomically."""
    import torch

    checkpoint = load_checkpoint(path)
    for key in ("ema", "model"):
        if checkpoint.get(key) is not None:
            checkpoint[key].soundsight = {**getattr(checkpoint[key], "soundsight", {}), **values}
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    write_bytes(Path(path), buffer.getvalue())


def file_fingerprint(path: str | Path) -> str:
    """Twelve hexadecimal digits of a model file (or of the files in a model folder)."""
    digest = hashlib.sha256()
    path = Path(path)
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            with open(file, "rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:12]


def require_file(path: str | Path) -> None:
    """Raise `ModelError` unless the model exists."""
    if not Path(path).exists():
        raise ModelError(f"The model {path} does not exist; train one with `soundsight train`.")
    if not Path(path).is_file() and not Path(path).is_dir():
        raise ModelError(f"The model {path} is neither a file nor a folder; copy it into a file first.")


def _first_line(error: Exception) -> str:
    text = " ".join(str(error).replace("ERROR ❌️", "").split()) or type(error).__name__
    return text.split(". ")[0][:200].rstrip(".")
