"""Cross-validation as a user runs it: complete, resumable, and never on leaked clips."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from conftest import TINY_EARS
from soundsight.backend.checkpoint import update_preprocessing
from soundsight.config import DatasetConfig, SpectrogramConfig, SplitConfig
from soundsight.datasets.catalogue import Clip, read_catalogue
from soundsight.datasets.images import render_clip
from soundsight.datasets.prepare import render_all
from soundsight.errors import ConfigError, DatasetError
from soundsight.evaluation.crossval import crossval
from soundsight.models.classifier import softmax
from soundsight.models.load import load_classifier

EARS = SpectrogramConfig(sample_rate=8000, clip_seconds=0.5, image_size=64, n_fft=1024, windows_ms=(25, 50, 100))
QUICK = {"model": "yolov8n-cls.yaml", "epochs": 1, "batch": 16, "device": "cpu"}


@pytest.fixture
def tones(tmp_path) -> DatasetConfig:
    """Three folds of two classes in ESC-50's layout: low and high tones."""
    audio = tmp_path / "tones" / "audio"
    audio.mkdir(parents=True)
    lines = ["filename,fold,target,category,esc10,src_file,take"]
    for fold in (1, 2, 3):
        for target, (name, pitch_hz) in enumerate([("high", 2000), ("low", 300)]):
            for take in range(4):
                source = f"{fold}{target}{take}"
                file = f"{fold}-{source}-A-{target}.wav"
                time_s = np.arange(4000) / 8000
                noise = np.random.default_rng(int(source)).normal(0, 0.01, 4000)
                soundfile.write(audio / file, 0.3 * np.sin(2 * np.pi * pitch_hz * time_s) + noise, 8000)
                lines.append(f"{file},{fold},{target},{name},False,{source},A")
    (tmp_path / "tones" / "meta").mkdir()
    (tmp_path / "tones" / "meta" / "esc50.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return DatasetConfig(root=str(tmp_path / "tones"), cache=str(tmp_path / "cache"), data=str(tmp_path / "data"))


def test_every_clip_is_scored_once_and_all_is_written(tones, tmp_path):
    lines = []
    done = crossval(tones, EARS, name="a", runs=tmp_path / "runs", workers=1, say=lines.append, **QUICK)
    assert done.folds == [1, 2, 3] and done.pooled.count == 24
    rows = list(csv.DictReader((done.folder / "predictions.csv").open(encoding="utf-8")))
    assert len({row["clip"] for row in rows}) == 24
    for row in rows:  # a clip is predicted by the model of its own fold
        assert row["clip"].split("/")[1].startswith(f"{row['fold']}-")
    metrics = json.loads((done.folder / "metrics.json").read_text(encoding="utf-8"))
    top1 = [fold["top1"] for fold in metrics["folds"].values()]
    assert metrics["top1_over_folds"]["mean"] == pytest.approx(np.mean(top1), abs=1e-4)
    assert metrics["settings"]["protocol"] == "last" and metrics["settings"]["versions"]["torch"]
    for name in ("confusion_matrix.png", "confusion_matrix_normalized.png", "per_class.csv", "confused_pairs.csv"):
        assert (done.folder / name).stat().st_size > 0
    assert any("No source recording is in two folds" in line for line in lines)

    lines.clear()
    again = crossval(tones, EARS, name="a", runs=tmp_path / "runs", workers=1, say=lines.append, **QUICK)
    assert sum("done before, kept" in line for line in lines) == 3
    assert np.array_equal(again.pooled.probabilities, done.pooled.probabilities)

    with pytest.raises(ConfigError, match="other settings or other data"):
        crossval(tones, EARS, name="a", runs=tmp_path / "runs", workers=1, **{**QUICK, "epochs": 2})


def test_a_fold_that_was_trained_but_not_scored_ends_with_the_same_bytes(tones, tmp_path):
    """As after a kill in between: the process that scores has not trained, and computes with all its threads."""

    def run():
        done = crossval(
            tones,
            replace(EARS, image_size=32),
            name="a",
            runs=tmp_path / "runs",
            workers=1,
            **QUICK,
        )
        return [(done.folder / f"fold{fold}-seed0" / "probabilities.npz") for fold in done.folds]

    files = run()
    wanted = [file.read_bytes() for file in files]
    for threads in (1, 2, 3):
        for file in files:
            file.unlink()
        torch.set_num_threads(threads)
        run()
        assert [file.read_bytes() for file in files] == wanted, threads


def test_runs_on_the_same_data_are_averaged_whatever_their_pictures(tones, tmp_path):
    def run(name, preprocessing=EARS, **more):
        return crossval(tones, preprocessing, name=name, runs=tmp_path / "runs", workers=1, **QUICK, **more)

    first = run("first", seeds=(0, 1))
    small = replace(EARS, image_size=32)
    both = run("second", small, with_=[first.folder])
    alone = run("second", small)
    assert both.folder == alone.folder / "with-first"
    rows = list(csv.DictReader((both.folder / "predictions.csv").open(encoding="utf-8")))
    clips = [row["clip"] for row in rows]
    assert clips == [row["clip"] for row in csv.DictReader((alone.folder / "predictions.csv").open(encoding="utf-8"))]
    expected = (2 * first.pooled.probabilities + alone.pooled.probabilities) / 3  # two seeds and one
    assert np.allclose(both.pooled.probabilities, expected, atol=1e-6)
    metrics = json.loads((both.folder / "metrics.json").read_text(encoding="utf-8"))
    assert [len(models) for models in metrics["single_models_top1"].values()] == [3, 3, 3]
    assert metrics["settings"]["others"][0]["spectrogram"]["image_size"] == 64

    with pytest.raises(DatasetError, match="has no predictions for fold 1 with shifts=2"):
        run("second", small, with_=[first.folder], tta_shifts=2)
    with pytest.raises(ConfigError, match="holds no cross-validation"):
        run("second", small, with_=[tmp_path])
    with pytest.raises(ConfigError, match="has protocol last, this run train-val-test"):
        run("third", with_=[first.folder], protocol="train-val-test")
    table = Path(tones.root) / "meta" / "esc50.csv"
    table.write_text("\n".join(table.read_text(encoding="utf-8").splitlines()[:-1]) + "\n", encoding="utf-8")
    with pytest.raises(DatasetError, match="scored on other recordings"):
        run("fourth", with_=[first.folder])


def test_versions_at_other_speeds_are_trained_on_and_never_scored(tones, tmp_path):
    slow_and_fast = replace(tones, speed_perturbation=(0.8, 1.25))
    done = crossval(slow_and_fast, EARS, name="s", folds=[2], runs=tmp_path / "runs", workers=1, **QUICK)
    assert done.pooled.count == 8
    assert len(list(Path(tones.cache).rglob("*.png"))) == 3 * 24
    plain = crossval(tones, EARS, name="p", folds=[2], runs=tmp_path / "runs", workers=1, **QUICK)
    fingerprints = [json.loads((run.folder / "settings.json").read_text())["data_fingerprint"] for run in (done, plain)]
    assert fingerprints[0] == fingerprints[1]


def test_several_looks_at_each_clip_are_averaged(tones, tiny_model, tmp_path):
    trained = {**QUICK, "model": str(tiny_model), "epochs": 4, "batch": 4, "nbs": 4}

    def run(**more):
        return crossval(
            tones, EARS, name="v", folds=[2], runs=tmp_path / "runs", workers=1, say=lines.append, **trained, **more
        )

    lines = []
    plain, done = run(), run(tta_shifts=2, tta_speeds=[0.8])
    assert done.folder == plain.folder / "shifts2-speeds0.8"
    assert sum("training" in line for line in lines) == 1  # the model is only looked with once more
    settings = json.loads((done.folder / "metrics.json").read_text(encoding="utf-8"))["settings"]
    assert (settings["shifts"], settings["speeds"]) == (2, [0.8])
    classifier = load_classifier(plain.folder / "fold2-seed0/run/weights/last.pt", device="cpu")
    rows = list(csv.DictReader((done.folder / "predictions.csv").open(encoding="utf-8")))
    for row, found in zip(rows, done.pooled.probabilities, strict=True):
        clip = Clip(Path(tones.root, row["clip"]), row["clip"], "", "", "")
        looks = [render_clip(replace(clip, speed=speed), EARS) for speed in (1.0, 0.8)]
        turned = np.stack([np.roll(look, turn, axis=1) for look in looks for turn in (0, 32)])
        expected = softmax(np.log(softmax(classifier.logits(turned))).mean(axis=0)[None])[0]
        assert np.allclose(found, expected, atol=1e-4)
    assert not np.allclose(done.pooled.probabilities, plain.pooled.probabilities, atol=1e-4)

    with pytest.raises(ConfigError, match=r"speeds=\[1\.0\] is not allowed"):
        run(tta_speeds=[1.0])
    with pytest.raises(ConfigError, match="shifts=0 is not allowed"):
        run(tta_shifts=0)


def test_the_test_fold_is_in_no_folder_that_training_reads(tones, tmp_path, monkeypatch):
    """Look into the fold's data folder at the moment of training."""
    from soundsight.evaluation import folds as module

    seen = []

    def look(arguments, **_):
        data = Path(arguments["data"])
        seen.append({split: {p.name for p in (data / split).rglob("*.png")} for split in ("train", "val", "test")})
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "train_images", look)
    for protocol in ("last", "train-val-test"):
        with pytest.raises(KeyboardInterrupt):
            crossval(
                replace(tones, speed_perturbation=(0.8,)),
                EARS,
                protocol=protocol,
                folds=[2],
                name=protocol,
                runs=tmp_path / "runs",
                workers=1,
                **QUICK,
            )
    for splits in seen:
        assert len(splits["test"]) == 8 and all(name.startswith("2-") for name in splits["test"])
        assert not splits["test"] & (splits["train"] | splits["val"])
    assert seen[0]["val"] <= seen[0]["train"] and len(seen[0]["train"]) == 2 * 16
    assert all(name.startswith("3-") for name in seen[1]["val"]) and len(seen[1]["train"]) == 2 * 8
    held = seen[0]["test"] | seen[0]["val"] | seen[1]["test"] | seen[1]["val"]
    assert not any("@x" in name for name in held) and any("@x0.8" in name for name in seen[0]["train"])


