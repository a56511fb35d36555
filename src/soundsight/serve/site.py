"""The page without a server: static files with a model from samples, ONNX Runtime for browsers, our page."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from importlib import resources
from pathlib import Path

from soundsight import audio
from soundsight.backend.checkpoint import Preprocessing, file_hash
from soundsight.errors import ConfigError
from soundsight.files import TEMP_PREFIX
from soundsight.reports.exports import facts

RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
OURS = ("style.css", "icon.svg", "recorder.js", "alone/index.html", "alone/alone.js", "alone/sw.js")
LIST = "files.json"  # of the folder: what a site of ours is known by


def runtime_files(folder: str | Path | None) -> list[Path]:
    """The files of ONNX Runtime in a folder of the npm package onnxruntime-web.

    Raises:
        ConfigError: They are not there.
    """
    for place in (Path(folder or "") / "dist", Path(folder or "")):
        if folder and all((place / name).is_file() for name in RUNTIME):
            return [place / name for name in RUNTIME]
    found = f"runtime={folder} holds no dist/{RUNTIME[0]}" if folder else "format=page needs a runtime"
    raise ConfigError(
        f"{found}: name the unpacked npm package onnxruntime-web with --runtime FOLDER (`npm pack onnxruntime-web`, "
        "then unpack it)."
    )


def check_site(out: Path, *, overwrite: bool) -> None:
    """Raise `ConfigError` where a folder would be replaced that is no site of ours."""
    if out.exists() and not overwrite and not (out / LIST).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise ConfigError(f"{out} is there already and no page of Soundsight; name another folder with --out.")


def write_site(model: Path, preprocessing: Preprocessing, runtime: list[Path], out: Path, *, overwrite: bool) -> Path:
    """Write the folder `out`, whole or not at all.

    Args:
        model: An ONNX file from samples.
        preprocessing: Of the model.
        runtime: See `runtime_files`.
        out: An older site there is replaced, and anything else with `overwrite`.
    """
    check_site(out, overwrite=overwrite)
    config = preprocessing.spectrogram
    shortest = max(config.hop_length, round(audio.IGNORED_SHARE * config.clip_samples))
    known = {**facts(preprocessing), "shortest": shortest, "leastShare": audio.LEAST_SHARE}
    with tempfile.TemporaryDirectory(prefix=TEMP_PREFIX, dir=out.absolute().parent) as place:
        new, old = Path(place, "new"), Path(place, "old")
        (new / "runtime").mkdir(parents=True)
        for file in runtime:
            shutil.copyfile(file, new / "runtime" / file.name)
        shutil.copyfile(model, new / "model.onnx")
        for name in OURS:
            content = (resources.files("soundsight.serve") / "static" / name).read_bytes()
            (new / name.removeprefix("alone/")).write_bytes(content)
        (new / "model.json").write_text(json.dumps(known), encoding="utf-8")
        files = sorted(path.relative_to(new).as_posix() for path in new.rglob("*") if path.is_file())
        (new / LIST).write_text(json.dumps({"hash": file_hash(new)[:12], "files": files}), encoding="utf-8")
        if out.exists():
            os.replace(out, old)
        os.replace(new, out)
    return out
