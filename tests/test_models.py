"""One gate for model files: tensors and settings go through, into networks of known layers; nothing else does."""

from __future__ import annotations

import io
import os
import shutil
import socket
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torture import hostile, models

from conftest import TINY_EARS
from soundsight.backend import architecture, checkpoint, guard, unpickle
from soundsight.backend.train import find_weights, train
from soundsight.errors import ModelError


def tree(of: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(of, buffer)
    return buffer.getvalue()


def small(name: str = "yolov8n-cls.yaml", **changes: Any) -> Any:
    """A classifier of three classes with random weights and normalization, as Ultralytics makes it."""
    from ultralytics.nn.tasks import ClassificationModel

    torch.manual_seed(0)
    network = ClassificationModel(name, nc=3, verbose=False)
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
    network.names = {0: "a", 1: "b", 2: "c"}
    for key, value in changes.items():
        setattr(network, key, value)
    return network


def refused(data: bytes) -> str:
    with pytest.raises(ModelError) as caught:
        checkpoint.parse_checkpoint(data, "x.pt")
    assert "\n" not in str(caught.value) and str(caught.value).startswith("x.pt ")
    return str(caught.value)


def program(*parts: bytes) -> bytes:
    """A checkpoint whose pickle makes `parts` one after the other in a tuple."""
    return hostile.archive(hostile.mapping(model=hostile.group(*parts)))


@pytest.mark.parametrize("name", ["yolov8n-cls.yaml", "yolo11n-cls.yaml", "yolo26n-cls.yaml"])
@pytest.mark.parametrize("kind", ["fp16", "fp32", "average", "fused"])
def test_predictions_are_those_of_ultralytics_own_loading(name: str, kind: str, tmp_path: Path) -> None:
    from ultralytics.nn.tasks import torch_safe_load

    network = small(name)
    if kind == "fused":
        network = network.eval().fuse(verbose=False)
    elif kind != "fp32":
        network = network.half()
    stored = {"model": None, "ema": network} if kind == "average" else {"model": network, "ema": None}
    path = tmp_path / "stock.pt"
    torch.save({"epoch": 3, "best_fitness": np.float64(0.5), "train_args": {"imgsz": 64}, **stored}, path)
    ours = checkpoint.load_checkpoint(path)
    theirs = torch_safe_load(str(path), safe_only=False)[0]
    assert (ours["epoch"], ours["best_fitness"], ours["train_args"]) == (3, 0.5, {"imgsz": 64})
    made, meant = checkpoint.checkpoint_model(ours), checkpoint.checkpoint_model(theirs)
    assert made.names == meant.names and next(made.parameters()).dtype == next(meant.parameters()).dtype
    images = torch.rand(4, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(made.float().eval()(images)[1], meant.float().eval()(images)[1])


def test_settings_of_normalization_are_taken_over_as_numbers() -> None:
    network = small()
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.eps = 1e-3
    made = checkpoint.checkpoint_model(checkpoint.parse_checkpoint(tree({"model": network}), "x.pt"))
    assert {layer.eps for layer in made.modules() if isinstance(layer, torch.nn.BatchNorm2d)} == {1e-3}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda n: setattr(n.model[0].conv, "stride", (1, 1)), "stride=(1, 1), not (2, 2) as described"),
        (lambda n: setattr(n.model[1], "act", torch.nn.ReLU()), "is ReLU, not SiLU as described"),
        (lambda n: n.model.append(torch.nn.Identity()), "its layers are not those of its description"),
        (lambda n: n.yaml.update(backbone=n.yaml["backbone"][:-1]), "its layers are not those of its description"),
        (lambda n: n.yaml.update(head=[[-1, 1, "Detect", ["nc"]]]), "its last layer is 'Detect', not Classify"),
        (lambda n: n.yaml["head"].insert(0, [-1, 1, "check_yaml", ["x"]]), "'check_yaml' is no layer that is known"),
        (lambda n: n.yaml["head"].insert(0, [-1, 1, "nn.Module.cuda", []]), "is no layer that is known"),
        (lambda n: n.yaml["backbone"][0].__setitem__(1, 10**9), "repeated without end"),
        (lambda n: n.yaml["backbone"][0].__setitem__(3, [10**9, 3, 2]), "is no argument of a layer"),
        (lambda n: n.yaml["backbone"][0].__setitem__(3, ["layers", 3, 2]), "is no argument of a layer"),
        (lambda n: n.yaml.update(activation="nn.SiLU(open('x'))"), "is no activation"),
        (lambda n: n.yaml.update(activation="nn.Linear(9, 9)"), "is no activation"),
        (lambda n: n.yaml.update(scales={"n": [1e300, 1, 1]}), "its network has no size"),
        (lambda n: n.register_buffer("more", torch.zeros(1)), "Unexpected key"),
        (lambda n: setattr(n.model[0].conv, "weight", torch.nn.Parameter(torch.zeros(9, 3, 3, 3))), "size mismatch"),
    ],
)
def test_networks_that_are_not_what_they_are_described_as(change: Any, match: str) -> None:
    network = small()
    change(network)
    assert match in refused(tree({"model": network}))


