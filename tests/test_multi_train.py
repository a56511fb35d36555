"""Training on several labels per clip: from images in the folders of their classes to two sounds found at once."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
import soundfile
import torch

from conftest import TINY_EARS
from soundsight.augment import LEAST_SHARE, Augmenter, mix_noise
from soundsight.backend.checkpoint import checkpoint_model, load_checkpoint, update_preprocessing
from soundsight.backend.noise import noise_images
from soundsight.backend.train import no_augment
from soundsight.cli import main
from soundsight.config import AugmentConfig, to_dict
from soundsight.datasets.images import encode_png
from soundsight.datasets.multi import merged
from soundsight.errors import ConfigError, DatasetError
from soundsight.evaluation.train import train
from soundsight.inference import load
from soundsight.inference.explain import explain
from soundsight.reports.tables import read_results
from soundsight.reports.wording import calibration_lines
from soundsight.spectrogram import render

TONES = {"high": 3000.0, "low": 300.0, "middle": 1000.0}
QUICK = {"model": "yolov8n-cls.yaml", "imgsz": 64, "batch": 16, "nbs": 16, "amp": False, "optimizer": "AdamW"}
QUICK |= {"lr0": 0.003, "warmup_epochs": 0, "device": "cpu", "workers": 0, "plots": False}


def sound(labels: tuple[str, ...], seed: int, rate: int = TINY_EARS.sample_rate) -> np.ndarray:
    """A second of faint noise with a tone for each label, float32 `(rate,)`."""
    random = np.random.default_rng(seed)
    time = np.arange(rate) / rate
    wave = 0.003 * random.standard_normal(rate)
    for label in labels:
        wave += random.uniform(0.1, 0.3) * np.sin(2 * np.pi * TONES[label] * random.uniform(0.95, 1.05) * time)
    return wave.astype(np.float32)


def lay_out(data: Path, *, label_mode: str = "multi") -> Path:
    """A data folder as `prepare` lays it out: hard links into the folder of each class, `background` for none."""
    kinds = [(), ("high",), ("low",), ("middle",), ("high", "low"), ("low", "middle"), ("high", "low", "middle")]
    for split, count in (("train", 12), ("val", 4), ("test", 4)):
        for number in range(count * len(kinds)):
            labels = kinds[number % len(kinds)]
            image = encode_png(render(sound(labels, crc32(f"{split}{number}".encode())), TINY_EARS), "")
            first, *others = (data / split / label / f"{split}{number}.png" for label in labels or ("background",))
            for path in (first, *others):
                path.parent.mkdir(parents=True, exist_ok=True)
            first.write_bytes(image)
            for path in others:
                os.link(first, path)
    settings = {"format": 1, "spectrogram": to_dict(TINY_EARS), "labels": sorted(TONES), "dataset": {"root": "."}}
    (data / "settings.json").write_text(json.dumps({**settings, "label_mode": label_mode}), encoding="utf-8")
    return data


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lay_out(tmp_path_factory.mktemp("tones") / "data")


@pytest.fixture(scope="module")
def noise_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("noise")
    for number in range(3):
        wave = 0.1 * np.random.default_rng(number).standard_normal(int(1.7 * 16000))
        soundfile.write(folder / f"wind{number}.wav", wave, 16000)
    (folder / "broken.wav").write_bytes(b"no sound at all")
    (folder / "notes.txt").write_text("of the field trip", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def trained(data: Path, noise_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last checkpoint of a training through the command line, with noise."""
    place = tmp_path_factory.mktemp("run")
    words = [f"{key}={value}" for key, value in QUICK.items()]
    words += [f"data={data}", "epochs=25", f"project={place}", "augment.shift=0.2", "augment.mixup=0.3"]
    words += [f"augment.noise={noise_folder}", "augment.noise_share=0.3", "augment.label_smoothing=0.02"]
    assert main(["train", *words]) == 0
    return place / "train" / "weights" / "last.pt"


