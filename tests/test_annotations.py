"""Annotated recordings: segments labelled by overlap, several classes per clip, background, and bad input."""

from __future__ import annotations

import csv
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from soundsight import audio
from soundsight.cli import main
from soundsight.config import BACKGROUND, DatasetConfig, SpectrogramConfig, SplitConfig
from soundsight.datasets import manifest
from soundsight.datasets.annotations import cut_rows, cut_segments, stretches
from soundsight.datasets.catalogue import Clip, read_catalogue
from soundsight.datasets.prepare import Prepared, prepare
from soundsight.errors import ConfigError, DatasetError
from soundsight.inference.segments import cut
from soundsight.spectrogram import render

RATE = 8000
IMAGES = SpectrogramConfig(sample_rate=RATE, clip_seconds=1.0, image_size=32, n_fft=1024)
RAVEN = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tSpecies\n"
DURATION = {"a.wav": (20.0, "")}


def row(label: str, start: float = 0.0, end: float | None = None, file: str = "a.wav", **more: object) -> Clip:
    name = "a" if end is None else f"a@{start:.1f}"
    further = tuple(label.split("+")[1:])
    values = {"path": Path("/") / file, "file": file, "name": name, "source": file, "further_labels": further}
    return Clip(**{**values, **more}, label=label.split("+")[0], start_seconds=start, end_seconds=end)  # type: ignore


def found(clips: object) -> list[tuple[float, float | None, tuple[str, ...]]]:
    return [(clip.start_seconds, clip.end_seconds, clip.labels) for clip in clips]  # type: ignore[attr-defined]


# Segments


@settings(deadline=None)
@given(
    samples=st.integers(1, 9000),
    window=st.sampled_from([1.0, 2.0, 5.0]),
    hop=st.sampled_from([0.1, 0.25, 0.37, 0.5, 1.0]),
)
def test_segments_are_those_that_predict_cuts(samples: int, window: float, hop: float) -> None:
    rate = 1000
    config = SpectrogramConfig(sample_rate=rate, clip_seconds=window, image_size=128, n_fft=64, windows_ms=(9, 16, 25))
    sound = np.zeros(samples, np.float32)
    predicted = cut([sound], rate, config, window_seconds=window, hop_seconds=window * hop)
    expected = [(segment.start_seconds, min(segment.end_seconds, samples / rate)) for segment in predicted]
    np.testing.assert_allclose(stretches(0.0, samples / rate, window, window * hop), expected, rtol=0, atol=1e-5)


LABEL = st.tuples(st.sampled_from("ABC"), st.integers(0, 2400), st.integers(1, 900))


@settings(deadline=None, max_examples=200)
@given(
    labels=st.lists(LABEL, max_size=6),
    duration=st.integers(30, 2500),
    clip=st.sampled_from([100, 300, 500]),
    hop=st.sampled_from([None, 50, 100]),
    seconds=st.sampled_from([0.0, 0.01, 0.25, 1.0, 60.0]),
    fraction=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]),
    complete=st.booleans(),
    mode=st.sampled_from(["auto", "multi"]),
)
def test_labels_by_overlap_equal_the_definition(labels, duration, clip, hop, seconds, fraction, complete, mode) -> None:
    """Times in hundredths of a second; the reference asks each hundredth of each class, and counts with fractions."""
    rules = DatasetConfig(
        kind="table",
        hop_seconds=None if hop is None else hop / 100,
        min_overlap_seconds=seconds,
        min_overlap_fraction=fraction,
        annotated="complete" if complete else "labelled",
        labels=mode,
    )
    rows = [row(label, start / 100, (start + length) / 100) for label, start, length in labels]
    rows += [row("A", 0.0, 0.01)]
    done = cut_segments(rows, rules, clip / 100, {"a.wav": (duration / 100, "")})

    marked: dict[str, set[int]] = {name: set() for name in "ABC"}
    for label, start, length in [*labels, ("A", 0, 1)]:
        if start < duration:
            marked[label] |= set(range(start, min(start + length, duration)))
    expected = []
    for begin, end in stretches(0.0, duration / 100, clip / 100, (hop or clip) / 100):
        here = range(round(begin * 100), round(end * 100))
        classes, little = set(), set()
        for name, ticks in marked.items():
            for run in runs(ticks):
                shared = len(run & set(here))
                shorter = min(len(run), len(here))
                if shared and (shared >= Fraction(str(seconds)) * 100 or shared >= Fraction(fraction) * shorter):
                    classes.add(name)
                elif shared:
                    little.add(name)
        if not little - classes and (classes or complete):
            expected.append((begin, end, tuple(sorted(classes))))
    multi = mode == "multi" or any(len(classes) > 1 for *_, classes in expected)
    assert done.multi == multi
    if not multi:
        expected = [(begin, end, classes or (BACKGROUND,)) for begin, end, classes in expected]
    assert found(done.row_of) == expected
    past = sorted(start for _, start, _ in labels if start >= duration)
    assert len(done.failures) == len(past)


