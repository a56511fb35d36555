"""Train: the images of a data folder, Ultralytics arguments and augmentation make a run."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from soundsight import checks
from soundsight import config as settings
from soundsight import reports as report
from soundsight.backend.arguments import resolve_arguments, resumed_arguments
from soundsight.backend.compat import RUNS, VALIDATION
from soundsight.backend.noise import noise_files
from soundsight.backend.train import Run, no_augment
from soundsight.backend.train import train as train_images
from soundsight.config import BACKGROUND, AugmentConfig, SpectrogramConfig, to_dict
from soundsight.config.files import find_config, read_yaml, versions
from soundsight.datasets import images as images
from soundsight.datasets import manifest
from soundsight.datasets.names import folder_labels
from soundsight.datasets.split import lacking
from soundsight.errors import ConfigError, DatasetError
from soundsight.evaluation import seen
from soundsight.evaluation.calibration import calibrate_checkpoint, fit_thresholds
from soundsight.evaluation.scoring import classes_in
from soundsight.files import images_in, write_text
from soundsight.reports.card import RUN_FILE, read_record, write_card
from soundsight.reports.wording import calibration_lines

AUGMENT = "augment.yaml"
SPECTROGRAM = "spectrogram.yaml"  # beside what the stock trainer trained


def train(
    config: str | Path | None = None,
    *,
    augment: AugmentConfig | str | Path | None = AUGMENT,
    stock: bool = False,
    calibrate: bool = True,
    precision: float | None = None,
    threads: int | None = None,
    callback: Callable[[int, float], None] | None = None,
    **overrides: Any,
) -> Run:
    """Train a classifier on a prepared data folder.

    Args:
        config: Ultralytics `cfg` file; `None` takes the one that `cfg` names, or `configs/train.yaml`.
        augment: Augmentation settings or their file; `None` switches augmentation off.
        stock: Train as the `yolo` command would, without our trainer.
        calibrate: Afterwards fit a temperature on the `val` split and store it with the model.
        precision: Also a threshold for each class, with which at least this share of what is reported is right.
        threads: Of a training on a CPU, at least 1. Sums depend on their number: the same one gives the same bytes;
            `None` takes as many as other processes leave, chosen anew at each epoch.
        callback: Told (epoch from 1, top-1 or macro mAP on the `val` split) after each epoch.
        overrides: Ultralytics arguments; `augment.NAME` keys change the augmentation; `labels` is "multi" where an
            image may have several classes, and is merged by name from their folders, or "single"; by default the data
            folder says. With `resume=CHECKPOINT` a killed training goes on as it was; only where and how it runs
            (`data`, `device`, `workers`, ...) may be given anew.

    Returns:
        The run's folder and checkpoints; the folder holds the model card too.

    Raises:
        SoundsightError: Settings, images or weights do not fit; the message says which.
    """
    labels = overrides.pop("labels", None)
    if overrides.get("resume"):
        if config is not None:
            raise ConfigError(f"cfg={config} has no effect on a training that is resumed; leave it out.")
        arguments, chosen, stock, before = _resumed(overrides, augment, stock=stock)
    else:
        before = None
        arguments, chosen = resolve(config, augment, overrides, stock=stock)
    if precision is not None and (stock or not calibrate):
        other = "--stock" if stock else "--no-calibrate"
        raise ConfigError(f"precision={precision:g} has no effect with {other}; leave one of them out.")
    check_threads(threads, stock=stock)
    data = Path(str(arguments.get("data") or "data"))
    checks.check_data(data)
    checks.check_writable(str(arguments.get("project") or RUNS))
    spectrogram = spectrogram_of(data)
    multi = _has_several(data, labels, stock=stock, before=before)
    notes = _check_clips(data, val=bool(arguments.get("val", True)), multi=multi)
    _check_images(data, arguments, spectrogram, None if stock else chosen)
    note = partial(
        record, arguments=arguments, spectrogram=spectrogram, augment=None if stock else chosen, data=data, multi=multi
    )
    run = train_images(
        {**arguments, "data": str(data)},
        spectrogram=spectrogram,
        augment=chosen,
        seen=None if stock else seen.with_start(seen.record(data), arguments),
        labels=folder_labels(manifest.settings_of(data).get("labels", ())),
        multi=multi,
        stock=stock,
        callback=callback,
        started=note,
        threads=threads,
    )
    note(run.folder)
    if stock and spectrogram is not None:  # which a stock checkpoint does not carry
        write_text(run.folder / SPECTROGRAM, yaml.safe_dump(to_dict(spectrogram), sort_keys=False))
    run = replace(run, notes=notes)
    if calibrate and spectrogram is not None and not stock and (data / "val").is_dir():
        run = _calibrated(run, data, str(arguments.get("device") or ""), precision)
    if run.confusion is not None:  # in the place of Ultralytics', whose rows are predictions
        for name, normalize in (("confusion_matrix", False), ("confusion_matrix_normalized", True)):
            report.plot_confusion(run.confusion, run.names, run.folder / f"{name}.png", normalize=normalize)
    if run.last.is_file():  # not with save=False
        write_card(run.folder)
    return run


def check_threads(threads: int | None, *, stock: bool = False) -> None:
    """Raise `ConfigError` for a number of threads that cannot be or has no effect."""
    if threads is not None and (stock or threads < 1):
        why = "has no effect with --stock; leave it out" if stock else "is not allowed: it must be at least 1"
        raise ConfigError(f"threads={threads} {why}.")


def _calibrated(run: Run, data: Path, device: str, precision: float | None) -> Run:
    """Fit temperature and thresholds of a run's checkpoints; the run with notes on what they rest on."""
    first = device.strip("[]() ").partition(",")[0] or None  # of several GPUs
    notes = run.notes
    for checkpoint in (run.best, run.last):
        if checkpoint.is_file():
            stored = calibrate_checkpoint(checkpoint, data, device=first)
            if precision is not None:
                stored |= fit_thresholds(checkpoint, data, precision=precision, device=first)
            run = replace(run, notes=[*notes, *calibration_lines(stored)])
    return run


