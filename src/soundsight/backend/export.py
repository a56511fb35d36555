"""Export: a checkpoint to ONNX, OpenVINO, TorchScript and the other formats of Ultralytics, preprocessing included.

Ultralytics writes the file into a temporary folder; the preprocessing goes into the file's own metadata; only then does
it take its place. Its own metadata stay, so the stock `yolo` command reads the same file.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import soundsight.backend.quiet  # noqa: F401  (before Ultralytics)
from soundsight.backend import checkpoint
from soundsight.backend.checkpoint import KEY
from soundsight.backend.quiet import require_openvino
from soundsight.config import SpectrogramConfig, unknown_key
from soundsight.deprecation import renamed
from soundsight.errors import ConfigError, ModelError
from soundsight.files import TEMP_PREFIX, check_output, write_text

# What `soundsight predict` reads.
READABLE = ("onnx", "openvino")
# An export with our settings inside: ONNX, or the archive of TorchScript.
_OURS = re.compile(rb"\A(?:\x08|PK).*" + KEY.encode(), re.DOTALL)
# Values of `quantize` for which ranges are measured on data, and formats that take one of them whatever is said.
CALIBRATED = ("8", "int8", "w8a8", "w8a16")
_ALWAYS_CALIBRATED = ("axelera", "deepx", "edgetpu", "hailo", "imx", "qnn", "xilinx")
# Packages that Ultralytics needs for a format, by the names that pip knows.
_PACKAGES = {
    "onnx": '"soundsight[export]"',
    **dict.fromkeys(("saved_model", "pb", "litert", "edgetpu"), '"ultralytics[export]"'),
    **{"engine": "tensorrt", "coreml": "coremltools", "paddle": "paddlepaddle x2paddle", "mnn": "MNN"},
    **{"ncnn": "ncnn pnnx", "openvino": "openvino", "executorch": "executorch"},
}


@renamed(trust="trust_checkpoint")
def export(
    model: str | Path,
    format: str = "onnx",
    *,
    out: str | Path | None = None,
    spectrogram: SpectrogramConfig | None = None,
    trust_checkpoint: bool = False,
    arguments: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    waveform: bool = False,
) -> Path:
    """Convert a checkpoint `.pt` to a format of Ultralytics; the exported file or folder.

    In `READABLE` formats it carries the preprocessing inside; others have it in `soundsight.json`, in the folder or
    beside the file.

    Args:
        model: The checkpoint.
        format: One that Ultralytics exports to; `READABLE` ones can be used by `predict`.
        out: Where to put the file or folder; `None` puts it beside the checkpoint.
        spectrogram: Preprocessing for a checkpoint that carries none.
        trust_checkpoint: See `checkpoint.load_checkpoint`.
        arguments: Ultralytics export arguments, such as `opset` or `quantize`.
        overwrite: Replace what is there, even if it is no export of ours; never the checkpoint.
        waveform: The model takes samples, not images, and gives calibrated probabilities; in `READABLE` formats. See
            `backend.waveform.from_samples`. It is named `<checkpoint>-waveform`.
    """
    import torch

    path = Path(model)
    checkpoint.require_file(path)
    if path.suffix.lower() != ".pt" or not path.is_file():
        raise ModelError(f"{path} is no checkpoint; only a .pt file can be exported.")
    data = checkpoint.read_file(path)
    content = checkpoint.parse_checkpoint(data, path, trust=trust_checkpoint)
    network = checkpoint.checkpoint_model(content)
    names = checkpoint.class_names(network, path)
    own = getattr(network, "soundsight", None)
    preprocessing = checkpoint.read_preprocessing(own, path, names, supplied=spectrogram)
    given = _arguments("onnx" if waveform else format, arguments or {}, preprocessing.spectrogram.image_size)
    if waveform:
        from soundsight.backend.waveform import check

        if format not in READABLE:
            raise ConfigError(f"input=waveform is for formats {' and '.join(READABLE)}, not for {format}.")
        check(preprocessing, given)
    text = json.dumps(
        checkpoint.make_preprocessing(
            preprocessing.spectrogram,
            list(preprocessing.names),
            temperature=preprocessing.temperature,
            threshold=preprocessing.threshold,
            seen=preprocessing.seen,
            checkpoint=checkpoint.hash_of(data)[:12],
            **{key: own[key] for key in ("labels", "temperatures", "thresholds") if own and key in own},
        )
    )
    target = Path(out) if out else None
    try:
        folder = (target or path).absolute().parent
        folder.mkdir(parents=True, exist_ok=True)
        if target and not target.is_dir():
            _check_target(target, path, overwrite)
        with tempfile.TemporaryDirectory(prefix=TEMP_PREFIX, dir=folder) as place:
            copy = Path(place, f"{path.stem}{'-waveform' * waveform}.pt")  # the exporter puts its file beside it
            torch.save({**content, "optimizer": None}, copy)
            made = _run(path, copy, given["format"], given, trust=trust_checkpoint, multi=preprocessing.multi)
            if waveform:
                made = _take_samples(made, copy.with_suffix(".onnx"), preprocessing, format)
            _WRITERS.get(format, _write_beside)(made, text)
            return _move(made, target or folder / made.name, path, overwrite)
    except OSError as error:
        raise ConfigError(
            f"The export of {path} cannot be written ({error.strerror or error}); choose a place with --out."
        ) from error


def _arguments(format: str, arguments: Mapping[str, Any], image_size: int) -> dict[str, Any]:
    """Ultralytics' export arguments, checked; batches of any size wherever the format allows them."""
    from ultralytics.cfg import DEFAULT_CFG_DICT, check_cfg
    from ultralytics.engine.exporter import export_formats

    table = export_formats()
    allowed = dict(zip(table["Argument"], table["Arguments"], strict=True))
    if format == "-" or format not in allowed:
        formats = [name for name in allowed if name != "-"]
        raise ConfigError(f"format={format!r} is not allowed; choose one of {', '.join(formats)}.")
    known = [*(key for key in allowed[format] if key not in ("nms", "conf", "iou")), "device"]  # of detectors
    for key in arguments:
        if key not in known:
            raise ConfigError(unknown_key(key, known, f"the arguments of format {format}"))
    _check_calibration(format, arguments, "data" in known)
    given = {"format": format, "imgsz": image_size, "verbose": False, **arguments}
    if "dynamic" in allowed[format] and format in _WRITERS:
        given.setdefault("dynamic", True)
    try:
        check_cfg({key: value for key, value in given.items() if key in DEFAULT_CFG_DICT}, hard=True)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"An export argument is not allowed: {' '.join(str(error).split())[:300]}") from error
    return given


