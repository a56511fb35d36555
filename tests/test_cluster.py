"""The engine ray: lists, storage and shards without Ray; then a real cluster of two nodes on this machine."""

from __future__ import annotations

import filecmp
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import soundfile

import soundsight
from soundsight import cli
from soundsight.cluster import connect, nodes
from soundsight.cluster.listing import write_listing
from soundsight.cluster.shards import Shards, commit, shard_name
from soundsight.cluster.storage import Storage, fetched, is_address, listing
from soundsight.config import ClusterConfig
from soundsight.errors import AudioError, ConfigError
from soundsight.files import replacing

HAS_RAY = importlib.util.find_spec("ray") is not None
HAS_ARROW = importlib.util.find_spec("pyarrow") is not None
NO_RAY = pytest.mark.skipif(not HAS_RAY or not HAS_ARROW, reason="the extra soundsight[ray] is not installed")
LIMIT_SECONDS = 1500  # of one test
needs_arrow = pytest.mark.skipif(not HAS_ARROW, reason="pyarrow of the extra soundsight[ray] is not installed")


def needs_ray(test: Any) -> Any:
    """Marks a test on a cluster: slow, as each command starts processes on it."""
    return pytest.mark.slow(NO_RAY(test))


def needs_minutes(test: Any) -> Any:
    """Marks one of the longest: left out by `make test`, run by `pytest -m long`, as .ci/run does."""
    return pytest.mark.long(needs_ray(test))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# Lists


def test_a_list_names_each_recording_once_and_keeps_strange_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.wav", "b.flac", "line\nend.wav"):
        Path("sounds").mkdir(exist_ok=True)
        Path("sounds", name).write_bytes(b"")
    Path("list.txt").write_bytes(b"\xef\xbb\xbfsounds/a.wav\r\n\n  x/../sounds/b.flac\nno\xff.wav\nsounds/./a.wav\n")
    listed = write_listing(["sounds", "@list.txt", "@list.txt"], tmp_path / "out.txt")
    chunks = list(listed.chunks(2))
    assert chunks == [("sounds/a.wav", "sounds/b.flac"), ("sounds/line\nend.wav", "no\udcff.wav")]
    assert listed.count == 4 and [path.name for path in tmp_path.glob("out*")] == ["out.txt"]


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "cannot be read"), (b"RIFF\0\0\0\0WAVE", "is no list"), (b"\n \n", "No recordings are listed")],
)
def test_a_list_that_is_none_says_so(tmp_path, content, words):
    path = tmp_path / "list.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        write_listing([f"@{path}"], tmp_path / "out.txt")


def test_a_million_names_need_little_memory(tmp_path):
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from soundsight.cluster.listing import write_listing\n"
        "folder = Path(sys.argv[1])\n"
        "(folder / 'list').write_text(''.join(f'/no/{n % 99990:07d}.wav\\n' for n in range(100_000)))\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "before = peak()\n"
        "listed = write_listing(['@' + str(folder / 'list')], folder / 'out')\n"
        "print(listed.count, peak() - before)"
    )
    out = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True).stdout
    count, grown = map(int, out.split())
    assert count == 99_990 and grown < 30  # MB


# Storage and shards


def test_storage_of_any_kind_that_fsspec_knows(tmp_path):
    storage = Storage(f"memory://{tmp_path.name}/out")
    storage.write("shards/a", b"12")
    storage.write("b.wav", b"1")
    assert storage.sizes("shards") == {"a": 2} and storage.read("shards/a") == b"12"
    assert listing(f"memory://{tmp_path.name}/out") == [storage.path("b.wav"), storage.path("shards/a")]
    with fetched(storage.path("b.wav")) as copy:
        assert copy.read_bytes() == b"1" and copy.suffix == ".wav"
    with pytest.raises(AudioError, match="memory://.*c.wav cannot be read"), fetched(storage.path("c.wav")):
        pass
    with pytest.raises(ConfigError, match="cannot be listed .*nosuch"):
        listing("nosuch://bucket")


