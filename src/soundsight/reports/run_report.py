"""Report: what a run left behind, and the clips it got wrong, put on one page.

Reads a folder of `soundsight val` or `soundsight crossval`: metrics.json, predictions.csv, and the training
curves, models and recordings that they lead to. What is gone is said on the page, and left out.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from soundsight import audio
from soundsight.backend.compat import RESULTS, weights_of
from soundsight.config import BACKGROUND, SpectrogramConfig, from_dict
from soundsight.datasets import manifest
from soundsight.detection import DetectionScores
from soundsight.errors import AudioError, ConfigError, ModelError
from soundsight.files import read_json
from soundsight.inference.explain import can_explain, explain
from soundsight.metrics import Scores, confused_pairs, score
from soundsight.models.classifier import Classifier
from soundsight.models.load import load_classifier
from soundsight.reports.html import AUDIO_BYTES, Clip, Material, write_html
from soundsight.reports.tables import PredictionRow, read_probabilities, read_results
from soundsight.reports.wording import seen_message
from soundsight.spectrogram import render

MISTAKES, PAIRS, CLIPS_A_PAIR = 12, 8, 2


@dataclass(frozen=True, eq=False)
class Run:
    """A scored run, as its folder tells it."""

    folder: Path
    metrics: Mapping[str, Any]
    rows: list[PredictionRow]
    # Of one label per clip counts and confidences are true; the other probabilities are spread evenly.
    scores: Scores | DetectionScores
    notes: list[str] = field(default_factory=list)

    @property
    def crossed(self) -> bool:
        """Whether it is a cross-validation."""
        return "folds" in self.metrics

    @property
    def training(self) -> Path:
        """Folder that holds the folds of a cross-validation."""
        above = [self.folder, *self.folder.absolute().parents[:2]]  # looks and ensembles have folders of their own
        return next((folder for folder in above if (folder / "settings.json").is_file()), self.folder)

    def root(self) -> Path | None:
        """The recorded folder of the recordings if it is below the working directory: a stranger may have named it."""
        here = Path.cwd().resolve()
        return next((p for p in self._candidates(_root(self.metrics)) if p.resolve().is_relative_to(here)), None)

    def _candidates(self, path: str | Path | None) -> Iterator[Path]:
        bases = [*self.folder.absolute().parents, Path.cwd()] if path else []
        return (base / path for base in bases if (base / path).exists())  # type: ignore[operator]

    def data(self) -> Path | None:
        """The prepared data that was scored: by its hash, since another project's may have its path."""
        wanted = self.metrics.get("data_fingerprint")
        for folder in self._candidates(self.metrics.get("data")):
            with suppress(ConfigError):
                if manifest.settings_of(folder).get("fingerprint") == wanted:
                    return folder
        return None

    def model(self) -> Path | None:
        """The model that was scored, by its hash; else one at its path, which has changed or is another."""
        from soundsight.backend.checkpoint import short_file_hash

        wanted, found = self.metrics.get("model_fingerprint"), list(self._candidates(self.metrics.get("model")))
        return next((path for path in found if short_file_hash(path) == wanted), found[0] if found else None)


def report(
    folder: str | Path,
    *,
    out: str | Path | None = None,
    root: str | Path | None = None,
    saliency: bool = True,
    device: str | None = None,
    trust: bool = False,
) -> Path:
    """Write the page of a run that `val` or `crossval` wrote into `folder`.

    Args:
        folder: The run.
        out: The file; `None` is report.html in `folder`.
        root: Where the recordings are, if not where they were.
        saliency: Also ask the models what spoke for their mistakes.
        device: See `load_classifier`.
        trust: Likewise.
    """
    run = read_run(folder)
    if not run.crossed:
        run.notes.append(seen_message(run.metrics.get("seen")))
    material = collect(run, root=root, saliency=saliency, device=device, trust=trust)
    return write_html(material, out or run.folder / "report.html")


def read_run(folder: str | Path) -> Run:
    """Read what `val` or `crossval` wrote."""
    folder = Path(folder)
    if not (folder / "metrics.json").is_file():
        raise ConfigError(
            f"{folder} holds no metrics.json, so no scored run; name a folder that `soundsight val` or "
            "`soundsight crossval` wrote."
        )
    try:
        metrics = read_json(folder / "metrics.json")
        names = [item["class"] for item in metrics["per_class"]]
        rows = _read_predictions(folder / "predictions.csv")
        if "top1_interval_95" in metrics:
            return Run(folder, metrics, rows, _scores(rows, names))
        return Run(folder, metrics, rows, read_probabilities(folder / "probabilities.csv", rows, names))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"metrics.json or a table in {folder} is damaged ({error}); score the model again."
        ) from error