def test_two_sounds_are_found_at_once(
    trained: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Train, val, predict and export as a user types them."""
    with open(trained.parents[1] / "results.csv", encoding="utf-8", newline="") as file:
        epochs = list(csv.DictReader(file))
    assert len(epochs) == 25 and 0.7 < float(epochs[-1]["metrics/macro_map"]) <= 1 and float(epochs[-1]["val/loss"]) > 0
    out = tmp_path / "val"
    assert main(["val", str(trained), "--data", str(data), "--split", "test", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    figures = json.loads((out / "metrics.json").read_text("utf-8"))
    assert "28 clips of 3 classes" in said and "4 clips are background" in said and "per hour" not in said
    assert figures["macro_map"] > 0.8 and [row["class"] for row in figures["per_class"]] == sorted(TONES)
    with open(out / "predictions.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 28 and {"background", "high;low;middle"} <= {row["target"] for row in rows}
    assert sum(row["correct"] == "true" for row in rows) > 14
    for number, labels in enumerate((("high", "low"), ("middle",), ())):
        soundfile.write(tmp_path / f"{number}.wav", sound(labels, 10_000 + number), 16000)
    files = [str(tmp_path / f"{number}.wav") for number in range(3)]
    assert main(["predict", str(trained), *files, "--device", "cpu", "--format", "csv"]) == 0
    found: dict[str, set[str]] = {}
    for row in csv.DictReader(capsys.readouterr().out.splitlines()):
        found.setdefault(Path(row["recording"]).stem, set()).add(row["label"])
    assert found == {"0": {"high", "low"}, "1": {"middle"}, "2": {"background"}}
    assert "labels" in (card := (trained.parents[1] / "model-card.md").read_text("utf-8")) and "softmax" not in card


def test_thresholds_are_fitted_anew(
    trained: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copyfile(trained, tmp_path / "a.pt")
    update_preprocessing(tmp_path / "a.pt", thresholds={})
    words = [str(tmp_path / "a.pt"), "--data", str(data), "--out", str(tmp_path / "val")]
    assert main(["val", *words, "--precision", "0.99"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in TONES), said
    stored = checkpoint_model(load_checkpoint(tmp_path / "a.pt")).soundsight
    assert "3 of 3 classes are those with a precision of 99% on `val`" in " ".join(calibration_lines(stored))
    own = load(tmp_path / "a.pt", device="cpu").classifier.preprocessing.thresholds
    assert set(own) == set(TONES)


def test_the_page_of_a_run_has_curves_thresholds_and_clips(trained: Path, data: Path, tmp_path: Path) -> None:
    """`report` shows what `val` scored, and the same as files; a wrong clip says which class is wrong."""
    folder = tmp_path / "val"
    assert main(["val", str(trained), "--data", str(data), "--split", "test", "--out", str(folder)]) == 0
    with open(folder / "predictions.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    one = next(number for number, row in enumerate(rows) if row["target"] == "high")
    rows[one] |= {"predicted": "high;low", "rank": "2", "correct": "false"}
    with open(folder / "predictions.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    assert main(["report", str(folder), "--folder", str(tmp_path / "figures")]) == 0
    page = (folder / "report.html").read_text("utf-8")
    metrics = json.loads((folder / "metrics.json").read_text("utf-8"))
    assert f'<p class="value">{metrics["macro_map"]:.3f}</p>' in page and "4 clips are background" in page
    assert "Precision by recall" in page and page.count("<polyline points=") == 3 and 'id="matrix"' not in page
    for name, basis in metrics["thresholds"].items():
        low, high = basis["interval"]
        assert f"{basis['value']:.2f} ({low:.2f} to {high:.2f}; {basis['clips']} clips)" in page, name
    shown = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    assert (
        shown["clips"][str(one)] | {"true": "high", "predicted": "high + low", "label": "low"}
        == shown["clips"][str(one)]
    )
    assert one in shown["mistakes"] and all(rows[i]["correct"] == "true" and rows[i]["target"] for i in shown["best"])
    written = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"precision_recall.png", "probabilities.csv", "per_class.csv", "training_curves.png"} <= written
    (folder / "probabilities.csv").write_text("clip,start_seconds,high\na,,0.5\n", encoding="utf-8")
    assert main(["report", str(folder)]) == 2


def test_each_class_of_a_clip_is_explained_by_its_own_sound(trained: Path, tmp_path: Path) -> None:
    classifier = load(trained, device="cpu").classifier
    image = render(sound(("high", "low"), 10_000), TINY_EARS)
    rows = [explain(classifier, image, label).saliency.sum(axis=1) for label in ("high", "low")]
    high, low = (np.average(np.arange(len(row)), weights=row) for row in rows)
    assert high < low  # row 0 is the highest band
    soundfile.write(tmp_path / "a.wav", sound(("high", "low"), 10_000), 16000)
    words = ["explain", str(trained), str(tmp_path / "a.wav"), "--out", str(tmp_path / "a.png"), "--class"]
    assert main([*words, "low"]) == 0 and (tmp_path / "a.png").is_file()
    assert main([*words, "background"]) == 2


def test_folds_of_several_labels_are_scored_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`crossval` of a table with several labels in a field, and the page of it; a clip without any is background."""
    kinds = ["background", "high", "low,middle", "high,low,middle"]
    rows = ["file,labels,fold"]
    for number in range(16):
        labels = kinds[number % 4]
        soundfile.write(tmp_path / f"{number}.wav", sound(tuple(set(labels.split(",")) & set(TONES)), number), 16000)
        rows.append(f'{number}.wav,"{labels}",{1 + number // 8}')
    (tmp_path / "labels.csv").write_text("\n".join(rows), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    words = ["kind=table", "root=.", "table=labels.csv", "fold_column=fold", "clip_seconds=1", "image_size=64"]
    words += ["model=yolov8n-cls.yaml", "epochs=1", "batch=8", "nbs=8", "amp=False", "device=cpu"]
    assert main(["crossval", *words, "--name", "a", "--workers", "1"]) == 0
    assert "Classes without a clip" not in capsys.readouterr().err  # `middle` is never the first of a clip's classes
    run = tmp_path / "runs" / "crossval" / "a"
    metrics = json.loads((run / "metrics.json").read_text("utf-8"))
    assert set(metrics["folds"]) == {"1", "2"} and 0 < metrics["macro_map"] <= 1
    with open(run / "predictions.csv", encoding="utf-8", newline="") as file:
        assert {row["target"] for row in csv.DictReader(file)} == {
            "background",
            "high",
            "low;middle",
            "high;low;middle",
        }
    assert main(["report", str(run), "--no-saliency"]) == 0
    assert "Macro mAP of each fold" in (run / "report.html").read_text("utf-8")


@pytest.fixture
def field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six recordings of 6 s with tables of Raven; in the last one nothing was marked."""
    monkeypatch.chdir(tmp_path)
    head = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tSpecies\n"
    held = [(), ("high",), ("high", "low"), ("low",), (), ("low",)]
    (tmp_path / "field").mkdir()
    for number in range(6):
        inside = [labels if number < 5 else () for labels in held]
        wave = np.concatenate([sound(labels, 10 * number + k) for k, labels in enumerate(inside)])
        soundfile.write(tmp_path / "field" / f"site{number}.wav", wave, TINY_EARS.sample_rate)
        rows = [(k, label) for k, labels in enumerate(inside) for label in labels]
        text = "".join(f"{n}\tS 1\t1\t{k}\t{k + 1}\t0\t8000\t{label}\n" for n, (k, label) in enumerate(rows, 1))
        (tmp_path / "field" / f"site{number}.Table.1.selections.txt").write_text(head + text)
    return tmp_path


TABLES = ["field", "table=*.txt", "clip_seconds=1", "image_size=64", "annotated=complete"]


def test_annotated_recordings_have_figures_by_segment_event_and_hour(
    field: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Raven tables, one of them empty, to prepare, train, val, report and model card."""
    assert main(["prepare", *TABLES, "split.fractions=0.5,0.2,0.3", "--workers", "1"]) == 0
    words = [f"{key}={value}" for key, value in QUICK.items()]
    assert main(["train", *words, "epochs=1", "name=a"]) == 0
    model = "runs/classify/a/weights/last.pt"
    capsys.readouterr()
    assert main(["val", model, "--split", "test", "--out", "val"]) == 0
    said = capsys.readouterr().out
    metrics = json.loads(Path("val/metrics.json").read_text("utf-8"))
    with open("val/predictions.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    events, background = metrics["events"], metrics["background"]
    recordings = {row["clip"] for row in rows}
    assert events["recordings"] == len(recordings) > 0
    assert events["hours"] == pytest.approx(6 * len(recordings) / 3600, abs=1e-6)
    assert background["hours"] == pytest.approx(sum(row["target"] == "background" for row in rows) / 3600, abs=1e-6)
    assert 0 <= events["macro_average"]["segment_f1"] <= 1 and 0 <= events["macro_average"]["event_f1"] <= 1
    alarms = events["micro_average"]["false_alarms_per_hour"]
    line = f"annotated recordings: segment-based F1 {events['macro_average']['segment_f1']:.3f} (macro)"
    card = Path("runs/classify/a/model-card.md").read_text("utf-8")
    for text in (line, f"{alarms:.1f} false alarms per hour", "h of background: "):
        assert text in said and text in card, text
    assert main(["report", "val", "--no-saliency"]) == 0
    page = Path("val/report.html").read_text("utf-8")
    assert "Event F1" in page and f'<p class="value">{alarms:.1f}</p>' in page
    assert "event_f1" in Path("val/per_class.csv").read_text("utf-8").splitlines()[0]


def test_a_killed_training_of_several_labels_goes_on_with_them(field: Path) -> None:
    """SIGKILL after the first of five epochs, then `resume=`: the same mode, classes and kind of targets."""
    assert main(["prepare", *TABLES, "split.fractions=0.5,0.2,0.3", "--workers", "1"]) == 0
    command = [
        sys.executable,
        "-m",
        "soundsight",
        "train",
        "epochs=5",
        "name=k",
        *(f"{k}={v}" for k, v in QUICK.items()),
    ]
    last = field / "runs" / "classify" / "k" / "weights" / "last.pt"
    killed_when(last, command)
    assert epochs_of(last) < 5 and checkpoint_model(load_checkpoint(last)).soundsight["labels"] == "multi"
    for bad in ("labels=single", "augment.mixup=0.9"):
        assert main(["train", f"resume={last}", bad]) == 2
    assert main(["train", f"resume={last}"]) == 0
    network = checkpoint_model(load_checkpoint(last))
    assert epochs_of(last) == 5 and network.soundsight["labels"] == "multi"
    assert network.soundsight["names"] == ["high", "low"] and load(last, device="cpu").model.multi
    curves = read_results(last.parents[1] / "results.csv")
    assert curves["epoch"] == [1, 2, 3, 4, 5] and all(0 <= value <= 1 for value in curves["metrics/macro_map"])


def test_a_killed_cross_validation_of_several_labels_goes_on_with_them(
    field: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*TABLES, "split.strategy=group", "--groups", "2", "--name", "k", "--workers", "1", "epochs=4"]
    words += [f"{key}={value}" for key, value in QUICK.items() if key not in ("imgsz", "workers", "plots")]
    run = field / "runs" / "crossval" / "k"
    killed_when(
        run / "fold1-seed0" / "run" / "weights" / "last.pt", [sys.executable, "-m", "soundsight", "crossval", *words]
    )
    assert not (run / "fold1-seed0" / "probabilities.npz").is_file()
    assert main(["crossval", *words]) == 0
    done = capsys.readouterr()
    assert "Fold 1, seed 0: continuing." in done.err and "mean: macro mAP" in done.out and "of background:" in done.out
    for fold in (1, 2):
        network = checkpoint_model(load_checkpoint(run / f"fold{fold}-seed0" / "run" / "weights" / "last.pt"))
        assert network.soundsight["labels"] == "multi" and network.soundsight["names"] == ["high", "low"]
        with np.load(run / f"fold{fold}-seed0" / "probabilities.npz") as scored:
            assert scored["targets"].shape[1] == 2 and {0, 1, 2} == set(scored["targets"].sum(1).tolist())
    metrics = json.loads((run / "metrics.json").read_text("utf-8"))
    assert metrics["events"]["recordings"] == 6 and metrics["events"]["hours"] == pytest.approx(36 / 3600, abs=1e-6)


def killed_when(file: Path, command: list[str]) -> None:
    """Run a command and kill it as soon as it has written a file."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while not file.is_file() and process.poll() is None:
            time.sleep(0.002)
        process.kill()
        assert file.is_file(), process.stderr and process.stderr.read()


def epochs_of(checkpoint: Path) -> int:
    return len(load_checkpoint(checkpoint)["train_results"]["epoch"])


def test_background_is_no_class_and_thresholds_travel(trained: Path) -> None:
    predictor = load(trained, device="cpu")
    assert predictor.names == tuple(sorted(TONES)) and predictor.model.multi
    own = predictor.classifier.preprocessing.thresholds
    assert set(own) == set(TONES) and all(0 < value < 1 for value in own.values())


def test_images_are_merged_by_name_unless_they_differ(tmp_path: Path) -> None:
    for folder, name, content in (
        ("a", "1", b"x"), ("b", "1", b"x"), ("a", "2", b"y"), ("b", "2", b"z"), ("background", "3", b"w"),
    ):  # fmt: skip
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / f"{name}.png").write_bytes(content)
    files, targets = merged(tmp_path, ["a", "b"])
    assert [file.relative_to(tmp_path).as_posix() for file in files] == [
        "a/1.png",
        "a/2.png",
        "b/2.png",
        "background/3.png",
    ]
    assert targets.tolist() == [[1, 1], [1, 0], [0, 1], [0, 0]]


def test_mixed_clips_have_the_labels_of_both() -> None:
    config = AugmentConfig(**{**to_dict(no_augment()), "mixup": 0.5})
    augmenter = Augmenter(config, classes=4, db_range=80.0, multi=True)
    labels = torch.eye(4, dtype=torch.uint8).repeat(8, 1)
    _, targets = augmenter(torch.randint(0, 256, (32, 3, 32, 32), dtype=torch.uint8), labels)
    assert set(targets.unique().tolist()) == {0.0, 1.0}
    assert bool((targets >= labels).all()) and (targets.sum(1) == 2).sum() > 4 and (targets.sum(1) == 1).sum() > 4
    augmenter.reseed(0)
    choices = dict(zip(augmenter.columns, augmenter.draw(1000).split(list(augmenter.columns.values()), 1), strict=True))
    assert float(choices["ratio"].min()) >= LEAST_SHARE and float(choices["ratio"].max()) <= 1 - LEAST_SHARE


def test_noise_is_added_in_power_at_the_ratio_asked_for() -> None:
    """A flat image at -40 dB and noise at -20 dB, 10 dB apart afterwards: sum 10 log10(1.1) above the sound."""
    own, noise = torch.full((1, 3, 8, 8), 0.5), torch.full((1, 3, 8, 8), 0.75)
    own[..., 0] = 1.0  # a column at 0 dB, which sets the level
    mixed = mix_noise(own, noise, torch.tensor([10.0]), 80.0)
    mean = (1 + 7 * 1e-4) / 8  # of the sound's power
    loudest = 10 * np.log10(1 + mean / 10)
    assert float(mixed[0, 0, 0, 0]) == pytest.approx(1.0, abs=1e-5)
    assert float(mixed[0, 0, 0, 5]) * 80 - 80 == pytest.approx(10 * np.log10(1e-4 + mean / 10) - loudest, abs=1e-3)


def test_noise_is_the_same_with_the_same_seed(noise_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING", "soundsight"):
        images = noise_images(noise_folder, TINY_EARS)
    assert images.shape == (6, 3, 64, 64) and "1 of 4 recordings of augment.noise cannot be read" in caplog.text
    config = AugmentConfig(**{**to_dict(no_augment()), "noise": str(noise_folder), "noise_share": 0.5})
    batch, labels = torch.randint(0, 256, (16, 3, 64, 64), dtype=torch.uint8), torch.arange(16) % 3
    one, two, other = (
        Augmenter(config, classes=3, db_range=80.0, seed=seed, noise=torch.from_numpy(images)) for seed in (0, 0, 1)
    )
    first, targets = one(batch, labels)
    assert torch.equal(first, two(batch, labels)[0]) and not torch.equal(first, other(batch, labels)[0])
    changed = (first - batch.float() / 255).abs().amax((1, 2, 3)) > 1e-3
    assert 2 < int(changed.sum()) < 14 and torch.equal(targets, torch.nn.functional.one_hot(labels).float())


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["augment.noise=nowhere", "augment.noise_share=0.5"], "augment.noise=nowhere is no folder"),
        (["augment.noise=empty", "augment.noise_share=0.5"], "augment.noise=empty holds no recordings"),
        (["augment.noise=empty"], "noise='empty' and noise_share=0 have no effect without each other"),
        (["augment.noise_share=0.5"], "no effect without each other"),
        (["labels=single"], "holds clips of several classes"),
        (["labels=many"], "labels=many is not allowed"),
        (["--stock", "labels=multi"], "labels=multi has no effect with --stock"),
    ],
)
def test_bad_words_are_explained_before_the_training(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words, match
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert main(["train", f"data={data}", "device=cpu", "model=yolov8n-cls.yaml", *words]) == 2
    assert match in (said := capsys.readouterr().err) and len(said.splitlines()) == 1, said


def test_noise_that_cannot_be_read_at_all_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"no sound")
    soundfile.write(tmp_path / "b.wav", np.zeros(16000), 16000)
    with pytest.raises(ConfigError, match="None of the 2 recordings"):
        noise_images(tmp_path, TINY_EARS)


def test_a_model_is_scored_on_data_of_its_own_kind(
    trained: Path, tiny_model: Path, data: Path, tiny_data: Path
) -> None:
    from soundsight.evaluation.val import val

    with pytest.raises(DatasetError, match="gives one label per clip"):
        val(tiny_model, data=data, split="test")


@pytest.mark.parametrize("balance", ["none", "sampler", "weights"])
def test_clips_of_one_label_each_are_trained_on_as_well(tiny_data: Path, tmp_path: Path, balance: str) -> None:
    """`labels=multi` on data of one label per clip; the score says so, and tells top-1."""
    from soundsight.evaluation.scoring import headline
    from soundsight.evaluation.val import val

    how = {"data": str(tiny_data), "project": str(tmp_path), "labels": "multi", "augment.balance": balance}
    how |= {**QUICK, "batch": 8, "nbs": 8, "epochs": 8 if balance == "none" else 1}
    run = train(None, augment=None, **how)
    done = val(run.last, data=tiny_data, split="test", out=tmp_path / "val")
    told = headline(done.scores)
    assert set(told) == {"macro_map", "micro_map", "top1"} and not (run.folder / "confusion_matrix.png").is_file()
    assert balance != "none" or told["top1"] > 0.5
    with pytest.raises(ConfigError, match="begun with labels=multi|end of its training"):
        train(resume=str(run.last), labels="single")
