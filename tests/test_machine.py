"""How many processors and how much memory are ours: with control groups laid out by hand, and in a real one."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import pytest

from soundsight import machine, parallel
from soundsight.cli import main
from soundsight.machine import Processors

COUNT = "from soundsight.machine import processors; print(*vars(processors()).values(), sep='\\n')"


@pytest.fixture(autouse=True)
def eight(monkeypatch):
    """Eight processors, and no variable that limits them."""
    monkeypatch.setattr(os, "process_cpu_count", lambda: 8, raising=False)
    for name in machine.VARIABLES:
        monkeypatch.delenv(name, raising=False)


def lay_out(folder: Path, groups: str, mounts: dict[str, str], files: dict[str, str]) -> Path:
    """A process folder: its groups, mounts (`place: "root kind options"`) and the files of the groups."""
    process = folder / "process"
    process.mkdir()
    (process / "cgroup").write_text(groups)
    lines = [
        f"30 20 0:{n} {how.split()[0]} {folder / place} rw - {how.split()[1]} none {how.split()[2]}\n"
        for n, (place, how) in enumerate(mounts.items())
    ]
    (process / "mountinfo").write_text("25 20 0:5 / /proc rw - proc proc rw\n" + "".join(lines))
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text + "\n")
    return process


def test_without_a_limit_all_processors_count_and_variables_lower_them(tmp_path, monkeypatch):
    assert machine.processors(tmp_path) == Processors(8, "processors of this process")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "4")
    assert machine.processors(tmp_path) == Processors(4, "SLURM_CPUS_PER_TASK=4")
    monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
    assert machine.processors(tmp_path) == Processors(3, "OMP_NUM_THREADS=3")
    assert parallel.cores() <= 3
    for text in ("", "0", "-1", "many", "900"):
        monkeypatch.setenv("OMP_NUM_THREADS", text)
        assert machine.processors(tmp_path).count == 4


@pytest.mark.parametrize(
    ("ours", "parent", "count"),
    [
        ("max 100000", "max 100000", 8),
        ("200000 100000", "max 100000", 2),
        ("max 100000", "300000 100000", 3),
        ("400000 100000", "150000 100000", 1),  # of a parent group, rounded down
        ("25000 100000", "max 100000", 1),  # below one
        ("1600000 100000", "max 100000", 8),
    ],
)
def test_version_2_heeds_the_quotas_of_all_groups_above(tmp_path, ours, parent, count):
    files = {"fs/pod/box/cpu.max": ours, "fs/pod/cpu.max": parent}
    process = lay_out(tmp_path, "0::/pod/box\n", {"fs": "/ cgroup2 rw,nsdelegate"}, files)
    found = machine.processors(process)
    assert found.count == count
    if count == 3:
        assert found.reason == f"quota of 3 in {tmp_path / 'fs' / 'pod'}"


@pytest.mark.parametrize(("root", "group"), [("/", "/slurm/job"), ("/docker/ab", "/docker/ab/slurm/job")])
def test_version_1_is_found_by_its_controller_and_mount(tmp_path, root, group):
    files = {
        "cpu/slurm/job/cpu.cfs_quota_us": "-1",
        "cpu/slurm/job/cpu.cfs_period_us": "100000",
        "cpu/slurm/cpu.cfs_quota_us": "250000",
        "cpu/slurm/cpu.cfs_period_us": "100000",
    }
    mounts = {"cpuset": "/ cgroup rw,cpuset", "cpu": f"{root} cgroup rw,cpu,cpuacct"}
    process = lay_out(tmp_path, f"3:cpuset:/\n1:cpu,cpuacct:{group}\n0::/\n", mounts, files)
    assert machine.processors(process) == Processors(2, f"quota of 2.5 in {tmp_path / 'cpu' / 'slurm'}")


def test_a_container_without_its_own_names_finds_its_quota_at_the_mount(tmp_path):
    process = lay_out(tmp_path, "0::/../other\n", {"fs": "/ cgroup2 rw"}, {"fs/cpu.max": "100000 50000"})
    assert machine.processors(process).count == 2


def test_free_memory_heeds_the_limit_of_a_container(tmp_path):
    assert machine.free_memory(tmp_path) > 1 << 20  # no control groups there
    mounts = {"fs": "/ cgroup2 rw", "memory": "/ cgroup rw,memory"}
    process = lay_out(tmp_path, "4:memory:/box\n0::/box\n", mounts, {"fs/box/memory.max": "max"})
    (tmp_path / "fs/box/memory.current").write_text("5000\n")
    assert machine.free_memory(process) > 1 << 20
    (tmp_path / "fs/box/memory.max").write_text("9000\n")
    assert machine.free_memory(process) == 4000
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("7000\n")
    (tmp_path / "memory" / "memory.usage_in_bytes").write_text("7500\n")
    assert machine.free_memory(process) == 0


def make_group(quota: int) -> tuple[Path, Path]:
    """A control group with a quota of processors in hundredths, and a group below it, of version 2 or 1."""
    top = Path("/sys/fs/cgroup")
    version_2 = (top / "cgroup.controllers").is_file()
    group = (top if version_2 else top / "cpu") / f"soundsight-test-{os.getpid()}"
    try:
        group.mkdir()
        if version_2:
            (group / "cpu.max").write_text(f"{quota * 1000} 100000")
        else:
            (group / "cpu.cfs_period_us").write_text("100000")
            (group / "cpu.cfs_quota_us").write_text(str(quota * 1000))
        (group / "below").mkdir()
    except OSError as error:
        with suppress(OSError):
            group.rmdir()
        pytest.skip(f"no control group with a quota can be made here ({error})")
    return group, group / "below"


@pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux'")
@pytest.mark.parametrize("inner", [False, True])
def test_the_quota_of_a_real_control_group_is_found(inner):
    group, below = make_group(150)
    try:
        place = (below if inner else group) / "cgroup.procs"
        code = f"open({str(place)!r}, 'w').write('0')\n{COUNT}"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == ["1", f"quota of 1.5 in {group}"] or len(os.sched_getaffinity(0)) == 1
    finally:
        below.rmdir()
        group.rmdir()


def test_info_is_one_screen_or_json_and_names_what_limits(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("SOUNDSIGHT_MQTT_PASSWORD", "secret")
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    assert "processors: 1 (OMP_NUM_THREADS=1); the machine has" in text and "secret" not in text
    assert f"torch={metadata.version('torch')}" in text and text.count("\n") < 24
    assert main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["processors"]["count"] == facts["threads"]["train"] == 1 and "FLAC" in facts["libsndfile"]["formats"]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["info"]) == 0 and "ffmpeg: not installed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("others", "count"), [(0.0, 8), (0.4, 8), (0.6, 7), (1.0, 7), (3.9, 4), (7.9, 1), (20.0, 1), (-1.0, 8)]
)
def test_threads_are_the_processors_that_others_leave(monkeypatch, others, count):
    """`others` keep so many of eight processors busy, for ten seconds."""
    clock = iter([100.0, 100.5, 110.0])
    busy = iter([5.0, 5.0 + 10 * others])
    monkeypatch.setattr(machine.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(machine, "_busy_elsewhere", lambda: next(busy))
    monkeypatch.setattr(machine, "_ours", lambda: range(8))
    threads = machine.Threads()
    assert threads.count == threads.choose() == 8  # half a second says nothing yet
    assert threads.choose() == count


@pytest.mark.skipif(sys.platform != "linux", reason="starts processes that are nobody's children with sh")
def test_beside_processes_that_keep_all_processors_busy_one_thread_is_chosen(monkeypatch):
    monkeypatch.delattr(os, "process_cpu_count")
    burn = (
        f"{sys.executable} -c 'import time; end = time.time() + 60\nwhile time.time() < end: pass' >&- 2>&- & echo $!;"
    )
    started = subprocess.run(["sh", "-c", burn * 2 * parallel.cores()], capture_output=True, text=True, check=True)
    try:
        threads = machine.Threads()
        time.sleep(3)
        assert threads.choose() == 1
    finally:
        for number in started.stdout.split():
            os.kill(int(number), signal.SIGKILL)
