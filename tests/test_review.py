"""From a table of predictions to clips, reviews and what follows from them, driven as users do."""

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile

from soundsight.cli import main
from soundsight.evaluation.predicted import Row
from soundsight.review.detections import sample

RATE = 8000
HEADER = "recording,start,end,label,probability,rank,model,settings\n"


def tone(hz: float, seconds: float, rate: int = RATE) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)


@pytest.fixture
def field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two recordings whose every second is a tone of its own, and predictions of them."""
    monkeypatch.chdir(tmp_path)
    Path("field").mkdir()
    for name, first in (("a.wav", 500), ("b.flac", 1500)):
        seconds = [tone(first + 100 * second, 1.0) for second in range(6)]
        soundfile.write(f"field/{name}", np.concatenate(seconds), RATE, subtype="PCM_16")
    rows = [
        ("field/a.wav", 0, 1, "owl", 0.95), ("field/a.wav", 1, 2, "owl", 0.15), ("field/a.wav", 2, 3, "fox", 0.55),
        ("field/a.wav", 3, 4, "unknown", 0.3), ("field/a.wav", 4, 5, "silence", 0), ("field/a.wav", 5, 6, "owl", 0.5),
        ("field/b.flac", 0, 1, "owl", 0.45), ("field/b.flac", 5, 6, "fox", 0.9),
    ]  # fmt: skip
    Path("p.csv").write_text(HEADER + "".join(f"{f},{a},{b},{x},{p},1,0123,own\n" for f, a, b, x, p in rows))
    return tmp_path


def manifest(folder: str) -> list[dict[str, str]]:
    with open(f"{folder}/clips.csv", newline="") as lines:
        return list(csv.DictReader(lines))


def test_clips_are_cut_sample_for_sample(field, capsys):
    assert main(["clips", "p.csv", "--out", "clips"]) == 0
    assert "6 clips of 2 classes" in capsys.readouterr().out
    rows = manifest("clips")
    assert sorted(row["clip"] for row in rows) == [
        "fox/a@2.0-3.0_0.550.wav", "fox/b@5.0-6.0_0.900.wav", "owl/a@0.0-1.0_0.950.wav", "owl/a@1.0-2.0_0.150.wav",
        "owl/a@5.0-6.0_0.500.wav", "owl/b@0.0-1.0_0.450.wav",
    ]  # fmt: skip
    for row in rows:
        whole, _ = soundfile.read(row["recording"])
        part, rate = soundfile.read(f"clips/{row['clip']}")
        assert rate == RATE
        np.testing.assert_array_equal(part, whole[int(float(row["start"])) * RATE :][:RATE])


def test_padding_ends_with_the_recording_and_flac_is_written(field):
    assert main(["clips", "p.csv", "--out", "clips", "--padding", "0.5", "--format", "flac"]) == 0
    spans = {row["clip"]: (float(row["clip_start"]), float(row["clip_end"])) for row in manifest("clips")}
    assert spans["owl/a@0.0-1.0_0.950.flac"] == (0, 1.5)
    assert spans["fox/b@5.0-6.0_0.900.flac"] == (4.5, 6)
    assert soundfile.info("clips/fox/a@2.0-3.0_0.550.flac").frames == 2 * RATE


@pytest.mark.parametrize(
    ("how", "expected"),
    [("best", {0.95, 0.5, 0.9, 0.55}), ("uncertain", {0.5, 0.45, 0.9, 0.55}), ("spread", {0.95, 0.5, 0.9, 0.55})],
)
def test_samples_of_each_class(field, how, expected):
    assert main(["clips", "p.csv", "--out", "clips", "--sample", how, "--number", "2"]) == 0
    assert {float(row["probability"]) for row in manifest("clips")} == expected


def test_spread_takes_every_band_in_turn_and_random_depends_on_the_seed():
    rows = [Row("r", i, i + 1, "owl", 0.95 if i < 90 else 0.05 + i % 10 / 10, 1) for i in range(100)]
    bands = [int(10 * row.probability) for row in sample(rows, how="spread", number=20)]
    assert bands[:10] == list(range(9, -1, -1)) and set(bands[10:]) == {9}
    orders = [[row.start for row in sample(rows, how="random", number=10, seed=seed)] for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


def test_another_run_replaces_its_own_clips_and_nothing_else(field, capsys):
    assert main(["clips", "p.csv", "--out", "clips"]) == 0
    Path("clips/owl/mine.txt").write_text("keep me")
    assert main(["clips", "p.csv", "--out", "clips", "--threshold", "0.9"]) == 0
    files = {p.relative_to("clips").as_posix() for p in Path("clips").rglob("*.*")}
    assert files == {"clips.csv", "owl/mine.txt", "owl/a@0.0-1.0_0.950.wav", "fox/b@5.0-6.0_0.900.wav"}
    assert main(["clips", "p.csv", "--out", "field"]) == 2
    assert "field holds files that this command has not made" in capsys.readouterr().err


def test_recordings_that_moved_or_are_gone(field, capsys):
    Path("card/deep").mkdir(parents=True)
    Path("field").rename("card/deep/field")
    assert main(["clips", "p.csv", "--out", "clips"]) == 2
    message = capsys.readouterr().err
    assert "2 of 2 recordings that p.csv names are not there, first field/a.wav" in message and "--root" in message
    assert main(["clips", "p.csv", "--out", "clips", "--root", "card/deep"]) == 0
    assert len(manifest("clips")) == 6
    Path("card/deep/field/b.flac").unlink()
    assert main(["clips", "p.csv", "--out", "clips", "--root", "card/deep"]) == 1
    assert "1 of 2 recordings" in capsys.readouterr().err
    assert len(manifest("clips")) == 4
    assert main(["clips", "p.csv", "--out", "clips", "--root", "nowhere"]) == 2
    assert "--root nowhere does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "words", "message"),
    [
        ("0\t1\towl\n", [], "is no table of predictions with probabilities"),
        (HEADER + "a.wav,0,x,owl,0.5,1,0,own\n", [], "is damaged"),
        (HEADER + "a.wav,0,1,silence,0,1,0,own\n", [], "reports no class in 1 rows"),
        (HEADER + "a.wav,0,1,owl,0.5,1,0,own\n", ["--threshold", "fox=0.5"], "has no class 'fox'"),
    ],
)
def test_tables_that_cannot_be_used(field, capsys, content, words, message):
    Path("q.csv").write_text(content)
    assert main(["clips", "q.csv", "--out", "clips", *words]) == 2
    assert message in capsys.readouterr().err
