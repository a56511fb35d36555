"""A `.pt` file read as plain data: tensors, numbers, text, and records of whatever else it names.

A pickle is a program: it names Python objects and calls them. Here the names of tensor constructors stand for
functions of this module, and all other names of PyTorch and Ultralytics for inert records. No object of the file
is imported, called or given state. The bytes that are checked are the bytes that are loaded, by this one reader.
"""

from __future__ import annotations

import io
import math
import pickle
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any, ClassVar

from soundsight.config.files import shown

if TYPE_CHECKING:
    import torch

# What may be named beside the constructors below; a name is a text in a record, whatever it names.
_NAMED = re.compile(
    r"(torch\.nn|torchvision|ultralytics)\.[\w.]+|torch\.[a-z]+[0-9_]*|torch\.[A-Z][a-z0-9A-Z]+Storage"
    r"|(builtins|__builtin__)\.getattr|functools\.partial|numpy\.dtype"
)
# The operations of pickle that `torch.save` writes, of which none takes memory for the asking.
_OPERATIONS = b"\x80}](ctqrhjKMJ\x8aNXUTGBsu)\x81\x85\x86\x87RbaeQ.\x88\x89"
_STORAGES = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64",
    "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool",
}  # fmt: skip
_NUMBERS = {"f8": "<d", "f4": "<f", "f2": "<e", "i8": "<q", "i4": "<i", "u8": "<Q", "u4": "<I", "b1": "<?"}
_MAX_VALUES = 1_000_000  # of plain data, counted with repetition; 64 characters of a text count as one
_MAX_DEPTH = 32
_MAX_USES = 4  # of the same numbers by several tensors


class Refused(Exception):
    """A file holds more than data, or data that cannot be; the text says what."""


class Record:
    """An object of the file: the name of its class, its arguments and its state, as far as they were read."""

    __slots__ = ("arguments", "name", "state")

    def __init__(self, name: str, arguments: tuple[Any, ...]) -> None:
        self.name, self.arguments = name, arguments
        self.state: Any = None


class _Name:
    """Something that the file names; a call makes a record of the call."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *arguments: Any) -> Record:
        return Record(self.name, arguments)


def read(data: bytes) -> Any:
    """The content of a checkpoint.

    Args:
        data: The whole file, in the format of `torch.save` since PyTorch 1.6.

    Returns:
        Dictionaries, lists, tuples, text, numbers, `torch.Tensor`s of their own memory, and `Record`s.

    Raises:
        Refused: The file is a program, or claims more than it holds.
        Exception: Whatever damaged ZIP archives and pickles provoke.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        if any(name.endswith("/constants.pkl") for name in entries):
            raise Refused("it is a TorchScript program, which is not read; use the ONNX export")
        if sum(entry.file_size for entry in archive.infolist()) > len(data):
            raise Refused("it unpacks to more than its size")
        roots = [name.removesuffix("data.pkl") for name in entries if name.endswith("/data.pkl")]
        if len(roots) != 1 or len(entries) != len(archive.infolist()):
            raise Refused("it has no single description of what it holds")
        if f"{roots[0]}byteorder" in entries and archive.read(f"{roots[0]}byteorder") != b"little":
            raise Refused("its numbers are big-endian")

        def part(name: str) -> bytes:
            return archive.read(roots[0] + name)

        return _Reader(part("data.pkl"), part).load()


