"""ESC-50 (Piczak, 2015) and its ten-class subset ESC-10."""

from __future__ import annotations

from dataclasses import replace

from soundsight.datasets.catalogue import register
from soundsight.datasets.published import Published

# Freesound clip numbers whose cuts lie in two of ESC-50's official folds, found in its meta/esc50.csv.
SHARED_GROUPS = frozenset({"131943", "134049", "209698", "234879"})
_ESC50 = Published(
    shared_groups=SHARED_GROUPS,
    title="ESC-50: 2,000 environmental sounds of 5 s in 50 classes",
    licence=(
        "Creative Commons Attribution-NonCommercial 3.0 (CC BY-NC 3.0); its LICENSE file names author "
        "and licence of each recording"
    ),
    url="https://github.com/karolpiczak/ESC-50/archive/refs/heads/master.zip",
    archive="ESC-50-master.zip",
    root="dataset/ESC-50",
    citation=(
        "K. J. Piczak. ESC: Dataset for Environmental Sound Classification. Proceedings of the 23rd ACM "
        "Conference on Multimedia, Brisbane, 2015, pages 1015-1018. https://doi.org/10.1145/2733373.2806390"
    ),
    table="meta/esc50.csv",
    file="audio/{filename}",
    label="category",
    group="src_file",
    clips=2000,
    classes=50,
    folds=5,
    even=True,
    unpacked_limit=2 << 30,
    sample_rate=44100,
    seconds=5.0,
    checksums="esc50.csv",
    source="README and LICENSE of github.com/karolpiczak/ESC-50; MD5 of the recordings: soundata's index",
)
register("esc50", _ESC50)
register(
    "esc10",
    replace(
        _ESC50,
        only="esc10",
        shared_groups=frozenset(),
        title="ESC-10: 400 environmental sounds of 5 s in 10 classes, published as a part of ESC-50",
        licence=(
            "Creative Commons Attribution 3.0 (CC BY 3.0); the rest of the archive, ESC-50, is for "
            "non-commercial use only (CC BY-NC 3.0)"
        ),
    ),
)
