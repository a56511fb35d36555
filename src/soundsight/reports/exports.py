"""What stands beside an export from samples: how to use it without Soundsight, and its values for other programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from soundsight.backend.checkpoint import Preprocessing
from soundsight.files import write_text
from soundsight.inference.options import thresholds
from soundsight.reports.templating import render_template


def facts(model: Preprocessing) -> dict[str, Any]:
    """What a program has to know of a model from samples: classes, thresholds, rate, samples of a clip; plain data."""
    config = model.spectrogram
    return {
        "names": list(model.names),
        "least": [round(float(value), 6) for value in thresholds(None, model)],
        "multi": model.multi,
        "rate": config.sample_rate,
        "clip": config.clip_samples,
        "size": config.image_size,
    }


def write_readme(path: Path, model: Preprocessing) -> Path:
    """Write `<stem>.README.md` beside an ONNX file: shapes, metadata, examples in Python, JavaScript and C++."""
    import onnx

    opset = onnx.load(str(path)).opset_import[0].version
    target = path.with_name(f"{path.stem}.README.md")
    padding = {"silence": "with zeros", "repeat": "by repeating them"}[model.spectrogram.padding]
    seconds = f"{model.spectrogram.clip_seconds:g}"
    listed = json.dumps(list(model.names), ensure_ascii=False)[1:-1]  # the same in all three languages
    more = {"padding": padding, "seconds": seconds, "opset": opset, "listed": listed}
    return write_text(target, render_template("waveform.md", file=path.name, **more, **facts(model)))
