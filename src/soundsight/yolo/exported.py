"""Exported models: ONNX and OpenVINO files as classifiers, believed as far as they check out.

An exported file carries the same ears as a checkpoint, as JSON under the key `soundsight` of its own
metadata. Neither format holds a program. TorchScript does, and is written by `export` but not read.
Neighbours: `export` writes these files, `classifier` chooses the reader.
"""

from __future__ import annotations

import ast
import json
import math
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from soundsight.config import SpectrogramConfig
from soundsight.errors import ConfigError, ModelError
from soundsight.yolo import checkpoint
from soundsight.yolo.classifier import Classifier, Floats, Images

KEY = "soundsight"  # of the metadata
_MAX_TEXT = 1 << 20  # characters of names
_MAX_SETTINGS = 1 << 25  # characters of our settings, with the hashes of a million clips
MAX_STEP = 1024  # pictures that an export with a fixed number of them may want at once
_TINY = 1e-12  # probabilities below count as this


class _Exported(Classifier):
    """A network that gives probabilities, and whose inner layers cannot be seen."""

    has_gradients = False

    def probabilities_of(self, pixels: Floats) -> Floats:
        """Class probabilities `(batch, classes)` of float32 pictures `(batch, 3, H, W)` in [0, 1]."""
        raise NotImplementedError

    def logits(self, images: Images) -> Floats:
        """See `Classifier.logits`."""
        pixels = np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32)
        pixels /= 255
        return np.log(np.maximum(self.probabilities_of(pixels), _TINY))

    def features(self, images: Images) -> Floats:
        """Not possible."""
        raise ConfigError("An exported model holds no feature vectors; use the checkpoint .pt it was made from.")


class OnnxClassifier(_Exported):
    """`network` is an ONNX Runtime session."""

    def probabilities_of(self, pixels: Floats) -> Floats:
        """See `_Exported.probabilities_of`."""
        given = self.network.get_inputs()[0]
        if given.type == "tensor(float16)":
            pixels = pixels.astype(np.float16)
        step = given.shape[0] if isinstance(given.shape[0], int) else len(pixels)
        parts = []
        for first in range(0, len(pixels), step):
            part = pixels[first : first + step]
            parts.append(self.network.run(None, {given.name: _filled(part, step)})[0][: len(part)])
        return np.concatenate(parts).astype(np.float32, copy=False)


class OpenVinoClassifier(_Exported):
    """`network` is a compiled OpenVINO model."""

    def probabilities_of(self, pixels: Floats) -> Floats:
        """See `_Exported.probabilities_of`."""
        shape = self.network.inputs[0].partial_shape
        step = len(pixels) if shape[0].is_dynamic else shape[0].get_length()
        parts = []
        for first in range(0, len(pixels), step):
            part = pixels[first : first + step]
            parts.append(np.array(self.network([_filled(part, step)])[0])[: len(part)])
        return np.concatenate(parts)


def _filled(part: Floats, count: int) -> Floats:
    """A batch with black pictures after it, `count` in all; itself if it is full."""
    missing = count - len(part)
    return np.concatenate([part, np.zeros((missing, *part.shape[1:]), part.dtype)]) if missing else part


def read_onnx(
    path: Path,
    *,
    device: str | None,
    spectrogram: SpectrogramConfig | None,
    trust: bool,
    threads: int | None,
    data: bytes | None = None,
) -> Classifier:
    """Open an ONNX file, or its content `data` if that was read already, with ONNX Runtime."""
    onnxruntime = require("onnxruntime", "soundsight[export]")
    data = checkpoint.read_file(path) if data is None else data
    if re.search(rb"(\x08|\x88\x80*\x00)location", data):  # what names another file, in whatever order and length
        raise ModelError(f"{path} keeps weights in another file, which is not read; export it into one file.")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads or parallel_threads()
    options.add_session_config_entry("session.load_model_format", "ONNX")  # not whatever its first bytes say
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # others draw meanwhile
    try:
        session = onnxruntime.InferenceSession(data, options, providers=_providers(onnxruntime, device))
        metadata = session.get_modelmeta().custom_metadata_map
    except Exception as error:
        raise ModelError(f"{path} is no ONNX model that can be opened ({_line(error)}).") from error
    inputs = session.get_inputs()
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type not in ("tensor(float)", "tensor(float16)"):
        raise ModelError(f"{path} does not take one picture as its input; it is no classifier of Soundsight.")
    _check_step(inputs[0].shape[0], path)
    ears = _ears(metadata.get(KEY), metadata.get("names"), path, spectrogram)
    place = "cuda" if session.get_providers()[0].startswith("CUDA") else "cpu"
    return _checked(OnnxClassifier(session, ears, device=place, fingerprint=checkpoint.hash_of(data)[:12]), path)


def _check_step(step: object, path: Path) -> None:
    """Refuse a number of pictures at once that nobody exports: so many are computed, however few are asked for."""
    if isinstance(step, int) and not 1 <= step <= MAX_STEP:
        raise ModelError(f"{path} takes {step} pictures at once; 1 to {MAX_STEP} are allowed, so export it again.")


