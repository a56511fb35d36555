"""Folders of sounds as people have them, and what `prepare` says of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from soundsight.cli import main
from soundsight.datasets import manifest
from test_prepare import record  # noise that differs from file to file: equal recordings would be one group

SMALL = ["clip_seconds=0.5", "image_size=32", "sample_rate=8000", "n_fft=1024", "--workers", "1"]


def sounds(root: Path, *folders: str, each: int = 2, seconds: float = 0.5) -> Path:
    for number, folder in enumerate(folders):
        for take in range(each):
            record(root / folder / f"{number}_{take}.wav", seconds)
    return root


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def prepare(*words: str) -> int:
    return main(["prepare", *SMALL, *words])


def rows(data: str = "data") -> dict[str, tuple[str, str]]:
    return {row.file: (row.label, row.split) for row in manifest.read_rows(Path(data) / manifest.MANIFEST)}


@pytest.mark.parametrize(
    "names", [("train", "valid", "test"), ("Training", "validation", "eval"), ("Development", "dev", "evaluation")]
)
@pytest.mark.parametrize("wrapper", ["", "MyDataset", "a/b"])
def test_split_folders_are_the_split(here: Path, capsys, names: tuple[str, ...], wrapper: str) -> None:
    root = sounds(here / "sounds" / wrapper, *(f"{name}/{label}" for name in names for label in ("siren", "rain")))
    assert prepare("sounds") == 0
    assert set(rows().values()) == {(label, split) for label in ("siren", "rain") for split in ("train", "val", "test")}
    for file, (label, split) in rows().items():
        assert Path(here / "sounds" / file).relative_to(root).parts[:2] == (
            names[("train", "val", "test").index(split)],
            label,
        )
    assert "The splits are those of the folders" in capsys.readouterr().out


def test_one_folder_around_the_classes_is_no_class(here: Path, capsys) -> None:
    sounds(here / "sounds", "MyDataset/siren", "MyDataset/rain", each=5)
    assert prepare("sounds") == 0
    assert {label for label, _ in rows().values()} == {"siren", "rain"}
    assert "The classes lie in MyDataset/, the only folder there is." in capsys.readouterr().out


def test_a_train_may_be_a_class(here: Path) -> None:
    sounds(here / "sounds", "train", "bus", each=5)
    assert prepare("sounds") == 0
    assert {label for label, _ in rows().values()} == {"train", "bus"}


def test_what_lies_beside_split_folders_is_listed(here: Path, capsys) -> None:
    sounds(here / "sounds", "train/siren", "train/rain", "val/siren", "val/rain", "extra/rain")
    record(here / "sounds" / "train" / "loose.wav")
    (here / "sounds" / "docs").mkdir()
    assert prepare("sounds") == 1
    err = capsys.readouterr().err
    assert "extra/: lies beside the folders of splits" in err
    assert "train/loose.wav: lies beside the class folders" in err and "docs" not in err


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (("train", "test"), "look like splits (test, train), but test/ holds recordings and no class folders; move"),
        (("fold1/dog", "fold2/dog"), "look like folds (fold1, ...), not like classes; describe the recordings by a"),
    ],
)
def test_splits_and_folds_without_classes_are_refused(here: Path, capsys, folders, message: str) -> None:
    sounds(here / "sounds", *folders)
    assert prepare("sounds") == 2
    assert message in capsys.readouterr().err


def test_a_folder_that_is_called_like_settings_is_not_taken_for_them(here: Path, capsys) -> None:
    sounds(here / "esc50", "dog", "cat", each=5)
    assert main(["prepare"]) == 2
    assert "data set's root dataset/ESC-50 does not exist; run `soundsight download esc50`" in capsys.readouterr().err
    assert prepare("esc50") == 0  # said as a folder, it is one
    assert {label for label, _ in rows().values()} == {"dog", "cat"}


def test_a_published_data_set_is_known_by_its_table(here: Path) -> None:
    lines = ["filename,fold,target,category,esc10,src_file,take"]
    for fold in range(1, 6):
        for label in ("dog", "cat"):
            path = record(here / "esc50" / "audio" / f"{fold}-{label}.wav")
            lines.append(f"{path.name},{fold},0,{label},True,{fold}{label},A")
    (here / "esc50" / "meta").mkdir()
    (here / "esc50" / "meta" / "esc50.csv").write_text("\n".join(lines))
    assert prepare("esc50") == 0
    assert {label for label, _ in rows().values()} == {"dog", "cat"}  # and not "audio"
    assert {split for file, (_, split) in rows().items() if file.startswith("audio/5")} == {"test"}


def test_a_table_in_the_folder(here: Path, capsys) -> None:
    sounds(here / "sounds", "x", "y", each=6)
    lines = [
        f"{path.relative_to(here / 'sounds').as_posix()},{path.parent.name}"
        for path in (here / "sounds").rglob("*.wav")
    ]
    (here / "sounds" / "l.csv").write_text("\n".join(["file,label", *lines]))
    assert prepare("sounds", "table=l.csv") == 0
    assert "Read as table: labels in 'label', no times." in capsys.readouterr().out
    assert prepare("sounds/l.csv") == 2
    assert "is a file, not a folder of sounds; a table of labels is named by table=FILE" in capsys.readouterr().err
    assert prepare("sounds", "other") == 2
    assert prepare("sounds", "sounds") == 2
    assert "'other' is not understood; settings are written key=value" in capsys.readouterr().err


# What is no data to train on


def day(root: Path, label: str = "rain") -> None:
    record(root / "day.wav", 6)
    (root / "day.txt").write_text("".join(f"{k}\t{k + 0.5}\tsiren\n{k + 0.5}\t{k + 1}\t{label}\n" for k in range(6)))


def test_one_recording_gives_no_val_and_train_says_so_too(here: Path, capsys) -> None:
    day(here / "sounds")
    assert prepare("sounds", "table=day.txt") == 2
    err = capsys.readouterr().err
    assert (
        "soundsight: data is no data to train on: there are no clips in val: the 12 clips belong to one group " in err
    )
    assert "Add recordings" in err and "split.strategy=random" in err
    assert len(manifest.read_rows(here / "data" / manifest.MANIFEST)) == 12  # what was rendered is kept
    assert main(["train", "data=data", "model=yolov8n-cls.yaml", "epochs=1"]) == 2
    err = capsys.readouterr().err
    assert "data is no data to train on: there are no clips in val" in err and "prepare` first" not in err
    assert prepare("sounds", "table=day.txt", "cut=rows", "split.strategy=random") == 0


def test_one_class_is_refused(here: Path, capsys) -> None:
    day(here / "sounds", "siren")
    assert prepare("sounds", "table=day.txt", "split.strategy=random") == 2
    assert "there is only one class, 'siren'; add recordings of another" in capsys.readouterr().err
    assert main(["crossval", "sounds", "table=day.txt"]) == 2
    assert "day has only one class, 'siren'; add recordings of another." in capsys.readouterr().err


def test_folders_without_val_say_what_to_add(here: Path, capsys) -> None:
    sounds(here / "sounds", "train/siren", "train/rain", "test/siren", "test/rain")
    assert prepare("sounds") == 2
    assert "there are no clips in val; add a folder val (or rows of that split), or use" in capsys.readouterr().err
    assert prepare("sounds", "split.strategy=group", "split.fractions=[0.5,0.5,0]") == 0
    assert "No clip is left for test" in capsys.readouterr().out


def test_a_given_split_needs_one_for_each_clip(here: Path, capsys) -> None:
    sounds(here / "sounds", "siren", "rain")
    assert prepare("sounds", "split.strategy=given") == 2
    assert "lies in no folder train, val or test, and no column `split` says" in capsys.readouterr().err


def test_a_column_says_the_split(here: Path) -> None:
    root = sounds(here / "sounds", "x", "y", each=3)
    words = ("train", "validation", "test")
    lines = [f"{label}/{n}_{take}.wav,{label},{words[take]}" for n, label in enumerate("xy") for take in range(3)]
    (root / "l.csv").write_text("\n".join(["file,label,split", *lines]))
    assert prepare("sounds", "table=l.csv", "split.strategy=given") == 0
    assert {file[-5]: split for file, (_, split) in rows().items()} == {"0": "train", "1": "val", "2": "test"}


def test_prepare_says_what_inspect_would(here: Path, capsys) -> None:
    sounds(here / "sounds", "rain", each=40)
    sounds(here / "sounds", "siren", each=1)
    assert prepare("sounds") == 0
    out = capsys.readouterr().out
    assert "! Classes without a clip in val: siren." in out
    assert "- The largest class has 40.0 times the clips of the smallest; augment.balance" in out


# `data/` of another data set


def test_the_data_of_another_data_set_stays_unless_told(here: Path, capsys) -> None:
    sounds(here / "birds", "owl", "wren", each=5)
    sounds(here / "cars", "bus", "tram", each=5)
    assert prepare("birds") == 0
    before = rows()
    assert prepare("cars") == 2
    err = capsys.readouterr().err
    assert (
        "data holds the spectrograms of another data set, birds (birds); choose another folder with data=FOLDER" in err
    )
    assert rows() == before
    assert prepare("cars", "data=data-cars") == 0
    assert prepare("birds", "split.seed=1") == 0  # the same data set, in another way
    (here / "birds").rename(here / "moved")
    assert prepare("moved") == 0  # the same recordings in another place
    assert prepare("cars", "--replace") == 0
    assert {label for label, _ in rows().values()} == {"bus", "tram"}
    assert json.loads((here / "data" / "settings.json").read_text())["dataset"]["root"] == "cars"


# Labels that are no names of folders


def test_labels_with_dots_and_slashes_survive_into_the_model(here: Path, capsys) -> None:
    labels = ("Turdus sp.", "Strix aluco: call/song?")
    lines = []
    for number in range(12):
        path = record(here / "sounds" / f"{number}.wav", 0.5)
        soundfile.write(path, np.random.default_rng(number).normal(0, 0.1, 4000), 8000)
        lines.append(f"{path.name},{labels[number % 2]},{('train', 'val', 'test')[number % 3]}")
    (here / "sounds" / "l.csv").write_text("\n".join(["file,label,split", *lines]))
    assert prepare("sounds", "table=l.csv", "split.strategy=given") == 0
    words = ["model=yolov8n-cls.yaml", "epochs=1", "batch=4", "imgsz=32", "workers=0", "device=cpu", "plots=false"]
    assert main(["train", *words, f"project={here}", "name=run"]) == 0
    last = str(here / "run" / "weights" / "last.pt")
    capsys.readouterr()
    both = [word for label in labels for word in ("--threshold", f"{label}=0")]
    assert main(["predict", last, "sounds/1.wav", "--format", "csv", "--top-k", "2", *both]) == 0
    assert {line.split(",")[3] for line in capsys.readouterr().out.splitlines()[1:]} == set(labels)
    assert main(["val", last, "--split", "val"]) == 0
    assert main(["predict", last, "sounds/1.wav", "--threshold", "Turdus sp=0.5"]) == 2
    assert "Did you mean 'Turdus sp.'?" in capsys.readouterr().err