def test_storage_writes_whole_files_and_says_what_it_cannot(tmp_path):
    storage = Storage(tmp_path / "out")
    assert storage.sizes("shards") == {}
    storage.write("shards/a", b"12")
    (tmp_path / "out" / "shards" / ".tmp-mine").write_bytes(b"a draft")
    assert storage.sizes("shards") == {"a": 2} and storage.read("shards/a") == b"12"
    storage.remove("shards/a")
    storage.remove("shards/a")
    assert storage.sizes("shards") == {}
    with pytest.raises(ConfigError, match="shards/a cannot be read"):
        storage.read("shards/a")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written .File exists"):
        Storage(tmp_path / "file").write("b", b"")
    assert is_address("s3://bucket/a") and not is_address("C:/sounds") and not is_address("/a")


@needs_arrow
def test_shards_are_taken_over_only_if_they_are_whole_and_ours(tmp_path):
    import pyarrow
    from pyarrow import parquet

    listed = write_listing([f"{n}.wav" for n in range(5)], tmp_path / "list")
    storage = Storage(tmp_path / "out")

    def write(shard, job: str) -> dict:
        table = pyarrow.table({"recording": list(shard.sources)})
        said = shard.metadata(job, table.num_rows, [("x", "y")])
        path = tmp_path / "draft"
        parquet.write_table(table.replace_schema_metadata(said), path)
        return commit(storage, path.read_bytes())

    what = {"command": "predict", "options": {"speeds": (0.9, 1.1), "tail": None}}
    store = Shards(storage, listed, 2, what)
    shards = list(store.missing())
    assert [len(shard.sources) for shard in shards] == [2, 2, 1]
    entries = [write(shard, store.job) for shard in shards]
    with pytest.raises(ConfigError, match="vanished"):
        store.finish()

    torn = tmp_path / "out" / shard_name(1)
    torn.write_bytes(torn.read_bytes()[:-9])  # as after a crash on a disk that lost the end
    write(shards[2], "another job")
    with replacing(torn.with_name("part-00000002.parquet")) as left:
        left.write_bytes(b"12")
    left.write_bytes(b"half")  # as a killed worker leaves it
    (other := left.with_name(".tmp-mine")).write_bytes(b"somebody's")
    again = Shards(storage, listed, 2, what)
    assert list(again.done) == [0] and again.done[0] == entries[0]
    assert [shard.index for shard in again.missing()] == [1, 2] and not torn.exists()
    assert not left.exists() and other.exists()
    for shard in shards[1:]:
        again.done[shard.index] = write(shard, again.job)
    assert again.finish() | {"job": ""} == {
        "format": 1, "job": "", "complete": True, "shards": 3, "sources": 5, "rows": 5, "failures": 3,
        "bytes": sum(entry["bytes"] for entry in entries),
    }  # fmt: skip
    assert (tmp_path / "out" / "failures.csv").read_text() == "source,reason\nx,y\nx,y\nx,y\n"

    with pytest.raises(ConfigError, match=r"another job \(it differs in: command\)"):
        Shards(storage, listed, 2, {**what, "command": "embed"})


# Addresses and settings


def test_what_is_searched_and_what_is_fixed():
    from soundsight.cluster.tune import parse_space

    space, fixed = parse_space({"lr0": "0.001..0.003", "epochs": "10..20", "batch": "8..128", "data": "../data"})
    assert space == {"lr0": ("even", 0.001, 0.003), "epochs": ("whole even", 10, 21), "batch": ("whole log", 8, 129)}
    assert fixed == {"data": "../data"}
    with pytest.raises(ConfigError, match=r"lr0=3\.\.1 is no range"):
        parse_space({"lr0": "3..1"})


