"""The engine ray: lists, storage and shards without Ray; then a real cluster on this machine."""

from __future__ import annotations

import filecmp
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from soundsight import cli
from soundsight.cluster import connect, supervise
from soundsight.cluster.listing import write_listing
from soundsight.cluster.shards import Shards, commit, metadata, shard_name
from soundsight.cluster.storage import Place, is_address
from soundsight.config import ClusterConfig
from soundsight.errors import ConfigError

HAS_RAY = importlib.util.find_spec("ray") is not None
HAS_ARROW = importlib.util.find_spec("pyarrow") is not None
needs_ray = pytest.mark.skipif(not HAS_RAY or not HAS_ARROW, reason="the extra soundsight[ray] is not installed")
needs_arrow = pytest.mark.skipif(not HAS_ARROW, reason="pyarrow of the extra soundsight[ray] is not installed")


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
    parts = list(listed.parts(2))
    names = [name for part in parts for name in part.sources]
    assert names == ["sounds/a.wav", "sounds/b.flac", "sounds/line\nend.wav", "no\udcff.wav"]
    assert listed.count == 4 and [part.first for part in parts] == [0, 2]
    assert listed.first() == "sounds/a.wav"


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


def test_storage_writes_whole_files_and_says_what_it_cannot(tmp_path):
    place = Place(tmp_path / "out")
    assert place.sizes("shards") == {} and not place.has("a")
    place.write("shards/a", b"12")
    (tmp_path / "out" / "shards" / ".tmp-left").write_bytes(b"half")
    assert place.sizes("shards") == {"a": 2} and place.read("shards/a") == b"12"
    place.clean("shards")
    assert not (tmp_path / "out" / "shards" / ".tmp-left").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written .File exists"):
        Place(tmp_path / "file").write("b", b"")
    assert is_address("s3://bucket/a") and not is_address("C:/sounds") and not is_address("/a")


@needs_arrow
def test_shards_are_taken_over_only_if_they_are_whole_and_ours(tmp_path):
    import pyarrow
    from pyarrow import parquet

    listed = write_listing([f"{n}.wav" for n in range(5)], tmp_path / "list")
    place = Place(tmp_path / "out")

    def write(store: Shards, part, job: str) -> dict:
        table = pyarrow.table({"recording": list(part.sources)})
        said = metadata(job, part, table.num_rows, [("x", "y")])
        path = tmp_path / "draft"
        parquet.write_table(table.replace_schema_metadata(said), path)
        return commit(place, part, path.read_bytes(), rows=table.num_rows, failures=1)

    store = Shards(place, listed, 2, {"command": "predict"})
    parts = list(store.missing())
    assert [len(part.sources) for part in parts] == [2, 2, 1]
    entries = [write(store, part, store.fingerprint) for part in parts]
    with pytest.raises(ConfigError, match="vanished"):
        store.finish()

    torn = tmp_path / "out" / shard_name(1)
    torn.write_bytes(torn.read_bytes()[:-9])  # as after a crash on a disk that lost the end
    write(store, parts[2], "another job")
    again = Shards(place, listed, 2, {"command": "predict"})
    assert list(again.done) == [0] and again.done[0] == entries[0]
    assert [part.index for part in again.missing()] == [1, 2] and not torn.exists()
    for part in parts[1:]:
        again.add(write(again, part, again.fingerprint))
    assert again.finish() | {"job": ""} == {
        "format": 1, "job": "", "complete": True, "shards": 3, "sources": 5, "rows": 5, "failures": 3,
        "bytes": sum(entry["bytes"] for entry in entries),
    }  # fmt: skip
    assert (tmp_path / "out" / "failures.csv").read_text() == "source,reason\nx,y\nx,y\nx,y\n"

    with pytest.raises(ConfigError, match=r"another job \(it differs in: command\)"):
        Shards(place, listed, 2, {"command": "embed"})


# Addresses and settings


