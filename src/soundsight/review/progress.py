"""What people decided about detections, in one file that is written after every decision."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from soundsight.errors import ConfigError
from soundsight.evaluation.predicted import Row
from soundsight.files import locked, read_json, write_text
from soundsight.review.detections import Detections

VERSION = 1
VERDICTS = ("yes", "no", "other", "several", "unsure")
Key = tuple[str, float, float, str]  # recording, start, end, class: of a detection


class Decision(NamedTuple):
    """What somebody decided about one detection."""

    recording: str
    start: float  # seconds
    end: float
    label: str  # the class that was detected
    probability: float
    verdict: str  # of VERDICTS; "no": none of the classes is in there
    labels: tuple[str, ...]  # the classes that are in there; of "no" and "unsure" none
    at: str = ""  # when, ISO 8601 in UTC

    @property
    def key(self) -> Key:
        """Which detection it is about."""
        return self[:4]


class Review:
    """The decisions of one reviewer about a queue of detections."""

    def __init__(self, path: Path, detections: Detections, queue: Sequence[Row], decisions: Sequence[Decision]) -> None:
        self.path, self.detections, self.queue = path, detections, queue
        self.decisions = {decision.key: decision for decision in decisions}  # in the order in which they were made
        self._lock = threading.Lock()

    @property
    def left(self) -> list[int]:
        """The numbers, in the queue, of detections that are not decided."""
        return [number for number, row in enumerate(self.queue) if row[:4] not in self.decisions]

    def decide(self, number: int, verdict: str, labels: Sequence[str] = ()) -> None:
        """Decide about one detection of the queue, and write the file.

        Raises:
            ConfigError: There is no such detection, it is decided, or the classes do not fit the verdict.
        """
        with self._lock:
            if number not in self.left:
                raise ConfigError("This detection is decided already; load the page again to see what is left.")
            row = self.queue[number]
            labels = (row.label,) if verdict == "yes" else tuple(dict.fromkeys(labels))
            fits = {"no": not labels, "unsure": not labels, "other": len(labels) == 1, "several": len(labels) > 0}
            if not fits.get(verdict, verdict == "yes") or not all(labels):
                raise ConfigError(f"The decision {verdict!r} with {len(labels)} classes is not allowed.")
            at = datetime.now(UTC).isoformat(timespec="seconds")
            decision = Decision(*row[:5], verdict, labels, at)
            self._write({**self.decisions, decision.key: decision})

    def undo(self) -> int | None:
        """Take the last decision back; the number in the queue of its detection, `None` if there is none."""
        with self._lock:
            if not self.decisions:
                return None
            *kept, last = self.decisions.values()
            self._write({decision.key: decision for decision in kept})
            keys = [row[:4] for row in self.queue]
            return keys.index(last.key) if last.key in keys else None

    def _write(self, decisions: dict[Key, Decision]) -> None:
        content = {
            "soundsight_review": VERSION,
            "predictions": self.detections.path.name,
            "predictions_sha256": self.detections.hash,
            "models": sorted(self.detections.models),
            "decisions": [decision._asdict() for decision in decisions.values()],
        }
        write_text(self.path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")
        self.decisions = decisions


def read_decisions(path: Path, detections: Detections) -> list[Decision]:
    """The decisions in a file about this table of predictions, in the order in which they were made.

    Raises:
        ConfigError: The file is no review, is damaged, or is of another table.
    """
    try:
        content = read_json(path)
        if not isinstance(content, dict) or "soundsight_review" not in content:
            raise ConfigError(f"{path} is no review; name a file that `soundsight review` wrote, or a new one.")
        if content["soundsight_review"] != VERSION:
            raise ConfigError(f"{path} was written by a newer Soundsight; upgrade soundsight.")
        decisions = [_decision(found) for found in content["decisions"]]
        name, sha256 = content["predictions"], content["predictions_sha256"]
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror or error}).") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is damaged ({str(error)[:200]}); name another file with --reviews.") from error
    if sha256 != detections.hash:
        raise ConfigError(
            f"{path} is a review of another table of predictions ({name}, SHA-256 {str(sha256)[:12]}), not of "
            f"{detections.path} ({detections.hash[:12]}); name its table, or another file with --reviews."
        )
    return decisions


def _decision(found: Any) -> Decision:
    decision = Decision(**{**found, "labels": tuple(found["labels"])})
    if decision.verdict not in VERDICTS:
        raise ValueError(f"the verdict {decision.verdict!r}")
    return decision


@contextmanager
def sitting(path: Path, detections: Detections, queue: Sequence[Row]) -> Iterator[Review]:
    """A review that goes on where its file ends; nobody else can write the file meanwhile.

    Raises:
        ConfigError: See `read_decisions`; or another reviewer has the file open.
    """
    busy = (
        f"Another `soundsight review` has {path} open; give each reviewer a file of their own with --reviews FILE: "
        "several are merged."
    )
    with locked(path.parent, name=f"{path.name}.lock", busy=busy):
        yield Review(path, detections, queue, read_decisions(path, detections) if path.exists() else [])
