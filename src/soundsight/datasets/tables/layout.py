"""What the columns of a label table mean: the registry of layouts, and their resolution against a header.

Names of columns are compared without case, spaces and punctuation, so that R's `Begin.Time..s.` is Raven's
`Begin Time (s)`. A column of times may state its unit, seconds or milliseconds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

from soundsight.config import DatasetConfig
from soundsight.datasets.tables.rows import MISSING, Row, Sheet
from soundsight.errors import DatasetError

# Names of one's own tables, the most telling first.
FILE = (
    "file", "filename", "file_name", "filepath", "file_path", "path", "fname", "audio_file", "audio_filename",
    "audiofilename", "audio_path", "audio", "recording", "sound_file", "soundfile", "wav_file", "wavfile", "wav",
    "begin_path", "begin_file", "in_file", "notated_path", "slice_file_name",
)  # fmt: skip
LABEL = (
    "label", "labels", "primary_label", "class", "class_name", "category", "event_label", "event_labels", "species",
    "annotation", "annotations", "common_name", "scientific_name", "species_code", "call_type", "tag", "tags",
)  # fmt: skip
START = ("start", "start_time", "starttime", "onset", "begin", "begin_time", "tmin", "xmin", "t_start")
END = ("end", "end_time", "endtime", "stop", "stop_time", "tmax", "xmax", "t_end")
DURATION = ("duration", "dur", "length", "delta_time")
SPLIT = ("split", "subset")
SEVERAL = frozenset({"labels", "event_labels", "tags", "annotations", "positive_labels"})  # in one field: a,b or a;b

_UNITS = {**dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1.0), **dict.fromkeys(("ms", "msec"), 0.001)}
_CLOCK = re.compile(r"(\d+):([0-5]\d):([0-5]\d(?:[.,]\d+)?)").fullmatch
_OTHER_UNITS = frozenset({"min", "minute", "minutes", "h", "hour", "hours"})
_TIMES = frozenset(
    "start onset offset begin end stop from to tmin tmax xmin xmax x1 x2 t0 t1 t2 begintime endtime starttime "
    "timestamp time seconds second sec secs ms msec milliseconds sample samples frame frames".split()
)


@dataclass(frozen=True)
class Layout:
    """A kind of table. Of several whose header is there, the one with the longest counts."""

    title: str
    header: tuple[str, ...] = ()  # columns that tell it from other kinds
    file: tuple[str, ...] = FILE  # the first that leads to a file counts; none there: the recording beside the table
    folders: tuple[str, ...] = ()  # columns with the folders that a file's name belongs to, outermost first
    below: tuple[str, ...] = ()  # folders below the root in which its recordings lie
    label: tuple[str, ...] = LABEL
    start: tuple[str, ...] = START
    end: tuple[str, ...] = END
    duration: tuple[str, ...] = DURATION
    offset: str = ""  # the start within the file, where `start` counts from the first file of a sequence
    sequence: str = ""  # why several files without `offset` are refused
    repeats: bool = False  # equal rows are one clip
    refusal: str = ""  # why such a table gives no clips
    parse: Callable[[str, str], tuple[list[tuple[int, Row]], list[tuple[int, str]]] | None] | None = (
        None  # without a header
    )


LAYOUTS: list[Layout] = []


def register(layout: Layout) -> None:
    """Add a layout to those that are known."""
    LAYOUTS.append(layout)


@dataclass(frozen=True)
class Columns:
    """Positions of the columns of one table; `None`, or empty: there is none."""

    layout: Layout
    label: int | None  # None: one column per class
    several: bool  # whether a field of labels may hold more than one
    files: tuple[tuple[int, ...], ...]  # each with the columns of its folders before it; none: the recording beside
    fold: int | None
    group: int | None
    split: int | None
    start: int | None
    end: int | None
    duration: int | None
    offset: int | None
    classes: tuple[int, ...]

    @property
    def timed(self) -> bool:
        """Whether rows may be stretches of their recordings."""
        return self.start is not None or self.end is not None


def known(name: str) -> bool:
    """Whether a name of a column means something in some layout."""
    return _base(name) in _known() or normal(name) in _known()


def _known() -> frozenset[str]:
    return frozenset(
        normal(name)
        for layout in LAYOUTS
        for names in (layout.header, layout.file, layout.label, layout.start, layout.end, layout.duration)
        for name in names
    )


def normal(name: str) -> str:
    """A column's name without case and punctuation: `Begin Time (s)` is `begin_time_s`, and `beginTimeMs` its like."""
    parted = re.sub(r"(?<=[a-z][a-z])(?=[A-Z])", "_", name)
    return re.sub(r"[\W_]+", "_", parted.casefold()).strip("_")


