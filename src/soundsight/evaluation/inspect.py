"""Inspect: a data set looked at before anyone trains on it.

Catalogue, split and segments are those that `prepare` would use; each clip is read once, duplicates are
searched, and what a trainer should know becomes a list of findings and one page. Nothing else is written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from soundsight.config import DatasetConfig, SpectrogramConfig
from soundsight.datasets.catalogue import Clip
from soundsight.datasets.duplicates import exact_groups, joined, near_pairs
from soundsight.datasets.segments import split_and_cut
from soundsight.datasets.split import find_leaks
from soundsight.datasets.survey import survey
from soundsight.datasets.survey_results import CONFIDENT, Survey, Suspect
from soundsight.datasets.tables.rows import read_rows
from soundsight.errors import DatasetError

Progress = Callable[[str, int, int], None]


def inspect(
    config: DatasetConfig | None = None,
    spectrogram: SpectrogramConfig | None = None,
    *,
    crossval: str | Path | None = None,
    page: str | Path | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Survey:
    """Look at a data set.

    Args:
        config: Where the recordings are, how they are labelled and split.
        spectrogram: How they would be rendered; its `clip_seconds` cuts long recordings.
        crossval: Folder of a cross-validation of this data set, for suspicious labels.
        page: Where to write one self-contained HTML page; `None` writes nothing.
        workers: Processes; `None` takes one a core.
        progress: Called with ("listening" or "comparing", steps done, steps in all).

    Raises:
        DatasetError: The data set as a whole, or the cross-validation, is not usable.
        ConfigError: The page cannot be written.
    """
    config, spectrogram = config or DatasetConfig(), spectrogram or SpectrogramConfig()
    started = time.monotonic()
    catalogue, splits = split_and_cut(config, spectrogram.clip_seconds, workers=workers)
    suspects = None if crossval is None else read_suspects(Path(crossval), catalogue.clips)

    reading, comparing = (progress and partial(progress, stage) for stage in ("listening", "comparing"))
    every = survey(catalogue.clips, spectrogram, workers=workers, progress=reading)
    read = {clip: measured for clip, measured in every.items() if measured.digest}
    found_out = ((clip.file, measured.failure) for clip, measured in every.items() if measured.failure)
    failures = list(dict.fromkeys([*catalogue.failures, *found_out]))  # once, however many clips are hit
    exact = exact_groups({clip: measured.digest for clip, measured in read.items()})
    copies = {clip for group in exact for clip in group[1:]}
    prints = {clip: m.fingerprint for clip, m in read.items() if clip not in copies}
    near = near_pairs(prints, spectrogram.clip_seconds, workers=workers, progress=comparing)
    folds = {clip: str(clip.fold) for clip in catalogue.clips}
    leaks, fold_leaks = (
        find_leaks(parts, catalogue.shared_sources, spectrogram.clip_seconds) for parts in (splits, folds)
    )
    found = Survey(
        catalogue=catalogue,
        config=config,
        spectrogram=spectrogram,
        splits=splits,
        measured=read,
        failures=failures,
        exact=exact,
        near=near,
        pairs=joined(exact, near.pairs),
        leaks=leaks,
        fold_leaks=fold_leaks,
        suspects=suspects,
        seconds=time.monotonic() - started,
    )
    if page is not None:
        from soundsight.reports.survey_page import write_page

        write_page(found, page)
    return found


def read_suspects(run: Path, clips: Sequence[Clip]) -> list[Suspect]:
    """Confident wrong predictions of a cross-validation, most confident first."""
    table = run / "predictions.csv" if run.is_dir() else run
    if not table.is_file():
        raise DatasetError(f"{run} holds no predictions.csv; name the folder of a finished `soundsight crossval`.")
    rows = [row for _, row in read_rows(table, ("clip", "fold", "target", "predicted", "probability", "correct"))]
    known = {clip.file for clip in clips}
    if not any(row["clip"] in known for row in rows):
        raise DatasetError(f"{table} names no clip of this data set; name a cross-validation of the same data.")
    try:
        suspects = [
            Suspect(row["clip"], row["target"], row["predicted"], float(row["probability"]), row["fold"])
            for row in rows
            if row["correct"].lower() == "false" and row["clip"] in known
        ]
    except ValueError as error:
        raise DatasetError(f"{table} holds a probability that is no number ({error}).") from error
    return sorted((s for s in suspects if s.probability >= CONFIDENT), key=lambda s: (-s.probability, s.file))
