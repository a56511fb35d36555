"""UrbanSound8K (Salamon, Jacoby and Bello, 2014): 8,732 clips of up to 4 s, ten classes, ten given folds.

The clips keep the rate, bit depth and channels that they had on Freesound; `audio` levels that out. The columns
`start` and `end` tell where a slice was cut from its Freesound recording, so a clip is always a whole file.
"""

from __future__ import annotations

from soundsight.datasets.catalogue import register
from soundsight.datasets.published import Published

# Freesound recordings whose slices lie in two of the ten official folds, under another class in each; found
# by comparing the fsID of all 8,732 slices with their fold.
SHARED_GROUPS = frozenset({"77751", "106905", "132016", "176638", "180937"})
register(
    "urbansound8k",
    Published(
        shared_groups=SHARED_GROUPS,
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
        file="audio/fold{fold}/{slice_file_name}",
        label="class",
        group="fsID",
        clips=8732,
        classes=10,
        folds=10,
        unpacked_limit=16 << 30,
        size=6_023_741_708,
        md5="9aa69802bbf37fb986f71ec1483a196e",
        source="Zenodo record 1203745, doi.org/10.5281/zenodo.1203745",
    ),
)