def runs(ticks: set[int]) -> list[set[int]]:
    """Sets of numbers without a gap."""
    result: list[set[int]] = []
    for tick in sorted(ticks):
        if result and tick - 1 in result[-1]:
            result[-1].add(tick)
        else:
            result.append({tick})
    return result


def test_overlaps_by_hand() -> None:
    rows = [row("owl", 4.8, 9.0), row("fox", 9.9, 10.0), row("owl", 8.0, 9.5), row("bat", 14.5, 15.4)]
    done = cut_segments(rows, DatasetConfig(kind="table"), 5.0, DURATION)
    # 0.2 s of 4.7 s of owl in the first segment are too little to count and too much for none.
    assert found(done.row_of) == [(5.0, 10.0, ("fox", "owl")), (10.0, 15.0, ("bat",)), (15.0, 20.0, ("bat",))]
    assert done.multi and done.notes == [
        "Segments of 5 s every 5 s, labelled by overlap (cut=rows: one clip per row); left out where a label "
        "overlaps too little to count: 1; labels joined with another of their class that they overlap or touch: 1.",
        "Multi-label data: 1 of 3 clips have several classes.",
    ]
    assert [clip.name for clip in done.row_of] == ["a@5.0", "a@10.0", "a@15.0"]


def test_background_is_what_is_declared_to_be() -> None:
    rows = [row("owl", 1, 3), row("", file="b.wav"), row(BACKGROUND, 10, 20)]
    lengths = {"a.wav": (20.0, ""), "b.wav": (9.0, "")}
    labelled = cut_segments(rows, DatasetConfig(kind="table", labels="multi"), 5.0, lengths)
    assert [(clip.file, *part) for clip, part in zip(labelled.row_of, found(labelled.row_of), strict=True)] == [
        ("a.wav", 0.0, 5.0, ("owl",)),
        ("a.wav", 10.0, 15.0, ()),  # a label says so
        ("a.wav", 15.0, 20.0, ()),
        ("b.wav", 0.0, 5.0, ()),  # its table is empty
        ("b.wav", 5.0, 9.0, ()),
    ]
    assert "background: 4; left out without label: 1 (annotated=complete makes them" in labelled.notes[0]
    complete = cut_segments(rows, DatasetConfig(kind="table", annotated="complete"), 5.0, lengths)
    assert found(complete.row_of)[1] == (5.0, 10.0, (BACKGROUND,)) and not complete.multi


def test_labels_that_end_or_begin_after_the_recording() -> None:
    rows = [row("owl", 18, 21), row("fox", 20, 22), row("owl", 19.9, 20.04)]
    done = cut_segments(rows, DatasetConfig(kind="table"), 5.0, DURATION)
    assert found(done.row_of) == [(15.0, 20.0, ("owl",))]
    assert done.failures == [("a.wav", "the label 'fox' begins at 20 s, after the end at 20 s")]
    assert "labels that count up to the end of their recording only: 1." in done.notes[0]
    assert done.notes[1] == "Classes that no segment is left of: fox."


