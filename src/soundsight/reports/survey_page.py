"""The page of `inspect`: which figures, tables and images of a survey are worth showing, and how much of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from math import log10
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2

from soundsight.datasets.catalogue import Clip
from soundsight.datasets.duplicates import Pair
from soundsight.datasets.images import render_clip
from soundsight.datasets.survey import Measured
from soundsight.errors import AudioError
from soundsight.files import write_text
from soundsight.reports.charts import Chart, histogram
from soundsight.reports.templating import image_uri, render_template

if TYPE_CHECKING:
    from soundsight.datasets.survey_results import Survey

CLASS_IMAGES, PAIR_IMAGES, SUSPECT_IMAGES = 60, 10, 20  # together below 2 MB
MOST_ROWS = 200  # of one table
THUMBNAIL = 160  # pixels, square


class Table(NamedTuple):
    """Rows of text under a header."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def write_page(found: Survey, path: str | Path) -> Path:
    """Write a survey as one self-contained HTML page without a script, whole or not at all."""
    return write_text(path, render_template("survey.html", **_content(found)))


def _content(found: Survey) -> dict[str, Any]:
    measured = list(found.measured.values())
    counts = found.counts
    minutes = sum(m.seconds for m in measured) / 60
    return {
        "command": "inspect",
        "title": f"{found.catalogue.name}, inspected",
        "subtitle": f"Split by {found.config.split.strategy}; clips of at most {found.spectrogram.clip_seconds:g} s",
        "figures": [
            ("clips", f"{len(measured):,}", ""),
            ("minutes", f"{minutes:,.1f}", ""),
            ("classes", f"{len(counts):,}", ""),
            ("largest class / smallest", f"{found.imbalance:.1f}", ""),
            ("source recordings", f"{len({clip.source for clip in found.catalogue.clips}):,}", ""),
            ("pairs of duplicates", f"{len(found.pairs):,}", ""),
            ("entries that cannot be used", f"{len(found.failures):,}", ""),
        ],
        "findings": found.findings,
        "classes": counts,
        "splits": list(dict.fromkeys(split for of_class in counts.values() for split in of_class)),
        "most": max((sum(of_class.values()) for of_class in counts.values()), default=0) or 1,
        "charts": list(_charts(measured)),
        "tables": [table for table in _tables(found) if table.rows],
        "most_rows": MOST_ROWS,
        "galleries": [(title, images) for title, images in _galleries(found) if images],
        "thumbnail": THUMBNAIL,
    }


def _charts(measured: list[Measured]) -> Iterator[Chart]:
    silent = [100 * m.silent for m in measured]
    clipped = [m.clipped for m in measured if m.clipped]
    yield histogram("Length of the clips", "s", [m.seconds for m in measured])
    yield histogram("Length of the recordings", "s", [m.recording_seconds for m in measured], "counted once per clip")
    yield histogram("Peak level", "dBFS", [20 * log10(m.peak) for m in measured if m.peak], "0 is full scale")
    yield histogram("RMS level", "dBFS", [20 * log10(m.rms) for m in measured if m.rms])
    yield histogram("Digital silence", "%", silent, "share of a clip's samples that stand still for 10 ms or more")
    yield histogram(
        "Clipping", "%", [100 * share for share in clipped], f"of the {len(clipped):,} clips with any clipped sample"
    )


