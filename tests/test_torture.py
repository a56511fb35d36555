"""The quick part of `make torture`: some of every kind of damage, and every hostile checkpoint."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from torture import (
    checkpoints,
    disks,
    gate,
    hostile,
    kills,
    many,
    models,
    names,
    processes,
    recordings,
    settings,
    sounds,
    strangers,
)
from torture import files as outputs

from soundsight import audio, files
from soundsight.cli import main
from soundsight.errors import AudioError, ConfigError, ModelError


def test_random_settings_lead_from_end_to_end():
    found = settings.run(12, seed=1)
    assert found["problems"] == [] and found["trained"] >= 8


def test_damaged_recordings_are_answered_or_listed_with_a_reason():
    found = recordings.run(300, seed=3, limited=False)
    assert found["problems"] == [] and found["cases"] >= 200
    assert found["prepare_drawn"] > 50 and found["prepare_refused"] > 50


def test_odd_names_and_things_that_are_no_files(tmp_path):
    found = names.run(tmp_path, str(models.make_onnx(tmp_path)))
    assert found == {"good": 25, "bad": 7, "problems": []}


def test_outputs_replace_neither_inputs_nor_the_work_of_others(tmp_path):
    found = outputs.run(tmp_path)
    assert found == {"outputs": 157, "repeated": 11, "problems": []}


def test_a_stranger_s_folder_settings_run_and_environment_end_in_one_message(tmp_path):
    found = strangers.run(tmp_path, random.Random(2), 12)
    assert [part["problems"] for part in found.values()] == [[]] * 5


def test_a_header_that_claims_more_than_the_file_can_hold(tmp_path):
    """Two kilobytes that claim to last 93 days."""
    data = bytearray(sounds.whole()["flac"])
    data[21] = 0xFF  # the upper bits of the number of samples
    path = tmp_path / "long.flac"
    path.write_bytes(data)
    with pytest.raises(AudioError, match=r"claims to last \d+ s, which \d+ bytes cannot hold"):
        audio.probe(path)


def test_samples_whose_power_is_no_number(tmp_path):
    path = tmp_path / "huge.wav"
    soundfile.write(path, np.full(100, 1e20, np.float32), 8000, subtype="FLOAT")
    with pytest.raises(AudioError, match="beyond 1e\\+15 times full scale"):
        audio.read(path, sample_rate=8000)


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="POSIX users")
def test_a_folder_that_may_not_be_read_is_told(tmp_path):
    """Asked as another user, since nothing is closed to root."""
    folder = tmp_path / "sounds" / "bark" / "closed"
    folder.mkdir(parents=True)
    (folder / "b.wav").write_bytes(sounds.whole()["wav"])
    (folder.parent / "a.wav").write_bytes(sounds.whole()["wav"])
    table = "file,label\na.wav,dog\nclosed/b.wav,dog\n"
    (folder.parent / "l.csv").write_text(table)
    (folder.parent / "meta").mkdir()
    rows = [
        "filename,fold,target,category,esc10,src_file,take",
        *(f"../{x},1,0,dog,True,{x},A" for x in ("a.wav", "closed/b.wav")),
    ]
    official = "\n".join(rows)
    (folder.parent / "meta" / "esc50.csv").write_text(official)
    (folder.parent / "audio").mkdir()
    folder.chmod(0)
    code = """
import os, sys
from soundsight.audio import probe
from soundsight.config import DatasetConfig
from soundsight.datasets.catalogue import read_catalogue
from soundsight.errors import AudioError
import encodings.utf_8_sig, soundsight.datasets.kinds
os.geteuid() or os.seteuid(65534)
print(read_catalogue(DatasetConfig(kind="folder", root=sys.argv[1])).failures)
for kind in ("table", "esc50"):
    found = read_catalogue(DatasetConfig(kind=kind, root=sys.argv[1] + "/bark", table="l.csv"))
    print(kind, len(found.clips), found.failures)
try:
    probe(sys.argv[1] + "/bark/closed/b.wav")
except AudioError as error:
    print(error)