def test_a_recording_stays_on_one_side() -> None:
    with pytest.raises(DatasetError, match=r"Rows of a.wav name two values of its fold, 1 and 2 \(at 3 s\).*cut=rows"):
        cut_segments([row("owl", 1, 2, fold=1), row("fox", 3, 4, fold=2)], DatasetConfig(), 5.0, DURATION)
    with pytest.raises(DatasetError, match="two values of its group, 'x' and 'y'"):
        cut_segments([row("owl", 1, 2, source="x"), row("fox", 3, 4, source="y")], DatasetConfig(), 5.0, DURATION)


def test_a_hop_that_skips_is_refused() -> None:
    with pytest.raises(ConfigError, match="hop_seconds=6 is longer than clip_seconds=5, so what lies between"):
        cut_segments([row("owl", 1, 2)], DatasetConfig(hop_seconds=6.0), 5.0, DURATION)
    with pytest.raises(ConfigError, match="hop_seconds has no effect with cut=rows"):
        cut_rows([row("owl", 1, 2)], DatasetConfig(hop_seconds=4.0, cut="rows"), 5.0)


# One class per clip, or several


def test_one_class_per_clip_where_several_are_there() -> None:
    single = DatasetConfig(kind="table", labels="single")
    both = [row("owl", 1, 4), row("fox", 2, 6)]
    message = r"a.wav holds 'owl' \(from 1 to 4 s\) and 'fox' \(from 2 to 6 s\) at the same time, but labels=single"
    with pytest.raises(DatasetError, match=message):
        cut_segments(both, single, 5.0, DURATION)
    with pytest.raises(DatasetError, match=message):
        cut_rows(both, replace(single, cut="rows"), 5.0)
    one_after_the_other = [row("owl", 1, 2), row("fox", 3, 4), row("owl", 6, 7)]
    done = cut_segments(one_after_the_other, single, 5.0, DURATION)
    assert found(done.row_of) == [(5.0, 10.0, ("owl",))]
    assert "left out with two classes one after the other: 1 (labels=multi keeps them)" in done.notes[0]


def test_one_clip_per_row_has_the_classes_of_all_that_overlap() -> None:
    rules = DatasetConfig(kind="table", cut="rows")
    same = cut_rows([row("owl", 1, 4), row("fox", 1, 4), row("bat", 3.9, 5)], rules, 5.0)
    assert found(same.row_of) == [(1, 4, ("fox", "owl")), (3.9, 5, ("bat",))] and same.multi
    assert same.notes == ["Multi-label data: 1 of 2 clips have several classes."]
    former = cut_rows([row("owl", 1, 4), row("fox", 3.9, 5), row("", file="b.wav")], rules, 5.0)
    assert found(former.row_of) == [(1, 4, ("owl",)), (3.9, 5, ("fox",))] and not former.multi
    assert former.notes == ["Recordings without any label, left out: 1 (cut=segments makes them background)."]


def table(root: Path, text: str, **more: object) -> DatasetConfig:
    root.mkdir(exist_ok=True)
    (root / "labels.csv").write_text(text)
    for name in ("a.wav", "b.wav", "c.wav"):
        if not (root / name).exists():
            noise = np.random.default_rng(ord(name[0])).normal(0, 0.1, 6 * RATE).clip(-1, 1)
            soundfile.write(root / name, noise, RATE)
    folders = {"root": str(root), "cache": str(root.parent / "cache"), "data": str(root.parent / "data")}
    values = {"kind": "table", "table": "labels.csv", "split": SplitConfig(strategy="group", fractions=(0.4, 0.3, 0.3))}
    return DatasetConfig(**{**values, **folders, **more})  # type: ignore[arg-type]


def run(config: DatasetConfig, images: SpectrogramConfig = IMAGES) -> Prepared:
    return prepare(config, images, workers=1)


def test_two_rows_of_whole_recordings(tmp_path: Path) -> None:
    text = "file,label\na.wav,owl\nb.wav,fox\na.wav,fox\n"
    catalogue = read_catalogue(table(tmp_path / "sounds", text))
    assert [(clip.file, clip.labels) for clip in catalogue.clips] == [("a.wav", ("fox", "owl")), ("b.wav", ("fox",))]
    assert catalogue.multi and "Multi-label data: 1 of 2 recordings have several classes." in catalogue.notes
    with pytest.raises(DatasetError, match=r"One row calls a.wav 'owl' and another 'fox', but labels=single allows"):
        read_catalogue(table(tmp_path / "sounds", text, labels="single"))


