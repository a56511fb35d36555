"""What a survey of a data set found, and what a trainer should know of it; found out by `evaluation.inspect`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from soundsight.config import DatasetConfig, SpectrogramConfig
from soundsight.datasets.catalogue import Catalogue, Clip
from soundsight.datasets.duplicates import Near, Pair
from soundsight.datasets.findings import about_counts, about_groups, about_leaks, imbalance
from soundsight.datasets.names import class_order
from soundsight.datasets.split import SPLITS, Leaks
from soundsight.datasets.survey import Measured

CONFIDENT = 0.8  # a wrong prediction at least this probable makes its label suspicious
MOSTLY_SILENT, SILENT = 0.5, 0.999  # share of samples in digital silence
CLIPPED = 0.001  # share of clipped samples from which on it is audible


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
        """Readable clips by class and split; what is in no split counts as "unused", background as none of them."""
        used = [*SPLITS, *(["unused"] if len(self.splits) < len(self.catalogue.clips) else [])]
        result = {label: dict.fromkeys(used, 0) for label in class_order(self.catalogue.labels)}
        for clip in self.measured:
            for label in clip.labels:
                result[label][self.splits.get(clip, "unused")] += 1
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
        """Duplicates that are labelled differently; in one recording, other sounds may well be beside them."""
        return [p for p in self.pairs if p.first.labels != p.second.labels and p.first.file != p.second.file]

    @cached_property
    def findings(self) -> list[tuple[str, str]]:
        """What a trainer should know: ("bad", "look" or "good", message), worst first."""
        order = {"bad": 0, "look": 1, "good": 2}
        return sorted([*_about_splits(self), *_about_clips(self)], key=lambda item: order[item[0]])


def _about_splits(found: Survey) -> list[tuple[str, str]]:
    """Findings on what lies on which side."""
    findings = about_leaks(found.leaks)
    if found.across_splits:
        text = f"Pairs of duplicates across splits: {len(found.across_splits)}. Give both clips one source"
        findings.append(("bad", f"{text} (a group column, or group_pattern), or leave one out."))
    if found.of_two_labels:
        findings.append(("bad", f"Pairs of duplicates with two different labels: {len(found.of_two_labels)}."))
    if found.suspects:
        text = f"Suspicious labels: {len(found.suspects)}. A model that never saw the clip is"
        findings.append(("look", f"{text} at least {CONFIDENT:.0%} sure of another class."))
    findings += about_groups((clip.source, clip.labels) for clip in found.measured if clip in found.splits)
    findings += about_counts(found.counts)
    if not (found.leaks or found.across_splits):
        findings.append(("good", "No source recording and no duplicate lies in two splits."))
    return findings


def _about_clips(found: Survey) -> list[tuple[str, str]]:
    """Findings on the recordings themselves."""
    findings = []
    if found.failures:
        file, reason = found.failures[0]
        first = reason if file in reason else f"{file}: {reason}"
        findings.append(("bad", f"Entries that cannot be used: {len(found.failures)}. The first: {first.rstrip('.')}."))
    want, seconds = found.spectrogram.sample_rate, found.spectrogram.clip_seconds
    tests: list[tuple[str, str, Callable[[Measured], bool]]] = [
        ("bad", "Clips of nothing but digital silence: {}, such as {}.", lambda m: m.silent >= SILENT),
        (
            "look",
            "Clips that are digital silence for at least half of their length: {}.",
            lambda m: MOSTLY_SILENT <= m.silent < SILENT,
        ),
        (
            "look",
            f"Clips with {CLIPPED:.1%} or more of their samples clipped: {{}}.",
            lambda m: m.clipped >= CLIPPED,
        ),
        (
            "look",
            f"Clips recorded below {want} Hz, whose highest bands are empty: {{}}.",
            lambda m: m.sample_rate < want,
        ),
        (
            "look",
            f"Clips shorter than half of clip_seconds={seconds:g}: {{}}. Most of their image is padding.",
            lambda m: m.seconds < seconds / 2,
        ),
    ]
    for tone, text, test in tests:
        if clips := [clip for clip, measured in found.measured.items() if test(measured)]:
            findings.append((tone, text.format(len(clips), clips[0].file)))
    if len({m.sample_rate for m in found.measured.values()}) > 1:
        findings.append(
            ("look", "Recordings have several sample rates; if they differ by class, a model can learn that.")
        )
    return findings
