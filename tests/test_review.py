"""From a table of predictions to clips, reviews and what follows from them, driven as users do."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy.stats import binomtest

from soundsight.backend.checkpoint import short_file_hash
from soundsight.cli import main
from soundsight.errors import ConfigError
from soundsight.evaluation.predicted import Row
from soundsight.files import sha256
from soundsight.models.load import load_classifier
from soundsight.review.detections import load, sample
from soundsight.review.progress import Decision, Review, sitting

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


def decided(path: str, decisions: dict[tuple[str, float, str], tuple[str, list[str]]], table: str = "p.csv") -> None:
    """Write a review as the page does, one decision after the other."""
    found = load(table)
    with sitting(Path(path), found, found.rows) as review:
        for (recording, start, label), (verdict, labels) in decisions.items():
            places = [(row.recording, row.start, row.label) for row in found.rows]
            review.decide(places.index((f"field/{recording}", start, label)), verdict, labels)


REVIEWED = {
    ("a.wav", 0, "owl"): ("yes", []), ("a.wav", 1, "owl"): ("no", []), ("a.wav", 2, "fox"): ("other", ["dog"]),
    ("a.wav", 5, "owl"): ("several", ["owl", "fox"]), ("b.flac", 0, "owl"): ("unsure", []),
}  # fmt: skip


def test_annotations_are_what_was_decided_and_prepare_reads_them(field, capsys):
    decided("p.csv.review.json", REVIEWED)
    assert main(["review", "p.csv", "--annotations", "labels.csv"]) == 0
    assert "4 decisions, 1 unsure." in capsys.readouterr().out
    rows = [line.split(",") for line in Path("labels.csv").read_text().splitlines()]
    at = str(Path("field/a.wav").absolute())
    assert rows == [
        ["file", "start", "end", "label"], [at, "0.0", "1.0", "owl"], [at, "1.0", "2.0", "background"],
        [at, "2.0", "3.0", "dog"], [at, "5.0", "6.0", "fox"], [at, "5.0", "6.0", "owl"],
    ]  # fmt: skip
    table = f"table={Path('labels.csv').absolute()}"
    words = ["clip_seconds=1", "image_size=32", "split.strategy=random", "split.fractions=[0.5,0.25,0.25]"]
    assert main(["prepare", "field", table, "--workers", "1", *words]) in (0, 2)  # too few clips for a training
    with open("data/manifest.csv", newline="") as lines:
        made = {(float(row["start_seconds"]), row["label"]) for row in csv.DictReader(lines)}
    assert made == {(0, "owl"), (1, ""), (2, "dog"), (5, "fox;owl")}


def test_a_review_of_recordings_that_moved_or_are_gone(field, capsys):
    decided("p.csv.review.json", REVIEWED)
    Path("field").rename("card")
    words = ["review", "p.csv", "--annotations", "labels.csv"]
    assert main(words) == 2 and main([*words, "--root", "nowhere"]) == 2
    message = capsys.readouterr().err
    assert "2 of 2 recordings" in message and "--root nowhere does not exist" in message
    Path("card/b.flac").unlink()
    assert main([*words, "--root", "card"]) == 1  # what was decided about the other is written
    assert "1 of 2 recordings" in capsys.readouterr().err
    files = {line.split(",")[0] for line in Path("labels.csv").read_text().splitlines()[1:]}
    assert files == {str(Path("card/a.wav").absolute())}


def test_reviewers_are_merged_and_their_disagreements_shown(field, capsys):
    decided("anna.json", REVIEWED)
    decided("ben.json", {**REVIEWED, ("a.wav", 0, "owl"): ("no", []), ("b.flac", 0, "owl"): ("yes", [])})
    words = ["review", "p.csv", "--reviews", "anna.json", "--reviews", "ben.json"]
    assert main([*words, "--annotations", "labels.csv"]) == 0
    out = capsys.readouterr().out
    assert "4 decisions, 0 unsure, 1 that 2 reviewers disagree on." in out
    assert "field/a.wav at 0 s, owl 0.950: anna.json: owl; ben.json: none of the classes" in out
    labels = Path("labels.csv").read_text()
    assert ",0.0,1.0,owl" not in labels.split("b.flac")[0] and "b.flac,0.0,1.0,owl" in labels
    assert main(words) == 2
    assert "The page writes one file" in capsys.readouterr().err


def test_an_undone_decision_is_gone_and_the_file_is_whole_after_each(field):
    found = load("p.csv")
    with sitting(Path("r.json"), found, found.rows) as review:
        review.decide(2, "yes")
        review.decide(0, "no")
        assert len(json.loads(Path("r.json").read_text())["decisions"]) == 2
        assert review.undo() == 0
        assert [d["verdict"] for d in json.loads(Path("r.json").read_text())["decisions"]] == ["yes"]
        for number, verdict, labels in [(2, "yes", []), (99, "yes", []), (0, "other", []), (0, "no", ["owl"])]:
            with pytest.raises(ConfigError):
                review.decide(number, verdict, labels)
    with sitting(Path("r.json"), found, found.rows) as review:  # another day
        assert 2 not in review.left and len(review.left) == len(found.rows) - 1


def test_two_reviewers_on_one_file(field):
    found = load("p.csv")
    holder = "from test_review import *; found = load('p.csv')\n"
    holder += "with sitting(Path('r.json'), found, found.rows): print('open', flush=True); input()"
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", holder]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    ) as other:
        assert other.stdout.readline() == "open\n"
        with (
            pytest.raises(ConfigError, match="Another `soundsight review` has r.json open; give each reviewer a file"),
            sitting(Path("r.json"), found, found.rows),
        ):
            pass
        other.communicate("\n")
    with sitting(Path("r.json"), found, found.rows):
        pass


def test_review_files_that_do_not_fit(field, capsys):
    decided("r.json", REVIEWED)
    Path("q.csv").write_text(Path("p.csv").read_text().replace("0.95", "0.96"))
    assert main(["review", "q.csv", "--reviews", "r.json", "--annotations", "labels.csv"]) == 2
    assert "r.json is a review of another table of predictions (p.csv, SHA-256" in capsys.readouterr().err
    content = Path("r.json").read_text()
    for damage, message in [
        ("{}", "r.json is no review"), (content[:-20], "is damaged"), (content.replace('"yes"', '"maybe"'), "damaged"),
        (content.replace('"soundsight_review": 1', '"soundsight_review": 2'), "newer Soundsight"),
    ]:  # fmt: skip
        Path("r.json").write_text(damage)
        assert main(["review", "p.csv", "--reviews", "r.json", "--annotations", "labels.csv"]) == 2
        assert message in capsys.readouterr().err
    assert main(["review", "p.csv", "--store", "last.pt"]) == 2
    assert "--store needs --precision" in capsys.readouterr().err


@pytest.fixture
def many(tmp_path, monkeypatch) -> float:
    """400 detections of a class whose share of right ones follows a logistic curve; the score where it is 0.9."""
    monkeypatch.chdir(tmp_path)
    Path("field").mkdir()
    soundfile.write("field/a.wav", np.zeros(401 * 100), 100)
    draw = np.random.default_rng(3)
    scores = draw.uniform(0.02, 0.98, 400)
    chance = 1 / (1 + np.exp(-(1.5 * np.log(scores / (1 - scores)) - 0.5)))
    truth = draw.random(400) < chance
    rows = [f"field/a.wav,{i},{i + 1},siren,{p:.6f},1,HASH,own\n" for i, p in enumerate(scores)]
    Path("p.csv").write_text(HEADER + "".join(rows))
    found = load("p.csv")
    content = [Decision(*row[:5], "yes" if right else "no", ("siren",) if right else ()) for row, right in
               zip(found.rows, truth, strict=True)]  # fmt: skip
    review = Review(Path("p.csv.review.json"), found, found.rows, [])
    review._write({decision.key: decision for decision in content})
    logit = (np.log(9) + 0.5) / 1.5
    return float(1 / (1 + np.exp(-logit)))


def test_shares_and_threshold_of_a_known_curve(many, capsys):
    assert main(["review", "p.csv", "--precision", "0.9", "--shares", "shares.csv"]) == 0
    with open("shares.csv", newline="") as lines:
        whole, *bands = csv.DictReader(lines)
    assert float(whole["threshold"]) == pytest.approx(many, abs=0.08)
    assert sum(int(band["reviewed"]) for band in bands) == int(whole["reviewed"]) == 400
    shares = [float(band["share"]) for band in bands]
    assert shares[0] < 0.2 and shares[-1] > 0.85
    for band in bands:
        right, count = int(band["right"]), int(band["reviewed"])
        expected = binomtest(right, count).proportion_ci(0.95, "wilson")
        assert (float(band["low"]), float(band["high"])) == pytest.approx(tuple(expected), abs=1e-4)
    assert "siren       400" in capsys.readouterr().out


def test_a_threshold_is_stored_in_the_model_that_predicted(many, tiny_model, capsys):
    shutil.copyfile(tiny_model, "last.pt")
    words = ["review", "p.csv", "--precision", "0.9", "--store", "last.pt"]
    assert main(words) == 2
    assert "p.csv was predicted by HASH, but last.pt is" in capsys.readouterr().err
    content = Path("p.csv").read_text().replace("HASH", short_file_hash("last.pt"))
    Path("p.csv").write_text(content)
    review = json.loads(Path("p.csv.review.json").read_text())
    review["predictions_sha256"] = sha256("p.csv")
    Path("p.csv.review.json").write_text(json.dumps(review))
    for _ in range(2):  # also after the model's file has changed by the first
        assert main(words) == 0
    stored = load_classifier("last.pt", device="cpu").preprocessing.thresholds
    assert stored == {"siren": pytest.approx(many, abs=0.08)}
    assert "Thresholds of siren are stored in last.pt" in capsys.readouterr().out


def test_without_enough_decisions_there_is_no_threshold(field, capsys):
    decided("p.csv.review.json", REVIEWED)
    assert main(["review", "p.csv", "--precision", "0.9"]) == 0
    assert "none: 1 of the rarer kind, right or wrong; 5 are needed" in capsys.readouterr().out


@pytest.mark.parametrize("rate", [1000, 8000, 16000, 48000, 250_000])
def test_the_picture_of_a_detection_has_no_empty_band(rate):
    pytest.importorskip("fastapi")
    from soundsight.serve.review import _settings
    from soundsight.spectrogram import render

    sound = (0.1 * np.random.default_rng(0).standard_normal(3 * rate)).astype(np.float32)
    image = render(sound, _settings(len(sound), rate))[..., 0]
    assert image.shape[0] == 256 and image.max(axis=1).min() > 0
