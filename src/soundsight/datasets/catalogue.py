"""Catalogues: which clips a data set has, with label, fold and source recording.

A catalogue is read from a data set's own tables or folders, without decoding audio. Every kind of data
set ends as the same list of `Clip`, so that splitting and rendering need not know where it came from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soundsight.config import BACKGROUND, DatasetConfig
from soundsight.errors import AudioError, DatasetError

if TYPE_CHECKING:
    from soundsight import audio


@dataclass(frozen=True)
class Clip:
    """One labelled stretch of one recording."""

    path: Path = field(hash=False)  # absolute; slow to hash, and `file` tells clips apart
    file: str  # relative to the data set's root, with forward slashes
    label: str
    name: str  # unique within its label; the image's file name without its ending
    source: str  # the original recording; clips that share it must stay in one split
    fold: int | None = None
    start_seconds: float = 0.0
    end_seconds: float | None = None  # None: to the end of one clip length
    split: str = ""  # train, val or test, where the data set says so
    speed: float = 1.0  # as a tape that runs this many times as fast
    further_labels: tuple[str, ...] = ()  # multi-label data: its other classes; none and no `label`: background

    @property
    def labels(self) -> tuple[str, ...]:
        """Its classes; of background in multi-label data none."""
        return (self.label, *self.further_labels) if self.label else ()

    @property
    def named(self) -> str:
        """Its classes, or background, for people."""
        return ", ".join(self.labels) or BACKGROUND

    def used_seconds(self, clip_seconds: float) -> float:
        """How much of its recording is used where an image shows `clip_seconds`."""
        return clip_seconds if self.end_seconds is None else min(clip_seconds, self.end_seconds - self.start_seconds)

    @contextmanager
    def opened(self) -> Iterator[audio.Recording]:
        """Its recording."""
        from soundsight import audio

        try:
            with audio.recording(self.path) as recording:
                yield recording
        except OSError as error:
            raise AudioError(f"{self.path} cannot be read ({error.strerror}).") from error

    def read(self, recording: audio.Recording, clip_seconds: float, sample_rate: int | None = None) -> audio.Waveform:
        """Its samples, at the recording's own rate where no other is asked for; see `audio.read`."""
        return recording.read(
            sample_rate=sample_rate or recording.info.sample_rate,
            start_seconds=self.start_seconds,
            duration_seconds=self.used_seconds(clip_seconds),
        )


@dataclass(frozen=True)
class Catalogue:
    """All clips of a data set, and what it says of itself."""

    name: str
    clips: Sequence[Clip]
    shared_sources: frozenset[str] = frozenset()  # sources known to cross the given folds
    failures: Sequence[tuple[str, str]] = field(default=())  # (file, reason) of rows without a usable file
    whole_recordings: bool = False  # clips are recordings of any length, to be cut after the split
    notes: Sequence[str] = ()  # how its folders or tables were understood
    multi: bool = False  # whether a clip may have several classes, or none
    annotated: bool = False  # clips are segments of recordings whose labels have times
    cutting: DatasetConfig | None = None  # clips are rows of tables with times, to be cut by its rules after the split

    @property
    def labels(self) -> list[str]:
        """All classes in the order of their indices."""
        return sorted({label for clip in self.clips for label in clip.labels})


@dataclass(frozen=True)
class Kind:
    """A layout of data sets; each registers itself, or what has the same attributes, in a file of `kinds/`."""

    read: Callable[[Path, DatasetConfig], Catalogue]  # of the root
    shared_groups: frozenset[str] = frozenset()  # groups that its publisher put into several folds


_KINDS: dict[str, Any] = {}
register = _KINDS.__setitem__  # by name


def kinds() -> dict[str, Any]:
    """All kinds of data sets by name."""
    import soundsight.datasets.kinds  # noqa: F401  (they register themselves, and import this module)

    return _KINDS


def read_catalogue(config: DatasetConfig) -> Catalogue:
    """List the clips of the data set that `config` describes."""
    root = Path(config.root)
    kind = kinds()[config.kind]
    if not root.is_dir():
        hint = f"run `soundsight download {config.kind}`, or " if hasattr(kind, "url") else ""
        raise DatasetError(f"The data set's root {config.root} does not exist; {hint}set root=FOLDER.")
    catalogue = kind.read(root, config)
    if not catalogue.clips:
        why = ""
        if catalogue.failures:
            file, reason = catalogue.failures[0]
            number = "one entry" if len(catalogue.failures) == 1 else f"{len(catalogue.failures)} entries"
            why = f": {number} cannot be used, first {file} ({reason})"
        raise DatasetError(f"No clips were found for {catalogue.name} in {config.root}{why}.")
    if catalogue.cutting:
        return catalogue
    for key in ("cut", "hop_seconds", "min_overlap_seconds", "min_overlap_fraction", "annotated"):
        value, default = getattr(config, key), DatasetConfig.__pydantic_fields__[key].default  # type: ignore
        if value != default and not (key == "annotated" and config.kind == "table"):
            raise DatasetError(f"{key}={value} is for tables with times, and {catalogue.name} has none; leave it out.")
    return as_multi(catalogue) if catalogue.multi or config.labels == "multi" else catalogue


def as_multi(catalogue: Catalogue) -> Catalogue:
    """The same clips as multi-label data, in which background is no class."""
    labels = [tuple(label for label in clip.labels if label != BACKGROUND) for clip in catalogue.clips]
    clips = [
        replace(clip, label=(found or ("",))[0], further_labels=found[1:])
        for clip, found in zip(catalogue.clips, labels, strict=True)
    ]
    return replace(catalogue, clips=clips, multi=True)
