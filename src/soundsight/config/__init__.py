"""Settings: frozen pydantic dataclasses, validated wherever they are made, also by `dataclasses.replace`.

Each class is one YAML file in `configs/`. `load` merges a file with `key=value` words. An error is one message that
names the key, the bad value and what is allowed. Nothing here touches audio or images.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field, Strict, ValidationError
from pydantic.dataclasses import dataclass, rebuild_dataclass

from soundsight.config.files import LARGEST, read_yaml, shown
from soundsight.errors import ConfigError, Renamed

BACKGROUND = "background"  # the folder, and the label, of clips without any class; never a sound
T = TypeVar("T")
RULES = ConfigDict(allow_inf_nan=False, extra="forbid", defer_build=True)  # built when the first object is
Whole = Annotated[int, Strict()]
Real = Annotated[float, Strict()]
Text = Annotated[str, Strict()]
_listed = BeforeValidator(lambda found: tuple(found) if isinstance(found, list | tuple) else (found,))
Three = Annotated[tuple[Real, Real, Real], _listed]
Numbers = Annotated[tuple[Real, ...], _listed]
Folds = Annotated[tuple[Whole, ...], _listed]


def option(
    default: Any, text: str = "", low: float | None = None, high: float | None = None, since: str = "", **shown: Any
) -> Any:
    """A field of a settings class: the one declaration of an option for Python, YAML, the command line and the docs.

    Args:
        default: `...` where there is none.
        text: The help text.
        low: The smallest value that is allowed.
        high: The largest.
        since: The version that brought it, if later than 0.1. At its default such an option is left out of `to_dict`,
            and so of the hash: it makes no data, cache, checkpoint or run stale that was made before it.
        shown: How the command line takes it, see `cli.options`: `metavar`; `short`, another name; `former`, deprecated
            names; `positional`; `several`, more than one value behind one flag; `hidden`, from the help or altogether.
    """
    more = {**shown, **({"since": since} if since else {})}
    return Field(default, description=text, ge=low, le=high, json_schema_extra=more or None)


def under_present_names(cls: type, data: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Settings whose keys may be former ones; `where`, if any, begins a warning about each of these."""
    found = dict(data)
    for name, field in getattr(cls, "__pydantic_fields__", {}).items():
        for former in (field.json_schema_extra or {}).get("former", ()):
            if former in found:
                if where:
                    warnings.warn(f"The {where} {former} is now {name}.", Renamed, stacklevel=3)
                found[name] = found.pop(former)
    return found


def _checked(cls: type[T]) -> type[T]:
    """Raise `ConfigError` instead of pydantic's error where an object of `cls` is made."""
    init = cls.__init__

    @wraps(init)
    def __init__(self: T, *values: Any, **named: Any) -> None:
        try:
            _build(cls)
            init(self, *values, **under_present_names(cls, named, "argument"))
        except ValidationError as error:
            raise _refusal(cls, error, "settings") from None

    cls.__init__ = cls._checked_init = __init__  # type: ignore
    return cls


def _build(cls: Any) -> None:
    """Make what validates a class, which help has no use for; pydantic then sets another `__init__`."""
    if not cls.__pydantic_complete__:
        rebuild_dataclass(cls)
        cls.__init__ = cls._checked_init


