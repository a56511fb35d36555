"""Checkpoints: loaded as data, never as programs, and carrying the preprocessing of their model.

The preprocessing settings are a plain dictionary on the model object, `model.soundsight`: format version, spectrogram
settings, class names, temperature. They travel with every copy that Ultralytics makes of the model.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError
from pydantic.dataclasses import dataclass

import soundsight.backend.quiet  # noqa: F401  (before Ultralytics)
from soundsight import checks
from soundsight.backend import compat, unpickle
from soundsight.config import SpectrogramConfig, from_dict, to_dict
from soundsight.errors import ConfigError, ModelError
from soundsight.files import TEMP_PREFIX, write_bytes

KEY = "soundsight"  # of our settings in the metadata of an exported model
# The input of an export from samples, its output, and the tensors between which it holds the network.
SAMPLES, PROBABILITIES, SPECTROGRAM, UNCALIBRATED = "samples", "probabilities", "spectrogram", "uncalibrated"
# 1, unless an older Soundsight must refuse the model: 2 where the renderer of 0.1.0 was wrong, 3 with `labels: multi`.
FORMAT = 3
_MAX_BYTES = 1 << 32


Name = Annotated[str, Field(min_length=1)]
Temperature = Annotated[float, Field(ge=0.01, le=100, strict=True, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, le=1, strict=True, allow_inf_nan=False)]


@dataclass(frozen=True)
class Preprocessing:
    """What travels with a model: how to render clips, and what its outputs mean."""

    names: Annotated[tuple[Name, ...], Field(min_length=1)]  # classes in the order of the model's outputs
    spectrogram: SpectrogramConfig
    temperature: Temperature = 1.0  # logits are divided by it before the softmax or sigmoid
    threshold: Probability = 0.0  # below it a probability counts as "unknown", unless the user says otherwise; 0: none
    labels: Literal["single", "multi"] = "single"  # multi: a clip has any number of the classes, each its own sigmoid
    temperatures: Mapping[str, Temperature] = field(default_factory=dict)  # of classes that have their own
    thresholds: Mapping[str, Probability] = field(default_factory=dict)  # of classes that have their own ...
    fitted: Any = None  # ... and what each rests on, see `calibrate_checkpoint`
    seen: Any = None  # hashes of the clips of its training, see `experiment.seen`; None: it does not say
    supplied: bool = False  # given by the user for a model that carries none

    @property
    def multi(self) -> bool:
        """Whether a clip has any number of the classes."""
        return self.labels == "multi"


def make_preprocessing(config: SpectrogramConfig | None, names: list[str], **more: Any) -> dict[str, Any]:
    """What a checkpoint carries: plain data, so that the safest way of loading suffices."""
    return {
        "format": FORMAT if more.get("labels") == "multi" else config.renderer if config else 1,
        "spectrogram": to_dict(config) if config else None,
        "names": names,
        **more,
    }


def read_preprocessing(
    data: object, path: str | Path, names: tuple[str, ...], *, supplied: SpectrogramConfig | None
) -> Preprocessing:
    """Check the preprocessing found in a model file."""
    found = data if isinstance(data, dict) else {}
    config = _spectrogram(found, path)
    if config is None:
        if supplied is None:
            raise ModelError(
                f"{path} does not say how its spectrograms were rendered (it was not trained by `soundsight "
                "train`); supply the settings with --spectrogram FILE.yaml."
            )
        return Preprocessing(names, supplied, supplied=True)
    keys = ("temperature", "threshold", "labels", "temperatures", "seen")
    own = {key: found[key] for key in keys if found.get(key) is not None}
    try:
        thresholds = {name: of["value"] for name, of in (found.get("thresholds") or {}).items()}
        own["thresholds"] = {name: value for name, value in thresholds.items() if value is not None}
        preprocessing = Preprocessing(found["names"], config, fitted=found.get("thresholds"), **own)
    except (KeyError, TypeError, AttributeError, RecursionError, ValidationError) as error:
        what = (
            f"{error.errors()[0]['loc'][0]}: {error.errors()[0]['msg']}"
            if isinstance(error, ValidationError)
            else error
        )
        raise ModelError(
            f"The settings inside {path} are damaged ({str(what)[:300]}); train or export the model again."
        ) from error
    if len(preprocessing.names) != len(names):
        raise ModelError(
            f"{path} names {len(preprocessing.names)} classes but its network has {len(names)} outputs; it is damaged."
        )
    if supplied is not None and supplied != config:
        return replace(preprocessing, spectrogram=supplied, supplied=True)
    return preprocessing


def _spectrogram(preprocessing: dict[str, Any], path: str | Path) -> SpectrogramConfig | None:
    """The settings in what a model carries; `None` if there are none."""
    if preprocessing.get("format", 1) not in range(1, FORMAT + 1):
        raise ModelError(
            f"{path} was written by a newer Soundsight (format {preprocessing.get('format')!r}, this one reads up to "
            f"{FORMAT}); upgrade soundsight."
        )
    if not preprocessing.get("spectrogram"):
        return None
    try:
        config = from_dict(SpectrogramConfig, preprocessing["spectrogram"], where=f"{path}")
    except (ConfigError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise ModelError(f"The spectrogram settings inside {path} are damaged ({str(error)[:300]}).") from error
    checks.check_renderer(config, preprocessing.get("format", 1), path, ModelError)
    return config


def read_file(path: str | Path) -> bytes:
    """All bytes of a model file: what is checked is what is used, whatever happens to the file meanwhile."""
    require_file(path)
    if not Path(path).is_file():
        raise ModelError(f"{path} is no file; name a model file.")
    try:
        with open(path, "rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror or error}).") from error
    if len(data) > _MAX_BYTES:
        raise ModelError(f"{path} is larger than {_MAX_BYTES >> 30} GB, which no classifier is.")
    return data


def load_checkpoint(path: str | Path, *, trust: bool = False) -> dict[str, Any]:
    """Load a `.pt` checkpoint as Ultralytics lays it out: tensors and settings, in a network that is built afresh.

    With `trust` whatever it holds is unpickled; a hostile file then runs code. See `compat.CHECKPOINT` for its keys.
    """
    return parse_checkpoint(read_file(path), path, trust=trust)


def parse_checkpoint(data: bytes, path: str | Path, *, trust: bool = False) -> dict[str, Any]:
    """The checkpoint in `data`, the content of `path`; see `load_checkpoint`."""
    try:
        checkpoint = _unpickled(data) if trust else _built(unpickle.read(data))
    except unpickle.Refused as found:
        raise ModelError(
            f"{path} is not a checkpoint that can be loaded safely ({found}); use a file from `soundsight "
            "train`, or, if you trust its origin, add --trust-checkpoint."
        ) from found
    except ModelError as found:
        raise ModelError(f"{path} {found}") from found
    except Exception as error:  # whatever a damaged or hostile file provokes
        text = " ".join(str(error).split()).split(". ")[0][:120].rstrip(".") or type(error).__name__
        raise ModelError(
            f"{path} is not a checkpoint that can be loaded (it is damaged, or of another kind: {text}); use a file "
            "from `soundsight train`."
        ) from error
    if isinstance(preprocessing := getattr(checkpoint_model(checkpoint), "soundsight", None), dict):
        _spectrogram(preprocessing, path)  # refused whatever it is loaded for
    return checkpoint


def _built(content: Any) -> dict[str, Any]:
    """A checkpoint that was read as data, with its network built anew and its settings checked."""
    from soundsight.backend import architecture

    key = "model" if not isinstance(content, dict) or content.get("ema") is None else "ema"
    found = content.get(key) if isinstance(content, dict) else content
    if not isinstance(found, unpickle.Record) or not found.name.endswith(".ClassificationModel"):
        kind = found.name.rpartition(".")[2] if isinstance(found, unpickle.Record) else type(found).__name__
        raise ModelError(f"holds no YOLO classifier (found {kind[:60]}); use a `-cls` model.")
    if content.get("modelopt"):
        raise ModelError("was trained for 8 bits with quantize=8, which is not read; export it with int8=True instead.")
    network = architecture.rebuild(found)
    for name in ("names", "soundsight"):
        if name in found.state:
            setattr(network, name, unpickle.plain(found.state[name]))
    settings = {
        name: unpickle.plain(content.get(name), tensors=name in compat.CHECKPOINT_TENSORS) for name in compat.CHECKPOINT
    }
    arguments = settings["train_args"] = settings["train_args"] or {}
    if not isinstance(arguments, dict):
        raise ModelError("holds training arguments that are no settings; it is damaged.")
    for name, value in arguments.items():
        if isinstance(value, str) and "://" in value:
            raise ModelError(f"names another address ({name}={value[:60]}); it is no checkpoint of Soundsight.")
    return {**settings, "model": None, "ema": None, key: network}


def _unpickled(data: bytes) -> dict[str, Any]:
    """A checkpoint as Ultralytics loads it, with all that it holds."""
    from ultralytics.nn.tasks import torch_safe_load

    with tempfile.TemporaryDirectory(prefix=TEMP_PREFIX) as folder:
        copy = Path(folder, "model.pt")
        copy.write_bytes(data)
        checkpoint: dict[str, Any] = torch_safe_load(str(copy), safe_only=False)[0]
    if type(checkpoint_model(checkpoint)).__name__ != "ClassificationModel":
        raise ModelError("holds no YOLO classifier; use a `-cls` model.")
    return checkpoint


def checkpoint_model(checkpoint: dict[str, Any]) -> Any:
    """The network of a checkpoint: its running average where there is one."""
    average = checkpoint.get("ema")
    return checkpoint.get("model") if average is None else average


def last_layer(network: Any) -> Any:
    """The layer from pooled features to logits."""
    return network.model[-1].linear


def class_names(model: Any, path: str | Path) -> tuple[str, ...]:
    """The classes that a network states, in the order of its outputs."""
    names = getattr(model, "names", None)
    if isinstance(names, dict) and list(names) == list(range(len(names))):
        names = list(names.values())
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise ModelError(f"{path} does not name its classes, numbered from 0; it is damaged.")
    return tuple(names)


def update_preprocessing(path: str | Path, **values: Any) -> None:
    """Change entries of the preprocessing inside a checkpoint, in place and atomically."""
    import torch

    checkpoint = load_checkpoint(path)
    for key in compat.NETWORKS:
        if checkpoint.get(key) is not None:
            checkpoint[key].soundsight = {**getattr(checkpoint[key], "soundsight", {}), **values}
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    write_bytes(Path(path), buffer.getvalue())


def file_hash(path: str | Path) -> str:
    """`hash_of` a model file, or of the files in a model folder."""
    return hash_of(*(file.read_bytes() for file in model_files(Path(path))))


def model_files(path: Path) -> list[Path]:
    """The files of a model, in the order of their names."""
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def hash_of(*parts: bytes) -> str:
    """SHA-256 of the SHA-256 of each part, in hexadecimal digits."""
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def short_file_hash(path: str | Path) -> str:
    """The first twelve digits of `file_hash`, to be shown; too few to tell files apart that are made to collide."""
    return file_hash(path)[:12]


def require_file(path: str | Path) -> None:
    """Raise `ModelError` unless the model exists."""
    if not Path(path).exists():
        raise ModelError(f"The model {path} does not exist; train one with `soundsight train`.")
    if not Path(path).is_file() and not Path(path).is_dir():
        raise ModelError(f"The model {path} is neither a file nor a folder; copy it into a file first.")
