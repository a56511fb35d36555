"""What a checkpoint would do while it is unpickled, found out without doing any of it.

A pickle is a program: it names Python objects and calls them. This reads the program with stand-ins for all
that it names, and refuses names and calls that no YOLO classifier needs. PyTorch's and Ultralytics' own safe
loading runs afterwards; it allows one thing more than is good, to call the constructor of any network
layer, some of which download files or take all memory.
"""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from soundsight.errors import ModelError

# What a checkpoint may call; nothing of it has an effect beyond its result.
_CALLED = frozenset({
    "__builtin__.getattr", "__builtin__.set", "_codecs.encode", "builtins.getattr", "builtins.set",
    "collections.OrderedDict", "numpy._core.multiarray.scalar", "numpy.core.multiarray.scalar", "numpy.dtype",
    "pathlib.PosixPath", "pathlib.WindowsPath", "pathlib._local.PosixPath", "pathlib._local.WindowsPath",
    "torch.Size", "torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state",
    "torch._utils._rebuild_tensor_v2", "torch.device", "torchvision.transforms.functional.InterpolationMode",
})  # fmt: skip
# What it may name: layers, which are filled with their state but never constructed, and kinds of numbers.
_NAMED = re.compile(
    r"torch\.nn\.modules\.\w+\.\w+|torch\.nn\.parameter\.Parameter|ultralytics\.nn\.modules\.\w+\.\w+"
    r"|ultralytics\.nn\.tasks\.ClassificationModel|ultralytics\.utils\.loss\.\w+"
    r"|ultralytics\.(yolo\.)?utils\.IterableSimpleNamespace|torchvision\.transforms\.transforms\.\w+"
    r"|torch\.\w+Storage|torch\.b?float(16|32|64)?|torch\.u?int(8|16|32|64)|torch\.(double|half|bool|long)"
)
# The operations of pickle that PyTorch knows; a few others take memory for the asking.
_OPERATIONS = b"}](ctqrh0jKMJ\x8aNXUGs)\x81Rbae\x85\x86\x87Qu\x80.\x88\x89B\x8f\x90TIFSVLl"
_ACTIVATION = re.compile(r"\s*(torch\.)?nn\.\w+\([\w\s.,=+-]*\)\s*")
_MAX_PROGRAM = 1 << 26  # bytes; a large classifier has a tenth of a megabyte
_MAX_DEPTH = 64  # of tuples within tuples: hashing very deep ones overflows the stack of the interpreter


class Refused(Exception):
    """A checkpoint does more than hold data; the text says what."""


def screen(path: str | Path) -> None:
    """Refuse a checkpoint that names or calls what no YOLO classifier needs, or that hides its size.

    Raises:
        ModelError: The sentence names what was found.
    """
    try:
        _check_size(Path(path))
        program = _read_program(path)
        _DryRun(program).load()
    except Refused as found:
        raise ModelError(
            f"{path} is not a checkpoint that can be loaded safely ({found}); use a file from `soundsight "
            "train`, or, if you trust its origin, add --trust-checkpoint."
        ) from found
    except Exception as error:  # whatever a damaged or hostile pickle provokes
        text = " ".join(str(error).split()).split(". ")[0][:120] or type(error).__name__
        raise ModelError(
            f"{path} is not a checkpoint that can be loaded (it is damaged, or of another kind: {text}); use a file "
            "from `soundsight train`."
        ) from error


def screen_content(checkpoint: Any, path: str | Path) -> None:
    """Refuse what a loaded checkpoint says of itself if believing it would run code, call out or take all memory.

    Raises:
        ModelError: The sentence names what was found.
    """
    import torch

    size = Path(path).stat().st_size
    for key in ("ema", "model"):
        model = checkpoint.get(key)
        if not isinstance(model, torch.nn.Module):
            continue
        layers = getattr(model, "model", None)
        if not isinstance(layers, torch.nn.Sequential) or not len(layers):
            raise ModelError(f"{path} holds a network without layers; it is damaged.")
        plan = getattr(model, "yaml", None)
        activation = plan.get("activation") if isinstance(plan, dict) else None
        if activation and not (isinstance(activation, str) and _ACTIVATION.fullmatch(activation)):
            raise ModelError(f"{path} names {str(activation)[:60]!r} as an activation, which is no layer of PyTorch.")
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if tensor.is_meta or tensor.numel() > size:
                raise ModelError(
                    f"{path} claims more numbers in {name[:60]} than its {size} bytes can hold; it is damaged."
                )
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise ModelError(f"{path} holds weights that are no numbers ({name[:60]}); its training has failed.")
    arguments = checkpoint.get("train_args") or {}
    if not isinstance(arguments, dict):
        raise ModelError(f"{path} holds training arguments that are no settings; it is damaged.")
    for key, value in arguments.items():
        if isinstance(value, str) and "://" in value:
            raise ModelError(f"{path} names another address ({key}={value[:60]}); it is no checkpoint of Soundsight.")


def _check_size(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        claimed = sum(entry.file_size for entry in archive.infolist())
    if claimed > 4 * path.stat().st_size + (1 << 20):
        raise Refused("it unpacks to far more than its size")


def _read_program(path: str | Path) -> bytes:
    """The pickle inside, found by PyTorch's own reader, so that it is the one that PyTorch will load."""
    import torch

    reader = torch._C.PyTorchFileReader(str(path))
    if "constants.pkl" in reader.get_all_records():
        raise Refused("it is a TorchScript program; name it .torchscript to use it as such")
    program: bytes = reader.get_record("data.pkl")
    if len(program) > _MAX_PROGRAM:
        raise Refused("its description is far too long")
    return program


class _StandIn:
    """Takes the place of whatever a pickle makes, and takes in whatever it is given."""

    def __new__(cls, *_: Any) -> _StandIn:
        return object.__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        """Take in an item."""

    def extend(self, items: Any) -> None:
        """Take in items."""


class _Harmless(type):
    def __call__(cls, *_: Any) -> _StandIn:
        return _StandIn()


class _Constructed(type):
    def __call__(cls, *_: Any) -> _StandIn:
        raise Refused(f"it calls {cls.__name__}")


class _DryRun(pickle._Unpickler):
    """An unpickler in Python, so that no operation takes memory for the asking, which builds stand-ins only."""

    dispatch = {code: step for code, step in pickle._Unpickler.dispatch.items() if code in _OPERATIONS}  # noqa: RUF012

    def __init__(self, program: bytes) -> None:
        super().__init__(io.BytesIO(program))

    def find_class(self, module: str, name: str) -> Any:
        """A stand-in for what is named, if that may be named."""
        full = f"{module}.{name}"
        if full in _CALLED:
            return _Harmless(full, (_StandIn,), {})
        if _NAMED.fullmatch(full):
            return _Constructed(full, (_StandIn,), {})
        raise Refused(f"it names {full[:80]}")

    def persistent_load(self, identity: Any) -> Any:
        """A stand-in for the numbers of a tensor."""
        return _StandIn()


def _shallow(step: Callable[[Any], None]) -> Callable[[Any], None]:
    """A step that makes a tuple, unless tuples are nested deeper than any checkpoint needs."""

    def checked(run: Any) -> None:
        step(run)
        item, depth = run.stack[-1], 0
        while isinstance(item, tuple) and item:
            depth += 1
            if depth > _MAX_DEPTH:
                raise Refused("it nests tuples without end")
            item = max(item, key=lambda part: isinstance(part, tuple) and len(part) > 0)

    return checked


for _code in b"t\x85\x86\x87":
    _DryRun.dispatch[_code] = _shallow(_DryRun.dispatch[_code])