def test_a_killed_run_continues_and_keeps_finished_folds(tones, tmp_path):
    command = [sys.executable, "-m", "soundsight", "crossval", f"root={tones.root}", f"cache={tones.cache}"]
    command += ["sample_rate=8000", "clip_seconds=0.5", "image_size=64", "n_fft=1024", "--name", "k", "--workers", "1"]
    command += [f"{key}={value}" for key, value in {**QUICK, "epochs": 2}.items()]
    first = tmp_path / "runs" / "crossval" / "k" / "fold1-seed0" / "probabilities.npz"
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not first.is_file() and process.poll() is None:
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
    stamp = first.stat().st_mtime_ns
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Fold 1, seed 0: done before, kept." in done.stderr and first.stat().st_mtime_ns == stamp
    assert "mean: top-1" in done.stdout


def test_sources_in_two_folds_stop_the_run(tones):
    table = Path(tones.root) / "meta" / "esc50.csv"
    table.write_text(table.read_text(encoding="utf-8").replace(",200,A", ",100,A"), encoding="utf-8")
    with pytest.raises(DatasetError, match="1 source recordings are in more than one fold, such as '100'"):
        crossval(tones, EARS, workers=1, **QUICK)


def test_equal_files_in_two_folds_stop_the_run_and_two_labels_are_named(tones):
    audio, lines = Path(tones.root) / "audio", []

    def look(line: str) -> None:
        lines.append(line)
        if line.startswith("No source recording"):
            raise KeyboardInterrupt

    def look_on(line: str) -> None:
        lines.append(line)
        if "images are ready" in line:
            raise KeyboardInterrupt

    first, far, near = (sorted(audio.glob(f"{start}*.wav"))[0] for start in ("1-10", "2-20", "1-11"))
    before = near.read_bytes()
    shutil.copyfile(first, near)
    with pytest.raises(KeyboardInterrupt):
        crossval(tones, EARS, workers=1, say=look, **QUICK)
    assert f"Files with the same content but two labels: 1, such as audio/{first.name} (high) and" in lines[0]
    near.write_bytes(before)
    table = Path(tones.root) / "meta" / "esc50.csv"
    text = table.read_text(encoding="utf-8")
    table.write_text("".join(line for line in text.splitlines(True) if "2-20" not in line), encoding="utf-8")
    with pytest.raises(KeyboardInterrupt):
        crossval(tones, EARS, workers=1, say=look_on, **QUICK)
    assert "Warning: Classes without a clip that is tested for fold 2: high." in lines
    table.write_text(text, encoding="utf-8")
    shutil.copyfile(first, far)
    with pytest.raises(DatasetError, match=f"more than one fold: 1, such as audio/{first.name} and audio/{far.name}"):
        crossval(tones, EARS, workers=1, say=look, **QUICK)


