"""What the commands share that can run on a cluster: `--engine ray` and what follows from it."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soundsight import config as settings
from soundsight import files
from soundsight.cli import console, outputs
from soundsight.config import ClusterConfig
from soundsight.config.files import find_config
from soundsight.errors import ConfigError, Renamed

if TYPE_CHECKING:
    from soundsight.cluster.connect import Cluster
    from soundsight.cluster.listing import Listing
    from soundsight.cluster.shards import Shards
    from soundsight.inference import Options
    from soundsight.parallel import Run

SINGLE_FILES = (".csv", ".jsonl", ".parquet")  # endings of --out that ask for one file


def cluster_settings(given: Any) -> ClusterConfig:
    """The engine that was asked for."""
    from soundsight.cli.options import yaml_value

    file, overrides = "cluster.yaml", {}
    for word in given.cluster:
        key, equals, value = word.partition("=")
        if equals:
            warnings.warn(f"--cluster {word} is now {word}.", Renamed, stacklevel=2)
            overrides[key] = yaml_value(value, key)
        else:
            file = word
    return settings.load(ClusterConfig, find_config(file), {**overrides, **given.of(ClusterConfig)})


def outlive(arguments: Any, config: ClusterConfig) -> int | None:
    """Run the command in a child process that may end with the cluster's head; its exit code.

    Returns:
        `None` in the child itself, which does the work.

    Raises:
        ConfigError: Ray is not installed, or the address is not understood.
    """
    from soundsight.cluster import connect, supervise

    if supervise.is_child():
        supervise.follow_parent()
        return None
    if importlib.util.find_spec("ray") is None:
        connect.load_ray()  # says what to install
    connect.find_address(config)
    return supervise.supervise(arguments.words, config, console.status)


@contextmanager
def joined(
    config: ClusterConfig, *, read: list[str] | None = None, write: list[str] | None = None
) -> Iterator[Cluster]:
    """A cluster whose nodes see what they must."""
    from soundsight.cluster.connect import Needs, connect

    cluster = connect(config, Needs(tuple(read or ()), tuple(write or ()), os.getcwd()))
    try:
        yield cluster
    finally:
        cluster.close()


def runner(cluster: Cluster, config: ClusterConfig, **more: Any) -> Run:
    """What gives out work to the cluster as `parallel.run` does to processes."""
    from functools import partial

    from soundsight.cluster import mapping

    return partial(mapping.run, cluster=cluster, config=config, say=console.status, **more)


def answer(
    arguments: Any,
    config: ClusterConfig,
    words: list[str],
    options: Options,
    gather: Callable[[Shards, Any], None],
    **more: Any,
) -> int:
    """`predict` and `embed` on a cluster; the exit code.

    Args:
        arguments: Of either command.
        config: The cluster.
        words: What names the recordings; `@FILE` is a list.
        options: How to listen.
        gather: Writes all shards into one file.
        more: Other fields of `Work`.
    """
    from soundsight.cluster.answers import Work
    from soundsight.cluster.listing import write_listing
    from soundsight.cluster.shards import Shards
    from soundsight.cluster.storage import Place, is_address
    from soundsight.inference.formats.base import load_pyarrow, writing
    from soundsight.inference.options import GPU_BATCH

    load_pyarrow()
    if "-" in words:
        raise ConfigError("Standard input cannot be read by a cluster; name files, folders or a list @FILE.")
    out, one_file = _places(arguments.out)
    made = outputs.VECTORS if arguments.words[0] == "embed" else outputs.predictions()
    inputs = [arguments.model, *(word.removeprefix("@") for word in words)]
    if one_file:  # before all work
        files.check_output(arguments.out, made, inputs=inputs, overwrite=arguments.overwrite)
    with tempfile.TemporaryDirectory(prefix="soundsight-") as folder:
        listed = write_listing(words, Path(folder, "sources.txt"))
        options = replace(options, steady=listed.count > 1)
        command = str(arguments.words[0])
        supplied = _supplied(arguments)
        more["runtime"] = arguments.runtime
        work = Work(command, arguments.model, out, "", options, **more)
        work = replace(work, device=arguments.device, trust=arguments.trust_checkpoint, threads=config.cpus)
        work = replace(work, spectrogram=supplied)
        what = {"command": command, "model": _model_mark(arguments.model), "options": asdict(options), **more}
        what |= {"spectrogram": settings.to_dict(supplied) if supplied else None, "version": _version()}
        store = Shards(
            Place(out), listed, config.shard or min(500, max(options.batch or GPU_BATCH, -(-listed.count // 64))), what
        )
        work = replace(work, fingerprint=store.fingerprint)
        totals = _work(store, work, config, listed, arguments.model)
        if one_file:
            claim = files.claimed([arguments.out], made, inputs=inputs, overwrite=arguments.overwrite)
            with claim, writing(Path(arguments.out)) as stream:
                gather(store, stream)
        failures = list(zip(range(10), store.failures(), strict=False))
    console.status(
        f"{totals['sources']} recordings, {totals['rows']} rows in {totals['shards']} shards ({totals['written']} "
        f"written now), {totals['failures']} failed: {arguments.out}"
    )
    for _, (_, reason) in failures:
        console.status(f"  failed: {reason}")
    if totals["failures"]:
        where = f"{out}/failures.csv" if not is_address(out) else Place(out).path("failures.csv")
        console.status(f"soundsight: {totals['failures']} of {listed.count} recordings could not be read; see {where}.")
    return 1 if totals["failures"] else 0


def _work(store: Shards, work: Any, config: ClusterConfig, listed: Listing, model: str) -> dict[str, Any]:
    """Have the cluster answer what is missing; the totals."""
    from soundsight.cluster import answers

    if len(store.done) == store.count:  # nothing is left to ask for
        return {**store.finish(), "written": 0, "lost_workers": 0}
    first = listed.first()
    read = [first] if _there(first) else []
    if Path(model).is_dir():
        read.append(str(model))
    with joined(config, read=read, write=[work.place]) as cluster, console.progress_bar("answering", "shards") as show:
        if Path(model).is_file():
            work = replace(work, content=cluster.ray.put(Path(model).read_bytes()))
        if store.done:
            console.status(f"{len(store.done)} of {store.count} shards are there from a former run.")
        return answers.answer(cluster, work, store, config, say=console.status, progress=show)


def _there(source: str) -> bool:
    from soundsight.cluster.storage import exists

    try:
        return exists(source)
    except (ConfigError, ValueError):
        return False


def _places(out: str | None) -> tuple[str, bool]:
    """The folder of the shards, and whether they are put into one file at the end."""
    from soundsight.cluster.storage import is_address

    if not out:
        raise ConfigError(
            "The engine ray needs --out: a folder or address for shards, or a file .csv, .jsonl, .parquet."
        )
    if is_address(out):
        return out, False
    if Path(out).suffix.lower() in SINGLE_FILES:
        return os.path.abspath(f"{out}.shards"), True
    if Path(out).is_file():
        raise ConfigError(f"{out} is a file; with the engine ray, --out is a folder or ends in .csv, .jsonl, .parquet.")
    return os.path.abspath(out), False


def _supplied(arguments: Any) -> settings.SpectrogramConfig | None:
    if not arguments.spectrogram:
        return None
    return settings.load(settings.SpectrogramConfig, find_config(arguments.spectrogram))


def _model_mark(model: str) -> str:
    """What tells one model from another: the SHA-256 of its files."""
    from soundsight.backend.checkpoint import require_file

    require_file(model)
    path = Path(model)
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _version() -> str:
    from soundsight import __version__

    return __version__