# The folder that training reads


@pytest.fixture
def night(tmp_path: Path) -> DatasetConfig:
    """Six recordings of 6 s with an owl and a fox at times, a seventh with an empty table."""
    root = tmp_path / "sounds"
    for number in range(7):
        noise = np.random.default_rng(number).normal(0, 0.1, 6 * RATE).clip(-1, 1)
        root.mkdir(exist_ok=True)
        soundfile.write(root / f"{number}.wav", noise, RATE)
        rows = "1\tS 1\t1\t0.5\t2\t0\t4000\towl\n2\tS 1\t1\t1.2\t2.9\t0\t4000\tfox\n" if number else ""
        (root / f"{number}.Table.1.selections.txt").write_text(RAVEN + rows)
    folders = {"root": str(root), "cache": str(tmp_path / "cache"), "data": str(tmp_path / "data")}
    split = SplitConfig(strategy="group", fractions=(0.6, 0.2, 0.2))
    return DatasetConfig(kind="table", table="*.txt", annotated="complete", split=split, **folders)


def layout(data: Path) -> dict[str, set[str]]:
    """The folders of each image, by split and name."""
    result: dict[str, set[str]] = {}
    for path in data.glob("*/*/*.png"):
        result.setdefault(f"{path.parent.parent.name}/{path.name}", set()).add(path.parent.name)
    return result


def test_an_image_lies_in_the_folder_of_each_of_its_classes(night: DatasetConfig) -> None:
    done = run(night)
    assert (done.labels, done.multi, done.background) == (["fox", "owl"], True, 6 + 6 * 3)
    found_in = layout(done.data)
    assert len(found_in) == 7 * 6 == sum(done.counts.values())
    assert {tuple(sorted(folders)) for folders in found_in.values()} == {
        ("background",),
        ("fox", "owl"),
        ("owl",),
        ("fox",),
    }
    for number in range(1, 7):
        folders = {name.split("/")[1]: places for name, places in found_in.items() if f"/{number}@" in name}
        expected = {"0.0": {"owl"}, "1.0": {"owl", "fox"}, "2.0": {"fox"}}
        assert folders == {
            f"{number}@{start:.1f}.png": expected.get(f"{start:.1f}", {"background"}) for start in range(6)
        }
    name = next(name for name, places in found_in.items() if len(places) == 2)
    split, file = name.split("/")
    assert (done.data / split / "owl" / file).samefile(done.data / split / "fox" / file)
    assert len(list(done.cache.rglob("*.png"))) == 42  # each image once
    sides = {name.split("/")[1].split("@")[0]: set() for name in found_in}  # type: dict[str, set[str]]
    for name in found_in:
        sides[name.split("/")[1].split("@")[0]].add(name.split("/")[0])
    assert all(len(side) == 1 for side in sides.values()) and not done.leaks

    saved = manifest.read_settings(done.data)
    assert saved["label_mode"] == "multi" and saved["labels"] == ["fox", "owl"] and manifest.is_multi(done.data)
    rows = manifest.read_rows(done.data / manifest.MANIFEST)
    assert {row.label for row in rows} == {"", "owl", "fox", "fox;owl"}
    assert {row.labels(multi=True) for row in rows} == {(), ("owl",), ("fox",), ("fox", "owl")}
    assert manifest.counts(rows, multi=True)["background"]["train"] > 0


def test_segments_have_the_context_of_their_recording(night: DatasetConfig) -> None:
    """An image of prepare is, byte for byte, what `predict` renders of that segment."""
    done = run(night)
    samples, _ = soundfile.read(Path(night.root) / "3.wav", dtype="float32")
    for start in range(6):
        name = next(done.cache.rglob(f"3@{start}.0.png"))
        image = cv2.cvtColor(cv2.imread(str(name)), cv2.COLOR_BGR2RGB)
        assert np.array_equal(image, render(samples[start * RATE : (start + 1) * RATE], IMAGES))


