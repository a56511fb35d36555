"""Published data sets: where they are, under which licence, and how to tell that a copy is whole.

Facts of others, each with its source. Nothing here touches the network.
"""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from soundsight import audio
from soundsight.datasets.catalogue import Catalogue, read_esc50
from soundsight.datasets.fetch import Progress
from soundsight.datasets.urbansound8k import read_urbansound8k
from soundsight.errors import AudioError, ConfigError, DatasetError


@dataclass(frozen=True)
class Published:
    """What a publisher says of a data set."""

    title: str
    url: str
    archive: str  # file name of the archive, on a mirror and on this machine
    root: str  # where it goes
    licence: str
    citation: str
    table: str  # below root; an archive's folder that holds it is the data set
    read: Callable[[Path], Catalogue]
    clips: int
    classes: int
    folds: int
    unpacked_limit: int  # bytes that its files may take; a bomb takes more
    even: bool = False  # as many clips in each class, and in each fold
    sample_rate: int | None = None  # Hz, of every recording; None: they differ
    seconds: float | None = None  # length of every recording
    size: int | None = None  # bytes of the archive; None: it is generated for each download
    md5: str | None = None  # of the archive, where its publisher fixes one
    checksums: str = ""  # file in `checksums/` with the MD5 of each recording
    source: str = ""  # who says so


_ESC = {
    "url": "https://github.com/karolpiczak/ESC-50/archive/refs/heads/master.zip",
    "archive": "ESC-50-master.zip",
    "root": "dataset/ESC-50",
    "citation": (
        "K. J. Piczak. ESC: Dataset for Environmental Sound Classification. Proceedings of the 23rd ACM "
        "Conference on Multimedia, Brisbane, 2015, pages 1015-1018. https://doi.org/10.1145/2733373.2806390"
    ),
    "table": "meta/esc50.csv",
    "read": read_esc50,
    "clips": 2000,
    "classes": 50,
    "folds": 5,
    "even": True,
    "unpacked_limit": 2 << 30,
    "sample_rate": 44100,
    "seconds": 5.0,
    "checksums": "esc50.csv",
    "source": "README and LICENSE of github.com/karolpiczak/ESC-50; MD5 of the recordings: soundata's index",
}

DATASETS: dict[str, Published] = {
    "esc50": Published(
        title="ESC-50: 2,000 environmental sounds of 5 s in 50 classes",
        licence=(
            "Creative Commons Attribution-NonCommercial 3.0 (CC BY-NC 3.0); its LICENSE file names author "
            "and licence of each recording"
        ),
        **_ESC,  # type: ignore[arg-type]
    ),
    "esc10": Published(
        title="ESC-10: 400 environmental sounds of 5 s in 10 classes, published as a part of ESC-50",
        licence=(
            "Creative Commons Attribution 3.0 (CC BY 3.0); the rest of the archive, ESC-50, is for "
            "non-commercial use only (CC BY-NC 3.0)"
        ),
        **_ESC,  # type: ignore[arg-type]
    ),
    "urbansound8k": Published(
        title="UrbanSound8K: 8,732 urban sounds of up to 4 s in 10 classes",
        url="https://zenodo.org/records/1203745/files/UrbanSound8K.tar.gz",
        archive="UrbanSound8K.tar.gz",
        root="dataset/UrbanSound8K",
        licence=(
            "Creative Commons Attribution-NonCommercial 3.0 (CC BY-NC 3.0); its FREESOUNDCREDITS.txt names "
            "the author of each recording"
        ),
        citation=(
            "J. Salamon, C. Jacoby and J. P. Bello. A Dataset and Taxonomy for Urban Sound Research. 22nd "
            "ACM International Conference on Multimedia, Orlando, 2014, pages 1041-1044. "
            "https://doi.org/10.1145/2647868.2655045"
        ),
        table="metadata/UrbanSound8K.csv",
        read=read_urbansound8k,
        clips=8732,
        classes=10,
        folds=10,
        unpacked_limit=16 << 30,
        size=6_023_741_708,
        md5="9aa69802bbf37fb986f71ec1483a196e",
        source="Zenodo record 1203745, doi.org/10.5281/zenodo.1203745",
    ),
}


def published(name: str) -> Published:
    """The record of a data set.

    Raises:
        ConfigError: There is no such data set.
    """
    if name not in DATASETS:
        raise ConfigError(f"The data set {name!r} cannot be downloaded; {', '.join(DATASETS)} can.")
    return DATASETS[name]


def notice(name: str) -> str:
    """Title, licence and citation, to be shown before a download."""
    record = published(name)
    size = f" ({record.size / 1e9:.1f} GB)" if record.size else ""
    return f"{record.title}\nFrom:    {record.url}{size}\nLicence: {record.licence}.\nCite:    {record.citation}"


def check(root: Path, record: Published, *, checksums: bool = True, progress: Progress | None = None) -> None:
    """Make sure that a copy of a data set is whole.

    Args:
        root: Folder of the copy.
        record: What its publisher says.
        checksums: Also compare the MD5 of each recording, where they are known.
        progress: Called with ("check", recordings done, recordings in all).

    Raises:
        DatasetError: Something is missing or differs; the message names the first such file.
    """
    catalogue = record.read(root)
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
