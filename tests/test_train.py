"""Training: three doors with the same arguments, preprocessing in every checkpoint, one sentence for what is wrong."""

import contextlib
import importlib.util
import io
import json
import logging
import os
import re
import runpy
import shlex
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from soundsight import cli, machine, parallel
from soundsight.backend.arguments import resolve_arguments
from soundsight.backend.checkpoint import load_checkpoint
from soundsight.backend.train import find_weights
from soundsight.config import AugmentConfig, SpectrogramConfig, to_dict
from soundsight.errors import ConfigError, DatasetError, ModelError
from soundsight.evaluation.train import RUN_FILE, resolve_augment, train
from soundsight.evaluation.val import val

ROOT = Path(__file__).parents[1]
QUICK = {"model": "yolov8n-cls.yaml", "imgsz": 64, "epochs": 1, "batch": 16, "device": "cpu", "plots": False}
# Where results go and which files to start from; everything else must be the same through every door.
PLACES = {"project", "name", "save_dir", "exist_ok", "data", "model"}


def words(settings: dict) -> list[str]:
    return [f"{key}={value}" for key, value in settings.items()]


def test_the_stock_command_and_the_wrapper_train_with_the_same_arguments(tiny_data, tmp_path, monkeypatch):
    """`yolo cfg=configs/train.yaml`, `soundsight train` and `python -m soundsight train`, as a user types them.

    The stock command has a process without Soundsight. The others run what theirs would, without loading PyTorch anew.
    """
    monkeypatch.chdir(tmp_path)
    assert cli.main(["configs"]) == 0
    shared = words({**QUICK, "data": tiny_data, "epochs": 1})
    scripts = Path(sys.executable).parent
    doors = {"yolo": "cfg=configs/train.yaml", "soundsight": "train", "module": "train"}
    resolved = {}
    for door, first in doors.items():
        command = [str(scripts / door), first, *shared, f"project={tmp_path}/{door}"]
        if door == "yolo":
            environment = {**os.environ, "YOLO_CONFIG_DIR": str(tmp_path), "YOLO_OFFLINE": "true"}
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr[-2000:]
        else:
            monkeypatch.setattr(sys, "argv", command)
            with pytest.raises(SystemExit) as ended:
                if door == "module":
                    runpy.run_module("soundsight", run_name="__main__", alter_sys=True)
                else:
                    runpy.run_path(command[0], run_name="__main__")
            assert not ended.value.code
        arguments = yaml.safe_load((tmp_path / door / "train" / "args.yaml").read_text(encoding="utf-8"))
        resolved[door] = {k: v for k, v in arguments.items() if k not in PLACES}
        assert (tmp_path / door / "train" / "weights" / "last.pt").is_file()
    assert resolved["yolo"] == resolved["soundsight"] == resolved["module"]


def test_settings_files_are_written_and_never_replaced_unasked(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["configs"]) == cli.main(["configs"]) == 0
    assert {p.name for p in Path("configs").iterdir()} == {p.name for p in (ROOT / "configs").iterdir()}
    Path("configs/train.yaml").write_text("epochs: 3\n", encoding="utf-8")
    assert cli.main(["configs"]) == 2 and "train.yaml is there with other content" in capsys.readouterr().err
    assert Path("configs/train.yaml").read_text(encoding="utf-8") == "epochs: 3\n"
    assert cli.main(["configs", "--overwrite"]) == 0 and "epochs: 40" in Path("configs/train.yaml").read_text("utf-8")


def test_what_a_stock_training_advises_works_as_it_is_printed(tiny_data, tiny_sounds, tmp_path, monkeypatch, capsys):
    """With a space in the folders' names: quoted; a stock model hears by the settings beside it."""
    place = tmp_path / "my runs"
    place.mkdir()
    monkeypatch.chdir(place)
    shutil.copytree(tiny_data, place / "my data")
    shutil.copy(next((tiny_sounds / "audio").iterdir()), "clip.wav")
    words_ = ["train", "--stock", *words(QUICK), "data=my data", f"project={place}", "workers=0"]
    assert cli.main(words_) == 0
    commands = re.findall(r"`soundsight (.*?)`", capsys.readouterr().out)
    assert len(commands) == 2 and "--split test" in commands[0]
    assert all("--spectrogram train/spectrogram.yaml" in command for command in commands)
    for command in commands:
        assert cli.main([*shlex.split(command), "--device", "cpu"]) == 0, command


