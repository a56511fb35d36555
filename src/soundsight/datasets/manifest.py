"""The manifest: one row per clip, written last, so that what it lists is whole.

`data/manifest.csv` lists the clips, `data/settings.json` the settings they were rendered with, and
`data/failures.csv` the clips that could not be rendered, each with its reason.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soundsight import checks
from soundsight.config import BACKGROUND, DatasetConfig, SpectrogramConfig, from_dict
from soundsight.datasets.split import SPLITS
from soundsight.errors import ConfigError, DatasetError
from soundsight.files import csv_text, read_json, write_text

if TYPE_CHECKING:
    from soundsight.audio import AudioInfo
    from soundsight.datasets.catalogue import Clip

MANIFEST, SETTINGS, FAILURES = "manifest.csv", "settings.json", "failures.csv"


@dataclass(frozen=True)
class Row:
    """One rendered clip."""

    file: str  # recording, relative to the data set's root
    sha256: str  # of the recording
    size: int  # bytes
    mtime_ns: int  # when the recording changed last
    sample_rate: int  # Hz, of the recording
    channels: int
    duration_seconds: float  # of the recording
    start_seconds: float  # of the clip
    end_seconds: str  # of the clip; empty: one clip length
    label: str  # multi-label data: all of them, joined by ";"; empty: background
    fold: str  # empty: none
    source: str  # source recording
    split: str  # train, val, test, or empty for clips in the cache only
    image: str  # relative to the cache folder
    speed: float = 1.0  # not 1: a version for training

    def labels(self, *, multi: bool) -> tuple[str, ...]:
        """Its classes; none for background in multi-label data."""
        return tuple(self.label.split(";")) if multi and self.label else (self.label,) * (not multi)

    @property
    def key(self) -> tuple[object, ...]:
        """What was rendered, and from which state of the recording."""
        return (
            self.size, self.mtime_ns, self.file, self.label, self.start_seconds, self.end_seconds, self.speed,
        )  # fmt: skip

    def shown_until(self, clip_seconds: float) -> float:
        """Where in the recording ends what an image of `clip_seconds` shows, in seconds."""
        last = float(self.end_seconds) if self.end_seconds else self.duration_seconds
        return round(min(last, self.start_seconds + clip_seconds), 6)


def row_of(clip: Clip, info: AudioInfo | None, digest: str, found: os.stat_result, target: Path) -> Row:
    """The row of a clip's image `target`; without the `info` on its recording, only its `key` is of interest."""
    return Row(
        file=clip.file,
        sha256=digest,
        size=found.st_size,
        mtime_ns=found.st_mtime_ns,
        sample_rate=info.sample_rate if info else 0,
        channels=info.channels if info else 0,
        duration_seconds=round(info.duration_seconds, 6) if info else 0,
        start_seconds=clip.start_seconds,
        end_seconds="" if clip.end_seconds is None else str(clip.end_seconds),
        label=";".join(clip.labels),
        fold="" if clip.fold is None else str(clip.fold),
        source=clip.source,
        split="",
        image=f"{target.parent.name}/{target.name}",
        speed=clip.speed,
    )


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write a manifest atomically."""
    names = [field.name for field in fields(Row)]
    write_text(path, csv_text([names, *map(attrgetter(*names), rows)]))


def write_failures(path: Path, failures: Iterable[tuple[str, str]]) -> None:
    """Write the list of clips that failed; without any, remove a former list."""
    failures = list(failures)
    if failures:
        write_text(path, csv_text([("file", "reason"), *failures]))
    else:
        path.unlink(missing_ok=True)


def read_failures(path: Path) -> list[tuple[str, str]]:
    """The (file, reason) pairs of `write_failures`; none if there is no list."""
    if not path.is_file():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        return [(row["file"], row["reason"]) for row in csv.DictReader(file)]


def read_rows(path: Path) -> list[Row]:
    """Read a manifest; a missing or damaged one is empty.

    What is not listed is rendered again, so nothing is lost by that.
    """
    types = {"int": int, "float": float, "str": str}
    read: dict[str, Callable[[str], Any]] = {field.name: types[str(field.type)] for field in fields(Row)}
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return [Row(**{k: read[k](v) for k, v in row.items()}) for row in csv.DictReader(file)]
    except (OSError, ValueError, TypeError, KeyError, csv.Error):
        return []


def write_settings(path: Path, settings: dict[str, Any]) -> None:
    """Write resolved settings as JSON, atomically."""
    write_text(path, json.dumps(settings, indent=2, sort_keys=True) + "\n")


def read_settings(data: str | Path) -> dict[str, Any]:
    """The settings that the images in a `data` folder were prepared with."""
    folder = Path(data)
    if not folder.is_dir():
        raise DatasetError(f"The folder {data} does not exist; run `soundsight prepare`, or set data=FOLDER.")
    try:
        settings = dict(read_json(folder / SETTINGS))
    except (OSError, ValueError, TypeError) as error:
        raise DatasetError(
            f"{folder / SETTINGS} is missing or damaged, so {data} was not prepared to its end; "
            "run `soundsight prepare` again."
        ) from error
    return settings


def settings_of(data: str | Path) -> dict[str, Any]:
    """The same, or nothing for a folder that Soundsight did not prepare to its end."""
    return read_settings(data) if (Path(data) / SETTINGS).is_file() else {}


def is_multi(data: str | Path) -> bool:
    """Whether clips of a prepared `data` folder may have several classes, or none."""
    return settings_of(data).get("label_mode") == "multi"


def read_spectrogram(data: str | Path) -> SpectrogramConfig:
    """The spectrogram settings of the images in a prepared `data` folder."""
    settings = read_settings(data)
    try:
        config = from_dict(SpectrogramConfig, settings["spectrogram"])
    except (KeyError, AttributeError, ConfigError) as error:
        raise DatasetError(f"{data}/{SETTINGS} holds no usable spectrogram settings; prepare it again.") from error
    checks.check_renderer(config, settings.get("format", 1), data, DatasetError)
    return config


def data_hash(rows: Iterable[Row]) -> str:
    """Twelve hexadecimal digits of recordings, labels, folds and splits; independent of paths, dates and versions."""
    digest = hashlib.sha256()
    for line in sorted(
        f"{r.sha256} {r.start_seconds} {r.end_seconds} {r.label} {r.fold} {r.source} {r.split}"
        for r in rows
        if r.speed == 1
    ):
        digest.update(line.encode())
    return digest.hexdigest()[:12]


def counts(rows: Iterable[Row], *, multi: bool = False) -> dict[str, dict[str, int]]:
    """Clips by class, or background, and split; versions at other speeds and clips in no split do not count."""
    result: dict[str, dict[str, int]] = {}
    for row in rows:
        for label in row.labels(multi=multi) or (BACKGROUND,):
            numbers = result.setdefault(label, dict.fromkeys(SPLITS, 0))
            if row.split and row.speed == 1:
                numbers[row.split] += 1
    return result


def problem(rows: Iterable[Row], strategy: str = "", *, val: bool = True, multi: bool = False) -> str:
    """Why no classifier can be trained on these clips, and what to do; empty where one can.

    A training without `val` needs no clips there; in multi-label data one class is enough beside background.
    """
    used = [row for row in rows if row.split]
    kinds, groups = {row.labels(multi=multi) for row in used}, {row.source for row in used}
    if kinds == {()}:
        return "no clip has a class; add recordings that hold a sound of some class"
    if len(kinds) == 1:
        labels = kinds.pop()
        found = "there is only one class" if len(labels) == 1 else "all clips have the same classes"
        return f"{found}, {' and '.join(map(repr, labels))}; add recordings of another, such as background sounds"
    empty = [split for split in ("train", "val")[: 1 + val] if not any(row.split == split for row in used)]
    if not empty:
        return ""
    found = f"there are no clips in {' and '.join(empty)}"
    if strategy == "given":
        return f"{found}; add a folder {empty[0]} (or rows of that split), or use split.strategy=group"
    if strategy == "fold":
        return f"{found}; name folds that have clips with split.train, split.val and split.test"
    number = "one group" if len(groups) == 1 else f"{len(groups)} groups"
    return (
        f"{found}: the {len(used)} clips belong to {number} (recordings, or what group_pattern and group_column "
        "name), and a group stays in one split. Add recordings, name smaller groups, or change split.fractions; to "
        "try things out, cut=rows split.strategy=random divides labelled recordings, but its scores flatter"
    )


def check_same(data: Path, config: DatasetConfig, names: set[str]) -> None:
    """Raise `ConfigError` if a data folder holds another data set: of another kind, or of a root that is still there.

    Where the former root is gone, it may have moved; then one recording of the same name is enough.
    """
    try:
        before = settings_of(data).get("dataset")
    except DatasetError:  # damaged, and written anew
        return
    if not isinstance(before, dict) or not all(isinstance(before.get(key), str) for key in ("kind", "root")):
        return
    former, same = Path(before["root"]), before["kind"] == config.kind
    if same and os.path.isdir(former):
        same = former.resolve() == Path(config.root).resolve()
    elif same:
        same = any(row.file in names for row in read_rows(data / MANIFEST))
    if not same:
        raise ConfigError(
            f"{data} holds the spectrograms of another data set, {before.get('name')} ({former}); choose another "
            "folder with data=FOLDER, or replace them with --replace."
        )
