"""UrbanSound8K (Salamon, Jacoby and Bello, 2014): 8,732 clips of up to 4 s, ten classes, ten given folds.

The clips keep the rate, bit depth and channels that they had on Freesound; `audio` levels that out.
"""

from __future__ import annotations

from pathlib import Path

from soundsight.datasets.catalogue import Catalogue, Clip, read_rows
from soundsight.errors import DatasetError

COLUMNS = ("slice_file_name", "fsID", "start", "end", "salience", "fold", "classID", "class")

# Freesound recordings whose slices lie in two of the ten official folds, under another class in each; found
# by comparing the fsID of all 8,732 slices with their fold.
URBANSOUND8K_SHARED_SOURCES = frozenset({"77751", "106905", "132016", "176638", "180937"})


def read_urbansound8k(root: Path) -> Catalogue:
    """All clips, from `metadata/UrbanSound8K.csv` and `audio/fold1/` to `audio/fold10/`.

    The columns `start` and `end` tell where a slice was cut from its Freesound recording, so a clip is
    always a whole file.

    Raises:
        DatasetError: The table is missing or malformed.
    """
    table = root / "metadata" / "UrbanSound8K.csv"
    clips, failures = [], []
    for line, row in read_rows(table, COLUMNS):
        if not row["fold"].isdecimal() or not row["class"] or not row["slice_file_name"]:
            raise DatasetError(
                f"{table}, line {line}: slice_file_name={row['slice_file_name']!r}, fold={row['fold']!r} and "
                f"class={row['class']!r} must be a file, a whole number and a name; restore the table."
            )
        file = f"audio/fold{int(row['fold'])}/{row['slice_file_name']}"
        path = root / file
        if not path.is_file():
            failures.append((file, "listed in metadata/UrbanSound8K.csv, but the file is missing"))
            continue
        clips.append(
            Clip(
                path=path.absolute(),
                file=file,
                label=row["class"],
                name=path.stem,
                source=row["fsID"],
                fold=int(row["fold"]),
            )
        )
    return Catalogue("UrbanSound8K", clips, URBANSOUND8K_SHARED_SOURCES, failures)
