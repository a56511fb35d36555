"""Feature vectors as Parquet: recording, start, end (s) and vector, with the model in the file's metadata."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import IO, Any

import numpy as np

from soundsight.inference.formats.base import load_pyarrow
from soundsight.inference.results import Model, Vector

ROW_GROUP = 1024  # vectors that are written at once


def write_vectors(events: Iterable[Any], writer: VectorWriter, failed: Callable[[str, str], None]) -> None:
    """Hand the vectors among the events of `Predictor.vectors` to a writer, which is left open.

    Args:
        events: Vectors, and a summary at the end of each recording.
        writer: Takes them.
        failed: Told (recording, reason) of what could not be read.
    """
    for event in events:
        if isinstance(event, Vector):
            writer.write(event)
        elif event.failure:
            failed(event.recording, event.failure)


class VectorWriter:
    """Takes vectors and writes them group by group."""

    def __init__(self, stream: IO[bytes], model: Model, *, size: int | None = None) -> None:
        """Write to `stream`; `size` is the vectors' length, for a file that may end up without any."""
        self.stream = stream
        self.model = model
        self.size = size
        self.file: Any = None
        self.held: list[Vector] = []
        self.count = 0  # of all vectors

    def write(self, vector: Vector) -> None:
        """Take one vector."""
        self.held.append(vector)
        self.count += 1
        if len(self.held) >= ROW_GROUP:
            self._flush()

    def close(self, metadata: Mapping[bytes, bytes] | None = None) -> None:
        """Write the rest; without any vector the file has columns and no rows. `metadata` is added to the file's."""
        self._flush()
        if metadata:
            self.file.add_key_value_metadata(metadata)
        self.file.close()

    def _flush(self) -> None:
        pyarrow, parquet = load_pyarrow()
        size = len(self.held[0].vector) if self.held else self.size or 1
        if self.file is None:
            types = [
                ("recording", pyarrow.string()),
                ("start", pyarrow.float64()),
                ("end", pyarrow.float64()),
            ]
            schema = pyarrow.schema([*types, ("vector", pyarrow.list_(pyarrow.float32(), size))])
            metadata = {
                "soundsight.model": self.model.model_hash,
                "soundsight.settings": self.model.settings,
            }
            self.schema = schema.with_metadata(metadata)
            self.file = parquet.ParquetWriter(self.stream, self.schema)
        if not self.held:
            return
        values = np.concatenate([vector.vector for vector in self.held]).astype(np.float32)
        columns = [
            pyarrow.array([vector.recording for vector in self.held], pyarrow.string()),
            pyarrow.array([vector.start_seconds for vector in self.held]),
            pyarrow.array([vector.end_seconds for vector in self.held]),
            pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(values), size),
        ]
        self.file.write_table(pyarrow.Table.from_arrays(columns, schema=self.schema))
        self.held = []