def test_a_training_says_little_and_its_matrix_has_true_rows(tiny_data, tmp_path, monkeypatch):
    """A summary and a line per epoch; what Ultralytics prints is in a file; TensorBoard as `yolo settings` says."""
    (tmp_path / "config" / "Ultralytics").mkdir(parents=True)
    (tmp_path / "config" / "Ultralytics" / "settings.json").write_text('{"tensorboard": true}', encoding="utf-8")
    data = Path(shutil.copytree(tiny_data, tmp_path / "data"))
    for rare in (data / "val" / "rain").glob("*.png"):
        rare.unlink()
    command = [sys.executable, "-m", "soundsight", "train", *words({**QUICK, "plots": True, "epochs": 2}), "workers=0"]
    hidden = ("YOLO_CONFIG_DIR", "PYTEST_CURRENT_TEST")  # under pytest, Ultralytics writes no events
    environment = {k: v for k, v in os.environ.items() if k not in hidden}
    environment |= {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = done.stderr.splitlines()
    assert "48 for train" in done.stderr and "epoch 1/2: loss" in done.stderr and "epoch 2/2: loss" in done.stderr
    assert len(said) < 8 and len(done.stdout.splitlines()) < 12 and "epoch 3" not in done.stderr
    assert not re.search("ERROR|engine/trainer|GPU_mem|Traceback", done.stderr + done.stdout)
    run = tmp_path / "runs" / "classify" / "train"
    kept = (run / "ultralytics.log").read_text(encoding="utf-8")
    assert "engine/trainer" in kept and "GPU_mem" in kept and "\x1b" not in kept and kept.count("\n") < 120
    if importlib.util.find_spec("tensorboard") is None:
        assert "pip install tensorboard" in done.stderr
    else:
        assert list(run.glob("events.out.tfevents*"))
    assert (run / "confusion_matrix.png").is_file()


def test_a_training_on_a_terminal_shows_a_bar(tiny_data, tmp_path):
    fcntl, pty, termios = (pytest.importorskip(name) for name in ("fcntl", "pty", "termios"))
    command = [sys.executable, "-m", "soundsight", "train", *words({**QUICK, "data": tiny_data}), "workers=0"]
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 120, 0, 0))
    environment = {**os.environ, "TQDM_MININTERVAL": "0", "SOUNDSIGHT_CACHE": str(tmp_path / "first use")}
    environment.pop("YOLO_CONFIG_DIR", None)
    with subprocess.Popen(command, cwd=tmp_path, stderr=theirs, stdout=theirs, env=environment) as process:
        os.close(theirs)
        seen = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while more := os.read(ours, 4096):
                seen += more
    os.close(ours)
    assert process.returncode == 0, seen
    assert b"3/3 [" in seen and b" batches/s" in seen and b"epoch 1/1: loss" in seen
    assert b"Ultralytics Settings" not in seen and b"GPU_mem" not in seen


def test_trainings_follow_and_contain_one_another_in_one_process(tiny_data, tmp_path):
    """Whatever happens in one; handlers of others on Ultralytics' logger stay as they were, and still write."""
    from ultralytics.utils import LOGGER

    def run(name, **more):
        return train(
            None, data=str(tiny_data), project=str(tmp_path), name=name, workers=0, calibrate=False, **words_, **more
        )

    words_ = {**QUICK, "val": False}
    file, printed = logging.FileHandler(tmp_path / "mine.log", delay=True), io.StringIO()
    shown = logging.StreamHandler(printed)
    for handler in (file, shown):
        LOGGER.addHandler(handler)
    before, streams = list(LOGGER.handlers), [getattr(handler, "stream", None) for handler in LOGGER.handlers]
    try:
        with pytest.raises(LookupError, match="of the user"):
            run("a", callback=lambda *_: {}["of the user"])
        run("b", callback=lambda *_: run("c"))
        with pytest.raises(ConfigError, match="optimizer"):
            run("d", optimizer="Lion")
        run("e")
        assert LOGGER.handlers == before and sys.stdout.writable()
        after = [getattr(handler, "stream", None) for handler in LOGGER.handlers]
        assert [a for a, b in zip(after, before, strict=True) if b is not file] == [
            a for a, b in zip(streams, before, strict=True) if b is not file
        ]
        LOGGER.info("after all")
    finally:
        for handler in (file, shown):
            LOGGER.removeHandler(handler)
            handler.close()
    assert printed.getvalue() == "after all\n"
    assert "after all" in (tmp_path / "mine.log").read_text(encoding="utf-8")
    for name in "abce":
        log = (tmp_path / name / "ultralytics.log").read_text(encoding="utf-8")
        assert f"name={name}," in log and log.count("engine/trainer") == 1 and "after all" not in log