def _tables(found: Survey) -> Iterator[Table]:
    measured = found.measured
    yield Table("Entries that cannot be used", ("file", "reason"), found.failures)
    across = set(found.across_splits)
    yield Table(
        "Duplicates",
        ("likeness", "clip", "and", "label", "where"),
        [
            (f"{p.likeness:.2f}", p.first.name, p.second.name, _both(p.first.named, p.second.named), _where(p, found))
            for p in (*found.across_splits, *(p for p in found.pairs if p not in across))
        ],
        "Near ones were found by fingerprint and confirmed by cross-correlation; 1.00 is equal sample by sample.",
    )
    yield Table(
        "Source recordings in more than one split",
        ("source", "known", "clips"),
        list(_shared_sources(found)),
    )
    if found.suspects:
        yield Table(
            "Suspicious labels",
            ("file", "label", "predicted as", "probability", "fold"),
            [(s.file, s.target, s.predicted, f"{s.probability:.1%}", s.fold) for s in found.suspects],
            "Models of a cross-validation, none of which saw the clip it judges, are sure of another class.",
        )
    yield Table("Recordings", ("rate", "channels", "format", "clips"), list(_kinds(measured.values())))
    silent = sorted((c for c, m in measured.items() if m.silent >= 0.5), key=lambda c: -measured[c].silent)
    yield Table(
        "Clips that are mostly digital silence",
        ("file", "label", "silent"),
        [(c.file, c.named, f"{measured[c].silent:.1%}") for c in silent],
    )
    clipped = sorted((c for c, m in measured.items() if m.clipped >= 0.001), key=lambda c: -measured[c].clipped)
    yield Table(
        "Clipped clips",
        ("file", "label", "clipped", "peak"),
        [(c.file, c.named, f"{measured[c].clipped:.2%}", f"{measured[c].peak:.3f}") for c in clipped],
    )


def _both(first: str, second: str) -> str:
    return first if first == second else f"{first} | {second}"


def _where(pair: Pair, found: Survey) -> str:
    """On which sides the two clips lie."""
    text = _both(*(found.splits.get(clip, "unused") for clip in (pair.first, pair.second)))
    if pair.first.fold is None:
        return text
    return f"{text} (fold {_both(str(pair.first.fold), str(pair.second.fold))})"


def _shared_sources(found: Survey) -> Iterator[tuple[str, str, str]]:
    by_source: dict[str, Counter[str]] = {}
    for clip, split in found.splits.items():
        by_source.setdefault(clip.source, Counter())[split] += 1
    for known, sources in (("no", found.leaks.unknown), ("yes", found.leaks.known)):
        for source in sources:
            yield source, known, ", ".join(f"{number} {split}" for split, number in by_source[source].items())


def _kinds(measured: Iterable[Measured]) -> Iterator[tuple[str, str, str, str]]:
    kinds = Counter((m.sample_rate, m.channels, m.format) for m in measured)
    for (rate, channels, kind), number in kinds.most_common():
        yield f"{rate} Hz", str(channels), kind, f"{number:,}"


def _galleries(found: Survey) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Titles and images: name, caption, data URI."""
    examples: dict[str, Clip] = {}
    for clip, measured in found.measured.items():
        for label in clip.labels:
            if label not in examples or found.measured[examples[label]].silent > 0.5 > measured.silent:
                examples[label] = clip  # the first that is not mostly silence, if there is one
    shown = [examples[label] for label in found.counts if label in examples][:CLASS_IMAGES]
    across = set(found.across_splits)
    pairs = [*found.across_splits, *(p for p in found.near.pairs if p not in across)]
    twins = [
        (clip, f"pair {number}, {p.likeness:.2f}: {clip.named}, {found.splits.get(clip, 'unused')}")
        for number, p in enumerate(pairs[:PAIR_IMAGES], 1)
        for clip in (p.first, p.second)
    ]
    by_file = {clip.file: clip for clip in found.measured}
    doubted = [
        (by_file[s.file], f"{s.target}, or {s.predicted} ({s.probability:.0%})?")
        for s in (found.suspects or [])[:SUSPECT_IMAGES]
        if s.file in by_file
    ]
    of_class = _images(found, [(clip, clip.named) for clip in shown])
    return [
        ("Duplicates side by side", list(_images(found, twins))),
        ("Suspicious labels", list(_images(found, doubted))),
        ("One clip of each class", [(label.replace("_", " "), name, uri) for name, label, uri in of_class]),
    ]


def _images(found: Survey, clips: Iterable[tuple[Clip, str]]) -> Iterator[tuple[str, str, str]]:
    """Name, caption and thumbnail of each clip in magma's colours, as a data URI."""
    for clip, caption in clips:
        try:
            level = render_clip(clip, found.spectrogram)[..., -1]
        except (AudioError, OSError):  # vanished since it was measured
            continue
        small = cv2.resize(level, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
        yield clip.name, caption, image_uri(cv2.applyColorMap(small, cv2.COLORMAP_MAGMA), kind="jpeg")  # type: ignore[arg-type]
