"""One sound, one prediction: training, `val`, `predict`, arrays and exported files hear the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from conftest import TINY_EARS, noise
from soundsight import audio
from soundsight.datasets.catalogue import Clip
from soundsight.datasets.images import render_clip
from soundsight.evaluation.scoring import list_images, logits_of
from soundsight.inference import Predictor, load, predict
from soundsight.inference.segments import cut, render_segment
from soundsight.models.classifier import softmax


@pytest.fixture(scope="module")
def predictor(tiny_model: Path) -> Predictor:
    return load(tiny_model, device="cpu")


@pytest.mark.parametrize(("rate", "channels", "kind"), [(16000, 1, "wav"), (44100, 2, "flac"), (8000, 1, "wav")])
@pytest.mark.parametrize("padding", ["silence", "repeat"])
@pytest.mark.parametrize("seconds", [0.37, 1.0, 3.21])
def test_pictures_are_those_of_training(
    tmp_path: Path, rate: int, channels: int, kind: str, padding: str, seconds: float
) -> None:
    path = tmp_path / f"a.{kind}"
    soundfile.write(path, noise(seconds, rate, channels), rate)
    config = replace(TINY_EARS, padding=padding, fmax_hz=3500.0)
    with audio.opened(path, block_seconds=0.3) as (info, blocks):
        found = list(cut(blocks, info.sample_rate, config, window_seconds=1.0, hop_seconds=1.0))
    for stretch in found:
        trained_on = Clip(
            path, "a", "x", "a", "a", start_seconds=stretch.start_seconds, end_seconds=stretch.end_seconds
        )
        images, silent, _ = render_segment(stretch, config, (0.8, 1.25))
        assert not silent
        for image, speed in zip(images, (1.0, 0.8, 1.25), strict=True):
            assert image.tobytes() == render_clip(replace(trained_on, speed=speed), config).tobytes()
    assert len(found) == np.ceil(seconds)


def test_images_recordings_and_arrays_agree(predictor: Predictor, tiny_data: Path, tiny_sounds: Path) -> None:
    images = list_images(tiny_data, "test", predictor.names)
    by_val = softmax(logits_of(predictor.classifier, images.files), predictor.classifier.preprocessing.temperature)
    paths = [tiny_sounds / row.file for row in images.rows if row]
    by_predict = np.stack([answer.predictions[0].probabilities for answer in predict(predictor, paths)])
    by_array = []
    for path in paths:
        samples, rate = soundfile.read(path, dtype="int16")
        by_array.append(predictor(samples, rate=rate).predictions[0].probabilities)
    assert len(paths) == 16
    np.testing.assert_allclose(by_predict, by_val, atol=1e-5)
    np.testing.assert_allclose(by_array, by_val, atol=1e-5)
    assert (by_val.argmax(axis=1) == images.targets).mean() > 0.5  # the tiny model has learned something


def test_a_path_and_its_samples_are_heard_alike(predictor: Predictor, tmp_path: Path) -> None:
    samples = noise(2.7, 44100, 2)
    path = tmp_path / "a.wav"
    soundfile.write(path, samples, 44100, subtype="FLOAT")
    one, other = predictor(path, hop_seconds=0.5), predictor(samples, 44100, hop_seconds=0.5)
    for a, b in zip(one.predictions, other.predictions, strict=True):
        assert (a.start_seconds, a.end_seconds) == (b.start_seconds, b.end_seconds)
        np.testing.assert_array_equal(a.probabilities, b.probabilities)


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_exported_files_agree(
    predictor: Predictor, tiny_model: Path, tiny_sounds: Path, tmp_path: Path, form: str
) -> None:
    pytest.importorskip({"onnx": "onnxruntime", "openvino": "openvino"}[form])
    from soundsight.backend.export import export

    made = export(tiny_model, form, out=tmp_path / f"model.{form}" if form != "openvino" else tmp_path / "model")
    exported = load(made, device="cpu")
    assert exported.spectrogram == predictor.spectrogram and exported.names == predictor.names
    files = sorted((tiny_sounds / "audio").glob("5-*.wav"))
    expected = list(predict(predictor, files))
    for batch in (1, 5, 32):  # batches of every size are possible
        answers = list(predict(exported, files, batch=batch))
        for one, other in zip(answers, expected, strict=True):
            assert one.label == other.label
            np.testing.assert_allclose(one.predictions[0].probabilities, other.predictions[0].probabilities, atol=1e-3)


def test_the_figure_of_the_benchmark(tiny_model: Path, tiny_data: Path) -> None:
    """`python -m benchmarks.parity`, whose figures stand in the docs, on the tiny model."""
    import sys

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from benchmarks.parity import measure

    result = measure(tiny_model, tiny_data, "test")
    assert result["clips"] == 16 and result["all_hold"]
    assert len(result["ways"]) == 5
    assert all(way.get("same_top_1", 16) == 16 for way in result["ways"].values())