def test_addresses_that_cannot_be(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert connect.find_address(ClusterConfig()) is None
    for address, words in (("ray://h:10001", "client port"), ("host", "HOST:PORT"), ("h:99999", "HOST:PORT")):
        with pytest.raises(ConfigError, match=words):
            connect.find_address(ClusterConfig(address=address))
    address = f"127.0.0.1:{free_port()}"
    says = pytest.raises(ConfigError, match=f"Nothing responds at {address} within 5 s: start a cluster there")
    with says, connect.connect(ClusterConfig(address=address)):
        pass


def test_an_option_of_the_former_engine_is_accepted_with_a_warning(tmp_path, capsys):
    words = ["predict", str(tmp_path / "no.pt"), "a.wav", "--out", str(tmp_path / "o.csv"), "in_flight=4"]
    assert cli.main(words) == 2
    said = capsys.readouterr().err
    assert "in_flight=4 has no effect any more: Ray gives out the tasks" in said and "no.pt" in said


def test_what_nodes_lack_has_a_message(tmp_path):
    own = nodes.environment()
    assert nodes.mismatch(own, own) == ""
    assert "has soundsight 0.0.1+ab, and this machine" in nodes.mismatch(own, {**own, "soundsight": "0.0.1+ab"})
    assert "has torch 1.0, and this machine" in nodes.mismatch(own, {**own, "torch": "1.0"})
    assert "has Python 3.1, and" in nodes.mismatch(own, {**own, "Python": "3.1"})
    assert nodes.unseen([], str(tmp_path), {}) == ""
    assert "cannot use /no/data (it is not there)" in nodes.unseen(["/no/data"], str(tmp_path), {})
    assert "cannot use /no (there is no such folder)" in nodes.unseen([], "/no", {})


def test_without_ray_a_command_says_what_to_install(tmp_path):
    code = "import sys; sys.modules['ray'] = None; import soundsight.cli as c; sys.exit(c.main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "predict", "m.pt", "a.wav", "--engine", "ray", "--out", "o"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and 'pip install "soundsight[ray]"' in done.stderr


# A cluster of two nodes with a core each


@pytest.fixture(autouse=True)
def limit(request: pytest.FixtureRequest) -> Iterator[None]:
    """Nothing here may hang: a test that takes far too long fails, whatever it waits for."""

    def late(*_: object) -> None:
        raise TimeoutError(f"{request.node.name} took more than {LIMIT_SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(LIMIT_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """The address of a cluster of two nodes; its processes end with the tests."""
    if not HAS_RAY:
        pytest.skip("the extra soundsight[ray] is not installed")
    address = f"127.0.0.1:{free_port()}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", os.urandom(32).hex())
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        started = [start_node(address)]
        try:
            started.append(start_node(address, "--num-gpus=1", joins=True))  # in Ray's books
            yield address
        finally:
            for node in reversed(started):
                kill_node(node)


def start_node(
    address: str,
    *more: str,
    joins: bool = False,
    path: Path = Path(connect.__file__).parents[2],
    before: tuple[str, ...] = (),
) -> subprocess.Popen[bytes]:
    """The head, or a node that joins it, whose Python finds packages at `path` first."""
    heads = ["--head", f"--port={address.rpartition(':')[2]}", "--include-dashboard=false", "--no-monitor"]
    where = [f"--address={address}"] if joins else heads
    code = "import sys; from ray.scripts.scripts import main; sys.argv[0] = 'ray'; main()"
    environment = {**os.environ, "PYTHONPATH": str(path)}
    for _ in range(8):  # a raylet gives its agent 15 s to start, which a busy machine exceeds
        temp = f"/tmp/ss{os.getpid() % 100000}h{time.monotonic_ns() % 10000}"
        command = [*before, sys.executable, "-P", "-c", code, "start", *where, "--node-ip-address=127.0.0.1"]
        command += ["--num-cpus=1", "--object-store-memory=80000000", "--disable-usage-stats", "--block"]
        command += ["--include-log-monitor=false"]
        command += [f"--temp-dir={temp}", *more]
        log = Path(f"{temp}.log")
        with open(log, "w") as stream:
            node = subprocess.Popen(command, env=environment, stdout=stream, stderr=stream, start_new_session=True)
        node.temp = temp  # type: ignore[attr-defined]
        wait_until(lambda: "Ray runtime started" in log.read_text() or node.poll() is not None, 400)  # noqa: B023
        said = log.read_text()
        log.unlink()
        if node.poll() is None:
            return node
        kill_node(node)
    pytest.fail(f"No node starts: {said[-2000:]}")


def kill_node(node: subprocess.Popen[bytes]) -> None:
    """SIGKILL to all processes of a node, as by a power cut; its folder goes when all of them have ended.

    They are stopped first, so that none starts another meanwhile. What works for a task has another command line
    than what Ray started, so only its parents tell whose it is.
    """
    found: set[psutil.Process] = set()
    with suppress(psutil.NoSuchProcess):
        first = psutil.Process(node.pid)
        while more := {first, *first.children(recursive=True)} - found:
            found |= more
            for process in more:
                with suppress(psutil.NoSuchProcess):
                    process.suspend()
    for process in found:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    node.wait(20)
    assert not psutil.wait_procs(found, 20)[1]
    shutil.rmtree(node.temp, ignore_errors=True)  # type: ignore[attr-defined]


def wait_until(true, seconds: float) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.1)


def start(*words: object, **more: Any) -> subprocess.Popen[str]:
    """A command as a user gives it, with what it starts in a group of its own."""
    command = [sys.executable, "-m", "soundsight", *map(str, words)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, **pipes, start_new_session=True, **more)


def run(*words: object, seconds: float = 600, **more: Any) -> subprocess.CompletedProcess[str]:
    """The same, until it ends; all that it started is killed if it takes too long."""
    process = start(*words, **more)
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate(timeout=20)
        pytest.fail(f"{words} did not end within {seconds} s; it said: {out[-2000:]} {err[-2000:]}")
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def same_tree(one: Path, two: Path) -> bool:
    """Whether two folders hold the same files."""
    names = [sorted(p.relative_to(root) for p in root.rglob("*.png")) for root in (one, two)]
    return names[0] == names[1] and all(filecmp.cmp(one / name, two / name, shallow=False) for name in names[0])


@needs_ray
def test_predict_writes_the_same_bytes_and_a_restart_does_only_what_is_missing(head, tiny_model, tiny_sounds, tmp_path):
    files = sorted((tiny_sounds / "audio").glob("*.wav"))[:36]
    torn = tmp_path / "torn.wav"
    torn.write_bytes(files[0].read_bytes()[:30])
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join(map(str, [*files[:9], "/no/such.wav", torn, *files[9:], files[3]])))
    words = ["predict", tiny_model, f"@{listed}", "--hop", "0.5", "--top-k", "3", "--device", "cpu"]
    local, out = tmp_path / "local.parquet", tmp_path / "ray.parquet"
    assert cli.main([*map(str, words), "--out", str(local)]) == 1

    cluster = ["--engine", "ray", "--address", head, "--cluster", "shard=10", "--out"]
    done = run(*words, *cluster, out)
    assert done.returncode == 1, done.stderr
    assert "38 recordings" in done.stderr and "4 shards (4 written now), 2 failed" in done.stderr
    assert "/no/such.wav does not exist" in done.stderr
    assert filecmp.cmp(local, out, shallow=False)

    shards = Path(f"{out}.shards")
    manifest = json.loads((shards / "manifest.json").read_text())
    assert manifest["complete"] and manifest["sources"] == 38 and len(manifest["entries"]) == 4
    (shards / shard_name(1)).unlink()
    half = shards / shard_name(2)
    half.write_bytes(half.read_bytes()[:500])
    out.unlink()
    again = run(*words, *cluster, out)
    assert "4 shards (2 written now), 2 failed" in again.stderr, again.stderr
    assert filecmp.cmp(local, out, shallow=False)

    other = run(*words, "--threshold", "0.9", *cluster, out)
    assert other.returncode == 2 and "another job (it differs in: options)" in other.stderr


@needs_ray
def test_embed_writes_the_same_bytes(head, tiny_model, tiny_sounds, tmp_path):
    local, out = tmp_path / "local.parquet", tmp_path / "ray.parquet"
    words = ["embed", tiny_model, tiny_sounds / "audio", "--device", "cpu", "--out"]
    assert cli.main([*map(str, words), str(local)]) == 0
    done = run(*words, out, "--engine", "ray", "--address", head, "--cluster", "shard=50")
    assert done.returncode == 0 and filecmp.cmp(local, out, shallow=False), done.stderr


@needs_ray
def test_prepare_draws_the_same_files(head, tiny_sounds, tmp_path):
    preprocessing = ["clip_seconds=1.0", "image_size=64", "n_fft=2048", f"root={tiny_sounds}"]
    for name, engine in (("a", ["--workers", "1"]), ("b", ["--engine", "ray", "--address", head])):
        done = run("prepare", *preprocessing, f"data={tmp_path / name}", f"cache={tmp_path / name}-cache", *engine)
        assert done.returncode == 0 and "80 images rendered" in done.stdout, done.stderr
    assert same_tree(tmp_path / "a", tmp_path / "b")
    assert filecmp.cmp(tmp_path / "a" / "manifest.csv", tmp_path / "b" / "manifest.csv", shallow=False)


ITEMS = """
import json, os, signal, sys
from soundsight.cluster import connect, tasks
from soundsight.config import ClusterConfig
from soundsight.parallel import WorkerLost

def work(item):
    if item in (7, 40):
        os.kill(os.getpid(), signal.SIGKILL)
    if item == 20 and not os.path.exists(mark):
        open(mark, "w").close()
        raise FileNotFoundError("as where a node that dies has lost its folder first")
    return item * item

mark, config = sys.argv[2], ClusterConfig(address=sys.argv[1], retries=1)
with connect.connect(config) as cluster:
    found = dict(tasks.run(work, range(60), cluster=cluster, config=config, chunk=8))
lost = [item for item, result in found.items() if isinstance(result, WorkerLost)]
print(json.dumps([sorted(lost), sum(result for item, result in found.items() if item not in lost)]))
"""


@needs_ray
def test_items_that_kill_their_worker_are_found_and_all_others_done(head, tmp_path):
    lost, total = json.loads(aside(ITEMS, head, tmp_path / "failed").splitlines()[-1])
    assert (tmp_path / "failed").exists()  # once, and the task was tried again
    assert lost == [7, 40]  # and no neighbour of them
    assert total == sum(n * n for n in range(60) if n not in lost)


GPUS = """
import json, os, sys, time
from soundsight.cluster import connect, tasks
from soundsight.config import ClusterConfig

def work(item):
    began = time.time()
    time.sleep(0.3)
    return began, time.time(), os.environ["CUDA_VISIBLE_DEVICES"]

config = ClusterConfig(address=sys.argv[1])
with connect.connect(config) as cluster:
    found = tasks.run(work, range(4), cluster=cluster, config=config, computes=True, long=True, chunk=1)
    print("found:", json.dumps(sorted(result for _, result in found)))
"""


@needs_minutes
def test_folds_and_trials_take_a_gpu_each_where_there_are_any(head):
    found = json.loads(re.search("found: (.*)", aside(GPUS, head))[1])
    assert [gpu for *_, gpu in found] == ["0"] * 4
    assert all(later[0] >= earlier[1] for earlier, later in zip(found, found[1:], strict=False))


class Assassin(threading.Thread):
    """Sends a signal to whatever worker reads a file, again and again: as the kernel does when memory is short."""

    def __init__(self, signals: dict[Path, int]) -> None:
        super().__init__(daemon=True)
        self.signals = {str(path): number for path, number in signals.items()}
        self.over, self.sent = threading.Event(), 0
        self.start()

    def run(self) -> None:
        while not self.over.wait(0.01):
            for entry in Path("/proc").glob("[0-9]*"):
                try:
                    if not (entry / "cmdline").read_bytes().startswith(b"ray::_work"):
                        continue
                    for link in (entry / "fd").iterdir():
                        number = self.signals.get(os.readlink(link))
                        if number:
                            os.kill(int(entry.name), number)
                            self.sent += 1
                except OSError:
                    continue


@needs_minutes
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for workers in /proc")
def test_recordings_that_kill_or_stop_their_worker_are_failures_and_all_others_answered(
    head, tiny_model, tiny_sounds, tmp_path
):
    files = sorted((tiny_sounds / "audio").glob("*.wav"))[:20]
    signals = {tmp_path / "kills.wav": signal.SIGKILL, tmp_path / "stops.wav": signal.SIGSTOP}
    for path in signals:
        soundfile.write(path, np.zeros(16000 * 900, np.float32), 16000)  # long enough to be seen open
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join(map(str, [*files[:7], *signals, *files[7:]])))
    words = ["predict", tiny_model, "--device", "cpu", "--hop", "0.05"]
    out = tmp_path / "ray.csv"
    settings = ["--cluster", "shard=8", "--cluster", "retries=1", "--cluster", "job_seconds=15"]
    assassin = Assassin(signals)
    try:
        done = run(*words, f"@{listed}", "--engine", "ray", "--address", head, *settings, "--out", out)
    finally:
        assassin.over.set()
    assert done.returncode == 1, done.stderr
    assert "22 recordings" in done.stderr and "3 shards (3 written now), 2 failed" in done.stderr
    failures = Path(f"{out}.shards", "failures.csv").read_text().splitlines()[1:]
    assert [line.partition(",")[0] for line in failures] == [str(path) for path in signals]
    assert "did not end within 15 s" in failures[1]  # a slow machine may stop the first before it is killed
    assert "was killed again and again" in failures[0] or "did not end within 15 s" in failures[0]
    local = tmp_path / "local.csv"
    assert run(*words, *files, "--out", local).returncode == 0
    assert filecmp.cmp(local, out, shallow=False)


# 2,000 clips, and what may happen meanwhile


@pytest.fixture(scope="module")
def crowd(tiny_model, tmp_path_factory) -> tuple[list[object], Path]:
    """Words of a command on 2,000 clips, and what the local engine writes."""
    folder = tmp_path_factory.mktemp("crowd")
    rng, names = np.random.default_rng(0), [folder / f"{number:04d}.wav" for number in range(2000)]
    for name in names:
        soundfile.write(name, (0.1 * rng.standard_normal(4000)).astype(np.float32), 16000)
    names[1000:1000] = [folder / "missing.wav"]
    (folder / "list.txt").write_text("\n".join(map(str, names)))
    words = ["predict", tiny_model, f"@{folder / 'list.txt'}", "--device", "cpu", "--shifts", "4"]
    local = folder / "local.csv"
    assert run(*words, "--out", local).returncode == 1
    return words, local


def at_work(shards: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Wait until a command has written so many shards, and is not at its end."""
    wait_until(lambda: len(list(shards.glob("part-*"))) >= count or process.poll() is not None, 600)
    assert process.poll() is None, process.communicate()


@needs_ray
def test_a_node_is_killed_at_work_and_2000_clips_have_the_same_bytes(head, crowd, tmp_path):
    words, local = crowd
    out, shards = tmp_path / "ray.csv", tmp_path / "ray.csv.shards"
    node = start_node(head, joins=True)
    try:
        process = start(*words, "--engine", "ray", "--address", head, "--cluster", "shard=40", "--out", out)
        at_work(shards / "shards", 8, process)
        kill_node(node)
        said = process.communicate(timeout=600)[1]
        assert process.returncode == 1 and "51 shards (51 written now), 1 failed" in said, said
        assert filecmp.cmp(local, out, shallow=False)
    finally:
        kill_node(node)


@needs_minutes
def test_a_driver_is_killed_then_the_head_is_lost_and_the_same_command_continues(crowd, tmp_path, monkeypatch):
    for name, value in {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": os.urandom(32).hex()}.items():
        monkeypatch.setenv(name, value)
    words, local = crowd
    address, out = f"127.0.0.1:{free_port()}", tmp_path / "ray.csv"
    command = [*words, "--engine", "ray", "--address", address, "--cluster", "shard=40", "--out", out]
    shards = tmp_path / "ray.csv.shards" / "shards"
    node = start_node(address)
    try:
        process = start(*command)
        at_work(shards, 3, process)
        process.terminate()
        assert process.communicate(timeout=300)[1].splitlines()[-1:] == ["soundsight: stopped."]
        assert process.returncode == 143
        process = start(*command)
        at_work(shards, 10, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        process = start(*command)
        at_work(shards, 17, process)
        kill_node(node)
        said = process.communicate(timeout=300)[1]
        assert process.returncode == 1, said
        assert int(re.search(r"(\d+) of 51 shards are there", said)[1]) >= 10, said
        assert f"The head of the cluster at {address} went away" in said.splitlines()[-1], said
        assert "Traceback" not in said and not out.exists()
        node = start_node(address)
        done = run(*command)
        kept = int(re.search(r"(\d+) of 51 shards are there", done.stderr)[1])
        assert 17 <= kept < 51 and f"({51 - kept} written now), 1 failed" in done.stderr, done.stderr
        assert filecmp.cmp(local, out, shallow=False)
    finally:
        kill_node(node)


@needs_minutes
def test_crossval_gives_the_same_predictions_with_a_fold_a_worker(head, tiny_sounds, tmp_path):
    for name, engine in (("a", ["--workers", "1"]), ("b", ["--engine", "ray", "--address", head])):
        words = [f"root={tiny_sounds}", f"cache={tmp_path / name}-cache", "clip_seconds=1.0", "image_size=64"]
        words += ["n_fft=2048", "model=yolov8n-cls.yaml", "epochs=1", "batch=16", "device=cpu", "--folds", "1,2"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = run("crossval", *words, "--name", name, *engine, cwd=tmp_path, env=environment)
        assert done.returncode == 0, done.stderr
    one, two = (tmp_path / "runs" / "crossval" / name for name in ("a", "b"))
    assert filecmp.cmp(one / "predictions.csv", two / "predictions.csv", shallow=False)


@needs_minutes
def test_tune_stops_bad_trials_and_continues_after_a_kill(head, tiny_data, tmp_path):
    words = ["tune", f"data={tiny_data}", "lr0=0.0001..0.01", "model=yolov8n-cls.yaml", "epochs=2", "batch=16"]
    words += ["imgsz=64", "device=cpu", "workers=0", "amp=False", "--trials", "2", "--grace", "1", "--name", "t"]
    words += ["--engine", "ray", "--address", head]
    process = start(*words, cwd=tmp_path)
    folder = tmp_path / "runs" / "tune" / "t"
    try:
        wait_until(lambda: any(folder.glob("trials/*/weights/last.pt")) or process.poll() is not None, 600)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        said = process.communicate(timeout=20)[1]
    before = {path.parent.name for path in folder.glob("trials/*/args.yaml")}
    assert before, said
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 0 and "is continued" in done.stderr, done.stderr
    assert "Best of 2 trials on data/val" in done.stdout
    rows = [line.split(",") for line in (folder / "trials.csv").read_text().splitlines()]
    assert rows[0] == ["lr0", "epochs", "top1", "failure"] and len(rows) == 3
    assert all(row[1] in ("1", "2") and not row[3] for row in rows[1:]), rows  # grace, or all
    best = json.loads((folder / "best.json").read_text())
    assert 0.0001 <= best["settings"]["lr0"] <= 0.01 and 0 <= best["top1"] <= 1
    assert before <= {path.parent.name for path in folder.glob("trials/*/args.yaml")}
    other = run(*words, "--seed", "7", cwd=tmp_path)
    assert other.returncode == 2 and "holds a tuning of other settings" in other.stderr


@needs_ray
def test_models_and_pipes_that_a_cluster_cannot_take(head, tiny_model, tiny_sounds, tmp_path):
    sound = sorted((tiny_sounds / "audio").glob("*.wav"))[0]
    common = ["--engine", "ray", "--address", head, "--out", tmp_path / "out"]
    done = run("predict", tmp_path / "no.pt", sound, *common)
    assert done.returncode == 2 and "no.pt" in done.stderr
    done = run("predict", tiny_model, "-", *common)
    assert done.returncode == 2 and "Standard input cannot be read by a cluster" in done.stderr


@needs_minutes
@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root")
def test_nodes_that_cannot_work_are_named_before_any_work(head, tiny_model, tiny_sounds, tmp_path):
    out, lacks, other = tmp_path / "out", tmp_path / "lacks", tmp_path / "other"
    out.mkdir()
    for folder, line in ((lacks, "raise ImportError('no package')\n"), (other, "__version__ = '0.0.1'\n")):
        shutil.copytree(Path(soundsight.__file__).parent, folder / "soundsight")
        with open(folder / "soundsight" / "__init__.py", "a") as first:
            first.write(line)
    mounts = ("unshare", "--mount", "sh", "-c", f'mount -t tmpfs none "{out}" && exec "$@"', "sh")  # of its own
    bad: list[subprocess.Popen[bytes]] = []
    try:
        for more in ({"path": lacks}, {"path": other}, {"before": mounts}):
            bad.append(start_node(head, joins=True, **more))
        sound = sorted((tiny_sounds / "audio").glob("*.wav"))[0]
        done = run("predict", tiny_model, sound, "--engine", "ray", "--address", head, "--out", out)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
        assert "cannot work (ImportError: no package); install soundsight " in done.stderr, done.stderr
        assert "has soundsight 0.0.1+" in done.stderr and f"cannot use {out} (" in done.stderr, done.stderr
        assert not list(out.glob("shards/*"))
    finally:
        for node in bad:
            kill_node(node)


# S3, by a real local server


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """An address in an S3 that runs here."""
    pytest.importorskip("moto", reason="moto of the extra soundsight[dev] is not installed")
    port, log = free_port(), tmp_path_factory.mktemp("s3") / "server.log"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with open(log, "w") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream)
    try:
        wait_until(lambda: connect.responds(f"127.0.0.1:{port}", 1) or process.poll() is not None, 120)
        assert process.poll() is None, log.read_text()
        with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/sounds", method="PUT")) as made:
            assert made.status == 200
        yield "s3://sounds", f"?endpoint_override=127.0.0.1:{port}&scheme=http"
    finally:
        process.terminate()
        process.wait(20)


FILL = """
import sys
from pathlib import Path
from soundsight.cluster.storage import Storage
place = Storage(sys.argv[1])
for path in map(Path, sys.argv[2:]):
    place.write(path.name, path)
"""
SHARD = """
import io, json, sys
from pyarrow import parquet
from soundsight.cluster.shards import shard_name
from soundsight.cluster.storage import Storage
place = Storage(sys.argv[1])
rows = parquet.read_table(io.BytesIO(place.read(shard_name(0)))).to_pylist()
print(json.dumps([json.loads(place.read("manifest.json"))["complete"], rows]))
"""


def aside(code: str, *words: object) -> str:
    """What a program prints that uses the storage as a user's own script would."""
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_ray
def test_recordings_and_answers_in_s3(head, bucket, tiny_model, tiny_onnx, tiny_sounds, tmp_path):
    base, query = bucket
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF")
    files = sorted((tiny_sounds / "audio").glob("*.wav"))[:12]
    aside(FILL, f"{base}/in{query}", broken, *files)
    options = ["--device", "cpu", "--engine", "ray", "--address", head, "--out"]
    words = ["predict", tiny_onnx, f"{base}/in{query}", "--top-k", "1", *options, f"{base}/out{query}"]
    done = run(*words)
    assert done.returncode == 1 and "failed: s3://sounds/in/broken.wav is no recording" in done.stderr, done.stderr
    whole, rows = json.loads(aside(SHARD, f"{base}/out{query}"))
    local = tmp_path / "local.csv"
    assert cli.main([*map(str, ["predict", tiny_onnx, *files, "--device", "cpu", "--top-k", "1", "--out", local])]) == 0
    expected = [line.split(",")[3:5] for line in local.read_text().splitlines()[1:]]
    assert whole and [[row["label"], f"{row['probability']:.6f}"] for row in rows] == expected
    again = run(*words)
    assert "(0 written now)" in again.stderr, again.stderr
    done = run("embed", tiny_model, f"{base}/in{query}", *options, f"{base}/vectors{query}")
    assert done.returncode == 1 and "12 rows" in done.stderr, done.stderr
    done = run(*words[:-1], f"s3://nowhere/out{query}")
    assert done.returncode == 2 and "cannot be" in done.stderr and "nowhere" in done.stderr


def test_steady_batches_do_not_depend_on_their_neighbours(tiny_model):
    from soundsight.inference import Options, load
    from soundsight.inference.segments import array_source

    predictor = load(tiny_model, device="cpu", threads=1)
    rng = np.random.default_rng(0)
    sounds = [(0.1 * rng.standard_normal(16000)).astype(np.float32) for _ in range(9)]
    options = replace(Options(), steady=True, batch=8)

    def heard(some) -> list[np.ndarray]:
        sources = [array_source(sound, 16000) for sound in some]
        return [window.probabilities for answer in predictor.results(sources, options) for window in answer.predictions]

    together = heard(sounds)
    assert all(np.array_equal(alone, heard([sound])[0]) for alone, sound in zip(together, sounds, strict=True))


def test_a_name_that_is_none_is_a_failure_not_a_crash(tiny_model, tmp_path, capsys):
    listed = tmp_path / "list.txt"
    soundfile.write(tmp_path / "a.wav", np.zeros(16000), 16000)
    listed.write_bytes(os.fsencode(tmp_path / "a.wav") + b"\n" + b"a" * 5000 + b"\nb\0c.wav\n")
    assert cli.main(["predict", str(tiny_model), "--sources", str(listed), "--device", "cpu"]) == 1
    captured = capsys.readouterr()
    assert "is no name of a file" in captured.err and "2 of 3 recordings" in captured.err
