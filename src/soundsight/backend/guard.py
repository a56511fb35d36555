"""While Ultralytics works for us, every model file that it opens goes through our own loader, whoever named it.

Its arguments, the arguments inside checkpoints and the files beside them name files to load in many ways; all end in
a few functions, which are replaced here for as long as a training or an export lasts. It does not matter what was
imported first. Cached lists of images, which are pickles, are not read either; they are made again.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import soundsight.backend.quiet  # noqa: F401  (before Ultralytics)

# isort: split
from ultralytics.models.yolo.classify import ClassificationTrainer
from ultralytics.utils import RANK

from soundsight.backend import architecture, checkpoint
from soundsight.backend.unpickle import Refused
from soundsight.errors import ModelError

_lock = threading.Lock()
_users = 0
_originals: dict[tuple[str, str], Any] = {}


def _load(weight: Any, safe_only: object = None) -> tuple[dict[str, Any], str]:
    """In place of `torch_safe_load`, which all loading of checkpoints by Ultralytics calls."""
    from ultralytics.utils import WEIGHTS_DIR

    if Path(str(weight)) == WEIGHTS_DIR / "yolo26n.pt":
        raise ConnectionError("the detector for the check of mixed precision is neither fetched nor loaded")
    return checkpoint.load_checkpoint(weight), str(weight)


def _load_file(file: Any, *_: object, **__: object) -> dict[str, Any]:
    """In place of `torch_load`, where Ultralytics removes the optimizer from a checkpoint."""
    return checkpoint.load_checkpoint(file)


def _parse_model(plan: Any, *arguments: Any, **more: Any) -> Any:
    """In place of `parse_model`, which makes a network of its description and evaluates what that says."""
    try:
        checked = architecture.check_plan(plan)
    except Refused as found:
        raise ModelError(f"The network that is described cannot be built safely: {found}.") from found
    return _originals["ultralytics.nn.tasks", "parse_model"](checked, *arguments, **more)


def _no_cache(path: Path) -> dict[str, Any]:
    raise FileNotFoundError(f"{path} is a pickle, which is not read.")


_REPLACED: dict[tuple[str, str], Callable[..., Any] | bool] = {
    ("ultralytics.nn.tasks", "torch_safe_load"): _load,
    ("ultralytics.nn.tasks", "parse_model"): _parse_model,
    ("ultralytics.utils.torch_utils", "torch_load"): _load_file,
    ("ultralytics.data.dataset", "load_dataset_cache_file"): _no_cache,
    ("ultralytics.utils.checks", "AUTOINSTALL"): False,
}


def close() -> None:
    """Replace Ultralytics' loaders until as many calls of `reopen`."""
    global _users
    with _lock:
        _users += 1
        if _users == 1:
            for (module, name), own in _REPLACED.items():
                place = importlib.import_module(module)
                _originals[module, name] = getattr(place, name)
                setattr(place, name, own)


def reopen() -> None:
    """Undo one `close`."""
    global _users
    with _lock:
        _users -= 1
        if _users == 0:
            for (module, name), original in _originals.items():
                setattr(importlib.import_module(module), name, original)


@contextmanager
def guarded() -> Iterator[None]:
    """Ultralytics loads nothing but what our own loader has made of a file, in all threads."""
    close()
    try:
        yield
    finally:
        reopen()


class StockTrainer(ClassificationTrainer):
    """Ultralytics' own trainer, whose processes on several GPUs load no more than ours."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if RANK != -1:  # a process of a training on several GPUs; else whoever trains has closed the loaders
            close()
        super().__init__(*args, **kwargs)
