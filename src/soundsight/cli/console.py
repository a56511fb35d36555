"""What several commands share: arguments, progress bars and output on a terminal."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from soundsight import config as settings
from soundsight.cli.options import Given
from soundsight.config import DatasetConfig, SpectrogramConfig
from soundsight.config.commands import DataOptions
from soundsight.config.files import find_config, is_shipped
from soundsight.errors import ConfigError, DatasetError
from soundsight.files import printable

T = TypeVar("T")
MARKS = {"bad": "!", "look": "-", "good": "+"}  # of findings

FIGURES = (".png", ".pdf", ".svg")  # endings of figures


def call(function: Callable[..., T], options: Any, *values: Any, **more: Any) -> T:
    """Call a function of the Python interface; options of the same names as its keyword arguments are passed on."""
    parameters = list(inspect.signature(function).parameters)[len(values) :]
    return function(*values, **{key: value for key, value in vars(options).items() if key in parameters} | more)


def check_arguments(given: Given, function: Callable[..., Any]) -> None:
    """Raise `ConfigError` for a key that is a parameter of a Python function, or was, and no setting."""
    for key in given.rest.keys() & {*inspect.signature(function).parameters, *getattr(function, "former", ())}:
        raise ConfigError(f"{key}={given.rest[key]} is no training argument of {given.words[0]}; leave it out.")


def data_settings(options: DataOptions, given: Given) -> tuple[DatasetConfig, SpectrogramConfig]:
    """Data set and spectrogram settings from their files and what was typed."""
    folder, dataset, typed = options.folder, options.dataset, given.of(DatasetConfig)
    if folder is not None:
        check_exists(folder, "folder of sounds")
        if Path(folder).is_file():
            raise ConfigError(
                f"{folder} is a file, not a folder of sounds; a table of labels is named by table=FILE beside its "
                f"folder, a settings file by --dataset {folder}."
            )
        if "dataset" in given.of(type(options)):
            raise ConfigError(f"The folder {folder} and --dataset {dataset} both name the sounds; leave one out.")
    elif Path(dataset).is_dir() and not is_shipped(dataset):
        folder = dataset
    spectrogram = settings.load(SpectrogramConfig, find_config(options.spectrogram), given.of(SpectrogramConfig))
    if folder is not None:
        return own_folder(Path(folder), typed), spectrogram
    return settings.load(DatasetConfig, find_config(dataset), typed), spectrogram


def own_folder(root: Path, overrides: Mapping[str, Any]) -> DatasetConfig:
    """Settings for a folder of sounds: a published data set, a table (`table=`), or a folder for each class."""
    from soundsight.datasets.folder import class_folders
    from soundsight.datasets.published import datasets

    kind = next((kind for kind, record in datasets().items() if os.path.isfile(root / record.table)), "")
    if kind and not {"kind", "table"} & set(overrides):
        return settings.load(DatasetConfig, find_config(kind), {"root": str(root), **overrides})
    kind = "table" if "table" in overrides else "folder"
    given = kind == "folder" and root.is_dir() and any(split for _, split in class_folders(root)[0])
    cache = root.resolve().parent / f"{root.resolve().name}-spectrogram"
    defaults = {"kind": kind, "root": str(root), "cache": str(cache)}
    defaults["split.strategy"] = "fold" if overrides.get("fold_column") else "given" if given else "group"
    return settings.load(DatasetConfig, None, {**defaults, **overrides})


@contextmanager
def progress_bar(what: str, unit: str, *, quiet: bool = False) -> Iterator[Callable[[int, float | None], None]]:
    """A progress bar with rate and time left on a terminal; nothing elsewhere, or if it is to be quiet."""
    from tqdm import tqdm

    with tqdm(desc=what, unit=f" {unit}", disable=quiet or not sys.stderr.isatty(), leave=False) as bar:

        def show(done: int, total: float | None) -> None:
            bar.total = total and max(total, done)  # headers may lie
            bar.update(done - bar.n)

        yield show


def output(text: str) -> None:
    """A line of results, on standard output."""
    print(printable(text), flush=True)


def status(text: str) -> None:
    """A line for the user, apart from results on standard output."""
    print(printable(text), file=sys.stderr, flush=True)


def list_failures(failures: Sequence[tuple[str, str]], what: str, then: str, limit: int | None = 10) -> int:
    """Name inputs that failed, say that so many did `what`, and what to do `then`; the exit code."""
    for file, reason in failures[:limit]:
        status(f"  failed: {reason if file in reason else f'{file}: {reason}'}")
    more = f" (the first {limit} are above)" if limit and len(failures) > limit else ""
    if failures:
        status(f"soundsight: {len(failures)} {what}{more}; {then}.")
    return 1 if failures else 0


def own_spectrogram(options: Any) -> SpectrogramConfig | None:
    """The preprocessing settings that the user names instead of the model's own."""
    named = options.spectrogram
    return settings.load(SpectrogramConfig, find_config(named)) if named else None


def check_ending(path: str | None, *allowed: str, instead: str = "rename the file") -> None:
    """Raise `ConfigError`, before any work, for a file to be written whose ending means another format."""
    if path and Path(path).suffix.lower() not in allowed:
        endings = ", ".join(ending or "nothing" for ending in allowed)
        raise ConfigError(f"{path} cannot be written: its name must end in {endings}; {instead}.")


def check_exists(path: str, what: str) -> None:
    """Raise `DatasetError` unless a file or folder that the user named is there."""
    if not Path(path).exists():
        raise DatasetError(f"The {what} {path} does not exist.")