@_checked
@dataclass(frozen=True, config=RULES)
class SpectrogramConfig:
    """Preprocessing: how a clip becomes an image.

    The time step is `hop_length` samples, chosen so that `image_size` frames span the clip. All windows
    share one FFT length, so that no mel band is narrower than an FFT bin.
    """

    sample_rate: Whole = option(16000, "Hz; every recording is resampled to it", 1000, 384000)
    clip_seconds: Real = option(5.0, "length of one image", 0.1, 60)
    image_size: Whole = option(224, "pixels, square: time left to right, low frequencies at the bottom", 32, 1024)
    windows_ms: Three = option((25.0, 50.0, 100.0), "Hann windows of the R, G, B channels")
    n_fft: Whole = option(2048, "FFT length in samples of all windows; shorter ones are zero-padded", 64, 65536)
    fmin_hz: Real = option(20.0, "lower edge of the lowest mel band", 0, 192_000)
    fmax_hz: Real | None = option(None, "upper edge of the highest band; null is half the sample rate", 1, 192_000)
    db_floor: Real = option(-80.0, "level of pixel value 0, in dB re `reference`", -200, 100)
    db_ceiling: Real = option(0.0, "level of pixel value 255, in dB re `reference`", -200, 100)
    reference: Literal["clip", "full_scale"] = option("clip", "0 dB: loudest point of the clip, or a fixed level")
    padding: Literal["silence", "repeat"] = option("silence", "how a clip shorter than clip_seconds is filled")

    def __post_init__(self) -> None:
        nyquist = self.sample_rate / 2
        if not (0 <= self.fmin_hz <= self.fmax - 1 and self.fmax <= nyquist):
            raise ConfigError(
                f"fmin_hz={self.fmin_hz:g} and fmax_hz={self.fmax:g} do not fit: they must satisfy "
                f"0 <= fmin_hz < fmax_hz <= {nyquist:g}, half of sample_rate, and lie 1 Hz apart or more."
            )
        if not self.db_floor <= self.db_ceiling - 1:
            raise ConfigError(
                f"db_floor={self.db_floor:g} must lie below db_ceiling={self.db_ceiling:g}, by 1 dB or more."
            )
        for window_ms, samples in zip(self.windows_ms, self.window_samples, strict=True):
            if not 2 <= samples <= self.n_fft:
                raise ConfigError(
                    f"windows_ms={list(self.windows_ms)}: {window_ms:g} ms is {samples} samples at "
                    f"{self.sample_rate} Hz, but a window must have 2 to n_fft={self.n_fft}; "
                    "shorten the window or raise n_fft."
                )
        if self.hop_length < 1:
            raise ConfigError(
                f"clip_seconds={self.clip_seconds:g} is too short for image_size={self.image_size} "
                f"at {self.sample_rate} Hz: fewer samples than pixels."
            )

    @property
    def fmax(self) -> float:
        """Upper edge of the highest mel band, in Hz."""
        return self.sample_rate / 2 if self.fmax_hz is None else self.fmax_hz

    @property
    def clip_samples(self) -> int:
        """Samples in one clip."""
        return round(self.clip_seconds * self.sample_rate)

    @property
    def window_samples(self) -> tuple[int, ...]:
        """Samples in each analysis window."""
        return tuple(round(window_ms * self.sample_rate / 1000) for window_ms in self.windows_ms)

    @property
    def renderer(self) -> int:
        """Which renderer these settings need: 2 where number 1, of Soundsight 0.1.0, read the wrong samples."""
        return 2 if max(self.window_samples) == self.n_fft > self.hop_length else 1

    @property
    def hop_length(self) -> int:
        """Samples from one column of the image to the next."""
        return self.clip_samples // self.image_size


@_checked
@dataclass(frozen=True, config=RULES)
class SplitConfig:
    """Which clips train, validate and test. Always decided before long recordings are cut."""

    strategy: Literal["fold", "group", "random", "given"] = option(
        "fold", "by folds, by groups, at random, or as the folder gives them"
    )
    train: Folds = option((1, 2, 3), "strategy `fold`: folds of each split")
    val: Folds = option((4,))
    test: Folds = option((5,))
    fractions: Three = option((0.6, 0.2, 0.2), "other strategies: train, val, test")
    seed: Whole = option(0, "of the random choices", -LARGEST, LARGEST)

    def __post_init__(self) -> None:
        seen: dict[int, str] = {}
        for split in ("train", "val", "test"):
            for fold in getattr(self, split):
                if fold in seen:
                    raise ConfigError(
                        f"fold {fold} is in both split.{seen[fold]} and split.{split}; "
                        "a fold belongs to one split only."
                    )
                seen[fold] = split
        if any(f < 0 for f in self.fractions) or abs(sum(self.fractions) - 1) > 1e-6:
            raise ConfigError(
                f"split.fractions={list(self.fractions)} must be three numbers from 0 to 1 that add up to 1."
            )


