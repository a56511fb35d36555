"""A miniature UrbanSound8K in the official layout goes the whole way: prepare, cross-validate, predict."""

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile

from soundsight.cli import main

CLASSES = {1: "car_horn", 3: "dog_bark", 8: "siren"}  # numbers and names as the official table has them
FORMATS = [  # rate in Hz, channels and subtype, all of which occur in the release
    (44100, 2, "PCM_16"),
    (48000, 2, "PCM_24"),
    (96000, 1, "PCM_24"),
    (22050, 1, "PCM_16"),
    (11025, 2, "PCM_U8"),
    (192000, 1, "FLOAT"),
    (8000, 1, "IMA_ADPCM"),
    (16000, 1, "MS_ADPCM"),
]


@pytest.fixture(scope="module")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten folds, three classes, one slice each, of 0.2 to 4 s."""
    root = tmp_path_factory.mktemp("us8k") / "UrbanSound8K"
    (root / "metadata").mkdir(parents=True)
    random = np.random.default_rng(0)
    lines = ["slice_file_name,fsID,start,end,salience,fold,classID,class"]
    for fold in range(1, 11):
        (root / "audio" / f"fold{fold}").mkdir(parents=True)
        for position, (number, name) in enumerate(CLASSES.items()):
            rate, channels, subtype = FORMATS[(fold * 3 + position) % len(FORMATS)]
            seconds = float(random.uniform(0.2, 4.0))
            time_s = np.arange(round(seconds * rate)) / rate
            tone = 0.4 * np.sin(2 * np.pi * (300.0, 900.0, 2500.0)[position] * time_s)
            wave = np.stack([tone + random.normal(0, 0.01, len(tone)) for _ in range(channels)], axis=1)
            source = 1000 * fold + number
            file = f"{source}-{number}-0-0.wav"
            soundfile.write(root / "audio" / f"fold{fold}" / file, wave, rate, subtype=subtype)
            lines.append(f"{file},{source},0.0,{seconds:.6f},1,{fold},{number},{name}")
    (root / "metadata" / "UrbanSound8K.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def test_prepare_crossval_and_predict(miniature, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    preprocessing = tmp_path / "ears.yaml"
    preprocessing.write_text("sample_rate: 8000\nclip_seconds: 4\nimage_size: 64\nn_fft: 1024\n", encoding="utf-8")
    data = ["--dataset", "urbansound8k", "--spectrogram", str(preprocessing), f"root={miniature}"]

    assert main(["prepare", *data]) == 0
    counts = {split: len(list(Path("data-urbansound8k", split).rglob("*.png"))) for split in ("train", "val", "test")}
    assert counts == {"train": 24, "val": 3, "test": 3}

    training = ["model=yolov8n-cls.yaml", "epochs=2", "batch=8", "nbs=8", "device=cpu"]
    assert main(["crossval", *data, "--folds", "1,10", "--name", "mini", *training]) == 0
    rows = list(csv.DictReader(Path("runs/crossval/mini/predictions.csv").open(encoding="utf-8")))
    assert sorted((row["fold"], row["target"]) for row in rows) == sorted(
        (fold, name) for fold in ("1", "10") for name in CLASSES.values()
    )

    model = next(Path("runs/crossval/mini").rglob("last.pt"))
    clips = sorted(str(p) for p in (miniature / "audio" / "fold10").glob("*.wav"))
    capsys.readouterr()
    assert main(["predict", str(model), *clips, "--format", "csv"]) == 0
    answers = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert {row["recording"] for row in answers} == set(clips)
    assert {row["label"] for row in answers} <= set(CLASSES.values())
