"""What a trainer should know of the numbers of clips in each class and split; said by `prepare` and by `inspect`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from soundsight.datasets.split import SPLITS

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


def about_counts(counts: Mapping[str, Mapping[str, int]]) -> list[tuple[str, str]]:
    """Findings ("bad" or "look", message) on clips by label and split."""
    findings = []
    empty = {label for label, numbers in counts.items() if not sum(numbers.values())}
    for split in SPLITS:
        lacking = [label for label, numbers in counts.items() if not numbers[split] and label not in empty]
        if lacking and any(numbers[split] for numbers in counts.values()):
            findings.append(("bad", f"Classes without a clip in {split}: {len(lacking)}, such as {lacking[0]!r}."))
    few = [label for label, numbers in counts.items() if 0 < numbers["train"] < FEW_CLIPS]
    if few:
        findings.append(
            ("look", f"Classes with fewer than {FEW_CLIPS} clips in train: {len(few)}, such as {few[0]!r}.")
        )
    if counts and imbalance(counts) >= IMBALANCED:
        text = f"The largest class has {imbalance(counts):.1f} times the clips of the smallest"
        findings.append(("look", f"{text}; augment.balance=sampler or weights makes up for it."))
    return findings