def _providers(onnxruntime: Any, device: str | None) -> list[Any]:
    """Execution providers for a device, in the order of preference."""
    text = str(device or "")
    known = onnxruntime.get_available_providers()
    if text == "cpu" or (not text and "CUDAExecutionProvider" not in known):
        return ["CPUExecutionProvider"]
    index = text.removeprefix("cuda").lstrip(":") or "0"
    if not index.isdigit() or "CUDAExecutionProvider" not in known:
        raise ConfigError(
            f"device={text} is not there: ONNX Runtime offers {', '.join(known)}; use device=cpu, or install "
            "onnxruntime-gpu."
        )
    return [("CUDAExecutionProvider", {"device_id": int(index)}), "CPUExecutionProvider"]


def read_openvino(
    path: Path, *, device: str | None, spectrogram: SpectrogramConfig | None, trust: bool, threads: int | None
) -> Classifier:
    """Open a folder with an OpenVINO model, on the CPU unless `device` is "gpu" or another of OpenVINO's."""
    folder = path if path.is_dir() else path.parent
    files = sorted(folder.glob("*.xml"))
    if len(files) != 1 or not files[0].with_suffix(".bin").is_file():
        raise ModelError(f"The folder {folder} holds no OpenVINO model: one .xml and one .bin file are needed.")
    openvino = require_openvino()
    place = (device or "cpu").upper()
    core = openvino.Core()
    if place not in core.available_devices:
        raise ConfigError(f"device={device} is not there: OpenVINO sees {', '.join(core.available_devices)}.")
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    try:
        model = core.read_model(files[0])
        info = model.get_rt_info()
        own = str(info[KEY].value) if KEY in info else None
        network = core.compile_model(model, place, settings)
    except Exception as error:
        raise ModelError(f"{folder} holds no OpenVINO model that can be opened ({_line(error)}).") from error
    batch = model.inputs[0].partial_shape[0] if model.inputs else None
    _check_step(0 if batch is None else "any" if batch.is_dynamic else batch.get_length(), folder)
    ears = _ears(own, None, folder, spectrogram)
    fingerprint = checkpoint.file_fingerprint(folder)
    return _checked(OpenVinoClassifier(network, ears, device=place.lower(), fingerprint=fingerprint), folder)


Reader = Callable[..., Classifier]
READERS: dict[str, Reader] = {
    ".onnx": read_onnx,
    "folder": read_openvino,
    ".xml": read_openvino,
}


def parallel_threads() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def require(package: str, source: str) -> Any:
    """Import a package, or say how to get it."""
    try:
        return __import__(package)
    except ImportError as error:
        raise ModelError(
            f'This needs the package {package}, which is not installed; run pip install "{source}".'
        ) from error


def require_openvino() -> Any:
    """Import OpenVINO as if its usage reporting, which begins with the import, were not installed."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return require("openvino", "openvino")


def _ears(text: str | None, stated: object, path: Path, supplied: SpectrogramConfig | None) -> checkpoint.Ears:
    """The ears in a file's metadata, checked before they are believed."""
    names = _names(stated)
    if not text:
        if supplied is not None and not names:
            raise ModelError(f"{path} does not name its classes; export it again with `soundsight export`.")
        return checkpoint.read_ears(None, path, names, supplied=supplied)
    try:
        data = json.loads(text) if len(text) <= _MAX_SETTINGS else None
    except (ValueError, RecursionError):
        data = None
    damaged = f"The settings of Soundsight inside {path} are damaged; export the model again."
    if not isinstance(data, dict) or type(data.get("format")) is not int:
        raise ModelError(damaged)
    given, temperature = data.get("names"), data.get("temperature", 1.0)
    if type(data.get("threshold", 0.0)) not in (int, float) or not 0 <= data.get("threshold", 0.0) <= 1:
        raise ModelError(damaged)
    if not isinstance(given, list) or not given or not all(isinstance(name, str) and name for name in given):
        raise ModelError(damaged)
    if type(temperature) not in (int, float) or not math.isfinite(temperature) or not 0.01 <= temperature <= 100:
        raise ModelError(damaged)
    return checkpoint.read_ears(data, path, tuple(given), supplied=supplied)


def _names(stated: object) -> tuple[str, ...]:
    """Class names as Ultralytics writes them: `{0: "dog", ...}`, as text or as a dictionary."""
    if isinstance(stated, str) and len(stated) <= _MAX_TEXT:
        try:
            stated = ast.literal_eval(stated)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return ()
    if not isinstance(stated, dict):
        return ()
    try:
        return tuple(str(stated[key]) for key in sorted(stated, key=int))
    except (ValueError, TypeError):
        return ()


def _checked(classifier: _Exported, path: Path) -> Classifier:
    """Answer one black picture, so that a file that lies about its shapes is found out."""
    size, classes = classifier.ears.spectrogram.image_size, len(classifier.ears.names)
    try:
        answer = classifier.probabilities_of(np.zeros((1, 3, size, size), np.float32))
    except Exception as error:
        raise ModelError(
            f"{path} does not accept the {size} x {size} pictures that its settings draw ({_line(error)}); "
            "export it again."
        ) from error
    if answer.shape != (1, classes):
        raise ModelError(f"{path} names {classes} classes but answers with shape {answer.shape}; it is damaged.")
    if not np.isfinite(answer).all() or abs(float(answer.sum()) - 1) > 0.01 or float(answer.min()) < 0:
        raise ModelError(f"{path} does not answer with probabilities; export it again with `soundsight export`.")
    return classifier


def _line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:160].rstrip(".")