def _check_images(
    data: Path, arguments: dict[str, Any], spectrogram: SpectrogramConfig | None, augment: AugmentConfig | None
) -> None:
    """Check that images, image size and noise fit, and complete `imgsz`; `augment` is `None` for the stock trainer."""
    if augment and augment.noise:
        noise_files(augment.noise)  # complain now, not in the course of the training
    if augment or spectrogram is not None:
        checks.check_trainable(spectrogram.image_size if spectrogram else int(arguments.get("imgsz") or 224))
    if spectrogram is not None and arguments.setdefault("imgsz", spectrogram.image_size) != spectrogram.image_size:
        raise ConfigError(
            f"imgsz={arguments['imgsz']} does not match the images in {data}, which are "
            f"{spectrogram.image_size} pixels wide: train with imgsz={spectrogram.image_size}, or prepare "
            f"again with image_size={arguments['imgsz']}."
        )
    if augment and arguments.get("val", True) and not any((data / name).is_dir() for name in VALIDATION):
        raise DatasetError(f"{data} has no folder val, by which the best epoch is chosen; make one, or set val=false.")


def _has_several(data: Path, labels: object, *, stock: bool, before: str | None) -> bool:
    """Whether a training is on several labels per clip: as the user, the data folder or a resumed checkpoint says."""
    if labels not in (None, "single", "multi"):
        raise ConfigError(
            f"labels={labels} is not allowed: it must be single or multi; left out, the data folder says."
        )
    if stock and labels is not None:
        raise ConfigError(f"labels={labels} has no effect with --stock, which trains as `yolo` does; leave it out.")
    if stock:
        return False
    prepared = manifest.is_multi(data)
    if before is not None and labels not in (None, before):
        raise ConfigError(f"labels={labels} makes it another training: it was begun with labels={before}.")
    if labels == "single" and prepared:
        raise ConfigError(
            f"{data} holds clips of several classes, each in the folder of each, so labels=single would show one image "
            "as different classes; leave it out, prepare with labels=single, or train as `yolo` does with --stock."
        )
    return prepared or "multi" in (labels, before)


def _check_clips(data: Path, *, val: bool, multi: bool) -> list[str]:
    """Sentences on classes without clips in `train` or `val`, which are warnings, too."""
    rows = manifest.read_rows(data / manifest.MANIFEST)
    split = manifest.settings_of(data).get("dataset", {}).get("split", {})
    if rows and (problem := manifest.problem(rows, split.get("strategy", ""), val=val, multi=multi)):
        raise DatasetError(f"{data} is no data to train on: {problem}.")
    names = sorted(folder.name for folder in (data / "train").iterdir() if folder.is_dir())
    if multi and names == [BACKGROUND]:
        raise DatasetError(f"{data} is no data to train on: there is nothing but background; add sounds of some class.")
    if len(names) == 1:
        raise DatasetError(f"{data} is no data to train on: there is only one class, {names[0]!r}; add another.")
    names = [name for name in names if not (multi and name == BACKGROUND)]
    splits = ("train", next((name for name in VALIDATION if (data / name).is_dir()), "val"))
    said: list[str] = []
    for split in splits:
        said += lacking(names, classes_in(data / split), f"in the split {split!r} of {data}")
    for text in said:
        logging.getLogger("soundsight").warning(text)
    return said


