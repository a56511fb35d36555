"""Ctrl-C at a better moment."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from soundsight import files, interrupts
from soundsight.errors import ConfigError


@pytest.fixture(autouse=True)
def _hear():
    """Also where these tests run in the background, and a shell has Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_is_heard_after_the_block():
    done = []
    with pytest.raises(KeyboardInterrupt), interrupts.later():
        os.kill(os.getpid(), signal.SIGINT)
        done.append(True)
    assert done and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_that_is_ignored_stays_so():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interrupts.later():
        os.kill(os.getpid(), signal.SIGINT)


def test_other_threads_are_left_alone():
    seen = []

    def work():
        with interrupts.later():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT to itself")
def test_ctrl_c_while_a_c_library_loads_ends_as_any_other():
    """It falls into the making of an enum by soxr's C++, which would abort the process with a traceback."""
    script = """
import enum, os, signal, sys
make = enum.EnumType.__new__
def interrupted(kind, name, *rest, **more):
    if name == "soxr_datatype_t":
        print("here", flush=True)
        os.kill(os.getpid(), signal.SIGINT)
    return make(kind, name, *rest, **more)
signal.signal(signal.SIGINT, signal.default_int_handler)
enum.EnumType.__new__ = interrupted
from soundsight.cli import main
sys.exit(main(["prepare", "root=.", "--workers=1"]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("here\n", "soundsight: stopped.\n", 130)


@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
def test_a_command_that_is_ended_leaves_no_draft(tiny_onnx: Path, tmp_path: Path):
    """SIGTERM removes the draft; after SIGKILL the next run does, and only its own."""
    out, other = tmp_path / "out.csv", tmp_path / f".tmp-{'0' * 12}-{'0' * 32}.csv"
    other.write_text("somebody's")
    command = [sys.executable, "-m", "soundsight", "predict", str(tiny_onnx), "-", "--raw", "16000", "--out", str(out)]
    for number, code in ((signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)):
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            until = time.monotonic() + 120
            while len(list(tmp_path.glob(".tmp-*.csv"))) < 2 and process.poll() is None and time.monotonic() < until:
                time.sleep(0.05)
            process.send_signal(number)
            said = process.communicate()[1]
        assert process.returncode == code and said == ("soundsight: stopped.\n" if code == 143 else "")
        assert len(list(tmp_path.glob(".tmp-*.csv"))) == (1 if code == 143 else 2) and not out.exists()
    subprocess.run(command, input=b"\0" * 32000, check=True, timeout=120)
    assert sorted(path.name for path in tmp_path.iterdir()) == [other.name, "out.csv"]


def test_what_a_killed_service_left_is_removed_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left, link = tmp_path / f"{files.SCRATCH}left", tmp_path / f"{files.SCRATCH}link"
    (left / "upload").mkdir(parents=True)
    (left / files.LOCK).touch()
    notes = tmp_path / f"{files.SCRATCH}notes"  # somebody's: never locked by a service
    notes.mkdir()
    (tmp_path / "precious").mkdir()
    link.symlink_to(tmp_path / "precious")
    with files.scratch() as first, files.scratch() as second:
        assert not left.exists() and first != second and first.is_dir() and second.is_dir()
    assert sorted(tmp_path.iterdir()) == [tmp_path / "precious", link, notes] and not list(link.iterdir())


@pytest.mark.skipif(not os.path.exists("/proc/self"), reason="Linux")
def test_a_folder_that_takes_no_file_is_not_called_busy():
    claim = files.claimed(["/proc/x.csv"], None)
    with pytest.raises(ConfigError, match=r"The folder /proc cannot be written \(no file can be made in it\)"), claim:
        pass


def test_two_commands_do_not_write_one_file(tmp_path: Path):
    script = (
        "import sys; from soundsight.files import claimed\n"
        "with claimed([sys.argv[1]], None): print('claimed', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "out.csv")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "claimed\n"
        claim = files.claimed([tmp_path / "out.csv"], None)
        with pytest.raises(ConfigError, match=r"Another command writes .*out\.csv"), claim:
            pass
        other.communicate("")
    with files.claimed([tmp_path / "out.csv"], None):
        pass
    assert not list(tmp_path.iterdir())
