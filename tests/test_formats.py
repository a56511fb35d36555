"""What `predict` and `embed` read and write, driven as a user does: the command line and its files."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from conftest import TINY_EARS
from soundsight.cli import main
from soundsight.config import DatasetConfig, to_dict
from soundsight.datasets.catalogue import read_catalogue
from soundsight.inference import load
from soundsight.inference.formats import FORMATS

RATE = TINY_EARS.sample_rate
COMMAND = [sys.executable, "-m", "soundsight"]
COLUMNS = ["recording", "start", "end", "label", "probability", "rank", "model", "settings"]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory, tiny_sounds: Path) -> Path:
    """A folder with three recordings: siren, rain for 2.5 s, digital silence."""
    folder = tmp_path_factory.mktemp("three")
    siren, rain = (sorted((tiny_sounds / "audio").glob(f"1-*-{target}.wav"))[0] for target in (0, 5))
    shutil.copy(siren, folder / "a siren.wav")
    samples, rate = soundfile.read(rain)
    soundfile.write(folder / "rain.flac", np.tile(samples, 3)[: int(2.5 * rate)], rate)
    (folder / "more").mkdir()
    soundfile.write(folder / "more" / "nothing.wav", np.zeros(RATE), RATE)
    return folder


def run(capfdbinary: pytest.CaptureFixture[bytes], *words: object) -> tuple[int, str, str]:
    code = main([str(word) for word in words])
    out, err = capfdbinary.readouterr()
    return code, out.decode(), err.decode()


def test_csv(capfdbinary: pytest.CaptureFixture[bytes], tiny_onnx: Path, three: Path) -> None:
    code, out, err = run(capfdbinary, "predict", tiny_onnx, three, "--format", "csv", "--top-k", 2)
    assert code == 0, err
    assert out.splitlines()[0].split(",") == COLUMNS
    rows = list(csv.DictReader(io.StringIO(out)))
    files = [Path(row["recording"]).name for row in rows]
    assert files == 2 * ["a siren.wav"] + 6 * ["rain.flac"] + ["nothing.wav"]
    assert [row["rank"] for row in rows] == ["1", "2"] * 4 + ["1"]
    spans = [(float(row["start"]), float(row["end"])) for row in rows if row["rank"] == "1"]
    assert spans == [(0, 1), (0, 1), (1, 2), (2, 2.5), (0, 1)]
    assert rows[0]["label"] == "siren" and rows[2]["label"] == "rain"
    assert rows[-1]["label"] == "silence" and float(rows[-1]["probability"]) == 0
    assert {row["model"] for row in rows} == {load(tiny_onnx).model_hash}
    assert {row["settings"] for row in rows} == {"own"}


def test_scores_are_a_wide_table(capfdbinary, tiny_onnx: Path, three: Path, tmp_path: Path) -> None:
    """As opensoundscape's: read by pandas with three index columns, the rest are classes."""
    pandas = pytest.importorskip("pandas", reason="the extra soundsight[tables] is not installed")
    table = tmp_path / "scores.csv"
    code, _, err = run(capfdbinary, "predict", tiny_onnx, three, "--format", "scores", "--out", table)
    assert code == 0, err
    frame = pandas.read_csv(table, index_col=["file", "start_time", "end_time"])
    predictor = load(tiny_onnx)
    assert tuple(frame.columns) == predictor.names
    answers = [predictor(three / name) for name in ("a siren.wav", "rain.flac", "more/nothing.wav")]
    segments = [segment for answer in answers for segment in answer.predictions]
    assert [row[1:] for row in frame.index] == [(s.start_seconds, s.end_seconds) for s in segments]
    assert frame.to_numpy() == pytest.approx(np.stack([s.probabilities for s in segments]), abs=1e-4)
    assert frame.iloc[:4].sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-5)
    assert not frame.iloc[4].any()  # silence


