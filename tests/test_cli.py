"""The command line as a user meets it: help, exit codes, one sentence for each mistake."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from soundsight.cli import COMMANDS, available, main
from soundsight.cli.options import grammar_of
from soundsight.config import ClusterConfig, DatasetConfig, SpectrogramConfig
from soundsight.errors import ConfigError, Renamed

EARS = ["sample_rate=8000", "clip_seconds=0.5", "image_size=64", "n_fft=1024"]


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """Fifteen clips of three classes in ESC-50's layout, as the working folder's dataset/ESC-50."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "dataset" / "ESC-50"
    (root / "audio").mkdir(parents=True)
    (root / "meta").mkdir()
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    for fold in range(1, 6):
        for target, name in enumerate(["cat", "dog", "hen"]):
            file = f"{fold}-{fold}{target}-A-{target}.wav"
            soundfile.write(root / "audio" / file, np.random.default_rng(fold).normal(0, 0.1, 4000), 8000)
            rows.append(f"{file},{fold},{target},{name},False,{fold}{target},A")
    (root / "meta" / "esc50.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return root


def run(capsys, *words: str) -> tuple[int, str, str]:
    code = main(list(words))
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("command", available())
def test_every_command_explains_itself_by_example(capsys, command):
    code, out, _ = run(capsys, command, "--help")
    assert code == 0 and "examples:" in out and f"soundsight {command}" in out


def test_the_top_level_lists_commands_and_tells_the_version(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0 and all(command in out for command in available())
    assert set(available()) <= set(COMMANDS)
    assert run(capsys, "--version")[1].startswith("soundsight 0.")


def test_a_reader_that_leaves_ends_help_without_a_message():
    for words in ("--help", "predict --help", "train --epochs 3"):
        line = f"{sys.executable} -m soundsight {words} 2>&1 | (exec 0<&-; sleep 0.2)"
        done = subprocess.run(["bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}"], capture_output=True, text=True)
        assert (done.stdout, done.stderr) == ("", "") and done.returncode in (0, 2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--stock=maybe"], "stock='maybe' in the command line is not allowed: it must be true or false."),
        (["train", "--augmnt", "none"], "Or did you mean --augment?"),
        (["val", "last.pt", "splitt=test"], "Unknown key 'splitt' in the command line. Did you mean 'split'?"),
        (["val", "last.pt", "--splitt", "test"], "Did you mean 'split'?"),
        (["val", "last.pt", "other.pt"], "'other.pt' is not understood"),
        (["inspect", "a/", "b/"], "'b/' is not understood"),
        (["val"], "MODEL is missing"),
        (["embed", "last.pt", "a.wav"], "out is missing in the command line: the Parquet file to write"),
        (["val", "last.pt", "--batch"], "--batch needs a value"),
        (["val", "last.pt", "-b", "3"], "Unknown key 'b'"),
        (["val", "last.pt", "cfg=no.yaml"], "no.yaml cannot be read"),
        (["predict", "last.pt", "a.wav", "--format", "xyz"], "format='xyz' is not allowed: it must be one of audacity"),
        (["train", "lr=1"], "Did you mean 'lr0' or 'lrf'?"),
        (["train", "zzzz=1"], "allowed keys is like it."),
        (["report", "run", "--out", "a.xyz"], "a.xyz cannot be written: its name must end in .html, .htm;"),
        (["inspect", "--page", "a.png"], "must end in .html"),
        (["prepare", "--gallery", "a.bmp"], "must end in .png, .pdf, .svg"),
        (["explain", "last.pt", "a.wav", "--out", "a"], "must end in .png, .pdf, .svg"),
    ],
)
def test_mistakes_in_options_are_one_message_that_says_how_it_is_written(capsys, words, message):
    code, out, err = run(capsys, *words)
    assert code == 2 and out == "" and err.startswith("soundsight: ") and err.count("\n") == 1
    assert message in err and len(err) < 300


def test_a_misspelt_command_names_the_nearest(capsys):
    code, _, err = run(capsys, "prepaer")
    assert code == 2 and err == "soundsight: There is no command 'prepaer'. Did you mean 'prepare'?\n"


def test_key_value_words_are_yaml():
    def rest(*words):
        return grammar_of("train").parse(list(words)).rest

    assert rest("lr0=1e-3", "project=1e") == {"lr0": 0.001, "project": "1e"}  # YAML 1.1 wants a point
    expected = {"a": 1, "b": 0.5, "c": [1, 2], "d": None, "e": "x/y", "f": True, "g": None}
    assert rest("a=1", "b=0.5", "c=[1, 2]", "d=null", "e=x/y", "f=true", "g=") == expected
    assert rest("--a", "1", "--b=0.5", "--c", "[1, 2]", "d=null", "--e", "x/y", "--f", "--g=") == expected
    with pytest.raises(ConfigError, match="'epochs' is not understood; settings are written key=value"):
        rest("epochs")


def test_prepare_lays_out_the_official_folds_and_does_nothing_twice(capsys, root):
    code, out, _ = run(capsys, "prepare", *EARS, "--workers", "1")
    assert code == 0 and "15 images rendered" in out and "9 train, 3 val, 3 test" in out
    images = sorted(p.relative_to("data").as_posix() for p in Path("data").rglob("*.png"))
    assert images[:2] == ["test/cat/5-50-A-0.png", "test/dog/5-51-A-1.png"] and len(images) == 15
    assert Path("data/test/cat/5-50-A-0.png").samefile("dataset/ESC-50/spectrogram/cat/5-50-A-0.png")
    before = {p: p.stat().st_mtime_ns for p in Path("data").rglob("*.png")}
    code, out, _ = run(capsys, "prepare", "--workers", "1", *EARS)
    assert code == 0 and "0 images rendered, 15 up to date" in out
    assert before == {p: p.stat().st_mtime_ns for p in Path("data").rglob("*.png")}
    rows = list(csv.DictReader(open("data/manifest.csv", encoding="utf-8")))
    assert len(rows) == 15 and {row["split"] for row in rows} == {"train", "val", "test"}


def test_prepare_draws_a_contact_sheet(capsys, root):
    code, out, _ = run(capsys, "prepare", *EARS, "--workers", "1", "--gallery", "sheet.png")
    assert code == 0 and "Contact sheet: sheet.png" in out
    assert Path("sheet.png").read_bytes().startswith(b"\x89PNG")


def test_bad_clips_are_listed_and_the_good_ones_are_there(capsys, root):
    (root / "audio" / "1-10-A-0.wav").write_text("this is no audio", encoding="utf-8")
    (root / "audio" / "2-20-A-0.wav").unlink()
    code, out, err = run(capsys, "prepare", *EARS, "--workers", "1")
    assert code == 1 and "13 images rendered" in out
    assert "2 clips failed" in err and "data/failures.csv" in err
    failures = {row["file"]: row["reason"] for row in csv.DictReader(open("data/failures.csv", encoding="utf-8"))}
    assert "no recording that can be read" in failures["audio/1-10-A-0.wav"]
    assert "the file is missing" in failures["audio/2-20-A-0.wav"]
    assert len(list(Path("data").rglob("*.png"))) == 13


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["root=nowhere"], "The data set's root nowhere does not exist; run `soundsight download esc50`"),
        (["sample_rat=8000"], "Did you mean 'sample_rate'?"),
        (["image_size=big"], "image_size='big' in .* is not allowed: it must be a whole number."),
        (["split.test=[7]"], "split.test names fold 7, which ESC-50 does not have; it has folds 1, 2, 3, 4, 5."),
        (["split.val=[1]"], "fold 1 is in both split.train and split.val"),
        (["no_such_folder/"], "The folder of sounds no_such_folder/ does not exist."),
        (["--dataset", "nothing.yaml"], "The settings file nothing.yaml does not exist"),
    ],
)
def test_mistakes_in_prepare_are_one_sentence(capsys, root, words, sentence):
    code, out, err = run(capsys, "prepare", *EARS, *words)
    assert code == 2 and out == "" and err.startswith("soundsight: ") and err.count("\n") == 1
    import re

    assert re.search(sentence.replace("?", r"\?").replace("[", r"\[") if "'?" in sentence else sentence, err)


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ("", "lacks the column 'fold'; it has: nothing"),
        ("filename,fold\na.wav,1\n", "lacks the column 'category'"),
        ("filename,fold,target,category,esc10,src_file,take\na.wav,one,0,cat,False,1,A\n", "line 2: fold='one'"),
        ("filename,fold,target,category,esc10,src_file,take\na.wav,1\n", "line 2: the row has fewer fields"),
    ],
)
def test_a_malformed_table_is_one_sentence(capsys, root, table, sentence):
    (root / "meta" / "esc50.csv").write_text(table, encoding="utf-8")
    code, _, err = run(capsys, "prepare", *EARS)
    assert code == 2 and sentence in err and err.count("\n") == 1