@_checked
@dataclass(frozen=True, config=RULES)
class DatasetConfig:
    """Where the recordings are and how they are labelled."""

    kind: Literal["esc50", "esc10", "urbansound8k", "folder", "table"] = option("esc50", "layout of the data set")
    root: Text = option("dataset/ESC-50", "the data set as its publisher lays it out; only ever read")
    cache: Text = option("dataset/ESC-50/spectrogram", "images of all clips, one folder per class")
    data: Text = option("data", "what training reads: {train,val,test}/<class>/*.png")
    table: Text = option("", "kind `table`: CSV or TSV with one row per clip, relative to root")
    file_column: Text = option("file", "column of file names")
    label_column: Text = option("label", "column of labels")
    fold_column: Text = option("", "optional columns; empty means there is none")
    group_column: Text = option("")
    start_column: Text = option("")
    end_column: Text = option("")
    group_pattern: Text = option(
        "", "kind `folder`: regular expression; its first group is the group of a clip", former=("source_pattern",)
    )
    speed_perturbation: Numbers = option(
        (), "training clips are rendered at these speeds, too; 1.25 is a quarter faster and higher", former=("speeds",)
    )
    labels: Literal["auto", "single", "multi"] = option(
        "auto", "one class per clip or several; auto: several where some clip has them", since="0.2"
    )
    cut: Literal["segments", "rows"] = option(
        "segments", "tables with times: segments labelled by overlap, or one clip per row", since="0.2"
    )
    hop_seconds: Real | None = option(
        None, "from the start of one segment to the next; null: clip_seconds", 0.01, 60, since="0.2"
    )
    min_overlap_seconds: Real = option(
        0.25, "a segment has a class whose label overlaps it by this much ...", 0, 60, since="0.2"
    )
    min_overlap_fraction: Real = option(
        0.5, "... or by this fraction of the label or of the segment, whichever is shorter", 0, 1, since="0.2"
    )
    annotated: Literal["labelled", "complete"] = option(
        "labelled",
        "complete: every sound of the classes is labelled, so a segment without label is background",
        since="0.2",
    )
    split: SplitConfig = SplitConfig()

    def __post_init__(self) -> None:
        check_speeds(self.speed_perturbation, "speed_perturbation")


def check_speeds(speeds: Sequence[float], name: str = "speeds") -> None:
    """Raise `ConfigError` for speeds beside the normal one that make no sense."""
    for speed in speeds:
        if not 0.25 <= speed <= 4 or speed == 1 or speeds.count(speed) > 1:
            raise ConfigError(
                f"{name}={list(speeds)} is not allowed: each must be from 0.25 to 4, other than 1, named once."
            )