def test_the_matrix_of_a_training_has_a_row_per_true_class(tiny_data, tmp_path):
    from soundsight.backend.train import train as train_images

    done = train_images(
        {**QUICK, "data": str(tiny_data), "plots": True, "workers": 0, "project": str(tmp_path), "name": "r"},
        spectrogram=None,
        augment=None,
    )
    assert done.confusion is not None and done.confusion.sum(axis=1).tolist() == [4, 4, 4, 4]
    assert done.names == tuple(sorted(p.name for p in (tiny_data / "val").iterdir()))


def test_a_checkpoint_carries_settings_names_and_augmentation(tiny_model, tiny_data):
    preprocessing = load_checkpoint(tiny_model)["model"].soundsight
    prepared = json.loads((Path(tiny_data) / "settings.json").read_text(encoding="utf-8"))
    assert preprocessing["format"] == 1
    assert preprocessing["spectrogram"] == prepared["spectrogram"]
    assert preprocessing["names"] == sorted(p.name for p in (Path(tiny_data) / "train").iterdir())
    assert set(preprocessing["augment"]) == set(to_dict(AugmentConfig()))


def test_a_run_records_what_reproduces_it(tiny_data, tmp_path):
    run = train(**{**QUICK, "augment.mixup": 0.25}, data=str(tiny_data), project=str(tmp_path), name="r")
    record = json.loads((run.folder / RUN_FILE).read_text(encoding="utf-8"))
    assert record["augment"]["mixup"] == 0.25
    assert record["arguments"]["epochs"] == 1 and record["versions"]["ultralytics"]
    assert record["data_fingerprint"] and record["spectrogram"]["image_size"] == 64
    for checkpoint in (run.last, run.best):  # calibrated on data/val
        preprocessing = load_checkpoint(checkpoint)["model"].soundsight
        assert preprocessing["temperature"] > 0 and 0 <= preprocessing["threshold"] <= 1


def test_the_model_card_gets_the_figures_of_the_test_split(tiny_data, tmp_path):
    run = train(**QUICK, data=str(tiny_data), project=str(tmp_path), name="r")
    card = run.folder / "model-card.md"
    assert "Not scored yet" in card.read_text(encoding="utf-8")
    assert val(run.last, data=tiny_data, split="val", out=tmp_path / "v").card is None
    scored = val(run.last, data=tiny_data, split="test", out=tmp_path / "t")
    assert scored.card == card and f"{scored.scores.top1:.2%}" in card.read_text(encoding="utf-8")
    card.write_text(card.read_text(encoding="utf-8") + "Not for medical use.\n", encoding="utf-8")
    again = val(run.last, data=tiny_data, split="test", out=tmp_path / "u").card
    assert again == run.folder / "model-card-new.md" and "medical" in card.read_text(encoding="utf-8")


def test_a_card_gets_no_figures_of_other_data_and_no_augmentation_that_was_not(tiny_data, tmp_path):
    run = train(**QUICK, data=str(tiny_data), project=str(tmp_path), name="r", stock=True)
    card = (run.folder / "model-card.md").read_text(encoding="utf-8")
    assert "Augmentation: that of `yolo classify train`" in card and "shift" not in card
    run = train(**QUICK, data=str(tiny_data), project=str(tmp_path), name="s")
    other = tmp_path / "other"
    shutil.copytree(tiny_data, other)
    prepared = json.loads((other / "settings.json").read_text(encoding="utf-8"))
    (other / "settings.json").write_text(json.dumps({**prepared, "fingerprint": "of others"}), encoding="utf-8")
    assert val(run.last, data=other, split="test", out=tmp_path / "t").card is None
    assert "Not scored yet" in (run.folder / "model-card.md").read_text(encoding="utf-8")
    with pytest.raises(ConfigError, match="batch=0 is not allowed"):
        val(run.last, data=tiny_data, batch=0)


