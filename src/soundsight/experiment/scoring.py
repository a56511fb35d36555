"""From a folder of pictures and a model to probabilities, one row a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from soundsight.config import SpectrogramConfig, fingerprint
from soundsight.dataset import manifest, pictures
from soundsight.dataset.manifest import Row
from soundsight.errors import DatasetError, ModelError
from soundsight.yolo.classifier import Classifier

Images = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Pictures:
    """Labelled pictures of one split, in a fixed order."""

    files: list[Path]
    targets: npt.NDArray[np.int64]  # (N,), indices into the model's names
    rows: list[Row | None]  # manifest rows, where the folder has a manifest


def list_pictures(data: str | Path, split: str, names: Sequence[str]) -> Pictures:
    """The pictures of a split, with classes in the model's order.

    Raises:
        DatasetError: The split is missing or empty, or has classes that the model does not know.
    """
    folder = Path(data) / split
    if not folder.is_dir():
        raise DatasetError(f"The split {split!r} does not exist in {data}; it needs a folder {folder}.")
    classes = sorted(p.name for p in folder.iterdir() if p.is_dir())
    unknown = sorted(set(classes) - set(names))
    if unknown:
        raise DatasetError(
            f"{folder} holds {len(unknown)} classes that the model was not trained on, such as {unknown[0]!r}; "
            "score a model on the classes it knows."
        )
    rows = {Path(data) / row.split / row.image: row for row in manifest.read_rows(Path(data) / manifest.MANIFEST)}
    files, targets = [], []
    for label, name in enumerate(names):
        found = sorted((folder / name).glob("*.png"))
        files += found
        targets += [label] * len(found)
    if not files:
        raise DatasetError(f"{folder} holds no PNG pictures; run `soundsight prepare`, or choose another split.")
    return Pictures(files, np.array(targets), [rows.get(file) for file in files])


def check_ears(files: Sequence[Path], config: SpectrogramConfig, model: str | Path) -> None:
    """Make sure that pictures were drawn as the model hears.

    Raises:
        ModelError: A picture of ours was drawn with other settings.
    """
    wanted = fingerprint(config)
    for file in files:
        key = pictures.read_key(file)
        if key is not None and key.split()[1:2] != [wanted]:
            raise ModelError(
                f"{file} was drawn with other spectrogram settings than {model} was trained with; prepare the "
                "data with the model's settings, or train a model on this data."
            )


def read_picture(file: Path) -> Images:
    """One PNG as uint8 RGB `(height, width, 3)`."""
    pixels = cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise DatasetError(f"The picture {file} is damaged; run `soundsight prepare` to draw it again.")
    return np.ascontiguousarray(pixels[:, :, ::-1])


def logits_of(
    classifier: Classifier, files: Sequence[Path], *, batch: int = 64, shifts: int = 1
) -> npt.NDArray[np.float32]:
    """Raw scores `(N, classes)` of pictures; with `shifts` > 1 the mean over circular time shifts.

    The mean is one of log-probabilities, so that a temperature still applies.
    """
    parts = []
    for images in _batches(files, batch):
        width = images.shape[2]
        turned = [np.roll(images, round(width * k / shifts), axis=2) for k in range(shifts)]
        scores = np.stack([log_softmax(classifier.logits(image)) for image in turned])
        parts.append(scores.mean(axis=0))
    return np.concatenate(parts)


def log_softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Log-probabilities `(N, C)` of raw scores."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _batches(files: Sequence[Path], size: int) -> Iterator[Images]:
    for start in range(0, len(files), size):
        yield np.stack([read_picture(file) for file in files[start : start + size]])
