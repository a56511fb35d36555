"""Exports from samples to probabilities: as the checkpoint predicts, without Soundsight, in any language."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from conftest import TINY_EARS, noise
from soundsight.backend.checkpoint import update_preprocessing
from soundsight.backend.export import export
from soundsight.cli import main
from soundsight.errors import ConfigError, ModelError
from soundsight.inference import load

onnx = pytest.importorskip("onnx", reason="the extra soundsight[export] is not installed")
onnxruntime = pytest.importorskip("onnxruntime")
RATE = TINY_EARS.sample_rate


@pytest.fixture(scope="module")
def exported(tiny_thresholded_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with temperature and threshold, exported by the command."""
    out = tmp_path_factory.mktemp("waveform") / "wave.onnx"
    assert main(["export", str(tiny_thresholded_model), "--input", "waveform", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def clips(tiny_sounds: Path) -> np.ndarray:
    """Twelve clips of one second, float32 `(12, samples)`."""
    files = sorted((tiny_sounds / "audio").glob("*.wav"))[::7]
    return np.stack([soundfile.read(file, dtype="float32")[0] for file in files])


def probabilities(path: Path, samples: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [(given.name, given.shape) for given in session.get_inputs()] == [("samples", ["batch", "samples"])]
    assert [found.name for found in session.get_outputs()] == ["probabilities", "spectrogram"]
    return session.run(["probabilities"], {"samples": samples})[0]


def expected(model: Path, clips: np.ndarray) -> np.ndarray:
    predictor = load(model, device="cpu", runtime="pytorch")
    return np.stack([predictor(clip, RATE).predictions[0].probabilities for clip in clips])


def test_it_predicts_what_the_checkpoint_does(exported, tiny_thresholded_model, clips):
    found, right = probabilities(exported, clips), expected(tiny_thresholded_model, clips)
    assert np.abs(found - right).max() < 1e-3 and (found.argmax(axis=1) == right.argmax(axis=1)).all()
    assert np.abs(expected(exported, clips) - right).max() < 1e-3  # and so does `predict` with it
    assert load(exported).classifier.preprocessing.threshold > 0


def test_short_long_and_silent_clips(exported, tiny_thresholded_model, clips):
    for samples in (clips[0, : RATE // 3], np.tile(clips[1], 3)):
        right = expected(tiny_thresholded_model, samples[None, :RATE])
        assert np.abs(probabilities(exported, samples[None]) - right).max() < 1e-3
    assert not probabilities(exported, np.full((2, RATE), 0.5, np.float32)).any()


def test_several_labels_per_clip(tiny_model, clips, tmp_path):
    model = shutil.copyfile(tiny_model, tmp_path / "multi.pt")
    update_preprocessing(model, labels="multi", format=3, temperature=0.7, temperatures={"rain": 3.0})
    made = export(model, out=tmp_path / "multi.onnx", waveform=True)
    found, right = probabilities(made, clips), expected(model, clips)
    assert np.abs(found - right).max() < 1e-3 and np.abs(right.sum(axis=1) - 1).max() > 0.01


@pytest.mark.parametrize("arguments", [{"quantize": 16}, {"quantize": 8}, {"opset": 13}])
def test_smaller_numbers_and_older_operators(tiny_model, tiny_data, clips, tmp_path, arguments):
    data = {"data": str(tiny_data)} if arguments.get("quantize") == 8 else {}
    made = export(tiny_model, out=tmp_path / "small.onnx", waveform=True, arguments={**arguments, **data})
    found, right = probabilities(made, clips), expected(tiny_model, clips)
    assert np.abs(found - right).max() < {16: 0.02, 8: 0.4}.get(arguments.get("quantize"), 1e-3)
    assert np.abs(expected(made, clips) - found).max() < 0.05
    if "quantize" in arguments:
        whole = export(tiny_model, out=tmp_path / "whole.onnx", waveform=True)
        assert made.stat().st_size < 0.75 * whole.stat().st_size


def test_val_reads_it(exported, tiny_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["val", str(exported), f"data={tiny_data}", "--out", "val"]) == 0
    assert (tmp_path / "val" / "report.html").is_file() or list((tmp_path / "val").iterdir())


def test_openvino_from_the_same_onnx(tiny_thresholded_model, clips, tmp_path):
    openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed")
    made = export(tiny_thresholded_model, "openvino", out=tmp_path / "wave_openvino_model", waveform=True)
    compiled = openvino.Core().compile_model(str(next(made.glob("*.xml"))), "CPU")
    right = expected(tiny_thresholded_model, clips)
    assert np.abs(compiled([clips])["probabilities"] - right).max() < 1e-3
    assert np.abs(expected(made, clips) - right).max() < 1e-3


# -- the examples of its README ---------------------------------------------------------------------------


def example(exported: Path, language: str) -> str:
    text = exported.with_name("wave.README.md").read_text(encoding="utf-8")
    (code,) = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    return code


@pytest.fixture
def recording(clips, tmp_path) -> Path:
    """Four clips one after the other, the last of them silence."""
    path = tmp_path / "recording.wav"
    soundfile.write(path, np.concatenate([*clips[[0, 4, 8]], np.zeros(RATE)]), RATE, subtype="PCM_16")
    return path


def assert_as_predict(said: str, exported: Path, recording: Path) -> None:
    rows = [line.split() for line in said.splitlines()]
    right = load(exported)(recording).predictions
    assert [(float(start), label) for start, label, _ in rows] == [(each.start_seconds, each.label) for each in right]
    assert np.allclose([float(row[2]) for row in rows], [each.probability for each in right], atol=1e-3)


def run(command: list[str], folder: Path, **how: object) -> str:
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, **how).stdout


def test_the_python_example_runs_without_soundsight(exported, recording):
    code = "import sys; sys.modules['soundsight'] = sys.modules['torch'] = None\n" + example(exported, "python")
    assert_as_predict(run([sys.executable, "-c", code, str(recording)], exported.parent), exported, recording)
    soundfile.write(recording, noise(1.0), 8000)
    failed = subprocess.run([sys.executable, "-c", code, str(recording)], capture_output=True, text=True)
    assert failed.returncode == 1 and f"must be 16-bit mono at {RATE} Hz; convert it: ffmpeg" in failed.stderr


def test_the_javascript_example_runs(exported, recording):
    node = shutil.which("node")
    if not node or subprocess.run([node, "-e", "require('onnxruntime-node')"], capture_output=True).returncode:
        pytest.skip("no Node.js with onnxruntime-node; NODE_PATH names the folder of its packages")
    script = recording.with_name("example.js")
    script.write_text(example(exported, "javascript"), encoding="utf-8")
    said = run([node, str(script), str(recording)], exported.parent)
    assert_as_predict(said, exported, recording)


def test_the_cpp_example_compiles_and_runs(exported, recording, tmp_path, onnxruntime_cpp):
    compiler = shutil.which("c++")
    if not compiler:
        pytest.skip("no C++ compiler")
    (tmp_path / "example.cpp").write_text(example(exported, "cpp"), encoding="utf-8")
    paths = ["-I", str(onnxruntime_cpp / "include"), "-L", str(onnxruntime_cpp / "lib"), "-lonnxruntime"]
    run([compiler, "-std=c++17", "-O1", "example.cpp", "-o", "example", *paths], tmp_path)
    library = {"LD_LIBRARY_PATH": str(onnxruntime_cpp / "lib")}
    said = run([str(tmp_path / "example"), str(recording)], exported.parent, env=library)
    assert_as_predict(said, exported, recording)


@pytest.fixture
def onnxruntime_cpp() -> Path:
    """A release of ONNX Runtime for C++, with `include` and `lib`."""
    folder = Path(os.environ.get("ONNXRUNTIME_CPP", "/nowhere"))
    if not (folder / "include" / "onnxruntime_cxx_api.h").is_file():
        pytest.skip("no headers of ONNX Runtime; ONNXRUNTIME_CPP names the folder of a release")
    return folder


# -- what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["opset=12"], "opset=12 is not allowed with input=waveform; take one from 13 to 20"),
        (["dynamic=false"], "dynamic=False is not possible with input=waveform"),
        (["--format", "torchscript"], "input=waveform is for formats onnx and openvino, not for torchscript"),
    ],
)
def test_exports_that_cannot_be(tiny_model, tmp_path, capsys, words, message):
    command = ["export", str(tiny_model), "--input", "waveform", "--out", str(tmp_path / "x.onnx")]
    assert main([*command, *words]) == 2
    assert message in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_settings_that_it_cannot_express(tiny_model, tmp_path):
    model = shutil.copyfile(tiny_model, tmp_path / "odd.pt")
    update_preprocessing(model, spectrogram={"clip_seconds": 1.0, "image_size": 64, "n_fft": 16381})
    with pytest.raises(ConfigError, match="n_fft=16381 needs .* numbers for its transform; take a power of two"):
        export(model, out=tmp_path / "x.onnx", waveform=True)


def test_a_front_end_that_renders_otherwise_is_found_out(exported, tmp_path):
    model = onnx.load(str(exported))
    for constant in model.graph.initializer:
        if "window" in constant.name:
            constant.CopyFrom(onnx.numpy_helper.from_array(0 * onnx.numpy_helper.to_array(constant), constant.name))
    onnx.save(model, str(tmp_path / "liar.onnx"))
    with pytest.raises(ModelError, match="renders samples otherwise than its settings say; export it again"):
        load(tmp_path / "liar.onnx", device="cpu")
