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
    """A window as it was written: what writers ask a `Window` for."""

    recording: str
    ranked: list[dict[str, Any]]

    def rows(self, top_k: int) -> list[dict[str, Any]]:
        return self.ranked[:top_k]


def gather_predictions(store: Shards, stream: IO[bytes], chosen: str, top_k: int) -> None:
    """Write the answers of all shards, in the order of the list.

    Args:
        store: A finished job.
        stream: Where to.
        chosen: One of `SHARDED`.
        top_k: Ranks a window.

    Raises:
        ConfigError: The format is another one, or a shard cannot be read.
    """
    if chosen not in SHARDED:
        raise ConfigError(f"Format {chosen} is not written by the engine ray; {', '.join(SHARDED)} are.")
    writer: Any = FORMATS[chosen](stream, Context(top_k))
    for window in _windows(store):
        writer.write(window)
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
        flat = table["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        vectors = np.asarray(flat, np.float32).reshape(table.num_rows, -1) if table.num_rows else flat
        columns = [table[name].to_pylist() for name in ("recording", "start", "end")]
        for recording, start, end, vector in zip(*columns, vectors, strict=True):
            writer.write(Vector(recording, start, end, vector))
    if writer is not None:
        writer.close()


def _windows(store: Shards) -> Iterator[_Rows]:
    held: _Rows | None = None
    for table in _tables(store):
        for row in table.to_pylist():
            row["probability"] = round(float(row["probability"]), 6)  # as it was before it became a float32
            if row["rank"] == 1:
                if held:
                    yield held
                held = _Rows(row["recording"], [row])
            elif held:
                held.ranked.append(row)
    if held:
        yield held


def _tables(store: Shards) -> Iterator[Any]:
    from pyarrow import parquet

    for index in range(store.count):
        with store.place.open(shard_name(index)) as stream:
            yield parquet.read_table(stream)
