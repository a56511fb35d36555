"""What a model was trained on travels inside it: a score says which of its clips the model knows, and refuses them."""

import base64
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from conftest import TINY_EARS
from soundsight.backend.checkpoint import load_checkpoint, update_preprocessing
from soundsight.backend.train import Run
from soundsight.cli import main
from soundsight.config import DatasetConfig, SplitConfig
from soundsight.datasets import manifest
from soundsight.datasets.prepare import prepare
from soundsight.errors import ConfigError, DatasetError, ModelError
from soundsight.evaluation.crossval import crossval
from soundsight.evaluation.seen import record
from soundsight.evaluation.train import train
from soundsight.evaluation.val import val
from soundsight.reports.run_report import report

QUICK = {"model": "yolov8n-cls.yaml", "imgsz": 64, "epochs": 1, "batch": 16, "device": "cpu", "plots": False}


@pytest.fixture(scope="module")
def run(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(**QUICK, data=str(tiny_data), project=str(tmp_path_factory.mktemp("seen")), name="r")


def laid_out(tiny_sounds: Path, folder: Path, **split: object) -> Path:
    config = DatasetConfig(
        root=str(tiny_sounds), cache=str(folder / "cache"), data=str(folder / "data"), split=SplitConfig(**split)
    )
    return prepare(config, TINY_EARS, workers=1).data


def test_other_folds_are_refused_and_named_where_they_are_allowed(run, tiny_sounds, tiny_data, tmp_path, capsys):
    """The model was trained on folds 1 to 3; this folder's test split is fold 3."""
    data = laid_out(tiny_sounds, tmp_path, train=(1, 2), val=(4,), test=(3, 5))
    command = ["val", str(run.last), "--data", str(data), "--split", "test", "--out", str(tmp_path / "v")]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "trained on 16 of these 32 clips" in error and "--allow-seen" in error and not (tmp_path / "v").exists()
    assert main([*command, "--allow-seen"]) == 0
    assert "trained on 16 of these 32 clips" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "v" / "metrics.json").read_text(encoding="utf-8"))
    assert (metrics["seen"]["clips"], metrics["seen"]["siblings"]) == (16, 0)
    assert "trained on 16 of these 32 clips" in report(tmp_path / "v", saliency=False).read_text(encoding="utf-8")

    fair = val(run.last, data=tiny_data, split="test", out=tmp_path / "fair")
    assert (fair.seen.clips, fair.seen.siblings, fair.seen.tuned) == (0, 0, 0)
    assert "none of these 16 clips" in fair.card.read_text(encoding="utf-8")


def test_siblings_of_what_was_trained_on_are_refused(tiny_sounds, tmp_path):
    """Clip by clip at random, takes of one source lie on both sides."""
    data = laid_out(tiny_sounds, tmp_path, strategy="random")
    trained = train(**QUICK, data=str(data), project=str(tmp_path), name="r")
    with pytest.raises(ConfigError, match=r"trained on 0 of these \d+ clips, and on the recordings of [1-9]\d* more"):
        val(trained.last, data=data, split="test", out=tmp_path / "v")
    rows = [row for row in manifest.read_rows(data / "manifest.csv") if row.split == "test"]
    manifest.write_rows(data / "manifest.csv", rows)  # the siblings alone
    shutil.rmtree(data / "train")
    with pytest.raises(ConfigError, match=r"trained on 0 of these \d+ clips, and on the recordings of [1-9]\d* more"):
        val(trained.last, data=data, split="test", out=tmp_path / "v")
    update_preprocessing(trained.last, seen={"train": "", "val": ""})  # as of 0.1.0, without groups
    assert val(trained.last, data=data, split="test", out=tmp_path / "v").seen.siblings == 0


def test_no_fold_is_tested_on_what_its_starting_weights_know(run, tiny_sounds, tiny_model, tmp_path):
    """The weights were trained on folds 1 to 3, and chosen on 4."""
    config = DatasetConfig(root=str(tiny_sounds), cache=str(tmp_path / "cache"))

    def fold(number: int, model: Path, lines: list) -> None:
        words = {**QUICK, "model": str(model)}
        del words["imgsz"], words["plots"]
        crossval(config, TINY_EARS, runs=tmp_path / "runs", workers=1, folds=[number], say=lines.append, **words)

    with pytest.raises(ConfigError, match=r"last.pt were trained on 16 of the 16 tested clips"):
        fold(1, run.last, [])
    fold(5, run.last, known := [])
    fold(5, tiny_model, unknown := [])
    told = ["does not say what it was trained on" in "".join(lines) for lines in (known, unknown)]
    assert told == [False, True]


def test_the_stock_command_never_hands_on_settings_unawares(run, tiny_data, tmp_path):
    """Trained on by `yolo`, on whatever data: a model says what it lost, and gets it by name only."""
    from ultralytics import YOLO

    words = {**QUICK, "data": str(tiny_data), "project": str(tmp_path), "name": "stock", "workers": 0, "val": False}
    del words["model"]
    YOLO(str(run.last)).train(**words)
    last = tmp_path / "stock" / "weights" / "last.pt"
    with pytest.raises(ModelError, match="does not say how .*supply the settings with --spectrogram"):
        val(last, data=tiny_data, split="test", out=tmp_path / "v")
    done = val(last, data=tiny_data, split="test", out=tmp_path / "v", spectrogram=TINY_EARS)
    assert done.seen is None  # nor what it was trained on


