"""Arguments: what has no effect is refused wherever it is written; nothing that a user types ends in a traceback."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from soundsight import cli
from soundsight.backend.arguments import HEEDED, OFF, resolve_arguments
from soundsight.cluster.tune import check_points, parse_space
from soundsight.config import DatasetConfig
from soundsight.errors import ConfigError
from soundsight.evaluation.crossval import crossval
from soundsight.evaluation.train import resolve, train
from soundsight.files import IMAGES

ROOT = Path(__file__).parents[1]
QUICK = ["model=yolov8n-cls.yaml", "imgsz=64", "epochs=1", "batch=16", "device=cpu", "plots=False"]
NO_EFFECT = [
    ({"fraction": 0.1}, "fraction=0.1 .*is for photographs"),
    ({"mixup": 0.7}, "mixup=0.7 .*is for photographs, .* write augment.mixup=0.7"),
    ({"erasing": 0.4}, "write augment.erasing=0.4"),
    ({"fliplr": 0.5}, "fliplr=0.5 .*is for photographs"),
    ({"auto_augment": "randaugment"}, "is for photographs"),
    ({"cls_pw": 0.5}, "write augment.balance=weights"),
    ({"classes": [0]}, "classes=.* has no effect on a classifier"),
    ({"degrees": 10.0}, "degrees=10.0 .*has no effect"),
    ({"rect": True}, "rect=True .*has no effect"),
    ({"multi_scale": 0.5}, "multi_scale=0.5 .*has no effect"),
    ({"task": "detect"}, "task=detect .*trains classifiers"),
    ({"mode": "val"}, "mode=val .*is not for training"),
    ({"quantize": 8}, "quantize=8 .*`soundsight export`"),
    ({"split": "foo"}, "split=foo .*judged on data/val"),
    ({"split": "test"}, "split=test .*judged on data/val"),
    ({"cache": True}, "cache=True .*has no effect"),
]


@pytest.mark.parametrize(("settings", "text"), NO_EFFECT)
@pytest.mark.parametrize("door", ["words", "--config", "cfg="])
@pytest.mark.parametrize("command", ["train", "crossval", "tune"])
def test_what_has_no_effect_is_refused_wherever_it_is_written(tmp_path, settings, text, door, command):
    file = tmp_path / "my.yaml"
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    config, words = {"words": (None, settings), "--config": (file, {}), "cfg=": (None, {"cfg": str(file)})}[door]
    with pytest.raises(ConfigError, match=text) as caught:
        if command == "train":
            train(config, **words)
        elif command == "crossval":
            crossval(DatasetConfig(), config=config, protocol="train-val-test", **words)
        else:
            check_points({"lr0": ("log", 0.001, 0.1)}, {"config": config, **words})
    assert door == "words" or str(file) in str(caught.value)


def test_values_without_effect_are_allowed_where_they_are_what_holds_anyway():
    """A whole list of Ultralytics' arguments may be kept, with what is for photographs switched off."""
    from ultralytics.utils import DEFAULT_CFG_DICT

    harmless = {**DEFAULT_CFG_DICT, **OFF, "mosaic": 0.0, "close_mosaic": 0}
    harmless.pop("cfg")
    assert resolve_arguments(None, harmless) == harmless
    assert set(OFF) <= set(DEFAULT_CFG_DICT) and HEEDED - {"save_dir"} <= set(DEFAULT_CFG_DICT)
    assert resolve(ROOT / "configs" / "train.yaml", "augment.yaml", {})[0]["optimizer"] == "AdamW"