@pytest.mark.parametrize("kind", [name for name, writer in FORMATS.items() if writer.head])
def test_what_is_written_is_read_back(capfdbinary, tiny_onnx: Path, three: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "predictions"
    code, _, err = run(capfdbinary, "predict", tiny_onnx, three, "--format", kind, "--out", out)
    assert code == 0, err
    writer = FORMATS[kind]
    assert out.read_bytes().startswith(writer.head)
    rows = list(writer.read(out))
    wide = 4 if kind == "scores" else 1
    assert len(rows) == 5 * wide
    assert [(row["start"], row["end"]) for row in rows[::wide]] == [(0, 1), (0, 1), (1, 2), (2, 2.5), (0, 1)]
    assert [Path(row["recording"]).name for row in rows[wide : 2 * wide]] == ["rain.flac"] * wide
    rain = max(rows[wide : 2 * wide], key=lambda row: row["probability"])
    predicted = load(tiny_onnx)(three / "rain.flac").predictions[0]
    assert (rain["label"], rain["probability"]) == (predicted.label, pytest.approx(predicted.probability, abs=1e-4))


def test_a_row_per_segment_unless_more_are_asked_for(capfdbinary, tiny_onnx: Path, three: Path, tmp_path: Path) -> None:
    for kind in ("csv", "jsonl"):
        lines = run(capfdbinary, "predict", tiny_onnx, three / "rain.flac", "--format", kind)[1].splitlines()
        assert len(lines) == 3 + (kind == "csv")
    answer = load(tiny_onnx)(three / "rain.flac")
    assert len(answer.to_rows()) == 3 and len(answer.to_rows(2)) == 6 and len(answer.top()) == 4


def test_strange_names_reach_no_terminal_and_no_spreadsheet(capfdbinary, tiny_model, three, tmp_path, recwarn):
    """A recording and a class with the escape that clears a screen, and as a formula."""
    from soundsight.backend.checkpoint import update_preprocessing

    model, clip = (
        shutil.copy(tiny_model, tmp_path / "m.pt"),
        shutil.copy(three / "a siren.wav", tmp_path / "\x1b[2Ja.wav"),
    )
    update_preprocessing(model, names=[f"\x1b[2J{name}" for name in load(tiny_model).names])
    for words in (["--format", "jsonl"], ["--format", "csv"], [], ["--timeline", tmp_path / "t.png", "--summary"]):
        code, out, err = run(capfdbinary, "predict", model, clip, "--device", "cpu", *words)
        assert code == 0 and "\x1b" not in out + err, words
        if "jsonl" in words:
            assert json.loads(out)["label"].startswith("\x1b[2J")
    code, out, err = run(capfdbinary, "explain", model, clip, "--device", "cpu", "--out", tmp_path / "why.png")
    assert code == 0 and "\x1b" not in out + err and "\\x1b[2Ja.wav" in out
    answer = load(model, device="cpu")(clip)
    assert "\x1b" not in str(answer) + answer._repr_html_()
    assert not [warning for warning in recwarn if "\x1b" in str(warning.message)]

    update_preprocessing(model, names=[f"=1+{name}" for name in load(tiny_model).names])
    shutil.copy(clip, tmp_path / "=2.wav")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        out = run(capfdbinary, "predict", model, "=2.wav", "--device", "cpu", "--format", "csv")[1]
    (row,) = csv.DictReader(io.StringIO(out))
    assert row["recording"] == "./=2.wav" and row["label"].startswith("'=1+")


@pytest.mark.parametrize("word", ["--out=a.xyz", "--out=a.raven", "--timeline=a.bmp", "--timeline=night"])
def test_endings_that_mean_nothing_are_refused_before_any_work(capfdbinary, tiny_onnx, three, word, monkeypatch):
    monkeypatch.chdir(three)
    code, out, err = run(capfdbinary, "predict", tiny_onnx, "rain.flac", word)
    assert code == 2 and out == "" and "cannot be written: its name must end in" in err
    assert sorted(os.listdir(three)) == ["a siren.wav", "more", "rain.flac"]
    assert run(capfdbinary, "embed", tiny_onnx, "rain.flac", "--out", "a.csv")[2].count("must end in .parquet") == 1


def test_progress_is_shown_on_a_terminal_and_nowhere_else(tiny_onnx: Path, three: Path, tmp_path: Path) -> None:
    fcntl, pty, termios = (pytest.importorskip(name) for name in ("fcntl", "pty", "termios"))
    for sources, shown in ((["rain.flac"], b"s/s"), (["rain.flac", "a siren.wav"], b"2/2")):
        words = ["predict", str(tiny_onnx), *(str(three / name) for name in sources), "--out", str(tmp_path / "a.csv")]
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
        env = {**os.environ, "TQDM_MININTERVAL": "0"}
        with subprocess.Popen([*COMMAND, *words], stderr=theirs, stdout=theirs, env=env) as process:
            os.close(theirs)
            seen = b""
            while process.poll() is None or not seen:
                try:
                    seen += os.read(ours, 4096)
                except OSError:  # the other end is closed
                    break
        os.close(ours)
        assert process.returncode == 0 and b"predicting" in seen and shown in seen and b"00:0" in seen
    done = subprocess.run([*COMMAND, *words], capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_json_lines_and_parquet_hold_the_same(
    capfdbinary: pytest.CaptureFixture[bytes], tiny_onnx: Path, three: Path, tmp_path: Path
) -> None:
    pandas = pytest.importorskip("pandas")
    parquet = tmp_path / "new" / "answers.parquet"
    assert run(capfdbinary, "predict", tiny_onnx, three, "--out", parquet)[0] == 0
    _, out, _ = run(capfdbinary, "predict", tiny_onnx, three, "--format", "jsonl")
    lines = [json.loads(line) for line in out.splitlines()]
    frame = pandas.read_parquet(parquet)
    assert list(frame.columns) == list(lines[0]) == COLUMNS
    for line, row in zip(lines, frame.to_dict("records"), strict=True):
        assert row.pop("probability") == pytest.approx(line.pop("probability"), abs=1e-6)
        assert row == line
    assert os.listdir(parquet.parent) == ["answers.parquet"]


def test_table(capfdbinary: pytest.CaptureFixture[bytes], tiny_onnx: Path, three: Path) -> None:
    code, out, _ = run(capfdbinary, "predict", tiny_onnx, f"{three}/*.flac", "--top-k", 2, "--merge")
    lines = out.splitlines()
    assert code == 0 and len(lines) == 2
    assert lines[0].split() == ["recording", "start", "s", "end", "s", "label", "prob.", "then"]
    assert lines[1].split()[1:4] == ["0.00", "2.50", "rain"]


def test_audacity_label_tracks(
    capfdbinary: pytest.CaptureFixture[bytes], tiny_onnx: Path, three: Path, tmp_path: Path
) -> None:
    _, out, _ = run(capfdbinary, "predict", tiny_onnx, three / "rain.flac", "--format", "audacity", "--merge")
    assert out == "0.000000\t2.500000\train\n"
    folder = tmp_path / "tracks"
    assert run(capfdbinary, "predict", tiny_onnx, three, "--format", "audacity", "--out", folder)[0] == 0
    assert sorted(os.listdir(folder)) == ["a siren.txt", "nothing.txt", "rain.txt"]
    assert (folder / "nothing.txt").read_text() == ""  # silence gets no label
    for line in (folder / "rain.txt").read_text().splitlines():
        start, end, label = line.split("\t")
        assert float(start) < float(end) <= 2.5 and label == "rain"
    code, _, err = run(capfdbinary, "predict", tiny_onnx, three, "--format", "audacity")
    assert code == 2 and "makes one file per recording; name a folder for all 3 with --out" in err


def test_raven_selection_tables(
    capfdbinary: pytest.CaptureFixture[bytes], tiny_onnx: Path, three: Path, tmp_path: Path
) -> None:
    _, out, _ = run(capfdbinary, "predict", tiny_onnx, three / "rain.flac", "--format", "raven")
    rows = list(csv.DictReader(io.StringIO(out), delimiter="\t"))
    needed = ["Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)"]
    assert out.splitlines()[0].split("\t")[:7] == needed
    assert [row["Selection"] for row in rows] == ["1", "2", "3"]
    assert [float(row["End Time (s)"]) for row in rows] == [1, 2, 2.5]
    first = rows[0]
    assert (first["View"], first["Channel"]) == ("Spectrogram 1", "1")
    assert (float(first["Low Freq (Hz)"]), float(first["High Freq (Hz)"])) == (20, 8000)
    assert (first["Begin Path"], first["Begin File"]) == (str(three / "rain.flac"), "rain.flac")
    assert first["Label"] == "rain" and 0 < float(first["Score"]) <= 1
    assert run(capfdbinary, "predict", tiny_onnx, three, "--format", "raven", "--out", tmp_path)[0] == 0
    assert sorted(os.listdir(tmp_path))[0] == "a siren.selections.txt"


@pytest.mark.parametrize("form", ["audacity", "raven"])
def test_answers_are_labels_to_train_on(
    capfdbinary: pytest.CaptureFixture[bytes], tiny_onnx: Path, three: Path, tmp_path: Path, form: str
) -> None:
    """What is written can be corrected in Audacity or Raven, and read back as a data set."""
    shutil.copy(three / "rain.flac", tmp_path / "rain.flac")
    assert run(capfdbinary, "predict", tiny_onnx, tmp_path / "rain.flac", "--format", form, "--out", tmp_path)[0] == 0
    config = DatasetConfig(kind="table", root=str(tmp_path), table="*.txt", label_column="Label")
    catalogue = read_catalogue(config)
    assert [(c.file, c.label, c.start_seconds, c.end_seconds) for c in catalogue.clips] == [
        ("rain.flac", "rain", 0, 1),
        ("rain.flac", "rain", 1, 2),
        ("rain.flac", "rain", 2, 2.5),
    ]


def test_files_of_one_name_do_not_replace_each_other(
    capfdbinary: pytest.CaptureFixture[bytes], tiny_onnx: Path, three: Path, tmp_path: Path
) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        shutil.copy(three / "rain.flac", tmp_path / folder / "rain.flac")
    out = tmp_path / "out"
    sources = tmp_path / "x", tmp_path / "y"
    assert run(capfdbinary, "predict", tiny_onnx, *sources, "--format", "audacity", "--out", out)[0] == 0
    assert sorted(os.listdir(out)) == ["rain-2.txt", "rain.txt"]


def test_summary_is_one_answer_a_recording(
    capfdbinary: pytest.CaptureFixture[bytes], tiny_onnx: Path, three: Path
) -> None:
    words = ["predict", tiny_onnx, three, "--summary", "--format", "csv", "--top-k", 1]
    _, out, _ = run(capfdbinary, *words)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [(row["label"], float(row["end"])) for row in rows] == [("siren", 1), ("rain", 2.5), ("silence", 1)]


def test_timelines_are_drawn(
    capfdbinary: pytest.CaptureFixture[bytes], tiny_onnx: Path, three: Path, tmp_path: Path
) -> None:
    path = tmp_path / "t.png"
    assert run(capfdbinary, "predict", tiny_onnx, three / "rain.flac", "--timeline", path)[0] == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    assert run(capfdbinary, "predict", tiny_onnx, three, "--timeline", tmp_path / "all")[0] == 0
    assert sorted(os.listdir(tmp_path / "all")) == ["a siren.png", "nothing.png", "rain.png"]


def test_files_for_recordings_have_names_that_fit_the_file_system(
    capfdbinary: pytest.CaptureFixture[bytes], tiny_onnx: Path, three: Path, tmp_path: Path
) -> None:
    for folder, end in (("a", "1"), ("b", "2")):
        (tmp_path / folder).mkdir()
        shutil.copy(three / "rain.flac", tmp_path / folder / f"{'ü' * 124}{end}.flac")  # the very 255 bytes
    words = [tmp_path / "a", tmp_path / "b", "--format", "raven", "--out", tmp_path / "out"]
    assert run(capfdbinary, "predict", tiny_onnx, *words)[0] == 0
    made = os.listdir(tmp_path / "out")
    assert len(made) == 2 and all(250 < len(os.fsencode(name)) <= 255 and name.endswith(".txt") for name in made)


def test_bad_sources_come_last_and_count(
    capfdbinary: pytest.CaptureFixture[bytes], tiny_onnx: Path, three: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.wav").write_text("no sound")
    words = [tmp_path / "bad.wav", tmp_path / "gone.wav", three]
    code, out, err = run(capfdbinary, "predict", tiny_onnx, *words, "--format", "csv", "--top-k", 1)
    assert code == 1
    assert len(out.splitlines()) == 1 + 5
    lines = err.splitlines()
    assert "bad.wav is no recording that can be read" in lines[-3]
    assert "gone.wav does not exist" in lines[-2]
    assert lines[-1] == "soundsight: 2 of 5 recordings could not be read; the rest is predicted."


def test_output_is_whole_or_absent(
    capfdbinary: pytest.CaptureFixture[bytes], tiny_onnx: Path, three: Path, tmp_path: Path
) -> None:
    out = tmp_path / "a.csv"
    out.write_text("older")
    code, _, err = run(capfdbinary, "predict", tiny_onnx, three, "--out", out, "--hop", 0, "--overwrite")
    assert code == 2 and "hop_seconds=0 is out of range" in err
    assert out.read_text() == "older" and os.listdir(tmp_path) == ["a.csv"]
    code, _, err = run(capfdbinary, "predict", tiny_onnx, three, "--out", tmp_path)
    assert code == 2 and "is a folder; name a file with --out" in err
    code, _, err = run(capfdbinary, "predict", tiny_onnx, three, "--out", out / "b.csv")
    assert code == 2 and "cannot be written" in err


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--threshold", "dog"], "threshold=dog is not understood; write a number, or CLASS=NUMBER"),
        (["--threshold", "dog=0.5"], "no class 'dog'"),
        (["--segment", "3"], "segment=3 s is longer than this model's clip length, 1 s"),
        (["--raw", "16000"], "--raw describes standard input"),
        (["--spectrogram", "none.yaml"], "settings file none.yaml does not exist"),
        (["--threads", "0"], "threads=0 is out of range"),
        (["--device", "7"], "device=7 is not there"),
    ],
)
def test_wrong_words_are_explained(
    capfdbinary: pytest.CaptureFixture[bytes], tiny_onnx: Path, three: Path, words: list[str], match: str
) -> None:
    code, out, err = run(capfdbinary, "predict", tiny_onnx, three, *words)
    assert (code, out) == (2, "")
    assert match in err and len(err.splitlines()) == 1


def test_an_override_of_the_ears_is_recorded(
    capfdbinary: pytest.CaptureFixture[bytes], tiny_onnx: Path, three: Path, tmp_path: Path
) -> None:
    path = tmp_path / "ears.yaml"
    path.write_text(yaml.safe_dump({**to_dict(TINY_EARS), "db_floor": -60.0}))
    words = ["predict", tiny_onnx, three, "--format", "jsonl", "--spectrogram", path]
    _, out, _ = run(capfdbinary, *words)
    assert {json.loads(line)["settings"] for line in out.splitlines()} == {"override"}


WAV_KINDS = ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "IMA_ADPCM")
OTHER_KINDS = ("flac", "ogg", "mp3", "aiff", "au", "caf", "w64")