def plain(value: Any, *, tensors: bool = False) -> Any:
    """A copy of `value` made of dictionaries, lists, tuples, text and finite or infinite numbers only."""
    import torch

    left = _MAX_VALUES

    def copy(value: Any, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0 or depth > _MAX_DEPTH:
            raise Refused("its settings are nested without end")
        if type(value) in (str, bytes):
            left -= len(value) // 64
            return value
        if value is None or type(value) in (bool, float) or (type(value) is int and abs(value) < 1 << 64):
            return value
        if isinstance(value, list | tuple):
            return type(value)(copy(item, depth + 1) for item in value)
        if isinstance(value, dict):
            return {key: copy(item, depth + 1) for key, item in value.items()}
        if isinstance(value, Record) and value.name.endswith("SimpleNamespace") and isinstance(value.state, dict):
            return copy(value.state, depth + 1)
        if tensors and isinstance(value, torch.Tensor):
            return value
        kind = value.name if isinstance(value, Record | _Name) else type(value).__name__
        raise Refused(f"{kind[:80]} stands where a setting belongs")

    return copy(value, 0)


class _Reader(pickle._Unpickler):
    """An unpickler in Python whose every step that could touch an object makes plain data or a record instead."""

    stack: list[Any]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, program: bytes, part: Callable[[str], bytes]) -> None:
        super().__init__(io.BytesIO(program), encoding="utf-8")
        self.part = part
        self.storages: dict[str, torch.Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        """A function of this module for the constructors of tensors and plain values, else a name."""
        full = f"{module}.{name}"
        if full in _CONSTRUCTORS:
            return _CONSTRUCTORS[full]
        if _NAMED.fullmatch(full):
            return _Name(full)
        raise Refused(f"it names {full[:80]}")

    def persistent_load(self, identity: Any) -> torch.Tensor:
        """The numbers of one or several tensors, one-dimensional."""
        import torch

        kind, storage, key, _, count = identity
        dtype = _STORAGES.get(storage.name.removeprefix("torch.").removesuffix("Storage"))
        if kind != "storage" or dtype is None or type(key) is not str or type(count) is not int:
            raise Refused("it keeps numbers in a way that is not known")
        if key not in self.storages:
            data = bytearray(self.part(f"data/{key}"))
            found = torch.frombuffer(data, dtype=getattr(torch, dtype)) if data else torch.empty(0)
            self.storages[key] = found.to(getattr(torch, dtype))
            self.storages[key].left = _MAX_USES * found.numel()  # type: ignore[attr-defined]
        found = self.storages[key]
        if found.dtype is not getattr(torch, dtype) or found.numel() != count:
            raise Refused("it claims other numbers than it holds")
        return found

    def load_reduce(self) -> None:
        """Call a constructor of this module, or make a record where pickle would call something or make an instance."""
        arguments = self.stack.pop()
        self.stack.append(_named(self.stack.pop())(*arguments))

    def load_build(self) -> None:
        """Note the state of a record; a dictionary's attributes are of no use."""
        state = self.stack.pop()
        if isinstance(self.stack[-1], Record):
            self.stack[-1].state = state
        elif not isinstance(self.stack[-1], dict):
            raise Refused("it gives state to what has none")

    def extend(self, items: list[Any]) -> None:
        """Append to the list at the top of the stack."""
        if type(self.stack[-1]) is not list:
            raise Refused("it appends to what is no list")
        self.stack[-1].extend(items)

    def update(self, items: list[Any]) -> None:
        """Fill the dictionary at the top of the stack; keys are text or numbers, so that hashing is cheap."""
        if type(self.stack[-1]) is not dict or any(type(key) not in (str, int, float, bool) for key in items[::2]):
            raise Refused("it fills what is no dictionary of settings")
        self.stack[-1].update(zip(items[::2], items[1::2], strict=True))

    dispatch: ClassVar[Any] = {code: step for code, step in pickle._Unpickler.dispatch.items() if code in _OPERATIONS}
    dispatch |= {ord("R"): load_reduce, 0x81: load_reduce, ord("b"): load_build}
    dispatch |= {
        ord("a"): lambda self: self.extend([self.stack.pop()]),
        ord("e"): lambda self: self.extend(self.pop_mark()),
        ord("s"): lambda self: self.update([self.stack.pop(), self.stack.pop()][::-1]),
        ord("u"): lambda self: self.update(self.pop_mark()),
    }


def _named(function: Any) -> Callable[..., Any]:
    if isinstance(function, _Name) or (callable(function) and function in _CONSTRUCTORS.values()):
        return function  # type: ignore[no-any-return]
    raise Refused("it calls what is no constructor")


def _tensor(numbers: Any, offset: Any, size: Any, stride: Any, *_: Any) -> torch.Tensor:
    """A tensor of its own memory from a part of the numbers, within their bounds."""
    whole = [offset, *size, *stride]
    if len(size) != len(stride) or not all(type(n) is int and 0 <= n < 1 << 48 for n in whole):
        raise Refused("it has a tensor without a shape")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    count = math.prod(size)
    if count > numbers.numel() or (count and last >= numbers.numel()):
        raise Refused("it claims more numbers than it holds")
    numbers.left -= count
    if numbers.left < 0:
        raise Refused("many of its tensors are the same numbers")
    return numbers.as_strided(size, stride, offset).clone()  # type: ignore[no-any-return]


def _scalar(kind: Record, data: bytes) -> float:
    (number,) = struct.unpack(_NUMBERS[str.lower(kind.arguments[0])], data)  # a text: others may take long to hash
    return number  # type: ignore[no-any-return]


def _bytes(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise Refused(f"it encodes {shown(encoding)}")
    return text.encode("latin1")


def _type(name: str) -> Callable[..., Any]:
    return _list if name == "set" else _Name("dill." + name)


def _list(items: list[Any]) -> list[Any]:
    return list(items) if type(items) is list else []


def _first(data: Any, *_: Any) -> Any:
    return data


def _tuple(items: Any) -> tuple[Any, ...]:
    return tuple(items) if isinstance(items, list | tuple) else ()


_CONSTRUCTORS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch.Size": _tuple,
    "collections.OrderedDict": lambda: {},
    "builtins.set": _list,
    "__builtin__.set": _list,
    "dill._dill._load_type": _type,  # Ultralytics 8.0 to 8.3 wrote with dill where that was installed
    "_codecs.encode": _bytes,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
    **dict.fromkeys(("pathlib.PosixPath", "pathlib._local.PosixPath"), lambda *parts: str(PurePosixPath(*parts))),
    **dict.fromkeys(("pathlib.WindowsPath", "pathlib._local.WindowsPath"), lambda *parts: str(PureWindowsPath(*parts))),
}