@pytest.mark.parametrize("method", ["forward", "_predict_once", "fuse", "state_dict"])
def test_nothing_of_a_file_replaces_a_method(method: str) -> None:
    """Instances may carry classes and bound methods, which PyTorch's safe loading gives to the program."""
    network = small()
    network.model[1].__dict__[method] = torch.nn.Conv2d  # named only, but it would be called
    network.__dict__["args"] = torch.nn.Linear
    made = checkpoint.checkpoint_model(checkpoint.parse_checkpoint(tree({"model": network}), "x.pt"))
    assert method not in vars(made.model[1]) and "args" not in vars(made)
    made.float()(torch.zeros(1, 3, 32, 32))


def test_two_directories_in_one_archive_are_read_by_one_reader(tmp_path: Path) -> None:
    """`zipfile` and PyTorch's reader find different pickles; only the former reads, and only what it has checked."""
    marker = tmp_path / "marker"
    path = tmp_path / "two.pt"
    path.write_bytes(hostile.two_directories(tree({"model": small()}), hostile.programs(marker, 9)["os.system"]))
    assert b"system" in torch._C.PyTorchFileReader(str(path)).get_record("data.pkl")
    with zipfile.ZipFile(path) as archive:
        assert b"system" not in archive.read("archive/data.pkl")
    checkpoint.load_checkpoint(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"train_args": [1]}, "training arguments that are no settings"),
        ({"train_args": {"data": torch.nn.Linear}}, "stands where a setting belongs"),
        ({"train_args": {"pretrained": "http://127.0.0.1:9/x.pt"}}, "names another address"),
        ({"optimizer": {"state": {0: {"step": torch.nn.Linear}}}}, "stands where a setting belongs"),
        ({"epoch": 1 << 2000}, "stands where a setting belongs"),
        ({"modelopt": {"x": 1}}, "was trained for 8 bits"),
        ({"stopper": [[]] * 2}, ""),
    ],
)
def test_settings_that_are_none(change: dict[str, Any], match: str) -> None:
    data = tree({"model": small(), **change})
    if match:
        assert match in refused(data)
    else:
        checkpoint.parse_checkpoint(data, "x.pt")


def test_lists_that_hold_themselves_end(tmp_path: Path) -> None:
    laughs: list[Any] = []
    for _ in range(40):
        laughs = [laughs, laughs]
    own: list[Any] = []
    own.append(own)
    for value in (laughs, own):
        assert "nested without end" in refused(tree({"model": small(), "train_args": {"x": value}}))


@pytest.mark.parametrize(
    ("shape", "match"),
    [
        ("(K\x00(J\x00\x00\x00\x40t(K\x00t\x89N", "claims more numbers than it holds"),
        ("(K\x09(K\x01t(K\x01t\x89N", "claims more numbers than it holds"),
    ],
)
def test_tensors_beyond_their_numbers(shape: str, match: str) -> None:
    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQ"
    rebuild = hostile.named("torch._utils", "_rebuild_tensor_v2")
    made = rebuild + b"(" + storage + shape.encode("latin1")[1:] + b"tR"
    assert match in refused(hostile.archive(hostile.mapping(model=made), extra={"data/0": bytes(4)}))


