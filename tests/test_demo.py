"""The synthesised sounds: what they are, how the data set is laid out, and what is refused."""

from __future__ import annotations

import csv
import json
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

from soundsight.config import SpectrogramConfig
from soundsight.errors import ConfigError, DatasetError
from soundsight.spectrogram import render
from soundsight.synthesis.dataset import CLASSES, synthesise, write_dataset, write_soundscape

SMALL = {"clips_per_class": 4, "folds": 2, "takes": 2, "seconds": 0.5}


def read_table(root: Path) -> list[dict[str, str]]:
    with (root / "meta" / "esc50.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def share_of_power(waveform: np.ndarray, low_hz: float, high_hz: float) -> float:
    power = abs(np.fft.rfft(waveform)) ** 2
    hz = np.fft.rfftfreq(len(waveform), 1 / 16000)
    return float(power[(hz >= low_hz) & (hz < high_hz)].sum() / power.sum())


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("demo") / "ESC-50", **SMALL)


@pytest.mark.parametrize("name", CLASSES)
def test_a_clip_is_finite_audible_and_the_same_every_time(name: str) -> None:
    clip = synthesise(name, seed=7)
    assert clip.dtype == np.float32 and clip.shape == (80000,)
    assert -32 < 20 * np.log10(abs(clip).max()) < 0
    assert np.array_equal(clip, synthesise(name, seed=7))
    assert not np.array_equal(clip, synthesise(name, seed=7, take=1))
    assert not np.array_equal(clip, synthesise(name, seed=8))


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize(("sample_rate", "seconds"), [(16000, 0.1), (22050, 1.37), (48000, 12.0)])
def test_any_rate_and_length(name: str, sample_rate: int, seconds: float) -> None:
    clip = synthesise(name, seed=3, sample_rate=sample_rate, seconds=seconds)
    assert clip.shape == (round(seconds * sample_rate),)
    assert np.isfinite(clip).all() and abs(clip).max() > 0.01


def test_levels_and_digital_silence_vary() -> None:
    clips = [synthesise("alarm", seed=seed, seconds=1) for seed in range(60)]
    peaks_db = [20 * np.log10(abs(clip).max()) for clip in clips]
    assert max(peaks_db) - min(peaks_db) > 15
    silent_ends = sum(not clip[-100:].any() for clip in clips)
    assert 1 <= silent_ends <= 15  # one in ten, give or take


def test_sounds_lie_where_their_names_say() -> None:
    def median_share(name: str, low_hz: float, high_hz: float) -> float:
        return float(np.median([share_of_power(synthesise(name, seed=s), low_hz, high_hz) for s in range(9)]))

    assert median_share("crickets", 3000, 6500) > 0.7
    assert median_share("engine", 20, 2000) > 0.7
    assert median_share("wind", 20, 1500) > 0.7
    assert median_share("rain", 800, 8000) > 0.7
    assert median_share("birds", 1000, 8000) > 0.5


def test_takes_of_a_source_share_its_pitch_and_sources_do_not() -> None:
    def strongest_hz(seed: int, take: int) -> float:
        power = abs(np.fft.rfft(synthesise("bell", seed=seed, take=take))) ** 2
        power[:750] = 0  # below 150 Hz: mains hum
        return float(np.argmax(power) / 5)

    across = [strongest_hz(seed, 0) for seed in range(6)]
    assert np.ptp(across) > 100
    for seed, pitch in enumerate(across):
        same = [abs(strongest_hz(seed, take) - pitch) / pitch for take in (1, 2, 3)]
        assert min(same) < 0.02


def test_a_simple_classifier_learns_the_classes_from_other_sources() -> None:
    config = SpectrogramConfig(image_size=64)
    rows = []
    for seed in range(14):
        for name in CLASSES:
            image = render(synthesise(name, seed=seed), config)[:, :, 1] / 255.0
            image = image[:, image.any(axis=0)]  # without digital silence
            changes = abs(np.diff(image, axis=1)).mean(axis=1)
            rows.append(np.concatenate([image.mean(axis=1), image.std(axis=1), changes]))
    features = np.array(rows) / np.std(rows, axis=0)  # (sources and classes, 192)
    known, new = features[:100], features[100:]
    nearest = abs(new[:, None] - known[None]).sum(axis=2).argmin(axis=1)
    assert np.mean(nearest % 10 == np.arange(40) % 10) > 0.5  # chance is 0.1


