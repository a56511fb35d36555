"""Training arguments: one resolver for words, settings files and checkpoints, and the list of what our trainer heeds.

What has no effect is refused, wherever it is written, unless its value is the one that it has anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import soundsight.backend.quiet  # noqa: F401  (before Ultralytics)
from soundsight.backend.compat import training_arguments
from soundsight.config import unknown_key
from soundsight.config.files import find_config, read_yaml
from soundsight.errors import ConfigError

# What our trainer, and the part of Ultralytics' that it keeps, act on.
HEEDED = frozenset(
    {"model", "data", "epochs", "time", "patience", "batch", "imgsz", "save", "save_period", "save_dir", "device"}
    | {"workers", "project", "name", "exist_ok", "pretrained", "cls_remap", "optimizer", "verbose", "seed", "resume"}
    | {"deterministic", "cos_lr", "amp", "freeze", "compile", "dropout", "val", "plots", "lr0", "lrf", "momentum"}
    | {"weight_decay", "warmup_epochs", "warmup_momentum", "warmup_bias_lr", "nbs"}
)
# The others that `yolo` itself would act on: the value without effect ...
OFF = {
    "task": "classify",
    "mode": "train",
    "auto_augment": None,
    "fraction": 1.0,
    **dict.fromkeys(("mixup", "cutmix", "erasing", "fliplr", "flipud", "hsv_h", "hsv_s", "hsv_v", "scale"), 0.0),
}
_OURS = ("mixup", "cutmix", "erasing")
# ... and why any other is refused; what is not listed has no effect on classifiers at all.
_WHY = {
    **dict.fromkeys(OFF, "is for photographs, and this trainer has no use for it; leave it out, "),
    "task": "is not for Soundsight, which trains classifiers; leave it out",
    "mode": "is not for training; leave it out, or use `soundsight val`, `predict` or `export`",
    "split": "is not for training, whose epochs are judged on data/val; leave it out",
    "cls_pw": "has no effect on a classifier; write augment.balance=weights",
    "cache": "has no effect: spectrogram images are kept in memory wherever they fit; leave it out",
    "channels_last": "has no effect: it is always used; leave it out",
    "quantize": "is not for training; write it to `soundsight export`",
}
# What a resumed training may be given anew: where and how it runs, not what it learns.
CHANGEABLE = frozenset(
    {"data", "device", "exist_ok", "mode", "model", "name", "project", "resume", "save_dir", "task"}
    | {"patience", "plots", "save_period", "time", "val", "verbose", "workers"}
)
# What configs/train.yaml says for `train`, so that other commands can read the same file.
_SHIPPED = {"data": "data", "imgsz": 224, "patience": 1000}


def resolve_arguments(
    config: str | Path | None,
    words: Mapping[str, Any],
    *,
    stock: bool = False,
    given: Mapping[str, str] | None = None,
    equal: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Ultralytics' training arguments from a settings file and words, checked.

    Args:
        config: The file; `None` takes none, or the one that `cfg` among the words names.
        words: Arguments that win over the file.
        stock: They are for Ultralytics' own trainer, which heeds more.
        given: Arguments that the command sets itself, each with what to do instead.
        equal: The values that it sets; to repeat one is allowed.
    """
    from ultralytics.utils import DEFAULT_CFG_DICT

    words = dict(words)
    named = words.pop("cfg", None)
    if named is not None and config is not None:
        raise ConfigError(f"cfg={named} and the settings file {config} exclude each other; name one.")
    path = find_config(config or named) if config or named else None
    written = read_yaml(path) if path else {}
    arguments = {**written, **words}
    for key, value in arguments.items():
        where = "" if key in words else f" in {path}"
        source = str(path) if where else "the training arguments"
        if key not in DEFAULT_CFG_DICT and key != "save_dir":
            raise ConfigError(unknown_key(key, DEFAULT_CFG_DICT, source))
        default = DEFAULT_CFG_DICT.get(key)
        if given and key in given:
            if value not in (default, _SHIPPED.get(key, default), (equal or {}).get(key, default)):
                raise ConfigError(f"{key}={value}{where} is not for this command: {given[key]}.")
        elif key in OFF and not (stock and key not in ("task", "mode")):
            if value not in (None, OFF[key]):
                raise ConfigError(f"{key}={value}{where} {_why(key, value)}.")
        elif key not in HEEDED and not stock and value and value != default:
            raise ConfigError(f"{key}={value}{where} {_why(key, value)}.")
    return checked(arguments)


def _why(key: str, value: Any) -> str:
    reason = _WHY.get(key, "has no effect on a classifier; leave it out")
    if not reason.endswith(", "):
        return reason
    ours = f"write augment.{key}={value}, " if key in _OURS else ""
    return f"{reason}{ours}or train as `yolo` does with `soundsight train --stock`"


def checked(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The same arguments, of the types and within the ranges that Ultralytics allows."""
    from ultralytics.cfg import check_cfg

    known = dict(arguments)
    for key in ("project", "name"):  # such as name=2024
        if isinstance(known.get(key), int | float):
            known[key] = str(known[key])
    if not isinstance(known.get("imgsz") or 0, int):
        raise ConfigError(f"imgsz={known['imgsz']} is not allowed: it must be one whole number, such as imgsz=224.")
    try:
        check_cfg(known, hard=True)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"An argument is not allowed: {plain(error)}") from error
    return known


def plain(error: Exception) -> str:
    """The text of an error of Ultralytics on one line."""
    return " ".join(str(error).split())[:400]


def resumed_arguments(last: Path, words: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The arguments that a killed training goes on with, and its preprocessing.

    Returns:
        The arguments, and the dictionary `model.soundsight`; `None` if the stock command trained it.
    """
    from ultralytics.utils import DEFAULT_CFG_DICT

    from soundsight.backend.checkpoint import checkpoint_model, load_checkpoint

    checkpoint = load_checkpoint(last)
    preprocessing = getattr(checkpoint_model(checkpoint), "soundsight", None)
    kept = DEFAULT_CFG_DICT.keys() if preprocessing is None else HEEDED
    before = {key: value for key, value in training_arguments(checkpoint).items() if key in kept}
    if "cfg" in words:
        raise ConfigError(f"cfg={words['cfg']} has no effect on a training that is resumed; leave it out.")
    for key, value in resolve_arguments(None, words, stock=preprocessing is None).items():
        if key not in CHANGEABLE and key in before and value != before[key]:
            raise ConfigError(
                f"{key}={value} cannot be given to a training that is resumed: {last} was trained with "
                f"{key}={before[key]}. Leave it out, or start a new training."
            )
    return {**before, **words, "resume": str(last)}, preprocessing
