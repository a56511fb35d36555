"""Catalogues: which clips a data set has, with label, fold and source recording.

A catalogue is read from a data set's own tables or folders; no audio is decoded here. Every kind of data
set ends as the same list of `Clip`, so that splitting and rendering need not know where it came from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from soundsight.config import DatasetConfig
from soundsight.datasets.tables.rows import read_rows
from soundsight.errors import DatasetError


@dataclass(frozen=True)
class Clip:
    """One labelled stretch of one recording."""

    path: Path = field(hash=False)  # absolute; slow to hash, and `file` tells clips apart
    file: str  # relative to the data set's root, with forward slashes
    label: str
    name: str  # unique within its label; the image's file name without its ending
    source: str  # the original recording; clips that share it must stay in one split
    fold: int | None = None
    start_seconds: float = 0.0
    end_seconds: float | None = None  # None: to the end of one clip length
    split: str = ""  # train, val or test, where the data set says so
    speed: float = 1.0  # as a tape that runs this many times as fast
    further_labels: tuple[str, ...] = ()  # multi-label data: its other classes; none and no `label`: background

    @property
    def labels(self) -> tuple[str, ...]:
        """Its classes; of background in multi-label data none."""
        return (self.label, *self.further_labels) if self.label else ()


@dataclass(frozen=True)
class Catalogue:
    """All clips of a data set, and what it says of itself."""

    name: str
    clips: Sequence[Clip]
    shared_sources: frozenset[str] = frozenset()  # sources known to cross the given folds
    failures: Sequence[tuple[str, str]] = field(default=())  # (file, reason) of rows without a usable file
    whole_recordings: bool = False  # clips are recordings of any length, to be cut after the split
    notes: Sequence[str] = ()  # how its folders or tables were understood
    multi: bool = False  # whether a clip may have several classes, or none

    @property
    def labels(self) -> list[str]:
        """All classes in the order of their indices."""
        return sorted({label for clip in self.clips for label in clip.labels})


# Freesound clip numbers whose cuts lie in two of ESC-50's official folds, found in its meta/esc50.csv.
ESC50_SHARED_SOURCES = frozenset({"131943", "134049", "209698", "234879"})


def read_catalogue(config: DatasetConfig) -> Catalogue:
    """List the clips of the data set that `config` describes.

    Raises:
        DatasetError: Its root or table is missing or malformed, or it holds no clips.
    """
    root = Path(config.root)
    if not root.is_dir():
        published = config.kind in ("esc50", "esc10", "urbansound8k")
        hint = f"run `soundsight download {config.kind}`, or " if published else ""
        raise DatasetError(f"The data set's root {config.root} does not exist; {hint}set root=FOLDER.")
    if config.kind in ("esc50", "esc10"):
        catalogue = read_esc50(root, only_esc10=config.kind == "esc10")
    elif config.kind == "urbansound8k":
        from soundsight.datasets.urbansound8k import read_urbansound8k

        catalogue = read_urbansound8k(root)
    elif config.kind == "folder":
        from soundsight.datasets.folder import read_folder

        catalogue = read_folder(root, source_pattern=config.source_pattern)
    else:
        from soundsight.datasets.tables.reading import read_table

        catalogue = read_table(root, config)
    if not catalogue.clips:
        why = ""
        if catalogue.failures:
            file, reason = catalogue.failures[0]
            why = f": {len(catalogue.failures)} entries cannot be used, first {file} ({reason})"
        raise DatasetError(f"No clips were found for {catalogue.name} in {config.root}{why}.")
    return catalogue


def shared_groups(kind: str) -> frozenset[str]:
    """Source recordings that the publisher of a kind of data set put into several folds."""
    if kind == "urbansound8k":
        from soundsight.datasets.urbansound8k import URBANSOUND8K_SHARED_SOURCES

        return URBANSOUND8K_SHARED_SOURCES
    return ESC50_SHARED_SOURCES if kind == "esc50" else frozenset()


def read_esc50(root: Path, *, only_esc10: bool = False) -> Catalogue:
    """ESC-50 (Piczak, 2015) or its ten-class subset, from `meta/esc50.csv` and `audio/`."""
    table = root / "meta" / "esc50.csv"
    required = ("filename", "fold", "category", "esc10", "src_file")
    clips, failures = [], []
    for line, row in read_rows(table, required):
        if only_esc10 and row["esc10"].casefold() != "true":
            continue
        if not row["fold"].isdigit() or not row["category"]:
            raise DatasetError(
                f"{table}, line {line}: fold={row['fold']!r} and category={row['category']!r} "
                "must be a whole number and a name; restore the official file."
            )
        path = root / "audio" / row["filename"]
        if not path.is_file():
            failures.append((f"audio/{row['filename']}", "listed in meta/esc50.csv, but the file is missing"))
            continue
        clips.append(
            Clip(
                path=path.absolute(),
                file=f"audio/{row['filename']}",
                label=row["category"],
                name=Path(row["filename"]).stem,
                source=row["src_file"],
                fold=int(row["fold"]),
            )
        )
    name = "ESC-10" if only_esc10 else "ESC-50"
    return Catalogue(name, clips, shared_groups("esc10" if only_esc10 else "esc50"), failures)
