"""Train: the pictures of a data folder, Ultralytics arguments and augmentation make a run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from soundsight import checks
from soundsight import config as settings
from soundsight.config import AugmentConfig, SpectrogramConfig, to_dict
from soundsight.dataset import manifest, pictures
from soundsight.errors import ConfigError, DatasetError
from soundsight.experiment import seen
from soundsight.experiment.calibration import calibrate_checkpoint, calibration_lines
from soundsight.experiment.card import RUN_FILE, read_record, write_card
from soundsight.files import write_text
from soundsight.settings import find_config, versions
from soundsight.yolo.train import Run, no_augment, resolve_arguments, resumed_arguments
from soundsight.yolo.train import train as train_pictures

# What `yolo` does to photographs and our trainer does not, with our word for it where there is one.
PHOTOGRAPHS = {
    **dict.fromkeys(("mixup", "cutmix", "erasing"), "write augment.{key}={value}, "),
    **dict.fromkeys(("auto_augment", "fliplr", "flipud", "fraction", "hsv_h", "hsv_s", "hsv_v", "scale"), ""),
}


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
        overrides: Ultralytics arguments; `augment.NAME` keys change the augmentation. With `resume=CHECKPOINT` a
            killed training goes on as it was, whatever `config` and `augment` say; only where and how it runs
            (`data`, `device`, `workers`, ...) may be given anew.

    Returns:
        The run's folder and checkpoints; the folder holds the model card too.

    Raises:
        SoundsightError: Settings, pictures or weights do not fit; the sentence says which.
    """
    ours, theirs = _divide(overrides)
    resumed = _resumed(theirs, ours, stock=stock) if theirs.get("resume") else None
    if resumed is not None:
        arguments, chosen, stock = resumed
    else:
        if stock and ours:
            raise ConfigError(f"augment.{next(iter(ours))} has no effect with --stock: its augmentation is `yolo`'s.")
        if not stock:
            refuse_photographs(theirs)
        arguments = resolve_arguments(find_config(config or "train.yaml"), theirs)
        chosen = no_augment() if stock else resolve_augment(augment, ours)
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
    note = partial(record, arguments=arguments, spectrogram=spectrogram, augment=None if stock else chosen, data=data)
    run = train_pictures(
        {**arguments, "data": str(data)},
        spectrogram=spectrogram,
        augment=chosen,
        seen=None if stock else seen.with_start(seen.record(data), arguments),
        stock=stock,
        watch=watch,
        started=note,
    )
    note(run.folder)
    if calibrate and spectrogram is not None and not stock and (data / "val").is_dir():
        device = str(arguments.get("device") or "").strip("[]() ").partition(",")[0]  # of several GPUs the first
        for checkpoint in (run.best, run.last):
            if checkpoint.is_file():
                stored = calibrate_checkpoint(checkpoint, data, device=device or None)
                run = replace(run, notes=calibration_lines(stored))
    if run.last.is_file():  # not with save=False
        write_card(run.folder)
    return run


def refuse_photographs(words: Mapping[str, Any]) -> None:
    """Check that no word asks for what only Ultralytics' own loader does.

    Raises:
        ConfigError: One does.
    """
    for key in words.keys() & PHOTOGRAPHS.keys():
        value, off = words[key], 1.0 if key == "fraction" else 0.0
        if value not in (None, off):
            instead = PHOTOGRAPHS[key].format(key=key, value=value)
            raise ConfigError(
                f"{key}={value} is for photographs, and this trainer has no use for it; leave it out, {instead}or "
                "train as `yolo` does with `soundsight train --stock`."
            )


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


def _resumed(
    words: Mapping[str, Any], augment: Mapping[str, Any], *, stock: bool
) -> tuple[dict[str, Any], AugmentConfig, bool]:
    """Arguments, augmentation and kind of a killed training, from its checkpoint and its record.

    Raises:
        ConfigError: What the user says, or the data folder, would make it another training.
    """
    last = Path(str(words["model"] if words["resume"] is True and "model" in words else words["resume"]))
    arguments, ears = resumed_arguments(last, words)
    if stock and ears is not None:
        raise ConfigError(f"{last} was not trained with --stock; resume it without.")
    chosen = resolve_augment(no_augment(), (ears or {}).get("augment") or {})
    if resolve_augment(chosen, augment) != chosen:
        raise ConfigError(
            f"{last} was trained with another augmentation, and a training that is resumed keeps its own: "
            f"leave augment.{next(iter(augment))} out, or start a new training."
        )
    data = Path(str(arguments.get("data") or "data"))
    drawn, heard = spectrogram_of(data), (ears or {}).get("spectrogram")
    before = read_record(last)
    if (ears is not None and (to_dict(drawn) if drawn else None) != heard) or (
        "data_fingerprint" in before and before["data_fingerprint"] != manifest.settings_of(data).get("fingerprint")
    ):
        raise ConfigError(
            f"The pictures in {data} are not those that {last} was trained on: other recordings, splits or "
            "spectrogram settings. Prepare them as before or set data=FOLDER, or start a new training."
        )
    arguments["model"] = (before.get("arguments") or {}).get("model", arguments.get("model"))
    return arguments, chosen, ears is None


def record(
    folder: Path,
    arguments: Mapping[str, Any],
    spectrogram: SpectrogramConfig | None,
    augment: AugmentConfig | None,
    data: Path,
) -> None:
    """Write what reproduces a run beside its results; `augment` is `None` for the stock trainer."""
    prepared = manifest.settings_of(data)
    content = {
        "arguments": dict(arguments),
        "augment": to_dict(augment) if augment else None,
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