@pytest.mark.parametrize("fitted", [True, False])
def test_the_split_that_chose_the_epoch_is_named(run, tiny_data, tmp_path, fitted, capsys):
    for name in ("best.pt", "last.pt"):
        model = Path(shutil.copyfile(run.last, tmp_path / name))
        if fitted:
            update_preprocessing(model, temperature=1.5, threshold=0.3)
        assert main(["val", str(model), "--data", str(tiny_data), "--out", str(tmp_path / f"{name}-v")]) == 0
        said = capsys.readouterr().out
        assert ("16 of these clips chose its epoch" in said) == (name == "best.pt")
        assert ("fitted its temperature and threshold" in said) == fitted
        assert ("flatter a little" in said) == (fitted or name == "best.pt")


def test_a_checkpoint_that_does_not_say_is_scored_as_not_known(tiny_model, tiny_data, tmp_path, run):
    done = val(tiny_model, data=tiny_data, split="train", out=tmp_path / "v")
    assert done.seen is None
    assert json.loads((tmp_path / "v" / "metrics.json").read_text(encoding="utf-8"))["seen"] is None
    assert "is not known" in report(tmp_path / "v", saliency=False).read_text(encoding="utf-8")
    model = Path(shutil.copyfile(run.last, tmp_path / "m.pt"))
    update_preprocessing(model, seen={"train": "?", "val": ""})
    with pytest.raises(ModelError, match=r"of its training clips is damaged"):
        val(model, data=tiny_data, split="test", out=tmp_path / "w")


def test_training_on_from_a_model_keeps_what_that_knew(run, tiny_sounds, tiny_data, tmp_path, tiny_model):
    data = laid_out(tiny_sounds, tmp_path, train=(5,), val=(4,), test=(1, 2, 3))
    again = train(**{**QUICK, "model": str(run.last)}, data=str(data), project=str(tmp_path), name="again")
    with pytest.raises(ConfigError, match="trained on 48 of these 48 clips"):
        val(again.last, data=data, split="test", out=tmp_path / "v")
    unknown = train(**{**QUICK, "model": str(tiny_model)}, data=str(data), project=str(tmp_path), name="unknown")
    assert val(unknown.last, data=data, split="test", out=tmp_path / "w").seen is None


def test_exports_say_it_too(run, tiny_sounds, tmp_path):
    pytest.importorskip("onnxruntime")
    from soundsight.backend.export import export

    model = export(run.last, "onnx", out=tmp_path / "m.onnx")
    data = laid_out(tiny_sounds, tmp_path, train=(5,), val=(4,), test=(1,))
    with pytest.raises(ConfigError, match="trained on 16 of these 16 clips"):
        val(model, data=data, split="test", out=tmp_path / "v")


def test_pictures_of_other_tools_are_known_by_their_bytes(tiny_data, tmp_path):
    for split in ("train", "val", "test"):
        shutil.copytree(tiny_data / "train", tmp_path / "data" / split)
    from soundsight.datasets import images as images

    for file in (tmp_path / "data").rglob("*.png"):
        pixels = file.read_bytes()
        file.write_bytes(pixels.replace(b"soundsight\0", b"otherwords\0"))
        assert images.read_key(file) is None
    found = record(tmp_path / "data")
    assert found["train"] == found["val"] and len(base64.b64decode(found["train"])) == 8 * 48


def test_a_hundred_thousand_clips_stay_small_and_load(run, tiny_data, tmp_path):
    model = Path(shutil.copyfile(run.last, tmp_path / "m.pt"))
    before = model.stat().st_size
    many = np.random.default_rng(0).integers(0, 2**63, 100_000, np.uint64)
    text = base64.b64encode(np.sort(many).astype("<u8").tobytes()).decode()
    update_preprocessing(model, seen={"train": text, "val": ""})
    assert model.stat().st_size - before < 1.2e6
    assert load_checkpoint(model)["model"].soundsight["seen"]["train"] == text
    assert val(model, data=tiny_data, split="test", out=tmp_path / "v").seen.clips == 0


def test_classes_without_clips_are_named_and_one_class_is_refused(run, tiny_data, tmp_path, capsys):
    data = Path(shutil.copytree(tiny_data, tmp_path / "data"))
    (data / "manifest.csv").unlink()
    for split, label in (("test", "rain"), ("val", "siren")):
        for file in (data / split / label).iterdir():
            file.unlink()
    assert main(["val", str(run.last), "--data", str(data), "--split", "test", "--out", str(tmp_path / "v")]) == 0
    assert "Classes without a clip in the split test: rain." in capsys.readouterr().out
    metrics = json.loads((tmp_path / "v" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["classes_without_clips"] == ["rain"]
    trained = train(**QUICK, data=str(data), project=str(tmp_path), name="r")
    assert f"Classes without a clip in the split 'val' of {data}: siren." in trained.notes
    for label in ("crickets", "engine", "rain"):
        shutil.rmtree(data / "train" / label)
    with pytest.raises(DatasetError, match="there is only one class, 'siren'"):
        train(**QUICK, data=str(data), project=str(tmp_path), name="s")