def test_a_second_run_does_no_work_and_other_labels_move_links_only(night: DatasetConfig) -> None:
    before = layout(run(night).data)
    again = run(night)
    assert (again.rendered, again.kept) == (0, 42) and layout(again.data) == before
    table = Path(night.root) / "2.Table.1.selections.txt"
    table.write_text(RAVEN + "1\tS 1\t1\t4\t5\t0\t4000\tfox\n")
    changed = run(night)
    folders = {name.split("@")[1]: places for name, places in layout(changed.data).items() if "/2@" in name}
    assert folders.pop("4.0.png") == {"fox"} and set(map(tuple, folders.values())) == {("background",)}
    assert len(list(changed.cache.rglob("*.png"))) == 42 and len(layout(changed.data)) == 42
    single = run(replace(night, cut="rows", labels="multi", annotated="labelled"))
    assert "background" not in {folder for places in layout(single.data).values() for folder in places}


def test_other_speeds_and_other_segments(night: DatasetConfig) -> None:
    done = run(replace(night, speed_perturbation=(0.9,)))
    assert done.versions == done.counts["train"]
    found_in = layout(done.data)
    slow = {name: places for name, places in found_in.items() if "@x0.9" in name}
    assert len(slow) == done.versions and all(name.startswith("train/") for name in slow)
    assert all(places == found_in[name.replace("@x0.9", "")] for name, places in slow.items())
    half = run(replace(night, hop_seconds=0.5))
    assert sum(half.counts.values()) == 7 * 11 and half.rendered == 7 * 5
    assert not list(Path(night.data).rglob("*x0.9*")) and not list(Path(night.cache).rglob("*x0.9*"))


def test_damage_and_strangers(night: DatasetConfig) -> None:
    (Path(night.root) / "4.wav").write_bytes(b"no sound")
    done = run(night)
    ((file, reason),) = done.failures
    assert file == "4.wav" and "4.wav" in reason and sum(done.counts.values()) == 36
    stranger = done.data / "train" / "owl" / "mine.png"
    stranger.write_bytes(b"mine")
    with pytest.raises(ConfigError, match=r"holds 1 files that `prepare` did not"):
        run(night)
    stranger.unlink()
    with pytest.raises(ConfigError, match="--replace"):
        run(replace(night, root=str(Path(night.root).parent), table="sounds/*.txt"))


def test_torchvision_reads_each_image_in_each_of_its_folders(night: DatasetConfig) -> None:
    from torchvision.datasets import ImageFolder

    done = run(night)
    splits = [ImageFolder(str(done.data / split)) for split in ("train", "val", "test")]
    assert {tuple(split.classes) for split in splits} == {("background", "fox", "owl")}
    assert sum(map(len, splits)) == 42 + 6  # six images have two classes


def test_copies_on_two_sides_are_kept_together(night: DatasetConfig) -> None:
    root = Path(night.root)
    (root / "6.wav").write_bytes((root / "1.wav").read_bytes())
    (root / "6.Table.1.selections.txt").write_text(RAVEN + "1\tS 1\t1\t5\t6\t0\t4000\tfox\n")  # elsewhere
    done = run(night)
    sides = {name.split("/")[0] for name in layout(done.data) if name.split("/")[1][:2] in ("1@", "6@")}
    assert len(sides) == 1 and not done.leaks.copies
    assert done.leaks.two_labels  # what is an owl in one is background in the other


def test_a_folder_of_classes_as_multi_label_data(tmp_path: Path) -> None:
    for label in ("owl", "fox", "background"):
        for number in range(5):
            path = tmp_path / "sounds" / label / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(len(label) * 10 + number).normal(0, 0.1, RATE).clip(-1, 1)
            soundfile.write(path, noise, RATE)
    folders = {"root": str(tmp_path / "sounds"), "cache": str(tmp_path / "cache"), "data": str(tmp_path / "data")}
    config = DatasetConfig(kind="folder", labels="multi", split=SplitConfig(strategy="group"), **folders)
    done = run(config)
    assert (done.labels, done.background, done.multi, done.problem) == (["fox", "owl"], 5, True, "")
    assert {places.pop() for places in layout(done.data).values()} == {"owl", "fox", "background"}
    assert run(replace(config, labels="auto")).labels == ["background", "fox", "owl"]
    assert "label_mode" not in manifest.read_settings(config.data)


