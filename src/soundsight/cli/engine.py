"""What the commands share that can run on a cluster: `--engine ray` and what follows from it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soundsight import __version__, files
from soundsight import config as settings
from soundsight.cli import console, outputs
from soundsight.config import ClusterConfig
from soundsight.config.files import find_config
from soundsight.errors import ConfigError, Renamed

if TYPE_CHECKING:
    from soundsight.cluster.connect import Cluster
    from soundsight.cluster.listing import Listing
    from soundsight.cluster.predictions import Worker
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
    config = settings.load(ClusterConfig, find_config(file), {**overrides, **given.of(ClusterConfig)})
    if config.in_flight is not None:
        text = f"in_flight={config.in_flight} has no effect any more: Ray gives out the tasks. Leave it out."
        warnings.warn(text, Renamed, stacklevel=2)
    return config


def joined(config: ClusterConfig, *, read: list[str], write: list[str]) -> AbstractContextManager[Cluster]:
    """A cluster whose nodes see what they must."""
    from soundsight.cluster.connect import connect

    return connect(config, read=read, write=write)


def runner(cluster: Cluster, config: ClusterConfig, **more: Any) -> Run:
    """What gives out work to the cluster as `parallel.run` does to processes."""
    from soundsight.cluster import tasks

    return partial(tasks.run, cluster=cluster, config=config, **more)


def predict(
    arguments: Any,
    config: ClusterConfig,
    words: list[str],
    options: Options,
    gather: Callable[[Shards, Any], None],
    **more: Any,
) -> int:
    """`predict` and `embed` on a cluster; the exit code. `gather` writes all shards into one file."""
    from soundsight.backend.checkpoint import require_file
    from soundsight.cli.predict import load_arguments
    from soundsight.cluster.connect import load_ray
    from soundsight.cluster.listing import write_listing
    from soundsight.cluster.predictions import Worker
    from soundsight.cluster.shards import Shards
    from soundsight.cluster.storage import Storage
    from soundsight.inference.formats.base import load_pyarrow, writing
    from soundsight.inference.options import GPU_BATCH

    load_ray(config)
    load_pyarrow()
    if "-" in words:
        raise ConfigError("Standard input cannot be read by a cluster; name files, folders or a list @FILE.")
    out, one_file = _destination(arguments.out)
    command, model = arguments.words[0], Path(arguments.model)
    how = load_arguments(arguments) | {"threads": config.cpus}
    made = outputs.VECTORS if command == "embed" else outputs.predictions()
    inputs = [arguments.model, *(word.removeprefix("@") for word in words)]
    rule: dict[str, Any] = {"inputs": inputs, "overwrite": arguments.overwrite}
    if one_file:  # before all work
        files.check_output(arguments.out, made, **rule)
    require_file(model)
    parts = sorted(path for path in model.rglob("*") if path.is_file()) if model.is_dir() else [model]
    spectrogram = settings.to_dict(how["spectrogram"]) if how["spectrogram"] else None
    with files.scratch() as folder:
        listed = write_listing(words, folder / "sources.txt")
        options = replace(options, steady=listed.count > 1)
        what = {"command": command, "model": [*map(files.sha256, parts)], "options": asdict(options), **more}
        what |= {"spectrogram": spectrogram, "runtime": how["runtime"], "version": __version__}
        size = config.shard or min(500, max(options.batch or GPU_BATCH, -(-listed.count // 64)))
        store = Shards(Storage(out), listed, size, what)
        former = len(store.done)
        if former < store.count:
            content = model.read_bytes() if model.is_file() else None
            _run(store, Worker(command, str(model), content, how, options, out, store.job, **more), config, listed)
        totals = store.finish()
        if one_file:
            with files.claimed([arguments.out], made, **rule), writing(Path(arguments.out)) as stream:
                gather(store, stream)
        return _report(store, totals, store.count - former, arguments.out)


def _report(store: Shards, totals: dict[str, Any], written: int, out: str) -> int:
    """Print what was done and what failed; the exit code."""
    from soundsight.cluster.shards import FAILURES

    console.status(
        f"{totals['sources']} recordings, {totals['rows']} rows in {totals['shards']} shards ({written} written now), "
        f"{totals['failures']} failed: {out}"
    )
    for _, reason in islice(store.failures(), 10):  # of a million
        console.status(f"  failed: {reason}")
    if totals["failures"]:
        console.status(
            f"soundsight: {totals['failures']} of {totals['sources']} recordings could not be read; see "
            f"{store.storage.path(FAILURES)}."
        )
    return 1 if totals["failures"] else 0


def _run(store: Shards, worker: Worker, config: ClusterConfig, listed: Listing) -> None:
    """Have the cluster make what is missing."""
    from soundsight.cluster import predictions
    from soundsight.cluster.storage import exists

    read = [worker.model] if worker.content is None else []
    with suppress(ConfigError, ValueError):  # a first recording that is not there is a failure like others
        first = next(listed.chunks(1))[0]
        read += [first] if exists(first) else []
    with joined(config, read=read, write=[worker.out]) as cluster, console.progress_bar("predicting", "shards") as show:
        if store.done:
            console.status(f"{len(store.done)} of {store.count} shards are there from a former run.")
        predictions.predict(cluster, worker, store, config, progress=show)


def _destination(out: str | None) -> tuple[str, bool]:
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
