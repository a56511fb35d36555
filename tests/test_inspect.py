"""`soundsight inspect`: measurements, duplicates and the page, on sounds whose predictions are known by hand."""

import csv
import re

import numpy as np
import pytest
import soundfile

from soundsight.cli import main
from soundsight.config import DatasetConfig, SpectrogramConfig, SplitConfig
from soundsight.datasets import duplicates
from soundsight.datasets.catalogue import Clip
from soundsight.datasets.duplicates import look_alike
from soundsight.datasets.survey import BANDS, TIMES, fingerprint, flat_shares, survey
from soundsight.errors import ConfigError, DatasetError
from soundsight.evaluation.inspect import inspect

EARS = SpectrogramConfig(clip_seconds=1.0)
RATE = 16000
SETTINGS = ["clip_seconds=1"]


def bursts(seed: int, seconds: float = 1.0, rate: int = RATE) -> np.ndarray:
    """Noise that swells and fades at random: no two seeds alike."""
    random = np.random.default_rng(seed)
    swell = np.repeat(random.uniform(0, 0.5, 20), round(seconds * rate / 20))
    return (random.standard_normal(len(swell)) * swell / 4).astype(np.float32)


def write(path, samples, rate=RATE, **kind):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, **kind)
    return path


def clip_of(path, **more) -> Clip:
    return Clip(path=path, file=path.name, label="x", name=path.stem, source=path.stem, **more)


@pytest.fixture
def sounds(tmp_path):
    """Two classes of eight clips each; three of them are the same sound in other clothes."""
    root = tmp_path / "sounds"
    for index in range(8):
        write(root / "dog" / f"{index}.wav", bursts(index))
        write(root / "cat" / f"{index}.wav", bursts(100 + index))
    write(root / "dog" / "copy.wav", bursts(3))  # equal, sample by sample
    quiet = 0.3 * np.roll(bursts(105), 4000)
    write(root / "dog" / "late.flac", quiet)  # a quarter of a second later, quieter, another format and label
    return root


def test_silence_and_clipping_are_counted_sample_by_sample():
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(8000) / RATE, dtype=np.float32)
    assert flat_shares(tone, RATE) == (0, 0)
    padded = np.concatenate([tone[1:6001], np.zeros(2000, np.float32)])
    assert flat_shares(padded, RATE)[0] == pytest.approx(0.25, abs=0.001)
    offset = np.full(4000, 0.1, np.float32)
    assert flat_shares(offset, RATE) == (1, 0)  # stands still, at whatever value
    loud = np.clip(4 * tone, -1, 1)
    assert flat_shares(loud, RATE)[1] == pytest.approx(np.mean(np.abs(loud) == 1), abs=0.01)
    assert flat_shares(np.ones(1, np.float32), RATE) == (0, 0)


def test_a_clip_is_measured_at_its_own_rate(tmp_path):
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(24000) / 48000)
    path = write(tmp_path / "tone.wav", np.stack([tone, tone], axis=1), 48000, subtype="PCM_24")
    (found,) = survey([clip_of(path)], EARS, workers=1).values()
    assert (found.sample_rate, found.channels, found.format) == (48000, 2, "WAV/PCM_24")
    assert (found.seconds, found.recording_seconds) == (0.5, 0.5)
    assert found.peak == pytest.approx(0.5, abs=1e-4)
    assert found.rms == pytest.approx(0.5 / np.sqrt(2), abs=1e-4)


def test_only_the_clips_own_stretch_is_heard(tmp_path):
    path = write(tmp_path / "long.wav", np.concatenate([bursts(1), np.zeros(RATE), bursts(2)]))
    clips = [clip_of(path, start_seconds=float(start), end_seconds=start + 1.0) for start in range(3)]
    first, second, third = survey(clips, EARS, workers=1).values()
    assert (first.silent, second.silent, third.silent) == (0, 1, 0)
    assert first.seconds == second.seconds == third.seconds == 1
    assert first.recording_seconds == 3
    assert first.digest != third.digest


