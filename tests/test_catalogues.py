"""Catalogues of all kinds: what is listed, what is reported, and how long recordings are cut."""

from __future__ import annotations

import time
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
import soundfile

from soundsight.config import DatasetConfig, SplitConfig
from soundsight.datasets.catalogue import Catalogue, Clip, kinds, read_catalogue
from soundsight.datasets.segments import cut_clip, cut_windows
from soundsight.datasets.split import assign, folds
from soundsight.datasets.tables.rows import read_rows
from soundsight.errors import ConfigError, DatasetError

RATE = 8000


def record(path: Path, seconds: float = 0.1) -> Path:
    """Write a quiet recording."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(round(seconds * RATE), 0.1, np.float32), RATE)
    return path


def table(root: Path, text: str | bytes, name: str = "clips.csv", **settings: str) -> DatasetConfig:
    """Write a table and the settings that read it."""
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return DatasetConfig(kind="table", root=str(root), table=name, **settings)


def folder(root: Path, group_pattern: str = "") -> DatasetConfig:
    return DatasetConfig(kind="folder", root=str(root), group_pattern=group_pattern)


# ESC-50 and UrbanSound8K


def esc50(root: Path, rows: list[str]) -> DatasetConfig:
    (root / "meta").mkdir(parents=True)
    lines = ["filename,fold,target,category,esc10,src_file,take", *rows]
    (root / "meta" / "esc50.csv").write_text("\n".join(lines) + "\n")
    return DatasetConfig(root=str(root))


def test_esc50_is_read_from_its_table(tmp_path: Path) -> None:
    config = esc50(tmp_path, ["1-7-A-0.wav,1,0,dog,True,7,A", "2-8-A-1.wav,2,1,rooster,False,8,A"])
    record(tmp_path / "audio" / "1-7-A-0.wav")
    catalogue = read_catalogue(config)
    (clip,) = catalogue.clips
    assert (clip.label, clip.fold, clip.source, clip.file) == ("dog", 1, "7", "audio/1-7-A-0.wav")
    assert catalogue.failures == [("audio/2-8-A-1.wav", "listed in meta/esc50.csv, but the file is missing")]
    assert not catalogue.whole_recordings


def test_esc10_is_the_marked_part(tmp_path: Path) -> None:
    esc50(tmp_path, ["1-7-A-0.wav,1,0,dog,True,7,A", "2-8-A-1.wav,2,1,pig,False,8,A"])
    for name in ("1-7-A-0.wav", "2-8-A-1.wav"):
        record(tmp_path / "audio" / name)
    catalogue = read_catalogue(DatasetConfig(kind="esc10", root=str(tmp_path)))
    assert (catalogue.name, catalogue.labels) == ("ESC-10", ["dog"])


def test_esc50_with_a_broken_row_names_the_line(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"line 2: fold='x' and category='dog' must be a whole number"):
        read_catalogue(esc50(tmp_path, ["1-7-A-0.wav,x,0,dog,True,7,A"]))


@pytest.mark.parametrize("kind", ["esc50", "esc10", "urbansound8k"])
def test_a_missing_root_says_how_to_get_it(tmp_path: Path, kind: str) -> None:
    config = DatasetConfig(kind=kind, root=str(tmp_path / "nowhere"))  # type: ignore[arg-type]
    with pytest.raises(DatasetError, match=f"does not exist; run `soundsight download {kind}`, or set root="):
        read_catalogue(config)


def urbansound8k(root: Path, rows: list[str]) -> Path:
    (root / "metadata").mkdir(parents=True)
    lines = ["slice_file_name,fsID,start,end,salience,fold,classID,class", *rows]
    (root / "metadata" / "UrbanSound8K.csv").write_text("\n".join(lines) + "\n")
    return root


def test_urbansound8k_takes_fsid_as_source(tmp_path: Path) -> None:
    root = urbansound8k(
        tmp_path,
        [
            "100032-3-0-0.wav,100032,0.0,0.317551,1,5,3,dog_bark",
            "100263-2-0-117.wav,100263,58.5,62.5,1,10,2,children_playing",
            "100263-2-0-121.wav,100263,60.5,64.5,1,10,2,children_playing",
        ],
    )
    record(root / "audio/fold5/100032-3-0-0.wav")
    record(root / "audio/fold10/100263-2-0-117.wav", 4)
    catalogue = read_catalogue(DatasetConfig(kind="urbansound8k", root=str(root)))
    assert [(c.label, c.fold, c.source, c.file) for c in catalogue.clips] == [
        ("dog_bark", 5, "100032", "audio/fold5/100032-3-0-0.wav"),
        ("children_playing", 10, "100263", "audio/fold10/100263-2-0-117.wav"),
    ]
    assert [file for file, _ in catalogue.failures] == ["audio/fold10/100263-2-0-121.wav"]
    # `start` and `end` speak of the Freesound recording, not of the file, and clips are never cut.
    assert {(c.start_seconds, c.end_seconds) for c in catalogue.clips} == {(0.0, None)}
    assert cut_windows(catalogue, 1.0)[0] is catalogue
    assert len(catalogue.shared_sources) == 5


def test_urbansound8k_with_a_broken_table(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"cannot be read \(No such file"):
        read_catalogue(DatasetConfig(kind="urbansound8k", root=str(tmp_path)))
    root = urbansound8k(tmp_path / "a", ["1-3-0-0.wav,1,0,4,1,five,3,dog_bark"])
    with pytest.raises(DatasetError, match=r"line 2: .*fold='five'"):
        read_catalogue(DatasetConfig(kind="urbansound8k", root=str(root)))


# Folders


def test_folders_at_any_depth_and_in_any_format(tmp_path: Path) -> None:
    for name in ("dog/a.wav", "dog/deep/er/b.flac", "cat/c.ogg", "cat/.hidden.wav", "dog/._a.wav"):
        record((tmp_path / name).with_suffix(".wav")) if "._" in name else record(tmp_path / name)
    (tmp_path / "cat" / "notes.txt").write_text("a tabby")
    (tmp_path / ".git").mkdir()
    catalogue = read_catalogue(folder(tmp_path))
    assert [(c.label, c.file, c.name) for c in catalogue.clips] == [
        ("cat", "cat/c.ogg", "c"),
        ("dog", "dog/a.wav", "a"),
        ("dog", "dog/deep/er/b.flac", "deep_er_b"),
    ]
    assert all(clip.source == clip.file and clip.fold is None for clip in catalogue.clips)
    assert catalogue.failures == []


def test_a_pattern_names_the_source_where_it_matches(tmp_path: Path) -> None:
    for name in ("dog/rex_1.wav", "dog/rex_2.wav", "cat/odd.wav"):
        record(tmp_path / name)
    catalogue = read_catalogue(folder(tmp_path, r"/([a-z]+)_\d+\.wav$"))
    assert {c.file: c.source for c in catalogue.clips} == {
        "dog/rex_1.wav": "rex",
        "dog/rex_2.wav": "rex",
        "cat/odd.wav": "cat/odd.wav",
    }


@pytest.mark.parametrize(
    ("pattern", "message"), [("([a-z", "is no regular expression"), ("rex", "has no group; put what names")]
)
def test_bad_patterns(tmp_path: Path, pattern: str, message: str) -> None:
    record(tmp_path / "dog" / "a.wav")
    with pytest.raises(ConfigError, match=message):
        read_catalogue(folder(tmp_path, pattern))


def test_what_a_folder_cannot_use_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no ffmpeg
    record(tmp_path / "dog" / "a.wav")
    record(tmp_path / "loose.wav")
    (tmp_path / "dog" / "b.m4a").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    assert dict(read_catalogue(folder(tmp_path)).failures) == {
        "dog/b.m4a": "needs the program ffmpeg, which is not installed",
        "empty/": "the class folder holds no recordings",
        "loose.wav": "lies beside the class folders, so it has no label",
    }


def test_a_folder_without_classes_says_what_to_do(tmp_path: Path) -> None:
    record(tmp_path / "a.wav")
    with pytest.raises(DatasetError, match="holds 1 recordings but no class folders with recordings; move"):
        read_catalogue(folder(tmp_path))


def test_an_empty_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="No clips were found for"):
        read_catalogue(folder(tmp_path))


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    record(tmp_path / "elsewhere" / "a.wav")
    (tmp_path / "root" / "dog").mkdir(parents=True)
    (tmp_path / "root" / "cat").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "dog" / "again").symlink_to(tmp_path / "root" / "dog")
    record(tmp_path / "root" / "dog" / "b.wav")
    assert [c.file for c in read_catalogue(folder(tmp_path / "root")).clips] == ["cat/a.wav", "dog/b.wav"]


# Tables


def test_a_table_with_all_columns(tmp_path: Path) -> None:
    for name in ("a.wav", "sub/b.wav"):
        record(tmp_path / name, 3)
    config = table(
        tmp_path,
        "what,path,part,from,to,origin\ndog,a.wav,7,0.5,1.5,X\ncat,sub/b.wav,2,,,\n",
        file_column="path",
        label_column="what",
        fold_column="part",
        group_column="origin",
        start_column="from",
        end_column="to",
    )
    catalogue = read_catalogue(config)
    dog, cat = catalogue.clips
    assert (dog.label, dog.fold, dog.start_seconds, dog.end_seconds, dog.source) == ("dog", 7, 0.5, 1.5, "X")
    assert (cat.file, cat.fold, cat.start_seconds, cat.end_seconds) == ("sub/b.wav", 2, 0.0, None)
    assert (cat.source, cat.name, dog.name) == ("sub/b.wav", "sub_b", "a@0.5")
    assert not catalogue.whole_recordings
    assert folds(catalogue) == [2, 7]  # gaps are fine


def test_folds_with_gaps_split(tmp_path: Path) -> None:
    rows = "".join(f"{record(tmp_path / f'{n}.wav').name},x,{n}\n" for n in (1, 4, 9))
    config = table(tmp_path, "file,label,fold\n" + rows, fold_column="fold")
    catalogue = read_catalogue(config)
    splits = assign(catalogue, SplitConfig(train=(1,), val=(4,), test=(9,)))
    assert [splits[c] for c in catalogue.clips] == ["train", "val", "test"]
    with pytest.raises(DatasetError, match="names fold 2, which clips does not have; it has folds 1, 4, 9"):
        assign(catalogue, SplitConfig())


@pytest.mark.parametrize("fold", ["a", "1.5", "nan", "inf"])
def test_a_fold_that_is_no_whole_number_names_the_line(tmp_path: Path, fold: str) -> None:
    record(tmp_path / "a.wav")
    config = table(tmp_path, f"file,label,fold\na.wav,x,1.0\na.wav,y,{fold}\n", fold_column="fold")
    with pytest.raises(DatasetError, match=rf"line 3: fold='{fold}' is not a fold; folds are whole numbers"):
        read_catalogue(config)


def test_clips_without_a_fold_are_named(tmp_path: Path) -> None:
    record(tmp_path / "a.wav")
    catalogue = read_catalogue(table(tmp_path, "file,label,fold\na.wav,x,\n", fold_column="fold"))
    with pytest.raises(DatasetError, match=r"a.wav has no fold; use split.strategy=group"):
        folds(catalogue)


def test_bad_rows_are_listed_with_line_and_reason(tmp_path: Path) -> None:
    record(tmp_path / "a.wav")
    rows = [
        "a.wav,x,0,1",
        "b.wav,x,0,1",
        "a.wav,x,2,1",
        "a.wav,x,zero,1",
        "a.wav,x,-1,1",
        "a.wav,x,0,nan",
        "a.wav,,0,1",
        ",x,0,1",
        ",,,",
        "a.wav,x,0,1",
    ]
    config = table(tmp_path, "\n".join(["file,label,s,e", *rows]) + "\n", start_column="s", end_column="e")
    catalogue = read_catalogue(config)
    assert len(catalogue.clips) == 1
    assert [reason for _, reason in catalogue.failures] == [
        "clips.csv, line 3: the file b.wav does not exist",
        "clips.csv, line 4: the end, 1 s, is not after the start, 2 s",
        "clips.csv, line 5: s='zero' is not a number of seconds",
        "clips.csv, line 6: the start, -1 s, is negative",
        "clips.csv, line 7: e='nan' is not a number of seconds",
        "clips.csv, line 8: the label is empty",
        "clips.csv, line 9: no file is named",
        "clips.csv, line 11: the row repeats another",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lacks the column 'label'; it has: nothing"),
        ("name,label\n", "lacks the column 'file'; it has: name, label"),
        ("file,label,label\n", "has more than one column 'label'"),
        ("file,label\na.wav\n", "line 2: the row has fewer fields than the header"),
        ("file,label\n", "No clips were found for clips"),
        ("file,label\nb.wav,x\n", r"No clips .*: one entry cannot be used, first b.wav \(clips.csv, line 2"),
    ],
)
def test_structural_faults(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        read_catalogue(table(tmp_path, text))


def test_a_table_must_be_named_and_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="kind=table needs table=FILE"):
        read_catalogue(DatasetConfig(kind="table", root=str(tmp_path)))
    with pytest.raises(DatasetError, match="cannot be read"):
        read_catalogue(DatasetConfig(kind="table", root=str(tmp_path), table="none.csv"))
    with pytest.raises(DatasetError, match="No table matches"):
        read_catalogue(DatasetConfig(kind="table", root=str(tmp_path), table="*.csv"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_encodings_and_line_endings(tmp_path: Path, encoding: str, ending: str) -> None:
    record(tmp_path / "a.wav")
    text = f"file,label{ending}a.wav,kuckuck übt{ending}".encode(encoding)
    (clip,) = read_catalogue(table(tmp_path, text)).clips
    assert clip.label == "kuckuck übt"


@pytest.mark.parametrize(("delimiter", "name"), [(",", "c.csv"), (";", "c.csv"), ("\t", "c.tsv"), ("\t", "c.txt")])
def test_delimiters(tmp_path: Path, delimiter: str, name: str) -> None:
    record(tmp_path / "a.wav")
    text = f"file{delimiter}label{delimiter}start\na.wav{delimiter}x{delimiter}0.5\n"
    (clip,) = read_catalogue(table(tmp_path, text, name, start_column="start")).clips
    assert (clip.label, clip.start_seconds) == ("x", 0.5)


def test_decimal_commas_between_semicolons(tmp_path: Path) -> None:
    record(tmp_path / "a.wav")
    config = table(tmp_path, "file;label;s;e\na.wav;x;0,5;1,25\n", start_column="s", end_column="e")
    (clip,) = read_catalogue(config).clips
    assert (clip.start_seconds, clip.end_seconds) == (0.5, 1.25)


def test_quoted_fields_keep_delimiters_and_newlines(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('file,label\n"a,b.wav","two\nlines"\n"c.wav",x\n')
    rows = read_rows(tmp_path / "t.csv", ("file", "label"))
    assert [(line, row["file"], row["label"]) for line, row in rows] == [
        (3, "a,b.wav", "two\nlines"),
        (4, "c.wav", "x"),
    ]


def test_names_from_windows_and_from_outside(tmp_path: Path) -> None:
    record(tmp_path / "root" / "sub" / "a.wav")
    outside = record(tmp_path / "outside" / "b.wav")
    config = table(tmp_path / "root", f"file,label\nsub\\a.wav,x\n{outside},x\n")
    assert [c.file for c in read_catalogue(config).clips] == ["sub/a.wav", str(outside)]


def test_a_hundred_thousand_rows_are_quick(tmp_path: Path) -> None:
    names = [f"{index:04}.wav" for index in range(1000)]
    for name in names:
        (tmp_path / name).write_bytes(b"")
    rows = "".join(f"{names[i % 1000]},class {i % 37},{i / 10},{i / 10 + 5}\n" for i in range(100_000))
    config = table(tmp_path, "file,label,start,end\n" + rows, start_column="start", end_column="end")
    started = time.process_time()
    catalogue = read_catalogue(config)
    assert time.process_time() - started < 15  # measured 1 to 2.5 s; work that grows with the square takes minutes
    assert len(catalogue.clips) == 100_000


# Raven and Audacity


RAVEN = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)"


def test_raven_selection_table_beside_its_recording(tmp_path: Path) -> None:
    record(tmp_path / "dawn.flac", 12)
    config = table(
        tmp_path,
        f"{RAVEN}\tSpecies\n"
        "1\tWaveform 1\t1\t1.5\t2.25\t0\t4000\twren\n"
        "1\tSpectrogram 1\t1\t1.5\t2.25\t0\t4000\twren\n"
        "2\tSpectrogram 1\t1\t9\t10\t0\t4000\tlark\n",
        "dawn.Table.1.selections.txt",
        label_column="Species",
    )
    catalogue = read_catalogue(config)
    assert [(c.label, c.file, c.start_seconds, c.end_seconds) for c in catalogue.clips] == [
        ("wren", "dawn.flac", 1.5, 2.25),
        ("lark", "dawn.flac", 9.0, 10.0),
    ]
    assert not catalogue.whole_recordings
    assert {c.source for c in catalogue.clips} == {"dawn.flac"}


def test_raven_names_files_and_counts_within_them(tmp_path: Path) -> None:
    for name in ("one.wav", "two.wav"):
        record(tmp_path / name, 10)
    config = table(
        tmp_path,
        f"{RAVEN}\tBegin File\tBegin Path\tFile Offset (s)\tSpecies\n"
        "1\tSpectrogram 1\t1\t1\t2\t0\t9\tone.wav\tC:\\field\\one.wav\t1\twren\n"
        "2\tSpectrogram 1\t1\t14\t15.5\t0\t9\ttwo.wav\tC:\\field\\two.wav\t4\twren\n",
        "night.txt",
        label_column="Species",
    )
    assert [(c.file, c.start_seconds, c.end_seconds) for c in read_catalogue(config).clips] == [
        ("one.wav", 1.0, 2.0),
        ("two.wav", 4.0, 5.5),  # 14 s into the sequence is 4 s into its second file
    ]


def test_raven_without_the_annotation_column(tmp_path: Path) -> None:
    record(tmp_path / "dawn.wav")
    config = table(tmp_path, f"{RAVEN}\n1\tS\t1\t0\t1\t0\t9\n", "dawn.txt")
    with pytest.raises(DatasetError, match="lacks the column 'label'; it has: Selection, View"):
        read_catalogue(config)


def test_audacity_label_track(tmp_path: Path) -> None:
    record(tmp_path / "night.wav", 9)
    text = (
        "0.500000\t1.250000\towl: tawny\n\\\t100.0\t2000.0\n\n3,0\t4,5\tfox\n5.0\t5.0\tpoint\n6.0\t7.0\t\nx\t7\towl\n"
    )
    catalogue = read_catalogue(table(tmp_path, text, "night.txt"))
    assert [(c.label, c.file, c.start_seconds, c.end_seconds) for c in catalogue.clips] == [
        ("owl: tawny", "night.wav", 0.5, 1.25),
        ("fox", "night.wav", 3.0, 4.5),
    ]
    assert catalogue.failures == [
        (
            "night.wav",
            "night.txt, line 5: the label 'point' marks a point, but a clip needs a start and an end",
        ),
        ("night.wav", "night.txt, line 6: the label is empty"),
        ("night.wav", "night.txt, line 7: the line does not begin with two numbers of seconds"),
    ]


def test_many_label_tracks_by_a_pattern(tmp_path: Path) -> None:
    for name in ("a.wav", "b.wav", "c.wav", "c.flac"):
        record(tmp_path / "sub" / name, 3)
    for name in ("a", "b", "c", "none"):
        table(tmp_path, "0\t1\tx\n", f"sub/{name}.txt")
    catalogue = read_catalogue(DatasetConfig(kind="table", root=str(tmp_path), table="**/*.txt"))
    assert [c.file for c in catalogue.clips] == ["sub/a.wav", "sub/b.wav"]
    assert catalogue.failures == [
        (
            "sub/c.txt",
            "it names no recordings, so one of its name must lie beside it, but there are c.flac and c.wav",
        ),
        ("sub/none.txt", "it names no recordings, so one of its name must lie beside it, but there is none"),
    ]


# Windows


def clip(duration_name: str = "a", **changes: object) -> Clip:
    values = {"path": Path("/a.wav"), "file": "a.wav", "label": "x", "name": duration_name, "source": "s"}
    return Clip(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("duration", "expected"),
    [
        (15.0, [(0.0, 5.0), (5.0, 10.0), (10.0, 15.0)]),
        (12.5, [(0.0, 5.0), (5.0, 10.0), (10.0, 12.5)]),  # half a window stays
        (12.4, [(0.0, 5.0), (5.0, 10.0)]),  # less does not
        (7.4, [(0.0, None)]),
        (5.0, [(0.0, None)]),
        (0.3, [(0.0, None)]),  # shorter than a window: kept, padded when rendered
        (None, [(0.0, None)]),  # unreadable: kept, so that drawing reports it
    ],
)
def test_windows_of_five_seconds(duration: float | None, expected: list[tuple[float, float | None]]) -> None:
    windows = cut_clip(clip(), duration, 5.0)
    assert [(w.start_seconds, w.end_seconds) for w in windows] == expected
    names = [w.name for w in windows]
    assert names == (["a"] if len(expected) == 1 else [f"a@{start:.1f}" for start, _ in expected])
    assert {(w.label, w.source, w.file) for w in windows} == {("x", "s", "a.wav")}


def test_annotated_stretches_are_not_cut() -> None:
    stretch = clip(start_seconds=3.0, end_seconds=60.0)
    assert cut_clip(stretch, 100.0, 5.0) == [stretch]


def test_windows_are_cut_after_the_split_and_inherit_it(tmp_path: Path) -> None:
    for label in ("dog", "cat"):
        for number in range(5):
            record(tmp_path / label / f"{number}.wav", 1.0)
    catalogue = read_catalogue(folder(tmp_path))
    splits = assign(catalogue, SplitConfig(strategy="group", fractions=(0.6, 0.2, 0.2)))
    windows, recording_of = cut_windows(catalogue, 0.25)
    assert len(windows.clips) == 40 and not windows.whole_recordings
    for window, recording in recording_of.items():
        assert (window.file, window.source) == (recording.file, recording.source)
    by_file: dict[str, set[str]] = {}
    for window in windows.clips:
        by_file.setdefault(window.file, set()).add(splits[recording_of[window]])
    assert all(len(found) == 1 for found in by_file.values())


def test_cutting_twice_changes_nothing(tmp_path: Path) -> None:
    record(tmp_path / "dog" / "a.wav", 1.0)
    once, _ = cut_windows(read_catalogue(folder(tmp_path)), 0.25)
    assert cut_windows(once, 0.25)[0] is once


def test_a_catalogue_of_clips_is_left_alone() -> None:
    catalogue = Catalogue("x", [clip()])
    assert cut_windows(catalogue, 0.1)[0] is catalogue


def test_every_kind_of_data_set_can_be_asked_for() -> None:
    assert set(get_args(get_type_hints(DatasetConfig)["kind"])) == set(kinds())