def _check_calibration(format: str, arguments: Mapping[str, Any], possible: bool) -> None:
    """Ask for the data of integer arithmetic; Ultralytics would download photographs to measure ranges on."""
    quantize, data = arguments.get("quantize"), arguments.get("data")
    needed = possible and (str(quantize).lower() in CALIBRATED or format in _ALWAYS_CALIBRATED)
    if needed and not (data and (Path(str(data)) / "val").is_dir()):
        found = f"data={data} has no folder val" if data else f"format={format} quantize={quantize} needs data"
        raise ConfigError(
            f"{found}: the ranges of integers are measured on spectrogram images; write data=FOLDER, one that "
            "`soundsight prepare` laid out."
        )
    for key in ("data", "fraction"):
        if arguments.get(key) and not needed:
            raise ConfigError(f"{key}={arguments[key]} has no effect without quantize=8; leave it out.")


def _run(path: Path, copy: Path, format: str, arguments: dict[str, Any], *, trust: bool, multi: bool) -> Path:
    """Let Ultralytics export a copy of the checkpoint `path`, to the folder of the copy."""
    from ultralytics import YOLO

    from soundsight.backend.guard import guarded

    if format == "openvino":
        require_openvino()
    with _quiet(), nullcontext() if trust else guarded(), _careful_integers() if format == "onnx" else nullcontext():
        try:
            model: Any = YOLO(str(copy), task="classify")
            if multi:
                _end_in_sigmoid(model.model)
            made = Path(model.export(**arguments))
        except ImportError as error:
            package = (error.name or str(error)).split(".")[0]
            how = _PACKAGES.get(format, package)
            raise ModelError(
                f"Format {format} needs the package {package}, which is not installed; run pip install {how}."
            ) from error
        except OSError as error:
            if error.errno not in (None, errno.ENOENT):  # the disk's fault, not the exporter's
                raise
            raise ModelError(f"Ultralytics cannot export {path} to {format} ({error}).") from error
        except (RuntimeError, ValueError, TypeError, AssertionError, SystemError, AttributeError) as error:
            reason = " ".join(str(error).split()).split(". ")[0][:200].rstrip(".")
            raise ModelError(f"Ultralytics cannot export {path} to {format} ({reason}).") from error
    return made.absolute()


