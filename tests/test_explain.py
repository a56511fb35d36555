"""The reasons: credits add up, heat lies where the sound is, and what cannot be explained is refused."""

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from soundsight import cli
from soundsight.errors import ConfigError, ModelError
from soundsight.inference.explain import can_explain, class_index, explain, saliency_of
from soundsight.reports.spectrograms import plot_saliency
from soundsight.spectrogram import render
from soundsight.synthesis import dataset as demo


@pytest.fixture(scope="module")
def classifier(tiny_model: Path):
    from soundsight.models.load import load_classifier

    return load_classifier(tiny_model, device="cpu")


@pytest.fixture(scope="module")
def siren(classifier) -> np.ndarray:
    return render(demo.synthesise("siren", seed=3, seconds=1.0), classifier.preprocessing.spectrogram)


def test_credits_add_up_to_what_the_sound_changed(classifier, siren):
    from soundsight.inference.explain import attributions

    index = classifier.preprocessing.names.index("siren")
    found = attributions(classifier, siren, index, steps=64)
    assert found.shape == (64, 64) and found.dtype == np.float32
    with_sound, silence = np.log(classifier.probabilities(np.stack([siren, 0 * siren]))[:, index])
    assert found.sum() == pytest.approx(float(with_sound - silence), rel=0.05, abs=0.05)


def test_silence_gets_no_credit(classifier, siren):
    from soundsight.inference.explain import attributions

    siren = siren.copy()
    siren[:, 40:] = 0
    found = attributions(classifier, siren, 0)
    assert not found[:, 40:].any() and found[:, :40].any()


def test_explaining_leaves_the_answers_as_they_were(classifier, siren):
    before = classifier.probabilities(siren[None])
    reason = explain(classifier, siren)
    assert np.array_equal(before, classifier.probabilities(siren[None]))
    assert reason.label == classifier.preprocessing.names[before[0].argmax()]
    assert reason.probability == pytest.approx(before.max())
    assert reason.saliency.shape == (64, 64) and reason.saliency.min() >= 0 and reason.saliency.max() == 1
    across, down = reason.peak()
    assert reason.saliency[int(down * 64), int(across * 64)] == 1


def test_masking_the_hottest_cells_hurts_more_than_masking_others(classifier, tiny_data: Path):
    """The idea of benchmarks/masking.py on the tiny model."""
    from soundsight.datasets.images import read_image

    files = sorted((tiny_data / "test").rglob("*.png"))
    images = np.stack([read_image(file) for file in files])
    before = classifier.probabilities(images)
    classes = before.argmax(1)
    falls = {}
    for name, sign in (("hot", 1), ("cold", -1)):
        masked = images.copy()
        for image, index in zip(masked, classes, strict=True):
            saliency = explain(classifier, image, classifier.preprocessing.names[index]).saliency
            cells = saliency.reshape(16, 4, 16, 4).mean((1, 3))
            for cell in np.argsort(-sign * cells, axis=None)[:26]:
                row, column = divmod(int(cell), 16)
                image[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 0
        falls[name] = (before - classifier.probabilities(masked))[np.arange(len(files)), classes].mean()
    assert falls["hot"] > falls["cold"] + 0.02


def test_heat_of_nothing_is_nothing():
    nothing = np.zeros((8, 8), np.float32)
    assert not saliency_of(nothing - 1, nothing).any()
    assert saliency_of(nothing, nothing + 0.5).max() == 1


def test_the_layers_are_all_seen_and_left_without_hooks(classifier, siren):
    from soundsight.inference.explain import layer_map

    found = layer_map(classifier, siren, 0)
    assert found.shape == (64, 64) and found.min() >= 0 and 0 < found.max() <= 1
    assert not any(layer._forward_hooks for layer in classifier.network.modules())


def test_an_unknown_class_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"knows no class 'sirens'\. Did you mean 'siren'\?"):
        class_index(("siren", "rain"), "sirens")


def test_an_export_is_refused(tiny_onnx: Path, siren):
    from soundsight.models.load import load_classifier

    exported = load_classifier(tiny_onnx, device="cpu")
    assert not can_explain(exported)
    with pytest.raises(ModelError, match=r"no gradients; use the checkpoint \.pt"):
        explain(exported, siren)


def test_heat_must_fit_its_picture(tmp_path: Path, siren, classifier):
    preprocessing = classifier.preprocessing.spectrogram
    with pytest.raises(ConfigError, match="same height and width"):
        plot_saliency(siren, np.zeros((32, 32), np.float32), preprocessing, tmp_path / "a.png")
    assert plot_saliency(siren, None, preprocessing, tmp_path / "b.svg").read_text(encoding="utf-8").startswith("<?xml")


def test_the_command_draws_a_heat_map(tmp_path: Path, tiny_model: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    clip = np.concatenate([demo.synthesise("rain", seed=5, seconds=1.0), demo.synthesise("siren", seed=6, seconds=1.0)])
    soundfile.write("long.wav", clip, 16000)
    assert cli.main(["explain", str(tiny_model), "long.wav", "--class", "siren", "--device", "cpu"]) == 0
    assert "siren" in capsys.readouterr().out
    assert Path("long-reasons.png").read_bytes().startswith(b"\x89PNG")
    assert (
        cli.main(["explain", str(tiny_model), "long.wav", "--start", "0.5", "--out", "b.png", "--device", "cpu"]) == 0
    )
    assert "from 0.5 to 1.5 s" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--class", "dragon"], "knows no class 'dragon'"),
        (["--start", "-1"], "start=-1 is out of range"),
        (["--start", "9"], "choose an earlier start"),
        (["--out", "a.bmp"], "must end in .png, .pdf, .svg"),
    ],
)
def test_the_command_refuses_in_one_sentence(tmp_path, tiny_model, monkeypatch, capsys, words, sentence):
    monkeypatch.chdir(tmp_path)
    soundfile.write("a.wav", demo.synthesise("rain", seed=5, seconds=1.0), 16000)
    assert cli.main(["explain", str(tiny_model), "a.wav", "--device", "cpu", *words]) in (1, 2)
    assert sentence in capsys.readouterr().err


def test_silence_is_not_explained(tmp_path, tiny_model, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    soundfile.write("a.wav", np.zeros(16000, np.float32), 16000)
    assert cli.main(["explain", str(tiny_model), "a.wav", "--device", "cpu"]) == 1
    assert "nothing but silence" in capsys.readouterr().err


def test_the_room_is_light():
    import subprocess

    code = "import sys, soundsight.inference.explain; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
