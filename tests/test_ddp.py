"""Training on several GPUs, as far as a CPU can show it: two processes, gloo in place of NCCL.

`device=0,1` makes Ultralytics write the trainer's class and arguments to a file, which `torch.distributed.run`
loads in one fresh process a GPU. The file here is the one that Ultralytics writes. This module is also the
program of those processes: `torch.distributed.run tests/test_ddp.py STATE OUT`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import soundsight.backend.quiet  # noqa: F401  (before Ultralytics)
from soundsight.config import AugmentConfig, SpectrogramConfig

CLASSES = ("cat", "dog", "rain")
PER_CLASS = 8  # 24 images: 12 for each process
EARS = SpectrogramConfig(image_size=32, fmin_hz=60.0)
AUGMENT = AugmentConfig(mixup=0.3, shift=0.25)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Images of one grey level each, so that a level tells which image it was."""
    root = tmp_path_factory.mktemp("data")
    for split in ("train", "val", "test"):
        for label, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(PER_CLASS):
                level = 10 * (label * PER_CLASS + number) + 5
                cv2.imwrite(str(folder / f"{number}.png"), np.full((32, 32, 3), level, np.uint8))
    return root


@pytest.fixture(scope="module")
def state(images, tmp_path_factory):
    """The file that Ultralytics writes for its processes, of our trainer with settings of its own."""
    from ultralytics import YOLO
    from ultralytics.utils.dist import generate_ddp_file

    from soundsight.backend.trainer import SpectrogramTrainer

    model = YOLO("yolov8n-cls.yaml", task="classify")
    arguments = {
        "model": "yolov8n-cls.yaml", "data": str(images), "imgsz": 32, "epochs": 2, "batch": 8, "nbs": 8,
        "device": "cpu", "project": str(tmp_path_factory.mktemp("runs")), "name": "two", "amp": False,
        "plots": False, "verbose": False, "seed": 3, "optimizer": "SGD", "lr0": 0.01, "warmup_epochs": 0,
    }  # fmt: skip
    trainer = SpectrogramTrainer.configured(EARS, AUGMENT)(overrides=arguments)
    trainer.model = trainer.get_model(cfg=model.model.yaml, verbose=False)
    script = generate_ddp_file(trainer)
    yield script
    Path(script).unlink()
    Path(script).with_suffix(".pt").unlink()


def environment() -> dict[str, str]:
    source = str(Path(__file__).parents[1] / "src")
    return {
        **os.environ,
        "PYTHONPATH": source,
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }


def test_the_trainer_reaches_a_fresh_process_whole(state):
    program = (
        "import sys; from ultralytics.utils.patches import torch_load\n"
        "t = torch_load(sys.argv[1], map_location='cpu')['trainer']\n"
        "print(t.__name__, t.spectrogram.fmin_hz, t.spectrogram.image_size, t.augment.mixup, t.augment.shift)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(Path(state).with_suffix(".pt"))],
        env=environment(), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stdout.split() == ["SpectrogramTrainer", "60.0", "32", "0.3", "0.25"], done.stderr


@pytest.fixture(scope="module")
def two_processes(state, tmp_path_factory):
    """What the two processes of a training saw and ended with."""
    out = tmp_path_factory.mktemp("out")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    done = subprocess.run(
        [*command, __file__, str(Path(state).with_suffix(".pt")), str(out)],
        env=environment(), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    reports = [json.loads((out / f"{rank}.json").read_text()) for rank in (0, 1)]
    return reports, done.stdout + done.stderr


def test_each_process_trains_on_its_own_half(two_processes):
    (first, second), _ = two_processes
    for epoch in ("0", "1"):
        mine, other = set(first["levels"][epoch]), set(second["levels"][epoch])
        assert len(mine) == len(other) == 12
        assert not mine & other
    assert first["levels"]["0"] != first["levels"]["1"], "every epoch deals anew"
    assert first["batches"] == [4, 4, 4, 4, 4, 4], "batch=8 is 4 images in each of two processes"


def test_processes_augment_differently(two_processes):
    (first, second), _ = two_processes
    assert first["draws"]["0"] != second["draws"]["0"]
    assert first["draws"]["0"] != first["draws"]["1"]


def test_processes_end_with_the_same_weights(two_processes):
    (first, second), _ = two_processes
    assert first["weights"] == second["weights"]
    assert first["weights"] != first["weights_at_start"]


def test_the_checkpoint_has_its_ears(two_processes):
    from soundsight.models.load import load_classifier

    (first, second), _ = two_processes
    preprocessing = load_classifier(first["last"], device="cpu").preprocessing
    assert (preprocessing.spectrogram.fmin_hz, preprocessing.names) == (60.0, CLASSES)
    assert first["last"] == second["last"], "both processes write to one folder"


def test_callbacks_are_not_doubled(two_processes):
    (first, _), output = two_processes
    assert first["callbacks"].count("_start_epoch") == 1
    assert output.count("Soundsight trains on") == 1, "one process speaks"


def worker(state: str, out: str) -> None:
    """One of the processes: what Ultralytics' own script does, with gloo, and keeps what it sees."""
    import torch
    from torch import distributed
    from torch.nn import parallel
    from ultralytics.utils import DEFAULT_CFG_DICT
    from ultralytics.utils.patches import torch_load

    rank = int(os.environ["RANK"])
    content = torch_load(state, map_location="cpu")
    seen: dict[str, dict[str, list[int]]] = {"levels": {}, "draws": {}}
    batches: list[int] = []

    class OnCpu(parallel.DistributedDataParallel):
        def __init__(self, model, device_ids, **more):
            super().__init__(model, **more)  # a CPU has no number

    parallel.DistributedDataParallel = OnCpu

    class OnGloo(content["trainer"]):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.world_size = 2  # what device=0,1 means; Ultralytics counts a CPU as none

        def _setup_ddp(self):
            distributed.init_process_group("gloo", rank=rank, world_size=self.world_size)

        def final_eval(self):
            """Left out: Ultralytics validates on a CUDA device here, by its number."""

        def preprocess_batch(self, batch):
            key = str(self.epoch)
            seen["levels"].setdefault(key, []).extend(batch["img"][:, 0, 0, 0].tolist())
            seen["draws"].setdefault(key, []).append(hash(bytes(self.augmenter.random.get_state())))
            batches.append(len(batch["img"]))
            return super().preprocess_batch(batch)

    def digest(model) -> float:
        network = model.module if hasattr(model, "module") else model
        return sum(p.detach().double().abs().sum().item() for p in network.parameters())

    cfg = {**DEFAULT_CFG_DICT, "save_dir": ""}
    trainer = OnGloo(cfg=cfg, overrides=content["args"], _callbacks=content["callbacks"])
    trainer.model = content["model"]
    start = digest(trainer.model)
    trainer.train()
    assert isinstance(trainer.model, OnCpu)
    names = [c.__name__ for event in trainer.callbacks.values() for c in event]
    report = {
        **seen, "batches": batches, "weights": digest(trainer.model), "weights_at_start": start,
        "last": str(trainer.last), "callbacks": names,
    }  # fmt: skip
    (Path(out) / f"{rank}.json").write_text(json.dumps(report))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    worker(*sys.argv[1:])