def test_cfg_is_the_settings_file(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text("epochs: 7\nlr0: 0.02\n", encoding="utf-8")
    for found in (resolve(None, None, {"cfg": str(file), "batch": 8})[0], resolve(file, None, {"batch": 8})[0]):
        assert found == {"epochs": 7, "lr0": 0.02, "batch": 8}
    with pytest.raises(ConfigError, match="exclude each other"):
        resolve(file, None, {"cfg": str(file)})


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("augment=true", "The settings file true does not exist"),
        ("stock=maybe", "stock='maybe' in the command line is not allowed: it must be true or false"),
        ("cfg=x.yaml", "The settings file x.yaml does not exist"),
        ("calibrate=3", "calibrate=3 in the command line is not allowed: it must be true or false"),
        ("watch=1", "Unknown key 'watch' in the training arguments"),
        ("imgsz=[64,64]", "imgsz=[64, 64] is not allowed"),
        ("freeze=99", "freeze=99"),
        ("optimizer=Lion", "Optimizer 'Lion' not found"),
        ("amp=bf16", "amp=bf16 needs a CUDA GPU"),
        ("pretrained=mk.py", "mk.py"),
        ("pretrained=nofile.pt", "nofile.pt does not exist"),
        ("device=mps", "device=mps is not there"),
        ("model=yolov8n.pt", "is no classifier"),
        ("model=yolov8n.yaml", "yolov8n.yaml does not describe a classifier"),
        ("cfg=no.yaml", "no.yaml does not exist"),
        ("--cfg no.yaml", "no.yaml does not exist"),
        ("--stock --augment augment.yaml augment.mixup=0.1", "no effect with --stock"),
        ("--cfg train.yaml resume=last.pt", "has no effect on a training that is resumed"),
    ],
)
def test_what_train_cannot_use_is_one_message(tiny_data, tmp_path, monkeypatch, capfd, words, text):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("socket.getaddrinfo", None)  # nothing here may ask the internet
    assert cli.main(["train", *QUICK, f"data={tiny_data}", *words.split()]) == 2
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("soundsight: ")]
    assert len(errors) == 1 and text in errors[0]
    assert not list(tmp_path.rglob("last.pt"))


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("dataset=esc11", "The settings file esc11 does not exist"),
        ("only=1", "only=1 is no training argument of crossval; leave it out"),
        ("run=1", "run=1 is no training argument of crossval; leave it out"),
        ("seeds=first", "seeds='first' in the command line is not allowed: it must be a whole number"),
        ("data=other", "data=other has no effect on a cross-validation"),
        ("split.train=1", "split.train=1 has no effect on a cross-validation"),
        ("patience=1", "patience=1 is not for this command: protocol last"),
        ("save=false", "save=False is not for this command"),
        ("--groups 3", "--groups 3 has no effect on"),
    ],
)
def test_what_crossval_cannot_use_is_one_message(tiny_sounds, tmp_path, monkeypatch, capsys, words, text):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["crossval", f"root={tiny_sounds}", "model=yolov8n-cls.yaml", *words.split()]) == 2
    assert text in capsys.readouterr().err


def test_a_settings_file_of_train_serves_crossval_but_what_it_decides_itself_is_refused(tmp_path):
    for line, text in (
        ("seed: 3", "write --seeds"),
        ("imgsz: 96", "write image_size="),
        ("val: false", "write --protocol"),
        ("name: a", "write --name"),
        ("data: mine", "name that with --dataset"),
    ):
        (tmp_path / "my.yaml").write_text(line, encoding="utf-8")
        with pytest.raises(ConfigError, match=f"my.yaml is not for this command: .*{text}"):
            crossval(replace(DatasetConfig(), root=str(tmp_path)), config=tmp_path / "my.yaml")


def test_a_search_refuses_what_no_trial_could_use():
    for words, text in (
        ({"lr0": "0.001..0.01", "project": "x"}, "project=x is not for this command: .*--name"),
        ({"lrO": "0.1..0.2"}, "Unknown key 'lrO'"),
        ({"augment.mixup": "0.5..3"}, "mixup=3 is out of range"),
        ({"mosaic": "0.1|0.5"}, "mosaic=0.1 has no effect"),
    ):
        with pytest.raises(ConfigError, match=text):
            check_points(*parse_space(words))


def test_images_of_another_tool_are_all_trained_on(tiny_data, tmp_path):
    """JPEG, upper case and nested folders, as Ultralytics counts them."""
    from soundsight.backend.trainer import ImageSet
    from soundsight.evaluation.scoring import list_images

    cv2 = pytest.importorskip("cv2")
    from ultralytics.data.utils import IMG_FORMATS

    assert set(IMG_FORMATS) == IMAGES
    names = sorted(folder.name for folder in (tiny_data / "train").iterdir())
    for split in ("train", "val"):
        for folder in (tiny_data / split).iterdir():
            for number, file in enumerate(sorted(folder.iterdir())):
                goal = tmp_path / split / folder.name / ("deep" if number % 3 == 2 else "")
                goal.mkdir(parents=True, exist_ok=True)
                suffix = ("a.jpg", "b.PNG", "c.png")[number % 3]
                cv2.imwrite(str(goal / f"{file.stem}{suffix}"), cv2.imread(str(file)))
    count = sum(1 for _ in (tiny_data / "train").rglob("*.png"))
    assert len(ImageSet(tmp_path / "train", names, 64)) == count
    assert len(list_images(tmp_path, "val", names).files) == sum(1 for _ in (tiny_data / "val").rglob("*.png"))
    run = train(ROOT / "configs" / "train.yaml", data=str(tmp_path), **dict(w.split("=") for w in QUICK[:1]),
                imgsz=64, epochs=1, batch=16, device="cpu", plots=False, project=str(tmp_path / "runs"))  # fmt: skip
    assert run.last.is_file()
    (tmp_path / "train" / names[0] / "z.jpg").write_bytes(b"no image")
    with pytest.raises(ConfigError, match="z.jpg is damaged"):
        ImageSet(tmp_path / "train", names, 64)
    shutil.rmtree(tmp_path / "val")
    (tmp_path / "test").mkdir()
    with pytest.raises(ConfigError, match="has no folder val, by which the best epoch is chosen"):
        train(imgsz=64, data=str(tmp_path))
