"""What several tests share: a tiny data set, a tiny model trained on it, made once a session."""

from __future__ import annotations

import os
import signal
from pathlib import Path

# Threads that wait without spinning: tests run beside other work. Read when PyTorch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# A shell starts background jobs with SIGINT ignored, and commands under test would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

import numpy as np
import pytest

from soundsight.config import DatasetConfig, SpectrogramConfig
from soundsight.datasets.prepare import prepare
from soundsight.synthesis import dataset as demo

# Images of 64 x 64 pixels of one second each, four classes: enough to learn, quick to train on.
TINY_CLASSES = ("siren", "crickets", "engine", "rain")
TINY_EARS = SpectrogramConfig(clip_seconds=1.0, image_size=64, n_fft=2048, windows_ms=(25.0, 50.0, 100.0))


def noise(seconds: float, rate: int = TINY_EARS.sample_rate, channels: int = 1, seed: int = 0) -> np.ndarray:
    """White noise, float32 `(samples,)` or `(samples, channels)`."""
    shape = (round(seconds * rate), channels) if channels > 1 else round(seconds * rate)
    return (0.1 * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep settings files and downloads out of the user's home."""
    os.environ.setdefault("SOUNDSIGHT_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def esc50() -> Path:
    """The folder of ESC-50 (`audio/*.wav`, `meta/esc50.csv`) that the environment names."""
    root = Path(os.environ.get("SOUNDSIGHT_ESC50", ""))
    if not (root / "meta" / "esc50.csv").is_file():
        pytest.skip("there is no copy of ESC-50; set SOUNDSIGHT_ESC50 to its folder")
    return root


@pytest.fixture(scope="session")
def tiny_sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthesised sounds in the layout of ESC-50: 4 classes, 5 folds, 80 clips of one second."""
    root = tmp_path_factory.mktemp("tiny") / "sounds"
    return demo.write_dataset(root, clips_per_class=20, seconds=1.0, classes=TINY_CLASSES)


@pytest.fixture(scope="session")
def tiny_data(tiny_sounds: Path) -> Path:
    """The same, prepared: `data/{train,val,test}/<class>/*.png`."""
    root = tiny_sounds.parent
    config = DatasetConfig(root=str(tiny_sounds), cache=str(root / "spectrogram"), data=str(root / "data"))
    prepared = prepare(config, TINY_EARS, workers=1)
    assert not prepared.failures
    return prepared.data


@pytest.fixture(scope="session")
def tiny_model(tiny_data: Path) -> Path:
    """A checkpoint with preprocessing, trained for a few seconds; far from good, far better than chance."""
    from soundsight.backend.train import train

    arguments = {
        "model": "yolov8n-cls.yaml",
        "data": str(tiny_data),
        "imgsz": TINY_EARS.image_size,
        "epochs": 8,
        "batch": 8,
        "nbs": 8,
        "amp": False,
        "optimizer": "AdamW",
        "lr0": 0.003,
        "warmup_epochs": 0,
        "device": "cpu",
        "workers": 0,
        "plots": False,
        "val": False,
        "verbose": False,
        "project": str(tiny_data.parent),
        "name": "train",
    }
    return train(arguments, spectrogram=TINY_EARS, augment=None).last


@pytest.fixture(scope="session")
def tiny_thresholded_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a temperature, and a threshold between what it says of a siren and of noise: "unknown"."""
    import shutil

    from soundsight.backend.checkpoint import update_preprocessing
    from soundsight.inference import load

    path = tmp_path_factory.mktemp("thresholded") / "last.pt"
    shutil.copyfile(tiny_model, path)
    update_preprocessing(path, temperature=2.0)
    predictor = load(path, device="cpu", threads=1)
    siren, other = (
        float(predictor(sound, TINY_EARS.sample_rate).predictions[0].probabilities.max())
        for sound in (demo.synthesise("siren", seed=4, seconds=1.0), noise(1.0))
    )
    assert siren > other
    update_preprocessing(path, temperature=2.0, threshold=(siren + other) / 2)
    return path


@pytest.fixture(scope="session")
def tiny_onnx(tiny_model: Path) -> Path:
    """The tiny model as ONNX: predictions without loading PyTorch."""
    pytest.importorskip("onnxruntime", reason="the extra soundsight[export] is not installed")
    from soundsight.backend.export import export

    return export(tiny_model, "onnx", out=tiny_model.with_name("tiny.onnx"))


def pytest_make_parametrize_id(val: object) -> str | None:
    """Short names of tests whose parameters are large, such as files of a megabyte."""
    return f"{val[:40]!r}" if isinstance(val, str | bytes) and len(val) > 100 else None
