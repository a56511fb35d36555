"""Splits: which clips train, validate and test, decided by source recording and never window by window."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

from soundsight.config import SplitConfig
from soundsight.datasets.catalogue import Catalogue, Clip
from soundsight.datasets.copies import overlapping
from soundsight.errors import ConfigError, DatasetError

SPLITS = ("train", "val", "test")
_NAMES = dict.fromkeys(("train", "training", "development"), "train")
_NAMES |= dict.fromkeys(("val", "valid", "validation", "dev"), "val")
_NAMES |= dict.fromkeys(("test", "testing", "eval", "evaluation"), "test")


@dataclass(frozen=True)
class Leaks:
    """Source recordings that sit in more than one split."""

    known: tuple[str, ...]  # the data set's own, documented exceptions
    unknown: tuple[str, ...]
    clips: int  # clips outside train whose source, or a copy of which, also sits in train
    copies: tuple[tuple[str, str], ...] = ()  # overlapping or equal stretches of two sources on two sides
    two_labels: tuple[tuple[str, str], ...] = ()  # equal stretches of equal files with two labels

    def __bool__(self) -> bool:
        return bool(self.known or self.unknown or self.copies)

    def warnings(self, side: str) -> list[str]:
        """On copies in more than one `side`, and on equal files with two labels."""
        found = [
            (
                self.copies,
                f"Overlapping stretches, or equal files, in more than one {side}",
                "give both one group (a group column, or group_pattern), or leave one out",
            ),
            (self.two_labels, "Files with the same content but two labels", "correct one label, or leave one out"),
        ]
        return [f"{what}: {len(pairs)}, such as {' and '.join(pairs[0])}; {do}." for pairs, what, do in found if pairs]


def split_name(name: str) -> str:
    """Which split people mean by "training", "valid", "dev", ...; empty for other words."""
    return _NAMES.get(name.casefold(), "")


def assign(catalogue: Catalogue, config: SplitConfig, clip_seconds: float = math.inf) -> dict[Clip, str]:
    """Give every clip its split, but for those in folds that no split names.

    `clip_seconds` is the length of a clip that has no end of its own.
    """
    if config.strategy == "given":
        return _as_given(catalogue)
    if config.strategy == "fold":
        return _by_fold(catalogue, config)
    if config.strategy == "group":
        parts = _deal(catalogue, config.fractions, config.seed, clip_seconds)
        return {clip: SPLITS[parts[clip]] for clip in catalogue.clips}
    return _at_random(catalogue.clips, config)


def folds(catalogue: Catalogue) -> list[int]:
    """The given folds, ascending."""
    for clip in catalogue.clips:
        if clip.fold is None:
            raise DatasetError(
                f"{clip.file} has no fold; use split.strategy=group, or name the fold column of your table."
            )
    return sorted({clip.fold for clip in catalogue.clips if clip.fold is not None})


def with_group_folds(catalogue: Catalogue, count: int, seed: int = 0, clip_seconds: float = math.inf) -> Catalogue:
    """The same clips with folds 1 to `count` that never divide a source recording."""
    if count < 2:
        raise ConfigError(f"--groups {count} is not allowed: a cross-validation needs 2 folds or more.")
    parts = _deal(catalogue, [1 / count] * count, seed, clip_seconds)
    return replace(catalogue, clips=[replace(clip, fold=parts[clip] + 1) for clip in catalogue.clips])


def find_leaks(splits: dict[Clip, str], known: frozenset[str] = frozenset(), clip_seconds: float = math.inf) -> Leaks:
    """What is on more than one side of a split: sources, overlapping stretches of one file, files of equal bytes.

    The sources `known` were put on several sides by their publisher.
    """
    where = defaultdict(set)
    for clip, split in splits.items():
        where[clip.source].add(split)
    crossing = sorted(source for source, found in where.items() if len(found) > 1)
    held_out = {clip for clip, split in splits.items() if split != "train" and "train" in where[clip.source]}
    copies, two_labels = [], []
    for run in overlapping(splits, clip_seconds):
        first = run[0]
        here = {splits[clip] for clip in run}
        held_out |= {clip for clip in run if splits[clip] != "train" and "train" in here}
        crossed = [(a, b) for a, b in pairwise(run) if splits[a] != splits[b] and a.source != b.source]
        copies += [(_place(a), _place(b)) for a, b in crossed[:1]]
        wrong = [clip for clip in run if _mislabelled(first, clip)]
        two_labels += [(f"{first.file} ({first.named})", f"{clip.file} ({clip.named})") for clip in wrong]
    return Leaks(
        tuple(s for s in crossing if s in known),
        tuple(s for s in crossing if s not in known),
        len(held_out),
        tuple(copies),
        tuple(two_labels),
    )


def _place(clip: Clip) -> str:
    return f"{clip.file} at {clip.start_seconds:g} s" if clip.start_seconds else clip.file


def _mislabelled(first: Clip, clip: Clip) -> bool:
    """Whether equal stretches of two files differ in label; in one file, two sounds may well overlap."""
    same = (first.start_seconds, first.end_seconds) == (clip.start_seconds, clip.end_seconds)
    return same and first.file != clip.file and first.labels != clip.labels


def _by_fold(catalogue: Catalogue, config: SplitConfig) -> dict[Clip, str]:
    given = folds(catalogue)
    split_of = {fold: split for split in SPLITS for fold in getattr(config, split)}
    for fold, split in split_of.items():
        if fold not in given:
            raise DatasetError(
                f"split.{split} names fold {fold}, which {catalogue.name} does not have; "
                f"it has folds {', '.join(map(str, given))}."
            )
    return {clip: split_of[clip.fold] for clip in catalogue.clips if clip.fold in split_of}


def _as_given(catalogue: Catalogue) -> dict[Clip, str]:
    for clip in catalogue.clips:
        if not clip.split:
            raise DatasetError(
                f"{clip.file} lies in no folder train, val or test, and no column `split` says where it belongs; "
                "use split.strategy=group."
            )
    return {clip: clip.split for clip in catalogue.clips}


def _at_random(clips: Sequence[Clip], config: SplitConfig) -> dict[Clip, str]:
    """Clip by clip within each class, siblings or not: for comparison with others' figures only."""
    result = {}
    ends = list(accumulate(config.fractions[:2]))
    for label in sorted({clip.label for clip in clips}):
        members = sorted((c for c in clips if c.label == label), key=lambda c: c.name)
        random.Random(f"{config.seed} {label}").shuffle(members)
        for index, clip in enumerate(members):
            result[clip] = SPLITS[sum(index >= round(len(members) * end) for end in ends)]
    return result