def _read_predictions(path: Path) -> list[PredictionRow]:
    with open(path, encoding="utf-8", newline="") as file:
        return [
            PredictionRow(
                row["clip"], row["source"], row["fold"], row["target"], row["predicted"],
                float(row["probability"]), int(row["rank"]), _seconds(row["start_seconds"]),
                _seconds(row.get("end_seconds")),
            )
            for row in csv.DictReader(file)
        ]  # fmt: skip


def _seconds(text: str | None) -> float | None:
    return float(text) if text else None


def _scores(rows: Sequence[PredictionRow], names: Sequence[str]) -> Scores:
    """Scores with the class named and its probability; what is left is spread over the other classes."""
    index = {name: i for i, name in enumerate(names)}
    top = np.array([row.probability for row in rows])
    rest = (1 - top) / max(len(names) - 1, 1)
    probabilities = np.repeat(rest[:, None], len(names), axis=1)
    named = np.array([index[row.predicted] for row in rows])
    probabilities[np.arange(len(rows)), named] = np.maximum(top, np.nextafter(rest, 1))
    return score(np.array([index[row.target] for row in rows]), probabilities, names)


def collect(
    run: Run, *, root: str | Path | None = None, saliency: bool = True, device: str | None = None, trust: bool = False
) -> Material:
    """All that the page shows; the notes of `run` say what could not be had."""
    labels = [row.predicted for row in run.rows]  # to explain
    surety = [row.probability for row in run.rows]
    pairs, best = [], []
    if isinstance(run.scores, DetectionScores):
        labels, surety = _decisive(run.scores, run.rows)
        right = (i for i, row in enumerate(run.rows) if row.correct and row.target != BACKGROUND)
        best = sorted(right, key=lambda i: surety[i])[:MISTAKES]
    wrong = sorted((i for i, row in enumerate(run.rows) if not row.correct), key=lambda i: -surety[i])
    mistakes = wrong[:MISTAKES]
    for pair in confused_pairs(run.scores.confusion, run.scores.names, PAIRS) if isinstance(run.scores, Scores) else ():
        key = (pair.true, pair.predicted)
        shown = [i for i in wrong if (run.rows[i].target, run.rows[i].predicted) == key][:CLIPS_A_PAIR]
        pairs.append((pair, shown))
    needed = dict.fromkeys([*mistakes, *best, *(i for _, shown in pairs for i in shown)])
    load = partial(load_classifier, device=device, trust=trust)
    config = _spectrogram(run, load)
    clips = _clips(run, {i: labels[i] for i in sorted(needed)}, config, root, _Models(run, load if saliency else None))
    place = run.training.absolute()
    name = place.name if run.crossed else f"{place.parent.name}/{place.name}"
    return Material(
        title=name,
        kind="cross-validation" if run.crossed else f"validation, split {run.metrics.get('split', 'unknown')}",
        metrics=run.metrics,
        scores=run.scores,
        rows=run.rows,
        clips=clips,
        mistakes=mistakes,
        pairs=pairs,
        best=best,
        curves=curves(run),
        spectrogram=config,
        notes=run.notes,
    )


def _decisive(scores: DetectionScores, rows: Sequence[PredictionRow]) -> tuple[list[str], list[float]]:
    """Of each clip the class whose probability is the most wrong, and by how much; of a wrong clip a wrong class."""
    labels, amounts = [], []
    for row, truth, values in zip(rows, scores.targets, scores.probabilities, strict=True):
        off = np.abs(truth - values)
        true, named = set(row.target.split(";")), set(row.predicted.split(";"))
        judged = [c for c, name in enumerate(scores.names) if row.correct or (name in true) != (name in named)]
        worst = max(judged, key=lambda c: off[c])
        labels.append(scores.names[worst if not row.correct else int((truth * values).argmax())])
        amounts.append(float(off[worst]))
    return labels, amounts


def curve_files(run: Run) -> dict[str, Path]:
    """The results.csv of each training, by fold and seed; one without a name for a single model."""
    if run.crossed:
        return {f.parent.parent.name: f for f in sorted(run.training.glob(f"fold*-seed*/run/{RESULTS}"))}
    model = run.model()
    file = model.parent.parent / RESULTS if model else None
    return {"": file} if file and file.is_file() else {}


def curves(run: Run) -> dict[str, dict[str, list[float]]]:
    """Training curves by training; empty where no results.csv is left."""
    found = {}
    for name, file in curve_files(run).items():
        with suppress(ConfigError):  # cut short
            found[name] = read_results(file)
    if not found:
        run.notes.append("There are no training curves: no results.csv is left of the training.")
    return found


