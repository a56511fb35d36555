"""Workers: nothing lost, nothing twice, even when the system kills one."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from soundsight import parallel


def square(number: int) -> int:
    return number * number


def die_once(task: tuple[Path, int]) -> int:
    """Kill the worker the first time it meets number 20."""
    marker, number = task
    if number == 20 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def die_always(number: int) -> int:
    if number == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def fail(number: int) -> int:
    raise ValueError(f"cannot do {number}")


@pytest.mark.parametrize("workers", [1, 2])
def test_every_item_comes_back_once(workers):
    results = sorted(parallel.run(square, range(100), workers=workers))
    assert results == [(n, n * n) for n in range(100)]


def test_a_killed_worker_is_replaced_and_its_items_done_again(tmp_path):
    tasks = [(tmp_path / "died", n) for n in range(60)]
    results = sorted(number for _, number in parallel.run(die_once, tasks, workers=2))
    assert results == list(range(60))


def test_an_item_that_kills_twice_is_reported_and_the_rest_is_done():
    results = dict(parallel.run(die_always, range(40), workers=2))
    assert isinstance(results.pop(7), parallel.WorkerLost)
    assert results == {n: n for n in range(40) if n != 7}


def test_an_error_in_the_function_ends_the_run():
    with pytest.raises(ValueError, match="cannot do"):
        list(parallel.run(fail, range(5), workers=2))


def test_a_script_without_a_guard_runs_once(tmp_path, tiny_sounds):
    script = tmp_path / "mine.py"
    script.write_text(
        f"""
import soundsight
print("my script")
done = soundsight.prepare(soundsight.DatasetConfig(root={str(tiny_sounds)!r}, cache="cache", data="data"), workers=2)
print(done.rendered, done.failures)
"""
    )
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    rendered = len(list((tiny_sounds / "audio").glob("*.wav")))
    assert done.stdout.splitlines() == ["my script", f"{rendered} []"], done.stderr


def test_a_function_of_the_script_itself_works(tmp_path):
    script = tmp_path / "mine.py"
    script.write_text(
        """
from soundsight import parallel
def double(number):
    return 2 * number
if __name__ == "__main__":
    print(sorted(result for _, result in parallel.run(double, range(5), workers=2)))
"""
    )
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.stdout == "[0, 2, 4, 6, 8]\n", done.stderr
