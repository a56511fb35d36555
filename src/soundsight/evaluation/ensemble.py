"""Predictions of earlier cross-validations, to be averaged with those of this one: an ensemble, fold by fold.

A member may have any model, recipe or spectrogram. It must have been scored on the same recordings, labels and
folds, so that each clip is still predicted only by models that never saw it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from soundsight.errors import ConfigError, DatasetError
from soundsight.evaluation.folds import Scored, read_scored, result_name
from soundsight.evaluation.scoring import TTA
from soundsight.files import read_json


def read_members(
    runs: Sequence[str | Path], tested: Iterable[int], settings: dict[str, Any], tta: TTA
) -> dict[int, list[Scored]]:
    """Predictions of the models of other runs."""
    members: dict[int, list[Scored]] = {fold: [] for fold in tested}
    for run in map(Path, runs):
        theirs = read_settings(run)
        if theirs.get("data_fingerprint") != settings["data_fingerprint"]:
            raise DatasetError(
                f"{run} was scored on other recordings, labels or folds; only runs on the same data can be averaged."
            )
        if theirs.get("protocol") != settings["protocol"]:
            raise ConfigError(
                f"{run} has protocol {theirs.get('protocol')}, this run {settings['protocol']}; average runs of one."
            )
        for fold, found in members.items():
            results = [run / f"fold{fold}-seed{seed}" / result_name(tta) for seed in theirs.get("seeds", [])]
            if not results or not all(result.is_file() for result in results):
                with_tta = f" with shifts={tta.shifts}, speeds={list(tta.speeds)}" if str(tta) else ""
                raise DatasetError(
                    f"{run} has no predictions for fold {fold}{with_tta}; finish it first, or choose --folds."
                )
            found.extend(read_scored(result) for result in results)
    return members


def read_settings(run: Path) -> dict[str, Any]:
    """What a cross-validation says of itself."""
    with suppress(OSError, ValueError):
        settings = read_json(run / "settings.json")
        if isinstance(settings, dict) and "data_fingerprint" in settings:
            return settings
    raise ConfigError(f"{run} holds no cross-validation; name folders below runs/crossval.")


def join(done: dict[int, list[Scored]], members: dict[int, list[Scored]]) -> dict[int, list[Scored]]:
    """Each fold's predictions and those of the members, in the order of the fold's first."""
    return {
        fold: several + [_in_order_of(several[0], other) for other in members[fold]] for fold, several in done.items()
    }


def _in_order_of(first: Scored, other: Scored) -> Scored:
    """The predictions of `other` for the images and classes of `first`, in its order."""
    if other.names != first.names or sorted(other.images) != sorted(first.images):
        raise DatasetError(
            "The runs do not predict the same clips and classes; only runs on the same data can be averaged."
        )
    place = {image: n for n, image in enumerate(other.images)}
    order = [place[image] for image in first.images]
    return replace(other, images=first.images, targets=other.targets[order], probabilities=other.probabilities[order])
