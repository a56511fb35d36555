"""ONNX models from samples to probabilities: the front end before an exported network, the model's activation after it.

The network stays as it was exported, between two tensors of known names, so that a reader can cut it out again:
`predict` then uses `render`, which is faster, and `val` takes images.
"""

from __future__ import annotations

import io
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from soundsight.backend.checkpoint import PROBABILITIES, SAMPLES, SPECTROGRAM, UNCALIBRATED, Preprocessing
from soundsight.errors import ConfigError
from soundsight.frontend import FrontEnd
from soundsight.frontend import check as check_settings
from soundsight.spectrogram import SILENT_SPAN

LEAST_OPSET, NEWEST_OPSET = 13, 20  # that the front end is written in, and that PyTorch writes
TINY = 1e-12  # probabilities below count as this, as in `models.classifier`


class _Before(nn.Module):
    """Samples to images, and 1 or 0: whether a clip is no digital silence."""

    def __init__(self, front: FrontEnd) -> None:
        super().__init__()
        self.front = front

    def forward(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        span = samples.amax(1, keepdim=True) - samples.amin(1, keepdim=True)
        return self.front(samples), (span >= SILENT_SPAN).float()


class _After(nn.Module):
    """Uncalibrated probabilities to calibrated ones, as `Classifier.activate` does; zeros for silence."""

    temperature: Tensor

    def __init__(self, model: Preprocessing) -> None:
        super().__init__()
        self.multi = model.multi
        each = [
            model.temperatures.get(name, model.temperature) if model.multi else model.temperature
            for name in model.names
        ]
        self.register_buffer("temperature", torch.tensor(each, dtype=torch.float32))

    def forward(self, raw: Tensor, sounding: Tensor) -> Tensor:
        if self.multi:
            odds = raw.clamp(TINY, 1 - 1e-7)
            found = ((odds.log() - (1 - odds).log()) / self.temperature).sigmoid()
        else:
            found = (raw.clamp_min(TINY).log() / self.temperature).softmax(1)
        return found * sounding


def from_samples(network: Any, model: Preprocessing) -> Any:
    """An ONNX model from samples to probabilities, around one from images.

    Args:
        network: `onnx.ModelProto` from float32 images `(batch, 3, H, W)` to probabilities without temperature.
        model: Its preprocessing.

    Returns:
        `onnx.ModelProto` from `SAMPLES`, float32 `(batch, samples)` at the model's rate, to `PROBABILITIES`, float32
        `(batch, classes)`, and `SPECTROGRAM`, float32 `(batch, 3, H, W)` in [0, 1].

    Raises:
        ConfigError: The front end cannot express the settings.
    """
    from onnx import compose

    (opset,) = (entry.version for entry in network.opset_import if entry.domain in ("", "ai.onnx"))
    front, classes = FrontEnd(model.spectrogram), len(model.names)
    images, output = network.graph.input[0].name, network.graph.output[0]
    for node in network.graph.node:
        for names in (node.input, node.output):
            names[:] = [UNCALIBRATED if name == output.name else name for name in names]
    output.name = UNCALIBRATED
    network.graph.node.sort(key=lambda node: images not in node.input)  # the converter to 16 bits casts it last of all
    before = _written(
        _Before(front), [torch.rand(2, front.config.clip_samples)], [SAMPLES], [SPECTROGRAM, "sounding"], opset
    )
    before.graph.input[0].type.tensor_type.shape.dim[1].dim_param = SAMPLES
    after = _written(
        _After(model), [torch.rand(2, classes), torch.ones(2, 1)], [UNCALIBRATED, "sounding"], [PROBABILITIES], opset
    )
    for other, prefix in ((before, "before/"), (after, "after/")):
        compose.add_prefix(other, prefix, rename_inputs=False, rename_outputs=False, inplace=True)
        other.ir_version = network.ir_version
    joined = compose.merge_models(
        before, network, [(SPECTROGRAM, images)], outputs=[UNCALIBRATED, SPECTROGRAM, "sounding"]
    )
    joined = compose.merge_models(
        joined, after, [(name, name) for name in (UNCALIBRATED, "sounding")], outputs=[PROBABILITIES, SPECTROGRAM]
    )
    joined.graph.output.sort(key=lambda output: output.name != PROBABILITIES)
    del joined.metadata_props[:]
    joined.metadata_props.extend(network.metadata_props)
    return joined


def check(model: Preprocessing, arguments: dict[str, Any]) -> None:
    """Raise `ConfigError` where a model cannot take samples: its settings, or arguments of the export."""
    opset = arguments.get("opset")
    if opset and not LEAST_OPSET <= opset <= NEWEST_OPSET:
        raise ConfigError(
            f"opset={opset} is not allowed with input=waveform; take one from {LEAST_OPSET} to {NEWEST_OPSET}."
        )
    if not arguments.get("dynamic", True):
        raise ConfigError(
            "dynamic=False is not possible with input=waveform, which takes any number of clips; leave it out."
        )
    check_settings(model.spectrogram)


def _written(module: nn.Module, example: list[Tensor], inputs: list[str], outputs: list[str], opset: int) -> Any:
    """A module as `onnx.ModelProto`, for batches of any size."""
    import onnx

    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            tuple(example),
            stream,  # type: ignore[arg-type]
            input_names=inputs,
            output_names=outputs,
            dynamic_axes={
                name: {0: "batch"} | ({1: SAMPLES} if name == SAMPLES else {}) for name in (*inputs, *outputs)
            },
            opset_version=min(opset, NEWEST_OPSET),
            dynamo=False,
        )
    written = onnx.load_from_string(stream.getvalue())
    written.opset_import[0].version = opset  # newer ones added types to the operators used here, no more
    return written