def _take_samples(network: Path, target: Path, preprocessing: checkpoint.Preprocessing, format: str) -> Path:
    """Replace an ONNX model from images by one from samples, as `target` or the OpenVINO folder made of it."""
    import onnx

    from soundsight.backend.waveform import from_samples

    if format == "openvino":
        openvino = require_openvino()
    onnx.save(from_samples(onnx.load(str(network)), preprocessing), str(target))
    if format == "onnx":
        return target
    folder = target.with_name(f"{target.stem}_openvino_model")
    openvino.save_model(openvino.convert_model(str(target)), folder / f"{target.stem}.xml", compress_to_fp16=False)
    return folder


def _end_in_sigmoid(network: Any) -> None:
    """Let an exported network give the probability of each class on its own, where Ultralytics ends in a softmax."""
    head = network.model[-1]

    class Sigmoid(type(head)):  # type: ignore[misc]
        def forward(self, inputs: Any) -> Any:
            return self.linear(self.pool(self.conv(inputs)).flatten(1)).sigmoid()

    head.__class__ = Sigmoid


@contextmanager
def _careful_integers() -> Iterator[None]:
    """Let the exporter make integers of convolutions only, one scale per channel, but not of the outer three."""
    try:
        import onnx
        from onnxruntime import quantization
    except ImportError:  # which the exporter reports
        yield
        return
    original = quantization.quantize_static

    def quantize(source: str, target: str, reader: Any, **_: Any) -> None:
        layers = [node.name for node in onnx.load(source).graph.node if node.op_type == "Conv"]
        kept = layers[:2] + layers[-1:]
        original(source, target, reader, op_types_to_quantize=["Conv"], per_channel=True, nodes_to_exclude=kept)

    quantization.quantize_static = quantize
    try:
        yield
    finally:
        quantization.quantize_static = original


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter, whose messages name the temporary folder."""
    from ultralytics.utils import LOGGER

    level = LOGGER.level
    LOGGER.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        LOGGER.setLevel(level)


def _write_onnx(path: Path, preprocessing: str) -> None:
    import onnx

    model = onnx.load(str(path))
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, preprocessing
    onnx.save(model, str(path))


def _write_torchscript(path: Path, preprocessing: str) -> None:
    import torch

    extra = {"config.txt": ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.jit.load(str(path), map_location="cpu", _extra_files=extra)
        module.save(str(path), _extra_files={**extra, KEY: preprocessing})


def _write_openvino(folder: Path, preprocessing: str) -> None:
    openvino = require_openvino()
    (file,) = folder.glob("*.xml")
    with tempfile.TemporaryDirectory(prefix=TEMP_PREFIX, dir=folder.parent) as place:
        model = openvino.Core().read_model(file)
        model.set_rt_info(preprocessing, [KEY])
        openvino.save_model(model, Path(place, file.name), compress_to_fp16=False)
        del model  # which maps the file that is about to be replaced
        for name in (file.name, file.with_suffix(".bin").name):
            os.replace(Path(place, name), folder / name)


def _write_beside(path: Path, preprocessing: str) -> None:
    write_text(
        path / "soundsight.json" if path.is_dir() else path.with_name(f"{path.name}.soundsight.json"), preprocessing
    )


_WRITERS: dict[str, Callable[[Path, str], None]] = {
    "onnx": _write_onnx,
    "torchscript": _write_torchscript,
    "openvino": _write_openvino,
}


def _check_target(target: Path, model: Path, overwrite: bool) -> None:
    """Refuse to replace a file that is not an export with settings inside or beside it; see `check_output`."""
    known = target.with_name(f"{target.name}.soundsight.json").is_file()
    if target.exists() and not target.is_file() and not target.is_dir():
        raise ConfigError(f"{target} is a device or a named pipe, which is not replaced; name a file.")
    check_output(target, _OURS, inputs=[model], overwrite=overwrite or known)


def _move(made: Path, target: Path, model: Path, overwrite: bool) -> Path:
    """Put an export in its place, whole; an older export there is replaced, anything else is not."""
    if made.is_file() and target.is_dir():
        target = target / made.name
    _check_target(target, model, overwrite)
    beside = made.with_name(f"{made.name}.soundsight.json")
    if beside.is_file():
        os.replace(beside, target.with_name(f"{target.name}.soundsight.json"))
    if made.is_file():
        os.replace(made, target)
        return target
    if target.exists():
        others = {path.name for path in target.iterdir()} - {path.name for path in made.iterdir()}
        if others and not overwrite:
            raise ConfigError(
                f"{target} is there already and holds {sorted(others)[0]}, which is no part of the export; choose "
                "another place with --out, or replace all of it with --overwrite."
            )
        old = made.with_name("old")
        os.replace(target, old)
        shutil.rmtree(old)
    os.replace(made, target)
    return target