def test_what_a_cross_validation_sets_itself_is_refused_with_what_to_write(tones):
    for word, text in (
        ({"seed": 7}, "seed=7 .* write --seeds"),
        ({"imgsz": 96}, "imgsz=96 .* write image_size="),
        ({"save_dir": "x"}, "save_dir=x .* write --name"),
        ({"erasing": 0.5}, "erasing=0.5 is for photographs"),
    ):
        with pytest.raises(ConfigError, match=text):
            crossval(tones, EARS, **QUICK, **word)
    with pytest.raises(ConfigError, match="--groups 0 is not allowed"):
        crossval(replace(tones, split=SplitConfig(strategy="group")), EARS, groups=0, **QUICK)


def test_one_more_fold_leaves_finished_ones_in_the_summary(tones, tmp_path):
    def run(*only, **more):
        small = replace(EARS, image_size=32)
        return crossval(tones, small, name="a", runs=tmp_path, workers=1, folds=only, **{**QUICK, **more})

    assert run(2).folds == [2]
    assert run(1).folds == [1, 2] and run(1).pooled.count == 16
    start = tmp_path / "start.pt"
    shutil.copyfile(tmp_path / "a" / "fold1-seed0" / "run" / "weights" / "last.pt", start)
    first = crossval(tones, EARS, runs=tmp_path, workers=1, folds=[1], **{**QUICK, "model": start})
    update_preprocessing(start, temperature=2.0)
    again = crossval(tones, EARS, runs=tmp_path, workers=1, folds=[1], **{**QUICK, "model": start})
    assert first.folder != again.folder  # another file under the same name


