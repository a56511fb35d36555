"""Calibration: temperature and threshold rest on enough clips, or there are none; what they rest on is said."""

import shutil
from pathlib import Path

import pytest

from soundsight.backend.checkpoint import load_checkpoint
from soundsight.backend.export import export
from soundsight.cli import main
from soundsight.evaluation import calibration
from soundsight.evaluation.calibration import calibrate_checkpoint
from soundsight.evaluation.train import train
from soundsight.inference import Options, load
from soundsight.inference.options import summary_thresholds, thresholds
from soundsight.reports.wording import calibration_lines

QUICK = {"model": "yolov8n-cls.yaml", "imgsz": 64, "epochs": 1, "batch": 16, "device": "cpu", "plots": False}


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copyfile(tiny_model, tmp_path / "model.pt"))


def relabelled(tiny_data: Path, folder: Path, *, clips: int, wrong: int) -> Path:
    """A folder whose split `val` has so many clips of sirens, the last of which lie with the rain."""
    images = sorted(tiny_data.rglob("siren/*.png"))
    assert len(images) == 20
    for number in range(clips):
        label = "siren" if number < clips - wrong else "rain"
        target = folder / "val" / label / f"{number}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(images[number % 20], target)
    return folder


@pytest.mark.parametrize(("clips", "wrong", "fitted"), [(60, 20, True), (49, 20, False), (4, 1, False)])
def test_a_temperature_needs_clips_and_wrong_ones(model, tiny_data, tmp_path, clips, wrong, fitted):
    data = relabelled(tiny_data, tmp_path / "data", clips=clips, wrong=wrong)
    stored = calibrate_checkpoint(model, data)
    basis = stored["calibration"]
    assert basis["clips"] == clips and basis["wrong"] >= wrong * 0.8  # sirens are rarely taken for rain
    carried = load_checkpoint(model)["model"].soundsight
    assert {key: carried[key] for key in stored} == stored
    if fitted:
        low, high = basis["interval"]
        assert 1 < low < stored["temperature"] < high < 20
    else:
        assert (stored["temperature"], basis["interval"]) == (1.0, None)
    assert (stored["threshold"] > 0) == (clips - basis["wrong"] >= calibration.FEWEST_RIGHT)
    first = calibration_lines(stored)[0]
    assert f"the {clips} clips of `val`, {basis['wrong']} of them predicted wrong" in first
    assert first.startswith("Temperature" if fitted else "No temperature")


def test_train_and_card_say_what_was_fitted_and_promise_no_unknown(tiny_data, tmp_path, capsys):
    words = [f"{key}={value}" for key, value in {**QUICK, "data": tiny_data, "project": tmp_path, "name": "r"}.items()]
    assert main(["train", *words]) == 0
    said = capsys.readouterr().out
    card = (tmp_path / "r" / "model-card.md").read_text(encoding="utf-8")
    for text in (said, card):
        assert "No temperature was fitted on the 16 clips of `val`" in text and "It has no threshold" in text
    assert "never unknown" in card and "or unknown where" not in card


def test_what_older_checkpoints_rest_on_is_not_known():
    lines = calibration_lines({"temperature": 1.4, "threshold": 0.5})
    assert lines[0] == "Temperature of its probabilities: 1.400; on how many clips it was fitted is not known."
    assert "below 0.50 is `unknown`" in lines[1]


def test_the_device_that_was_asked_for_calibrates(tiny_data, tmp_path, monkeypatch):
    """Also of several; the GPU of a machine that has one is not taken instead."""
    from soundsight.evaluation import train as module

    asked = []
    monkeypatch.setattr(module, "calibrate_checkpoint", lambda *_, device: asked.append(device) or {})
    train(**QUICK, data=str(tiny_data), project=str(tmp_path))
    assert asked == ["cpu", "cpu"]


def test_val_stores_a_threshold_for_each_class_which_predict_uses(model, tiny_data, tiny_sounds, tmp_path, capsys):
    """Fitted on clips of `val`, told with what they rest on, carried into an export, and taken by predict."""
    data = tmp_path / "data"
    for label in ("siren", "rain", "engine"):
        shutil.copytree(tiny_data / "train" / label, data / "val" / label)
    shutil.copytree(tiny_data / "val" / "crickets", data / "val" / "crickets")  # four clips, one too few
    words = ["val", str(model), "--data", str(data), "--allow-seen", "--out", str(tmp_path / "out")]
    assert main([*words, "--precision", "0.8"]) == 0
    said = capsys.readouterr().out
    carried = load_checkpoint(model)["model"].soundsight["thresholds"]
    assert {name: found["clips"] for name, found in carried.items()} == {
        "crickets": 4, "engine": 12, "rain": 12, "siren": 12,
    }  # fmt: skip
    assert carried["crickets"]["value"] is None
    assert "| crickets | none: too few clips |" in said
    siren = carried["siren"]
    low, high = siren["interval"]
    assert 0 < low <= siren["value"] <= high <= 1
    assert siren["precision"] >= 0.8
    preprocessing = load(model, runtime="pytorch").classifier.preprocessing
    own = load_checkpoint(model)["model"].soundsight.get("threshold", 0.0)
    names = load(model, runtime="pytorch").names
    expected = [carried[name]["value"] if carried[name]["value"] is not None else own for name in names]
    assert thresholds(Options().threshold, preprocessing) == pytest.approx(expected)
    assert not summary_thresholds(Options(), preprocessing).any()  # they are for segments, not for means over them
    assert thresholds(Options(threshold=0.25).threshold, preprocessing) == pytest.approx(0.25)
    exported = export(model, "torchscript", out=tmp_path / "m.torchscript")
    assert b'"thresholds"' in exported.read_bytes()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["val", "MODEL", "--split", "test", "--precision", "0.9"], "never on clips that test them"),
        (["val", "m.onnx", "--thresholds"], "is an export, which keeps its thresholds"),
        (["val", "MODEL", "--precision", "1.5"], "precision=1.5"),
        (["train", "--precision", "0.9", "--no-calibrate"], "precision=0.9 has no effect with --no-calibrate"),
    ],
)
def test_thresholds_that_cannot_be_fitted_are_one_message(model, tiny_data, capsys, words, text):
    assert main([str(model) if word == "MODEL" else word for word in words]) == 2
    error = capsys.readouterr().err
    assert text in error and error.count("\n") == 1
