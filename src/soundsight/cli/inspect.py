"""Look at a data set before training on it: counts, lengths, silence, clipping, duplicates, leaks.

soundsight inspect                            # configs/esc50.yaml; nothing is written
soundsight inspect my_sounds/                 # own data: my_sounds/<class>/*.wav
soundsight inspect --page inspect.html        # and one page with histograms and spectrograms
soundsight inspect split.strategy=random      # what another split would leak
soundsight inspect --crossval runs/crossval/x # and labels that the models doubt
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator
from statistics import median
from typing import TYPE_CHECKING

from soundsight.cli import console, outputs
from soundsight.cli.options import Given
from soundsight.config import DatasetConfig, SpectrogramConfig
from soundsight.config.commands import InspectOptions

if TYPE_CHECKING:
    from soundsight.datasets.survey_results import Survey

OPTIONS = InspectOptions
SETTINGS = (DatasetConfig, SpectrogramConfig)
MOST_CLASSES = 20  # with more, the terminal shows only the smallest and largest


def run(options: InspectOptions, given: Given) -> int:
    from soundsight.evaluation.inspect import inspect

    console.check_ending(options.page, ".html", ".htm")
    config, spectrogram = console.data_settings(options, given)
    pages = [options.page] if options.page else []
    inputs = [options.dataset, options.spectrogram, options.crossval]
    with (
        outputs.claimed(options, pages, outputs.SURVEY, inputs),
        console.progress_bar("listening", "clips") as listening,
        console.progress_bar("comparing", "steps") as comparing,
    ):
        bars = {"listening": listening, "comparing": comparing}
        found = console.call(inspect, options, config, spectrogram, progress=lambda stage, *of: bars[stage](*of))
    for line in summary(found):
        console.output(line)
    if options.page:
        console.output(f"Page: {options.page}")
    where = f"all are listed in {options.page}" if options.page else "--page FILE lists all"
    return console.list_failures(found.failures, "entries cannot be used", where)


def summary(found: Survey) -> Iterator[str]:
    """What was found, in lines of at most 80 columns."""
    clips, measured = list(found.measured), list(found.measured.values())
    minutes = sum(m.seconds for m in measured) / 60
    yield from textwrap.wrap(
        f"{found.catalogue.name}: {len(clips)} clips of {len({clip.file for clip in clips})} files, "
        f"{len(found.counts)} classes, {minutes:.1f} minutes",
        80,
    )
    for note in found.catalogue.notes:
        yield from textwrap.wrap(note, 80, initial_indent="  ", subsequent_indent="  ")
    for name, text in _facts(found):
        yield from textwrap.wrap(text, 80, initial_indent=f"  {name:11}", subsequent_indent=" " * 13)
    yield ""
    yield from _class_table(found)
    for tone, text in found.findings:
        yield from textwrap.wrap(text, 80, initial_indent=f"{console.MARKS[tone]} ", subsequent_indent="  ")


def _facts(found: Survey) -> Iterator[tuple[str, str]]:
    """What each line is about, and what it says."""
    clips, catalogue = list(found.measured), found.catalogue
    folds = any(clip.fold is not None for clip in catalogue.clips)
    totals = Counter(found.splits.get(clip, "unused") for clip in clips)
    names = dict.fromkeys(split for counts in found.counts.values() for split in counts)
    sides = ", ".join(f"{totals[split]} {split}" for split in names)
    yield "split", f"{sides} (by {found.config.split.strategy})"
    if catalogue.multi:
        several, empty = sum(len(clip.labels) > 1 for clip in clips), sum(not clip.labels for clip in clips)
        yield "labels", f"{several} clips have several classes, {empty} have none and are background"
    sizes = [sum(counts.values()) for counts in found.counts.values()]
    yield "per class", f"{min(sizes)} to {max(sizes)} clips; imbalance {found.imbalance:.1f}"
    if measured := list(found.measured.values()):
        rates = _often(f"{m.sample_rate} Hz" for m in measured)
        channels = _often("mono" if m.channels == 1 else f"{m.channels} channels" for m in measured)
        yield "recorded", f"{rates}; {channels}; {_often(m.format for m in measured)}"
        lengths, peaks = [m.seconds for m in measured], [m.peak for m in measured]
        yield "length", f"{min(lengths):.2f} to {max(lengths):.2f} s, median {median(lengths):.2f} s"
        yield "peak", f"{min(peaks):.3f} to {max(peaks):.3f}, median {median(peaks):.3f} (1 is full scale)"
        silent, clipped = [m.silent for m in measured], [m.clipped for m in measured]
        half = sum(share >= 0.5 for share in silent)
        yield "silence", f"{sum(silent) / len(silent):.1%} of all samples; {half} clips at least by half"
        yield "clipping", f"{sum(share > 0 for share in clipped)} clips, at most {max(clipped):.1%} of one"
    copies, near = sum(len(group) - 1 for group in found.exact), found.near
    text = f"exact copies {copies}, near pairs {len(near.pairs)}; across splits {len(found.across_splits)}"
    text += f", across folds {len(found.across_folds)}" if folds else ""
    if near.compared < near.candidates:
        text += f" (compared the {near.compared} most alike of {near.candidates} candidates)"
    yield "duplicates", text
    shared, shared_folds = (len(leaks.known) + len(leaks.unknown) for leaks in (found.leaks, found.fold_leaks))
    text = f"{len({clip.source for clip in catalogue.clips})}; {shared} in more than one split"
    yield "sources", text + (f", {shared_folds} in more than one fold" if folds else "")
    if found.suspects is not None:
        yield "labels", f"{len(found.suspects)} suspicious, by cross-validation"
        for suspect in found.suspects[:5]:
            yield "", f"{suspect.file}: {suspect.target}, or {suspect.predicted} ({suspect.probability:.0%})?"


def _often(values: Iterable[str], most: int = 3) -> str:
    """The most frequent values, with their numbers unless all are the same."""
    common = Counter(values).most_common()
    if len(common) == 1:
        return common[0][0]
    shown = ", ".join(f"{value} ({number})" for value, number in common[:most])
    return shown + (f", {len(common) - most} more" if len(common) > most else "")


def _class_table(found: Survey) -> Iterator[str]:
    """Clips by class and split; of many classes, the smallest and the largest ones."""
    rows = list(found.counts.items())
    if len(rows) > MOST_CLASSES:
        if found.imbalance == 1:
            return
        rows.sort(key=lambda item: (sum(item[1].values()), item[0]))
        rows = [*rows[:5], *rows[-5:]]
        yield f"The smallest and largest of {len(found.counts)} classes:"
    wide = min(36, max(len(label) for label, _ in rows))
    yield f"  {'class':{wide}}" + "".join(f"{split:>9}" for split in rows[0][1])
    for label, counts in rows:
        yield f"  {label[:wide]:{wide}}" + "".join(f"{number:9}" for number in counts.values())
    yield ""
