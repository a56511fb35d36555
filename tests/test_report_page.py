"""The report: one file that holds all it shows, figures that agree with the run, files for papers, the card."""

import base64
import csv
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from soundsight import cli
from soundsight.errors import ConfigError
from soundsight.evaluation.val import val
from soundsight.reports.card import write_card
from soundsight.reports.charts import confusion_order, fold_chart, histogram, line_chart
from soundsight.reports.html import flatten, write_html
from soundsight.reports.run_report import collect, read_run, report
from soundsight.synthesis import dataset as demo


@pytest.fixture(scope="module")
def scored(tiny_model: Path, tiny_data: Path, tmp_path_factory) -> Path:
    """A validation on the training split with labels shifted by the model's errors: some right, some wrong."""
    folder = tmp_path_factory.mktemp("scored") / "val-train"
    val(tiny_model, data=tiny_data, split="train", out=folder, device="cpu", allow_seen=True)
    text = (folder / "predictions.csv").read_text(encoding="utf-8").splitlines()
    fields = [line.split(",") for line in text]
    for line in fields[1:4]:  # three clips at least are wrong, whatever the tiny model has learnt
        line[6] = "rain" if line[5] != "rain" else "siren"
        line[7:] = ["0.900000", "2", "false"]
    (folder / "predictions.csv").write_text("\n".join(",".join(f) for f in fields) + "\n", encoding="utf-8")
    return folder


def data_of(page: str) -> dict:
    """What the script of a page draws from."""
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])


@pytest.fixture(scope="module")
def page(scored: Path, tiny_sounds: Path, tmp_path_factory) -> str:
    out = tmp_path_factory.mktemp("page") / "a.html"
    return report(scored, out=out, root=tiny_sounds, device="cpu").read_text(encoding="utf-8")


def test_the_page_holds_all_it_shows(page):
    assert len(page) < 20e6
    for found in re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"'\s)>]+)""", page):
        assert found.startswith(("#", "clip.audio", "uri")), found
    assert re.findall(r"https?://[^\s\"'<]+", page) == []
    assert "default-src 'none'" in page


def test_the_figures_are_the_runs_own(page, scored):
    metrics = json.loads((scored / "metrics.json").read_text(encoding="utf-8"))
    low, high = metrics["top1_interval_95"]
    assert f"{metrics['top1']:.1%}" in page and f"95 % interval {low:.1%} to {high:.1%}" in page
    assert metrics["model_fingerprint"] in page and metrics["data_fingerprint"] in page
    assert "versions.torch" in page and "Loss" in page
    assert re.search(r"<title>train</title>\s*<path d=", page)


def test_clips_can_be_seen_heard_and_explained(page, scored, tiny_sounds):
    data = data_of(page)
    assert len(data["mistakes"]) >= 3
    clip = data["clips"][str(data["mistakes"][0])]
    assert clip["true"] != clip["predicted"] and clip["seconds"] == 1
    sound, rate = soundfile.read(io.BytesIO(base64.b64decode(clip["audio"].partition(",")[2])))
    original, _ = soundfile.read(tiny_sounds / clip["name"])
    assert rate == 16000 and np.abs(sound - original).max() < 1e-4
    assert clip["picture"].startswith("data:image/png") and clip["heat"].startswith("data:image/png")
    shown = [data["clips"][str(i)]["probability"] for i in data["mistakes"]]
    assert shown == sorted(shown, reverse=True)
    assert {i for pair in data["pairs"] for i in pair["shown"]} <= {int(i) for i in data["clips"]}


