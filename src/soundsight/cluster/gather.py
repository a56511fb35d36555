"""Shards into one file: the same bytes that the local command would have written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from soundsight.cluster.shards import Shards, shard_name
from soundsight.errors import ConfigError
from soundsight.inference.embeddings import VectorWriter
from soundsight.inference.formats import FORMATS
from soundsight.inference.formats.base import Context
from soundsight.inference.results import Model, Vector

SHARDED = tuple(name for name, writer in FORMATS.items() if writer.sharded)


@dataclass(frozen=True)
class _Rows:
    """A segment as it was written: what writers ask a `Prediction` for."""

    recording: str
    ranked: list[dict[str, Any]]

    def rows(self, top_k: int) -> list[dict[str, Any]]:
        return self.ranked[:top_k]


def gather_predictions(store: Shards, stream: IO[bytes], chosen: str, top_k: int) -> None:
    """Write the predictions of all shards, in the order of the list.

    Args:
        store: A finished job.
        stream: Where to.
        chosen: One of `SHARDED`.
        top_k: Ranks per segment.

    Raises:
        ConfigError: The format is another one, or a shard cannot be read.
    """
    if chosen not in SHARDED:
        raise ConfigError(f"Format {chosen} is not written by the engine ray; {', '.join(SHARDED)} are.")
    writer: Any = FORMATS[chosen](stream, Context(top_k))
    segment: _Rows | None = None
    for table in _tables(store):
        for row in table.to_pylist():
            row["probability"] = round(float(row["probability"]), 6)  # as it was before it became a float32
            if row["rank"] > 1 and segment:
                segment.ranked.append(row)
                continue
            if segment:
                writer.write(segment)
            segment = _Rows(row["recording"], [row])
    if segment:
        writer.write(segment)
    writer.close()


def gather_vectors(store: Shards, stream: IO[bytes]) -> None:
    """Write the vectors of all shards, in the order of the list."""
    import numpy as np

    writer: VectorWriter | None = None
    for table in _tables(store):
        if writer is None:
            said = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
            model = Model((), said["soundsight.model"], said["soundsight.settings"])
            writer = VectorWriter(stream, model, size=table.schema.field("vector").type.list_size)
        columns = [table[name].to_pylist() for name in ("recording", "start", "end", "vector")]
        for recording, start, end, vector in zip(*columns, strict=True):
            writer.write(Vector(recording, start, end, np.array(vector, np.float32)))
    if writer is not None:
        writer.close()


def _tables(store: Shards) -> Iterator[Any]:
    from pyarrow import parquet

    for index in range(store.count):
        with store.storage.open(shard_name(index)) as stream:
            yield parquet.read_table(stream)
