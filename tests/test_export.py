"""Exports: preprocessing inside, read back, and hostile or damaged files refused with a sentence."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import TINY_EARS
from soundsight.backend import checkpoint
from soundsight.backend.checkpoint import KEY
from soundsight.backend.export import export
from soundsight.cli import main
from soundsight.config import to_dict
from soundsight.errors import ConfigError, ModelError
from soundsight.inference import load

onnx = pytest.importorskip("onnx", reason="the extra soundsight[export] is not installed")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def torchscript(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tiny_model, "torchscript", out=tmp_path_factory.mktemp("ts") / "tiny.torchscript")


def refused(path: Path, **how: Any) -> str:
    """The one sentence with which a model is refused."""
    with pytest.raises(ModelError) as caught:
        load(path, device="cpu", **how)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def with_metadata(source: Path, target: Path, **changes: str | None) -> Path:
    """A copy of an ONNX file with other metadata."""
    model = onnx.load(str(source))
    kept = [entry for entry in model.metadata_props if entry.key not in changes]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    for key, value in changes.items():
        if value is not None:
            entry = model.metadata_props.add()
            entry.key, entry.value = key, value
    onnx.save(model, str(target))
    return target


def ears_of(path: Path) -> dict[str, Any]:
    model = onnx.load(str(path))
    return json.loads(next(entry.value for entry in model.metadata_props if entry.key == KEY))


def test_the_ears_are_inside(tiny_model: Path, tiny_onnx: Path) -> None:
    preprocessing = ears_of(tiny_onnx)
    assert preprocessing["spectrogram"] == to_dict(TINY_EARS)
    assert preprocessing["names"] == list(load(tiny_model, device="cpu").names)
    assert preprocessing["temperature"] == 1.0
    assert preprocessing["checkpoint"] == checkpoint.short_file_hash(tiny_model)
    assert not list(tiny_onnx.parent.glob(".tmp-*"))


def test_the_temperature_travels(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copy(tiny_model, tmp_path / "warm.pt")
    checkpoint.update_preprocessing(tmp_path / "warm.pt", temperature=1.7)
    made = export(tmp_path / "warm.pt")
    assert made == tmp_path / "warm.onnx"
    assert load(made).classifier.preprocessing.temperature == 1.7


def test_the_command(tiny_model: Path, tiny_sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "phone.onnx"
    assert main(["export", str(tiny_model), "opset=17", "--out", str(out)]) == 0
    assert f"Exported: {out}" in capsys.readouterr().out
    assert onnx.load(str(out)).opset_import[0].version == 17
    clip = next((tiny_sounds / "audio").glob("1-*.wav"))
    assert main(["predict", str(out), str(clip), "--format", "csv"]) == 0


def test_ultralytics_reads_the_same_files(tiny_onnx: Path, torchscript: Path) -> None:
    from ultralytics import YOLO

    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    for path in (tiny_onnx, torchscript):  # the second by `yolo` alone
        (result,) = YOLO(str(path), task="classify").predict(image[:, :, ::-1].copy(), imgsz=64, verbose=False)
        ours = load(tiny_onnx, device="cpu").classifier.probabilities(image[None])[0]
        np.testing.assert_allclose(result.probs.data.numpy(), ours, atol=1e-3)
        assert tuple(result.names.values()) == load(tiny_onnx, device="cpu").names


def test_onnx_answers_without_pytorch(tiny_onnx: Path, tiny_sounds: Path) -> None:
    clip = next((tiny_sounds / "audio").glob("1-*.wav"))
    code = (
        "import sys, soundsight; "
        f"print(soundsight.load({str(tiny_onnx)!r}, device='cpu')({str(clip)!r}).label); "
        "print('torch' in sys.modules, 'ultralytics' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=120, text=True)
    assert done.stdout.splitlines()[1] == "False False"


def test_openvino_reports_nothing(tiny_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    code = (
        "import sys; from soundsight.backend.export import export; from soundsight.inference import load; "
        f"made = export({str(tiny_model)!r}, 'openvino', out={str(tmp_path / 'ov')!r}); print(len(load(made).names)); "
        "print([name for name in sys.modules if 'openvino_telemetry' in name and sys.modules[name]])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=300, text=True)
    assert done.stdout.splitlines()[-2:] == ["4", "[]"]


def test_openvino_computes_what_was_read(tiny_model: Path, tmp_path: Path) -> None:
    """From memory: neither does a later change of the files reach the model, nor is another format read as .xml."""
    pytest.importorskip("openvino")
    folder = export(tiny_model, "openvino", out=tmp_path / "model")
    (plan,), (weights,) = folder.glob("*.xml"), folder.glob("*.bin")
    loaded = load(folder).classifier
    image = np.full((1, 64, 64, 3), 90, np.uint8)
    before = loaded.probabilities(image)
    with open(weights, "r+b") as file:  # in place, as a mapped file would show
        file.write(bytes(weights.stat().st_size))
    np.testing.assert_array_equal(loaded.probabilities(image), before)
    assert loaded.model_hash != checkpoint.short_file_hash(folder)
    plan.write_bytes(export(tiny_model, "onnx", out=tmp_path / "x.onnx").read_bytes())
    with pytest.raises(ModelError, match="is no OpenVINO model"):
        load(folder)


def test_an_export_replaces_exports_only(tiny_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    folder = tmp_path / "model"
    for _ in range(2):
        assert export(tiny_model, "openvino", out=folder) == folder
    assert load(folder).names == load(next(folder.glob("*.xml"))).names
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "chapter.txt").write_text("years of work")
    with pytest.raises(ConfigError, match=r"is there already and holds chapter\.txt, which is no part of the export"):
        export(tiny_model, "openvino", out=thesis)
    assert (thesis / "chapter.txt").exists()


@pytest.mark.parametrize(
    ("form", "arguments", "match"),
    [
        ("onx", {}, "format='onx' is not allowed; choose one of torchscript, onnx, openvino"),
        ("onnx", {"opst": 17}, "Unknown key 'opst' in the arguments of format onnx. Did you mean 'opset'?"),
        ("onnx", {"opset": "new"}, "An export argument is not allowed"),
        ("onnx", {"quantize": 8}, "format=onnx quantize=8 needs data: the ranges of integers are measured"),
        ("openvino", {"quantize": "int8"}, "needs data"),
        ("onnx", {"quantize": 8, "data": "coco8"}, "data=coco8 has no folder val"),
        ("onnx", {"data": "data"}, "data=data has no effect without quantize=8"),
        ("onnx", {"fraction": 0.5}, "fraction=0.5 has no effect without quantize=8"),
        ("onnx", {"nms": True}, "Unknown key 'nms' in the arguments of format onnx"),
    ],
)
def test_export_arguments_are_checked(tiny_model: Path, form: str, arguments: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError) as caught:
        export(tiny_model, form, arguments=arguments)
    assert match in str(caught.value)


def test_integers_are_measured_on_data_of_ours_and_what_they_cost_is_said(tiny_model, tiny_data, tmp_path, capsys):
    out = tmp_path / "small.onnx"
    assert main(["export", str(tiny_model), "quantize=8", f"data={tiny_data}", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert f"clips of {tiny_data}/val: " in said and "where the checkpoint is" in said
    assert out.stat().st_size < tiny_model.stat().st_size
    nodes = onnx.load(str(out)).graph.node
    made_of = {name: node.op_type for node in nodes for name in node.output}
    integers = [made_of.get(node.input[1]) == "DequantizeLinear" for node in nodes if node.op_type == "Conv"]
    assert integers == [False] * 2 + [True] * (len(integers) - 3) + [False] and len(integers) > 3
    assert load(out).names == load(tiny_model, device="cpu").names


def test_missing_packages_are_named(tiny_model: Path, monkeypatch: pytest.MonkeyPatch, tiny_onnx: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ModelError, match=r'needs the package onnx.*pip install "soundsight\[export\]"'):
        export(tiny_model, "onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert 'needs the package onnxruntime, which is not installed; run pip install "soundsight[export]"' in refused(
        tiny_onnx
    )


def test_only_checkpoints_are_exported(tiny_onnx: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is no checkpoint; only a .pt file can be exported"):
        export(tiny_onnx)
    with pytest.raises(ModelError, match="does not exist"):
        export(tmp_path / "none.pt")


def test_other_files_are_no_models(tmp_path: Path, tiny_sounds: Path) -> None:
    assert "does not exist" in refused(tmp_path / "none.onnx")
    assert "is no model that can be read" in refused(next((tiny_sounds / "audio").glob("*.wav")))
    assert "holds no OpenVINO model" in refused(tmp_path)
    for content in (b"", b"hello", os.urandom(5000)):
        (tmp_path / "a.onnx").write_bytes(content)
        assert "model that can be opened" in refused(tmp_path / "a.onnx")


def test_truncated_files_are_refused(tiny_onnx: Path, tiny_model: Path, tmp_path: Path) -> None:
    for path in (tiny_onnx, tiny_model):
        data = path.read_bytes()
        for share in (0.1, 0.5, 0.99):
            target = tmp_path / path.name
            target.write_bytes(data[: int(share * len(data))])
            refused(target)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ("{", "are damaged"),
        ("[1, 2]", "are damaged"),
        ("[" * 100_000, "are damaged"),
        ({"format": 99}, "written by a newer Soundsight"),
        ({"format": "1"}, "are damaged"),
        ({"names": ["a", "b"]}, "names 2 classes but its output has shape (1, 4)"),
        ({"names": "abcd"}, "are damaged"),
        ({"names": [1, 2, 3, 4]}, "are damaged"),
        ({"temperature": 0}, "are damaged"),
        ({"temperature": float("nan")}, "are damaged"),
        ({"temperature": "hot"}, "are damaged"),
        ({"spectrogram": {**to_dict(TINY_EARS), "image_size": 10**9}}, "image_size=1e+09 is out of range"),
        ({"spectrogram": {**to_dict(TINY_EARS), "secret": 1}}, "Unknown key 'secret'"),
        ({"spectrogram": "../../etc/passwd"}, "are damaged"),
        ({"spectrogram": None}, "does not say how its spectrograms were rendered"),
    ],
)
def test_lying_metadata_is_refused(tiny_onnx: Path, tmp_path: Path, change: Any, match: str) -> None:
    text = change if isinstance(change, str) else json.dumps({**ears_of(tiny_onnx), **change})
    assert match in refused(with_metadata(tiny_onnx, tmp_path / "liar.onnx", **{KEY: text}))


def test_pictures_that_do_not_fit_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    fixed = export(tiny_model, "onnx", out=tmp_path / "fixed.onnx", arguments={"dynamic": False})
    assert len(load(fixed).classifier.probabilities(np.zeros((3, 64, 64, 3), np.uint8))) == 3
    preprocessing = ears_of(fixed)
    preprocessing["spectrogram"]["image_size"] = 128
    liar = with_metadata(fixed, tmp_path / "liar.onnx", **{KEY: json.dumps(preprocessing)})
    assert "does not accept the 128 x 128 images" in refused(liar)


def test_exports_of_others_need_ears(tiny_onnx: Path, tmp_path: Path) -> None:
    stock = with_metadata(tiny_onnx, tmp_path / "stock.onnx", **{KEY: None})
    assert "does not say how its spectrograms were rendered" in refused(stock)
    predictor = load(stock, spectrogram=TINY_EARS)
    assert predictor.names == load(tiny_onnx).names and predictor.model.settings == "override"
    nameless = with_metadata(stock, tmp_path / "nameless.onnx", names="__import__('os').getcwd()")
    assert "does not name its classes" in refused(nameless, spectrogram=TINY_EARS)


def test_weights_in_other_files_are_not_read(tiny_onnx: Path, tmp_path: Path) -> None:
    model = onnx.load(str(tiny_onnx))
    onnx.save(model, str(tmp_path / "a.onnx"), save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert "keeps weights in another file" in refused(tmp_path / "a.onnx")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("trust", [False, True])
def test_torchscript_is_written_but_not_read(torchscript: Path, tmp_path: Path, trust: bool) -> None:
    """A program in it may do anything while it is loaded; under a checkpoint's name, too."""
    assert "is a TorchScript program, which is not read" in refused(torchscript, trust=trust)
    assert "export the checkpoint to ONNX with `soundsight export`" in refused(torchscript)
    shutil.copy(torchscript, tmp_path / "a.pt")
    assert "it is a TorchScript program, which is not read; use the ONNX export" in refused(tmp_path / "a.pt")