def test_layout_is_that_of_esc50(small: Path) -> None:
    text = (small / "meta" / "esc50.csv").read_text()
    assert text.startswith("filename,fold,target,category,esc10,src_file,take\n") and "\r" not in text
    rows = read_table(small)
    assert len(rows) == 40
    assert sorted(row["filename"] for row in rows) == sorted(p.name for p in (small / "audio").iterdir())
    for row in rows:
        fold, source, take, target = re.fullmatch(r"(\d)-(\d+)-([A-Z])-(\d+)\.wav", row["filename"]).groups()
        assert (fold, source, take, target) == (row["fold"], row["src_file"], row["take"], row["target"])
        assert CLASSES[int(target)] == row["category"]
        assert row["esc10"] == str(int(target) < 5)
        info = soundfile.info(small / "audio" / row["filename"])
        assert (info.samplerate, info.channels, info.subtype, info.frames) == (16000, 1, "PCM_16", 8000)


def test_each_class_is_in_each_fold_and_no_source_is_in_two(small: Path) -> None:
    rows = read_table(small)
    for fold in "12":
        assert {row["category"] for row in rows if row["fold"] == fold} == set(CLASSES)
    folds_of: dict[str, set[str]] = {}
    for row in rows:
        folds_of.setdefault(row["src_file"], set()).add(row["fold"])
    assert len(folds_of) == 20
    assert all(len(folds) == 1 for folds in folds_of.values())


def test_a_file_holds_what_synthesise_makes_of_its_name(small: Path) -> None:
    row = next(row for row in read_table(small) if row["category"] == "bell" and row["take"] == "B")
    read, _ = soundfile.read(small / "audio" / row["filename"], dtype="float32")
    made = synthesise("bell", seed=int(row["src_file"]), take=1, seconds=0.5)
    assert abs(read - made).max() <= 1 / 32768


def test_the_same_bytes_every_time_and_others_with_another_seed(small: Path, tmp_path: Path) -> None:
    assert contents(write_dataset(tmp_path / "a", **SMALL)) == contents(small)
    other = read_table(write_dataset(tmp_path / "b", **SMALL, seed=1))
    assert not {row["src_file"] for row in other} & {row["src_file"] for row in read_table(small)}


def test_an_interrupted_run_is_completed_and_whole_clips_are_kept(tmp_path: Path) -> None:
    root = write_dataset(tmp_path, **SMALL, classes=["rain", "siren"])
    before = contents(root)
    missing, cut, *kept = sorted((root / "audio").iterdir())
    (root / "meta" / "esc50.csv").unlink()
    missing.unlink()
    cut.write_bytes(cut.read_bytes()[:1000])
    times = [path.stat().st_mtime_ns for path in kept]
    write_dataset(root, **SMALL, classes=["siren", "rain"])
    assert contents(root) == before
    assert [path.stat().st_mtime_ns for path in kept] == times


def test_other_settings_replace_the_data_set_and_leave_no_stale_clip(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "a", **SMALL, classes=["wind", "clock"])
    (root / "audio" / "mine.wav").write_bytes(b"not ours")
    write_dataset(root, **{**SMALL, "seconds": 0.25, "clips_per_class": 2, "takes": 1}, classes=["wind"])
    names = {row["filename"] for row in read_table(root)}
    assert names == {"1-190000-A-9.wav", "2-190001-A-9.wav"}
    assert {path.name for path in (root / "audio").iterdir()} == names | {"mine.wav"}
    assert all(soundfile.info(root / "audio" / name).frames == 4000 for name in names)


def test_a_data_set_of_someone_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "esc50.csv").write_text("filename,fold\n")
    before = contents(tmp_path)
    with pytest.raises(DatasetError, match=r"holds a data set that is not the synthesised one; name a new"):
        write_dataset(tmp_path, **SMALL)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"classes": ["dog"]}', "\udcff"])
def test_a_damaged_record_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "demo.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DatasetError, match=r"demo\.json does not hold the settings"):
        write_dataset(tmp_path, **SMALL)


