"""Inspect: a data set looked at before anyone trains on it.

Catalogue, split and windows are those that `prepare` would use; each clip is heard once, duplicates are
searched, and what a trainer should know becomes a list of findings and one page. Nothing else is written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from soundsight.config import DatasetConfig, SpectrogramConfig
from soundsight.dataset.catalogue import Catalogue, Clip, read_catalogue, read_rows
from soundsight.dataset.duplicates import Near, Pair, exact_groups, joined, near_pairs
from soundsight.dataset.findings import about_counts, imbalance
from soundsight.dataset.names import class_order
from soundsight.dataset.split import SPLITS, Leaks, assign, find_leaks
from soundsight.dataset.survey import Measured, survey
from soundsight.dataset.windows import cut_windows
from soundsight.errors import DatasetError

Progress = Callable[[str, int, int], None]

CONFIDENT = 0.8  # a wrong answer at least this probable makes its label suspicious
MOSTLY_SILENT, SILENT = 0.5, 0.999  # share of samples in digital silence
CLIPPED = 0.001  # share of clipped samples from which on it can be heard


@dataclass(frozen=True)
class Suspect:
    """A clip that a model which never saw it takes, with confidence, for another class."""

    file: str
    target: str
    predicted: str
    probability: float  # 0 to 1
    fold: str


@dataclass(frozen=True)
class Survey:
    """What was found in a data set."""

    catalogue: Catalogue  # after cutting
    config: DatasetConfig
    spectrogram: SpectrogramConfig
    splits: dict[Clip, str]  # clips in no split are left out
    measured: dict[Clip, Measured]  # readable clips only
    failures: list[tuple[str, str]]  # (file, reason)
    exact: list[list[Clip]]  # groups of clips with the same samples
    near: Near
    pairs: list[Pair]  # all duplicates, exact ones first
    leaks: Leaks  # sources in several splits
    fold_leaks: Leaks  # sources in several folds
    suspects: list[Suspect] | None  # None: no cross-validation was given
    seconds: float

    @cached_property
    def counts(self) -> dict[str, dict[str, int]]:
        """Readable clips by class and split; what is in no split counts as "unused"."""
        used = [*SPLITS, *(["unused"] if len(self.splits) < len(self.catalogue.clips) else [])]
        result = {label: dict.fromkeys(used, 0) for label in class_order(self.catalogue.labels)}
        for clip in self.measured:
            result[clip.label][self.splits.get(clip, "unused")] += 1
        return result

    @property
    def imbalance(self) -> float:
        """Clips of the largest class over those of the smallest; infinite where a class has none."""
        return imbalance(self.counts)

    @cached_property
    def across_splits(self) -> list[Pair]:
        """Duplicates with one clip here and one there."""
        where = self.splits
        return [p for p in self.pairs if where.get(p.first, "") != where.get(p.second, "")]

    @cached_property
    def across_folds(self) -> list[Pair]:
        """Duplicates in two of the given folds."""
        return [p for p in self.pairs if p.first.fold != p.second.fold]

    @cached_property
    def of_two_labels(self) -> list[Pair]:
        """Duplicates that are labelled differently."""
        return [p for p in self.pairs if p.first.label != p.second.label]

    def clips_with(self, test: Callable[[Measured], bool]) -> list[Clip]:
        """Readable clips whose measurement passes a test."""
        return [clip for clip, measured in self.measured.items() if test(measured)]

    @cached_property
    def findings(self) -> list[tuple[str, str]]:
        """What a trainer should know: ("bad", "look" or "good", sentence), worst first."""
        order = {"bad": 0, "look": 1, "good": 2}
        return sorted([*_about_splits(self), *_about_clips(self)], key=lambda item: order[item[0]])


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
        spectrogram: How they would be drawn; its `clip_seconds` cuts long recordings.
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
    catalogue = read_catalogue(config)
    splits = assign(catalogue, config.split, spectrogram.clip_seconds)  # of whole recordings, as `prepare` does
    catalogue, recording_of = cut_windows(catalogue, spectrogram.clip_seconds, workers=workers)
    splits = {clip: splits[recording] for clip, recording in recording_of.items() if recording in splits}
    suspects = None if crossval is None else read_suspects(Path(crossval), catalogue.clips)

    listening, comparing = (_told(progress, stage) for stage in ("listening", "comparing"))
    every = survey(catalogue.clips, spectrogram, workers=workers, progress=listening)
    heard = {clip: measured for clip, measured in every.items() if measured.digest}
    found_out = ((clip.file, measured.failure) for clip, measured in every.items() if measured.failure)
    failures = list(dict.fromkeys([*catalogue.failures, *found_out]))  # once, however many clips are hit
    exact = exact_groups({clip: measured.digest for clip, measured in heard.items()})
    copies = {clip for group in exact for clip in group[1:]}
    prints = {clip: m.fingerprint for clip, m in heard.items() if clip not in copies}
    near = near_pairs(prints, spectrogram.clip_seconds, workers=workers, progress=comparing)
    found = Survey(
        catalogue=catalogue,
        config=config,
        spectrogram=spectrogram,
        splits=splits,
        measured=heard,
        failures=failures,
        exact=exact,
        near=near,
        pairs=joined(exact, near.pairs),
        leaks=find_leaks(splits, catalogue.shared_sources, spectrogram.clip_seconds),
        fold_leaks=find_leaks(
            {c: str(c.fold) for c in catalogue.clips}, catalogue.shared_sources, spectrogram.clip_seconds
        ),
        suspects=suspects,
        seconds=time.monotonic() - started,
    )
    if page is not None:
        from soundsight.experiment.inspect_page import write_page

        write_page(found, page)
    return found


def _told(progress: Progress | None, stage: str) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(stage, done, total)


def read_suspects(run: Path, clips: Sequence[Clip]) -> list[Suspect]:
    """Confident wrong answers of a cross-validation, most confident first.

    Raises:
        DatasetError: There are no predictions, or they are of another data set.
    """
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


def _about_splits(found: Survey) -> list[tuple[str, str]]:
    """Findings on what lies on which side."""
    said = []
    leaks, counts = found.leaks, found.counts
    if leaks.unknown:
        text = f"Source recordings in more than one split: {len(leaks.unknown)}. {leaks.clips} clips outside train have"
        said.append(("bad", f"{text} a sibling in it, so scores would flatter; split.strategy=group keeps them apart."))
    if leaks.known:
        said.append(("look", f"Source recordings known to lie in more than one split: {', '.join(leaks.known)}."))
    said += [("bad", text) for text in leaks.warnings("split")]
    if found.across_splits:
        text = f"Pairs of duplicates across splits: {len(found.across_splits)}. Give both clips one source"
        said.append(("bad", f"{text} (a group column, or source_pattern), or leave one out."))
    if found.of_two_labels:
        said.append(("bad", f"Pairs of duplicates with two different labels: {len(found.of_two_labels)}."))
    if found.suspects:
        text = f"Suspicious labels: {len(found.suspects)}. A model that never saw the clip is"
        said.append(("look", f"{text} at least {CONFIDENT:.0%} sure of another class."))
    said += about_counts(counts)
    if not (leaks or found.across_splits):
        said.append(("good", "No source recording and no duplicate lies in two splits."))
    return said


def _about_clips(found: Survey) -> list[tuple[str, str]]:
    """Findings on the recordings themselves."""
    said = []
    if found.failures:
        file, reason = found.failures[0]
        first = reason if file in reason else f"{file}: {reason}"
        said.append(("bad", f"Entries that cannot be used: {len(found.failures)}. The first: {first.rstrip('.')}."))
    silent = found.clips_with(lambda m: m.silent >= SILENT)
    if silent:
        said.append(("bad", f"Clips of nothing but digital silence: {len(silent)}, such as {silent[0].file}."))
    half = found.clips_with(lambda m: MOSTLY_SILENT <= m.silent < SILENT)
    if half:
        said.append(("look", f"Clips that are digital silence for at least half of their length: {len(half)}."))
    clipped = found.clips_with(lambda m: m.clipped >= CLIPPED)
    if clipped:
        said.append(("look", f"Clips with {CLIPPED:.1%} or more of their samples clipped: {len(clipped)}."))
    want = found.spectrogram.sample_rate
    slow = found.clips_with(lambda m: m.sample_rate < want)
    if slow:
        said.append(("look", f"Clips recorded below {want} Hz, whose highest bands are empty: {len(slow)}."))
    seconds = found.spectrogram.clip_seconds
    short = found.clips_with(lambda m: m.seconds < seconds / 2)
    if short:
        text = f"Clips shorter than half of clip_seconds={seconds:g}: {len(short)}"
        said.append(("look", f"{text}. Most of their picture is padding."))
    if len({m.sample_rate for m in found.measured.values()}) > 1:
        said.append(("look", "Recordings have several sample rates; if they differ by class, a model can hear that."))
    return said