def test_val_scores_a_split_and_leaves_tables_and_matrices(capsys, tiny_model, tiny_data, tmp_path):
    out_folder = tmp_path / "scores"
    words = ["val", str(tiny_model), "--data", str(tiny_data), "--split", "test", "--out", str(out_folder)]
    code, out, _ = run(capsys, *words, "--device", "cpu")
    assert code == 0 and "16 clips of 4 classes, split test:" in out
    names = {p.name for p in out_folder.iterdir()}
    assert {"confusion_matrix.png", "confusion_matrix_normalized.png", "reliability.png", "metrics.json"} <= names
    assert {"per_class.csv", "confused_pairs.csv", "predictions.csv"} <= names
    rows = list(csv.DictReader((out_folder / "predictions.csv").open(encoding="utf-8")))
    assert len(rows) == 16 and all(row["fold"] == "5" and row["source"] for row in rows)


def test_val_looks_as_predict_does(capsys, tiny_model, tiny_data, tiny_sounds, tmp_path):
    views = ["--tta-shifts", "2", "--tta-speeds", "0.9,1.1", "--device", "cpu"]
    words = ["val", str(tiny_model), "--split", "test", "--out", str(tmp_path / "scores"), *views]
    code, _, err = run(capsys, *words, "--data", str(tiny_data))
    assert code == 0, err
    rows = list(csv.DictReader((tmp_path / "scores" / "predictions.csv").open(encoding="utf-8")))
    clips = [str(tiny_sounds / row["clip"]) for row in rows]
    answers = ["predict", str(tiny_model), *clips, *views, "--runtime", "pytorch", "--out", str(tmp_path / "a.csv")]
    assert run(capsys, *answers)[0] == 0
    answered = [row for row in csv.DictReader((tmp_path / "a.csv").open(encoding="utf-8")) if row["rank"] == "1"]
    for row, answer in zip(rows, answered, strict=True):
        assert answer["label"] == row["predicted"]
        assert float(answer["probability"]) == pytest.approx(float(row["probability"]), abs=1e-3)

    for given, sentence in (
        ("fast", "tta_speeds='fast' in the command line is not allowed: it must be a number"),
        ("1.1,nan", "tta_speeds='nan' in the command line is not allowed: it must be a number"),
        ("1.1,9", "from 0.25 to 4"),
    ):
        code, _, err = run(capsys, "predict", str(tiny_model), *clips, "--tta-speeds", given)
        assert code == 2 and sentence in err

    moved = tmp_path / "moved"
    shutil.copytree(tiny_data, moved)
    settings = json.loads((moved / "settings.json").read_text(encoding="utf-8"))
    settings["dataset"]["root"] = str(tmp_path / "nowhere")
    (moved / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    code, _, err = run(capsys, *words, "--data", str(moved))
    assert code == 1 and f"{tmp_path / 'nowhere'}" in err and "does not exist" in err and err.count("\n") == 1


def test_stock_yolo_val_gives_the_same_top1(capsys, tiny_model, tiny_data, tmp_path):
    """Our figures on images are Ultralytics' own."""
    from ultralytics import YOLO

    from soundsight.evaluation.val import val

    ours = val(tiny_model, data=tiny_data, split="test", out=tmp_path / "ours", device="cpu").scores
    theirs = YOLO(str(tiny_model)).val(
        data=str(tiny_data), split="test", imgsz=64, device="cpu", plots=False, project=str(tmp_path), workers=0
    )
    assert ours.top1 == pytest.approx(theirs.top1, abs=1e-6) and ours.top5 == pytest.approx(theirs.top5, abs=1e-6)


def test_pictures_drawn_with_other_settings_than_the_model_hears_are_refused(capsys, root, tiny_model):
    for name in ("cat", "dog", "hen"):  # classes that the model knows, images that it does not
        (root / "meta" / "esc50.csv").write_text(
            (root / "meta" / "esc50.csv")
            .read_text(encoding="utf-8")
            .replace(f",{name},", f",{ {'cat': 'siren', 'dog': 'rain', 'hen': 'engine'}[name] },"),
            encoding="utf-8",
        )
    run(capsys, "prepare", *EARS, "--workers", "1")
    code, _, err = run(capsys, "val", str(tiny_model), "--split", "test")
    assert code == 2 and "was rendered with other spectrogram settings" in err


def test_a_model_that_is_not_there_and_a_split_that_is_not_there(capsys, tiny_model, tiny_data, tmp_path):
    code, _, err = run(capsys, "val", "nothing.pt")
    assert code == 2 and err == "soundsight: The model nothing.pt does not exist; train one with `soundsight train`.\n"
    code, _, err = run(capsys, "val", str(tiny_model), "--data", str(tmp_path))
    assert code == 2 and "The split 'val' does not exist" in err


def test_ctrl_c_ends_with_one_line_and_no_workers(root):
    """Interrupt a real `prepare` with workers; none may be left."""
    import os
    import signal
    import time

    command = [sys.executable, "-m", "soundsight", "prepare", *EARS, "--workers", "2"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        time.sleep(1.0)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=300)
    assert process.returncode in (0, 130, -signal.SIGINT)
    assert "Traceback" not in err
    with pytest.raises(ProcessLookupError):
        for _ in range(100):
            os.killpg(process.pid, 0)
            time.sleep(0.1)


@pytest.mark.skipif(os.name != "posix", reason="named pipes and devices of POSIX")
def test_pipes_and_devices_where_files_belong_are_one_message(capsys, tiny_onnx, tmp_path):
    os.mkfifo(tmp_path / "model.onnx")
    os.mkfifo(tmp_path / "settings.yaml")
    signal.alarm(600)  # rather than wait for ever
    try:
        for words, expected in (
            (["predict", str(tmp_path / "model.onnx"), "a.wav"], "is neither a file nor a folder"),
            (["predict", str(tiny_onnx), "@/dev/zero"], "/dev/zero is no list"),
            (["predict", str(tiny_onnx), "@/dev/null"], "@/dev/null lists no recordings"),
            (["predict", str(tiny_onnx), "a.wav", "--spectrogram", str(tmp_path / "settings.yaml")], "does not exist"),
        ):
            code, _, err = run(capsys, *words)
            assert code in (1, 2) and expected in err and len(err.splitlines()) == 1, err
    finally:
        signal.alarm(0)


@pytest.mark.skipif(os.name != "posix", reason="closes streams with a POSIX shell")
def test_a_bare_environment_is_no_obstacle(tiny_onnx, tmp_path):
    """Closed streams, no home for a user without a name, no place for temporary files that was asked for."""
    sound = tmp_path / "a.wav"
    soundfile.write(sound, np.zeros(16000), 16000)
    nameless = (
        "import pwd, sys; pwd.getpwuid = {}.__getitem__; from soundsight.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    bare = {k: v for k, v in os.environ.items() if k not in ("HOME", "SOUNDSIGHT_CACHE", "XDG_CACHE_HOME")}
    bare |= {"TMPDIR": "/nowhere"}
    words = ["predict", str(tiny_onnx), str(sound)]
    for closing, out, code, said in (
        ("", [], 0, ""),
        (">&-", [], 2, "soundsight: Standard output is closed"),
        (">&-", ["--out", str(tmp_path / "a.csv")], 0, ""),
        ("2>&- <&-", ["--out", str(tmp_path / "b.csv")], 0, ""),
    ):
        command = [sys.executable, "-c", nameless, *words, *out]
        shell = ["sh", "-c", f'exec "$@" {closing}', "sh", *command]
        done = subprocess.run(shell, env=bare, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == code and done.stderr.startswith(said), done.stderr
        assert len(done.stderr.splitlines()) == (1 if said else 0), done.stderr
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_three_ways_to_write_an_option_mean_the_same(tmp_path):
    def options(*words):
        return grammar_of("predict").parse(["last.pt", "a.wav", *words]).options

    (tmp_path / "my.yaml").write_text(
        "top_k: 3\ntta_speeds: [0.9, 1.1]\nmerge: true\nthreshold: {dog: 0.8, cat: 0.5}\n"
    )
    flags = ["--top-k", "3", "--tta-speeds", "0.9,1.1", "--merge", "--threshold", "dog=0.8", "--threshold=cat=0.5"]
    keys = ["top_k=3", "tta_speeds=[0.9, 1.1]", "merge=true", "threshold=dog=0.8", "threshold=cat=0.5"]
    assert options(*flags) == options(*keys) == options(f"cfg={tmp_path / 'my.yaml'}") != options()
    assert options("--cfg", str(tmp_path / "my.yaml"), "top_k=1", "--no-merge").top_k == 1
    with pytest.raises(ConfigError, match="Unknown key 'top_kk' in .*bad.yaml. Did you mean 'top_k'"):
        (tmp_path / "bad.yaml").write_text("top_kk: 3\n")
        options(f"cfg={tmp_path / 'bad.yaml'}")


def test_settings_of_sections_are_options_too():
    given = grammar_of("prepare").parse(
        ["my/", "--split.val", "4,5", "image_size=64", "--db-floor", "-60", "--shard=9"]
    )
    assert given.options.folder == "my/" and given.of(DatasetConfig) == {"split.val": [4, 5]}
    assert given.of(SpectrogramConfig) == {"image_size": 64, "db_floor": -60} and given.of(ClusterConfig) == {
        "shard": 9
    }


@pytest.mark.parametrize(
    ("words", "now", "key", "value"),
    [
        (["--shifts", "2"], "--tta-shifts", "tta_shifts", 2),
        (["speeds=0.9"], "tta_speeds=", "tta_speeds", (0.9,)),
        (["--window", "1"], "--segment", "segment_seconds", 1.0),
        (["--sources", "list.txt"], "@FILE", "lists", ("list.txt",)),
    ],
)
def test_former_names_go_on_with_a_warning(words, now, key, value):
    with pytest.warns(Renamed, match=f"^{words[0].partition('=')[0]}=? is now {now}.$"):
        assert getattr(grammar_of("predict").parse(["last.pt", *words]).options, key) == value


def test_a_former_name_is_told_on_standard_error(capsys):
    code, _, err = run(capsys, "report", "nowhere", "--no-heat")
    assert code == 2 and err.startswith("soundsight: --no-heat is now --no-saliency.\n")


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_commands_options_and_values(capsys, tmp_path):
    code, script, _ = run(capsys, "completion", "bash")
    (tmp_path / "completion.bash").write_text(script)
    for words, expected in (
        (["pred"], {"predict"}),
        (["predict", "--tta-s"], {"--tta-shifts", "--tta-speeds"}),
        (["val", "--split", "t"], {"train", "test"}),
        (["crossval", "--split.t"], {"--split.train", "--split.test"}),
    ):
        typed = " ".join(["soundsight", *words])
        line = (
            f"source {tmp_path / 'completion.bash'}; COMP_WORDS=({typed}); COMP_CWORD={len(words)}; "
            '_shtab_soundsight soundsight "${COMP_WORDS[COMP_CWORD]}"; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
        assert set(done.stdout.split()) == expected, done.stderr
    assert code == 0 and run(capsys, "completion", "zsh")[1].startswith("#compdef soundsight")
