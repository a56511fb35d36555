"""What several commands share: arguments, progress bars and output on a terminal."""

from __future__ import annotations

import argparse
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from soundsight import config as settings
from soundsight.cli import key_values
from soundsight.config import DatasetConfig, SpectrogramConfig, SplitConfig, unknown_key
from soundsight.config.files import find_config, is_shipped
from soundsight.errors import ConfigError, DatasetError
from soundsight.files import printable

MARKS = {"bad": "!", "look": "-", "good": "+"}  # of findings

FIGURES = (".png", ".pdf", ".svg")  # endings of figures


def add_settings(parser: argparse.ArgumentParser, example: str) -> None:
    """Accept `key=value` words."""
    parser.add_argument("settings", nargs="*", metavar="key=value", help=f"settings, such as {example}")


def add_data_files(parser: argparse.ArgumentParser) -> None:
    """Accept the files that describe the data set and the spectrograms."""
    parser.add_argument("--dataset", metavar="FILE", default="esc50", help="default: configs/esc50.yaml")
    parser.add_argument(
        "--spectrogram", metavar="FILE", default="spectrogram", help="default: configs/spectrogram.yaml"
    )


def add_training_files(parser: argparse.ArgumentParser) -> None:
    """Accept the files that describe a training."""
    parser.add_argument("--config", metavar="FILE", help="default: configs/train.yaml")
    parser.add_argument(
        "--augment", metavar="FILE", default="augment.yaml", help="default: configs/augment.yaml; or none"
    )


def check_arguments(words: Mapping[str, Any], function: Callable[..., Any], arguments: argparse.Namespace) -> None:
    """Raise `ConfigError` for a `key=value` word that is a parameter of a Python function and no setting."""
    for key in words.keys() & inspect.signature(function).parameters.keys():
        option = {"only": "folds", "others": "with", "calibrate": "no-calibrate"}.get(key, key)
        flag = option == "no-calibrate" or isinstance(getattr(arguments, key, None), bool)
        known = option != key or hasattr(arguments, key)
        hint = f"write --{option}{'' if flag else f' {words[key]}'}" if known else "leave it out"
        raise ConfigError(f"{key}={words[key]} is no training argument of {arguments.words[0]}; {hint}.")


def add_tta(parser: argparse.ArgumentParser) -> None:
    """Accept over what predictions are averaged."""
    parser.add_argument(
        "--shifts", type=int, default=1, metavar="N", help="average over N time shifts: slower, surer (default: 1)"
    )
    parser.add_argument(
        "--speeds",
        type=_speeds,
        default=(),
        metavar="S,S",
        help="average over these speeds of the sound as well, such as 0.9,1.1 (default: none)",
    )


def _speeds(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers such as 0.9,1.1") from None


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Accept how a model is loaded."""
    parser.add_argument("--device", help="cpu, 0, 1, ...; default: the first GPU, or else the CPU")
    parser.add_argument("--spectrogram", metavar="FILE", help="spectrogram settings to use instead of the model's own")
    parser.add_argument(
        "--trust-checkpoint", action="store_true", help="unpickle whatever the file holds; it may run code"
    )


def data_settings(
    words: Sequence[str], dataset: str, spectrogram: str
) -> tuple[DatasetConfig, SpectrogramConfig, dict[str, Any]]:
    """Data set and spectrogram settings from their files and the words of a command.

    Args:
        words: A folder of sounds, if any, and `key=value` words of either; keys that belong to neither are returned.
        dataset: A settings file, its bare name, or a folder of sounds that has not the name of settings.
        spectrogram: A settings file or its bare name.

    Raises:
        SoundsightError: A folder does not exist, there are several, or a setting is not allowed.
    """
    named = [word for word in words if "=" not in word]
    if len(named) > 1:
        raise ConfigError(f"One folder of sounds is allowed, but there are {len(named)}: {', '.join(named)}.")
    for folder in named:
        check_exists(folder, "folder of sounds")
        if Path(folder).is_file():
            raise ConfigError(
                f"{folder} is a file, not a folder of sounds; a table of labels is named by table=FILE beside its "
                f"folder, a settings file by --dataset {folder}."
            )
    overrides = key_values([word for word in words if "=" in word])
    theirs = {field.name for field in fields(DatasetConfig)}
    ours = {field.name for field in fields(SpectrogramConfig)}
    for_data = {k: v for k, v in overrides.items() if k.split(".")[0] in theirs}
    for_images = {k: v for k, v in overrides.items() if k in ours}
    rest = {k: v for k, v in overrides.items() if k not in for_data and k not in for_images}
    if not named and Path(dataset).is_dir() and not is_shipped(dataset):
        named = [dataset]
    if named:
        config = own_folder(Path(named[0]), for_data)
    else:
        config = settings.load(DatasetConfig, find_config(dataset), for_data)
    return config, settings.load(SpectrogramConfig, find_config(spectrogram), for_images), rest


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


def refuse_unknown(rest: Mapping[str, Any]) -> None:
    """Raise `ConfigError` for a `key=value` word that nothing asked for."""
    known = [f.name for f in (*fields(DatasetConfig), *fields(SpectrogramConfig))]
    known += [f"split.{f.name}" for f in fields(SplitConfig)]
    for key in rest:
        raise ConfigError(unknown_key(key, known, "the words on the command line"))


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


def list_failures(failures: list[tuple[str, str]], where: Path, limit: int = 10) -> int:
    """Name inputs that failed; the exit code."""
    if not failures:
        return 0
    for file, reason in failures[:limit]:
        status(f"  failed: {reason if file in reason else f'{file}: {reason}'}")
    more = f" (the first {limit} are above)" if len(failures) > limit else ""
    status(f"soundsight: {len(failures)} clips failed{more}; all are listed in {where}.")
    return 1


def check_ending(path: str | None, *allowed: str, instead: str = "rename the file") -> None:
    """Raise `ConfigError`, before any work, for a file to be written whose ending means another format."""
    if path and Path(path).suffix.lower() not in allowed:
        endings = ", ".join(ending or "nothing" for ending in allowed)
        raise ConfigError(f"{path} cannot be written: its name must end in {endings}; {instead}.")


def check_exists(path: str, what: str) -> None:
    """Raise `DatasetError` unless a file or folder that the user named is there."""
    if not Path(path).exists():
        raise DatasetError(f"The {what} {path} does not exist.")
