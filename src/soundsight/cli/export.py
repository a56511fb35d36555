"""`soundsight export`."""

from __future__ import annotations

import argparse
import shlex

from soundsight.cli import console, key_values, outputs

SUMMARY = "Convert a checkpoint to ONNX, OpenVINO, TorchScript and others, with its preprocessing inside."
EXAMPLES = [
    "soundsight export last.pt                          # last.onnx, beside the checkpoint",
    "soundsight export last.pt --format openvino",
    "soundsight export last.pt opset=17 quantize=16 --out phone.onnx",
    "soundsight export last.pt quantize=8 data=data     # integers, ranges from data/val; says what that costs",
    "soundsight predict last.onnx clip.wav              # the same command as for the checkpoint",
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare arguments."""
    parser.add_argument("model", help="a checkpoint .pt")
    parser.add_argument(
        "--format",
        default="onnx",
        help="onnx (default), openvino: for `predict` too; torchscript, engine, coreml, litert, ...: for "
        "other programs",
    )
    parser.add_argument("--out", metavar="FILE", help="where to put it (default: beside the checkpoint)")
    parser.add_argument("--spectrogram", metavar="FILE", help="spectrogram settings to use instead of the model's own")
    parser.add_argument(
        "--trust-checkpoint", action="store_true", help="unpickle whatever the file holds; it may run code"
    )
    outputs.add_overwrite(parser)
    console.add_settings(parser, "opset=17, quantize=16, dynamic=false")


def run(arguments: argparse.Namespace) -> int:
    """Export."""
    words = key_values(arguments.settings)
    from soundsight import config as settings
    from soundsight.backend.export import READABLE, export
    from soundsight.config.files import find_config

    supplied = arguments.spectrogram
    spectrogram = settings.load(settings.SpectrogramConfig, find_config(supplied)) if supplied else None
    made = export(
        arguments.model,
        arguments.format,
        out=arguments.out,
        spectrogram=spectrogram,
        trust=arguments.trust_checkpoint,
        arguments=words,
        overwrite=arguments.overwrite,
    )
    console.output(f"Exported: {made}")
    if "data" in words and arguments.format in READABLE:
        from soundsight.evaluation.scoring import compare

        count, before, after, alike = compare(
            arguments.model, made, str(words["data"]), spectrogram=spectrogram, trust=arguments.trust_checkpoint
        )
        console.output(
            f"Top-1 on the {count} clips of {words['data']}/val: {after:.2%}, where the checkpoint has {before:.2%}; "
            f"both name the same class for {alike:.2%} of them."
        )
    if arguments.format in READABLE:
        console.output(f"Use it with `soundsight predict {shlex.quote(str(made))} clip.wav`.")
    else:
        console.output("Its settings are in soundsight.json beside it; `soundsight predict` does not read this format.")
    return 0
