"""What only a CUDA GPU can show: training through graphs, mixed precision, `device=0` through every door."""

import copy
import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import TINY_EARS
from soundsight.augment import Augmenter
from soundsight.backend import trainer
from soundsight.backend.graphs import RecordedAugmenter, record_network
from soundsight.cli import main
from soundsight.config import AugmentConfig, DatasetConfig
from soundsight.evaluation.crossval import crossval
from soundsight.evaluation.train import train
from soundsight.models.load import load_classifier

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
SETTINGS = {"model": "yolov8n-cls.yaml", "imgsz": 64, "batch": 8, "nbs": 8, "plots": False, "device": 0}
QUICK_LEARNER = {"optimizer": "AdamW", "lr0": 0.003, "warmup_epochs": 0, "workers": 0}


@pytest.fixture(scope="module")
def run(tiny_data, tmp_path_factory):
    """Trained on the GPU in mixed precision, through graphs; the last batch of an epoch is a smaller one."""
    place = str(tmp_path_factory.mktemp("cuda"))
    return train(**SETTINGS, **QUICK_LEARNER, epochs=30, data=str(tiny_data), project=place, name="r")


def networks():
    from ultralytics.nn.tasks import ClassificationModel

    torch.manual_seed(0)
    plain = ClassificationModel("yolov8n-cls.yaml", nc=4, verbose=False).cuda().train()
    plain = plain.to(memory_format=torch.channels_last)
    return plain, copy.deepcopy(plain)


def test_graphs_compute_what_the_network_computes(monkeypatch):
    """Scores, gradients and the means of batch normalisation, batch after batch, a smaller one too."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    plain, recorded = networks()
    sample = torch.zeros(8, 3, 64, 64, device="cuda").contiguous(memory_format=torch.channels_last)
    record_network(recorded, sample, dtype=None)
    for size in (8, 8, 5, 8):
        images = torch.rand(size, 3, 64, 64, device="cuda").contiguous(memory_format=torch.channels_last)
        answers = []
        for network in (plain, recorded):
            scores = network(images)
            (scores**2).mean().backward()
            gradients = [p.grad.clone() for p in network.parameters()]
            network.zero_grad()
            answers.append([scores.detach(), *gradients, *(b.clone().float() for b in network.buffers())])
        for one, other in zip(*answers, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(images)[0], recorded.eval()(images)[0], rtol=1e-3, atol=1e-5)


NO_TIME = {"shift": 0.0, "time_masks": 0}


@pytest.mark.parametrize(
    "changes", [{}, {"cutmix": 0.4, "filter_db": 8.0}, {"mixup": 0.0, "stretch": 0.1}, {"mixup": 0.0, **NO_TIME}]
)
def test_augmentation_as_a_graph_is_the_augmentation(changes):
    """On the GPU, through the graph and not, and on the processor: the same images and targets, batch after batch."""
    config = AugmentConfig(**changes)
    images = torch.randint(0, 256, (8, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images[:, :, :20] = 0
    labels = torch.arange(8) % 4
    makers = [Augmenter(config, classes=4, db_range=80.0, seed=3) for _ in range(3)]
    for maker in makers:
        maker.weigh_classes(labels[:7])
    recorded = RecordedAugmenter(makers[2], 8, 64, torch.device("cuda:0"))
    for size in (8, 8, 5, 8):
        one = makers[0](images[:size], labels[:size])
        two = makers[1](images[:size].cuda(), labels[:size].cuda())
        three = recorded(images[:size].cuda(), labels[:size].cuda())
        for here, plain, graph in zip(one, two, three, strict=True):
            torch.testing.assert_close(plain, graph, rtol=0, atol=0)
            # A float32 corner of a stretch or a shift may round the other way: a few pixels, no more.
            assert ((here - plain.cpu()).abs() > 1e-3).float().mean() < 0.01


def test_training_goes_through_graphs_and_learns(run, tiny_data, tmp_path, monkeypatch, capsys):
    rows = list(csv.DictReader(open(run.folder / "results.csv", encoding="utf-8")))
    losses = [float(row["train/loss"]) for row in rows]
    assert np.isfinite(losses).all() and losses[-1] < 0.7 * losses[0]
    recorded = []
    monkeypatch.setattr(trainer.graphs, "record_network", lambda *args, **kwargs: recorded.append(kwargs["dtype"]))
    once = {**SETTINGS, "epochs": 1, "data": str(tiny_data), "project": str(tmp_path)}
    train(**once)
    train(**once, amp="bf16")
    train(**once, amp=False)
    for warmup in (0, 1):
        train(**{**once, "nbs": 16, "warmup_epochs": warmup})  # sums gradients of two batches, which graphs cannot
    assert recorded == [torch.float16, torch.bfloat16, None]


def test_pictures_that_do_not_fit_on_the_gpu_stay_off_it(tiny_data, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (1000, 1000))
    places = []
    loader = trainer.MemoryLoader.__init__

    def watched(self, *args, **kwargs):
        loader(self, *args, **kwargs)
        places.append(self.images.device.type)

    monkeypatch.setattr(trainer.MemoryLoader, "__init__", watched)
    train(**SETTINGS, epochs=1, data=str(tiny_data), project=str(tmp_path))
    assert set(places) == {"cpu"}


def test_a_full_gpu_trains_without_graphs(tiny_data, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trainer.graphs, "record_network", full)
    assert train(**SETTINGS, epochs=1, data=str(tiny_data), project=str(tmp_path)).last.is_file()


def test_gpu_and_processor_give_the_same_answers(run, tiny_data):
    from soundsight.evaluation.scoring import list_images, logits_of

    there, here = load_classifier(run.last, device="0"), load_classifier(run.last, device="cpu")
    assert there.device.type == "cuda"
    found = list_images(tiny_data, "test", there.preprocessing.names)
    gpu, cpu = logits_of(there, found.files), logits_of(here, found.files)
    assert np.abs(gpu - cpu).max() < 0.05 and (gpu.argmax(1) == cpu.argmax(1)).all()
    assert (gpu.argmax(1) == found.targets).mean() > 0.5  # of four classes


@pytest.mark.parametrize("device", ["0", "cuda:0", "cpu"])
def test_commands_take_the_device(run, tiny_data, tiny_sounds, tmp_path, capsys, device):
    model, clip = str(run.last), str(sorted(Path(tiny_sounds).rglob("*.wav"))[0])
    where = ["--device", device]
    assert main(["val", model, "--data", str(tiny_data), "--split", "test", "--out", str(tmp_path / "v"), *where]) == 0
    assert main(["predict", model, clip, *where]) == 0
    assert main(["predict", model, clip, "--runtime", "pytorch", "--shifts", "2", *where]) == 0
    assert main(["embed", model, clip, "--out", str(tmp_path / "e.parquet"), *where]) == 0


def test_five_folds_on_the_gpu(tiny_sounds, tmp_path):
    dataset = DatasetConfig(root=str(tiny_sounds), cache=str(tmp_path / "cache"))
    settings = {k: v for k, v in SETTINGS.items() if k != "imgsz"}
    result = crossval(dataset, TINY_EARS, runs=tmp_path, epochs=1, seeds=[0], **settings)
    assert result.folds == [1, 2, 3, 4, 5] and len(result.pooled.targets) == 80
