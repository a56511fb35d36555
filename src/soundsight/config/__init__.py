"""Settings: frozen dataclasses, read from YAML, validated once at the door.

Each class is one YAML file in `configs/`. `load` merges a file with `key=value` words, checks every key,
type and range, and names the key, the bad value and what is allowed. Nothing here touches audio or images.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from soundsight.config.files import LARGEST, read_yaml, shown
from soundsight.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True)
class SpectrogramConfig:
    """How a clip becomes a picture: the ears of a model.

    The time step is `hop_length` samples, chosen so that `image_size` frames span the clip. All windows
    share one FFT length, so that no mel band is narrower than an FFT bin.
    """

    sample_rate: int = 16000  # Hz; every recording is resampled to it
    clip_seconds: float = 5.0  # length of one picture
    image_size: int = 224  # pixels, square: time left to right, low frequencies at the bottom
    windows_ms: tuple[float, float, float] = (25.0, 50.0, 100.0)  # Hann windows of the R, G, B channels
    n_fft: int = 2048  # FFT length in samples, shared by all windows (shorter ones are zero-padded)
    fmin_hz: float = 20.0  # lower edge of the lowest mel band
    fmax_hz: float | None = None  # upper edge of the highest band; null is half the sample rate
    db_floor: float = -80.0  # level drawn as 0, in dB re `reference`
    db_ceiling: float = 0.0  # level drawn as 255, in dB re `reference`
    reference: Literal["clip", "full_scale"] = "clip"  # 0 dB: loudest point of the clip, or a fixed level
    padding: Literal["silence", "repeat"] = "silence"  # how a clip shorter than clip_seconds is filled

    def __post_init__(self) -> None:
        for name in ("clip_seconds", "fmin_hz", "fmax_hz", "db_floor", "db_ceiling"):  # 25 and 25.0 are one setting,
            value = getattr(self, name)  # and must have one fingerprint
            object.__setattr__(self, name, None if value is None else float(value))
        object.__setattr__(self, "windows_ms", tuple(float(value) for value in self.windows_ms))
        _in_range(self, "sample_rate", 1000, 384000)
        _in_range(self, "clip_seconds", 0.1, 60)
        _in_range(self, "image_size", 32, 1024)
        _in_range(self, "n_fft", 64, 65536)
        nyquist = self.sample_rate / 2
        if not (0 <= self.fmin_hz <= self.fmax - 1 and self.fmax <= nyquist):
            raise ConfigError(
                f"fmin_hz={self.fmin_hz:g} and fmax_hz={self.fmax:g} do not fit: they must satisfy "
                f"0 <= fmin_hz < fmax_hz <= {nyquist:g}, half of sample_rate, and lie 1 Hz apart or more."
            )
        _in_range(self, "db_floor", -200, 100)
        _in_range(self, "db_ceiling", -200, 100)
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
        """Samples from one column of the picture to the next."""
        return self.clip_samples // self.image_size


@dataclass(frozen=True)
class SplitConfig:
    """Which clips train, validate and test. Always decided before long recordings are cut."""

    strategy: Literal["fold", "group", "random", "given"] = "fold"
    train: tuple[int, ...] = (1, 2, 3)  # strategy `fold`: folds of each split
    val: tuple[int, ...] = (4,)
    test: tuple[int, ...] = (5,)
    fractions: tuple[float, float, float] = (0.6, 0.2, 0.2)  # other strategies: train, val, test
    seed: int = 0

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


@dataclass(frozen=True)
class DatasetConfig:
    """Where the recordings are and how they are labelled."""

    kind: Literal["esc50", "esc10", "urbansound8k", "folder", "table"] = "esc50"
    root: str = "dataset/ESC-50"  # the data set as its publisher lays it out; only ever read
    cache: str = "dataset/ESC-50/spectrogram"  # pictures of all clips, one folder a class
    data: str = "data"  # what training reads: {train,val,test}/<class>/*.png
    table: str = ""  # kind `table`: CSV or TSV with one row a clip, relative to root
    file_column: str = "file"
    label_column: str = "label"
    fold_column: str = ""  # optional columns; empty means there is none
    group_column: str = ""
    start_column: str = ""
    end_column: str = ""
    source_pattern: str = ""  # kind `folder`: regular expression; its first group is the source recording
    speeds: tuple[float, ...] = ()  # training clips are drawn at these, too; 1.25 is a quarter faster and higher
    split: SplitConfig = SplitConfig()

    def __post_init__(self) -> None:
        check_speeds(self.speeds)


def check_speeds(speeds: Sequence[float]) -> None:
    """Raise `ConfigError` for speeds beside the normal one that make no sense."""
    for speed in speeds:
        if not 0.25 <= speed <= 4 or speed == 1 or speeds.count(speed) > 1:
            raise ConfigError(
                f"speeds={list(speeds)} is not allowed: each must be from 0.25 to 4, other than 1, named once."
            )


@dataclass(frozen=True)
class AugmentConfig:
    """Spectrogram augmentation, drawn anew for every picture of every batch. Zero switches a part off."""

    shift: float = 1.0  # circular time shift, up to this fraction of the clip
    time_masks: int = 2  # number of masked stretches of time ...
    time_mask_width: float = 0.1  # ... each up to this fraction of the clip
    freq_masks: int = 2  # number of masked frequency bands ...
    freq_mask_width: float = 0.1  # ... each up to this fraction of the bands
    gain_db: float = 6.0  # louder or softer, up to this many dB
    filter_db: float = 0.0  # some bands louder and others softer, up to this many dB
    stretch: float = 0.0  # time stretch and frequency warp, up to this fraction
    freq_shift: float = 0.0  # shift along the frequency axis, up to this fraction of the bands
    mixup: float = 0.5  # probability that a picture is mixed with another of the batch
    mixup_domain: Literal["power", "image"] = "power"  # add powers, as sounds do, or blend pixels
    cutmix: float = 0.0  # probability that a stretch of time comes from another picture of the batch
    erasing: float = 0.0  # probability that a rectangle is replaced by noise
    label_smoothing: float = 0.1  # share of the target spread over all classes
    balance: Literal["none", "sampler", "weights"] = "none"  # rare classes: seen more often, or counted more

    def __post_init__(self) -> None:
        for name in ("shift", "time_mask_width", "freq_mask_width", "mixup", "cutmix", "erasing"):
            _in_range(self, name, 0, 1)
        for name in ("stretch", "freq_shift", "label_smoothing"):
            _in_range(self, name, 0, 0.5)
        for name in ("time_masks", "freq_masks"):
            _in_range(self, name, 0, 16)
        for name in ("gain_db", "filter_db"):
            _in_range(self, name, 0, 40)
        if self.mixup + self.cutmix > 1:
            raise ConfigError(
                f"mixup={self.mixup:g} and cutmix={self.cutmix:g} add up to more than 1; "
                "each is the share of pictures that it treats."
            )


@dataclass(frozen=True)
class ClusterConfig:
    """Who works: this machine alone, or the nodes of a Ray cluster."""

    engine: Literal["local", "ray"] = "local"
    address: str | None = None  # HOST:PORT of the head; none: RAY_ADDRESS, or else a Ray on this machine alone
    cpus: int = 1  # cores of one worker
    gpus: float | None = None  # of one worker that computes; none: 1 on nodes that have GPUs
    in_flight: int = 2  # jobs that a worker holds: one to work on, the others waiting
    shard: int | None = None  # recordings in one file of answers; none: a 64th, at most 500
    retries: int = 3  # how often a job may lose its worker before its recordings are tried one by one
    job_seconds: float = 3600.0  # a job that takes longer hangs, and costs its worker
    wait_seconds: float = 300.0  # how long to wait for a head, or for nodes, that went away

    def __post_init__(self) -> None:
        _in_range(self, "cpus", 1, 1024)
        _in_range(self, "in_flight", 1, 64)
        _in_range(self, "retries", 0, 100)
        _in_range(self, "job_seconds", 1, 864_000)
        _in_range(self, "wait_seconds", 0, 86400)
        for name, high in (("gpus", 16), ("shard", 1_000_000)):
            if getattr(self, name) is not None:
                _in_range(self, name, 0 if name == "gpus" else 1, high)


def _in_range(config: Any, name: str, low: float, high: float) -> None:
    value = getattr(config, name)
    if not low <= value <= high:
        raise ConfigError(f"{name}={value:g} is out of range: {low:g} to {high:g} is allowed.")


def load(cls: type[T], path: str | Path | None = None, overrides: Mapping[str, Any] | None = None) -> T:
    """Read settings of type `cls` from a YAML file and `key=value` overrides.

    Args:
        cls: One of the dataclasses of this module.
        path: YAML file; `None` starts from the defaults.
        overrides: Values that win over the file; dotted keys reach into nested settings (`split.val`).

    Raises:
        ConfigError: The file is missing or no mapping, or a key or value is not allowed.
    """
    data: dict[str, Any] = {}
    if path is not None:
        data = read_yaml(path)
    for key, value in (overrides or {}).items():
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
    hints = typing.get_type_hints(cls)
    known = [field.name for field in fields(cls)]  # type: ignore[arg-type]
    values = {}
    for key, value in data.items():
        if key not in known:
            raise ConfigError(unknown_key(str(key), known, where))
        values[key] = _convert(value, hints[key], f"{key}", where)
    return cls(**values)


def unknown_key(key: str, known: Iterable[str], where: str) -> str:
    """A message about a key that does not exist, with the nearest ones that do, or all if they are few."""
    known = sorted(known, key=lambda name: (len(name), name))
    close = [name for name in known if name.startswith(key) or name.endswith(f".{key}")] if key else []
    close += [name for name in difflib.get_close_matches(key, known, n=3) if name not in close]
    hint = f" Did you mean {' or '.join(map(repr, close[:3]))}?" if close else ""
    if len(known) <= 12 or (not close and len(known) <= 40):
        return f"Unknown key {shown(key)} in {where}.{hint} Allowed keys: {', '.join(sorted(known))}."
    return f"Unknown key {shown(key)} in {where}.{hint or f' None of the {len(known)} allowed keys is like it.'}"


def _convert(value: Any, hint: Any, key: str, where: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if dataclasses.is_dataclass(hint):
        if isinstance(value, Mapping):
            return from_dict(typing.cast(type, hint), value, where=f"{where}, section {key!r}")
        raise _wrong(key, value, "a section of `key: value` lines", where)
    if origin is Literal:
        if value in args and not isinstance(value, bool):
            return value
        raise _wrong(key, value, "one of " + ", ".join(map(str, args)), where)
    if origin is types.UnionType:
        if value is None:
            return None
        return _convert(value, next(a for a in args if a is not type(None)), key, where)
    if origin is tuple:
        return _convert_tuple(value, args, key, where)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not abs(value) <= LARGEST:
            raise _wrong(key, value, "a finite number", where)
        return float(value)
    if hint is int and type(value) is int and abs(value) > LARGEST:
        raise _wrong(key, value, "a number up to 2^63", where)
    if hint in (int, str, bool) and type(value) is hint:
        return value
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    raise _wrong(key, value, names.get(hint, str(hint)), where)


def _convert_tuple(value: Any, args: tuple[Any, ...], key: str, where: str) -> tuple[Any, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        value = [value]
    if args[-1] is Ellipsis:
        return tuple(_convert(item, args[0], key, where) for item in value)
    if len(value) != len(args):
        raise _wrong(key, list(value), f"{len(args)} values", where)
    return tuple(_convert(item, hint, key, where) for item, hint in zip(value, args, strict=True))


def _wrong(key: str, value: Any, allowed: str, where: str) -> ConfigError:
    return ConfigError(f"{key}={shown(value)} in {where} is not allowed: it must be {allowed}.")


def to_dict(config: Any) -> dict[str, Any]:
    """Plain data (JSON and YAML types only) of one of the dataclasses of this module."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def fingerprint(config: Any) -> str:
    """Twelve hexadecimal digits that change whenever a setting changes."""
    text = json.dumps(to_dict(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
