"""A whole recording for an image: its spectrogram and the probabilities, coarser the longer it is.

Memory stays the same however long the recording; rendering is the business of `report`.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from soundsight.config import SpectrogramConfig
from soundsight.inference.pipeline import Rendered
from soundsight.inference.results import Prediction

COLUMNS, SEGMENTS, CLASSES = 8192, 2048, 10


class Timeline:
    """Gathers the segments of one recording."""

    def __init__(self, config: SpectrogramConfig) -> None:
        self.config = config
        self.column_seconds = config.hop_length / config.sample_rate
        self.canvas = np.full((config.image_size, COLUMNS), -np.inf, np.float32)  # dB re full scale
        self.reference_db = -math.inf  # of the loudest segment: 0 dB of the whole recording
        self.predictions: list[tuple[float, float, npt.NDArray[np.float32]]] = []
        self.names: tuple[str, ...] = ()
        self.reported: set[str] = set()

    def add(self, segment: Prediction, rendered: Rendered) -> None:
        """Take a segment and its image; where segments overlap, the later image is on top."""
        self.names = segment.model.names
        self.reported.update(label for label, _ in segment.sounds)
        self.predictions.append((segment.start_seconds, segment.end_seconds, segment.probabilities))
        if len(self.predictions) > SEGMENTS:
            pairs = zip(self.predictions[::2], self.predictions[1::2], strict=False)
            rest = self.predictions[len(self.predictions) // 2 * 2 :]
            half = np.float32(0.5)
            self.predictions = [(a[0], max(a[1], b[1]), (a[2] + b[2]) * half) for a, b in pairs] + rest
        while segment.end_seconds > COLUMNS * self.column_seconds:
            self.canvas[:, : COLUMNS // 2] = np.maximum(self.canvas[:, ::2], self.canvas[:, 1::2])
            self.canvas[:, COLUMNS // 2 :] = -np.inf
            self.column_seconds *= 2
        first = math.floor(segment.start_seconds / self.column_seconds)
        last = min(COLUMNS, math.ceil(segment.end_seconds / self.column_seconds))
        times = (np.arange(first, last) + 0.5) * self.column_seconds - segment.start_seconds
        step = self.config.hop_length / self.config.sample_rate
        columns = np.clip((times / step).astype(int), 0, self.config.image_size - 1)
        span = self.config.db_ceiling - self.config.db_floor
        level = self.config.db_floor + rendered.image[:, columns, 0] / np.float32(255) * np.float32(span)
        self.canvas[:, first:last] = level + rendered.reference_db
        self.reference_db = max(self.reference_db, rendered.reference_db)

    def levels(self, duration_seconds: float) -> npt.NDArray[np.float64]:
        """Levels in dB over the duration, `(bands, columns)`, lowest band first; 0 dB is one level throughout."""
        columns = max(1, min(COLUMNS, math.ceil(duration_seconds / self.column_seconds - 1e-6)))
        span = self.config.db_ceiling - self.config.db_floor
        return self.config.db_floor + self.grey(columns)[::-1] / 255.0 * span

    def grey(self, columns: int) -> npt.NDArray[np.uint8]:
        """The first columns as uint8 `(bands, columns)`, highest band first: 0 is `db_floor`, 255 `db_ceiling`."""
        low, high = self.config.db_floor, self.config.db_ceiling
        with np.errstate(invalid="ignore"):  # silence beside silence
            level = np.nan_to_num(self.canvas[:, :columns] - np.float32(self.reference_db), nan=low, neginf=low)
        return np.rint(255 * (np.clip(level, low, high) - low) / (high - low)).astype(np.uint8)

    def classes(self) -> list[str]:
        """The classes worth a track: those on top somewhere, or reported, the likeliest first."""
        total = np.sum([p for _, _, p in self.predictions], axis=0)
        top = {int(p.argmax()) for _, _, p in self.predictions if p.any()} | {*map(self.names.index, self.reported)}
        order = [int(i) for i in np.argsort(-total, kind="stable")]
        chosen = [i for i in order if i in top][:CLASSES] or order[:1]
        chosen += [i for i in order if i not in chosen][: max(0, 3 - len(chosen))]
        return [self.names[i] for i in chosen]

    def scores(self, classes: list[str]) -> list[tuple[float, float, dict[str, float]]]:
        """(start, end, probability of each class) of each segment."""
        index = [self.names.index(name) for name in classes]
        return [
            (start, end, {name: min(1.0, float(p[i])) for name, i in zip(classes, index, strict=True)})
            for start, end, p in self.predictions
        ]