@pytest.mark.parametrize("seconds", [0.1, 1.0, 5.0, 60.0])
def test_a_fingerprint_has_one_size_for_all_settings(seconds):
    config = SpectrogramConfig(clip_seconds=seconds, image_size=64)
    tone = np.sin(2 * np.pi * 440 * np.arange(config.clip_samples) / RATE, dtype=np.float32)
    image = fingerprint(tone, config)
    assert image.shape == (TIMES, BANDS) and image.max() == 255
    assert fingerprint(0.01 * tone, config) == pytest.approx(image, abs=1)  # a matter of sound, not of level
    assert not fingerprint(0 * tone, config).any()


def test_look_alike_equals_a_correlation_by_hand():
    random = np.random.default_rng(0)
    prints = random.integers(0, 256, (40, TIMES, BANDS), np.uint8)
    prints[30] = np.roll(prints[4], 7, axis=0)
    prints[31] = np.clip(np.roll(prints[5], 20, axis=0) * 0.5 + random.integers(0, 60, (TIMES, BANDS)), 0, 255)
    pairs, likeness = look_alike(prints, -1.0)
    assert len(pairs) == 40 * 39 // 2 and (pairs[:, 0] < pairs[:, 1]).all()
    flat = prints.astype(float) - prints.mean(axis=1, keepdims=True)
    flat /= np.sqrt((flat**2).sum(axis=(1, 2), keepdims=True))
    for (a, b), value in list(zip(pairs, likeness, strict=True))[::37]:
        by_hand = max((flat[a] * np.roll(flat[b], shift, axis=0)).sum() for shift in range(TIMES))
        assert value == pytest.approx(by_hand, abs=1e-4)
    assert [tuple(pair) for pair in look_alike(prints, 0.8)[0]] == [(4, 30), (5, 31)]


def test_silence_looks_like_nothing():
    assert len(look_alike(np.zeros((5, TIMES, BANDS), np.uint8))[0]) == 0
    assert len(look_alike(np.zeros((0, TIMES, BANDS), np.uint8))[0]) == 0


def test_blocks_do_not_change_the_answer(monkeypatch):
    prints = np.random.default_rng(1).integers(0, 256, (50, TIMES, BANDS), np.uint8)
    whole = look_alike(prints, 0.07)
    monkeypatch.setattr(duplicates, "BLOCK", 7)
    parts = look_alike(prints, 0.07)
    assert len(whole[0]) > 10
    assert (whole[0] == parts[0]).all()
    np.testing.assert_allclose(whole[1], parts[1], atol=1e-5)


def test_duplicates_are_found_in_other_clothes(sounds):
    config = DatasetConfig(kind="folder", root=str(sounds), split=SplitConfig(strategy="random"))
    found = inspect(config, EARS, workers=1)
    assert [[clip.file for clip in group] for group in found.exact] == [["dog/3.wav", "dog/copy.wav"]]
    assert [{p.first.file, p.second.file} for p in found.near.pairs] == [{"cat/5.wav", "dog/late.flac"}]
    assert found.near.pairs[0].likeness > 0.7
    assert [{p.first.label, p.second.label} for p in found.of_two_labels] == [{"cat", "dog"}]
    assert ("bad", "Pairs of duplicates with two different labels: 1.") in found.findings
    assert found.counts["dog"] and sum(found.counts["dog"].values()) == 10
    assert found.imbalance == 10 / 8


def test_a_near_copy_of_an_exact_copy_counts_for_both(tmp_path):
    root = tmp_path / "sounds"
    for index in range(4):
        write(root / "a" / f"{index}.wav", bursts(index))
    write(root / "b" / "same.wav", bursts(2))
    write(root / "b" / "late.wav", np.roll(bursts(2), 3000))
    found = inspect(DatasetConfig(kind="folder", root=str(root), split=SplitConfig(strategy="group")), EARS, workers=1)
    names = [{p.first.file, p.second.file} for p in found.pairs]
    assert {"a/2.wav", "b/same.wav"} in names
    assert {"a/2.wav", "b/late.wav"} in names and {"b/same.wav", "b/late.wav"} in names
    assert len(names) == 3


