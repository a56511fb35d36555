"""Several labels per clip: sigmoids in every runtime, predictions with all classes, background that is no sound."""

from __future__ import annotations

import csv
import importlib.util
import io
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from conftest import TINY_CLASSES
from soundsight.backend.checkpoint import update_preprocessing
from soundsight.backend.export import export
from soundsight.cli import main
from soundsight.errors import ConfigError, ModelError
from soundsight.inference import load
from soundsight.models.load import load_classifier

MULTI = {"labels": "multi", "format": 3}


def changed(model: Path, path: Path, **preprocessing: object) -> Path:
    """A copy of a checkpoint with other preprocessing."""
    shutil.copyfile(model, path)
    update_preprocessing(path, **preprocessing)
    return path


@pytest.fixture(scope="module")
def multi(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny network with a sigmoid for each class: its logits are far apart, so some clips have none or several."""
    return changed(tiny_model, tmp_path_factory.mktemp("multi") / "multi.pt", **MULTI)


@pytest.fixture(scope="module")
def clips(tiny_sounds: Path) -> list[Path]:
    return sorted((tiny_sounds / "audio").glob("5-*.wav"))[:6]


def test_probabilities_are_sigmoids_of_the_logits_at_the_temperature_of_each_class(
    tiny_model: Path, tmp_path: Path
) -> None:
    path = changed(tiny_model, tmp_path / "a.pt", **MULTI, temperature=2.0, temperatures={"rain": 0.5})
    classifier, single = load_classifier(path, device="cpu"), load_classifier(tiny_model, device="cpu")
    images = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3), np.uint8)
    logits = single.logits(images).astype(np.float64)
    divisor = np.array([0.5 if name == "rain" else 2.0 for name in classifier.preprocessing.names])
    np.testing.assert_allclose(classifier.probabilities(images), 1 / (1 + np.exp(-logits / divisor)), atol=1e-6)
    flipped = [single.logits(np.roll(images, offset, axis=2)) for offset in (0, 32)]
    mean = np.mean(flipped, axis=0) / divisor
    np.testing.assert_allclose(classifier.probabilities(images, shifts=2), 1 / (1 + np.exp(-mean)), atol=1e-6)


def test_exports_end_in_a_sigmoid_and_agree_with_the_checkpoint(multi: Path, clips: list[Path], tmp_path: Path) -> None:
    ready = changed(multi, tmp_path / "m.pt", temperature=1.7, thresholds={"rain": {"value": 0.3, "clips": 9}})
    files = [ready, export(ready, "onnx")]
    if importlib.util.find_spec("openvino"):
        files.append(export(ready, "openvino"))
    found = [load(file, device="cpu", runtime="pytorch" if file is ready else "auto") for file in files]
    for clip in clips:
        expected, *others = (predictor(clip).predictions[0] for predictor in found)
        for other in others:
            np.testing.assert_allclose(other.probabilities, expected.probabilities, atol=1e-4)
            assert other.labels == expected.labels and other.model.multi
    image = np.random.default_rng(1).integers(0, 255, (1, 64, 64, 3), np.uint8)
    pixels = np.ascontiguousarray(image.transpose(0, 3, 1, 2), np.float32) / 255
    raw = load_classifier(files[1]).probabilities_of(pixels)  # type: ignore[attr-defined]
    np.testing.assert_allclose(raw, 1 / (1 + np.exp(-found[0].classifier.logits(image))), atol=1e-4)
    assert load(files[1]).classifier.preprocessing.thresholds == {"rain": pytest.approx(0.3)}
    fast = load(ready, device="cpu", runtime="onnxruntime")
    np.testing.assert_allclose(
        fast.classifier.probabilities(image), found[0].classifier.probabilities(image), atol=1e-4
    )


def test_all_classes_above_their_thresholds_are_reported(multi: Path, clips: list[Path], tmp_path: Path) -> None:
    low = {name: {"value": 0.0 if name in ("rain", "engine") else 1.0, "clips": 5} for name in TINY_CLASSES}
    both = load(changed(multi, tmp_path / "low.pt", thresholds=low), device="cpu")
    result = both(clips[0])
    (segment,) = result.predictions
    values = dict(zip(both.names, segment.probabilities, strict=True))
    assert segment.labels == tuple(sorted(("rain", "engine"), key=lambda name: -values[name])) == result.labels
    assert segment.label == segment.labels[0] and segment.probability == pytest.approx(values[segment.label])
    assert [row["label"] for row in segment.rows()] == list(segment.labels)
    assert [row["rank"] for row in segment.rows(4)] == [1, 2, 3, 4]
    for name, threshold in (("csv", None), ("jsonl", 0.0), ("audacity", None), ("raven", 0.0), ("table", None)):
        out = tmp_path / f"out.{name}"
        more = [] if threshold is None else ["--threshold", "0"]
        words = [
            "predict",
            str(tmp_path / "low.pt"),
            str(clips[0]),
            "--format",
            name,
            "--out",
            str(out),
            "--top-k",
            "1",
        ]
        assert main([*words, *more]) == 0
        text = "".join(file.read_text("utf-8") for file in ([out] if out.is_file() else sorted(out.iterdir())))
        shown = ("rain", "engine") if threshold is None else TINY_CLASSES
        assert all(label in text for label in shown) and ("siren" in text) == ("siren" in shown), (name, text)


def test_shards_of_a_cluster_keep_all_labels_of_a_segment(multi: Path, clips: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    from soundsight.cluster.predictions import gather_predictions

    words = ["predict", str(multi), *map(str, clips), "--device", "cpu", "--threshold", "0"]
    assert main([*words, "--out", str(tmp_path / "a.parquet")]) == main([*words, "--out", str(tmp_path / "a.csv")]) == 0
    shard = SimpleNamespace(count=1, storage=SimpleNamespace(read=lambda _: (tmp_path / "a.parquet").read_bytes()))
    gathered = io.BytesIO()
    gather_predictions(shard, gathered, "csv", 1)
    assert gathered.getvalue() == (tmp_path / "a.csv").read_bytes()
    assert gathered.getvalue().count(b"\n") > 1 + len(clips)


def test_nothing_above_a_threshold_is_background_and_no_sound(
    multi: Path, clips: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["predict", str(multi), str(clips[0]), "--device", "cpu", "--threshold", "1"]
    assert main([*command, "--format", "csv"]) == 0
    (row,) = csv.DictReader(capsys.readouterr().out.splitlines())
    assert row["label"] == "background" and row["rank"] == "1"
    assert main([*command, "--format", "audacity"]) == 0
    assert capsys.readouterr().out == ""
    result = load(multi, device="cpu")(clips[0], threshold=1.0)
    assert result.label == "background" and result.labels == () == result.predictions[0].labels
    assert not result.predictions[0].named and result.predictions[0].sounds == []
    assert result.probability == pytest.approx(1 - result.predictions[0].probabilities.max())
    silent = load(multi, device="cpu")(np.zeros(16000, np.float32), 16000)
    assert silent.label == "silence" and silent.predictions[0].labels == ()


def test_a_class_named_background_is_never_reported_as_a_sound(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a model of one label per clip: its table shows it, its events do not."""
    names = ["background", *TINY_CLASSES[1:]]
    model, noise = changed(tiny_model, tmp_path / "b.pt", names=names), np.random.default_rng(0).normal(0, 0.1, 16000)
    predictor = load(model, device="cpu")
    segments = predictor(noise.astype(np.float32), 16000, threshold={"": 0.0})
    best = max(zip(segments.predictions[0].probabilities, predictor.names, strict=True))[1]
    swapped = ["background" if name == best else best if name == "background" else name for name in predictor.names]
    update_preprocessing(model, names=swapped)
    result = load(model, device="cpu")(noise.astype(np.float32), 16000)
    assert result.label == result.predictions[0].label == "background"
    assert not result.predictions[0].named and result.predictions[0].labels == ("background",)


def test_models_of_both_kinds_are_not_averaged(
    multi: Path, tiny_model: Path, clips: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(multi), str(clips[0]), "--with", str(tiny_model)]) == 2
    assert "one label per clip" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="several labels per clip"):
        load([tiny_model, multi], device="cpu")
    one, two = load(multi, device="cpu"), load([multi, multi], device="cpu")
    np.testing.assert_allclose(
        two(clips[0]).predictions[0].probabilities, one(clips[0]).predictions[0].probabilities, atol=1e-5
    )
    assert two.model.multi and two(clips[0]).labels == one(clips[0]).labels


def test_a_file_that_lies_about_its_labels_is_refused(multi: Path, tmp_path: Path) -> None:
    for value in (
        {"format": 4},
        {"labels": "many"},
        {"temperatures": {"rain": 0.0}},
        {"thresholds": {"rain": {"value": 2.0}}},
    ):
        with pytest.raises(ModelError, match=r"newer|labels|temperature|thresholds"):
            load(changed(multi, tmp_path / "x.pt", **value), device="cpu")
