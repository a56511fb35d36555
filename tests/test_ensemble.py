"""Several models as one: means of probabilities, and models that do not go together."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from conftest import TINY_EARS
from soundsight.backend.checkpoint import update_preprocessing
from soundsight.cli import main
from soundsight.errors import ConfigError
from soundsight.inference import load


@pytest.fixture(scope="module")
def other(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network, less sure of itself."""
    path = tmp_path_factory.mktemp("ensemble") / "other.pt"
    shutil.copyfile(tiny_model, path)
    update_preprocessing(path, temperature=3.0, threshold=0.2)
    return path


@pytest.fixture(scope="module")
def clip(tiny_sounds: Path) -> Path:
    return sorted((tiny_sounds / "audio").glob("5-*.wav"))[0]


def changed(model: Path, folder: Path, **preprocessing: object) -> Path:
    path = folder / "changed.pt"
    shutil.copyfile(model, path)
    update_preprocessing(path, **preprocessing)
    return path


def test_an_ensemble_answers_with_the_mean(tiny_model: Path, other: Path, clip: Path) -> None:
    one, two = (load(path, device="cpu")(clip).predictions[0] for path in (tiny_model, other))
    both = load([tiny_model, other], device="cpu")
    answer = both(clip).predictions[0]
    assert not np.allclose(one.probabilities, two.probabilities, atol=0.02)
    assert np.allclose(answer.probabilities, (one.probabilities + two.probabilities) / 2, atol=1e-6)
    assert both.model_hash == f"{one.model.model_hash}+{two.model.model_hash}"
    assert both.classifier.preprocessing.threshold == pytest.approx(0.2)  # the other has none, which is not one of 0
    assert load([tiny_model, tiny_model], device="cpu").classifier.preprocessing.threshold == 0


def test_looks_are_averaged_model_by_model(tiny_model: Path, other: Path, clip: Path) -> None:
    how = {"shifts": 2, "speeds": (0.9,)}
    one, two, both = (
        load(paths, device="cpu")(clip, **how).predictions[0].probabilities
        for paths in (tiny_model, other, [tiny_model, other])
    )
    assert np.allclose(both, (one + two) / 2, atol=1e-6)


def test_the_command_averages_what_with_names(
    tiny_model: Path, other: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", str(tiny_model), str(clip), "--device", "cpu", "--format", "jsonl", "--top-k", "1"]
    found = []
    for more in ([], ["--with", str(other)], ["--with", str(other), str(other)]):
        assert main([*words, *more]) == 0
        found.append(json.loads(capsys.readouterr().out.splitlines()[0]))
    assert len({row["label"] for row in found}) == 1
    first, second, third = (row["probability"] for row in found)
    assert third == pytest.approx(first + (second - first) * 4 / 3, abs=1e-5)  # two of three, not one of two
    assert found[2]["model"].count("+") == 2


def test_models_that_do_not_go_together_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    renamed = changed(tiny_model, tmp_path, names=["a", "b", "c", "d"])
    with pytest.raises(ConfigError, match="Model 2 knows other classes"):
        load([tiny_model, renamed], device="cpu")
    preprocessing = asdict(replace(TINY_EARS, db_floor=-60.0))
    deaf = changed(tiny_model, tmp_path, spectrogram={**preprocessing, "windows_ms": list(preprocessing["windows_ms"])})
    with pytest.raises(ConfigError, match="Model 2 has other spectrogram settings"):
        load([tiny_model, deaf], device="cpu")
    with pytest.raises(ConfigError, match="No model is named"):
        load([])


def test_what_one_network_alone_can_do_is_refused(
    tiny_model: Path, other: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = load([tiny_model, other], device="cpu")
    assert not both.classifier.has_gradients
    with pytest.raises(ConfigError, match="no feature vector in common"):
        list(both.embed(clip))
    assert main(["predict", str(tiny_model), str(clip), "--with", str(other), "--engine", "ray"]) == 2
    assert "one model" in capsys.readouterr().err