def test_command_line_and_page(sounds, tmp_path, capsys):
    (sounds / "cat" / "broken.wav").write_bytes(b"RIFF, but no more")
    write(sounds / "cat" / "<b>silent & still.wav", np.zeros(RATE))
    page = tmp_path / "new folder" / "inspect.html"
    assert main(["inspect", str(sounds), *SETTINGS, "--page", str(page), "--workers", "2"]) == 1
    out, err = capsys.readouterr()
    assert "18 clips" not in out and "19 clips of 19 files, 2 classes" in out
    assert "exact copies 1, near pairs 1" in out
    assert "Clips of nothing but digital silence: 1" in out
    assert all(len(line) <= 80 for line in out.splitlines() if not line.startswith("Page:"))
    assert "broken.wav is no recording that can be read" in err
    html = page.read_text(encoding="utf-8")
    assert "&lt;b&gt;silent &amp; still" in html and "<b>silent" not in html
    assert not re.search(r'(src|href)=(?!"data:)|<script|https?://|@import', html)
    assert html.count("data:image/jpeg") >= 4 and "<svg" in html and "prefers-color-scheme:dark" in html
    assert page.stat().st_size < 500_000
    assert not (tmp_path / "sounds-spectrogram").exists() and not (tmp_path / "data").exists()


def test_a_good_data_set_exits_with_0_and_writes_nothing(tiny_sounds, capsys):
    before = sorted(tiny_sounds.parent.rglob("*"))
    assert main(["inspect", f"root={tiny_sounds}", *SETTINGS, "--workers", "1"]) == 0
    out = capsys.readouterr().out
    assert "80 clips of 80 files, 4 classes" in out and "(by fold)" in out
    assert sorted(tiny_sounds.parent.rglob("*")) == before


def test_suspicious_labels_come_from_a_cross_validation(sounds, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    rows = [
        ("dog/1.wav", "s", 1, "dog", "cat", "0.97", 2, "false"),
        ("dog/2.wav", "s", 1, "dog", "cat", "0.41", 2, "false"),  # wrong, but not sure
        ("cat/1.wav", "s", 2, "cat", "cat", "0.99", 1, "true"),
        ("cat/2.wav", "s", 2, "cat", "dog", "0.99", 2, "false"),
    ]
    with open(run / "predictions.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["clip", "source", "fold", "target", "predicted", "probability", "rank", "correct"])
        writer.writerows(rows)
    config = DatasetConfig(kind="folder", root=str(sounds), split=SplitConfig(strategy="group"))
    found = inspect(config, EARS, crossval=run, workers=1, page=tmp_path / "page.html")
    assert [s.file for s in found.suspects] == ["cat/2.wav", "dog/1.wav"]
    assert "dog, or cat (97%)?" in (tmp_path / "page.html").read_text()
    assert main(["inspect", str(sounds), *SETTINGS, "--workers", "1", "--crossval", str(run)]) == 0
    assert "2 suspicious" in capsys.readouterr().out


def test_a_wrong_cross_validation_is_named(sounds, tmp_path):
    config = DatasetConfig(kind="folder", root=str(sounds), split=SplitConfig(strategy="group"))
    with pytest.raises(DatasetError, match="holds no predictions.csv; name the folder of a finished"):
        inspect(config, EARS, crossval=tmp_path / "none", workers=1)
    (tmp_path / "predictions.csv").write_text("clip,fold,target,predicted,probability,correct\nx.wav,1,a,b,1,false\n")
    with pytest.raises(DatasetError, match="names no clip of this data set"):
        inspect(config, EARS, crossval=tmp_path, workers=1)


def test_a_page_that_cannot_be_written_is_one_sentence(sounds, tmp_path):
    config = DatasetConfig(kind="folder", root=str(sounds), split=SplitConfig(strategy="group"))
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        inspect(config, EARS, page=tmp_path / "file" / "page.html", workers=1)


def test_leaks_of_a_random_split_are_reported(sounds, capsys):
    words = [r"group_pattern=/(\d)\.wav", "split.strategy=random"]
    assert main(["inspect", str(sounds), *SETTINGS, *words, "--workers", "1"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert re.search(r"Source recordings in more than one split: \d\. \d+ clips outside train", out)
