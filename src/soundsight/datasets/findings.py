"""What a trainer should know of the numbers of clips in each class and split; said by `prepare` and by `inspect`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from soundsight.datasets.split import SPLITS, Leaks, lacking

IMBALANCED = 3.0  # largest class over smallest
FEW_CLIPS = 8  # a class with fewer clips in train is hardly learnt


def imbalance(counts: Mapping[str, Mapping[str, int]]) -> float:
    """Clips of the largest class over those of the smallest; infinite where a class has none."""
    sizes = [sum(numbers.values()) for numbers in counts.values()]
    return max(sizes) / min(sizes) if min(sizes) else float("inf")


def about_groups(labelled: Iterable[tuple[str, Iterable[str]]]) -> list[tuple[str, str]]:
    """A finding on classes that one group has alone, from the group and the classes of each clip."""
    groups: dict[str, set[str]] = {}
    for group, labels in labelled:
        for label in labels:
            groups.setdefault(label, set()).add(group)
    alone = sorted(label for label, found in groups.items() if len(found) == 1)
    if not alone:
        return []
    text = f"Classes found in one recording (or group) only, which cannot be split: {len(alone)}, such as {alone[0]!r}"
    return [("bad", f"{text}; no score can tell how well they are known.")]


def about_leaks(leaks: Leaks) -> list[tuple[str, str]]:
    """Findings on what lies on both sides of a split."""
    findings = []
    if leaks.unknown:
        text = f"Source recordings in more than one split: {len(leaks.unknown)}. {leaks.clips} clips outside train have"
        findings.append(
            ("bad", f"{text} a sibling in it, so scores would flatter; split.strategy=group keeps them apart.")
        )
    if leaks.known:
        findings.append(("look", f"Source recordings known to lie in more than one split: {', '.join(leaks.known)}."))
    return findings + [("bad", text) for text in leaks.warnings("split")]


def about_counts(counts: Mapping[str, Mapping[str, int]]) -> list[tuple[str, str]]:
    """Findings ("bad" or "look", message) on clips by label and split."""
    findings = []
    used = {label: numbers for label, numbers in counts.items() if sum(numbers.values())}
    for split in SPLITS:
        there = [label for label, numbers in used.items() if numbers[split]]
        if there:
            findings += [("bad", text) for text in lacking(used, there, f"in {split}")]
    few = [label for label, numbers in counts.items() if 0 < numbers["train"] < FEW_CLIPS]
    if few:
        findings.append(
            ("look", f"Classes with fewer than {FEW_CLIPS} clips in train: {len(few)}, such as {few[0]!r}.")
        )
    if counts and imbalance(counts) >= IMBALANCED:
        text = f"The largest class has {imbalance(counts):.1f} times the clips of the smallest"
        findings.append(("look", f"{text}; augment.balance=sampler or weights makes up for it."))
    return findings
