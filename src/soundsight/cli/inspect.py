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
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
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
    with outputs.claimed(options, pages, outputs.SURVEY, inputs), stages() as show:
        found = inspect(
            config,
            spectrogram,
            crossval=options.crossval,
            page=options.page,
            workers=options.workers,
            progress=show,
        )
    for line in summary(found):
        console.output(line)
    if options.page:
        console.output(f"Page: {options.page}")
    for file, reason in found.failures[:10]:
        console.status(f"  failed: {reason if file in reason else f'{file}: {reason}'}")
    if len(found.failures) > 10:
        where = f"all are listed in {options.page}" if options.page else "--page FILE lists all"
        console.status(f"soundsight: {len(found.failures)} entries cannot be used; {where}.")
    return 1 if found.failures else 0


@contextmanager
def stages() -> Iterator[Callable[[str, int, int], None]]:
    """One progress bar after another, each for a stage."""
    with console.progress_bar("listening", "clips") as listen, console.progress_bar("comparing", "steps") as compare:
        yield lambda stage, done, total: (listen if stage == "listening" else compare)(done, total)


def summary(found: Survey) -> Iterator[str]:
    """What was found, in lines of at most 80 columns."""
    measured = list(found.measured.values())
    labels = found.counts
    minutes = sum(m.seconds for m in measured) / 60
    files = len({clip.file for clip in found.measured})
    title = (
        f"{found.catalogue.name}: {len(measured)} clips of {files} files, {len(labels)} classes, {minutes:.1f} minutes"
    )
    yield from textwrap.wrap(title, 80)
    for note in found.catalogue.notes:
        yield from textwrap.wrap(note, 80, initial_indent="  ", subsequent_indent="  ")
    yield from _line("split", _split_text(found))
    sizes = [sum(counts.values()) for counts in labels.values()]
    if found.catalogue.multi:
        several = sum(len(clip.labels) > 1 for clip in found.measured)
        empty = sum(not clip.labels for clip in found.measured)
        yield from _line("labels", f"{several} clips have several classes, {empty} have none and are background")
    yield from _line("per class", f"{min(sizes)} to {max(sizes)} clips; imbalance {found.imbalance:.1f}")
    if measured:
        yield from _recording_lines(found)
    yield from _line("duplicates", _duplicate_text(found))
    sources = len({clip.source for clip in found.catalogue.clips})
    shared = len(found.leaks.known) + len(found.leaks.unknown)
    shared_folds = len(found.fold_leaks.known) + len(found.fold_leaks.unknown)
    text = f"{sources}; {shared} in more than one split"
    yield from _line("sources", text + (f", {shared_folds} in more than one fold" if has_folds(found) else ""))
    if found.suspects is not None:
        yield from _line("labels", f"{len(found.suspects)} suspicious, by cross-validation")
        for suspect in found.suspects[:5]:
            text = f"{suspect.file}: {suspect.target}, or {suspect.predicted} ({suspect.probability:.0%})?"
            yield from _line("", text)
    yield ""
    yield from _class_table(found)
    for tone, text in found.findings:
        yield from textwrap.wrap(text, 80, initial_indent=f"{console.MARKS[tone]} ", subsequent_indent="  ")


def has_folds(found: Survey) -> bool:
    """Whether the data set has folds of its own."""
    return any(clip.fold is not None for clip in found.catalogue.clips)


def _line(name: str, text: str) -> list[str]:
    return textwrap.wrap(text, 80, initial_indent=f"  {name:11}", subsequent_indent=" " * 13)


def _split_text(found: Survey) -> str:
    totals = Counter(found.splits.get(clip, "unused") for clip in found.measured)
    names = list(dict.fromkeys(split for counts in found.counts.values() for split in counts))
    sides = ", ".join(f"{totals[split]} {split}" for split in names)
    return f"{sides} (by {found.config.split.strategy})"


def _recording_lines(found: Survey) -> Iterator[str]:
    measured = list(found.measured.values())
    rates = _often((f"{m.sample_rate} Hz" for m in measured), len(measured))
    channels = _often(("mono" if m.channels == 1 else f"{m.channels} channels" for m in measured), len(measured))
    kinds = _often((m.format for m in measured), len(measured))
    yield from _line("recorded", f"{rates}; {channels}; {kinds}")
    lengths = [m.seconds for m in measured]
    yield from _line("length", f"{min(lengths):.2f} to {max(lengths):.2f} s, median {median(lengths):.2f} s")
    peaks = sorted(m.peak for m in measured)
    yield from _line("peak", f"{peaks[0]:.3f} to {peaks[-1]:.3f}, median {median(peaks):.3f} (1 is full scale)")
    silent = [m.silent for m in measured]
    half = sum(share >= 0.5 for share in silent)
    yield from _line("silence", f"{sum(silent) / len(silent):.1%} of all samples; {half} clips at least by half")
    some = sum(m.clipped > 0 for m in measured)
    yield from _line("clipping", f"{some} clips, at most {max(m.clipped for m in measured):.1%} of one")


def _often(values: Iterable[str], total: int, most: int = 3) -> str:
    """The most frequent values, with their numbers unless all are the same."""
    common = Counter(values).most_common()
    if len(common) == 1:
        return common[0][0]
    shown = ", ".join(f"{value} ({number})" for value, number in common[:most])
    return shown + (f", {len(common) - most} more" if len(common) > most else "")


def _duplicate_text(found: Survey) -> str:
    copies = sum(len(group) - 1 for group in found.exact)
    text = f"exact copies {copies}, near pairs {len(found.near.pairs)}; across splits {len(found.across_splits)}"
    text += f", across folds {len(found.across_folds)}" if has_folds(found) else ""
    if found.near.compared < found.near.candidates:
        text += f" (compared the {found.near.compared} most alike of {found.near.candidates} candidates)"
    return text


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
