"""Convert a checkpoint to ONNX, OpenVINO, TorchScript and others, with its preprocessing inside.

soundsight export last.pt                          # last.onnx, beside the checkpoint
soundsight export last.pt --format openvino
soundsight export last.pt opset=17 quantize=16 --out phone.onnx
soundsight export last.pt quantize=8 data=data     # integers, ranges from data/val; says what that costs
soundsight export last.pt --input waveform         # samples in, probabilities out, with examples of its use
soundsight export last.pt --format page --out site/ --runtime package/   # a static folder: no server, nothing is sent
soundsight predict last.onnx clip.wav              # the same command as for the checkpoint
"""

from __future__ import annotations

import shlex

from soundsight.cli import console
from soundsight.cli.options import Given
from soundsight.config import SpectrogramConfig
from soundsight.config.commands import ExportOptions

OPTIONS = ExportOptions
OPEN = "opset=17, quantize=16, dynamic=false, ...: arguments of Ultralytics' export"


def run(options: ExportOptions, given: Given) -> int:
    from soundsight.backend.export import READABLE, export

    spectrogram = console.own_spectrogram(options)
    if options.format == "page":
        return _page(options, given, spectrogram)
    waveform = options.input == "waveform"
    made = console.call(export, options, arguments=given.rest, spectrogram=spectrogram, waveform=waveform)
    console.output(f"Exported: {made}")
    if options.input == "waveform":
        from soundsight.models.load import load_classifier
        from soundsight.reports.exports import write_readme

        classifier = load_classifier(made, device="cpu", spectrogram=spectrogram)  # which tries it, too
        if made.suffix == ".onnx":
            console.output(f"How other programs use it: {write_readme(made, classifier.preprocessing)}")
    if (data := given.rest.get("data")) and options.format in READABLE:
        from soundsight.evaluation.scoring import compare

        count, before, after, alike = compare(
            options.model, made, str(data), spectrogram=spectrogram, trust=options.trust_checkpoint
        )
        console.output(
            f"Right on the {count} clips of {data}/val: {after:.2%}, where the checkpoint is {before:.2%}; "
            f"both say the same for {alike:.2%}."
        )
    if options.format in READABLE:
        console.output(f"Use it with `soundsight predict {shlex.quote(str(made))} clip.wav`.")
    else:
        console.output("Its settings are in soundsight.json beside it; `soundsight predict` does not read this format.")
    return 0


def _page(options: ExportOptions, given: Given, spectrogram: SpectrogramConfig | None) -> int:
    import tempfile
    from pathlib import Path

    from soundsight.backend.export import export
    from soundsight.models.load import load_classifier
    from soundsight.serve.site import check_site, runtime_files, write_site

    runtime, out = runtime_files(options.runtime), Path(options.out or "site")
    check_site(out, overwrite=options.overwrite)
    with tempfile.TemporaryDirectory() as place:
        given_on = {"format": "onnx", "out": Path(place, "model.onnx"), "arguments": given.rest}
        model = console.call(export, options, spectrogram=spectrogram, waveform=True, **given_on)
        classifier = load_classifier(model, device="cpu", spectrogram=spectrogram)
        write_site(model, classifier.preprocessing, runtime, out, overwrite=options.overwrite)
    console.output(f"Exported: {out}")
    console.output(
        f"Try it with `python -m http.server --directory {shlex.quote(str(out))}`; any static host serves it."
    )
    return 0