def resolve(
    config: str | Path | None,
    augment: AugmentConfig | str | Path | None,
    overrides: Mapping[str, Any],
    *,
    stock: bool = False,
    given: Mapping[str, str] | None = None,
    equal: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], AugmentConfig]:
    """Arguments and augmentation of a training, from their files and words."""
    ours, theirs = _divide(overrides)
    if stock and (ours or augment not in (None, AUGMENT)):
        what = f"augment.{next(iter(ours))}" if ours else f"--augment {augment}"
        raise ConfigError(f"{what} has no effect with --stock: its augmentation is `yolo`'s.")
    config = config or (None if theirs.get("cfg") else "train.yaml")
    arguments = resolve_arguments(config, theirs, stock=stock, given=given, equal=equal)
    return arguments, no_augment() if stock else resolve_augment(augment, ours)


def resolve_augment(augment: AugmentConfig | str | Path | None, overrides: Mapping[str, Any]) -> AugmentConfig:
    """Augmentation settings from an object, a file or nothing, with overrides."""
    if isinstance(augment, str | Path):
        base = read_yaml(find_config(augment))
    else:
        base = to_dict(augment or no_augment())
    return settings.from_dict(AugmentConfig, {**base, **overrides}, where="the augmentation settings")


def spectrogram_of(data: Path) -> SpectrogramConfig | None:
    """How the images of a data folder were rendered; `None` for another tool's ImageFolder."""
    if not data.is_dir():
        raise DatasetError(f"The folder {data} does not exist; run `soundsight prepare`, or set data=FOLDER.")
    if (data / manifest.SETTINGS).is_file():
        return manifest.read_spectrogram(data)
    found = images_in(data / "train")
    if not found:
        raise DatasetError(f"{data}/train holds no images; run `soundsight prepare` first.")
    if images.read_key(found[0]) is not None:
        raise DatasetError(f"{data} was not prepared to its end; run `soundsight prepare` again.")
    return None


def _resumed(
    overrides: Mapping[str, Any], augment: AugmentConfig | str | Path | None, *, stock: bool
) -> tuple[dict[str, Any], AugmentConfig, bool, str]:
    """Arguments, augmentation, kind and labels of a killed training, from its checkpoint and its record."""
    ours, words = _divide(overrides)
    last = Path(str(words["model"] if words["resume"] is True and "model" in words else words["resume"]))
    arguments, preprocessing = resumed_arguments(last, words)
    if stock and preprocessing is not None:
        raise ConfigError(f"{last} was not trained with --stock; resume it without.")
    chosen = resolve_augment(no_augment(), (preprocessing or {}).get("augment") or {})
    if resolve_augment(chosen if augment == AUGMENT else augment, ours) != chosen:
        raise ConfigError(
            f"{last} was trained with another augmentation, and a training that is resumed keeps its own: "
            f"leave {f'augment.{next(iter(ours))}' if ours else '--augment'} out, or start a new training."
        )
    data = Path(str(arguments.get("data") or "data"))
    rendered, read = spectrogram_of(data), (preprocessing or {}).get("spectrogram")
    before = read_record(last)
    if (preprocessing is not None and (to_dict(rendered) if rendered else None) != read) or (
        "data_fingerprint" in before and before["data_fingerprint"] != manifest.settings_of(data).get("fingerprint")
    ):
        raise ConfigError(
            f"The images in {data} are not those that {last} was trained on: other recordings, splits or "
            "spectrogram settings. Prepare them as before or set data=FOLDER, or start a new training."
        )
    arguments["model"] = (before.get("arguments") or {}).get("model", arguments.get("model"))
    return arguments, chosen, preprocessing is None, (preprocessing or {}).get("labels", "single")


def record(
    folder: Path,
    arguments: Mapping[str, Any],
    spectrogram: SpectrogramConfig | None,
    augment: AugmentConfig | None,
    data: Path,
    multi: bool = False,
) -> None:
    """Write what reproduces a run beside its results; `augment` is `None` for the stock trainer."""
    prepared = manifest.settings_of(data)
    content = {
        "arguments": dict(arguments),
        "augment": to_dict(augment) if augment else None,
        "spectrogram": to_dict(spectrogram) if spectrogram else None,
        "dataset": prepared.get("dataset"),
        "data_fingerprint": prepared.get("fingerprint"),
        **({"labels": "multi"} if multi else {}),
        "versions": versions(),
    }
    write_text(folder / RUN_FILE, json.dumps(content, indent=2, default=str) + "\n")


def _divide(overrides: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Our `augment.*` settings and Ultralytics' arguments."""
    ours = {key: value for key, value in overrides.items() if key.startswith("augment.")}
    theirs = {key: value for key, value in overrides.items() if key not in ours}
    return {key.removeprefix("augment."): value for key, value in ours.items()}, theirs
