"""Seen: what a model was trained on travels inside it, so that a score can say which of its clips are no test.

Of each image the recording and the clip are hashed: by the text inside the image, which holds the recording's SHA-256
and the segment, or by the file where another tool made it. Groups are hashed by their name within their data set.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from soundsight.backend.compat import VALIDATION
from soundsight.datasets import images as images
from soundsight.datasets import manifest
from soundsight.datasets.catalogue import kinds
from soundsight.errors import ConfigError, ModelError
from soundsight.evaluation.scoring import SplitImages
from soundsight.files import images_in, sha256
from soundsight.reports.wording import seen_message

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Seen:
    """How many of the scored clips a model knows."""

    scored: int
    clips: int  # that it was trained on
    siblings: int  # further ones, of recordings or groups that it was trained on
    published: int  # further ones, of groups whose publisher put them into several folds
    tuned: int  # that chose its epoch, or fitted its temperature and threshold
    uses: tuple[str, ...]  # what the tuned ones were for


def record(data: str | Path) -> dict[str, Any]:
    """What a checkpoint carries of the images in a data folder: the hashes of `train` and of `val`, as text.

    100,000 clips that are whole recordings take 1.1 million characters.
    """
    held = next((name for name in (*VALIDATION, "test") if (Path(data) / name).is_dir()), "val")
    folders = {"train": "train", "val": held}
    found = {split: _encode(np.concatenate(_hashes(images_in(Path(data) / name)))) for split, name in folders.items()}
    rows = [row for row in manifest.read_rows(Path(data) / manifest.MANIFEST) if row.split == "train"]
    return {**found, "groups": _encode(_groups(rows, data))}


def with_start(found: dict[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any] | None:
    """The same with what the starting weights were trained on; `None` if they are ours and do not say."""
    for path, before in _starts(arguments):
        if before is None:
            return None
        for split in found:
            found[split] = _encode(np.concatenate([_decode(before, split, path), _decode(found, split, path)]))
    return found


def check_start(tested: Path, arguments: Mapping[str, Any]) -> list[str]:
    """The starting weights that do not say what they were trained on, one message each."""
    unknown = []
    for path, before in _starts(arguments):
        if before is None:
            unknown.append(f"{path} does not say what it was trained on; if it knows tested clips, its score flatters.")
            continue
        clips, recordings = _hashes(images_in(tested))
        if count := int(np.isin([clips, recordings], _decode(before, "train", path)).any(0).sum()):
            raise ConfigError(
                f"The starting weights {path} were trained on {count} of the {len(clips)} tested clips, or on their "
                "recordings, so that the score would flatter; start from others, such as yolov8n-cls.pt."
            )
    return unknown


def _starts(arguments: Mapping[str, Any]) -> Iterator[tuple[Path, Any]]:
    """The starting weights of ours that training arguments name, and what each says that it was trained on."""
    from soundsight.backend.checkpoint import checkpoint_model, load_checkpoint

    for key in ("model", "pretrained"):
        path = Path(str(arguments.get(key)))
        if path.suffix == ".pt" and path.is_file():
            preprocessing = getattr(checkpoint_model(load_checkpoint(path)), "soundsight", None)
            if preprocessing is not None:
                yield path, preprocessing.get("seen")


def compare(found: SplitImages, data: str | Path, preprocessing: Any, model: str | Path) -> Seen | None:
    """How many of the images to score a model knows; `None` if it does not say what it was trained on."""
    if preprocessing.seen is None:
        return None
    known = {split: _decode(preprocessing.seen, split, model) for split in ("train", "val", "groups")}
    clips, recordings = _hashes(found.files)
    trained = np.isin(clips, known["train"])
    manifested = manifest.read_rows(Path(data) / manifest.MANIFEST)
    used = set(known["train"].tolist())
    groups = {row.source for row in manifested if _number(row.sha256) in used}
    kind = str((manifest.settings_of(data).get("dataset") or {}).get("kind"))
    named = [row.source if row else "" for row in found.rows]
    siblings = np.isin(recordings, known["train"]) | np.array([group in groups for group in named])
    siblings |= np.isin(_groups(found.rows, data), known["groups"])
    siblings &= ~trained
    published = siblings & np.isin(named, list(kinds()[kind].shared_groups if kind in kinds() else ()))
    uses = ["chose its epoch"] * (Path(model).stem == "best")
    uses += ["fitted its temperature and threshold"] * (preprocessing.temperature != 1 or preprocessing.threshold > 0)
    tuned = np.isin(clips, known["val"]) & bool(uses)
    known_to, related, shared, chose = (int(part.sum()) for part in (trained, siblings & ~published, published, tuned))
    return Seen(len(clips), known_to, related, shared, chose, tuple(uses))


def refuse(seen: Seen | None, split: str, data: str | Path) -> None:
    """Check that no clip to score, nor a sibling of it, was trained on."""
    if seen is not None and (seen.clips or seen.siblings):
        raise ConfigError(
            f"{seen_message(asdict(seen))} They are in the split {split!r} of {data}. Score the model on clips that "
            "it does not know, such as the test clips of the folder it was trained with, or add --allow-seen."
        )


def _hashes(files: Iterable[Path]) -> tuple[Hashes, Hashes]:
    """Eight bytes of the SHA-256 of each clip, and of each recording; they are equal for a whole recording."""
    clips, recordings = [], []
    for file in files:
        key = images.read_key(file)
        digest, stretch = key.split()[2:4] if key else (sha256(str(file)), "0.000000-")
        recordings.append(_number(digest))
        whole = stretch == "0.000000-"
        clips.append(_number(digest if whole else hashlib.sha256(f"{digest} {stretch}".encode()).hexdigest()))
    return np.array(clips, np.uint64), np.array(recordings, np.uint64)


def _groups(rows: Sequence[manifest.Row | None], data: str | Path) -> Hashes:
    """Eight bytes of the SHA-256 of each row's group and its data set; 0 where a recording is its own group."""
    dataset = manifest.settings_of(data).get("dataset") or {}
    freesound = dataset.get("kind") in ("esc50", "esc10", "urbansound8k")  # their groups are numbers of its sounds
    within = "freesound" if freesound else Path(str(dataset.get("root"))).resolve().as_posix()
    named = (row.source if row and row.source != row.file else "" for row in rows)
    hashes = [hashlib.sha256(f"{within} {name}".encode()).hexdigest() if name else "" for name in named]
    return np.array([_number(digest) for digest in hashes], np.uint64)


def _number(digest: str) -> int:
    return int(digest[:16] or "0", 16)


def _encode(hashes: Hashes) -> str:
    """Text rather than bytes, so that it travels in JSON and past every check of a checkpoint."""
    return base64.b64encode(np.unique(hashes[hashes > 0]).astype("<u8").tobytes()).decode("ascii")


def _decode(seen: Mapping[str, str], split: str, path: str | Path) -> Hashes:
    try:
        text = seen[split] if split != "groups" or split in seen else ""  # 0.1.0 kept no groups
        return np.frombuffer(base64.b64decode(text, validate=True), "<u8")
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"What {path} says of its training clips is damaged.") from error
