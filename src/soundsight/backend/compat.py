"""All that is taken from Ultralytics, by name; `tests/test_compat.py` holds the list to the installed version.

What other packages need of it (columns, files of a run, folders) they take from here. No library is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Columns of `results.csv`, and of a trainer's `metrics`.
EPOCH, TOP1, TOP5 = "epoch", "metrics/accuracy_top1", "metrics/accuracy_top5"
MACRO_MAP, MICRO_MAP = "metrics/macro_map", "metrics/micro_map"  # in their place with several labels per clip
TRAIN_LOSS, VAL_LOSS = "train/loss", "val/loss"
RATES, RATE = "lr/", "lr/pg0"  # one column per group of parameters
VALIDATED = ("val/", "metrics/")  # how columns begin that are 0 where an epoch was not validated

# Files of a run.
RUNS = "runs/classify"  # where runs are, unless an argument says otherwise
RESULTS, MATRIX, WEIGHTS, LAST, BEST = "results.csv", "confusion_matrix.png", "weights", "last.pt", "best.pt"
# Folders of validation images, of which Ultralytics takes the first; without one it takes `test`.
VALIDATION = ("val", "validation", "valid")
NAMES = "names"  # of the classes, in the metadata of an exported model

# Keys of a checkpoint: the network, of which `ema` is the running average, and what else is taken, as plain data ...
NETWORKS = ("model", "ema")
CHECKPOINT = (
    "epoch", "best_fitness", "stopper", "updates", "optimizer", "scaler", "train_args", "train_metrics",
    "train_results", "date", "version", "license", "docs",
)  # fmt: skip
CHECKPOINT_TENSORS = ("optimizer", "scaler", "best_fitness")  # ... and where a training goes on with tensors

# Functions, classes and constants, by module; of functions the parameters that are given.
SYMBOLS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "ultralytics": {"YOLO": ("model", "task")},
    "ultralytics.cfg": {"DEFAULT_CFG_DICT": (), "check_cfg": ("cfg", "hard")},
    "ultralytics.data": {"build_dataloader": ("dataset", "batch", "workers", "rank", "device")},
    "ultralytics.data.augment": {"classify_transforms": ("size",)},
    "ultralytics.data.dataset": {"load_dataset_cache_file": ("path",)},
    "ultralytics.engine.exporter": {"export_formats": ()},
    "ultralytics.models.yolo.classify": {
        "ClassificationTrainer": ("overrides", "_callbacks"),
        "ClassificationValidator": ("dataloader", "save_dir", "args", "_callbacks"),
    },
    "ultralytics.nn": {"modules": (), "tasks": ()},
    "ultralytics.nn.tasks": {
        "ClassificationModel": ("verbose",),
        "parse_model": ("d", "ch", "verbose"),
        "torch_safe_load": ("weight", "safe_only"),
        "yaml_model_load": ("path",),
    },
    "ultralytics.utils": dict.fromkeys(
        "DEFAULT_CFG_DICT IterableSimpleNamespace LINUX LOGGER MACOS RANK SETTINGS USER_CONFIG_DIR WEIGHTS_DIR".split(),
        (),
    ),
    "ultralytics.utils.checks": {"AUTOINSTALL": ()},
    "ultralytics.utils.torch_utils": {"strip_optimizer": ("f",), "torch_load": (), "unwrap_model": ("m",)},
}
# Methods of the trainer that ours overrides, each with its parameters, or that are called.
METHODS: Mapping[str, tuple[str, ...]] = {
    "add_callback": ("event", "callback"),
    "check_resume": ("overrides",),
    "final_eval": (),
    "get_dataloader": ("dataset_path", "batch_size", "rank", "mode"),
    "get_dataset": (),
    "get_validator": (),
    "plot_training_samples": ("batch", "ni"),
    "preprocess_batch": ("batch",),
    "save_model": (),
    "set_model_attributes": (),
}
# Methods of the validator that ours overrides.
VALIDATOR: Mapping[str, tuple[str, ...]] = {
    "finalize_metrics": (),
    "get_desc": (),
    "init_metrics": ("model",),
    "plot_predictions": ("batch", "preds", "ni"),
    "plot_val_samples": ("batch", "ni"),
    "postprocess": ("preds",),
    "preprocess": ("batch",),
    "print_results": (),
    "update_metrics": ("preds", "batch"),
}
# Attributes of the trainer that are read or set; `args` holds the arguments.
TRAINER = (
    "amp", "args", "batch_size", "best", "best_fitness", "callbacks", "data", "device", "epoch", "epochs", "fitness",
    "last", "metrics", "model", "resume", "save_dir", "save_period", "start_epoch", "stop", "test_loader", "tloss",
    "train_loader", "validator",
)  # fmt: skip
# Attributes of the network, of its last layer, and of the matrix that the validator counts.
NETWORK = ("fuse", "model", "names", "predict", "save", "stride", "task", "yaml")
HEAD = ("conv", "linear", "pool")
COUNTED = ("matrix", "names")
EVENTS = (
    "on_fit_epoch_end", "on_pretrain_routine_end", "on_pretrain_routine_start", "on_train_batch_end",
    "on_train_batch_start", "on_train_epoch_start", "on_train_start",
)  # fmt: skip


def weights_of(run: Path, *, best: bool = False) -> Path:
    """The checkpoint of a run's last epoch, or of its best one on the validation images."""
    return run / WEIGHTS / (BEST if best else LAST)


def training_arguments(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that a checkpoint was trained with; empty where it does not say."""
    return checkpoint.get("train_args") or {}


def is_unfinished(checkpoint: Mapping[str, Any]) -> bool:
    """Whether a training can go on from a checkpoint: its end removes the optimizer."""
    return int(checkpoint.get("epoch", -1)) >= 0 and checkpoint.get("optimizer") is not None
