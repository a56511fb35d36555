"""The same content as a report, as files for papers: figures that are legible in print, tables as CSV."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from soundsight import reports as figure
from soundsight.detection import DetectionScores
from soundsight.errors import ConfigError
from soundsight.files import csv_text, write_text
from soundsight.reports.html import Material, shown
from soundsight.reports.run_report import Run, curve_files
from soundsight.reports.spectrograms import plot_saliency

TABLES = ("metrics.json", "predictions.csv", "probabilities.csv", "per_class.csv", "confused_pairs.csv", "folds.csv")
FORMATS = ("png", "pdf", "svg")


def write_figures(run: Run, material: Material, folder: str | Path, *, formats: Sequence[str] = ("png",)) -> list[Path]:
    """Write the figures of a scored run, as "png", "pdf" or "svg", and its tables into a folder; the paths written."""
    for name in formats:
        if name not in FORMATS:
            raise ConfigError(f"The format {name!r} cannot be plotted; {', '.join(FORMATS)} can.")
    folder = Path(folder)
    if folder.absolute() == run.folder.absolute():
        raise ConfigError(f"{folder} is the run itself; name another folder for its figures.")
    written = [write_text(folder / "mistakes.csv", _mistakes(material))]
    for kind in formats:
        written += _draw(run, material, folder, kind)
    for name in TABLES:
        if (run.folder / name).is_file():
            written.append(Path(shutil.copyfile(run.folder / name, folder / name)))
    return written


def _draw(run: Run, material: Material, folder: Path, kind: str) -> list[Path]:
    scores = run.scores
    if isinstance(scores, DetectionScores):
        done = [figure.plot_precision_recall(scores, folder / f"precision_recall.{kind}")]
    else:
        counts, names = scores.confusion, scores.names
        done = [
            figure.plot_confusion(counts, names, folder / f"confusion_matrix.{kind}", normalize=False),
            figure.plot_confusion(counts, names, folder / f"confusion_matrix_normalized.{kind}", normalize=True),
            figure.plot_reliability(scores, folder / f"reliability.{kind}"),
            figure.plot_per_class(scores, folder / f"per_class.{kind}"),
        ]
    files = curve_files(run)
    for name in material.curves:
        target = folder / f"training_curves{'-' + name if name else ''}.{kind}"
        done.append(figure.plot_training_curves(files[name], target))
    for rank, index in enumerate(material.mistakes, 1):
        clip = material.clips[index]
        if clip.image is not None and material.spectrogram is not None:
            row = clip.row
            title = shown(f"{row.target} taken for {row.predicted}, {row.probability:.1%}")
            target = folder / f"mistake-{rank:02}.{kind}"
            done.append(plot_saliency(clip.image, clip.saliency, material.spectrogram, target, title=title))
    return done


def _mistakes(material: Material) -> str:
    """The most confident mistakes as CSV, with the numbers that their figures have."""
    header = ("figure", "clip", "source", "fold", "target", "predicted", "probability", "rank")
    rows = [(f"mistake-{number:02}", material.rows[index]) for number, index in enumerate(material.mistakes, 1)]
    lines = [
        (name, row.clip, row.source, row.fold, row.target, row.predicted, f"{row.probability:.6f}", row.rank)
        for name, row in rows
    ]
    return csv_text([header, *lines])
