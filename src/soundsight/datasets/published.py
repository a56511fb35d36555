"""Published data sets: where they are, under which licence, and how to tell that a copy is whole.

Facts of others, each with its source. Nothing here touches the network.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
from collections import Counter
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from soundsight import audio
from soundsight.config import DatasetConfig
from soundsight.datasets.catalogue import Catalogue, Clip, kinds
from soundsight.datasets.fetch import Progress
from soundsight.datasets.tables.rows import read_rows
from soundsight.errors import AudioError, ConfigError, DatasetError


@dataclass(frozen=True, kw_only=True)
class Published:
    """A data set, and what its publisher says of it; also how its official table, with a column `fold`, is read."""

    title: str  # its name, a colon or comma, and what it is
    url: str
    archive: str  # file name of the archive, on a mirror and on this machine
    root: str  # where it goes
    licence: str
    citation: str
    source: str  # who says so
    table: str  # below root; an archive's folder that holds it is the data set
    file: str  # where a recording lies, with the names of columns in braces
    label: str  # column of classes
    group: str  # column of original recordings
    only: str = ""  # column that is true for the rows of this data set; empty: all are
    shared_groups: frozenset[str] = frozenset()  # groups that its publisher put into several folds
    clips: int  # of all rows, as are classes and folds
    classes: int
    folds: int
    unpacked_limit: int  # bytes that its files may take; a bomb takes more
    even: bool = False  # as many clips in each class, and in each fold
    sample_rate: int | None = None  # Hz, of every recording; None: they differ
    seconds: float | None = None  # length of every recording
    size: int | None = None  # bytes of the archive; None: it is generated for each download
    md5: str | None = None  # of the archive, where its publisher fixes one
    checksums: str = ""  # file in `checksums/` with the MD5 of each recording

    @property
    def name(self) -> str:
        """How people call it."""
        return self.title.partition(":")[0]

    def read(self, root: Path, _: DatasetConfig) -> Catalogue:
        """All its clips, each a whole recording."""
        table, clips, failures = root / self.table, [], []
        for line, row in read_rows(table, ("fold", self.label, self.group, *re.findall(r"{(\w+)}", self.file))):
            if self.only and row.get(self.only, "").casefold() != "true":
                continue
            if not row["fold"].isdecimal() or not row[self.label]:
                raise DatasetError(
                    f"{table}, line {line}: fold={row['fold']!r} and {self.label}={row[self.label]!r} must be a whole "
                    "number and a name; restore the official file."
                )
            name = self.file.format_map(row)
            path = root / name
            if os.path.isfile(path):
                clips.append(Clip(path.absolute(), name, row[self.label], path.stem, row[self.group], int(row["fold"])))
            else:
                failures.append((name, f"listed in {self.table}, but the file is missing"))
        return Catalogue(self.name, clips, self.shared_groups, failures)


def datasets() -> dict[str, Published]:
    """All published data sets by name."""
    return {name: kind for name, kind in kinds().items() if isinstance(kind, Published)}


def published(name: str) -> Published:
    """The record of a data set; `ConfigError` if there is none."""
    known = datasets()
    if name not in known:
        raise ConfigError(f"The data set {name!r} cannot be downloaded; {', '.join(known)} can.")
    return known[name]


def notice(name: str) -> str:
    """Title, licence and citation, to be shown before a download."""
    record = published(name)
    size = f" ({record.size / 1e9:.1f} GB)" if record.size else ""
    return f"{record.title}\nFrom:    {record.url}{size}\nLicence: {record.licence}.\nCite:    {record.citation}"


def check(root: Path, record: Published, *, checksums: bool = True, progress: Progress | None = None) -> None:
    """Make sure that a copy of a data set is whole; also compare the MD5 of each recording, where they are known."""
    catalogue = replace(record, only="").read(root, DatasetConfig())
    if catalogue.failures:
        file, _ = catalogue.failures[0]
        raise DatasetError(
            f"{root} is not whole: {len(catalogue.failures)} recordings of {record.table} are missing, such as {file}."
        )
    _check_counts(catalogue, record, root)
    known = read_checksums(record) if checksums else {}
    for number, clip in enumerate(catalogue.clips, 1):
        if record.sample_rate is not None and record.seconds is not None:
            _check_header(clip.path, record.sample_rate, record.seconds)
        if known:
            _check_md5(clip.path, known)
        if progress:
            progress("check", number, len(catalogue.clips))


def read_checksums(record: Published) -> dict[str, str]:
    """MD5 of each recording by its file name; empty where none are known."""
    if not record.checksums:
        return {}
    path = resources.files("soundsight.datasets") / "checksums" / record.checksums
    lines = (line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#"))
    return {row["file"]: row["md5"] for row in csv.DictReader(lines)}


def _check_counts(catalogue: Catalogue, record: Published, root: Path) -> None:
    labels = Counter(clip.label for clip in catalogue.clips)
    folds = Counter(clip.fold for clip in catalogue.clips)
    found = (len(catalogue.clips), len(labels), len(folds))
    wanted = (record.clips, record.classes, record.folds)
    uneven = record.even and (len(set(labels.values())) > 1 or len(set(folds.values())) > 1)
    if found != wanted or uneven:
        each = ", as many in each" if record.even else ""
        raise DatasetError(
            f"{root}/{record.table} lists {found[0]} clips, {found[1]} classes and {found[2]} folds, but the "
            f"published one lists {wanted[0]}, {wanted[1]} and {wanted[2]}{each}; it was altered."
        )


def _check_header(path: Path, sample_rate: int, seconds: float) -> None:
    try:
        info = audio.probe(path)
    except AudioError as error:
        raise DatasetError(f"A recording is damaged: {error}") from error
    if info.sample_rate != sample_rate or abs(info.duration_seconds - seconds) > 0.001:
        raise DatasetError(
            f"{path} has {info.sample_rate} Hz and {info.duration_seconds:.3f} s, but the published "
            f"recordings have {sample_rate} Hz and {seconds:g} s; this is another version of the data set."
        )


def _check_md5(path: Path, known: dict[str, str]) -> None:
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if known.get(path.name) != found:
        raise DatasetError(
            f"{path} differs from the published recording: its MD5 is {found}, not "
            f"{known.get(path.name, 'listed')}; if its publisher has replaced it, go on with --no-checksums."
        )