def test_of_a_labelled_stretch_no_more_is_shown_than_was_scored(scored, tmp_path, tiny_sounds):
    folder = tmp_path / "val"
    shutil.copytree(scored, folder)
    rows = list(csv.DictReader(open(folder / "predictions.csv", encoding="utf-8", newline="")))
    for row in rows:
        row["end_seconds"] = str(float(row["start_seconds"]) + 0.25)
    with open(folder / "predictions.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    data = data_of(report(folder, root=tiny_sounds, saliency=False, device="cpu").read_text(encoding="utf-8"))
    assert {clip["seconds"] for clip in data["clips"].values()} == {0.25}


def test_looks_and_ensembles_belong_to_the_run_above_them(scored, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.json").write_text("{}", encoding="utf-8")
    for below in ("speeds0.9+1.1", "with-a", "with-a/shifts4"):
        shutil.copytree(scored, tmp_path / "run" / below, dirs_exist_ok=True)
        assert read_run(tmp_path / "run" / below).training.resolve() == (tmp_path / "run").resolve()


def test_the_matrix_counts_the_predictions(page, scored):
    data = data_of(page)
    lines = (scored / "predictions.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert sum(map(sum, data["confusion"])) == len(lines)
    wrong = sum(line.endswith("false") for line in lines)
    assert sum(len(clips) for clips in data["wrong"].values()) == wrong
    assert sorted(data["order"]) == list(range(len(data["names"])))


def test_what_is_gone_is_said_and_the_rest_goes_on(scored, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    moved = tmp_path / "moved"
    shutil.copytree(scored, moved)
    metrics = json.loads((moved / "metrics.json").read_text(encoding="utf-8"))
    metrics |= {"model": "gone.pt", "data": "gone", "dataset": {"root": "gone"}}
    (moved / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    text = report(moved).read_text(encoding="utf-8")
    assert "There are no spectrograms" in text and "no training curves" in text and "name it with --root" in text
    assert all(not clip["audio"] for clip in data_of(text)["clips"].values())


def test_another_projects_data_of_the_same_name_is_not_taken(scored, tiny_data, tmp_path, monkeypatch):
    """Two projects with data/ and run/; the report of the first is asked for from the second's folder."""
    for name, band in (("one", 0.0), ("two", 99.0)):
        shutil.copytree(tiny_data, tmp_path / name / "data")
        path = tmp_path / name / "data" / "settings.json"
        settings = json.loads(path.read_text(encoding="utf-8"))
        settings["spectrogram"]["fmin_hz"] += band
        settings["fingerprint"] = settings["fingerprint"] if name == "one" else "0" * 12
        path.write_text(json.dumps(settings), encoding="utf-8")
    own = json.loads((tmp_path / "one" / "data" / "settings.json").read_text(encoding="utf-8"))["spectrogram"]
    run = tmp_path / "one" / "run"
    shutil.copytree(scored, run)
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8")) | {"data": "data", "model": "gone.pt"}
    (run / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    monkeypatch.chdir(tmp_path / "two")
    for folder in (run, shutil.copytree(run, tmp_path / "two" / "copied")):
        config = collect(read_run(folder), saliency=False).spectrogram
        assert config is None if "two" in str(folder) else config.fmin_hz == own["fmin_hz"]


def test_only_recordings_below_the_data_sets_root_are_embedded(scored, tmp_path, tiny_sounds, monkeypatch):
    """A stranger's predictions.csv names other recordings of this computer, by every kind of path."""
    private = tmp_path / "private.wav"
    shutil.copy(next((tiny_sounds / "audio").glob("*.wav")), private)
    root, moved = tmp_path / "root", tmp_path / "moved"
    root.mkdir()
    (root / "link.wav").symlink_to(private)
    shutil.copytree(scored, moved)
    with open(scored / "predictions.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = [str(private), "../private.wav", "link.wav", f"{root}/../private.wav"]
    for number, row in enumerate(rows):
        row["clip"] = names[number % len(names)]
    with open(moved / "predictions.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    monkeypatch.chdir(tmp_path / "moved")
    for settings in ({"settings": {"source": ".."}}, {"dataset": {"root": str(tmp_path)}}):  # nor by another root
        metrics = json.loads((scored / "metrics.json").read_text(encoding="utf-8")) | settings
        (moved / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
        assert read_run(moved).root() is None
    monkeypatch.chdir(tmp_path)
    assert read_run(moved).root() == tmp_path
    clips = collect(read_run(moved), root=root, saliency=False).clips
    assert clips and not any(clip.audio or clip.image is not None for clip in clips.values())
    assert all(f"lies outside {root}" in clip.note for clip in clips.values())


def test_a_model_that_changed_explains_nothing(scored, tmp_path, tiny_sounds):
    moved = tmp_path / "moved"
    shutil.copytree(scored, moved)
    metrics = json.loads((moved / "metrics.json").read_text(encoding="utf-8")) | {"model_fingerprint": "0" * 12}
    (moved / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    material = collect(read_run(moved), root=tiny_sounds, device="cpu")
    assert any("has changed since it was scored" in note for note in material.notes)
    assert all(clip.saliency is None and clip.audio for clip in material.clips.values())


def test_names_cannot_break_out_of_the_page(scored, tmp_path, tiny_sounds):
    moved = tmp_path / "moved"
    shutil.copytree(scored, moved)
    evil = "</script><script>alert(1)</script>"
    for name in ("predictions.csv", "metrics.json"):
        text = (moved / name).read_text(encoding="utf-8").replace("rain", evil)
        (moved / name).write_text(text, encoding="utf-8")
    text = report(moved, saliency=False).read_text(encoding="utf-8")
    assert evil not in text and data_of(text)["names"]
    assert "&lt;script&gt;" in text


def test_a_cross_validation_is_reported_with_its_folds(scored, tmp_path, tiny_sounds, tiny_model, monkeypatch):
    run = tmp_path / "cv"
    for fold in (1, 2, 3):
        work = run / f"fold{fold}-seed0" / "run"
        (work / "weights").mkdir(parents=True)
        shutil.copyfile(tiny_model, work / "weights" / "last.pt")
        shutil.copyfile(tiny_model.parents[1] / "results.csv", work / "results.csv")
    shutil.copyfile(scored / "predictions.csv", run / "predictions.csv")
    metrics = json.loads((scored / "metrics.json").read_text(encoding="utf-8"))
    from soundsight.config import to_dict
    from soundsight.models.load import load_classifier

    settings = {
        "spectrogram": to_dict(load_classifier(tiny_model, device="cpu").preprocessing.spectrogram),
        "protocol": "last",
        "seeds": [0],
        "source": str(tiny_sounds),
    }
    metrics = {k: v for k, v in metrics.items() if k not in ("model", "data", "dataset", "split")} | {
        "folds": {str(f): {"top1": 0.8 + f / 100, "top5": 1.0} for f in (1, 2, 3)},
        "top1_over_folds": {"mean": 0.82, "std": 0.01, "interval": [0.79, 0.85]},
        "settings": settings,
    }
    (run / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    monkeypatch.chdir(tiny_sounds.parent)  # below which recordings are found
    text = report(run, device="cpu").read_text(encoding="utf-8")
    assert "Mean of folds" in text and "± 1.0%" in text and "Top-1 of each fold" in text
    assert all(f"<title>fold{fold}-seed0 train</title>" in text for fold in (1, 2, 3))
    assert all(clip["audio"] and clip["heat"] for clip in data_of(text)["clips"].values())


def test_sounds_stay_within_their_budget(scored, monkeypatch, tiny_sounds):
    monkeypatch.setattr("soundsight.reports.run_report.AUDIO_BYTES", 40_000)
    material = collect(read_run(scored), root=tiny_sounds, saliency=False)
    assert 0 < sum(len(clip.audio) for clip in material.clips.values()) <= 40_000
    assert any("too large" in note for note in material.notes)


def test_the_command_writes_page_and_figures(scored, tmp_path, tiny_sounds, capsys):
    out, figures = tmp_path / "a.html", tmp_path / "figures"
    words = ["report", str(scored), "--out", str(out), "--folder", str(figures), "--pdf", "--svg", "--device", "cpu"]
    words += ["--root", str(tiny_sounds)]
    assert cli.main(words) == 0
    assert f"Page: {out}" in capsys.readouterr().out
    for stem in (
        "confusion_matrix",
        "confusion_matrix_normalized",
        "reliability",
        "per_class",
        "training_curves",
        "mistake-01",
    ):
        assert (figures / f"{stem}.png").read_bytes().startswith(b"\x89PNG")
        assert (figures / f"{stem}.pdf").read_bytes().startswith(b"%PDF")
        assert (figures / f"{stem}.svg").is_file()
    for name in ("metrics.json", "predictions.csv", "per_class.csv", "confused_pairs.csv", "mistakes.csv"):
        assert (figures / name).stat().st_size


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["report", "nowhere"], "The run nowhere does not exist"),
        (["report", "."], "holds no metrics.json"),
        (["report", ".", "--pdf"], "name it with --folder"),
        (["report", ".", "--root", "gone"], "folder of recordings gone does not exist"),
    ],
)
def test_the_command_refuses_in_one_sentence(tmp_path, monkeypatch, capsys, words, sentence):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 2
    assert sentence in capsys.readouterr().err


def test_damaged_runs_and_own_folders_are_refused(scored, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(scored, broken)
    (broken / "predictions.csv").write_text("clip\nx\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="is damaged"):
        read_run(broken)
    from soundsight.reports.figures import write_figures

    run = read_run(scored)
    with pytest.raises(ConfigError, match="is the run itself"):
        write_figures(run, collect(run, saliency=False), scored)


def test_confused_classes_are_brought_together():
    confusion = 20 * np.eye(6, dtype=int)
    confusion[0, 5] = confusion[5, 0] = confusion[1, 4] = confusion[4, 1] = 9
    place = {c: i for i, c in enumerate(confusion_order(confusion))}
    assert abs(place[0] - place[5]) == 1 and abs(place[1] - place[4]) == 1
    assert confusion_order(np.eye(2, dtype=int)) == [0, 1]


def test_charts_survive_gaps_and_single_points():
    def lines(*points):
        return re.findall(
            r"<title>a&lt;b</title>\s*<path d=\"([^\"]*)\"", line_chart("Loss", [("a<b", "", *points, 0)]).svg
        )

    (path,) = lines([1, 2, 3], [1.0, float("nan"), 2.0])
    assert len(re.findall("[ML] ", path)) == 2  # the gap is bridged
    assert lines([1], [0.0])


def test_charts_have_the_colours_and_the_font_of_their_page():
    charts = [
        line_chart("Loss", [("a", "train", [1, 2], [1.0, 2.0], 0), ("b", "val", [1, 2], [2.0, 1.0], 1)]),
        fold_chart({"1": {"top1": 0.8}, "2": {"top1": 0.9}}, "top1", "Top-1"),
        histogram("Peak", "dBFS", [-3.0, -2.0, -2.0]),
    ]
    for chart in charts:
        assert not re.search(r'id="|font-family|#[0-9a-f]{6}|https?:|href|<style', chart.svg)
        assert "var(--one)" in chart.svg and "var(--soft)" in chart.svg
    assert ">80.0%</text>" in charts[1].svg and "<title>fold 2: 90.00%</title>" in charts[1].svg
    assert histogram("Length", "s", [5.0, 5.0]).value == "5 s for all 2"


def test_settings_become_dotted_names():
    assert flatten({"a": {"b": 1, "c": [1, 2]}, "d": None}) == [("a.b", "1"), ("a.c", "1, 2"), ("d", "none")]


def test_the_page_is_whole_or_absent(scored, tmp_path):
    run = read_run(scored)
    with pytest.raises(ConfigError, match="cannot be written"):
        (tmp_path / "file").write_text("")
        write_html(collect(run, saliency=False), tmp_path / "file" / "a.html")


@pytest.fixture
def trained(tiny_model: Path, tiny_data: Path, tmp_path: Path) -> Path:
    """A training folder as `soundsight train` leaves it."""
    from soundsight.config import AugmentConfig
    from soundsight.datasets import manifest
    from soundsight.evaluation.train import record

    folder = tmp_path / "trained"
    (folder / "weights").mkdir(parents=True)
    shutil.copyfile(tiny_model, folder / "weights" / "last.pt")
    record(folder, {"epochs": 8, "seed": 0}, manifest.read_spectrogram(tiny_data), AugmentConfig(), tiny_data)
    return folder


def test_the_card_says_what_the_run_says(trained, scored):
    text = write_card(trained, scored=scored).read_text(encoding="utf-8")
    for part in ("## Data and licence", "## Protocol", "## Figures", "## Limits", "## How to load it", "epochs 8"):
        assert part in text
    assert "synthesised by `soundsight demo`" in text and "train 1, 2, 3; val 4; test 5" in text
    metrics = json.loads((scored / "metrics.json").read_text(encoding="utf-8"))
    assert f"{metrics['top1']:.2%}" in text


def test_the_card_claims_no_figures_without_scores(trained, scored, tmp_path):
    assert "Not scored yet" in write_card(trained).read_text(encoding="utf-8")
    other = tmp_path / "other"
    shutil.copytree(scored, other)
    metrics = json.loads((other / "metrics.json").read_text(encoding="utf-8")) | {"model_fingerprint": "f" * 12}
    (other / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    with pytest.raises(ConfigError, match="scored the model ffffffffffff"):
        write_card(trained, scored=other)
    with pytest.raises(ConfigError, match="is not a training"):
        write_card(tmp_path)


def test_the_card_names_licence_and_citation_of_published_data(trained):
    path = trained / "soundsight.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["dataset"] = {"kind": "urbansound8k", "root": "x"}
    path.write_text(json.dumps(content), encoding="utf-8")
    assert "Own data" in write_card(trained).read_text(encoding="utf-8")  # 4 classes are not UrbanSound8K


def test_demo_classes_are_no_published_data():
    from soundsight.reports.card import _published

    record = {"dataset": {"kind": "esc50"}}
    assert _published(record, list(demo.CLASSES)) is None
    assert _published(record, [str(i) for i in range(50)]) is not None