@_checked
@dataclass(frozen=True, config=RULES)
class AugmentConfig:
    """Spectrogram augmentation, chosen anew for every image of every batch. Zero switches a part off."""

    shift: Real = option(1.0, "circular time shift, up to this fraction of the clip", 0, 1)
    time_masks: Whole = option(2, "number of masked stretches of time ...", 0, 16)
    time_mask_width: Real = option(0.1, "... each up to this fraction of the clip", 0, 1)
    freq_masks: Whole = option(2, "number of masked frequency bands ...", 0, 16)
    freq_mask_width: Real = option(0.1, "... each up to this fraction of the bands", 0, 1)
    gain_db: Real = option(6.0, "louder or softer, up to this many dB", 0, 40)
    filter_db: Real = option(0.0, "some bands louder and others softer, up to this many dB", 0, 40)
    stretch: Real = option(0.0, "time stretch and frequency warp, up to this fraction", 0, 0.5)
    freq_shift: Real = option(0.0, "shift along the frequency axis, up to this fraction of the bands", 0, 0.5)
    mixup: Real = option(0.5, "probability that an image is mixed with another of the batch", 0, 1)
    mixup_domain: Literal["power", "image"] = option("power", "add powers, as sounds do, or blend pixels")
    cutmix: Real = option(0.0, "probability that a stretch of time comes from another image of the batch", 0, 1)
    erasing: Real = option(0.0, "probability that a rectangle is replaced by noise", 0, 1)
    label_smoothing: Real = option(0.1, "share of the target spread over all classes", 0, 0.5)
    balance: Literal["none", "sampler", "weights"] = option("none", "rare classes: seen more often, or counted more")
    noise: Text = option("", "folder of background recordings to mix in, none of them from val or test", since="0.2")
    noise_share: Real = option(0.0, "probability that an image gets some of them", 0, 1, since="0.2")

    def __post_init__(self) -> None:
        if bool(self.noise) != bool(self.noise_share):
            raise ConfigError(
                f"noise={self.noise!r} and noise_share={self.noise_share:g} have no effect without each other: name a "
                "folder of background recordings and the share of images that get some, such as noise_share=0.5."
            )
        if self.mixup + self.cutmix > 1:
            raise ConfigError(
                f"mixup={self.mixup:g} and cutmix={self.cutmix:g} add up to more than 1; "
                "each is the share of images that it treats."
            )


@_checked
@dataclass(frozen=True, config=RULES)
class ClusterConfig:
    """Who works: this machine alone, or the nodes of a Ray cluster."""

    engine: Literal["local", "ray"] = option("local", "this machine alone, or a Ray cluster")
    address: Text | None = option(None, "HOST:PORT of the head; none: RAY_ADDRESS, or a Ray on this machine alone")
    cpus: Whole = option(1, "cores of one task", 1, 1024)
    gpus: Real | None = option(None, "of one task that computes; none: 1 on nodes that have GPUs", 0, 16)
    in_flight: Whole | None = option(None, "without effect since 0.2: Ray gives out the tasks", 1, 64)
    shard: Whole | None = option(None, "recordings in one file of predictions; none: a 64th, at most 500", 1, 10**6)
    retries: Whole = option(3, "lost workers of a task before its recordings are tried one by one", 0, 100)
    job_seconds: Real = option(3600.0, "a task that takes longer hangs, and is cancelled", 1, 864_000)
    wait_seconds: Real = option(300.0, "how long to wait for a free core, or for nodes that went away", 0, 86400)


def load(cls: type[T], path: str | Path | None = None, overrides: Mapping[str, Any] | None = None) -> T:
    """Read settings of type `cls` from a YAML file and `key=value` overrides.

    Args:
        cls: One of the classes of this module.
        path: YAML file; `None` starts from the defaults.
        overrides: Values that win over the file; dotted keys reach into nested settings (`split.val`).

    Raises:
        ConfigError: The file is missing or no mapping, or a key or value is not allowed.
    """
    data: dict[str, Any] = {}
    if path is not None:
        data = read_yaml(path)
    data = under_present_names(cls, data, f"key in {path}:")
    for key, value in under_present_names(cls, overrides or {}, "key").items():
        target = data
        *parents, leaf = key.split(".")
        for parent in parents:
            target = target.setdefault(parent, {})
            if not isinstance(target, dict):
                raise ConfigError(f"{key!r} does not exist: {parent!r} has no settings below it.")
        target[leaf] = value
    return from_dict(cls, data, where=str(path) if path is not None else "settings")