def _spectrogram(run: Run, load: Callable[[Path], Classifier]) -> SpectrogramConfig | None:
    """How the clips were rendered."""
    try:
        if run.crossed:
            return from_dict(SpectrogramConfig, run.metrics["settings"]["spectrogram"])
        if (data := run.data()) is not None:
            return manifest.read_spectrogram(data)
        if (model := run.model()) is not None:
            return load(model).preprocessing.spectrogram
    except (ConfigError, KeyError, TypeError):
        pass
    run.notes.append("There are no spectrograms: neither the prepared images nor the model are left.")
    return None


def _clips(
    run: Run,
    labels: Mapping[int, str],
    config: SpectrogramConfig | None,
    root: str | Path | None,
    models: _Models,
) -> dict[int, Clip]:
    recordings = Path(root) if root else run.root()
    if recordings is None or not recordings.is_dir():
        where = root or _root(run.metrics) or "a folder that was not recorded"
        run.notes.append(
            f"There are no sounds and no spectrograms of clips: {where} is gone or lies outside this folder; if the "
            "recordings are there, name it with --root."
        )
        recordings = None
    budget, clips = AUDIO_BYTES, {}
    for index, label in labels.items():
        clip = _clip(run.rows[index], label, recordings, config, models, budget)
        budget -= len(clip.audio)
        clips[index] = replace(clip, label=label)
    silent = sum(bool(clip.image is not None and not clip.audio) for clip in clips.values())
    if silent:
        run.notes.append(f"{silent} clips have no sound: together they would make the page too large.")
    run.notes.extend(models.notes)
    return clips


def _root(metrics: Mapping[str, Any]) -> str | None:
    settings = metrics.get("settings")
    source = settings.get("source") if isinstance(settings, Mapping) else None
    return source or (metrics.get("dataset") or {}).get("root")


def _clip(
    row: PredictionRow, label: str, root: Path | None, config: SpectrogramConfig | None, models: _Models, budget: int
) -> Clip:
    if root is None or config is None:
        return Clip(row, 0.0)
    start = row.start_seconds
    if start is None:
        return Clip(row, 0.0, note="Where in its recording this clip begins is not known.")
    seconds = config.clip_seconds
    if row.end_seconds is not None:
        seconds = min(seconds, row.end_seconds - start)
    path = os.path.realpath(root / row.clip)
    if not Path(path).is_relative_to(os.path.realpath(root)):  # as a stranger's table may have it
        return Clip(row, 0.0, note=f"Its recording lies outside {root}; name the folder of the recordings with --root.")
    try:
        waveform = audio.read(path, sample_rate=config.sample_rate, start_seconds=start, duration_seconds=seconds)
    except AudioError as error:
        return Clip(row, 0.0, note=str(error))
    image = render(waveform, config)
    classifier = models.of(str(row.fold))
    saliency = explain(classifier, image, label).saliency if classifier else None
    sound = io.BytesIO()
    soundfile.write(sound, waveform, config.sample_rate, "PCM_16", format="FLAC")
    fits = len(sound.getvalue()) <= budget
    return Clip(row, len(waveform) / config.sample_rate, image, saliency, sound.getvalue() if fits else b"")


class _Models:
    """The model that scored each fold, loaded when it is first asked for, one at a time."""

    def __init__(self, run: Run, load: Callable[[Path], Classifier] | None) -> None:
        self.run, self.load = run, load
        self.notes: list[str] = []
        self.loaded: tuple[str, Classifier | None] | None = None

    def of(self, fold: str) -> Classifier | None:
        """A classifier with gradients, or `None`."""
        key = fold if self.run.crossed else ""
        if self.load and (self.loaded is None or self.loaded[0] != key):
            self.loaded = (key, self._load(key, self.load))
        return self.loaded[1] if self.loaded else None

    def _load(self, fold: str, load: Callable[[Path], Classifier]) -> Classifier | None:
        path = self.run.model()
        if fold:
            settings = self.run.metrics["settings"]
            folder = self.run.training / f"fold{fold}-seed{(settings.get('seeds') or [0])[0]}" / "run"
            path = weights_of(folder, best=settings.get("protocol", "last") != "last")
        where = f" of fold {fold}" if fold else ""
        if path is None or not path.is_file():
            self.notes.append(f"There are no saliency maps{where}: the model is not where it was.")
            return None
        try:
            classifier = load(path)
        except ModelError as error:
            self.notes.append(f"There are no saliency maps{where}: {error}")
            return None
        recorded = self.run.metrics.get("model_fingerprint")
        if not can_explain(classifier) or (not fold and recorded and recorded != classifier.model_hash):
            reason = "is an export" if not can_explain(classifier) else "has changed since it was scored"
            self.notes.append(f"There are no saliency maps{where}: {path} {reason}.")
            return None
        return classifier
