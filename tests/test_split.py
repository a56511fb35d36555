"""Splits: cases whose prediction is known by hand, and the facts of ESC-50."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from soundsight.config import DatasetConfig, SplitConfig
from soundsight.datasets.catalogue import Catalogue, Clip, kinds, read_catalogue
from soundsight.datasets.split import assign, count, find_leaks, folds, with_group_folds
from soundsight.errors import ConfigError, DatasetError

HALVES = (0.5, 0.5, 0.0)


def clip(name: str, label: str = "x", source: str | None = None, fold: int | None = None) -> Clip:
    return Clip(Path(f"/{name}"), name, label, name, source or name, fold)


def catalogue(*clips: Clip) -> Catalogue:
    return Catalogue("tiny", clips)


def numbered(*sizes: int, label: str = "x") -> list[Clip]:
    """Sources s0, s1, ... with so many clips each."""
    return [clip(f"{label}{s}-{n}", label, f"{label}{s}") for s, size in enumerate(sizes) for n in range(size)]


# Given folds


def test_folds_go_where_the_settings_send_them() -> None:
    clips = [clip(f"c{fold}", fold=fold) for fold in (1, 2, 3, 4, 5)]
    splits = assign(catalogue(*clips), SplitConfig(train=(1, 2), val=(5,), test=(4,)))
    assert {c.name: split for c, split in splits.items()} == {"c1": "train", "c2": "train", "c5": "val", "c4": "test"}


def test_a_fold_that_does_not_exist() -> None:
    clips = [clip(f"c{fold}", fold=fold) for fold in (1, 2, 7)]
    with pytest.raises(DatasetError, match=r"split.val names fold 4, which tiny does not have; it has folds 1, 2, 7"):
        assign(catalogue(*clips), SplitConfig(train=(1,), val=(4,), test=(7,)))


def test_clips_without_folds() -> None:
    with pytest.raises(DatasetError, match=r"a has no fold; use split.strategy=group, or name the fold column"):
        assign(catalogue(clip("a")), SplitConfig())


def test_a_fold_in_two_splits_is_refused_at_the_door() -> None:
    with pytest.raises(ConfigError, match=r"fold 4 is in both split.val and split.test"):
        SplitConfig(val=(4,), test=(4, 5))


# Groups


def test_groups_stay_whole_and_shares_are_met() -> None:
    clips = numbered(3, 3, 2, 2, 1, 1)  # twelve clips of six sources
    splits = assign(catalogue(*clips), SplitConfig(strategy="group", fractions=HALVES))
    assert count(splits.values()) == {"train": 6, "val": 6, "test": 0}
    assert not find_leaks(splits)


def test_groups_are_dealt_class_by_class() -> None:
    clips = [*numbered(*[1] * 10, label="dog"), *numbered(*[2] * 5, label="cat")]
    splits = assign(catalogue(*clips), SplitConfig(strategy="group"))
    by_class = Counter((c.label, split) for c, split in splits.items())
    assert by_class == {
        ("dog", "train"): 6,
        ("dog", "val"): 2,
        ("dog", "test"): 2,
        ("cat", "train"): 6,
        ("cat", "val"): 2,
        ("cat", "test"): 2,
    }


def test_a_source_of_two_classes_stays_whole() -> None:
    clips = [clip("a", "dog", "field"), clip("b", "cat", "field"), clip("c", "dog"), clip("d", "cat")]
    splits = assign(catalogue(*clips), SplitConfig(strategy="group", fractions=HALVES))
    assert splits[clips[0]] == splits[clips[1]]
    assert count(splits.values()) == {"train": 2, "val": 2, "test": 0}


def test_one_source_goes_to_one_split() -> None:
    splits = assign(catalogue(*numbered(9)), SplitConfig(strategy="group"))
    assert len(set(splits.values())) == 1


def test_groups_do_not_depend_on_the_order_of_the_table() -> None:
    clips = [*numbered(3, 1, 4, 1, 5), *numbered(2, 6, label="y")]
    config = SplitConfig(strategy="group", seed=3)
    assert assign(catalogue(*clips), config) == assign(catalogue(*reversed(clips)), config)


def test_a_seed_deals_anew() -> None:
    clips = numbered(*[1] * 40)
    first, second = (assign(catalogue(*clips), SplitConfig(strategy="group", seed=s)) for s in (0, 1))
    assert first != second
    assert count(first.values()) == count(second.values()) == {"train": 24, "val": 8, "test": 8}


def test_folds_made_of_groups() -> None:
    made = with_group_folds(catalogue(*numbered(*[2] * 10)), 5)
    assert Counter(c.fold for c in made.clips) == dict.fromkeys((1, 2, 3, 4, 5), 4)
    assert folds(made) == [1, 2, 3, 4, 5]
    assert not find_leaks({c: f"fold {c.fold}" for c in made.clips})


# Random, for comparison


def test_random_splits_each_class_by_its_fractions() -> None:
    clips = [*numbered(10, label="dog"), *numbered(20, label="cat")]
    splits = assign(catalogue(*clips), SplitConfig(strategy="random", fractions=(0.8, 0.2, 0.0)))
    assert Counter((c.label, s) for c, s in splits.items()) == {
        ("dog", "train"): 8,
        ("dog", "val"): 2,
        ("cat", "train"): 16,
        ("cat", "val"): 4,
    }


@pytest.mark.parametrize("clips", range(1, 30))
def test_random_gives_nothing_to_a_split_without_a_share(clips: int) -> None:
    splits = assign(catalogue(*numbered(clips)), SplitConfig(strategy="random", fractions=HALVES))
    assert count(splits.values())["test"] == 0
    assert len(splits) == clips


# Leaks


def test_leaks_are_counted() -> None:
    splits = {
        clip("a", source="s"): "train",
        clip("b", source="s"): "val",
        clip("c", source="s"): "test",
        clip("d", source="t"): "val",
        clip("e", source="t"): "test",
        clip("f"): "val",
    }
    leaks = find_leaks(splits, frozenset({"t"}))
    assert (leaks.known, leaks.unknown, leaks.clips) == (("t",), ("s",), 2)
    assert leaks and not find_leaks({clip("a"): "train"})


def on_disk(root: Path, name: str, content: bytes, label: str = "dog", source: str | None = None) -> Clip:
    (root / name).write_bytes(content)
    return replace(clip(name, label, source), path=root / name)


def test_equal_files_leak_whatever_their_names_and_labels(tmp_path: Path) -> None:
    big = bytes(range(256)) * 200  # more than what is compared at first
    a, b = (on_disk(tmp_path, name, big) for name in ("a.wav", "b.wav"))
    c = on_disk(tmp_path, "c.wav", big, "wolf")
    alike = on_disk(tmp_path, "d.wav", big[:-1] + b"x")  # of the same size and beginning
    leaks = find_leaks({a: "train", b: "val", alike: "val"})
    assert (leaks.copies, leaks.two_labels, leaks.clips, leaks.unknown) == ((("a.wav", "b.wav"),), (), 1, ())
    assert leaks and "a.wav and b.wav" in leaks.warnings("split")[0]
    leaks = find_leaks({a: "train", c: "train", alike: "train"})
    assert not leaks and leaks.two_labels == (("a.wav (dog)", "c.wav (wolf)"),)
    assert "a.wav (dog) and c.wav (wolf)" in leaks.warnings("split")[0]
    assert not find_leaks({a: "train", alike: "val"}).copies


def test_overlapping_stretches_of_one_file_leak_although_their_groups_differ(tmp_path: Path) -> None:
    def stretch(start: float, end: float | None, label: str = "dog") -> Clip:
        made = on_disk(tmp_path, "long.wav", b"long", label, source=f"{start}")
        return replace(made, name=f"{start}", start_seconds=start, end_seconds=end)

    leaks = find_leaks({stretch(0, 5): "train", stretch(3, 8): "val", stretch(20, 25): "test"})
    assert leaks.copies == (("long.wav", "long.wav at 3 s"),) and leaks.clips == 1
    assert not find_leaks({stretch(0, 5): "train", stretch(5, 10): "val"})  # end to end
    assert not find_leaks({stretch(0, None): "train", stretch(6, None): "val"}, clip_seconds=5)
    assert find_leaks({stretch(0, None): "train", stretch(6, None): "val"}, clip_seconds=7)
    both = find_leaks({stretch(0, 5): "train", stretch(0.5, 5, "wolf"): "train"})
    assert not both.two_labels  # two animals at once


def test_a_group_split_keeps_copies_together(tmp_path: Path) -> None:
    clips = [on_disk(tmp_path, f"{n}.wav", f"sound {n // 4}".encode()) for n in range(80)]  # four names of each sound
    splits = assign(Catalogue("", clips), SplitConfig(strategy="group"))
    assert not find_leaks(splits) and len(set(splits.values())) == 3
    folded = with_group_folds(Catalogue("", clips), 4)
    assert not find_leaks({c: str(c.fold) for c in folded.clips})


# ESC-50


@pytest.fixture(scope="module")
def clips_of_esc50(esc50: Path) -> Catalogue:
    return read_catalogue(DatasetConfig(root=str(esc50)))


def test_esc50_is_whole(clips_of_esc50: Catalogue) -> None:
    assert len(clips_of_esc50.clips) == 2000 and not clips_of_esc50.failures
    assert Counter(Counter(c.label for c in clips_of_esc50.clips).values()) == {40: 50}
    assert Counter(c.fold for c in clips_of_esc50.clips) == dict.fromkeys((1, 2, 3, 4, 5), 400)
    assert len({c.source for c in clips_of_esc50.clips}) == 1524


def test_four_sources_of_esc50_cross_its_folds(clips_of_esc50: Catalogue) -> None:
    leaks = find_leaks({c: f"fold {c.fold}" for c in clips_of_esc50.clips}, clips_of_esc50.shared_sources)
    assert frozenset(leaks.known) == kinds()["esc50"].shared_groups == {"131943", "134049", "209698", "234879"}
    assert not leaks.unknown


def test_a_random_split_of_esc50_leaks_a_third_of_its_validation_clips(clips_of_esc50: Catalogue) -> None:
    shares = []
    for seed in range(5):
        config = SplitConfig(strategy="random", fractions=(0.8, 0.2, 0.0), seed=seed)
        splits = assign(clips_of_esc50, config)
        assert count(splits.values()) == {"train": 1600, "val": 400, "test": 0}
        shares.append(find_leaks(splits).clips / 400)
    assert all(0.30 < share < 0.42 for share in shares)
    assert 0.33 < sum(shares) / 5 < 0.38


def test_a_group_split_of_esc50_leaks_nothing_and_is_even(clips_of_esc50: Catalogue) -> None:
    splits = assign(clips_of_esc50, SplitConfig(strategy="group"))
    assert not find_leaks(splits)
    assert count(splits.values()) == {"train": 1200, "val": 400, "test": 400}
    assert set(Counter((c.label, s) for c, s in splits.items()).values()) == {24, 8}


def test_esc10_is_the_official_subset(clips_of_esc50: Catalogue) -> None:
    root = str(clips_of_esc50.clips[0].path.parents[1])
    subset = read_catalogue(DatasetConfig(kind="esc10", root=root))
    assert len(subset.clips) == 400 and len(subset.labels) == 10
    assert not find_leaks({c: f"fold {c.fold}" for c in subset.clips}, subset.shared_sources).unknown
