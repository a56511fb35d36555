"""Ctrl-C at a better moment."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from soundsight import interrupts


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
