"""When recordings began, the clock time in tables, and calls per hour and day."""

import csv
import json
import struct
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import soundfile

from conftest import noise
from soundsight.audio.clock import Clock
from soundsight.cli import main
from soundsight.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "pattern", "zone", "expected"),
    [
        ("20240501_203000.WAV", "auto", None, "2024-05-01T20:30:00.000"),  # AudioMoth
        ("SMA00123_20240501_203000.wav", "auto", "Europe/Berlin", "2024-05-01T20:30:00.000+02:00"),  # SongMeter
        ("site/S4A01_20240101_000000_000.flac", "auto", "UTC", "2024-01-01T00:00:00.000+00:00"),
        ("5CBB0F4D.WAV", "auto", None, "2019-04-20T12:23:41.000+00:00"),
        ("5CBB0F4D.WAV", "auto", "Europe/Berlin", "2019-04-20T14:23:41.000+02:00"),
        ("C:\\card\\20240501T203000.wav", "auto", None, "2024-05-01T20:30:00.000"),
        ("12345678_20240501.wav", "auto", None, ""),
        ("20241350_203000.wav", "auto", None, ""),
        ("dead.wav", "auto", None, ""),
        ("site7 2024-05-01 20h30.wav", "%Y-%m-%d %Hh%M", None, "2024-05-01T20:30:00.000"),
        ("pi.240501.083000PM+0200.wav", "%y%m%d.%I%M%S%p%z", "UTC", "2024-05-01T18:30:00.000+00:00"),
        ("20240501_203000.WAV", "%Y-%m-%d_%H", None, ""),
    ],
)
def test_names(name, pattern, zone, expected):
    assert Clock(pattern, zone).at(name, 0) == expected


def test_seconds_are_added_across_the_change_of_summer_time():
    clock = Clock("auto", "Europe/Berlin")
    assert clock.at("20240331_015950.wav", 15.25) == "2024-03-31T03:00:05.250+02:00"


def with_chunk(path: Path, name: bytes, data: bytes, *, last: bool = True) -> Path:
    """A WAV with one more chunk behind its samples, or before them."""
    soundfile.write(path, np.zeros(100), 1000, subtype="PCM_16")
    content = path.read_bytes()
    chunk = name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
    at = len(content) if last else 12
    content = content[:at] + chunk + content[at:]
    path.write_bytes(content[:4] + struct.pack("<I", len(content) - 8) + content[8:])
    return path


def test_headers_win_over_names(tmp_path):
    guano = b"GUANO|Version: 1.0\nTimestamp: 2023-07-08T09:10:11+02:00\nNote: x\n"
    bat = with_chunk(tmp_path / "20240501_203000.wav", b"guan", guano)
    assert Clock().began(str(bat)) == datetime(2023, 7, 8, 7, 10, 11, tzinfo=UTC)
    text = b"Recorded at 19:17:30.250 12/02/2018 (UTC-3:30) by AudioMoth 0FE081F80FE081F0 at gain setting 2"
    info = b"INFO" + b"ICMT" + struct.pack("<I", len(text)) + text
    moth = with_chunk(tmp_path / "moth.wav", b"LIST", info, last=False)
    assert Clock().at(str(moth), 0) == "2018-02-12T19:17:30.250-03:30"
    assert Clock("auto", "UTC").at(str(moth), 0) == "2018-02-12T22:47:30.250+00:00"
    assert Clock("%Y%m%d_%H%M%S").at(str(bat), 0) == "2024-05-01T20:30:00.000"  # a pattern is a wish
    assert Clock().at(str(tmp_path / "gone_20240501_203000.wav"), 0) == "2024-05-01T20:30:00.000"
    cut = tmp_path / "cut.wav"
    cut.write_bytes(moth.read_bytes()[:30])
    assert Clock().began(str(cut)) is None


