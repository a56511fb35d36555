"""Networks built afresh from a description of known layers, with the weights of a checkpoint that was read as data.

The description is Ultralytics' own: `backbone` and `head`, one row [from, repeats, layer, arguments] per layer. What
a checkpoint says of its objects serves to check that the new network computes what the old one did; of their
settings, those of normalization and dropout are taken over, as numbers.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import soundsight.backend.quiet  # noqa: F401  (before Ultralytics)
from soundsight.backend.unpickle import Record, Refused, plain
from soundsight.config.files import shown

_KEYS = ("nc", "depth_multiple", "width_multiple", "scales", "scale", "ch", "channels", "yaml_file")
# Layers of PyTorch that a description may name; of Ultralytics' layers all.
_TORCH_LAYERS = frozenset({
    "AdaptiveAvgPool2d", "AvgPool2d", "BatchNorm2d", "Conv2d", "ConvTranspose2d", "Dropout", "Dropout2d", "Flatten",
    "Identity", "MaxPool2d", "Upsample", "ZeroPad2d",
})  # fmt: skip
_ACTIVATIONS = frozenset({
    "CELU", "ELU", "GELU", "Hardsigmoid", "Hardswish", "Hardtanh", "Identity", "LeakyReLU", "Mish", "PReLU", "ReLU",
    "ReLU6", "SELU", "SiLU", "Sigmoid", "Softplus", "Tanh",
})  # fmt: skip
_ACTIVATION = re.compile(r"\s*(?:torch\.)?nn\.(\w+)\(([^()]*)\)\s*")
_MAX_ROWS, _MAX_REPEATS, _MAX_MODULES, _MAX_ARGUMENT = 200, 1000, 20_000, 1 << 16
# Settings of layers of PyTorch that are numbers of the training, not of the architecture.
_TAKEN_OVER = ("eps", "momentum", "p")
# Attributes of modules that say nothing about what they compute.
_IGNORED = frozenset({"training", "inplace", "i", "f", "np", "type"})


def check_plan(plan: Any) -> dict[str, Any]:
    """A description of a classifier, checked to be of known layers with plain arguments; keys without a use go."""
    from ultralytics.nn import modules

    plan = plain(plan)
    if not isinstance(plan, dict) or not all(isinstance(plan.get(key), list) for key in ("backbone", "head")):
        raise Refused("its network is not described")
    rows = [*plan["backbone"], *plan["head"]]
    if not plan["head"] or not 0 < len(rows) <= _MAX_ROWS:
        raise Refused("its network has no layers, or far too many")
    layers = {*modules.__all__, *(f"nn.{name}" for name in _TORCH_LAYERS)}
    for row in rows:
        _check_row(row, layers, len(rows))
    if rows[-1][2] != "Classify":
        raise Refused(f"its last layer is {shown(rows[-1][2])}, not Classify")
    checked = {key: plan[key] for key in (*_KEYS, "backbone", "head") if plan.get(key) is not None}
    depths = [_number(checked.get("depth_multiple", 1.0)), _number(checked.get("width_multiple", 1.0))]
    for scale in dict(checked.get("scales", {})).values():
        depths += [_number(scale[0]), _number(scale[1])]
    if type(checked.get("nc")) is not int or not 0 < checked["nc"] <= _MAX_ARGUMENT or not 0 < max(depths) <= 10:
        raise Refused("its network has no size")
    if sum(max(1, round(row[1] * max(depths))) for row in rows) > _MAX_REPEATS:
        raise Refused("its network repeats its layers without end")
    for key in ("ch", "channels"):
        if type(checked.get(key, 3)) is not int or not 0 < checked.get(key, 3) <= 64:
            raise Refused("its network has no channels")
    if plan.get("activation"):
        checked["activation"] = _check_activation(plan["activation"])
    return checked


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value < math.inf:
        raise Refused("its network has no size")
    return float(value)


def _check_row(row: Any, layers: set[str], count: int) -> None:
    if not isinstance(row, list | tuple) or len(row) != 4 or not isinstance(row[3], list):
        raise Refused("a row of its network is no layer")
    origin, repeats, layer, arguments = row
    origins = origin if isinstance(origin, list) else [origin]
    if not origins or not all(type(index) is int and -count <= index < count for index in origins):
        raise Refused("a layer of its network has no input")
    if type(repeats) is not int or not 0 < repeats <= 100:
        raise Refused("a layer of its network is repeated without end")
    if not isinstance(layer, str) or layer not in layers:
        raise Refused(f"{shown(layer)} is no layer that is known")
    for argument in arguments:
        values = argument if isinstance(argument, list) else [argument]
        if not all(_is_argument(value, layer) for value in values):
            raise Refused(f"{shown(argument)} is no argument of a layer")


def _is_argument(value: Any, layer: str) -> bool:
    if isinstance(value, str):
        return value in ("nc", "None", "True", "False", "nearest") or (
            layer == "TorchVision" and _is_torchvision(value)
        )
    return value is None or (type(value) in (bool, int, float) and abs(value) <= _MAX_ARGUMENT)


def _is_torchvision(name: str) -> bool:
    import torchvision

    return name == "DEFAULT" or name in torchvision.models.list_models(module=torchvision.models)


def _check_activation(text: Any) -> str:
    """The call of an activation of PyTorch with literal arguments, written out again."""
    found = _ACTIVATION.fullmatch(text) if isinstance(text, str) and len(text) < 200 else None
    if found is None or found[1] not in _ACTIVATIONS:
        raise Refused(f"{shown(text)} is no activation")
    call = ast.parse(f"f({found[2]})", mode="eval").body
    assert isinstance(call, ast.Call)
    given = [repr(ast.literal_eval(value)) for value in call.args]
    given += [f"{word.arg}={ast.literal_eval(word.value)!r}" for word in call.keywords if word.arg]
    return f"torch.nn.{found[1]}({', '.join(given)})"


def build(plan: Any) -> Any:
    """The network of a description, without memory for its weights (on PyTorch's device "meta"); nothing is fetched."""
    import torch
    from ultralytics.nn import tasks

    plan = check_plan(plan)
    for row in [*plan["backbone"], *plan["head"]]:
        if row[2] == "TorchVision":
            row[3][2:3] = [None]  # weights, which would be downloaded
    network: Any = tasks.ClassificationModel.__new__(tasks.ClassificationModel)
    torch.nn.Module.__init__(network)
    network.yaml = plan
    channels = plan["channels"] = plan.get("channels", plan.get("ch", 3))
    copied = plain(plan)  # which is changed while it is read
    with torch.device("meta"), _bounded():
        network.model, network.save = tasks.parse_model(copied, ch=channels, verbose=False)
    network.stride = torch.tensor([1.0])
    network.task = "classify"
    return network


@contextmanager
def _bounded() -> Iterator[None]:
    """Refuse a network of more modules than `_MAX_MODULES` while it is built: a layer can be made of many thousands."""
    from torch.nn.modules.module import register_module_module_registration_hook

    left = _MAX_MODULES

    def count(*_: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Refused("its network is made of too many layers")

    hook = register_module_module_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def rebuild(found: Record) -> Any:
    """The network that a checkpoint holds, built anew; float tensors keep their precision."""
    import torch

    state = _state(found)
    plan = plain(state.get("yaml"))
    records = dict(islice(_walk(found), _MAX_MODULES))
    weights = dict(islice(_weights(records), _MAX_MODULES))
    head = next((w for name, w in reversed(weights.items()) if name.endswith(".linear.weight")), None)
    if isinstance(plan, dict) and head is not None and head.ndim == 2:
        plan["nc"] = head.shape[0]  # early releases replaced the last layer, but not its description
    network = build(plan)
    if not any(name.endswith(".bn.weight") for name in weights):
        network.fuse(verbose=False)  # as it was before it was saved
    _compare(network, records)
    floating = [tensor for tensor in weights.values() if tensor.is_floating_point()]
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise Refused(f"it holds weights that are no numbers, {name[:60]}; its training has failed")
    if {*network.state_dict()} != {*dict(network.named_parameters()), *dict(network.named_buffers())} or not floating:
        raise Refused("a layer of its network keeps its numbers elsewhere")
    if len({id(tensor) for tensor in weights.values()}) < len(weights):
        raise Refused("two of its layers have the same weights")
    network.load_state_dict({name: tensor.contiguous() for name, tensor in weights.items()}, assign=True)
    network.model.to(floating[0].dtype)
    return network.eval()


def _state(record: Record) -> dict[str, Any]:
    if not isinstance(record.state, dict):
        raise Refused(f"{record.name[:60]} has no state")
    return record.state


def _walk(record: Record, path: str = "", depth: int = 0) -> Iterator[tuple[str, Record]]:
    """The modules within a module, by their paths, as `named_modules` gives them."""
    yield path, record
    for name, inner in (_state(record).get("_modules") or {}).items():
        if not isinstance(inner, Record) or depth > 32:
            raise Refused(f"its layer {shown(name)} is none")
        yield from _walk(inner, _joined(path, name), depth + 1)


def _weights(records: dict[str, Record]) -> Iterator[tuple[str, Any]]:
    """The tensors of modules, by the names of a state dictionary."""
    import torch

    for path, record in records.items():
        for kind in ("_parameters", "_buffers"):
            for name, tensor in (_state(record).get(kind) or {}).items():
                if isinstance(tensor, torch.Tensor):
                    yield _joined(path, name), tensor


def _joined(path: str, name: Any) -> str:
    if not isinstance(name, str) or len(name) > 100:
        raise Refused(f"it names a part of its network {shown(name)}")
    return f"{path}.{name}" if path else name


def _compare(network: Any, records: dict[str, Record]) -> None:
    """Hold a new network to what the checkpoint says of the old one, and take over numbers of the training."""
    built = dict(network.named_modules(remove_duplicate=False))
    if built.keys() != records.keys():
        strange = sorted(built.keys() ^ records.keys())[0]
        raise Refused(f"its layers are not those of its description ({strange[:60]})")
    for path, module in built.items():
        kind, state = records[path].name.rpartition(".")[2], _state(records[path])
        if kind != type(module).__name__:
            raise Refused(f"its layer {path[:60]} is {kind[:40]}, not {type(module).__name__} as described")
        for key in vars(module).keys() & state.keys() - _IGNORED:
            old, new = state[key], getattr(module, key)
            if type(old) not in (bool, int, float, str, tuple) or old == new or key.startswith("_"):
                continue
            if key in _TAKEN_OVER and type(old) in (int, float) and 0 <= old <= 1:
                setattr(module, key, old)
            elif path:
                raise Refused(f"its layer {path[:60]} has {key}={shown(old)}, not {shown(new)} as described")