def from_dict(cls: type[T], data: Mapping[str, Any], *, where: str = "settings") -> T:
    """Build `cls` from plain data, checking keys and types; the inverse of `to_dict`."""
    try:
        data = under_present_names(cls, data)
        _build(cls)
        return cls.__pydantic_validator__.validate_python(data)  # type: ignore[attr-defined, no-any-return]
    except ValidationError as error:
        raise _refusal(cls, error, where) from None


def _refusal(cls: type, error: ValidationError, where: str) -> ConfigError:
    """The first of pydantic's errors as one message."""
    found = error.errors(include_url=False)
    first = next((one for one in found if one["type"] == "unexpected_keyword_argument"), found[0])
    *parents, key = [part for part in first["loc"] if isinstance(part, str)]
    for parent in parents:
        cls, where = cls.__pydantic_fields__[parent].annotation, f"{where}, section {parent!r}"  # type: ignore[attr-defined]
    value, kind, context = first["input"], first["type"], first.get("ctx", {})
    fields = cls.__pydantic_fields__  # type: ignore[attr-defined]
    if kind == "unexpected_keyword_argument":
        return ConfigError(unknown_key(key, fields, where))
    if (isinstance(value, int | float) and abs(value) > LARGEST) or kind == "finite_number":
        allowed = "a finite number up to 2^63"
    elif kind in ("greater_than_equal", "less_than_equal"):
        limits = " to ".join(f"{end:g}" for end in allowed_range(fields[key]))
        limits += "" if " to " in limits else " or more"
        return ConfigError(f"{key}={value:g} is out of range: {limits} is allowed.")
    elif kind == "literal_error":
        allowed = "one of " + context["expected"].replace("'", "").replace(" or ", ", ")
    elif kind == "missing" and first["loc"][-1] == key:
        return ConfigError(f"{key} is missing in {where}: {fields[key].description}.")
    elif kind in ("missing", "too_long"):
        value, allowed = first["input"], "3 values"
    else:
        names = {"int": "a whole number", "float": "a number", "string": "text", "bool": "true or false"}
        allowed = names.get(kind.removesuffix("_type"), "a section of `key: value` lines")
    return ConfigError(f"{key}={shown(value)} in {where} is not allowed: it must be {allowed}.")


def allowed_range(field: Any) -> list[float]:
    """The smallest and the largest value of a field of a settings class; empty where there is none."""
    return [getattr(rule, end) for end in ("ge", "le") for rule in field.metadata if hasattr(rule, end)]


def unknown_key(key: str, known: Iterable[str], where: str) -> str:
    """A message about a key that does not exist, with the nearest ones that do, or all if they are few."""
    known = sorted(known, key=lambda name: (len(name), name))
    close = [name for name in known if name.startswith(key) or name.endswith(f".{key}")] if key else []
    close += [name for name in difflib.get_close_matches(key, known, n=3) if name not in close]
    hint = f" Did you mean {' or '.join(map(repr, close[:3]))}?" if close else ""
    if len(known) <= 12 or (not close and len(known) <= 40):
        return f"Unknown key {shown(key)} in {where}.{hint} Allowed keys: {', '.join(sorted(known))}."
    return f"Unknown key {shown(key)} in {where}.{hint or f' None of the {len(known)} allowed keys is like it.'}"


def to_dict(config: Any, *, former: bool = False) -> dict[str, Any]:
    """Plain data (JSON and YAML types only) of one of the classes of this module; see `option` for what is left out.

    Args:
        config: The settings.
        former: Under the keys of version 0.1, for hashes and comparisons with what it wrote.
    """
    data = dataclasses.asdict(config)
    for name, field in type(config).__pydantic_fields__.items():
        more = field.json_schema_extra or {}
        if more.get("since") and data[name] == field.default:
            del data[name]
        elif former and more.get("former"):
            data[more["former"][0]] = data.pop(name)
    return json.loads(json.dumps(data))


def settings_hash(config: Any) -> str:
    """The hash of settings, twelve hexadecimal digits: it changes whenever a setting changes."""
    text = json.dumps(to_dict(config, former=True), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