def test_settings_are_saved_beside_the_data(small: Path) -> None:
    saved = json.loads((small / "demo.json").read_text())
    assert {key: saved[key] for key in SMALL} == SMALL
    assert saved["classes"] == list(CLASSES) and saved["sample_rate"] == 16000


def test_a_root_that_is_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match=r"file cannot be written \(.+\); name a folder that can be\."):
        write_dataset(tmp_path / "file", **SMALL)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classes": ["dog"]}, r"There is no sound 'dog'; choose from siren, clock"),
        ({"classes": []}, r"No class is named"),
        ({"folds": 0}, r"folds=0 is out of range: 1 to 10000 is allowed\."),
        ({"folds": 3}, r"folds=3 needs 3 sources of each class, but clips_per_class=4 and takes=2 make 2;"),
        ({"takes": 27}, r"takes=27 is out of range: 1 to 26 is allowed\."),
        ({"seconds": 0}, r"seconds=0 is out of range: 0\.1 to 60 is allowed\."),
        ({"sample_rate": 8000}, r"sample_rate=8000 is out of range: 16000 to 48000 is allowed\."),
        ({"seed": -1}, r"seed=-1 is out of range"),
    ],
)
def test_bad_settings_are_named(tmp_path: Path, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        write_dataset(tmp_path / "new", **{**SMALL, **settings})
    assert not (tmp_path / "new").exists()


def test_soundscape_is_loud_where_it_says_and_only_there(tmp_path: Path) -> None:
    path = tmp_path / "night.wav"
    events = write_soundscape(path, seconds=60, seed=4, classes=["siren", "engine", "rain"])
    waveform, rate = soundfile.read(path)
    assert len(waveform) == 60 * rate and soundfile.info(path).subtype == "PCM_16"
    assert {name for _, _, name in events} == {"siren", "engine", "rain"}
    quiet = np.ones(len(waveform), bool)
    end_before = 0.0
    for start, end, _ in events:
        assert end_before + 1 <= start + 1e-3 and 2 - 1e-3 <= end - start <= 5 + 1e-3 and end <= 60
        quiet[round(start * rate) : round(end * rate)] = False
        end_before = end
    noise_db = [10 * np.log10(np.mean(part**2)) for part in np.array_split(waveform[quiet], 10)]
    assert np.ptp(noise_db) < 0.5
    for start, end, _ in events:
        event_db = 10 * np.log10(np.mean(waveform[round(start * rate) : round(end * rate)] ** 2))
        assert event_db > max(noise_db) + 4
    assert [p.name for p in tmp_path.iterdir()] == ["night.wav"]


def test_soundscape_is_the_same_every_time_also_as_flac(tmp_path: Path) -> None:
    first = write_soundscape(tmp_path / "a.wav", seconds=20, seed=1)
    assert write_soundscape(tmp_path / "new" / "b.flac", seconds=20, seed=1) == first
    a, _ = soundfile.read(tmp_path / "a.wav", dtype="int16")
    b, _ = soundfile.read(tmp_path / "new" / "b.flac", dtype="int16")
    assert np.array_equal(a, b)
    assert write_soundscape(tmp_path / "c.wav", seconds=20, seed=2) != first


def test_a_long_soundscape_takes_little_memory(tmp_path: Path) -> None:
    tracemalloc.start()
    try:
        write_soundscape(tmp_path / "long.wav", seconds=900, classes=["clock"])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 15e6  # the whole would be 115 MB


@pytest.mark.parametrize(
    ("name", "arguments", "error", "message"),
    [
        ("a.mp3", {"seconds": 10}, ConfigError, r"a\.mp3 cannot be written in that format; name a file"),
        ("a.wav", {"seconds": 1e6}, ConfigError, r"seconds=1e\+06 is out of range: 1 to 43200 is allowed\."),
        (
            "a.wav",
            {"seconds": 9, "gap_seconds": (3, 2)},
            ConfigError,
            r"gap_seconds=3 is out of range: 0 to 2",
        ),
        ("file/a.wav", {"seconds": 9}, DatasetError, r"a\.wav cannot be written \(.+\); name a folder"),
    ],
)
def test_a_soundscape_that_cannot_be(
    tmp_path: Path, name: str, arguments: dict[str, float], error: type[Exception], message: str
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(error, match=message):
        write_soundscape(tmp_path / name, **arguments)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
