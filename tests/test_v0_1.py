"""What Soundsight 0.1 left goes on working: `fixtures/v0_1` was made by its commit f6e5ac3, on eight sounds.

    soundsight prepare sounds cache=cache data=data split.strategy=group split.fractions=[0.5,0.25,0.25] \
        sample_rate=8000 clip_seconds=0.25 image_size=32 n_fft=512 windows_ms=[8,16,32] fmin_hz=50
    soundsight train data=data model=(three convolutions and a classifier) epochs=4 imgsz=32 batch=4 plots=False
    soundsight export model.pt --out model.onnx
    soundsight predict model.pt sounds --out predictions.jsonl
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic.dataclasses import dataclass

from soundsight import config
from soundsight.cli import main
from soundsight.config import DatasetConfig, SpectrogramConfig
from soundsight.datasets import manifest
from soundsight.datasets.prepare import prepare
from soundsight.errors import Renamed

OLD = Path(__file__).parent / "fixtures" / "v0_1"
SPECTROGRAM = SpectrogramConfig(
    sample_rate=8000, clip_seconds=0.25, image_size=32, n_fft=512, windows_ms=(8, 16, 32), fmin_hz=50
)


@pytest.fixture
def old(tmp_path, monkeypatch):
    shutil.copytree(OLD, tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")


def test_a_later_option_at_its_default_changes_no_hash():
    @dataclass(frozen=True)
    class Later(SpectrogramConfig):
        gamma: float = config.option(1.0, since="0.2")

    assert config.settings_hash(SPECTROGRAM) == "dd7cdab46d19"  # as in the images of 0.1
    same, other = (Later(**config.to_dict(SPECTROGRAM), gamma=gamma) for gamma in (1.0, 2.0))
    assert config.to_dict(same) == config.to_dict(SPECTROGRAM)
    assert config.settings_hash(same) == config.settings_hash(SPECTROGRAM) != config.settings_hash(other)
    assert config.from_dict(Later, config.to_dict(other)) == other


def test_images_are_kept(old):
    assert manifest.read_spectrogram("data") == SPECTROGRAM
    dataset = config.from_dict(
        DatasetConfig, {k: v for k, v in manifest.read_settings("data")["dataset"].items() if k != "name"}
    )
    before = {path: path.read_bytes() for path in Path().glob("*/**/*.png")}
    done = prepare(dataset, SPECTROGRAM, workers=1)
    assert (done.rendered, done.kept, done.failures) == (0, 8, [])
    assert {path: path.read_bytes() for path in Path().glob("*/**/*.png")} == before
    for name in ("data", "cache"):
        theirs = json.loads((OLD / name / "settings.json").read_text())["spectrogram"]
        assert json.loads(Path(name, "settings.json").read_text())["spectrogram"] == theirs


def test_former_keys_are_read_and_change_no_hash(tmp_path):
    stored = json.loads((OLD / "data" / "settings.json").read_text())["dataset"]
    stored = {key: value for key, value in stored.items() if key != "name"} | {"speeds": [0.9], "source_pattern": "(x)"}
    found = config.from_dict(DatasetConfig, stored)
    assert (found.speed_perturbation, found.group_pattern) == ((0.9,), "(x)")
    assert config.to_dict(found, former=True) == stored
    (tmp_path / "my.yaml").write_text("speeds: [0.9]\n")
    with pytest.warns(Renamed, match="The key in .*my.yaml: speeds is now speed_perturbation"):
        assert config.load(DatasetConfig, tmp_path / "my.yaml").speed_perturbation == (0.9,)
    with pytest.warns(Renamed, match="The argument speeds is now speed_perturbation"):
        assert replace(DatasetConfig(), speeds=(0.9,)) == DatasetConfig(speed_perturbation=(0.9,))


@pytest.mark.parametrize("model", ["model.pt", "model.onnx"])
def test_models_predict_what_they_predicted(old, model):
    if model.endswith(".onnx"):
        pytest.importorskip("onnxruntime", reason="the extra soundsight[export] is not installed")
    assert main(["predict", model, "sounds", "--out", "now.jsonl", "--device", "cpu"]) == 0
    now, then = (
        {(row["recording"], row["label"]): row for row in map(json.loads, Path(name).read_text().splitlines())}
        for name in ("now.jsonl", "predictions.jsonl")
    )
    assert len({recording for recording, _ in now}) == 8
    for key, row in now.items():
        assert (row["start"], row["end"], row["rank"]) == (then[key]["start"], then[key]["end"], then[key]["rank"])
        assert row["probability"] == pytest.approx(then[key]["probability"], abs=1e-4)


def test_a_model_is_scored_on_its_data(old):
    assert main(["val", "model.pt", "--data", "data", "--split", "test", "--device", "cpu", "--out", "scored"]) == 0


def test_modules_go_on_under_their_former_names() -> None:
    import soundsight
    from soundsight.synthesis import dataset

    with pytest.warns(DeprecationWarning, match=r"soundsight.demo is deprecated and is now soundsight.syn"):
        assert soundsight.demo is dataset


def test_names_of_the_python_api_go_on_and_tell_the_new_ones(old) -> None:
    import soundsight
    from soundsight import inference

    clip = next(Path("sounds").rglob("*.wav"))
    model = soundsight.load("model.pt", device="cpu")
    for owner, former, name in (
        (inference, "Listener", "Predictor"),
        (inference, "Window", "Prediction"),
        (inference, "Answer", "Result"),
        (soundsight.reports, "draw_spectrogram", "plot_spectrogram"),
        (model, "fingerprint", "model_hash"),
        (model.model, "fingerprint", "model_hash"),
    ):
        with pytest.warns(DeprecationWarning, match=f"{former} is deprecated and is now {name}"):
            assert getattr(owner, former) == getattr(owner, name)
    result = model(clip)
    with pytest.warns(DeprecationWarning, match="Result.windows is deprecated and is now predictions"):
        assert result.windows is result.predictions
    with pytest.warns(DeprecationWarning, match="Predictor.windows is deprecated and is now predictions"):
        assert [one.label for one in model.windows(clip)] == [one.label for one in result.predictions]


def test_former_arguments_of_val_and_crossval_go_on_and_tell_the_new_ones(old) -> None:
    import soundsight

    with (
        pytest.warns(DeprecationWarning) as told,
        pytest.raises(soundsight.SoundsightError, match=r"tta|shifts|speeds"),
    ):
        soundsight.val("model.pt", data="data", folder="scores", speeds=[9.0], trust=False)
    assert {str(one.message).partition(" is ")[0] for one in told} >= {"folder=", "speeds=", "trust="}
    assert any(str(one.message).endswith("and is now tta_speeds=.") for one in told)
    nowhere = DatasetConfig(root="nowhere")
    with (
        pytest.warns(DeprecationWarning, match="only= is deprecated and is now folds="),
        pytest.raises(soundsight.SoundsightError, match="nowhere does not exist"),
    ):
        soundsight.crossval(nowhere, only=[1])