def _base(name: str) -> str:
    head, _, unit = normal(name).rpartition("_")
    return head if unit in _UNITS else normal(name)


def scale_of(name: str) -> float:
    """Seconds in one unit of a column of times."""
    head, _, unit = normal(name).rpartition("_")
    return _UNITS.get(unit, 1.0) if head else 1.0


def number(text: str, delimiter: str = "\t") -> float | None:
    """A finite number, or h:mm:ss in seconds; where the comma does not part columns, it may be the decimal point."""
    if clock := _CLOCK(text):
        return 3600 * int(clock[1]) + 60 * int(clock[2]) + float(clock[3].replace(",", "."))
    try:
        value = float(text.replace(",", ".") if delimiter != "," else text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def choose(header: Iterable[str]) -> Layout:
    """The layout of a table with this header."""
    names = {normal(name) for name in header} | {_base(name) for name in header}
    fitting = [x for x in LAYOUTS if x.parse is None and all(normal(name) in names for name in x.header)]
    return max(fitting, key=lambda layout: len(layout.header))


def resolve(sheet: Sheet, config: DatasetConfig, layout: Layout, *, beside: bool) -> Columns:
    """Find the columns of a table; those that `config` names come first.

    `file` and `label`, its defaults, are sought but not insisted on, nor is a column of files where a recording lies
    `beside` the table.
    """
    if layout.refusal:
        raise DatasetError(f"{sheet.path} is {layout.title} and {layout.refusal}.")
    label, default = _named(sheet, config.label_column, "label")
    label = label if label is not None else _first(sheet, layout.label)
    files = _files(sheet, config, layout)
    start, _ = _named(sheet, config.start_column)
    end, _ = _named(sheet, config.end_column)
    explicit = start is not None
    start = start if explicit else _first(sheet, layout.start)
    end = end if end is not None else _first(sheet, layout.end)
    duration = _first(sheet, layout.duration) if end is None and start is not None else None
    offset = _first(sheet, (layout.offset,)) if layout.offset and not explicit else None
    split = _first(sheet, SPLIT)
    used = {start, end, duration, offset, split, label, *(i for columns in files for i in columns)}
    fold, group = (_named(sheet, name)[0] for name in (config.fold_column, config.group_column))
    classes: tuple[int, ...] = ()
    if label is None:
        classes = _classes(sheet, used | {fold, group})
        if not classes:
            raise _lacks(sheet, config.label_column if default else "label", "label_column")
    if not files and not beside and not layout.header:
        raise _lacks(sheet, config.file_column, "file_column")
    if not explicit:
        complete = start is not None and (end is not None or duration is not None)
        _refuse_strange_times(
            sheet, used | {fold, group, *classes}, files[-1][-1] if files else None, complete=complete
        )
    several = label is not None and default and normal(sheet.header[label]) in SEVERAL
    return Columns(layout, label, several, files, fold, group, split, start, end, duration, offset, classes)


def _named(sheet: Sheet, name: str, default: str = "") -> tuple[int | None, bool]:
    """Position of a column that a setting names, and whether the setting is the default."""
    if not name or (name == default and name not in sheet.header):
        return None, True
    return sheet.index(name), name == default


def _files(sheet: Sheet, config: DatasetConfig, layout: Layout) -> tuple[tuple[int, ...], ...]:
    named, _ = _named(sheet, config.file_column, "file")
    if named is not None and config.file_column != "file":
        return ((named,),)
    found = [] if named is None else [named]
    found += [i for i in (_first(sheet, (name,)) for name in layout.file) if i is not None and i not in found]
    folders = tuple(i for i in (_first(sheet, (name,)) for name in layout.folders) if i is not None)
    return tuple((*folders, i) for i in (found if layout.header else found[:1]))


def _first(sheet: Sheet, names: Iterable[str]) -> int | None:
    """Position of the first of these columns that is there, with or without a unit."""
    for name in names:
        for form in (normal, _base):
            found = [i for i, column in enumerate(sheet.header) if form(column) == normal(name)]
            if len(found) == 1:
                return found[0]
            if found and sheet.header.count(sheet.header[found[0]]) > 1:
                sheet.index(sheet.header[found[0]])  # raises
    return None


def _lacks(sheet: Sheet, name: str, setting: str) -> DatasetError:
    return DatasetError(
        f"The table {sheet.path} lacks the column {name!r}; it has: {sheet.columns()}. "
        f"Say which of them it is with {setting}=NAME."
    )


def _classes(sheet: Sheet, used: set[int | None]) -> tuple[int, ...]:
    """The columns of a table with one column per class, which hold nothing but yes and no; of others none."""
    rest = [i for i, name in enumerate(sheet.header) if name and i not in used]
    values = {marked(row[i]) for _, row in sheet.rows for i in rest}
    return tuple(rest) if len(rest) > 1 and values <= {True, False} and True in values else ()


def marked(text: str | None) -> bool | None:
    """Yes or no as programs write it; `None` for anything else."""
    if not text or text.casefold() in MISSING:
        return False
    return {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}.get(text.casefold())


def _refuse_strange_times(sheet: Sheet, used: set[int | None], file: int | None, *, complete: bool) -> None:
    """Raise `DatasetError` for columns that seem to be times and are not understood.

    Their names speak of times, or name a unit of time; or two columns beside each other hold a lower and a higher
    number in each row, and others for the same file. Where start and end are known, only minutes and hours are more.
    """
    rest = [i for i, name in enumerate(sheet.header) if name and i not in used]
    values = {i: [number(row[i] or "", sheet.delimiter) for _, row in sheet.rows] for i in rest}
    strange = []
    for i in rest:
        words, clock = set(normal(sheet.header[i]).split("_")), any(":" in (row[i] or "") for _, row in sheet.rows)
        speaks = words & (_TIMES - {"time", "timestamp"} if clock else _TIMES)
        if complete:
            speaks &= words if words & _OTHER_UNITS else set()
        elif _base(sheet.header[i]) not in (normal(sheet.header[i]), *DURATION):
            speaks = words
        if speaks and (clock or any(value is not None for value in values[i])):
            strange.append(i)
    for one, other in () if complete or strange else pairwise(rest):
        pairs = list(zip(values[one], values[other], strict=True))
        if other == one + 1 and all(a is not None and b is not None and 0 <= a < b for a, b in pairs):
            of_file = {
                (None if file is None else row[file], pair) for (_, row), pair in zip(sheet.rows, pairs, strict=True)
            }
            if len(of_file) > len({name for name, _ in of_file}):
                strange = [one, other]
    if strange:
        names = ", ".join(sheet.header[i] for i in strange)
        raise DatasetError(
            f"The table {sheet.path} has columns that look like times ({names}), and how they are meant "
            f"is not known; it has: {sheet.columns()}. Name the columns of seconds with start_column=NAME and "
            "end_column=NAME, or take these out of the table if each row is a whole recording."
        )
