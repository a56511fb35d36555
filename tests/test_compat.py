"""The contract with Ultralytics: what `backend.compat` lists is in the installed version, and is all that is used.

After an upgrade this module fails first, with the name of what moved.
"""

from __future__ import annotations

import ast
import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import soundsight
from soundsight import files
from soundsight.backend import arguments, checkpoint, compat, guard
from soundsight.backend.train import LOADED

SOURCE = Path(soundsight.__file__).parent


def parameters(of: Any) -> set[str]:
    return set(inspect.signature(of).parameters)


@pytest.mark.parametrize("module", compat.SYMBOLS)
def test_symbols_and_their_parameters(module: str) -> None:
    missing = []
    for name, given in compat.SYMBOLS[module].items():
        found = getattr(import_module(module), name, None)
        lost = set(given) - parameters(found) if given and found else ()
        missing += [f"{module}.{name}"] if found is None else [f"{module}.{name}({key}=)" for key in lost]
    assert missing == []


def test_the_list_is_what_the_source_imports_or_replaces() -> None:
    listed = {(module, name) for module, names in compat.SYMBOLS.items() for name in names}
    used = set(guard._REPLACED)
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ultralytics"):
                used |= {(str(node.module), alias.name) for alias in node.names}
    assert used - listed == set() and listed - used <= {("ultralytics.nn.tasks", "ClassificationModel")}


@pytest.mark.parametrize("kind", ["Trainer", "Validator"])
def test_methods_that_are_overridden(kind: str) -> None:
    from ultralytics.models.yolo import classify

    from soundsight.backend.multilabel import MultiLabelValidator
    from soundsight.backend.trainer import SpectrogramTrainer

    stock = getattr(classify, f"Classification{kind}")
    listed, ours = {
        "Trainer": (compat.METHODS, SpectrogramTrainer),
        "Validator": (compat.VALIDATOR, MultiLabelValidator),
    }[kind]
    moved = [
        name
        for name, given in listed.items()
        if not hasattr(stock, name) or parameters(getattr(stock, name)) != {"self", *given}
    ]
    assert moved == []
    shared = {name for name in vars(ours) if hasattr(stock, name) and not name.startswith("__")}
    assert shared - {"model"} <= set(listed)


def test_arguments_and_export_formats() -> None:
    from ultralytics.engine.exporter import export_formats
    from ultralytics.utils import DEFAULT_CFG_DICT

    named = {*arguments.HEEDED, *arguments.OFF, *arguments.CHANGEABLE, *arguments._WHY, *LOADED} - {"save_dir"}
    assert named - set(DEFAULT_CFG_DICT) == set()
    assert {"Argument", "Arguments"} <= set(export_formats())


def test_folders_and_endings_that_are_looked_for() -> None:
    from ultralytics.data import utils

    source = inspect.getsource(utils.check_cls_dataset)
    assert [name for name in compat.VALIDATION if f'"{name}"' not in source] == []
    assert set(utils.IMG_FORMATS) == set(files.IMAGES)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, int]]:
    """A stock training of one epoch on noise, and how often each event came."""
    from ultralytics import YOLO

    root = tmp_path_factory.mktemp("compat")
    noise = np.random.default_rng(0)
    for split in ("train", "val"):
        for label in "ab":
            (root / split / label).mkdir(parents=True)
            for number in range(2):
                cv2.imwrite(str(root / split / label / f"{number}.png"), noise.integers(0, 255, (32, 32, 3), np.uint8))
    model = YOLO("yolov8n-cls.yaml", task="classify")
    came = dict.fromkeys(compat.EVENTS, 0)
    for event in compat.EVENTS:
        model.add_callback(event, lambda _, event=event: came.update({event: came[event] + 1}))
    model.train(
        trainer=guard.StockTrainer, data=str(root), epochs=1, imgsz=32, batch=2, device="cpu", workers=0,
        project=str(root / "runs"), plots=True, amp=False,
    )  # fmt: skip
    return model.trainer, came


def test_events_and_attributes_of_a_training(trained: tuple[Any, dict[str, int]]) -> None:
    trainer, came = trained
    assert [event for event, times in came.items() if not times] == []
    assert [name for name in compat.TRAINER if not hasattr(trainer, name)] == []
    assert [name for name in compat.COUNTED if not hasattr(trainer.validator.confusion_matrix, name)] == []
    assert {compat.TOP1, compat.TOP5} <= set(trainer.metrics)


def test_files_of_a_run(trained: tuple[Any, dict[str, int]]) -> None:
    folder = Path(trained[0].save_dir)
    made = [compat.RESULTS, compat.MATRIX, f"{compat.WEIGHTS}/{compat.LAST}", f"{compat.WEIGHTS}/{compat.BEST}"]
    assert [name for name in made if not (folder / name).is_file()] == []
    columns = (folder / compat.RESULTS).read_text().splitlines()[0].split(",")
    known = {compat.EPOCH, compat.TOP1, compat.TOP5, compat.TRAIN_LOSS, compat.VAL_LOSS, compat.RATE}
    assert known - set(columns) == set() and compat.RATE.startswith(compat.RATES)


def test_a_checkpoint_and_its_network(trained: tuple[Any, dict[str, int]]) -> None:
    last = compat.weights_of(Path(trained[0].save_dir))
    stored = torch.load(last, weights_only=False)  # ours, of this moment
    assert {*compat.CHECKPOINT, *compat.NETWORKS} - set(stored) == set()
    network = checkpoint.checkpoint_model(checkpoint.load_checkpoint(last))
    assert [name for name in compat.NETWORK if not hasattr(network, name)] == []
    assert [name for name in compat.HEAD if not hasattr(network.model[-1], name)] == []
    assert compat.training_arguments(stored)["imgsz"] == 32 and not compat.is_unfinished(stored)


def test_names_of_ultralytics_stay_behind_the_backend() -> None:
    behind = {compat.TOP1, compat.TOP5, compat.RATE, compat.TRAIN_LOSS, compat.RESULTS, "train_args", "ema"}
    for path in SOURCE.rglob("*.py"):
        if SOURCE / "backend" not in path.parents:
            texts = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
            assert not texts & behind, path
