"""Exports that lie: shapes, names and JSON that are not what they say, weights elsewhere. Each gets one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch")

from onnx import TensorProto, helper, numpy_helper

from conftest import TINY_EARS
from soundsight.backend import checkpoint
from soundsight.backend.checkpoint import KEY
from soundsight.cli import main
from soundsight.config import to_dict
from soundsight.errors import ModelError
from soundsight.inference import load

NAMES = ["a", "b", "c"]


def refused(path: Path, **how: Any) -> str:
    """The one sentence with which a model is refused."""
    with pytest.raises(ModelError) as caught:
        load(path, device="cpu", **how)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000
    return str(caught.value)


def preprocessing(**changes: Any) -> str:
    return json.dumps({**checkpoint.make_preprocessing(TINY_EARS, NAMES), **changes})


def graph(
    path: Path,
    nodes: list[Any],
    *,
    given: list[Any] | None = None,
    out: Any = ("N", 3),
    weights: tuple[Any, ...] = (),
    metadata: str | None = None,
) -> Path:
    """An ONNX file of our own making with Soundsight's metadata; its input is `x` and its output `y`."""
    inputs = given or [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 64, 64])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, list(out))]
    model = helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs, list(weights)), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 8
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, metadata or preprocessing()
    path.write_bytes(model.SerializeToString())
    return path


HONEST = [
    helper.make_node("ReduceMean", ["x"], ["m"], axes=[2, 3], keepdims=0),
    helper.make_node("Softmax", ["m"], ["y"], axis=1),
]


def constant(values: Any) -> list[Any]:
    return [helper.make_node("Constant", [], ["y"], value=numpy_helper.from_array(np.array(values, np.float32)))]


def test_an_honest_graph_of_our_own_making_passes(tmp_path: Path) -> None:
    assert load(graph(tmp_path / "a.onnx", HONEST), device="cpu").names == tuple(NAMES)


@pytest.mark.parametrize(
    ("nodes", "match"),
    [
        (constant([[0.2, 0.3, 0.4]]), "does not predict with probabilities"),
        (constant([[np.nan, 0.5, 0.5]]), "does not predict with probabilities"),
        (constant([[np.inf, 0, 0]]), "does not predict with probabilities"),
        (constant([[2, -1, 0]]), "does not predict with probabilities"),
        (constant([[0.5, 0.5]]), "names 3 classes but its output has shape (1, 2)"),
        (constant([0.2, 0.3, 0.5]), "names 3 classes but its output has shape"),
        (constant(1.0), "its output has shape|does not accept"),
        (constant(np.zeros((0, 3))), "its output has shape|does not predict"),
    ],
)
def test_answers_that_are_none(tmp_path: Path, nodes: list[Any], match: str) -> None:
    said = refused(graph(tmp_path / "a.onnx", nodes, out=()))
    assert any(part in said for part in match.split("|")), said


@pytest.mark.parametrize(
    "given",
    [
        [],
        [("x", TensorProto.FLOAT, ["N", 3, 64, 64]), ("z", TensorProto.FLOAT, [1])],
        [("x", TensorProto.INT64, ["N", 3, 64, 64])],
        [("x", TensorProto.STRING, ["N", 3, 64, 64])],
        [("x", TensorProto.FLOAT, ["N", 3])],
        [("x", TensorProto.FLOAT, [])],
    ],
)
def test_inputs_that_are_no_picture(tmp_path: Path, given: list[Any]) -> None:
    inputs = [helper.make_tensor_value_info(*words) for words in given]
    nodes = constant([[0.2, 0.3, 0.5]])
    if not inputs:
        said = refused(_without_inputs(graph(tmp_path / "a.onnx", nodes)))
    else:
        said = refused(graph(tmp_path / "a.onnx", nodes, given=inputs))
    assert "does not take one image as its input" in said or "is no ONNX model that can be opened" in said


def _without_inputs(path: Path) -> Path:
    model = onnx.load(str(path))
    del model.graph.input[:]
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("images", [10**6, 10**9, 2**62, 0])
def test_a_fixed_number_of_pictures_that_nobody_exports(tmp_path: Path, images: int) -> None:
    """A million images at once are 49 GB before the network has begun."""
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [images, 3, 64, 64])]
    said = refused(graph(tmp_path / "a.onnx", HONEST, given=given))
    assert "images at once; 1 to 1024 are allowed" in said or "can be opened" in said or "does not accept" in said


@pytest.mark.parametrize("shape", [[10**12], [2**40, 2**40], [-1], [10**6, 10**6]])
def test_tensors_of_huge_shape(tmp_path: Path, shape: list[int]) -> None:
    """Made while the network computes, from a few bytes."""
    size = numpy_helper.from_array(np.array(shape, np.int64), "size")
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["big"]),
        helper.make_node("ReduceSum", ["big"], ["sum"], keepdims=0),
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[2, 3], keepdims=0),
        helper.make_node("Add", ["m", "sum"], ["n"]),
        helper.make_node("Softmax", ["n"], ["y"], axis=1),
    ]
    said = refused(graph(tmp_path / "a.onnx", nodes, weights=(size,)))
    assert "can be opened" in said or "does not accept" in said


