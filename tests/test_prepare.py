"""Prepare, on tiny synthetic data: what is rendered, what is kept, and what a killed run leaves."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile

from soundsight.config import DatasetConfig, SpectrogramConfig, SplitConfig, to_dict
from soundsight.datasets import images as images
from soundsight.datasets import manifest
from soundsight.datasets.catalogue import Clip
from soundsight.datasets.names import class_order, image_paths, safe_name
from soundsight.datasets.prepare import Prepared, prepare
from soundsight.errors import ConfigError, DatasetError
from soundsight.spectrogram import hz_to_mel

RATE = 8000
EARS = SpectrogramConfig(sample_rate=RATE, clip_seconds=0.5, image_size=32, n_fft=1024)
LABELS = ("dog", "cat", "frog")


def record(path: Path, seconds: float = 0.5, *, seed: int | None = None, rate: int = RATE, **how: object) -> Path:
    """Write noise; its seed is its name, so that no two recordings are alike."""
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = how.pop("channels", 1)
    random = np.random.default_rng(seed if seed is not None else list(str(path).encode()))
    noise = random.normal(0, 0.1, (round(seconds * rate), channels)).clip(-1, 1)  # type: ignore[call-overload]
    soundfile.write(path, noise, rate, **how)
    return path


@pytest.fixture
def config(tmp_path: Path) -> DatasetConfig:
    """Three classes of ten clips: five sources with two clips each."""
    for label in LABELS:
        for source in range(5):
            for take in range(2):
                record(tmp_path / "sounds" / label / f"rec{source}_{take}.wav")
    return DatasetConfig(
        kind="folder",
        root=str(tmp_path / "sounds"),
        cache=str(tmp_path / "cache"),
        data=str(tmp_path / "data"),
        group_pattern=r"^([^/]+/rec\d)_",
        split=SplitConfig(strategy="group"),
    )


def run(config: DatasetConfig, preprocessing: SpectrogramConfig = EARS, workers: int = 1) -> Prepared:
    return prepare(config, preprocessing, workers=workers)


def rendered(folder: str | Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*.png"))


def content(folder: str | Path) -> dict[str, bytes]:
    return {name: (Path(folder) / name).read_bytes() for name in rendered(folder)}


def test_a_data_set_is_laid_out_for_training(config: DatasetConfig) -> None:
    done = run(config)
    assert done.counts == {"train": 18, "val": 6, "test": 6}
    assert (done.rendered, done.kept, done.failures, done.labels) == (30, 0, [], ["cat", "dog", "frog"])
    assert not done.leaks
    for split, number in done.counts.items():
        names = rendered(done.data / split)
        assert len(names) == number
        assert {name.partition("/")[0] for name in names} == set(LABELS)
    image = cv2.imread(str(done.data / rendered(done.data)[0]))
    assert image is not None and image.shape == (32, 32, 3)


def test_no_source_is_in_two_splits(config: DatasetConfig) -> None:
    run(config)
    where: dict[str, set[str]] = {}
    for row in manifest.read_rows(Path(config.data) / manifest.MANIFEST):
        where.setdefault(row.source, set()).add(row.split)
    assert len(where) == 15
    assert all(len(splits) == 1 for splits in where.values())


def test_the_manifest_tells_what_each_picture_is(config: DatasetConfig) -> None:
    done = run(config)
    rows = manifest.read_rows(done.data / manifest.MANIFEST)
    assert len(rows) == 30
    row = next(row for row in rows if row.file == "dog/rec0_0.wav")
    assert (row.label, row.source, row.image) == ("dog", "dog/rec0", "dog/rec0_0.png")
    assert (row.sample_rate, row.channels, row.duration_seconds) == (RATE, 1, 0.5)
    image = done.data / row.split / row.image
    assert images.read_key(image).split()[2] == row.sha256  # type: ignore[union-attr]
    assert manifest.read_spectrogram(done.data) == EARS
    assert manifest.read_settings(done.data)["labels"] == done.labels


def test_pictures_are_hard_links_to_the_cache(config: DatasetConfig) -> None:
    done = run(config)
    for row in manifest.read_rows(done.data / manifest.MANIFEST):
        assert os.path.samefile(done.data / row.split / row.image, done.cache / row.image)


def test_pictures_are_copied_where_links_are_not_possible(
    config: DatasetConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", no_links)
    done = run(config)
    again = run(config)
    assert len(rendered(done.data)) == 30 and again.rendered == 0
    assert (done.cache / "dog" / "rec0_0.png").stat().st_nlink == 1


def test_a_second_run_does_no_work(config: DatasetConfig) -> None:
    done = run(config)
    before = {path: path.stat().st_mtime_ns for path in done.data.rglob("*.png")}
    again = run(config)
    assert (again.rendered, again.kept) == (0, 30)
    assert {path: path.stat().st_mtime_ns for path in done.data.rglob("*.png")} == before


def test_several_processes_draw_the_same(config: DatasetConfig, tmp_path: Path) -> None:
    one = run(config)
    other = run(replace(config, cache=str(tmp_path / "cache2"), data=str(tmp_path / "data2")), workers=2)
    assert content(one.data) == content(other.data)


def test_a_changed_setting_draws_all_anew(config: DatasetConfig) -> None:
    before = content(run(config).data)
    again = run(config, replace(EARS, fmin_hz=50.0))
    assert again.rendered == 30
    after = content(again.data)
    assert before.keys() == after.keys()
    assert all(before[name] != after[name] for name in before)
    assert run(config, replace(EARS, fmin_hz=50.0)).rendered == 0


def test_a_changed_recording_is_drawn_anew(config: DatasetConfig) -> None:
    done = run(config)
    before = content(done.data)
    record(Path(config.root) / "dog" / "rec0_0.wav", seed=1)
    again = run(config)
    assert (again.rendered, again.kept) == (1, 29)
    after = content(done.data)
    assert [name for name in before if before[name] != after[name]] == [
        name for name in before if name.endswith("dog/rec0_0.png")
    ]


def test_a_touched_recording_is_read_but_not_drawn(config: DatasetConfig) -> None:
    run(config)
    os.utime(Path(config.root) / "dog" / "rec0_0.wav")
    assert run(config).rendered == 0


def test_a_recording_that_takes_the_name_of_another_is_drawn(config: DatasetConfig) -> None:
    """Same size and same date, as archives unpack them: only the file's name tells them apart."""
    root = Path(config.root) / "dog"
    first, second = record(root / "same.wav"), record(root / "same.flac", format="WAV")
    for path in (first, second):
        os.utime(path, ns=(10**18, 10**18))
    assert first.stat().st_size == second.stat().st_size
    run(config)
    cache = Path(config.cache) / "dog"
    of_second = (cache / "same~2.png" if (cache / "same~2.png").exists() else cache / "same.png").read_bytes()
    former = {path.name: path.read_bytes() for path in cache.glob("same*.png")}
    assert len(former) == 2
    catalogue_first = sorted(["same.wav", "same.flac"])[0]  # listed first, so it has the plain name
    (root / catalogue_first).unlink()
    run(config)
    assert [path.name for path in cache.glob("same*.png")] == ["same.png"]
    assert (cache / "same.png").read_bytes() == former["same~2.png"] == of_second


