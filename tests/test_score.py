"""`soundsight score`, driven by files as `predict` and annotation programs write them; figures known by hand."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from soundsight.cli import main
from soundsight.detection import score_detections
from soundsight.errors import ConfigError
from soundsight.evaluation.predicted import match
from soundsight.evaluation.score import score_recordings
from soundsight.evaluation.timed import timed_figures
from soundsight.inference.formats.raven import Raven
from soundsight.metrics import score

HEADER = "recording,start,end,label,probability,rank,model,settings\n"
# Ten seconds in segments of 2 s: a dog from 2 to 6 s and rain from 4 to 10 s were annotated, in the second nothing.
PREDICTED = [
    ("night.wav", 0, 2, "background", 0.9), ("night.wav", 2, 4, "dog", 0.8), ("night.wav", 4, 6, "dog", 0.9),
    ("night.wav", 6, 8, "rain", 0.7), ("night.wav", 8, 10, "rain", 0.7),
    ("day.wav", 0, 2, "silence", 0.0), ("day.wav", 2, 4, "dog", 0.6), ("day.wav", 4, 6, "unknown", 0.3),
]  # fmt: skip
TRACK = "2.0\t6.0\tdog\n4.0\t10.0\train\n"


def rows_of(predicted, rank=1):
    return HEADER + "".join(f"{r},{a},{b},{label},{p},{rank},0,own\n" for r, a, b, label, p in predicted)


@pytest.fixture
def files(tmp_path: Path, monkeypatch) -> Path:
    """Predictions as CSV and label tracks of both recordings; the recordings are elsewhere."""
    monkeypatch.chdir(tmp_path)
    Path("predictions.csv").write_text(rows_of(PREDICTED))
    Path("labels").mkdir()
    Path("labels/night.txt").write_text(TRACK)
    Path("labels/day.txt").write_text("")
    return tmp_path


def figures(*words):
    out = Path("figures.json")
    out.unlink(missing_ok=True)
    code = main(["score", *map(str, words), "--out", str(out)])
    return code, json.loads(out.read_text()) if out.is_file() else None


def test_figures_by_hand(files, capsys):
    code, found = figures("predictions.csv", "labels", "--segment", 2)
    assert code == 0
    dog, rain = found["per_class"]
    assert [dog[key] for key in ("annotated", "reported", "false_alarms")] == [1, 2, 1]
    assert [dog[f"segment_{key}"] for key in ("precision", "recall", "f1")] == pytest.approx([2 / 3, 1, 4 / 5])
    assert [rain[f"segment_{key}"] for key in ("precision", "recall", "f1")] == pytest.approx([1, 2 / 3, 4 / 5])
    assert [dog[f"event_{key}"] for key in ("precision", "recall", "f1")] == pytest.approx([1 / 2, 1, 2 / 3])
    assert rain["event_f1"] == 0  # it begins two seconds late
    assert found["hours"] == pytest.approx(16 / 3600)
    assert found["hours_measured"] is False
    assert found["macro_average"]["segment_f1"] == pytest.approx(4 / 5)
    assert found["micro_average"]["event_f1"] == pytest.approx(2 / 5)
    assert found["micro_average"]["false_alarms_per_hour"] == pytest.approx(3600 / 16)
    assert dog["average_precision"] is None  # one label per segment is no ranking
    shown = capsys.readouterr().out
    assert "2 recordings, 0.00 h at least (the recordings are not here); segments of 2 s:" in shown
    assert "AUROC" not in shown
    assert figures("predictions.csv", "labels", "--collar", 2)[1]["per_class"][1]["event_f1"] == 1


def test_hours_are_those_of_the_recordings_where_they_are_here(files):
    for name, seconds in (("night.wav", 10), ("day.wav", 26)):
        soundfile.write(name, np.zeros(seconds * 1000), 1000)
    _, found = figures("predictions.csv", "labels")
    assert (found["hours"], found["hours_measured"]) == (pytest.approx(36 / 3600), True)
    assert found["micro_average"]["false_alarms_per_hour"] == pytest.approx(100)


@pytest.mark.parametrize("layout", ["raven", "csv", "opensoundscape"])
def test_annotations_in_other_layouts(files, layout):
    expected = figures("predictions.csv", "labels")[1]
    if layout == "raven":
        head = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tSpecies\n"
        Path("tables").mkdir()
        rows = "1\tSpectrogram 1\t1\t2.0\t6.0\t0\t9\tdog\n2\tSpectrogram 1\t1\t4.0\t10.0\t0\t9\train\n"
        Path("tables/night.Table.1.selections.txt").write_text(head + rows)
        Path("tables/day.Table.1.selections.txt").write_text(head)  # listened to, nothing here
        table = "tables"
    elif layout == "csv":
        Path("table.csv").write_text("file,label,start,end\nx/night.wav,dog,2,6\nnight.flac,rain,4,10\n")
        table = "table.csv"
    else:
        Path("table.csv").write_text(
            "audio_file,annotation_file,annotation,start_time,end_time\nnight.wav,a,dog,2,6\nnight.wav,a,rain,4,10\n"
        )
        table = "table.csv"
    code, found = figures("predictions.csv", table)
    if layout == "raven":
        assert (code, found) == (0, expected)
    else:  # which say nothing of the day
        assert code == 1
        assert found["problems"] == ["day.wav is predicted, but not annotated"]
        assert found["recordings"] == ["night.wav"]
        assert [row["annotated"] for row in found["per_class"]] == [1, 1]


def test_predictions_in_other_formats(files):
    expected = figures("predictions.csv", "labels")[1]
    lines = csv.DictReader(Path("predictions.csv").read_text().splitlines())
    types = {"start": float, "end": float, "probability": float, "rank": int}
    rows = [{key: types.get(key, str)(value) for key, value in row.items()} for row in lines]
    Path("p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert figures("p.jsonl", "labels") == (0, expected)
    pandas = pytest.importorskip("pandas", reason="the extra soundsight[tables] is not installed")
    pandas.DataFrame(rows).to_parquet("p.parquet")
    assert figures("p.parquet", "labels") == (0, expected)
    selection = "1\tSpectrogram 1\t1\t{start}\t{end}\t0\t8\t/far/{recording}\t{recording}\t{start}\t{label}\t0.9\n"
    formats = (("audacity", ".txt", "{start:.6f}\t{end:.6f}\t{label}\n"), ("raven", ".selections.txt", selection))
    for kind, ending, line in formats:
        Path(kind).mkdir()
        head = "\t".join(Raven.COLUMNS) + "\n"
        for name in ("night.wav", "day.wav"):
            sounds = [row for row in rows if row["recording"] == name and row["label"] in ("dog", "rain")]
            text = (head if kind == "raven" else "") + "".join(line.format(**row) for row in sounds)
            Path(kind, Path(name).stem + ending).write_text(text)
        code, found = figures(kind, "labels")
        assert code == 0
        assert found["per_class"] == [
            {**row, "false_alarms_per_hour": pytest.approx(row["false_alarms_per_hour"] * 16 / 14)}  # until the last
            for row in expected["per_class"]
        ]


def test_scores_give_rankings_and_need_a_threshold(files, capsys):
    values = {
        "night.wav": [(0.1, 0.2), (0.8, 0.3), (0.9, 0.4), (0.2, 0.7), (0.1, 0.6)],
        "day.wav": [(0.0, 0.0), (0.6, 0.1), (0.2, 0.1)],
    }
    lines = [f"{name},{2 * k},{2 * k + 2},{a},{b}" for name, rows in values.items() for k, (a, b) in enumerate(rows)]
    Path("scores.csv").write_text("\n".join(["file,start_time,end_time,dog,rain", *lines]) + "\n")
    code, found = figures("scores.csv", "labels", "--segment", 2)
    assert code == 0
    assert [row["segment_f1"] for row in found["per_class"]] == pytest.approx([4 / 5, 4 / 5])
    truth = [[0, 0], [1, 0], [1, 1], [0, 1], [0, 1], [0, 0], [0, 0], [0, 0]]
    direct = score_detections(truth, [pair for rows in values.values() for pair in rows], ("dog", "rain"))
    assert [row["average_precision"] for row in found["per_class"]] == pytest.approx(direct.average_precision.tolist())
    assert found["ranking"] == pytest.approx(direct.figures())
    shown = capsys.readouterr().out
    assert "reported from a probability of 0.5 on" in shown and "AUROC" in shown
    strict = figures("scores.csv", "labels", "--threshold", 0.65, "--threshold", "rain=0.35")[1]
    assert [row["reported"] for row in strict["per_class"]] == [1, 1]
    assert strict["micro_average"]["false_alarms"] == 0
    Path("labels/night.txt").write_text("2.0\t6.0\tdog\n4.0\t8.1\train\n")  # 0.1 s in the last segment: not certain
    assert figures("scores.csv", "labels")[1]["uncertain_segments"] == 1


def test_overlapping_segments_stand_for_the_time_around_their_centres(files):
    """Segments of 4 s every second: a dog in the middle of those that begin at 2 and 3 s was there from 3.5 to 5.5."""
    values = [0, 0, 1, 1, 0, 0, 0]
    Path("scores.csv").write_text(
        "file,start_time,end_time,dog,rain\n" + "".join(f"night.wav,{k},{k + 4},{p},0\n" for k, p in enumerate(values))
    )
    Path("one.txt").write_text("3.5\t5.5\tdog\n")
    code, found = figures("scores.csv", "one.txt", "--segment", 0.5, "--collar", 0)
    assert code == 0
    assert (found["per_class"][0]["event_f1"], found["per_class"][0]["segment_f1"]) == (1, 1)


def test_several_labels_per_segment(files):
    several = [*PREDICTED[:3], ("night.wav", 4, 6, "rain", 0.6), *PREDICTED[3:]]
    Path("several.csv").write_text(rows_of(several))
    assert [row["segment_recall"] for row in figures("several.csv", "labels")[1]["per_class"]] == [1, 1]


def test_rows_that_may_not_be_reported_are_not_guessed(files, capsys):
    """With --top-k every segment has several rows, of which one is what the model said."""
    Path("top.csv").write_text(
        rows_of(PREDICTED[1:4]) + rows_of([(*r[:3], "cat", 0.1) for r in PREDICTED[1:4]], 2)[len(HEADER) :]
    )
    assert main(["score", "top.csv", "labels"]) == 2
    assert "has 2 or more rows for every segment" in capsys.readouterr().err
    assert figures("top.csv", "labels/night.txt", "--threshold", 0.5)[1]["macro_average"]["reported"] == 2


def test_a_single_recording_needs_no_name(files):
    Path("mine.txt").write_text(TRACK)
    Path("one.csv").write_text(rows_of(PREDICTED[:5]))
    code, found = figures("one.csv", "mine.txt")
    assert (code, found["recordings"]) == (0, ["night.wav"])
    assert main(["score", "labels/night.txt", "mine.txt"]) == 0


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["no.csv", "labels"], "no.csv cannot be read (No such file or directory); name a file that `predict` wrote."),
        (["predictions.csv", "no.txt"], "no.txt does not exist; name a label table."),
        (["predictions.csv", "empty"], "empty holds no label tables"),
        (["predictions.csv", "other.csv"], "No recording is in both predictions.csv and other.csv: "),
        (["broken.csv", "labels"], "broken.csv is damaged"),
        (["predictions.csv", "labels", "--segment", "0"], "segment_seconds=0 "),
        (["labels", "labels", "--threshold", "0.5"], "labels holds no probabilities, so --threshold has no effect"),
        (["predictions.csv", "labels", "--threshold", "cat=0.5"], "has no class 'cat'"),
        (["picture.png", "labels"], "picture.png is in no format that can be scored"),
        (["predictions.csv", "labels", "--out", "a.txt"], "its name must end in .csv, .json"),
    ],
)
def test_bad_input_is_one_message(files, capsys, words, text):
    Path("empty").mkdir()
    Path("other.csv").write_text("file,label,start,end\nelsewhere.wav,dog,2,6\n")
    Path("broken.csv").write_text(HEADER + "night.wav,x,2,dog,0.5,1,0,own\n")
    Path("picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    assert main(["score", *words]) == 2
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1


def test_bad_rows_are_told_and_the_rest_is_scored(files, capsys):
    Path("labels/night.txt").write_text(TRACK + "12.0\t11.0\tdog\n")
    code, found = figures("predictions.csv", "labels")
    assert code == 1
    assert "line 3: the end, 11 s, is not after the start, 12 s" in capsys.readouterr().err
    assert [row["annotated"] for row in found["per_class"]] == [1, 1]


def test_the_table_as_csv(files):
    assert main(["score", "predictions.csv", "labels", "--out", "t.csv"]) == 0
    rows = list(csv.DictReader(Path("t.csv").read_text().splitlines()))
    assert [row["class"] for row in rows] == ["dog", "rain", "macro average", "micro average"]
    assert rows[0]["segment_f1"] == "0.800000" and rows[0]["average_precision"] == ""
    assert main(["score", "predictions.csv", "labels", "--out", "t.csv"]) == 0  # its own file is replaced
    Path("t.csv").write_text("class,notes\n")
    assert main(["score", "predictions.csv", "labels", "--out", "t.csv"]) == 2


def test_names_match_by_their_longest_end():
    known = ["a/night.wav", "b/night.wav", "b/day.flac"]
    assert match("/data/a/Night.WAV", known) == "a/night.wav"
    assert match("C:\\b\\night", known) == "b/night.wav"
    assert match("day", known) == "b/day.flac"
    assert match("dusk.wav", known) is None
    with pytest.raises(ValueError, match="night.wav may be a/night.wav or b/night.wav"):
        match("night.wav", known)


def test_python(files):
    scores = score_recordings("predictions.csv", "labels", segment_seconds=2)
    assert scores.segments.macro[2] == pytest.approx(4 / 5)
    with pytest.raises(ConfigError, match="collar=-1 s is out of range"):
        score_recordings("predictions.csv", "labels", collar_seconds=-1)


def test_several_labels_in_a_field_and_a_row_without_any(files):
    Path("table.csv").write_text('file,labels,start,end\nnight.wav,"dog,rain",2,6\nday.wav,,,\n')
    code, found = figures("predictions.csv", "table.csv")
    assert code == 0 and found["problems"] == []
    assert [row["annotated"] for row in found["per_class"]] == [1, 1]


# The same figures of prepared clips, as `val` and `crossval` have them


def columns(spans, file="night.wav"):
    return {"clips": [file] * len(spans), "starts": [a for a, _ in spans], "ends": [b for _, b in spans]}


def test_clips_of_annotated_recordings_have_the_figures_of_score(files):
    """Segments of 2 s in two recordings: what `val` counts is what `score` counts for the same rows."""
    values = [(0.1, 0.2), (0.8, 0.3), (0.9, 0.4), (0.2, 0.7), (0.1, 0.6), (0.0, 0.0), (0.6, 0.1), (0.2, 0.1)]
    spans = [(2.0 * k, 2.0 * k + 2) for k in (*range(5), *range(3))]
    names = ["night.wav"] * 5 + ["day.wav"] * 3
    lines = [f"{name},{a},{b},{x},{y}" for name, (a, b), (x, y) in zip(names, spans, values, strict=True)]
    Path("scores.csv").write_text("\n".join(["file,start_time,end_time,dog,rain", *lines]) + "\n")
    expected = figures("scores.csv", "labels", "--segment", 2)[1]
    truth = [[0, 0], [1, 0], [1, 1], [0, 1], [0, 1], [0, 0], [0, 0], [0, 0]]
    scores = score_detections(truth, values, ("dog", "rain"))
    where = {**columns(spans), "clips": names}
    found, by_class = timed_figures(scores, where, 0.5, annotated=True)
    for average in ("macro_average", "micro_average"):
        row = {key: None if value != value else value for key, value in found["events"][average].items()}
        assert row == {key: expected[average][key] for key in row} and {"segment_f1", "event_f1"} <= set(row)
    assert found["events"]["hours"] == expected["hours"] and found["events"]["recordings"] == 2
    assert by_class["event_f1"] == [row["event_f1"] for row in expected["per_class"]]
    # Nothing is there from 0 to 2 s of the one and in all 6 s of the other, where a dog is reported once.
    assert found["background"] == pytest.approx({"hours": 8 / 3600, "false_alarms": 1, "false_alarms_per_hour": 450})
    shuffled = [5, 2, 7, 0, 1, 6, 4, 3]
    again = score_detections([truth[k] for k in shuffled], [values[k] for k in shuffled], ("dog", "rain"))
    moved = timed_figures(
        again, {key: [found[n] for n in shuffled] for key, found in where.items()}, 0.5, annotated=True
    )
    assert moved[1] == by_class and moved[0]["background"] == found["background"]
    strict = timed_figures(scores, where, np.float32([0.85, 0.5]), annotated=True)[0]
    assert strict["background"]["false_alarms"] == 0 and strict["events"]["micro_average"]["false_alarms"] == 0


def test_segments_that_overlap_are_one_hour_of_sound_and_one_event():
    spans = [(float(k), k + 4.0) for k in range(7)]  # 10 s
    truth, values = [[k in (2, 3)] for k in range(7)], [[float(k in (2, 3, 6))] for k in range(7)]
    found, _ = timed_figures(score_detections(truth, values, ("dog",)), columns(spans), 0.5, annotated=True)
    assert found["events"]["hours"] == pytest.approx(10 / 3600)
    micro = found["events"]["micro_average"]
    assert (micro["annotated"], micro["reported"], micro["false_alarms"]) == (1, 2, 1)
    assert micro["event_f1"] == pytest.approx(2 / 3) and micro["segment_f1"] == pytest.approx(4 / 5)
    assert found["background"]["false_alarms"] == 1 and found["background"]["hours"] == pytest.approx(10 / 3600)


def test_clips_without_times_have_false_alarms_on_background_alone():
    spans = [(0.0, 5.0)] * 4
    one = score(
        [0, 0, 1, 2], [[0.9, 0.1, 0], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1], [0, 0, 1]], ("background", "dog", "owl")
    )
    where = {**columns(spans), "clips": list("abcd")}
    found, by_class = timed_figures(one, where, 0.0, annotated=False)
    assert set(found) == {"background"} and not by_class  # a clip taken for background is no false alarm
    assert found["background"] == pytest.approx({"hours": 10 / 3600, "false_alarms": 1, "false_alarms_per_hour": 360})
    assert timed_figures(one, where, 0.75, annotated=False)[0]["background"]["false_alarms"] == 0  # unknown
    sounds = score([0, 1], [[0.9, 0.1], [0.2, 0.8]], ("dog", "owl"))
    assert timed_figures(sounds, columns(spans[:2]), 0.0, annotated=False) == ({}, {})
    unknown = {"clips": ["a", "b"], "starts": [None, None], "ends": [None, None]}  # images of another tool
    several = score_detections([[0, 1], [0, 0]], [[0.9, 0.1], [0.8, 0.1]], ("dog", "owl"))
    assert timed_figures(several, unknown, 0.5, annotated=False) == ({}, {})