@pytest.mark.parametrize(
    ("pattern", "zone", "message"),
    [
        ("%Y%Q", None, "%Q is not known here; use %Y"), ("night", None, "has no year or no hour"),
        ("auto", "Mars/Base", "timezone=Mars/Base is not known; write one such as Europe/Berlin"),
    ],
)  # fmt: skip
def test_patterns_and_zones_that_are_not_understood(pattern, zone, message):
    with pytest.raises(ConfigError, match=message):
        Clock(pattern, zone)


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet", ".selections.txt"])
def test_predict_adds_the_clock_time(tmp_path, monkeypatch, tiny_onnx, ending):
    monkeypatch.chdir(tmp_path)
    soundfile.write("20240501_235959.wav", noise(2.0), 16000)
    words = ["predict", str(tiny_onnx), "20240501_235959.wav", "--out", f"p{ending}", "--threshold", "0"]
    words += ["--format", "raven"] if ending == ".selections.txt" else []
    assert main([*words, "--begin-time", "auto", "--timezone", "Europe/Berlin"]) == 0
    expected = ["2024-05-01T23:59:59.000+02:00", "2024-05-02T00:00:00.000+02:00"]
    if ending == ".csv":
        lines = Path("p.csv").read_text().splitlines()
        assert lines[0] == "recording,start,end,label,probability,rank,model,settings,begin_time"
        assert [line.rsplit(",", 1)[1] for line in lines[1:]] == expected
    elif ending == ".jsonl":
        assert [json.loads(line)["begin_time"] for line in Path("p.jsonl").read_text().splitlines()] == expected
    elif ending == ".parquet":
        pandas = pytest.importorskip("pandas")
        assert list(pandas.read_parquet("p.parquet")["begin_time"]) == expected
    else:
        with open("p.selections.txt", newline="") as lines:
            assert [row["Begin Date Time"] for row in csv.DictReader(lines, delimiter="\t")] == expected
    if ending != ".selections.txt":
        assert main(["activity", f"p{ending}", "--out", "a.csv"]) == 0
        assert main([*words, "--begin-time", "auto", "--timezone", "UTC"]) == 0  # replaces its own


def test_clock_times_that_have_no_place_are_refused(tmp_path, monkeypatch, tiny_onnx, capsys):
    monkeypatch.chdir(tmp_path)
    soundfile.write("a.wav", noise(1.0), 16000)
    assert main(["predict", str(tiny_onnx), "a.wav", "--begin-time", "auto"]) == 2
    assert "Format table has no place for --begin-time; csv, jsonl, parquet, raven have." in capsys.readouterr().err
    assert main(["predict", str(tiny_onnx), "a.wav", "--timezone", "UTC"]) == 2
    assert "--timezone has no effect without --begin-time" in capsys.readouterr().err


def table(rows: list[tuple[str, float, float, str, float]]) -> None:
    header = "recording,start,end,label,probability,rank,model,settings\n"
    Path("p.csv").write_text(header + "".join(f"{f},{a},{b},{x},{p},1,0,own\n" for f, a, b, x, p in rows))


def test_activity_by_hand(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    table(
        [
            ("20240501_225000.wav", 0, 300, "owl", 0.9), ("20240501_225000.wav", 300, 900, "owl", 0.8),
            ("20240501_225000.wav", 900, 1200, "silence", 0), ("20240502_000000.wav", 0, 1800, "fox", 0.7),
            ("20240502_000000.wav", 1800, 3600, "owl", 0.2),
        ]
    )  # fmt: skip
    assert main(["activity", "p.csv", "--out", "a.csv", "--plot", "a.png", "--threshold", "0.5"]) == 0
    assert Path("a.csv").read_text().splitlines() == [
        "date,hour,class,detections,recorded_minutes", "2024-05-01,22,fox,0,10.00", "2024-05-01,22,owl,2,10.00",
        "2024-05-01,23,fox,0,10.00", "2024-05-01,23,owl,0,10.00",
        "2024-05-02,0,fox,1,60.00", "2024-05-02,0,owl,0,60.00",
    ]  # fmt: skip
    out = capsys.readouterr().out
    assert "1.33 hours recorded on 2 days." in out and "22:00, 2" in out
    assert Path("a.png").read_bytes().startswith(b"\x89PNG")
    assert main(["activity", "p.csv", "--classes", "fix"]) == 2
    assert "No 'fix' was detected. Did you mean 'fox'" in capsys.readouterr().err


def test_recordings_without_a_time(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    table([("a.wav", 0, 1, "owl", 0.9)])
    assert main(["activity", "p.csv"]) == 2
    assert "It is not known when the recordings of p.csv began, such as a.wav" in capsys.readouterr().err
    table([("a.wav", 0, 1, "owl", 0.9), ("20240502_000000.wav", 0, 1, "owl", 0.9)])
    assert main(["activity", "p.csv"]) == 1
    assert "failed: it is not known when a.wav began" in capsys.readouterr().err
    table([("5CBB0F4D.WAV", 0, 1, "owl", 0.9), ("20240502_000000.wav", 0, 1, "owl", 0.9)])
    assert main(["activity", "p.csv"]) == 2
    assert "Some recordings tell their time zone and others do not; name it with --timezone." in capsys.readouterr().err
    assert main(["activity", "p.csv", "--timezone", "UTC"]) == 0