def test_recordings_that_go_take_their_pictures_along(config: DatasetConfig) -> None:
    run(config)
    shutil.rmtree(Path(config.root) / "frog")
    done = run(config)
    assert done.labels == ["cat", "dog"]
    assert not any("frog" in name for name in [*rendered(config.data), *rendered(config.cache)])
    assert not (done.data / "train" / "frog").exists()


def test_another_split_costs_no_drawing(config: DatasetConfig) -> None:
    run(config)
    done = run(replace(config, split=SplitConfig(strategy="random", fractions=(0.5, 0.5, 0.0))))
    assert (done.rendered, done.counts) == (0, {"train": 15, "val": 15, "test": 0})
    assert len(rendered(done.data)) == 30
    assert done.leaks.unknown and done.leaks.clips > 0


def test_training_clips_are_drawn_at_other_speeds_too(config: DatasetConfig) -> None:
    """A tone of 1 kHz rises to 2 kHz at twice the speed, and falls to 500 Hz at half of it."""
    time_s = np.arange(RATE // 2) / RATE
    for path in Path(config.root).rglob("*.wav"):
        soundfile.write(path, 0.5 * np.sin(2 * np.pi * 1000 * time_s), RATE)
    damaged = next(Path(config.root).rglob("*.wav"))
    damaged.write_bytes(damaged.read_bytes()[:30])
    plain = run(config)
    done = run(replace(config, speed_perturbation=(0.5, 2.0)))
    assert done.counts == plain.counts and done.versions == 2 * done.counts["train"]
    assert len(done.failures) == 1
    rows = manifest.read_rows(done.data / manifest.MANIFEST)
    assert {row.split for row in rows if row.speed != 1} == {"train"}
    brightest = {}
    for row in rows:
        if row.split == "train":
            image = cv2.imread(str(done.data / "train" / row.image))
            assert image is not None and image[:, -4:].max() > 0  # to its end
            brightest[row.speed] = EARS.image_size - 1 - int(image.astype(int).sum(axis=(1, 2)).argmax())
    expected = {speed: mel_row(1000 * speed) for speed in (0.5, 1.0, 2.0)}
    assert all(abs(brightest[speed] - expected[speed]) <= 1 for speed in expected), (brightest, expected)
    assert run(replace(config, speed_perturbation=(0.5, 2.0))).rendered == 0
    again = run(config)
    assert again.versions == 0 and content(config.data) and not any("@x" in name for name in rendered(config.data))


def mel_row(hz: float) -> float:
    """Row, counted from the bottom, of the mel band nearest to a frequency."""
    top = hz_to_mel(EARS.fmax_hz or EARS.sample_rate / 2)
    low = hz_to_mel(EARS.fmin_hz)
    return float((hz_to_mel(hz) - low) / (top - low) * (EARS.image_size + 1) - 1)


@pytest.mark.parametrize("speeds", [(1.0,), (0.1,), (5.0,), (0.9, 0.9)])
def test_speeds_that_make_no_sense_are_refused(speeds: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="each must be from 0.25 to 4, other than 1, named once"):
        DatasetConfig(speed_perturbation=speeds)


def test_fingerprints_tell_data_apart(config: DatasetConfig, tmp_path: Path) -> None:
    run(config)
    first = manifest.read_settings(config.data)["fingerprint"]
    shutil.move(config.root, tmp_path / "moved")
    moved = replace(config, root=str(tmp_path / "moved"))
    run(moved)
    assert manifest.read_settings(config.data)["fingerprint"] == first
    run(replace(moved, split=SplitConfig(strategy="group", seed=1)))
    assert manifest.read_settings(config.data)["fingerprint"] != first


def test_damaged_clips_are_listed_and_all_others_are_there(config: DatasetConfig) -> None:
    root = Path(config.root)
    (root / "dog" / "rec0_0.wav").write_bytes(b"no recording")
    (root / "dog" / "rec1_0.wav").write_bytes(b"")
    soundfile.write(root / "cat" / "rec0_0.wav", np.full(RATE, np.nan, np.float32), RATE, subtype="FLOAT")
    done = run(config, workers=2)
    assert sum(done.counts.values()) == 27 == len(rendered(done.data))
    with open(done.data / "failures.csv", encoding="utf-8", newline="") as file:
        reasons = {row["file"]: row["reason"] for row in csv.DictReader(file)}
    assert reasons == dict(done.failures)
    assert "is no recording that can be read" in reasons["dog/rec0_0.wav"]
    assert "is no recording that can be read" in reasons["dog/rec1_0.wav"]
    assert "holds values that are no numbers" in reasons["cat/rec0_0.wav"]
    for name in reasons:
        record(root / name)
    assert run(config).rendered == 3
    assert not (done.data / "failures.csv").exists()


def test_a_clip_that_was_damaged_later_leaves_the_data(config: DatasetConfig) -> None:
    run(config)
    (Path(config.root) / "dog" / "rec0_0.wav").write_bytes(b"no recording")
    assert [file for file, _ in run(config).failures] == ["dog/rec0_0.wav"]
    assert not any(name.endswith("dog/rec0_0.png") for name in [*rendered(config.data), *rendered(config.cache)])


def test_a_damaged_picture_is_drawn_again(config: DatasetConfig) -> None:
    done = run(config)
    image = done.cache / "dog" / "rec0_0.png"
    whole = image.read_bytes()
    (done.cache / manifest.MANIFEST).unlink()
    image.unlink()
    image.write_bytes(whole[: len(whole) // 2])
    assert run(config).rendered == 1
    assert image.read_bytes() == whole


@pytest.mark.parametrize("name", ["photo.png", "notes.txt", "deep/er/song.wav"])
def test_files_of_others_in_data_are_refused_and_kept(config: DatasetConfig, name: str) -> None:
    stray = Path(config.data) / "train" / name
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"mine")
    with pytest.raises(
        ConfigError, match=r"holds 1 files that `prepare` did not render \(such as .*\); choose an empty"
    ):
        run(config)
    assert stray.read_bytes() == b"mine"


def test_litter_of_file_managers_is_no_obstacle(config: DatasetConfig) -> None:
    run(config)
    (Path(config.data) / "train" / ".DS_Store").write_bytes(b"")
    (Path(config.data) / "train.cache").write_bytes(b"")
    assert run(config).rendered == 0
    assert not (Path(config.data) / "train" / ".DS_Store").exists()


def test_files_of_others_in_the_cache_stay(config: DatasetConfig) -> None:
    run(config)
    stray = Path(config.cache) / "dog" / "notes.txt"
    stray.write_bytes(b"mine")
    image = Path(config.cache) / "dog" / "holiday.png"
    cv2.imwrite(str(image), np.zeros((8, 8, 3), np.uint8))
    run(config)
    assert stray.exists() and image.exists()


def test_what_others_keep_beside_the_pictures_stays(config: DatasetConfig, tmp_path: Path) -> None:
    """A folder that the user works in as the cache: only what `prepare` made there is ever deleted."""
    config = replace(config, cache=str(tmp_path), data=str(tmp_path / "data"))
    run(config)
    empty, copy = tmp_path / "drafts" / "empty", tmp_path / "kept" / "rec0_0.png"
    empty.mkdir(parents=True)
    copy.parent.mkdir()
    shutil.copy(tmp_path / "dog" / "rec0_0.png", copy)
    mine = [tmp_path / name for name in (".tmp-notes", "data/.tmp-notes", "data/results.cache", "data/val.cache")]
    for path in mine:
        path.write_bytes(b"mine")
    np.save(tmp_path / "list.npy", {"files": 1})  # as Ultralytics lists the images of a split
    (tmp_path / "list.npy").rename(tmp_path / "data" / "train.cache")
    record(tmp_path / "sounds" / "dog" / "rec9_0.wav")
    shutil.rmtree(tmp_path / "sounds" / "frog")
    run(config)
    assert empty.is_dir() and copy.is_file() and all(path.read_bytes() == b"mine" for path in mine)
    assert not (tmp_path / "frog").exists() and not (tmp_path / "data" / "train.cache").exists()


@pytest.mark.parametrize("place", ["data/train", "data/train/dog", "cache/dog", "data/.lock", "cache/manifest.csv"])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_links_and_pipes_in_places_of_ours_are_refused(
    config: DatasetConfig, tmp_path: Path, place: str, kind: str
) -> None:
    precious, target = tmp_path / "precious", tmp_path / place
    precious.mkdir()
    (precious / "rec0_0.png").write_bytes(b"mine")
    target.parent.mkdir(parents=True, exist_ok=True)
    if kind == "pipe":
        os.mkfifo(target)
    else:
        target.symlink_to(precious / "rec0_0.png" if target.suffix or "." in target.name else precious)
    signal.alarm(60)  # a pipe that is opened waits for ever
    try:
        with pytest.raises(ConfigError, match=r"is no (file|folder) of .*(link|device).* (remove it|move it away)"):
            run(config)
    finally:
        signal.alarm(0)
    assert (precious / "rec0_0.png").read_bytes() == b"mine" and len(list(precious.iterdir())) == 1


# Killed runs


KILLED = """
import os, signal, sys
from soundsight import files
from soundsight.config import DatasetConfig, SpectrogramConfig, from_dict
from soundsight.datasets.prepare import prepare
import json

config, preprocessing, where, after = json.loads(sys.argv[1])
calls = 0
def die(*_):
    global calls
    calls += 1
    if calls >= after:
        os.kill(os.getpid(), signal.SIGKILL)
if where == "linking":
    link = files.link_or_copy
    def link_or_copy(source, target):
        link(source, target)
        die()
    files.link_or_copy = link_or_copy
if where == "writing":
    replace = os.replace
    def half(source, target):
        die()
        replace(source, target)
    os.replace = half
prepare(
    from_dict(DatasetConfig, config),
    from_dict(SpectrogramConfig, preprocessing),
    workers=1,
    progress=die if where == "drawing" else None,
)
"""


def kill(config: DatasetConfig, where: str, after: int, preprocessing: SpectrogramConfig = EARS) -> None:
    """Run `prepare` in a process that kills itself at the n-th step of a kind."""
    words = json.dumps([to_dict(config), to_dict(preprocessing), where, after])
    result = subprocess.run([sys.executable, "-c", KILLED, words], capture_output=True, text=True, check=False)
    assert result.returncode == -9, result.stderr


@pytest.mark.parametrize(("where", "after"), [("drawing", 7), ("writing", 7), ("linking", 7), ("writing", 31)])
def test_a_killed_run_leaves_nothing_that_passes_for_whole(
    config: DatasetConfig, tmp_path: Path, where: str, after: int
) -> None:
    kill(config, where, after)
    data = Path(config.data)
    assert not (data / manifest.MANIFEST).exists()
    with pytest.raises(DatasetError, match="was not prepared to its end"):
        manifest.read_settings(data)
    for name in rendered(config.cache):
        if not Path(name).name.startswith(".tmp-"):
            assert images.read_key(Path(config.cache) / name) is not None
            assert cv2.imread(str(Path(config.cache) / name)) is not None
    done = run(config)
    assert done.kept + done.rendered == 30
    if where == "drawing":
        assert done.rendered < 30 - 5  # what was rendered is kept
    untouched = run(replace(config, cache=str(tmp_path / "cache2"), data=str(tmp_path / "data2")))
    assert content(done.data) == content(untouched.data)
    assert not list(tmp_path.rglob(".tmp-*"))


def test_a_run_killed_while_redrawing_leaves_the_former_data_whole(config: DatasetConfig) -> None:
    before = content(run(config).data)
    other = replace(EARS, fmin_hz=50.0)
    kill(config, "drawing", 7, other)
    assert content(config.data) == before
    assert manifest.read_spectrogram(config.data) == EARS
    kill(config, "linking", 7, other)  # now old and new images are mixed
    with pytest.raises(DatasetError, match="was not prepared to its end"):
        manifest.read_spectrogram(config.data)
    run(config)
    assert content(config.data) == before


def test_two_runs_at_once_do_not_mix(config: DatasetConfig) -> None:
    code = (
        "import sys; from pathlib import Path; from soundsight.files import locked\n"
        "with locked(Path(sys.argv[1])): print('locked', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, config.cache]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "locked\n"
        with pytest.raises(ConfigError, match=r"Another command is rendering images into .*; wait until it has"):
            run(config)
        other.communicate("")
    assert run(config).rendered == 30


# Labels and names


ODD = ("a/b", "a1", "two words", "dots...", "🐕‍🦺", "größe", "C:\\x", "-dash", "..")


def test_odd_labels_and_names_simply_work(config: DatasetConfig, tmp_path: Path) -> None:
    root = tmp_path / "odd"
    lines = [
        f'"{record(root / f"{place}{fold} é 🐸.wav").name}","{label}",{fold}'
        for place, label in enumerate(ODD)
        for fold in range(1, 5)
    ]
    (root / "t.csv").write_text("\n".join(["file,label,fold", *lines]), encoding="utf-8")
    settings = replace(
        config,
        kind="table",
        root=str(root),
        table="t.csv",
        fold_column="fold",
        split=SplitConfig(train=(1, 2), val=(3,), test=(4,)),
    )
    done = run(settings)
    assert done.counts == {"train": 18, "val": 9, "test": 9} and not done.failures
    folders = [sorted(path.name for path in (done.data / split).iterdir()) for split in ("train", "val", "test")]
    assert folders[0] == folders[1] == folders[2]
    assert [safe_name(label) for label in done.labels] == folders[0]  # numbered as an ImageFolder does
    assert run(settings).rendered == 0
    assert {row.label for row in manifest.read_rows(done.data / manifest.MANIFEST)} == set(ODD)


@pytest.mark.parametrize("pair", [("Dog", "dog"), ("a/b", "a_b"), ("x", "x."), ("e\u0301", "é")])
def test_labels_that_would_share_a_folder_are_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(DatasetError, match=r"The labels .* would share the folder .*; rename one of them"):
        class_order(pair)


def test_files_of_one_name_get_a_picture_each(config: DatasetConfig) -> None:
    for name in ("a.wav", "a.flac", "A.ogg", "sub/a.wav", "sub_a.wav", "a~2.wav"):
        record(Path(config.root) / "dog" / name)
    done = run(config)
    rows = manifest.read_rows(done.data / manifest.MANIFEST)
    assert len(rows) == 36 == len({row.image.lower() for row in rows})
    for row in rows:
        assert images.read_key(done.cache / row.image).split()[2] == row.sha256  # type: ignore[union-attr]


def test_letters_that_file_systems_take_for_the_same_do_not_collide() -> None:
    clips = [
        Clip(Path(f"/{n}"), str(n), "x", name, "s") for n, name in enumerate(["5 \u00b5m", "5 \u03bcm", "Maß", "MASS"])
    ]
    assert [path.count("~2") for path in image_paths(clips).values()] == [0, 1, 0, 1]
    with pytest.raises(DatasetError, match="would share the folder"):
        class_order(["straße", "STRASSE"])


def test_numbered_names_do_not_collide() -> None:
    clips = [Clip(Path(f"/{n}"), str(n), "x", name, "s") for n, name in enumerate(["a", "a", "a~2", "a", "A"])]
    assert list(image_paths(clips).values()) == ["x/a.png", "x/a~2.png", "x/a~2~2.png", "x/a~3.png", "x/A~4.png"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain_1", "plain_1"),
        ("", "_"),
        ("...", "_"),
        ("-.hidden", "hidden"),
        ("a\0b\nc", "a_b_c"),
        ("é" * 99, "é" * 60),
        ("é" * 59 + " .é", "é" * 59),
        *((name, f"{name}_") for name in ("CON", "nul", "COM1", "lpt9")),
        ("aux.wav", "aux_.wav"),
        ("CONtact", "CONtact"),
    ],
)
def test_safe_names(name: str, expected: str) -> None:
    assert safe_name(name) == expected


def test_a_class_in_one_split_only_keeps_its_number(config: DatasetConfig) -> None:
    record(Path(config.root) / "axolotl" / "only.wav")
    done = run(config)
    from torchvision.datasets import ImageFolder

    found = [ImageFolder(done.data / split, allow_empty=True) for split in ("train", "val", "test")]
    assert all(folder.classes == ["axolotl", "cat", "dog", "frog"] for folder in found)
    assert sum(len(folder) for folder in found) == 31


# Formats and lengths


def test_a_miniature_of_urbansound8k_with_its_mixture_of_formats(tmp_path: Path) -> None:
    root = tmp_path / "UrbanSound8K"
    formats: list[dict[str, object]] = [
        {"rate": 96000, "channels": 2, "subtype": "PCM_24"},
        {"rate": 44100, "channels": 2, "subtype": "PCM_16"},
        {"rate": 48000, "subtype": "FLOAT"},
        {"rate": 11025, "subtype": "PCM_U8"},
        {"rate": 8000, "subtype": "ULAW"},
    ]
    rows = ["slice_file_name,fsID,start,end,salience,fold,classID,class"]
    for fold in range(1, 11):
        for class_id, label in enumerate(("air_conditioner", "car_horn")):
            name = f"{100 * fold + class_id}-{class_id}-0-0.wav"
            how = dict(formats[(fold + class_id) % len(formats)])
            record(root / f"audio/fold{fold}/{name}", 0.05 * fold, **how)  # type: ignore[arg-type]
            rows.append(f"{name},{100 * fold + class_id},0,{0.05 * fold},1,{fold},{class_id},{label}")
    (root / "metadata").mkdir()
    (root / "metadata" / "UrbanSound8K.csv").write_text("\n".join(rows) + "\n")
    config = DatasetConfig(
        kind="urbansound8k",
        root=str(root),
        cache=str(tmp_path / "cache"),
        data=str(tmp_path / "data"),
        split=SplitConfig(train=tuple(range(1, 9)), val=(9,), test=(10,)),
    )
    done = run(config)
    assert done.counts == {"train": 16, "val": 2, "test": 2} and not done.failures
    found = manifest.read_rows(done.data / manifest.MANIFEST)
    assert {row.sample_rate for row in found} == {96000, 48000, 44100, 11025, 8000}
    assert {row.channels for row in found} == {1, 2}


def test_long_recordings_are_cut_after_the_split(config: DatasetConfig) -> None:
    for label in LABELS:
        for number in range(5):
            record(Path(config.root) / label / f"long{number}.wav", 2.3)
    done = run(config)
    rows = manifest.read_rows(done.data / manifest.MANIFEST)
    windows = [row for row in rows if "long" in row.file]
    assert len(rows) == 30 + 15 * 5  # four whole windows and a rest of 0.3 s
    assert sorted({row.start_seconds for row in windows}) == [0.0, 0.5, 1.0, 1.5, 2.0]
    splits: dict[str, set[str]] = {}
    for row in windows:
        splits.setdefault(row.file, set()).add(row.split)
    assert all(len(found) == 1 for found in splits.values())
    assert not done.leaks
    assert done.counts == {"train": 18 + 45, "val": 6 + 15, "test": 6 + 15}
    again = run(config)
    assert (again.rendered, again.kept) == (0, len(rows))
    assert run(config, replace(EARS, clip_seconds=1.0)).counts["train"] == 18 + 9 * 2


def test_a_window_shows_its_part_of_the_recording(config: DatasetConfig) -> None:
    root = Path(config.root) / "dog"
    random = np.random.default_rng(0)
    parts = [random.normal(0, 0.1, RATE // 2).clip(-1, 1) for _ in range(3)]
    soundfile.write(root / "long.wav", np.concatenate(parts), RATE)
    for number, part in enumerate(parts):
        soundfile.write(root / f"part{number}.wav", part, RATE)
    done = run(config)
    for number, start in enumerate(("0.0", "0.5", "1.0")):
        window = cv2.imread(str(done.cache / "dog" / f"long@{start}.png"))
        alone = cv2.imread(str(done.cache / "dog" / f"part{number}.png"))
        assert window is not None and np.array_equal(window, alone)


def test_annotated_stretches_become_clips(config: DatasetConfig, tmp_path: Path) -> None:
    root = tmp_path / "night"
    for name in ("a", "b", "c"):
        record(root / f"{name}.wav", 4)
        (root / f"{name}.txt").write_text("0.5\t0.9\towl\n2\t2.4\tfox\n9\t9.5\tbat\n")
    done = run(replace(config, kind="table", root=str(root), table="*.txt", group_pattern="", cut="rows"))
    rows = manifest.read_rows(done.data / manifest.MANIFEST)
    assert sorted((row.file, row.label, row.start_seconds, row.end_seconds) for row in rows)[:2] == [
        ("a.wav", "fox", 2.0, "2.4"),
        ("a.wav", "owl", 0.5, "0.9"),
    ]
    assert not done.leaks and len(rows) == 6
    assert len(done.failures) == 3  # the bat is said to call after the end
    assert all("nothing is left at 9 s" in reason for _, reason in done.failures)