def test_what_no_model_can_be_trained_on(tmp_path: Path) -> None:
    done = run(table(tmp_path / "sounds", "file,start,end,label\na.wav,0,1,owl\na.wav,0,1,fox\nb.wav,2,3,owl\n"))
    (text,) = [text for tone, text in done.findings if "only, which cannot be split: 1, such as 'fox'" in text]
    assert text.startswith("Classes found in one recording (or group)")
    one = run(table(tmp_path / "sounds", "file,start,end,label\na.wav,0,1,owl\nb.wav,2,3,owl\n", labels="multi"))
    assert one.problem.startswith("there is only one class, 'owl'; add recordings of another, such as background")
    both = table(tmp_path / "sounds", "file,start,end,label\na.wav,0,1,owl\nb.wav,2,3,owl\n", annotated="complete")
    assert not run(replace(both, labels="multi")).problem


def test_a_label_with_a_semicolon(tmp_path: Path) -> None:
    text = "file,start,end,label\na.wav,0,1,owl;male\na.wav,0,1,fox\nb.wav,2,3,owl;male\n"
    with pytest.raises(DatasetError, match="The label 'owl;male' holds a semicolon, which parts labels here; rename"):
        run(table(tmp_path / "sounds", text))
    assert run(table(tmp_path / "sounds", text.replace("a.wav,0,1,fox\n", ""))).labels == ["owl;male"]


def test_inspect_counts_clips_and_classes(night: DatasetConfig) -> None:
    from soundsight.cli.inspect import summary
    from soundsight.evaluation.inspect import inspect

    found = inspect(night, IMAGES, workers=1)
    lines = "\n".join(summary(found))
    assert "6 clips have several classes, 24 have none and are background" in lines
    assert sum(int(word) for word in lines.split("  split ")[1].split(" (by")[0].split() if word.isdigit()) == 42
    assert sum(found.counts["owl"].values()) == sum(found.counts["fox"].values()) == 12


def test_real_sounds_of_two_minutes(esc50: Path, tmp_path: Path) -> None:
    """Sounds of ESC-50 over noise, with Raven's tables: each segment has the classes that it holds."""
    with open(esc50 / "meta" / "esc50.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    random = np.random.default_rng(0)
    root = tmp_path / "sounds"
    root.mkdir()
    truth = {}
    for site in range(2):
        sound = random.normal(0, 0.002, 120 * 16000)
        truth[f"site{site}.wav"] = events = []
        for label, start in (
            ("dog", 3),
            ("rooster", 6.5),
            ("dog", 31),
            ("church_bells", 33),
            ("rooster", 88),
            ("dog", 119),
        ):
            name = random.choice([r["filename"] for r in rows if r["category"] == label and r["fold"] == str(site + 1)])
            clip, rate = soundfile.read(esc50 / "audio" / name)
            clip = audio.resample(clip.astype(np.float32), rate, 16000)[: 16000 * 4][: round((120 - start) * 16000)]
            sound[round(start * 16000) :][: len(clip)] += 0.5 * clip
            events.append((label, start, start + len(clip) / 16000))
        soundfile.write(root / f"site{site}.wav", sound.clip(-1, 1), 16000)
        text = "".join(f"{n}\tS 1\t1\t{a}\t{b}\t0\t8000\t{c}\n" for n, (c, a, b) in enumerate(events))
        (root / f"site{site}.txt").write_text(RAVEN + text)
    folders = {"root": str(root), "cache": str(tmp_path / "cache"), "data": str(tmp_path / "data")}
    split = SplitConfig(strategy="group", fractions=(0.5, 0.5, 0.0))
    config = DatasetConfig(kind="table", table="*.txt", annotated="complete", hop_seconds=2.5, split=split, **folders)
    done = run(config, SpectrogramConfig(image_size=64))
    assert done.labels == ["church_bells", "dog", "rooster"] and done.multi and not done.failures and not done.problem
    found = manifest.read_rows(done.data / manifest.MANIFEST)
    assert len(found) == 2 * 47 == sum(done.counts.values())
    for row in found:
        start, end = row.start_seconds, float(row.end_seconds)
        held = {label for label, a, b in truth[row.file] if min(b, end) - max(a, start) >= 0.25}
        assert set(row.labels(multi=True)) == held
    assert sum(row.label == "church_bells;dog" for row in found) == 2 * 2
    assert {row.split for row in found if row.file == "site0.wav"} != {
        row.split for row in found if row.file == "site1.wav"
    }


def test_settings_without_effect_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="hop_seconds=1.0 is for tables with times, and labels has none"):
        read_catalogue(table(tmp_path / "sounds", "file,label\na.wav,owl\n", hop_seconds=1.0))