@pytest.mark.parametrize("shown", [False, True])
def test_short_epochs_share_a_checkpoint(tiny_data, tmp_path, monkeypatch, shown):
    """The first, the last and each that is the best so far are written; the others only after a while."""
    from ultralytics.engine.trainer import BaseTrainer

    from soundsight.backend import trainer

    written, scores, write = [], [], BaseTrainer.save_model

    def watched(self):
        written.append(self.epoch)
        return write(self)

    monkeypatch.setattr(trainer, "SAVE_SECONDS", 1000.0)
    monkeypatch.setattr(BaseTrainer, "save_model", watched)
    settings = {**QUICK, "epochs": 5, "val": shown, "data": str(tiny_data), "project": str(tmp_path)}
    run = train(**settings, calibrate=False, callback=lambda epoch, top1: scores.append(top1))
    best = [epoch for epoch, score in enumerate(scores) if score == max(scores[: epoch + 1])]
    assert written == sorted({0, *(best if shown else []), 4})
    assert load_checkpoint(run.last)["train_results"]["epoch"] == [1, 2, 3, 4, 5]


def test_a_killed_run_resumes_where_it_was(tiny_data, tmp_path):
    """Stop after the first of three epochs by SIGKILL, then `resume=`."""
    command = [sys.executable, "-m", "soundsight", "train", *words({**QUICK, "epochs": 3, "data": tiny_data})]
    command += [f"project={tmp_path}", "name=k", "augment.mixup=0.25", "lr0=2e-3"]
    last = tmp_path / "k" / "weights" / "last.pt"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not last.is_file() and process.poll() is None:
            pass
        process.kill()
    assert json.loads((tmp_path / "k" / RUN_FILE).read_text(encoding="utf-8"))["augment"]["mixup"] == 0.25
    other = tmp_path / "other"
    shutil.copytree(tiny_data, other)
    prepared = json.loads((other / "settings.json").read_text(encoding="utf-8"))
    (other / "settings.json").write_text(json.dumps({**prepared, "fingerprint": "of others"}), encoding="utf-8")
    before = last.read_bytes()
    stock = [str(Path(sys.executable).parent / "yolo"), "train", "resume", f"model={last}"]
    done = subprocess.run(stock, cwd=tmp_path, capture_output=True, text=True)
    assert (
        done.returncode and "use `soundsight train resume=last.pt`" in done.stderr
    )  # it knows no augmentation of ours
    assert last.read_bytes() == before  # with its preprocessing settings
    for changed, text in (
        ({"data": str(other)}, "are not those that .*last.pt was trained on"),
        ({"batch": 8}, "batch=8 cannot be given .* trained with batch=16"),
        ({"augment.mixup": 0.5}, "leave augment.mixup out"),
        ({"augment": AugmentConfig(shift=0.25)}, "leave --augment out"),
        ({"config": "train.yaml"}, "cfg=train.yaml has no effect on a training that is resumed"),
        ({"stock": True}, "was not trained with --stock"),
    ):
        with pytest.raises(ConfigError, match=text):
            train(resume=str(last), **changed)
    again = train(resume=str(last))  # as it was: nothing comes from configs/
    record = json.loads((again.folder / RUN_FILE).read_text(encoding="utf-8"))
    assert record["augment"]["mixup"] == 0.25
    assert {key: record["arguments"][key] for key in ("model", "epochs", "batch", "lr0", "data")} == {
        **{key: QUICK[key] for key in ("model", "batch")}, "epochs": 3, "lr0": 0.002, "data": str(tiny_data)
    }  # fmt: skip
    rows = (again.folder / "results.csv").read_text(encoding="utf-8").strip().splitlines()
    assert [row.split(",")[0].strip() for row in rows[1:]] == ["1", "2", "3"]
    assert load_checkpoint(again.last)["model"].soundsight["spectrogram"]["image_size"] == 64
    assert load_checkpoint(again.last)["train_args"]["erasing"] == 0


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"epoch": 3}, ConfigError, "Unknown key 'epoch'.*Did you mean 'epochs'"),
        ({"epochs": "many"}, ConfigError, "'epochs=many'"),
        ({"imgsz": 96}, ConfigError, "imgsz=96 does not match the images .* 64 pixels"),
        ({"mixup": 0.5}, ConfigError, "mixup=0.5 is for photographs, .* write augment.mixup=0.5"),
        ({"fraction": 0.1}, ConfigError, "fraction=0.1 is for photographs"),
        ({"stock": True, "augment.mixup": 0.5}, ConfigError, "augment.mixup has no effect with --stock"),
        ({"augment.mixin": 1}, ConfigError, "Unknown key 'mixin'"),
        ({"augment.shift": 2}, ConfigError, "shift=2 is out of range"),
        ({"device": 7}, ConfigError, "device=7 is not there"),
        ({"model": "nothing.pt"}, ModelError, "nothing.pt does not exist"),
    ],
)
def test_what_does_not_fit_is_one_sentence(tiny_data, tmp_path, settings, error, text):
    with pytest.raises(error, match=text) as caught:
        train(**{**QUICK, **settings}, data=str(tiny_data), project=str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_folder_that_was_not_prepared_to_the_end_is_refused(tiny_data, tmp_path):
    copy = tmp_path / "data"
    shutil.copytree(tiny_data, copy)
    (copy / "settings.json").unlink()
    with pytest.raises(DatasetError, match="not prepared to its end"):
        train(**QUICK, data=str(copy))
    with pytest.raises(DatasetError, match="does not exist; run `soundsight prepare`"):
        train(**QUICK, data=str(tmp_path / "nowhere"))


def test_augmentation_from_file_object_or_nothing():
    assert resolve_augment("augment.yaml", {"mixup": 0.1}).mixup == 0.1
    assert resolve_augment(AugmentConfig(shift=0.5), {}).shift == 0.5
    assert resolve_augment(None, {}).label_smoothing == 0


def test_weights_that_cannot_be_had_say_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"yolov8n-cls.pt .* cannot be downloaded .* model=yolov8n-cls.yaml"):
        find_weights("yolov8n-cls.pt")
    assert find_weights("yolov8n-cls.yaml") == "yolov8n-cls.yaml"