def test_addresses_that_cannot_be(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert connect.find_address(ClusterConfig()) is None
    for address, words in (("ray://h:10001", "client port"), ("host", "HOST:PORT"), ("h:99999", "HOST:PORT")):
        with pytest.raises(ConfigError, match=words):
            connect.find_address(ClusterConfig(address=address))
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(ConfigError, match=f"Nothing answers at {address} within 5 s: start a cluster there"):
        connect.connect(ClusterConfig(address=address), connect.Needs())


def test_what_nodes_lack_has_a_sentence():
    found = {"package": connect.package_mark(), "python": sys.version.split()[0], "reason": "", "unseen": {}}
    assert connect._sentence("n1", found) == ""
    assert "does not have the package" in connect._sentence("n1", {**found, "package": None})
    assert "has soundsight 0.0.1+ab" in connect._sentence("n1", {**found, "package": "0.0.1+ab"})
    assert "Python 3.1" in connect._sentence("n1", {**found, "python": "3.1"})
    assert "cannot use /data (gone)" in connect._sentence("n1", {**found, "unseen": {"/data": "gone"}})


def test_without_ray_a_command_says_what_to_install(tmp_path):
    code = "import sys; sys.modules['ray'] = None; import soundsight.cli as c; sys.exit(c.main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "predict", "m.pt", "a.wav", "--engine", "ray", "--out", "o"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and 'pip install "soundsight[ray]"' in done.stderr


def test_a_command_that_dies_with_its_head_is_started_again(tmp_path, monkeypatch):
    """The child here is a stand-in that dies once as Ray ends it; waiting and starting again are real."""
    count = tmp_path / "count"
    code = (
        "import os, sys; from pathlib import Path; from soundsight.cluster import supervise\n"
        f"p = Path({str(count)!r}); p.write_text((p.read_text() if p.exists() else '') + 'x')\n"
        "if len(p.read_text()) < 2: os._exit(75)\n"
        "supervise.finished(); sys.exit(1)"
    )
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nif sys.argv[0] == '-m': exec({code!r})")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    lines: list[str] = []
    assert supervise.supervise(["predict"], ClusterConfig(), lines.append) == 1
    assert count.read_text() == "xx" and "went away" in lines[0] and "going on" in lines[1]


# A cluster: one node with two workers


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """The address of a cluster of one node; its processes end with the tests."""
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
        nodes = [start_node(address)]
        try:
            wait_until(lambda: connect.answers(address, 0.2), 60)
            yield address
        finally:
            for node in reversed(nodes):
                stop_node(node)


def start_node(address: str) -> subprocess.Popen[bytes]:
    where = ["--head", f"--port={address.rpartition(':')[2]}"]
    code = "import sys; from ray.scripts.scripts import main; sys.argv[0] = 'ray'; main()"
    temp = f"/tmp/ss{os.getpid() % 100000}h{time.monotonic_ns() % 10000}"
    command = [sys.executable, "-P", "-c", code, "start", *where, "--node-ip-address=127.0.0.1", "--num-cpus=2"]
    command += ["--object-store-memory=80000000", "--include-dashboard=false", "--disable-usage-stats", "--block"]
    environment = {**os.environ, "PYTHONPATH": str(Path(connect.__file__).parents[2])}
    node = subprocess.Popen(
        [*command, f"--temp-dir={temp}"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    node.temp = temp  # type: ignore[attr-defined]
    return node


def stop_node(node: subprocess.Popen[bytes]) -> None:
    node.send_signal(signal.SIGTERM)
    try:
        node.wait(20)
    except subprocess.TimeoutExpired:
        node.kill()
    shutil.rmtree(node.temp, ignore_errors=True)  # type: ignore[attr-defined]


def wait_until(true, seconds: float) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.1)


def run(*words: object) -> subprocess.CompletedProcess[str]:
    """A command as a user gives it."""
    command = [sys.executable, "-m", "soundsight", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


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
    ears = ["clip_seconds=1.0", "image_size=64", "n_fft=2048", f"root={tiny_sounds}"]
    for name, engine in (("a", ["--workers", "1"]), ("b", ["--engine", "ray", "--address", head])):
        done = run("prepare", *ears, f"data={tmp_path / name}", f"cache={tmp_path / name}-cache", *engine)
        assert done.returncode == 0 and "80 pictures drawn" in done.stdout, done.stderr
    assert same_tree(tmp_path / "a", tmp_path / "b")
    assert filecmp.cmp(tmp_path / "a" / "manifest.csv", tmp_path / "b" / "manifest.csv", shallow=False)


@needs_ray
def test_items_that_kill_their_worker_are_found_and_all_others_done(head, tmp_path):
    from soundsight.cluster import mapping
    from soundsight.parallel import WorkerLost

    def work(item: int) -> int:
        if item in (7, 40):
            os.kill(os.getpid(), signal.SIGKILL)
        return item * item

    said: list[str] = []
    config = ClusterConfig(address=head, retries=0)
    cluster = connect.connect(config, connect.Needs())
    try:
        run_here = mapping.run(work, list(range(60)), cluster=cluster, config=config, say=said.append, chunk=8)
        found = dict(run_here)
    finally:
        cluster.close()
    lost = {item for item, result in found.items() if isinstance(result, WorkerLost)}
    assert lost == {7, 40} and all(found[n] == n * n for n in set(range(60)) - lost)


@needs_ray
def test_models_and_pipes_that_a_cluster_cannot_take(head, tiny_model, tiny_sounds, tmp_path):
    sound = sorted((tiny_sounds / "audio").glob("*.wav"))[0]
    common = ["--engine", "ray", "--address", head, "--out", tmp_path / "out"]
    done = run("predict", tmp_path / "no.pt", sound, *common)
    assert done.returncode == 2 and "no.pt" in done.stderr
    done = run("predict", tiny_model, "-", *common)
    assert done.returncode == 2 and "Standard input cannot be read by a cluster" in done.stderr


# S3, by a real local server


@pytest.fixture(scope="module")
def bucket():
    """An address in an S3 that runs here."""
    server = shutil.which("moto_server") or shutil.which("moto_server", path=str(Path(sys.executable).parent))
    if server is None:
        pytest.skip("moto_server is not installed; it comes with the extra soundsight[dev]")
    port = free_port()
    process = subprocess.Popen(
        [server, "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: connect.answers(f"127.0.0.1:{port}", 0.2), 60)
        query = f"?endpoint_override=127.0.0.1:{port}&scheme=http&allow_bucket_creation=true"
        yield "s3://sounds", query
    finally:
        process.terminate()
        process.wait(20)


@needs_ray
def test_recordings_and_answers_in_s3(head, bucket, tiny_model, tiny_sounds, tmp_path):
    from pyarrow import fs, parquet

    base, query = bucket
    system, _ = fs.FileSystem.from_uri(f"{base}{query}")
    system.create_dir("sounds")
    files = sorted((tiny_sounds / "audio").glob("*.wav"))[:12]
    for file in files:
        Place(f"{base}/in{query}").write(file.name, file.read_bytes())
    Place(f"{base}/in{query}").write("broken.wav", b"RIFF")
    local = tmp_path / "local.csv"
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF")
    options = ["--device", "cpu", "--top-k", "1"]
    cli.main([*map(str, ["predict", tiny_model, broken, *files, *options, "--out", local])])

    out = f"{base}/out{query}"
    words = ["predict", tiny_model, f"{base}/in{query}", *options, "--engine", "ray", "--address", head, "--out", out]
    done = run(*words)
    assert done.returncode == 1 and "s3://sounds/in/broken.wav" in done.stderr, done.stderr
    assert "127.0.0.1" not in done.stderr.partition("failed: s3")[2].partition("\n")[0]
    with Place(out).open(shard_name(0)) as stream:
        rows = parquet.read_table(stream).to_pylist()
    expected = [line.split(",")[3:5] for line in local.read_text().splitlines()[1:]]
    assert [[row["label"], f"{row['probability']:.6f}"] for row in rows] == expected
    assert json.loads(Place(out).read("manifest.json"))["complete"]
    again = run(*words)
    assert "(0 written now)" in again.stderr, again.stderr
    done = run(*words[:-1], f"s3://nowhere/out{query.replace('true', 'false')}")
    assert done.returncode == 2 and "cannot be" in done.stderr and "nowhere" in done.stderr


def test_steady_batches_do_not_depend_on_their_neighbours(tiny_model):
    from soundsight.predict import Options, load
    from soundsight.predict.windows import array_source

    listener = load(tiny_model, device="cpu", threads=1)
    rng = np.random.default_rng(0)
    sounds = [(0.1 * rng.standard_normal(16000)).astype(np.float32) for _ in range(9)]
    options = replace(Options(), steady=True, batch=8)

    def heard(some) -> list[np.ndarray]:
        sources = [array_source(sound, 16000) for sound in some]
        return [window.probabilities for answer in listener.answers(sources, options) for window in answer.windows]

    together = heard(sounds)
    assert all(np.array_equal(alone, heard([sound])[0]) for alone, sound in zip(together, sounds, strict=True))


def test_a_name_that_is_none_is_a_failure_not_a_crash(tiny_model, tmp_path, capsys):
    listed = tmp_path / "list.txt"
    soundfile.write(tmp_path / "a.wav", np.zeros(16000), 16000)
    listed.write_bytes(os.fsencode(tmp_path / "a.wav") + b"\n" + b"a" * 5000 + b"\nb\0c.wav\n")
    assert cli.main(["predict", str(tiny_model), "--sources", str(listed), "--device", "cpu"]) == 1
    captured = capsys.readouterr()
    assert "is no name of a file" in captured.err and "2 of 3 recordings" in captured.err
