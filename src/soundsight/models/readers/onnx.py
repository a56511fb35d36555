"""ONNX files, computed by ONNX Runtime."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from soundsight import parallel
from soundsight.backend import checkpoint
from soundsight.checks import require
from soundsight.config import SpectrogramConfig
from soundsight.errors import ConfigError, ModelError
from soundsight.models.classifier import Classifier, Floats, checked, one_line
from soundsight.models.exported import Exported, checked_samples, checked_step, read_metadata

KINDS = (".onnx",)


class OnnxClassifier(Exported):
    """`network` is an ONNX Runtime session."""

    def run(self, pixels: Floats) -> Floats:
        given = self.network.get_inputs()[0]
        if given.type == "tensor(float16)":
            pixels = pixels.astype(np.float16)
        return self.network.run(None, {given.name: pixels})[0]  # type: ignore[no-any-return]


def read(
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
    options.intra_op_num_threads = threads or parallel.cores()
    options.add_session_config_entry("session.load_model_format", "ONNX")  # not whatever its first bytes say
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # others render meanwhile
    try:
        session = onnxruntime.InferenceSession(data, options, providers=_providers(onnxruntime, device))
        metadata = session.get_modelmeta().custom_metadata_map
    except Exception as error:
        raise ModelError(f"{path} is no ONNX model that can be opened ({one_line(error)}).") from error
    inputs = session.get_inputs()
    if len(inputs) == 1 and inputs[0].name == checkpoint.SAMPLES and len(inputs[0].shape) == 2:
        how: dict[str, Any] = {"device": device, "spectrogram": spectrogram, "trust": trust, "threads": threads}
        network = read(path, **how, data=_network(data, path))
        network.model_hash = checkpoint.hash_of(data)[:12]
        return checked_samples(
            network, lambda clips: session.run([checkpoint.PROBABILITIES], {checkpoint.SAMPLES: clips})[0], path
        )
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type not in ("tensor(float)", "tensor(float16)"):
        raise ModelError(f"{path} does not take one image as its input; it is no classifier of Soundsight.")
    step = checked_step(inputs[0].shape[0], path)
    preprocessing = read_metadata(metadata.get(checkpoint.KEY), metadata.get("names"), path, spectrogram)
    place = "cuda" if session.get_providers()[0].startswith("CUDA") else "cpu"
    classifier = OnnxClassifier(session, preprocessing, device=place, model_hash=checkpoint.hash_of(data)[:12])
    classifier.step = step
    return checked(classifier, path)


def _network(data: bytes, path: Path) -> bytes:
    """What takes images inside an ONNX model that takes samples, with the metadata."""
    onnx = require("onnx", "soundsight[export]")
    try:
        whole = onnx.load_from_string(data)
        part = onnx.utils.Extractor(whole).extract_model([checkpoint.SPECTROGRAM], [checkpoint.UNCALIBRATED])
        del part.metadata_props[:]
        part.metadata_props.extend(whole.metadata_props)
        return part.SerializeToString()  # type: ignore[no-any-return]
    except Exception as error:
        raise ModelError(f"{path} holds no network that takes images ({one_line(error)}); export it again.") from error


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