def _joined(catalogue: Catalogue, clip_seconds: float) -> dict[str, str]:
    """Of each source, the name of the group that must stay together: sources that share copies are one."""
    clips = catalogue.clips
    if catalogue.cutting and catalogue.cutting.cut == "segments":  # the whole recording will be used
        clip_seconds, clips = math.inf, [replace(clip, start_seconds=0.0, end_seconds=None) for clip in clips]
    leader = {clip.source: clip.source for clip in clips}

    def find(source: str) -> str:
        while leader[source] != source:
            source = leader[source]
        return source

    for run in overlapping(clips, clip_seconds):
        first, *others = sorted({find(clip.source) for clip in run})
        leader.update(dict.fromkeys(others, first))
    return {source: find(source) for source in leader}


def _deal(catalogue: Catalogue, shares: Sequence[float], seed: int, clip_seconds: float) -> dict[Clip, int]:
    """Deal whole sources to parts, largest first, each to where its classes are most wanting; copies stay together.

    Greedy stratification: a source goes to the part whose class counts lie furthest below their share.
    """
    group_of, clips = _joined(catalogue, clip_seconds), catalogue.clips
    groups: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        groups[group_of[clip.source]].append(clip)
    order = sorted(groups)
    random.Random(seed).shuffle(order)
    order.sort(key=lambda source: -len(groups[source]))
    totals = Counter(label for clip in clips for label in clip.labels)
    counts: list[Counter[str]] = [Counter() for _ in shares]
    sizes = [0.0] * len(shares)
    result = {}
    for members in (groups[source] for source in order):
        labels = Counter(label for clip in members for label in clip.labels)

        def wanting(part: int, labels: Counter[str] = labels) -> tuple[float, float, int]:
            lacks = sum((shares[part] - counts[part][label] / totals[label]) * n for label, n in labels.items())
            return lacks if shares[part] > 0 else -math.inf, shares[part] - sizes[part], -part

        part = max(range(len(shares)), key=wanting)
        counts[part].update(labels)
        sizes[part] += len(members) / len(clips)
        result.update(dict.fromkeys(members, part))
    return result


def lacking(labels: Iterable[str], there: Collection[str], where: str) -> list[str]:
    """A message on the classes without a clip `where`; none if there are none."""
    missing = [label for label in labels if label not in there]
    if not missing:
        return []
    more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
    return [f"Classes without a clip {where}: {', '.join(missing[:5])}{more}."]


def count(splits: Iterable[str]) -> dict[str, int]:
    """Number of clips of each split, in the order train, val, test."""
    found = Counter(splits)
    return {split: found[split] for split in SPLITS}
