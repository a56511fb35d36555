"""The options of every command, each declared once: for Python, `--some-key`, `some_key=`, YAML, help and docs."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Strict
from pydantic.dataclasses import dataclass

from soundsight.config import RULES, Folds, Numbers, Real, Text, Whole, _checked, _listed, check_speeds, option
from soundsight.errors import ConfigError

T = TypeVar("T")
Flag = Annotated[bool, Strict()]
Texts = Annotated[tuple[Text, ...], _listed]


def _thresholds(given: Any) -> Any:
    """Least probabilities by class; "" is for all others. A list holds numbers and texts `CLASS=NUMBER`."""
    if not isinstance(given, list | tuple):
        return given if given is None or isinstance(given, Mapping) else _thresholds([given])
    found = {}
    for word in given:
        name, _, value = str(word).rpartition("=")
        try:
            found[name] = float(value)
        except ValueError:
            raise ConfigError(f"threshold={word} is not understood; write a number, or CLASS=NUMBER.") from None
    return found


Thresholds = Annotated[dict[str, Real] | None, BeforeValidator(_thresholds)]
BEGIN_TIME = (
    "when recordings began: auto, by their header (GUANO, AudioMoth) or name (20240501_203000), or a pattern of their "
    "names such as %Y-%m-%d_%H%M"
)
TIMEZONE = "of times without one, and of the output, such as Europe/Berlin (default: as the recordings say)"
OVERWRITE = "replace files that this command has not made"


TRAINING_THREADS = "processor threads of a training on a CPU (default: as other processes leave)"


@typing.dataclass_transform(kw_only_default=True, frozen_default=True)
def command(cls: type[T]) -> type[T]:
    """A frozen class of options, validated wherever it is made."""
    made: type[T] = dataclass(frozen=True, kw_only=True, config=RULES)(cls)  # type: ignore[assignment]
    return _checked(made)


@command
class ModelOptions:
    """Which model, and how it is loaded."""

    model: Text = option(..., "a checkpoint .pt, or an exported .onnx or OpenVINO folder", positional=True)
    device: Text | None = option(None, "cpu, 0, 1, ...; default: the first GPU, or else the CPU")
    spectrogram: Text | None = option(None, "preprocessing settings, instead of the model's own", metavar="FILE")
    trust_checkpoint: Flag = option(False, "unpickle whatever the file holds; it may run code")


@command
class TTAOptions:
    """Test-time augmentation."""

    tta_shifts: Whole = option(1, "average over this many time shifts: slower, surer", 1, 1024, former=("shifts",))
    tta_speeds: Numbers = option(
        (), "average over these speeds of the sound as well, such as 0.9,1.1", metavar="S,S", former=("speeds",)
    )

    def __post_init__(self) -> None:
        check_speeds(self.tta_speeds, "tta_speeds")


@command
class RuntimeOptions:
    """What computes."""

    threads: Whole | None = option(None, "processor threads (default: all)", 1, 1024)
    runtime: Literal["auto", "pytorch", "onnxruntime"] = option(
        "auto", "what computes a checkpoint's predictions; auto: ONNX Runtime on a processor if it agrees"
    )


@command
class ConfigsOptions:
    out: Text = option("configs", "where commands look for them", metavar="FOLDER")
    overwrite: Flag = option(False, "replace files that are there and differ")


@command
class CompletionOptions:
    shell: Literal["bash", "zsh"] = option(..., "which shell", positional=True)


@command
class InfoOptions:
    json: Flag = option(False, "as JSON")


@command
class DownloadOptions:
    name: Text = option(..., "which data set", positional=True, metavar="NAME")
    root: Text | None = option(None, "where to (default: the place that configs/ names)", metavar="FOLDER")
    archive: Text | None = option(None, "an archive that is here already", metavar="FILE")
    mirror: Text | None = option(None, "another address of the archive, or of its folder", metavar="URL")
    checksums: Flag = option(True, "for altered copies: check counts and headers only")


@command
class ReportOptions:
    run: Text = option(..., "a folder that `soundsight val` or `soundsight crossval` wrote", positional=True)
    out: Text | None = option(None, "the page (default: report.html in the run's folder)", metavar="FILE")
    overwrite: Flag = option(False, OVERWRITE)
    folder: Text | None = option(None, "also write each figure as PNG and each table as CSV", metavar="DIR")
    pdf: Flag = option(False, "with --folder: figures also as PDF")
    svg: Flag = option(False, "with --folder: figures also as SVG")
    root: Text | None = option(None, "where the recordings are, if they have moved", metavar="DIR")
    saliency: Flag = option(True, "leave saliency maps out: no model is loaded", former=("heat",))
    device: Text | None = option(None, "cpu, 0, 1, ...; default: the first GPU, or else the CPU")
    trust_checkpoint: Flag = option(False, "unpickle whatever a model file holds; it may run code")


@command
class PageOptions:
    host: Text = option("127.0.0.1", "address to serve at (default: 127.0.0.1, this machine only)")
    port: Whole = option(8000, "0 takes any free one", 0, 65535)


@command
class ServeOptions(PageOptions, ModelOptions):
    max_seconds: Real = option(600.0, "longest recording", 0.1, metavar="S")
    max_megabytes: Real = option(50.0, "largest upload", 0.001, metavar="MB")
    queue: Whole = option(16, "recordings that may wait", 0, 10**6)
    threads: Whole | None = option(None, "processor threads (default: all)", 1, 1024)
    log: Flag = option(False, "print each request")


@command
class ExplainOptions(ModelOptions):
    clip: Text = option(..., "a recording; of a long one the segment where the class is most probable", positional=True)
    class_: Text | None = option(None, "default: the most probable class", metavar="NAME")
    start: Real | None = option(None, "second at which the segment begins", 0, 1e9, metavar="S")
    out: Text | None = option(None, ".png, .pdf or .svg; default: <clip>-reasons.png", metavar="FILE")
    overwrite: Flag = option(False, OVERWRITE)


@command
class ExportOptions:
    model: Text = option(..., "a checkpoint .pt", positional=True)
    format: Text = option(
        "onnx",
        "onnx (default), openvino: for `predict` too; page: a folder that classifies sounds in a browser alone; "
        "torchscript, engine, coreml, litert, ...: for other programs",
    )
    input: Literal["image", "waveform"] = option(
        "image", "waveform: from samples to probabilities, for programs without Soundsight (onnx, openvino)"
    )
    runtime: Text | None = option(
        None, "format page: the unpacked npm package onnxruntime-web, which is copied into the page", metavar="FOLDER"
    )
    out: Text | None = option(None, "where to put it (default: beside the checkpoint)", metavar="FILE")
    spectrogram: Text | None = option(None, "preprocessing settings, instead of the model's own", metavar="FILE")
    trust_checkpoint: Flag = option(False, "unpickle whatever the file holds; it may run code")
    overwrite: Flag = option(False, OVERWRITE)

    def __post_init__(self) -> None:
        if self.runtime and self.format != "page":
            raise ConfigError(f"runtime={self.runtime} has no effect on format={self.format}; leave it out.")


@command
class DemoOptions:
    out: Text = option("runs/demo", "folder to write to", metavar="FOLDER")
    overwrite: Flag = option(False, OVERWRITE)
    clips: Whole = option(120, "clips per class", 1, 100_000)
    image_size: Whole = option(128, "pixels of an image", 32, 1024)


@command
class DataOptions:
    """The files that describe a data set and its images."""

    folder: Text | None = option(None, "a folder of own sounds", positional=True, metavar="FOLDER")
    dataset: Text = option("esc50", "default: configs/esc50.yaml", metavar="FILE")
    spectrogram: Text = option("spectrogram", "default: configs/spectrogram.yaml", metavar="FILE")
    workers: Whole | None = option(None, "processes (default: one per core)", 1, 1024)


@command
class ClusterFile:
    """Where a command runs."""

    cluster: Texts = option(
        (), "settings of the cluster (default: configs/cluster.yaml)", metavar="FILE", repeated=True
    )


@command
class InspectOptions(DataOptions):
    page: Text | None = option(None, "also write one self-contained HTML page", metavar="FILE")
    overwrite: Flag = option(False, OVERWRITE)
    crossval: Text | None = option(None, "folder of a cross-validation, for suspicious labels", metavar="RUN")


@command
class PrepareOptions(DataOptions, ClusterFile):
    gallery: Text | None = option(None, "also plot a contact sheet with one clip per class", metavar="FILE")
    replace: Flag = option(False, "replace what data/ holds of another data set")
    overwrite: Flag = option(False, OVERWRITE)


@command
class TrainingFiles:
    """The files that describe a training."""

    cfg: Text | None = option(None, "default: configs/train.yaml", metavar="FILE", former=("config",))
    augment: Text = option("augment.yaml", "default: configs/augment.yaml; or none", metavar="FILE")


@command
class TrainOptions(TrainingFiles):
    threads: Whole | None = option(None, TRAINING_THREADS, 1, 1024)
    stock: Flag = option(False, "train exactly as the `yolo` command would")
    calibrate: Flag = option(True, "do not fit a temperature on data/val")
    precision: Real | None = option(
        None, "threshold per class: where P of what is reported on data/val is right (--precision 0.9)", 0.01, 1,
        metavar="P",
    )  # fmt: skip


@command
class TuneOptions(TrainingFiles, ClusterFile):
    trials: Whole = option(16, "points to try", 1, 100_000)
    grace: Whole = option(3, "epochs before a trial may be stopped", 1, 100_000)
    seed: Whole = option(0, "of the points", 0, 2**31)
    name: Text = option("tune", "folder below runs/tune; the same name continues a killed run")


@command
class CrossvalOptions(DataOptions, TrainingFiles, TTAOptions, ClusterFile):
    protocol: Literal["last", "train-val-test"] = option(
        "last", "score the last epoch (default), or the best one by a validation fold"
    )
    folds: Folds = option((), "test only these, such as 1,2", metavar="N,N")
    groups: Whole | None = option(None, "number of folds for data without (default: 5)", 2, 1000)
    seeds: Folds = option((0,), "one model per seed, averaged", metavar="N,N")
    with_: Texts = option(
        (), "finished run on the same data whose models join the average; may be repeated", metavar="RUN", repeated=True
    )
    name: Text | None = option(None, "folder below runs/crossval; the same name continues a killed run")


@command
class ValOptions(ModelOptions, TTAOptions):
    split: Literal["train", "val", "test"] = option("val", "which images")
    data: Text = option("data", "prepared folder", metavar="FOLDER")
    out: Text | None = option(None, "default: a new folder runs/classify/val-<split>", metavar="FOLDER")
    overwrite: Flag = option(False, OVERWRITE)
    batch: Whole = option(64, "images per batch", 1, 4096)
    allow_seen: Flag = option(False, "also score clips that the model was trained on")
    thresholds: Flag = option(False, "first fit a threshold per class on data/val and store it in the model: best F1")
    precision: Real | None = option(
        None, "the same, but where P of what is reported is right (--precision 0.9)", 0.01, 1, metavar="P"
    )


@command
class SegmentOptions:
    """How recordings are cut into segments."""

    segment_seconds: Real | None = option(
        None, "seconds of a segment (default: the model's clip)", 0.01, 60, metavar="S", short="segment",
        former=("window", "window_seconds"),
    )  # fmt: skip
    hop_seconds: Real | None = option(
        None, "seconds from one segment to the next (default: the segment)", 0.01, 86400, metavar="S", short="hop"
    )
    batch: Whole | None = option(None, "segments at once (default: 8, on a GPU 32)", 1, 4096)


@command
class InferenceOptions(TTAOptions, SegmentOptions):
    """How to predict; the defaults give one prediction per clip length, as in training."""

    top_k: Whole | None = option(None, "classes per segment (default: 1; of a table 5)", 1, 100_000, metavar="K")
    threshold: Thresholds = option(
        None,
        "a class below P is 'unknown', or not reported; CLASS=P for one class; may be repeated (default: the model's)",
        metavar="P", repeated=True,
    )  # fmt: skip
    off_threshold: Real | None = option(
        None, "events: a class that was reported goes on while its probability is at least P", 0, 1, metavar="P"
    )
    min_event_seconds: Real = option(0.0, "events: leave out shorter ones", 0, 86400, metavar="S", short="min_event")
    min_gap_seconds: Real = option(
        0.0, "events: join those of one class that are less apart", 0, 86400, metavar="S", short="min_gap"
    )
    steady: Flag = option(False, "fill every batch, so that no digit depends on what is listed beside it", hidden=True)

    @property
    def events(self) -> bool:
        """Whether segments become events, see `inference.events`."""
        return (self.off_threshold, self.min_event_seconds, self.min_gap_seconds) != (None, 0, 0)


@command
class MemberOptions:
    """Further models."""

    with_: Texts = option(
        (), "further models, of the same classes and preprocessing, to be averaged; put it last",
        metavar="MODEL", several=True,
    )  # fmt: skip


@command
class SourceOptions(RuntimeOptions, SegmentOptions, ModelOptions):
    """A model, recordings, and how to cut them."""

    sources: Texts = option(
        (), "files, folders, globs, @FILE for a list of recordings, or - for standard input",
        positional=True, metavar="SOURCE",
    )  # fmt: skip
    lists: Texts = option((), former=("--sources",), now="@FILE", repeated=True, unlisted=True)
    raw: Whole | None = option(None, "standard input is 16-bit mono of this rate in Hz", metavar="RATE")


@command
class PredictOptions(ClusterFile, MemberOptions, InferenceOptions, SourceOptions):
    format: Text | None = option(None, "default: by the ending of --out, or else table")
    out: Text | None = option(None, "write here instead of standard output; whole or not at all", metavar="FILE")
    merge: Flag = option(False, "join neighbouring segments of one label")
    summary: Flag = option(False, "one prediction per recording: the mean of its segments")
    timeline: Text | None = option(
        None, "plot spectrogram and class tracks; with several recordings a folder", metavar="PNG"
    )
    begin_time: Text | None = option(None, f"add the clock time of each row; {BEGIN_TIME}", metavar="PATTERN")
    timezone: Text | None = option(None, TIMEZONE, metavar="ZONE")
    overwrite: Flag = option(False, OVERWRITE)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.timezone and not self.begin_time:
            raise ConfigError("--timezone has no effect without --begin-time auto, or a pattern; add it.")
        if self.events and (self.merge or self.summary):
            raise ConfigError(
                f"--{'merge' if self.merge else 'summary'} has no effect on events, which --off-threshold, --min-event "
                "and --min-gap make; leave it out."
            )


@command
class ScoreOptions:
    predictions: Text = option(..., "a file of `predict`, or a folder of its label tracks or tables", positional=True)
    annotations: Text = option(..., "a label table (Raven, Audacity, CSV, ...), or a folder of them", positional=True)
    threshold: Thresholds = option(
        None, "count rows with a probability of at least P as reported; CLASS=P for one class; may be repeated",
        metavar="P", repeated=True,
    )  # fmt: skip
    segment_seconds: Real = option(1.0, "seconds of a compared segment", 0.01, 3600, metavar="S", short="segment")
    collar_seconds: Real = option(0.2, "how far onset and offset may be off", 0, 3600, metavar="S", short="collar")
    collar_fraction: Real = option(0.2, "the offset may also be off by this part of the event", 0, 1, metavar="F")
    out: Text | None = option(None, "also write all figures, as .csv or .json", metavar="FILE")
    overwrite: Flag = option(False, OVERWRITE)


@command
class EmbedOptions(ClusterFile, SourceOptions):
    out: Text = option(..., "the Parquet file to write; whole or not at all", metavar="FILE")
    overwrite: Flag = option(False, OVERWRITE)


@command
class ListenOptions(MemberOptions, TTAOptions, RuntimeOptions, ModelOptions):
    model: Text | None = option(None, "a checkpoint .pt or an exported model", positional=True)  # type: ignore[assignment]
    threshold: Thresholds = InferenceOptions.__pydantic_fields__["threshold"]  # type: ignore[attr-defined]
    list_devices: Flag = option(False, "list the sound inputs of this machine")
    input: Whole | None = option(None, "number of the sound input", 0)
    device_name: Text | None = option(None, "sound input whose name contains NAME", metavar="NAME")
    raw: Whole | None = option(None, "the sound is on standard input: 16-bit mono of this rate in Hz", metavar="RATE")
    every: Real = option(1.0, "seconds between predictions", 0.01, 86400, metavar="S")
    format: Literal["table", "jsonl"] = option("table", "of the output")
    on: Texts = option((), "tell when this class begins and ends, as JSON lines", metavar="CLASS", repeated=True)
    off_threshold: Real | None = option(
        None, "a class that began goes on while its probability is at least P (default: while it is reported)", 0, 1,
        metavar="P",
    )  # fmt: skip
    cooldown_seconds: Real = option(0.0, "least time between two beginnings", 0, 10**6, metavar="S", short="cooldown")
    exec_: Text | None = option(None, "run this at each beginning; the message is its standard input", metavar="CMD")
    webhook: Text | None = option(None, "post each beginning to this address, as JSON", metavar="URL")
    mqtt: Text | None = option(None, "tell this broker, and Home Assistant: HOST, HOST:PORT, mqtts://HOST")
    mqtt_user: Text | None = option(None, "its password is taken from SOUNDSIGHT_MQTT_PASSWORD", metavar="NAME")
    node: Text | None = option(None, "name of this listener for MQTT (default: of the machine)", metavar="NAME")
    save: Text | None = option(None, "save the sound around each beginning, as FLAC", metavar="FOLDER")
    save_seconds: Real = option(5.0, "with --save: so much before and after", 0, 600, metavar="S")

    def __post_init__(self) -> None:
        super().__post_init__()
        told = [
            name for name in ("exec_", "webhook", "mqtt", "save", "off_threshold") if getattr(self, name) is not None
        ]
        if told and not self.on:
            raise ConfigError(f"--{told[0].strip('_').replace('_', '-')} needs --on CLASS: what it is told about.")
        if (self.mqtt_user or self.node) and not self.mqtt:
            raise ConfigError("--mqtt-user and --node have no effect without --mqtt HOST; leave them out.")
        if self.raw is not None and (self.input is not None or self.device_name):
            raise ConfigError("--raw is standard input, so --input and --device-name have no effect; leave them out.")
