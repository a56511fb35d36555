"""Train: the pictures of a data folder, Ultralytics arguments and augmentation make a run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from soundsight import checks
from soundsight import config as settings
from soundsight.config import AugmentConfig, SpectrogramConfig, to_dict
from soundsight.dataset import manifest, pictures
from soundsight.errors import ConfigError, DatasetError
from soundsight.experiment.card import write_card
from soundsight.files import write_text
from soundsight.settings import find_config, versions
from soundsight.yolo.train import Run, no_augment, resolve_arguments
from soundsight.yolo.train import train as train_pictures

RUN_FILE = "soundsight.json"


def train(
    config: str | Path | None = None,
    *,
    augment: AugmentConfig | str | Path | None = "augment.yaml",
    stock: bool = False,
    calibrate: bool = True,
    watch: Callable[[int, float], None] | None = None,
    **overrides: Any,
) -> Run:
    """Train a classifier on a prepared data folder.

    Args:
        config: Ultralytics `cfg` file; `None` takes `configs/train.yaml`.
        augment: Augmentation settings or their file; `None` switches augmentation off.
        stock: Train as the `yolo` command would, without our trainer.
        calibrate: Afterwards fit a temperature on the `val` split and store it with the model.
        watch: Told (epoch from 1, top-1 on the `val` split) after each epoch.
        overrides: Ultralytics arguments; `augment.NAME` keys change the augmentation.

    Returns:
        The run's folder and checkpoints; the folder holds the model card too.

    Raises:
        SoundsightError: Settings, pictures or weights do not fit; the sentence says which.
    """
    ours, theirs = _divide(overrides)
    arguments = resolve_arguments(find_config(config or "train.yaml"), theirs)
    chosen = resolve_augment(augment, ours)
    data = Path(str(arguments.get("data") or "data"))
    checks.check_data(data)
    checks.check_writable(str(arguments.get("project") or "runs/classify"))
    spectrogram = spectrogram_of(data)
    if spectrogram is not None and int(arguments.get("imgsz") or 0) != spectrogram.image_size:
        raise ConfigError(
            f"imgsz={arguments.get('imgsz')} does not match the pictures in {data}, which are "
            f"{spectrogram.image_size} pixels wide: train with imgsz={spectrogram.image_size}, or prepare "
            f"again with image_size={arguments.get('imgsz')}."
        )
    run = train_pictures(
        {**arguments, "data": str(data)}, spectrogram=spectrogram, augment=chosen, stock=stock, watch=watch
    )
    record(run.folder, arguments, spectrogram, chosen, data)
    if calibrate and spectrogram is not None and not stock and (data / "val").is_dir():
        from soundsight.experiment.val import calibrate_checkpoint

        for checkpoint in {run.last, run.best}:
            if checkpoint.is_file():
                calibrate_checkpoint(checkpoint, data)
    if run.last.is_file():  # not with save=False
        write_card(run.folder)
    return run


def resolve_augment(augment: AugmentConfig | str | Path | None, overrides: Mapping[str, Any]) -> AugmentConfig:
    """Augmentation settings from an object, a file or nothing, with overrides."""
    if augment is None:
        base = to_dict(no_augment())
    elif isinstance(augment, AugmentConfig):
        base = to_dict(augment)
    else:
        base = settings.read_yaml(find_config(augment))
    return settings.from_dict(AugmentConfig, {**base, **overrides}, where="the augmentation settings")


def spectrogram_of(data: Path) -> SpectrogramConfig | None:
    """How the pictures of a data folder were drawn; `None` for another tool's ImageFolder.

    Raises:
        DatasetError: The folder is missing or was not prepared to its end.
    """
    if not data.is_dir():
        raise DatasetError(f"The folder {data} does not exist; run `soundsight prepare`, or set data=FOLDER.")
    if (data / manifest.SETTINGS).is_file():
        return manifest.read_spectrogram(data)
    first = next((data / "train").rglob("*.png"), None) if (data / "train").is_dir() else None
    if first is None:
        raise DatasetError(f"{data}/train holds no PNG pictures; run `soundsight prepare` first.")
    if pictures.read_key(first) is not None:
        raise DatasetError(f"{data} was not prepared to its end; run `soundsight prepare` again.")
    return None


def record(
    folder: Path,
    arguments: Mapping[str, Any],
    spectrogram: SpectrogramConfig | None,
    augment: AugmentConfig,
    data: Path,
) -> None:
    """Write what reproduces a run beside its results."""
    prepared = manifest.read_settings(data) if (data / manifest.SETTINGS).is_file() else {}
    content = {
        "arguments": dict(arguments),
        "augment": to_dict(augment),
        "spectrogram": to_dict(spectrogram) if spectrogram else None,
        "dataset": prepared.get("dataset"),
        "data_fingerprint": prepared.get("fingerprint"),
        "versions": versions(),
    }
    write_text(folder / RUN_FILE, json.dumps(content, indent=2, default=str) + "\n")


def _divide(overrides: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Our `augment.*` settings and Ultralytics' arguments."""
    ours = {k.removeprefix("augment."): v for k, v in overrides.items() if k.startswith("augment.")}
    return ours, {k: v for k, v in overrides.items() if not k.startswith("augment.")}
