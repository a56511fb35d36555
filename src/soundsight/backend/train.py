"""Training through Ultralytics: arguments in, checkpoints with preprocessing out."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import soundsight.backend.quiet  # (before Ultralytics)
from soundsight import checks
from soundsight.backend import compat
from soundsight.backend.arguments import OFF, plain
from soundsight.backend.progress import reported
from soundsight.config import AugmentConfig, SpectrogramConfig, from_dict
from soundsight.errors import ConfigError, ModelError, SoundsightError
from soundsight.files import write_text

LOADED = ("pretrained", "distill_model")  # arguments that name a file to load, beside `model` and `resume`
WEIGHTS_URL = "https://github.com/ultralytics/assets/releases/download/v8.4.0/"

# What Ultralytics raises for arguments that it cannot use, or in the course of a training.
_FAILURES = (AssertionError, ImportError, NotImplementedError, RuntimeError, SyntaxError, TypeError, ValueError)


@dataclass(frozen=True)
class Run:
    """A finished training."""

    folder: Path
    last: Path  # checkpoint of the last epoch
    best: Path  # checkpoint with the best top-1 on `data/val`; never a score for `data/test`
    notes: Sequence[str] = ()  # what a user should know of it, such as what its probabilities rest on
    confusion: npt.NDArray[np.int64] | None = field(default=None, compare=False)  # on `data/val`; true class, predicted
    names: tuple[str, ...] = ()  # of its classes


def train(
    arguments: Mapping[str, Any],
    *,
    spectrogram: SpectrogramConfig | None,
    augment: AugmentConfig | None,
    seen: Any = None,
    labels: Mapping[str, str] | None = None,
    multi: bool = False,
    stock: bool = False,
    callback: Callable[[int, float], None] | None = None,
    started: Callable[[Path], None] | None = None,
    threads: int | None = None,
) -> Run:
    """Train a classifier."""
    from ultralytics import YOLO

    from soundsight.backend.guard import StockTrainer, guarded
    from soundsight.backend.trainer import SpectrogramTrainer

    soundsight.backend.quiet.place_fonts()
    soundsight.backend.quiet.switch_on_tensorboard()

    options = dict(arguments) if stock else {**OFF, **arguments}
    if "," not in str(options.get("device") or ""):
        device = checks.choose_device(options.get("device"))
        options["device"] = device.type if device.index is None else str(device.index)
    _check_machine(options, stock=stock)
    resume = options.get("resume")
    start = str(resume if resume and resume is not True else options.get("model", "yolov8n-cls.pt"))
    options = {key: value for key, value in options.items() if key not in ("mode", "task", "model")}
    options["project"] = str(Path(options.get("project") or compat.RUNS).absolute())
    weights = find_weights(start)
    for key in (key for key in LOADED if isinstance(options.get(key), str | Path) and not resume):
        options[key] = find_weights(str(options[key]))
    if resume:
        options["save_dir"] = str(_run_folder(Path(weights)))  # not where its file says, which may have moved
        if (done := _finished(Path(weights))) is not None:
            return done
    begun: list[Path] = []
    how = {"seen": seen, "labels": labels or {}, "multi": multi, "threads": threads}
    trainer = StockTrainer if stock else SpectrogramTrainer.configured(spectrogram, augment or no_augment(), **how)
    try:
        with guarded(), reported() if "," not in str(options["device"]) else nullcontext() as progress:
            model = YOLO(weights, task="classify")
            if callback is not None:
                model.add_callback("on_fit_epoch_end", partial(_tell, callback))
            for tell in (begun.append, started or begun.append):
                model.add_callback("on_train_start", lambda trainer, tell=tell: tell(Path(trainer.save_dir)))
            if progress is not None:
                progress.attach(model)
            model.train(trainer=trainer, **options)
    except subprocess.CalledProcessError as error:
        raise SoundsightError(
            f"One of the training processes for device={options['device']} failed; its messages are above."
        ) from error
    except _FAILURES as error:
        if begun:
            raise SoundsightError(f"The training failed: {plain(error)}") from error
        raise ConfigError(f"The training did not begin; check its arguments: {plain(error)}") from error
    return _run_of(model.trainer)


def _run_of(trainer: Any) -> Run:
    folder = Path(trainer.save_dir)
    matrix: Any = getattr(getattr(trainer, "validator", None), "confusion_matrix", None)
    run = Run(folder, compat.weights_of(folder), compat.weights_of(folder, best=True))
    if matrix is None or not (folder / compat.MATRIX).is_file():
        return run
    names = tuple(str(name) for name in matrix.names.values())
    return replace(run, confusion=matrix.matrix.T.astype(np.int64), names=names)  # Ultralytics' rows are predictions


def _run_folder(checkpoint: Path) -> Path:
    parent = checkpoint.absolute().parent
    return parent.parent if parent.name == compat.WEIGHTS else parent


def _forget_epochs(table: Path, done: int) -> None:
    """Take epochs out of a table of results that are trained again: their row was written before their checkpoint."""
    try:
        header, *rows = table.read_text(encoding="utf-8").splitlines(keepends=True)
    except (OSError, ValueError):
        return
    kept = [row for row in rows if row.endswith("\n") and row.partition(",")[0].strip().isdigit()]
    kept = [row for row in kept if int(row.partition(",")[0]) <= done]
    if kept != rows:
        write_text(table, "".join([header, *kept]))


def _finished(last: Path) -> Run | None:
    """The run of a checkpoint whose training has no epoch left, brought to its end if it was killed just before it."""
    from ultralytics.utils.torch_utils import strip_optimizer

    from soundsight.backend.checkpoint import load_checkpoint
    from soundsight.backend.guard import guarded
    from soundsight.backend.trainer import smaller

    found = load_checkpoint(last)
    if (best := last.with_name(compat.BEST)).is_file():  # which the end of a training reads
        load_checkpoint(best)
    epochs, done = compat.training_arguments(found).get("epochs", 0), found.get("epoch", -1) + 1
    if found.get("optimizer") is None or not isinstance(epochs, int) or done < 1:
        raise ConfigError(f"{last} is at the end of its training; train on from it with model={last}.")
    if done < epochs:
        _forget_epochs(_run_folder(last) / compat.RESULTS, done)
        return None
    folder = last.absolute().parent
    for name in (compat.LAST, compat.BEST):
        if (folder / name).is_file():
            with guarded(), smaller(folder / name) as draft:
                strip_optimizer(draft)
    return Run(_run_folder(last), folder / compat.LAST, folder / compat.BEST)


def _tell(callback: Callable[[int, float], None], trainer: Any) -> None:
    figures = trainer.metrics or {}
    reached = figures.get(compat.TOP1, figures.get(compat.MACRO_MAP))
    if reached is not None and int(trainer.epoch) < int(trainer.epochs):  # at the end the best is scored again
        callback(int(trainer.epoch) + 1, float(reached))


def _check_machine(options: Mapping[str, Any], *, stock: bool) -> None:
    """Say before any work what several GPUs, or Ultralytics' own loader, would stumble over."""
    if str(options.get("amp")).lower() == "bf16" and options["device"] in ("cpu", "mps"):
        raise ConfigError(f"amp={options['amp']} needs a CUDA GPU; write amp=true, or amp=false.")
    gpus = str(options["device"]).count(",") + 1
    if gpus > 1:
        checks.check_gpus(options["device"])
    if options["device"] in ("cpu", "mps") or not (stock or gpus > 1):
        return
    checks.check_shared_memory(
        workers=gpus * int(options.get("workers", 8)),
        batch=max(1, int(options.get("batch", 16)) // gpus),
        image_size=int(options.get("imgsz") or 224),
        value_bytes=4 if stock else 1,
    )


def no_augment() -> AugmentConfig:
    """Settings that leave images and labels as they are."""
    off = "shift time_masks freq_masks gain_db filter_db stretch freq_shift mixup cutmix erasing label_smoothing"
    return from_dict(AugmentConfig, dict.fromkeys(off.split(), 0))


def find_weights(model: str) -> str:
    """A path that Ultralytics can start from: a file, an architecture, or downloaded official weights."""
    from soundsight.backend.checkpoint import load_checkpoint

    path = Path(model)
    if path.suffix in (".yaml", ".yml"):
        _check_architecture(model)
        return model
    if not path.is_file() and path.name == model and model.startswith("yolo"):
        name = model if path.suffix else f"{model}.pt"  # as Ultralytics completes it
        if not name.endswith("-cls.pt"):
            raise ModelError(f"The model {model} is not here, and is no classifier; use one such as yolov8n-cls.pt.")
        path = Path(name) if Path(name).is_file() else _download(name)
    load_checkpoint(path)
    return str(path)


def _check_architecture(model: str) -> None:
    """Build the network of a YAML file without its weights."""
    from ultralytics.nn.tasks import yaml_model_load

    from soundsight.backend.architecture import build
    from soundsight.backend.unpickle import Refused

    if "://" in model:
        raise ModelError(f"{model} is an address; download the file, and name it.")
    try:
        build(yaml_model_load(model))
    except Refused as found:
        raise ModelError(f"{model} does not describe a classifier that can be built ({found}).") from found
    except FileNotFoundError as error:
        raise ModelError(f"The architecture {model} does not exist; try yolov8n-cls.yaml.") from error
    except Exception as error:  # whatever layers that do not fit together provoke
        raise ModelError(f"{model} does not describe a classifier that can be built ({plain(error)}).") from error


def _download(name: str) -> Path:
    import pooch
    import requests

    folder = pooch.os_cache("soundsight") / "weights"
    try:
        found = pooch.retrieve(f"{WEIGHTS_URL}{name}", known_hash=None, fname=name, path=folder, progressbar=False)
    except (requests.RequestException, OSError, ValueError) as error:
        raise ModelError(
            f"The weights {name} are not here and cannot be downloaded ({type(error).__name__}); set model=FILE.pt, "
            f"or train from scratch with model={name.removesuffix('.pt')}.yaml."
        ) from error
    return Path(found)