@pytest.mark.parametrize("kind", [*WAV_KINDS, *OTHER_KINDS])
def test_every_format_is_heard(
    capfdbinary: pytest.CaptureFixture[bytes], tiny_onnx: Path, three: Path, tmp_path: Path, kind: str
) -> None:
    """The same siren at another rate, in stereo, in every format: the same prediction."""
    samples, rate = soundfile.read(three / "a siren.wav")
    stereo = np.stack([samples, samples], axis=1)
    path = tmp_path / f"a.{kind if kind in OTHER_KINDS else 'wav'}"
    soundfile.write(path, stereo, rate, subtype=kind if kind in WAV_KINDS else None)
    code, out, err = run(capfdbinary, "predict", tiny_onnx, path, "--format", "jsonl", "--top-k", 1)
    assert code == 0, err
    assert json.loads(out.splitlines()[0])["label"] == "siren"


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
@pytest.mark.parametrize("suffix", ["m4a", "mkv"])
def test_ffmpeg_formats_are_heard(
    capfdbinary: pytest.CaptureFixture[bytes], tiny_onnx: Path, three: Path, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    subprocess.run(["ffmpeg", "-v", "error", "-i", three / "a siren.wav", path], check=True)
    code, out, err = run(capfdbinary, "predict", tiny_onnx, tmp_path, "--format", "jsonl", "--top-k", 1)
    assert code == 0, err
    assert json.loads(out.splitlines()[0])["label"] == "siren"


def test_pipes(tiny_onnx: Path, three: Path) -> None:
    wav = three / "a siren.wav"
    samples, _ = soundfile.read(wav, dtype="int16")
    command = [*COMMAND, "predict", str(tiny_onnx), "-", "--format", "jsonl", "--top-k", "1"]
    for data, more in ((wav.read_bytes(), []), (samples.tobytes(), ["--raw", str(RATE)])):
        done = subprocess.run([*command, *more], input=data, capture_output=True, check=True, timeout=120)
        row = json.loads(done.stdout)
        assert (row["recording"], row["end"], row["label"]) == ("-", 1, "siren")
    done = subprocess.run(command, input=b"hello", capture_output=True, check=False, timeout=120)
    assert done.returncode == 1
    assert b"Standard input is no recording that can be read from a pipe" in done.stderr


def test_slow_pipes_are_answered_at_once(tiny_onnx: Path) -> None:
    command = [*COMMAND, "predict", str(tiny_onnx), "-", "--raw", str(RATE), "--format", "jsonl", "--top-k", "1"]
    noise = np.random.default_rng(0).integers(-3000, 3000, 2 * RATE).astype("<i2")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(noise.tobytes())
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["end"] == 1  # while the pipe is still open
        process.stdin.close()
        assert [json.loads(line)["end"] for line in process.stdout] == [2]


def test_a_reader_that_leaves_is_no_error(tiny_onnx: Path, three: Path) -> None:
    command = f"{' '.join(COMMAND)} predict {tiny_onnx} '{three}' --hop 0.01 --format csv | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=True, timeout=120)
    assert done.stdout.decode().strip().split(",") == COLUMNS
    assert done.stderr == b""


@pytest.mark.skipif(os.name != "posix", reason="file names are Unicode here")
def test_odd_file_names(tiny_onnx: Path, three: Path, tmp_path: Path) -> None:
    odd = os.path.join(os.fsencode(tmp_path), b"caf\xe9\t\x1b[31m.wav")
    shutil.copy(os.fsencode(three / "a siren.wav"), odd)
    for form in ("table", "csv", "jsonl", "audacity"):
        command = [*COMMAND, "predict", str(tiny_onnx), str(tmp_path), "--format", form]
        done = subprocess.run(command, capture_output=True, check=True, timeout=120, env={**os.environ, "LC_ALL": "C"})
        assert b"siren" in done.stdout and done.stderr == b""
        assert form != "table" or b"\x1b" not in done.stdout


def test_embed_writes_one_vector_a_window(
    capfdbinary: pytest.CaptureFixture[bytes], tiny_model: Path, three: Path, tmp_path: Path
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "v.parquet"
    code, text, err = run(capfdbinary, "embed", tiny_model, three, tmp_path / "gone.wav", "--out", out)
    assert code == 1 and "gone.wav does not exist" in err
    assert text == f"5 vectors of 3 recordings: {out}\n"
    table = parquet.read_table(out)
    assert table.column_names == ["recording", "start", "end", "vector"]
    vectors = np.array(table["vector"].to_pylist(), np.float32)
    predictor = load(tiny_model, device="cpu")
    expected = [v.vector for v in predictor.embed(three / "rain.flac")]
    assert vectors.shape == (5, 1280)
    np.testing.assert_allclose(vectors[1:4], expected, atol=1e-4)
    assert table.schema.metadata[b"soundsight.model"].decode() == predictor.model_hash