def test_pictures_that_another_command_drew_meanwhile_are_refused(tones, tmp_path):
    """A second cross-validation with other settings draws into the same cache while the first trains."""
    small = replace(EARS, image_size=32)

    def say(line: str) -> None:
        if "Fold 1, seed 0: top-1" in line:
            render_all(read_catalogue(tones), replace(small, fmin_hz=200.0), Path(tones.cache), workers=1)

    with pytest.raises(DatasetError, match="was rendered anew by another command"):
        crossval(tones, small, name="a", runs=tmp_path / "runs", workers=1, say=say, **QUICK)
    done = crossval(tones, small, name="a", runs=tmp_path / "runs", workers=1, **QUICK)
    assert done.folds == [1, 2, 3]


def test_group_folds_never_divide_a_source(tones, tmp_path):
    """With strategy `group` the given folds are ignored and sources dealt anew."""
    config = DatasetConfig(**{**tones.__dict__, "split": SplitConfig(strategy="group")})
    done = crossval(config, EARS, groups=2, name="g", runs=tmp_path / "runs", workers=1, **QUICK)
    rows = list(csv.DictReader((done.folder / "predictions.csv").open(encoding="utf-8")))
    assert len(rows) == 24 and {row["fold"] for row in rows} == {"1", "2"}


def test_folds_and_protocols_that_do_not_exist_are_named(tones):
    with pytest.raises(ConfigError, match="Fold 9 does not exist; ESC-50 has 1, 2, 3"):
        crossval(tones, EARS, folds=[9], **QUICK)
    with pytest.raises(ConfigError, match="protocol='best'"):
        crossval(tones, EARS, protocol="best", **QUICK)


@pytest.mark.parametrize("device", ["0,1", [0, 1], "7"])
def test_devices_that_a_fold_cannot_train_on_are_refused_before_anything_is_drawn(tiny_sounds, tmp_path, device):
    config = DatasetConfig(root=str(tiny_sounds), cache=str(tmp_path / "cache"))
    with pytest.raises(ConfigError, match="one device|PyTorch sees"):
        crossval(config, TINY_EARS, device=device, runs=tmp_path / "runs")
    assert not list(tmp_path.iterdir())