def test_every_name_outside_the_list_is_refused() -> None:
    assert "it names os.system" in refused(program(hostile.named("os", "system")))
    assert "it names torch.hub.load" in refused(program(hostile.named("torch.hub", "load")))
    with pytest.raises(unpickle.Refused):
        unpickle.plain(unpickle.Record("x", ()))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A training that was killed: `last.pt` can be resumed."""
    last = tmp_path / "run" / "weights" / "last.pt"
    last.parent.mkdir(parents=True)
    content = models.make_content()
    content["train_args"]["epochs"] = 3
    torch.save({**content, "epoch": 2, "optimizer": {"state": {}, "param_groups": []}}, last)
    return last


def crafted(path: Path, marker: Path) -> Path:
    path.write_bytes(hostile.archive(hostile.mapping(model=hostile.programs(marker, 9)["os.system"])))
    return path


def test_the_file_beside_a_resumed_checkpoint(run: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    crafted(run.with_name("best.pt"), marker)
    with pytest.raises(ModelError, match=r"best\.pt is not a checkpoint that can be loaded safely \(it names os"):
        train({"resume": str(run), "device": "cpu"}, spectrogram=None, augment=None)
    assert not marker.exists()


@pytest.mark.parametrize("key", ["model", "pretrained", "distill_model"])
@pytest.mark.parametrize("stock", [False, True])
def test_arguments_that_name_a_file(key: str, stock: bool, tiny_data: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    words = {"model": "yolov8n-cls.yaml", key: str(crafted(tmp_path / "x.pt", marker)), "data": str(tiny_data)}
    with pytest.raises(ModelError, match="it names os"):
        train({**words, "device": "cpu", "project": str(tmp_path)}, spectrogram=TINY_EARS, augment=None, stock=stock)
    assert not marker.exists()


def test_whatever_ultralytics_loads_goes_through_the_gate(tmp_path: Path) -> None:
    from ultralytics import YOLO
    from ultralytics.nn.tasks import ClassificationModel, load_checkpoint
    from ultralytics.utils.torch_utils import strip_optimizer

    marker = tmp_path / "marker"
    path = str(crafted(tmp_path / "x.pt", marker))
    with guard.guarded():
        for load in (load_checkpoint, YOLO):
            with pytest.raises(ModelError, match="it names os"):
                load(path)
        assert strip_optimizer(path) == {}  # which it says, and leaves the file
        with pytest.raises(ModelError, match="is no activation"):
            ClassificationModel({**small().yaml, "activation": f"__import__('os').mkdir({str(marker)!r})"})
        with pytest.raises(ConnectionError):
            from ultralytics.utils import WEIGHTS_DIR

            YOLO(WEIGHTS_DIR / "yolo26n.pt")  # what is loaded before trainings on a GPU, from wherever it lies
        with ThreadPoolExecutor(1) as threads, pytest.raises(ModelError, match="it names os"):
            threads.submit(load_checkpoint, path).result()
    assert not marker.exists()
    originals = dict(guard._originals)
    assert all(getattr(sys.modules[place], name) is value for (place, name), value in originals.items())


def test_lists_of_images_beside_the_data_are_not_unpickled(tiny_data: Path, tmp_path: Path) -> None:
    """Ultralytics keeps them as `train.cache`, a pickle within a NumPy file."""
    from ultralytics.data.dataset import ClassificationDataset
    from ultralytics.utils import DEFAULT_CFG

    marker = tmp_path / "marker"
    data = tmp_path / "data"
    shutil.copytree(tiny_data / "val", data / "val")

    class Runs:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(marker),)

    with open(data / "val.cache", "wb") as file:
        np.save(file, np.array(Runs(), dtype=object), allow_pickle=True)
    with guard.guarded():
        ClassificationDataset(str(data / "val"), DEFAULT_CFG)
    assert not marker.exists()


def test_protection_does_not_depend_on_what_is_imported_first(run: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    bad = crafted(tmp_path / "x.pt", marker)
    code = (
        "import ultralytics, torch, soundsight\nfrom soundsight.errors import ModelError\n"
        "from soundsight.backend.train import train\n"
        f"for words in ({{'model': {str(bad)!r}}}, {{'model': 'yolov8n-cls.yaml', 'pretrained': {str(bad)!r}}}):\n"
        "    try: train({**words, 'device': 'cpu'}, spectrogram=None, augment=None)\n"
        "    except ModelError as error: print(error)"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("YOLO_", "ULTRALYTICS_"))}
    environment["YOLO_CONFIG_DIR"] = str(tmp_path)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.count("it names os") == 2 and not marker.exists()


def test_descriptions_are_held_to_known_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = tmp_path / "marker"
    path = tmp_path / "yolov8n-cls.yaml"
    good = "nc: 2\nbackbone: [[-1, 1, Conv, [8, 3, 2]]]\nhead: [[-1, 1, Classify, [nc]]]\n"
    path.write_text(good)
    assert find_weights(str(path)) == str(path)
    path.write_text(good + f"activation: \"__import__('os').mkdir('{marker}')\"\n")
    with pytest.raises(ModelError, match="does not describe a classifier that can be built .*is no activation"):
        find_weights(str(path))
    for name in ("none-cls.yaml", "http://127.0.0.1:9/x.yaml"):
        with pytest.raises(ModelError, match="does not exist|is an address"):
            find_weights(name)
    assert not marker.exists()


def test_a_torchvision_backbone_is_built_without_fetching(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network is asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    plan = {"nc": 2, "backbone": [[-1, 1, "TorchVision", [512, "resnet18", "DEFAULT", True, 2]]]}
    network = architecture.build({**plan, "head": [[-1, 1, "Classify", ["nc"]]]})
    assert network.yaml["backbone"][0][3][2] is None and next(network.parameters()).is_meta


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX pipes")
@pytest.mark.parametrize("name", ["x.pt", "x.onnx"])
def test_a_pipe_is_no_model(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(ModelError, match="is neither a file nor a folder"):
        from soundsight.models.load import load_classifier

        load_classifier(tmp_path / name, device="cpu")
