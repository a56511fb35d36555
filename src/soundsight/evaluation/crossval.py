"""Cross-validation: every fold is scored once, by a model that never saw it. The true score.

Protocol `last`: train on all other folds for a fixed number of epochs, score the last checkpoint.
Protocol `train-val-test`: one more fold is held back to pick the best epoch; the test fold never is.
Finished folds are kept, so a killed run continues; another setting makes another run.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np

from soundsight import parallel
from soundsight.checks import choose_device
from soundsight.config import AugmentConfig, DatasetConfig, SpectrogramConfig, to_dict
from soundsight.config.files import versions
from soundsight.datasets import manifest
from soundsight.datasets.catalogue import Catalogue, read_catalogue
from soundsight.datasets.names import safe_name
from soundsight.datasets.prepare import render_all
from soundsight.datasets.segments import cut_windows
from soundsight.datasets.split import find_leaks, lacking, with_group_folds
from soundsight.datasets.split import folds as given_folds
from soundsight.deprecation import renamed, takes_say
from soundsight.detection import DetectionScores
from soundsight.errors import ConfigError, DatasetError
from soundsight.evaluation.folds import (
    FIGURES,
    Plan,
    Scored,
    is_scored,
    join,
    read_members,
    read_settings,
    score_fold,
    score_folds,
    scores_of,
)
from soundsight.evaluation.scoring import TTA, headline, score_images
from soundsight.evaluation.train import resolve
from soundsight.evaluation.val import columns_of, write_results
from soundsight.files import csv_text, locked, write_text
from soundsight.inference.options import MULTI_THRESHOLD
from soundsight.metrics import Scores, Spread, mean_and_spread

# Arguments of Ultralytics that a cross-validation sets itself, and what to say instead.
GIVEN = {
    "seed": "each fold has its own; write --seeds",
    "imgsz": "images are rendered for it; write image_size=",
    "data": "it trains on the folds of a data set; name that with --dataset or root=",
    "save": "each fold is scored by what was saved",
    "val": "the protocol says whether epochs are scored; write --protocol",
    "plots": "it plots its own",
    "exist_ok": "finished folds are always kept",
    "project": "it writes below runs/crossval; write --name",
    "name": "it writes below runs/crossval; write --name",
    "save_dir": "it writes below runs/crossval; write --name",
    "resume": "the same command continues a run that was killed",
}
LAST = {"patience": "protocol last trains all epochs; set epochs="}  # one more of them, unless epochs are scored
Protocol = Literal["last", "train-val-test"]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CrossValidation:
    """Scores over all folds."""

    folder: Path
    folds: list[int]
    figures: dict[str, Spread]  # over folds, of what `headline` names
    pooled: Scores | DetectionScores  # all clips, each scored by the model that never saw it
    per_fold: dict[int, tuple[float, ...]]  # the figures in their order
    timed: Mapping[str, Any] = field(default_factory=dict)  # see `timed_figures`

    @property
    def top1(self) -> Spread:
        """Of one label per clip."""
        return self.figures["top1"]

    @property
    def top5(self) -> Spread:
        """Of one label per clip."""
        return self.figures["top5"]


@renamed(only="folds", shifts="tta_shifts", speeds="tta_speeds", others="with_")
@takes_say
def crossval(
    dataset: DatasetConfig | None = None,
    spectrogram: SpectrogramConfig | None = None,
    *,
    config: str | Path | None = None,
    augment: AugmentConfig | str | Path | None = "augment.yaml",
    protocol: Protocol = "last",
    folds: Sequence[int] = (),
    groups: int | None = None,
    seeds: Sequence[int] = (0,),
    tta_shifts: int = 1,
    tta_speeds: Sequence[float] = (),
    with_: Sequence[str | Path] = (),
    name: str | None = None,
    runs: str | Path = "runs/crossval",
    workers: int | None = None,
    run: parallel.Run = parallel.run,
    run_folds: parallel.Run | None = None,
    **overrides: Any,
) -> CrossValidation:
    """Train and score every fold of a data set; `logging.getLogger("soundsight")` tells how far it is.

    Args:
        dataset: The data set; strategy `fold` uses its own folds, `group` deals its sources to `groups`.
        spectrogram: How clips are rendered.
        config: Ultralytics `cfg` file; `None` takes the one that `cfg` names, or `configs/train.yaml`.
        augment: Augmentation settings or their file; `None` switches augmentation off.
        protocol: `last` or `train-val-test`; see the head of this module.
        folds: Test just these folds; those that are finished stay in the summary.
        groups: Number of folds made from sources with strategy `group`; `None` makes 5.
        seeds: One training a fold and seed; several are averaged into an ensemble, and reported as one.
        tta_shifts: Average over this many circular time shifts when scoring ...
        tta_speeds: ... and over these speeds, for which the tested clips are rendered anew from their recordings.
        with_: Finished runs on the same data, whose models join the ensemble; reported in a folder `with-...`.
        name: Folder below `runs`; `None` makes one from the settings, so that the same call continues.
        runs: Parent of the run's folder.
        workers: Processes that render.
        run: What gives out the rendering.
        run_folds: What gives out the folds; `None` trains them here, one after the other.
        overrides: Ultralytics arguments; `augment.NAME` keys change the augmentation.

    Raises:
        SoundsightError: Settings, data or weights do not fit; the message says which.
    """
    dataset, spectrogram = dataset or DatasetConfig(), spectrogram or SpectrogramConfig()
    tta = TTA(tta_shifts, tuple(tta_speeds))
    if protocol not in ("last", "train-val-test"):
        raise ConfigError(f"protocol={protocol!r} is not allowed: it must be last or train-val-test.")
    given = GIVEN | (LAST if protocol == "last" else {})
    imgsz = {"imgsz": spectrogram.image_size}
    arguments, augmentation = resolve(config, augment, overrides, given=given, equal={"data": dataset.data, **imgsz})
    arguments = {k: v for k, v in arguments.items() if k not in (*GIVEN, "task", "mode")} | imgsz
    _check_device(arguments.get("device"), elsewhere=run_folds is not None)
    catalogue = _catalogue_with_folds(dataset, groups, spectrogram.clip_seconds)
    tested = _tested_folds(catalogue, folds, protocol)
    report_leaks(catalogue, spectrogram.clip_seconds)
    report_classes(catalogue, tested)
    cut, _ = cut_windows(catalogue, spectrogram.clip_seconds, workers=workers, run=run)
    root, cache, more = Path(dataset.root), Path(dataset.cache), dataset.speed_perturbation
    with locked(cache, seconds=math.inf):
        rows, failures, rendered = render_all(cut, spectrogram, cache, more, workers=workers, run=run)
    log.info("%d images are ready (%d rendered now, %d clips failed).", len(rows), rendered, len(failures))
    settings = _recipe(protocol, seeds, arguments, augmentation) | _describe(dataset, spectrogram, rows)
    folder = _open_folder(Path(runs), name, catalogue.name, settings)
    if folds:  # folds that are finished stay in the summary
        done_before = {f for f in given_folds(catalogue) if all(is_scored(folder, f, seed, tta) for seed in seeds)}
        tested = sorted({*tested, *done_before})
    joining = read_members(with_, tested, settings, tta)
    manifest.write_failures(folder / manifest.FAILURES, failures)
    labels = cut.labels, cut.multi, cut.annotated
    plan = Plan(folder, root, cache, rows, *labels, arguments, spectrogram, augmentation, tta)
    jobs = [(fold, seed) for fold in tested for seed in seeds]
    if run_folds is None:
        scored = {(fold, seed): score_fold(plan, fold, given_folds(catalogue), protocol, seed) for fold, seed in jobs}
    else:
        scored = score_folds(plan, jobs, given_folds(catalogue), protocol, run_folds)
    done = {fold: [scored[fold, seed] for seed in seeds] for fold in tested}
    record: dict[str, Any] = {**settings, **asdict(tta), "versions": versions(), "source": dataset.root}
    summary = _summarise(plan, done, record)
    if not with_:
        return summary
    record["others"] = [read_settings(Path(other)) for other in with_]
    return _summarise(plan, join(done, joining), record, "with-" + "+".join(Path(o).name for o in with_))


def _catalogue_with_folds(dataset: DatasetConfig, groups: int | None, clip_seconds: float) -> Catalogue:
    catalogue = read_catalogue(dataset)
    if dataset.split.strategy in ("group", "given"):
        return with_group_folds(catalogue, 5 if groups is None else groups, dataset.split.seed, clip_seconds)
    if groups is not None:
        raise ConfigError(
            f"--groups {groups} has no effect on {catalogue.name}, which has folds of its own; leave it out, or set "
            "split.strategy=group to make others."
        )
    return catalogue


def _check_device(device: object, *, elsewhere: bool) -> None:
    """Refuse, before anything is rendered, a device that no fold can train on; workers elsewhere have their own."""
    if "," in str(device):
        raise ConfigError(
            f"device={device} is not for a cross-validation, which trains each fold on one device: name one of them, "
            "or give each fold a GPU of its own with --engine ray."
        )
    if not elsewhere:
        choose_device(None if device is None else str(device))


def _recipe(protocol: str, seeds: Sequence[int], arguments: dict[str, Any], augment: AugmentConfig) -> dict[str, Any]:
    """What a model is made of; other weights under the same name make another run."""
    from soundsight.backend.checkpoint import short_file_hash

    starts = {key: Path(str(arguments.get(key))) for key in ("model", "pretrained")}
    return {
        "protocol": protocol,
        "seeds": list(seeds),
        "arguments": {k: v for k, v in arguments.items() if k != "device"},
        "augment": to_dict(augment),
        "weights": {key: short_file_hash(path) for key, path in starts.items() if path.is_file()},
    }


def _describe(dataset: DatasetConfig, spectrogram: SpectrogramConfig, rows: list[manifest.Row]) -> dict[str, Any]:
    """What the images are of, without the folders they lie in."""
    return {
        "dataset": {k: v for k, v in to_dict(dataset, former=True).items() if k not in ("cache", "data", "root")},
        "spectrogram": to_dict(spectrogram),
        **({"renderer": spectrogram.renderer} if spectrogram.renderer > 1 else {}),
        "data_fingerprint": manifest.data_hash(rows),
    }


def report_leaks(catalogue: Catalogue, clip_seconds: float) -> None:
    """Check that no sound is in two folds; say which known exceptions there are."""
    folded = {clip: f"fold {clip.fold}" for clip in catalogue.clips}
    leaks = find_leaks(folded, catalogue.shared_sources, clip_seconds)
    if leaks.unknown:
        raise DatasetError(
            f"{len(leaks.unknown)} source recordings are in more than one fold, such as {leaks.unknown[0]!r}; "
            "their scores would flatter. Correct the fold column, or use split.strategy=group."
        )
    if leaks.copies:
        raise DatasetError(leaks.warnings("fold")[0])
    for text in leaks.warnings("fold"):
        log.warning(text)
    if leaks.known:
        log.info("Known exceptions of %s: groups in two folds are %s; kept.", catalogue.name, ", ".join(leaks.known))
    else:
        log.info("No source recording is in two folds.")


def report_classes(catalogue: Catalogue, tested: Sequence[int]) -> None:
    """Name the classes that a tested fold lacks, and those that only it has."""
    for fold, (side, what) in product(tested, ((True, "tested"), (False, "trained on"))):
        there = {label for clip in catalogue.clips if (clip.fold == fold) == side for label in clip.labels}
        for text in lacking(catalogue.labels, there, f"that is {what} for fold {fold}"):
            log.warning(text)


def _tested_folds(catalogue: Catalogue, only: Sequence[int], protocol: str) -> list[int]:
    if len(catalogue.labels) < 2:
        raise DatasetError(f"{catalogue.name} has only one class, {catalogue.labels[0]!r}; add recordings of another.")
    given = given_folds(catalogue)
    least = 3 if protocol == "train-val-test" else 2
    if len(given) < least:
        raise DatasetError(f"{catalogue.name} has {len(given)} folds; protocol {protocol} needs {least}.")
    for fold in only:
        if fold not in given:
            raise ConfigError(f"Fold {fold} does not exist; {catalogue.name} has {', '.join(map(str, given))}.")
    return sorted(only) or given


def _open_folder(runs: Path, name: str | None, title: str, settings: dict[str, Any]) -> Path:
    text = json.dumps(settings, indent=2, sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    folder = (runs / (name or f"{safe_name(title.lower())}-{digest}")).absolute()
    record = folder / "settings.json"
    if record.is_file() and record.read_text(encoding="utf-8") != text:
        raise ConfigError(f"{folder} holds a cross-validation with other settings or other data; choose another name=.")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(record, text)
    return folder


def _summarise(plan: Plan, done: dict[int, list[Scored]], settings: dict[str, Any], below: str = "") -> CrossValidation:
    """Average the models of each fold, pool the folds, write everything."""
    members = {fold: [scores_of(s) for s in several] for fold, several in done.items()}
    merged = {
        fold: replace(several[0], probabilities=np.mean([s.probabilities for s in several], axis=0))
        for fold, several in done.items()
    }
    told = {fold: headline(scores_of(s)) for fold, s in merged.items()}
    keys = [key for key in headline(next(iter(members.values()))[0]) if all(key in found for found in told.values())]
    per_fold = {fold: tuple(found[key] for key in keys) for fold, found in told.items()}
    pooled = score_images(
        np.concatenate([s.targets for s in merged.values()]),
        np.concatenate([s.probabilities for s in merged.values()]),
        next(iter(merged.values())).names,
    )
    spreads = {key: mean_and_spread([found[key] for found in told.values()]) for key in keys}
    row_of = {row.image: row for row in plan.rows}
    rows = [row_of[image] for s in merged.values() for image in s.images]
    extra = {
        "folds": {str(fold): dict(zip(keys, found, strict=True)) for fold, found in per_fold.items()},
        **{f"{key}_over_folds": spread._asdict() for key, spread in spreads.items()},
        f"single_models_{keys[0]}": {
            str(fold): [headline(member)[keys[0]] for member in several] for fold, several in members.items()
        },
        "settings": settings,
    }
    folder = plan.folder / below / str(plan.tta)
    folder.mkdir(parents=True, exist_ok=True)
    timed = write_results(
        pooled,
        folder,
        columns_of(rows, [row.file for row in rows], plan.spectrogram.clip_seconds),
        thresholds=MULTI_THRESHOLD if plan.multi else 0.0,
        annotated=plan.annotated,
        extra=extra,
    )
    table = [(fold, *(f"{value:.4f}" for value in found)) for fold, found in per_fold.items()]
    write_text(folder / "folds.csv", csv_text([("fold", *keys), *table]))
    first = spreads[keys[0]]
    deviation = "" if first.std is None else f" ± {first.std:.2%}"
    log.info(f"{FIGURES[keys[0]]} over {len(per_fold)} folds: {first.mean:.2%}{deviation}; see {folder}.")
    return CrossValidation(folder, list(per_fold), spreads, pooled, per_fold, timed)
