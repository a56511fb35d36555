"""OpenVINO folders: one .xml and one .bin file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from soundsight import parallel
from soundsight.backend import checkpoint
from soundsight.backend.quiet import require_openvino
from soundsight.config import SpectrogramConfig
from soundsight.errors import ConfigError, ModelError
from soundsight.models.classifier import Classifier, Floats, checked, one_line
from soundsight.models.exported import Exported, checked_samples, checked_step, read_metadata

KINDS = ("folder", ".xml")


class OpenVinoClassifier(Exported):
    """`network` is a compiled OpenVINO model."""

    def run(self, pixels: Floats) -> Floats:
        return np.array(self.network([pixels])[0])


def read(
    path: Path, *, device: str | None, spectrogram: SpectrogramConfig | None, trust: bool, threads: int | None
) -> Classifier:
    """Open a folder with an OpenVINO model, on the CPU unless `device` is "gpu" or another of OpenVINO's."""
    folder = path if path.is_dir() else path.parent
    files = checkpoint.model_files(folder)
    plan = next((file for file in files if file.suffix == ".xml"), folder)
    if plan.with_suffix(".bin") not in files or sum(file.suffix == ".xml" for file in files) != 1:
        raise ModelError(f"The folder {folder} holds no OpenVINO model: one .xml and one .bin file are needed.")
    parts = {file: checkpoint.read_file(file) for file in files}
    if not parts[plan].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):  # OpenVINO would go by the content
        raise ModelError(f"{plan} is no OpenVINO model; export the checkpoint again.")
    openvino = require_openvino()
    place = (device or "cpu").upper()
    core = openvino.Core()
    if place not in core.available_devices:
        raise ConfigError(f"device={device} is not there: OpenVINO sees {', '.join(core.available_devices)}.")
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads or parallel.cores(),
    }
    try:
        model = core.read_model(parts[plan], parts[plan.with_suffix(".bin")])
        info = model.get_rt_info()
        own = str(info[checkpoint.KEY].value) if checkpoint.KEY in info else None
        network = core.compile_model(model, place, settings)
        if whole := network if len(network.inputs[0].partial_shape) == 2 else None:
            model = _network(openvino, model)
            network = core.compile_model(model, place, settings)
    except Exception as error:
        raise ModelError(f"{folder} holds no OpenVINO model that can be opened ({one_line(error)}).") from error
    batch = model.inputs[0].partial_shape[0] if model.inputs else None
    step = checked_step(0 if batch is None else "any" if batch.is_dynamic else batch.get_length(), folder)
    preprocessing = read_metadata(own, None, folder, spectrogram)
    model_hash = checkpoint.hash_of(*parts.values())[:12]
    classifier = OpenVinoClassifier(network, preprocessing, device=place.lower(), model_hash=model_hash)
    classifier.step = step
    found = checked(classifier, folder)
    return checked_samples(found, lambda clips: whole([clips])[checkpoint.PROBABILITIES], folder) if whole else found


def _network(openvino: Any, model: Any) -> Any:
    """What takes images inside a model that takes samples."""
    outputs = {name: output for node in model.get_ops() for output in node.outputs() for name in output.get_names()}
    image = outputs[checkpoint.SPECTROGRAM]
    given = openvino.opset13.parameter(image.partial_shape, image.element_type)
    for target in image.get_target_inputs():
        if target.get_node().get_type_name() != "Result":
            target.replace_source_output(given.output(0))
    return openvino.Model([outputs[checkpoint.UNCALIBRATED]], [given])