def test_weights_of_huge_shape_without_data(tmp_path: Path) -> None:
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2**40], raw_data=b"1234")
    nodes = [*HONEST[:1], helper.make_node("Add", ["m", "w"], ["n"]), helper.make_node("Softmax", ["n"], ["y"])]
    assert "can be opened" in refused(graph(tmp_path / "a.onnx", nodes, weights=(weight,)))


@pytest.mark.parametrize("location", ["secret.bin", "../secret.bin", "/etc/passwd", "/dev/zero", "a/../../secret.bin"])
@pytest.mark.parametrize("swapped", [False, True], ids=["as written by all", "value before key"])
def test_weights_elsewhere_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, location: str, swapped: bool
) -> None:
    """The same message of Protocol Buffers can be written in several ways."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.bin").write_bytes(bytes(12))
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    entry = weight.external_data.add()
    entry.key, entry.value = "location", location
    nodes = [*HONEST[:1], helper.make_node("Add", ["m", "w"], ["n"]), helper.make_node("Softmax", ["n"], ["y"])]
    path = graph(tmp_path / "a.onnx", nodes, weights=(weight,))
    if swapped:
        usual = b"\x0a\x08location\x12" + bytes([len(location)]) + location.encode()
        other = b"\x12" + bytes([len(location)]) + location.encode() + b"\x0a\x08location"
        data = path.read_bytes()
        assert usual in data
        path.write_bytes(data.replace(usual, other))
        assert onnx.load(str(path), load_external_data=False).graph.initializer[0].external_data[0].value == location
    assert "keeps weights in another file" in refused(path)


@pytest.mark.parametrize(
    ("metadata", "match"),
    [
        ("[" * 500_000 + "]" * 500_000, "are damaged"),
        ('{"a": 1' + " " * 2_000_000 + "}", "are damaged"),
        ("nul\x00l", "are damaged"),
        ("123", "are damaged"),
        ('"text"', "are damaged"),
        ("NaN", "are damaged"),
        ('{"format": 1e999}', "are damaged"),
        ('{"format": ' + "9" * 5000 + "}", "damaged|newer"),
        (preprocessing(names=[]), "are damaged"),
        (preprocessing(names=["a", "", "c"]), "are damaged"),
        (preprocessing(names={"0": "a"}), "are damaged"),
        (preprocessing(names=["a"] * 100_000), "classes but its output has shape|damaged"),
        (preprocessing(threshold=2), "are damaged"),
        (preprocessing(threshold="0"), "are damaged"),
        (preprocessing(temperature=1e-300), "are damaged"),
        (preprocessing(temperature=True), "are damaged"),
        (preprocessing(spectrogram=[]), "damaged|does not say"),
        (preprocessing(spectrogram={**to_dict(TINY_EARS), "clip_seconds": 1e308}), "out of range|damaged|not allowed"),
        (preprocessing(spectrogram={**to_dict(TINY_EARS), "sample_rate": 10**30}), "out of range|damaged|not allowed"),
        (preprocessing(spectrogram={**to_dict(TINY_EARS), "sample_rate": -8000}), "out of range|damaged|not allowed"),
        (preprocessing(spectrogram={**to_dict(TINY_EARS), "n_fft": 2**40}), "out of range|damaged|not allowed|must"),
        (preprocessing(spectrogram={**to_dict(TINY_EARS), "image_size": "../../etc"}), "image_size|damaged"),
        (preprocessing(spectrogram={**to_dict(TINY_EARS), "fmax_hz": float("nan")}), "fmax_hz|damaged"),
    ],
)
def test_settings_that_lie(tmp_path: Path, metadata: str, match: str) -> None:
    said = refused(graph(tmp_path / "a.onnx", HONEST, metadata=metadata))
    assert any(part in said for part in match.split("|")), said


def test_class_names_are_text_and_no_paths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They go to tables and terminals: no control characters there, and nothing is opened by their name."""
    names = ["../../evil", "\x1b[2J\x1b]0;owned\x07\r\nfake,row", "=cmd()|'/c calc'!A1"]
    model = graph(tmp_path / "a.onnx", HONEST, metadata=preprocessing(names=names))
    sound = tmp_path / "x.wav"
    soundfile.write(sound, np.random.default_rng(0).uniform(-0.5, 0.5, 16000), 16000)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    for form in ("table", "csv", "jsonl", "audacity", "raven"):
        assert main(["predict", str(model), str(sound), "--format", form]) == 0
        said = capsys.readouterr()
        assert "\x1b" not in said.out and "\x07" not in said.out and "\x1b" not in said.err, form
    assert sorted(path.name for path in tmp_path.rglob("*")) == before
