"""From a folder of images and a model to probabilities, one row per image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from soundsight import checks
from soundsight.config import BACKGROUND, SpectrogramConfig, check_speeds
from soundsight.datasets import images as images
from soundsight.datasets import manifest
from soundsight.datasets.catalogue import Clip
from soundsight.datasets.manifest import Row
from soundsight.datasets.multi import labelled
from soundsight.datasets.names import safe_name
from soundsight.detection import DetectionScores, score_detections
from soundsight.errors import ConfigError, DatasetError, ModelError
from soundsight.files import images_in
from soundsight.metrics import Scores, score
from soundsight.models.classifier import Classifier
from soundsight.models.load import load_classifier


@dataclass(frozen=True)
class TTA:
    """Test-time augmentation: several versions of each clip, whose log-probabilities are averaged."""

    shifts: int = 1  # circular time shifts
    speeds: tuple[float, ...] = ()  # also rendered at these, each in all time shifts

    def __post_init__(self) -> None:
        check_speeds(self.speeds)
        if self.shifts < 1:
            raise ConfigError(f"shifts={self.shifts} is not allowed: it must be 1 or more.")

    def __str__(self) -> str:
        """For names of files; empty without TTA."""
        speeds = "speeds" + "+".join(f"{speed:g}" for speed in self.speeds)
        return "-".join([f"shifts{self.shifts}"] * (self.shifts > 1) + [speeds] * bool(self.speeds))


@dataclass(frozen=True)
class SplitImages:
    """Labelled images of one split, in a fixed order."""

    files: list[Path]
    # Indices into the model's names, int64 (N,); or which of them each has, uint8 (N, C), with several labels per clip.
    targets: npt.NDArray[np.int64] | npt.NDArray[np.uint8]
    rows: list[Row | None]  # manifest rows, where the folder has a manifest


def list_images(data: str | Path, split: str, names: Sequence[str], *, multi: bool = False) -> SplitImages:
    """The images of a split, with classes in the model's order."""
    if not multi and manifest.is_multi(data):
        raise DatasetError(
            f"{data} holds clips of several classes or none, but the model gives one label per clip (labels=single); "
            "train one with labels=multi, or score its predictions of recordings with `soundsight score`."
        )
    folder = Path(data) / split
    if not folder.is_dir():
        raise DatasetError(f"The split {split!r} does not exist in {data}; it needs a folder {folder}.")
    classes = sorted(p.name for p in folder.iterdir() if p.is_dir() and not (multi and p.name == BACKGROUND))
    folders = [name if name in classes else safe_name(name) for name in names]  # of our making, or another tool's
    unknown = sorted(set(classes) - set(folders))
    if unknown:
        raise DatasetError(
            f"{folder} holds {len(unknown)} classes that the model was not trained on, such as {unknown[0]!r}; "
            "score a model on the classes it knows."
        )
    listed = [row for row in manifest.read_rows(Path(data) / manifest.MANIFEST) if row.split == split]
    files, targets = labelled(folder, folders, multi=multi)
    if not files:
        raise DatasetError(f"{folder} holds no images; run `soundsight prepare`, or choose another split.")
    by_path = {folder / row.image: row for row in listed}
    by_name = {Path(row.image).name: row for row in listed} if multi and manifest.is_multi(data) else {}
    return SplitImages(files, targets, [by_name.get(file.name, by_path.get(file)) for file in files])


def score_images(
    targets: npt.ArrayLike, probabilities: npt.ArrayLike, names: Sequence[str]
) -> Scores | DetectionScores:
    """Figures of one label per clip, targets `(N,)`, or of several, targets `(N, C)`."""
    several = np.ndim(targets) == 2
    return score_detections(targets, probabilities, names) if several else score(targets, probabilities, names)


def headline(scores: Scores | DetectionScores) -> dict[str, float]:
    """The figures that are told first, by their key: top-1 and top-5, or with several labels per clip mAP.

    Where all clips have exactly one of them after all, the share whose most probable class is right comes with it.
    """
    if isinstance(scores, Scores):
        return {"top1": scores.top1, "top5": scores.top5}
    figures = {"macro_map": scores.macro_map, "micro_map": scores.micro_map}
    if (scores.targets.sum(axis=1) == 1).all():
        right = scores.targets[np.arange(scores.count), scores.probabilities.argmax(axis=1)]
        figures["top1"] = float(right.mean())
    return figures


def classes_in(folder: Path) -> set[str]:
    """The class folders of a split that hold an image."""
    return {path.name for path in folder.glob("*") if path.is_dir() and images_in(path)}


def check_preprocessing(files: Sequence[Path], config: SpectrogramConfig, model: str | Path) -> None:
    """Make sure that images were rendered with the model's settings."""
    renderer, wanted = images.settings_key(config).split()
    for file in files:
        key = (images.read_key(file) or "").split()[:2]
        if key[1:] == [wanted] and key[0] != renderer:
            checks.check_renderer(config, None, file, DatasetError)
        if key and key[1:] != [wanted]:
            raise ModelError(
                f"{file} was rendered with other spectrogram settings than {model} was trained with; prepare the "
                "data with the model's settings, or train a model on this data."
            )


def compare(
    one: str | Path,
    other: str | Path,
    data: str | Path,
    *,
    split: str = "val",
    spectrogram: SpectrogramConfig | None = None,
    trust: bool = False,
) -> tuple[int, float, float, float]:
    """Number of clips of a split, top-1 of two models on them, and the share for which both name the same class.

    With several labels per clip, the shares are of all decisions whether a clip has a class.
    """
    named = []
    for model in (one, other):
        classifier = load_classifier(model, spectrogram=spectrogram, trust=trust)
        found = list_images(data, split, classifier.preprocessing.names, multi=classifier.multi)
        check_preprocessing(found.files, classifier.preprocessing.spectrogram, model)
        logits = logits_of(classifier, found.files)
        named.append(logits > 0 if classifier.multi else logits.argmax(axis=1))
    first, second = (float((classes == found.targets).mean()) for classes in named)
    return len(found.files), first, second, float((named[0] == named[1]).mean())


def clips_of(rows: Sequence[Row | None], root: str | Path) -> list[Clip]:
    """The clips that images were rendered from, to render them at other speeds."""
    if None in rows:
        raise DatasetError(
            "speeds= renders the clips anew, but no manifest tells their recordings; prepare the data again."
        )
    return [
        Clip(
            Path(root, row.file),
            row.file,
            row.label,
            row.image,
            row.source,
            start_seconds=row.start_seconds,
            end_seconds=float(row.end_seconds) if row.end_seconds else None,
        )
        for row in rows
        if row
    ]


def logits_of(
    classifier: Classifier,
    files: Sequence[Path],
    *,
    batch: int = 64,
    tta: TTA | None = None,
    clips: Sequence[Clip] = (),
) -> npt.NDArray[np.float32]:
    """Raw scores `(N, classes)` of images; with TTA the mean over the versions.

    The mean is one of log-probabilities, so that a temperature still applies.
    """
    tta = tta or TTA()
    config, parts = classifier.preprocessing.spectrogram, []
    for start in range(0, len(files), batch):
        versions = []
        for number in range(start, min(start + batch, len(files))):
            versions.append(images.read_image(files[number]))
            versions += [images.render_clip(replace(clips[number], speed=speed), config) for speed in tta.speeds]
        parts.append(classifier.scores(np.stack(versions), shifts=tta.shifts, images_per_segment=1 + len(tta.speeds)))
    return np.concatenate(parts)