def test_arguments_of_the_shipped_file_are_all_known():
    resolved = resolve_arguments(ROOT / "configs" / "train.yaml", {})
    assert resolved["fliplr"] == 0 and resolved["auto_augment"] is None and resolved["optimizer"] == "AdamW"
    assert resolved["imgsz"] == SpectrogramConfig().image_size


def test_plots_fetch_no_font():
    """Ultralytics asks another host for Arial, unless a font lies where it looks first."""
    from soundsight.backend import quiet

    quiet.place_fonts()
    from ultralytics.utils import USER_CONFIG_DIR
    from ultralytics.utils.checks import check_font

    for name in ("Arial.ttf", "Arial.Unicode.ttf"):
        assert check_font(name) == USER_CONFIG_DIR / name and (USER_CONFIG_DIR / name).stat().st_size > 100_000


def test_threads_are_fixed_or_chosen_at_each_epoch(tiny_data, tmp_path, monkeypatch):
    """Beside a process that comes and goes; with `threads` they stay."""
    seen = []

    def run(**more):
        seen.clear()
        how = {**QUICK, "epochs": 3, "project": str(tmp_path), "val": True}
        train(data=tiny_data, calibrate=False, callback=lambda *_: seen.append(torch.get_num_threads()), **how, **more)
        return list(seen)

    former, choices = torch.get_num_threads(), []
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(machine, "processors", lambda: machine.Processors(2, "as the test says"))
    monkeypatch.setattr(parallel, "processors", machine.processors)
    monkeypatch.setattr(machine.Threads, "choose", lambda self: choices.pop(0))
    try:
        choices += [2, 1, 2]
        assert run() == [2, 1, 2]
        assert run(threads=1) == [1, 1, 1] and run(threads=2) == [2, 2, 2]
    finally:
        torch.set_num_threads(former)
    with pytest.raises(ConfigError, match="threads=0 is not allowed: it must be at least 1"):
        run(threads=0)
    with pytest.raises(ConfigError, match="threads=1 has no effect with --stock"):
        train(data=tiny_data, stock=True, threads=1)
