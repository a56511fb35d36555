"""What computes a checkpoint's predictions: ONNX Runtime where it agrees, PyTorch else; the same predictions."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from torture import models

import soundsight
from conftest import TINY_EARS
from soundsight.backend import quiet
from soundsight.backend.checkpoint import FORMAT, hash_of, short_file_hash
from soundsight.errors import ConfigError, ModelError
from soundsight.inference import load, predict
from soundsight.inference.explain import can_explain, explain
from soundsight.models import converted
from soundsight.models.converted import Converted
from soundsight.models.load import load_classifier

for package in ("onnx", "onnxruntime", "onnxslim"):
    pytest.importorskip(package, reason="the extra soundsight[export] is not installed")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(quiet, "cache_folder", lambda: tmp_path)
    return tmp_path / "onnx"


def test_the_second_command_loads_no_pytorch(tiny_model: Path, tiny_sounds: Path, tmp_path: Path) -> None:
    clip = next((tiny_sounds / "audio").glob("1-*.wav"))
    code = (
        "import sys, soundsight; "
        f"prediction = soundsight.load({str(tiny_model)!r}, device='cpu')({str(clip)!r}); "
        "print(prediction.label, prediction.predictions[0].model.model_hash, 'torch' in sys.modules)"
    )
    environment = {**os.environ, "SOUNDSIGHT_CACHE": str(tmp_path)}
    environment.pop("YOLO_CONFIG_DIR", None)
    lines = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True, env=environment).stdout
        for _ in range(2)
    ]
    (*first, loaded), (*second, again) = (line.split()[-3:] for line in lines)
    assert first == second and first[1] == short_file_hash(tiny_model)
    assert (loaded, again) == ("True", "False")


def test_both_answer_alike(tiny_model: Path, tiny_sounds: Path, cache: Path) -> None:
    files = sorted((tiny_sounds / "audio").glob("5-*.wav"))
    fast = list(predict(tiny_model, files, device="cpu"))
    slow = list(predict(tiny_model, files, device="cpu", runtime="pytorch"))
    for one, other in zip(fast, slow, strict=True):
        assert one.label == other.label
        assert one.summary.model == other.summary.model
        np.testing.assert_allclose(one.predictions[0].probabilities, other.predictions[0].probabilities, atol=1e-5)


def test_features_and_reasons_come_from_pytorch(tiny_model: Path, cache: Path) -> None:
    fast = load(tiny_model, device="cpu").classifier
    slow = load_classifier(tiny_model, device="cpu")
    assert isinstance(fast, Converted) and "slow" not in vars(fast)
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    np.testing.assert_allclose(fast.features(image[None]), slow.features(image[None]), atol=1e-5)
    assert can_explain(fast)
    np.testing.assert_allclose(explain(fast, image).saliency, explain(slow, image).saliency, atol=1e-4)


def test_a_runtime_that_differs_is_not_used(tiny_model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converted, "AGREEMENT", -1.0)
    assert not isinstance(load(tiny_model, device="cpu").classifier, Converted)
    assert [file.suffix for file in cache.iterdir()] == [".differs"]  # and it is not converted every time
    assert not isinstance(load(tiny_model, device="cpu").classifier, Converted)


def test_damaged_conversions_are_made_again(tiny_model: Path, cache: Path) -> None:
    load(tiny_model, device="cpu")
    good = next(cache.iterdir()).read_bytes()
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1  # a weight: still an honest ONNX file
    for damaged in (good[:1000], bytes(flipped)):
        (file,) = cache.iterdir()
        file.write_bytes(damaged)
        assert isinstance(load(tiny_model, device="cpu").classifier, Converted)
        (made,) = cache.iterdir()
        assert made.read_bytes() != damaged and made.stem.endswith(hash_of(made.read_bytes()))


def test_a_checkpoint_that_changes_meanwhile_is_no_longer_the_same(
    tiny_model: Path, cache: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model.pt"
    shutil.copy(tiny_model, path)
    fast = load(path, device="cpu").classifier
    assert isinstance(fast, Converted)
    models.make_checkpoint(path)
    with pytest.raises(ModelError, match="changed since it was loaded"):
        fast.features(np.zeros((1, 64, 64, 3), np.uint8))


def test_only_some_conversions_are_kept(tiny_model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converted, "KEPT", 2)
    cache.mkdir()
    for age in range(3):
        (cache / f"{age}.onnx").touch()
        os.utime(cache / f"{age}.onnx", (age, age))
    load(tiny_model, device="cpu")
    old, new = sorted(cache.iterdir(), key=lambda file: len(file.name))
    assert old.name == "2.onnx"
    assert new.name == f"{hash_of(tiny_model.read_bytes())}-{FORMAT}-{hash_of(new.read_bytes())}.onnx"  # whole hashes


def test_where_it_cannot_be_used(tiny_model: Path, tiny_onnx: Path, cache: Path) -> None:
    for how in ({"trust": True}, {"spectrogram": TINY_EARS}, {"runtime": "pytorch"}):
        assert not isinstance(load(tiny_model, device="cpu", **how).classifier, Converted)
    assert not cache.exists()
    with pytest.raises(ConfigError, match="runtime='fast' is not allowed; choose one of auto, pytorch, onnxruntime"):
        load(tiny_model, runtime="fast")
    with pytest.raises(ConfigError, match="runtime=onnxruntime is for a checkpoint"):
        load(tiny_onnx, runtime="onnxruntime")


def test_onnx_runtime_reports_nothing(tiny_onnx, tmp_path):
    """From 1.29 on it makes an identifier in the user's home and sends file names, unless told not to."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("ORT_", "CI", "XDG_", "GITHUB"))}
    code = "import sys; from soundsight import load; load(sys.argv[1], device='cpu')"
    environment = {**kept, "HOME": str(tmp_path), "PYTHONPATH": str(Path(soundsight.__file__).parents[1])}
    environment.pop("SOUNDSIGHT_CACHE", None)
    subprocess.run([sys.executable, "-c", code, str(tiny_onnx)], check=True, env=environment)
    assert {path.name for path in (tmp_path / ".cache").iterdir()} == {"soundsight"}