def test_many_rows_are_quick() -> None:
    """10,000 labels of 20 classes in one recording of a day; measured 0.9 s."""
    rows = [row(f"class {i % 20}", i * 8.5, i * 8.5 + 3) for i in range(10_000)]
    started = time.process_time()
    done = cut_segments(rows, DatasetConfig(kind="table"), 5.0, {"a.wav": (86_400.0, "")})
    assert time.process_time() - started < 5
    assert len(done.row_of) > 9_000


# Bad input, as a user types it


@pytest.mark.parametrize(
    ("rows", "code", "message"),
    [
        (["a.wav,8,9,fox"], 1, "failed: a.wav: the label 'fox' begins at 8 s, after the end at 6 s"),
        (["a.wav,5.5,7,owl"], 0, "labels that count up to the end of their recording only: 1"),
        (["a.wav,0.5,2.5,owl"], 0, "labels joined with another of their class that they overlap or touch: 1"),
        (
            ["a.wav,3,4,bat"],
            0,
            "Classes found in one recording (or group) only, which cannot be split: 1, such as 'bat'",
        ),
    ],
)
def test_bad_labels_are_told_once_and_the_rest_is_prepared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: list[str], code: int, message: str
) -> None:
    good = ["a.wav,1,2,owl", "a.wav,4,5,fox", "b.wav,1,2,owl", "b.wav,4,5,fox", "c.wav,1,2,fox", "c.wav,4,5,owl"]
    config = table(tmp_path / "sounds", "\n".join(["file,start,end,label", *good, *rows]) + "\n")
    words = [f"table={config.table}", f"data={config.data}", f"cache={config.cache}", "--workers", "1"]
    words += [f"sample_rate={RATE}", "clip_seconds=1", "image_size=32", "n_fft=1024", "split.fractions=0.4,0.3,0.3"]
    assert main(["prepare", config.root, *words]) == code
    said = capsys.readouterr()
    told = said.out + said.err
    assert told.count(message) == 1
    assert "Traceback" not in told and len(manifest.read_rows(Path(config.data) / manifest.MANIFEST)) >= 6


def test_nothing_annotated_at_all_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = table(tmp_path / "sounds", "")
    for name in "abc":
        (tmp_path / "sounds" / f"{name}.Table.1.selections.txt").write_text(RAVEN)
    assert main(["prepare", config.root, "table=*.txt", f"data={config.data}", f"cache={config.cache}"]) == 2
    assert "Nothing is annotated: the tables of 3 recordings, such as a.wav, hold no label" in (
        said := capsys.readouterr().err
    )
    assert len(said.splitlines()) == 1 and not (tmp_path / "data").exists()


def test_a_table_of_many_rows_is_read_quickly(tmp_path: Path) -> None:
    """10,000 rows of three recordings."""
    rows = [f"{'abc'[i % 3]}.wav,{i / 2000:.4f},{i / 2000 + 0.5:.4f},class {i % 20}" for i in range(10_000)]
    config = table(tmp_path / "sounds", "\n".join(["file,start,end,label", *rows]) + "\n")
    started = time.process_time()
    catalogue = read_catalogue(config)
    assert time.process_time() - started < 20
    assert len(catalogue.clips) == 10_000 and not catalogue.failures and len(catalogue.labels) == 20
