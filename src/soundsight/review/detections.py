"""The detections of a table of predictions, where their recordings are now, and samples of them."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

import numpy as np

from soundsight.errors import ConfigError
from soundsight.evaluation.predicted import Row, read_detections
from soundsight.files import sha256

BANDS = 10  # of the score, equally wide, from 0 to 1


@dataclass(frozen=True)
class Detections:
    """The rows of a table that report a class, and the recordings that are here."""

    path: Path
    rows: Sequence[Row]  # whose recordings are here
    files: Mapping[str, Path]  # by the name that the table has
    missing: Sequence[str]  # recordings that are not here
    models: frozenset[str]  # hashes of the models that predicted, where the table says so
    hash: str  # SHA-256 of the table

    @property
    def names(self) -> list[str]:
        """The classes that are reported."""
        return sorted({row.label for row in self.rows})

    def common_folder(self) -> Path:
        """The deepest folder that holds all recordings."""
        return Path(os.path.commonpath([path.absolute().parent for path in self.files.values()]))

    def failures(self) -> list[str]:
        """One message if recordings are missing."""
        if not self.missing:
            return []
        return [
            f"{len(self.missing)} of {len(self.missing) + len(self.files)} recordings that {self.path} names are "
            f"not there, first {self.missing[0]}; if they have moved, name their folder with --root."
        ]


def load(path: str | Path, *, threshold: Mapping[str, float] | None = None, root: str | None = None) -> Detections:
    """Read a table of predictions and find its recordings.

    Args:
        path: A file with probabilities that `predict` wrote.
        threshold: Least probability by class, "" for all others; `None`: as the table says what was reported.
        root: Where the recordings are, if they have moved.

    Raises:
        ConfigError: The table cannot be read or reports nothing, or none of its recordings is there.
    """
    path = Path(path)
    if root is not None and not Path(root).is_dir():
        raise ConfigError(f"The folder --root {root} does not exist; name the one that holds the recordings.")
    rows, everything = read_detections(path, threshold or {})
    files = {name: found for name in dict.fromkeys(row.recording for row in rows) if (found := locate(name, root))}
    _refuse_rivals(files)
    detections = Detections(
        path,
        [row for row in rows if row.recording in files],
        files,
        sorted({row.recording for row in rows} - set(files)),
        frozenset(row.model for row in everything if row.model),
        sha256(path),
    )
    if not files:
        raise ConfigError(detections.failures()[0])
    return detections


def locate(name: str, root: str | None) -> Path | None:
    """Where a recording is: by its name, or below `root` by the longest end of its name that leads to a file."""
    if root is None:
        return Path(name) if Path(name).is_file() else None
    parts = [part for part in PureWindowsPath(name).parts if part.strip("\\/")]
    ends = (Path(root, *parts[first:]) for first in range(len(parts)))
    return next((path for path in ends if path.is_file()), None)


def _refuse_rivals(files: Mapping[str, Path]) -> None:
    owner: dict[Path, str] = {}
    for name, path in files.items():
        other = owner.setdefault(path.absolute(), name)
        if other != name:
            raise ConfigError(
                f"{other} and {name} would both be {path}; name a folder with --root that holds the folders of both."
            )


def sample(rows: Iterable[Row], *, how: str, number: int | None, seed: int = 0) -> list[Row]:
    """Choose detections of each class, and the order in which they are best reviewed.

    Args:
        rows: Detections.
        how: "spread": from ten bands of the score in turn, at random within each; "best": the highest scores;
            "uncertain": scores nearest to 0.5; "random".
        number: Of each class at most; `None`: all.
        seed: Of what is random.

    Returns:
        The chosen ones: the first of each class, then the second of each class, and so on.
    """
    by_class: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_class[row.label].append(row)
    chosen: list[tuple[int, str, Row]] = []
    for label, found in sorted(by_class.items()):
        shuffled = [found[i] for i in np.random.default_rng(seed).permutation(len(found))]
        if how == "spread":
            shuffled = _in_turn(shuffled)
        elif how == "best":
            shuffled.sort(key=lambda row: -row.probability)
        elif how == "uncertain":
            shuffled.sort(key=lambda row: abs(row.probability - 0.5))
        chosen += [(place, label, row) for place, row in enumerate(shuffled[:number])]
    return [row for _, _, row in sorted(chosen, key=lambda found: found[:2])]


def _in_turn(rows: Sequence[Row]) -> list[Row]:
    """One of each band of the score, then the second of each, and so on."""
    count = [0] * BANDS
    places = []
    for row in rows:
        band = min(int(row.probability * BANDS), BANDS - 1)
        places.append((count[band], -band))
        count[band] += 1
    return [rows[i] for i in sorted(range(len(rows)), key=places.__getitem__)]