"""
    for parent in (tmp_path, *tmp_path.parents):
        if Path(tempfile.gettempdir()) in parent.parents:
            parent.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "sounds")], capture_output=True, text=True)
    folder.chmod(0o700)
    lines = done.stdout.splitlines()
    assert len(lines) == 4, done.stderr
    assert "bark/closed" in lines[0] and "the folder cannot be read (Permission denied)" in lines[0]
    assert lines[1].startswith("table 1 ") and "closed/b.wav" in lines[1]
    assert lines[2].startswith("esc50 1 ") and "closed/b.wav" in lines[2]
    assert "cannot be read (Permission denied)" in lines[3]


def test_outputs_cannot_steer_a_terminal():
    assert files.printable("a\x1b[2Jb\nc\u202ed") == r"a\x1b[2Jb\nc\u202ed"
    assert files.printable("größe 🐕‍🦺.wav") == "größe 🐕‍🦺.wav"


@pytest.fixture(scope="module")
def crafted(tmp_path_factory):
    """All hostile checkpoints, and the marker that none of them may make."""
    folder = tmp_path_factory.mktemp("crafted")
    with checkpoints._listening() as server:
        found = dict(hostile.files(folder, folder / "marker", server.port))
        yield found, folder / "marker", server


def test_no_hostile_checkpoint_has_an_effect(crafted):
    from soundsight.models.load import load_classifier

    found, marker, server = crafted
    assert len(found) >= 80
    for technique, path in found.items():
        with pytest.raises(ModelError) as refused:
            load_classifier(path, device="cpu")
        assert "\n" not in str(refused.value) and str(path) in str(refused.value), technique
        assert not marker.exists() and not server.requests, technique


def test_no_command_believes_a_hostile_checkpoint():
    few = ("Ultralytics layer that downloads", "activation that is evaluated")
    found = checkpoints.run(only=few)
    assert found["problems"] == [] and found["cases"] == 2 * len(checkpoints.COMMANDS)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux' memory figures")
def test_no_way_leads_around_the_gate():
    found = gate.run(5)
    assert found["problems"] == [] and found["cases"] == 17
    assert max(found["refusal_of_a_program_mb"], found["refusal_of_a_bomb_mb"]) <= 100


def test_a_training_killed_just_before_its_end_is_finished(tmp_path):
    """All epochs are done, but the optimizer is still in the checkpoint."""
    import torch

    from soundsight.backend.checkpoint import load_checkpoint
    from soundsight.backend.train import train

    last = tmp_path / "run" / "weights" / "last.pt"
    last.parent.mkdir(parents=True)
    content = models.make_content()
    content["train_args"]["epochs"] = 3
    torch.save({**content, "epoch": 2, "optimizer": {"state": {}, "param_groups": []}}, last)
    done = train({"resume": str(last), "device": "cpu"}, spectrogram=None, augment=None)
    assert done.last == last and done.folder == tmp_path / "run"
    assert load_checkpoint(last)["optimizer"] is None and os.listdir(last.parent) == ["last.pt"]
    with pytest.raises(ConfigError, match="is at the end of its training; train on from it with model="):
        train({"resume": str(last), "device": "cpu"}, spectrogram=None, augment=None)


def test_rows_of_epochs_that_are_trained_again_are_taken_out(tmp_path):
    from soundsight.backend.train import _forget_epochs

    table = tmp_path / "results.csv"
    table.write_text("epoch,loss\n1,0.5\n2,0.4\n3,0.3\n4,0.", encoding="utf-8")
    _forget_epochs(table, 2)
    assert table.read_text(encoding="utf-8") == "epoch,loss\n1,0.5\n2,0.4\n"


def test_options_of_crossval_are_no_training_arguments(tmp_path, capsys):
    assert main(["crossval", str(tmp_path), "workers=0"]) == 2
    assert "workers=0 is out of range: 1 to 1024 is allowed" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's list of processes")
def test_a_killed_prepare_leaves_no_workers(tmp_path):
    kills.write_clips(tmp_path / "sounds", 300)
    config = kills.config_of(tmp_path)
    words = [f"root={config.root}", f"cache={config.cache}", f"data={config.data}", *recordings.SETTINGS[:4]]
    command = [
        sys.executable,
        "-m",
        "soundsight",
        "prepare",
        *words,
        "split.train=[1]",
        "split.val=[2]",
        "split.test=[3]",
    ]
    with subprocess.Popen([*command, "--workers", "2"], start_new_session=True, stderr=subprocess.DEVNULL) as process:
        until = time.monotonic() + 60
        while len(processes.survivors(process.pid)) < 4 and process.poll() is None and time.monotonic() < until:
            time.sleep(0.01)  # itself, the server of workers, two workers
        process.kill()
    assert processes.all_gone(process.pid, seconds=10), processes.survivors(process.pid)


def test_full_and_vanished_disks():
    found = disks.run(training=False)
    assert found["problems"] == []
    if found.get("left_out"):
        pytest.skip(found["left_out"])


def test_each_of_many_recordings_is_accounted_for():
    found = many.run(400)
    assert found["problems"] == []
    assert found["prepare"]["drawn"] == found["predict"]["answered"] == 396
