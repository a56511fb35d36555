"""Parquet; needs pyarrow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from soundsight.inference.formats.base import Context, Writer, load_pyarrow

if TYPE_CHECKING:
    from soundsight.inference.results import Prediction

ROW_GROUP = 20_000  # rows that are written at once


class Parquet(Writer):
    """Columns as in CSV; needs pyarrow."""

    name = "parquet"
    purpose = "data frames"
    content = "the columns of the CSV"
    endings = (".parquet",)
    sharded = True
    clocked = True
    binary = True
    made = rb"PAR1.*recording.*probability.*rank.*settings.*PAR1\Z"

    head = b"PAR1"

    @classmethod
    def read(cls, path: Path) -> Iterator[dict[str, Any]]:
        _, parquet = load_pyarrow()
        for batch in parquet.ParquetFile(path).iter_batches():
            yield from batch.to_pylist()

    @classmethod
    def check(cls) -> None:
        load_pyarrow()

    def __init__(self, stream: IO[bytes], context: Context) -> None:
        super().__init__(stream, context)
        pyarrow, parquet = load_pyarrow()
        types = {"start": pyarrow.float64(), "end": pyarrow.float64(), "probability": pyarrow.float32()}
        types["rank"] = pyarrow.int32()
        self.schema = pyarrow.schema([(name, types.get(name, pyarrow.string())) for name in context.columns])
        self.table = pyarrow.Table
        self.file = parquet.ParquetWriter(stream, self.schema, compression="zstd")
        self.waiting: list[dict[str, Any]] = []
        self.count = 0  # of all rows

    def write(self, segment: Prediction) -> None:
        rows = self.rows(segment)
        self.waiting += rows
        self.count += len(rows)
        if len(self.waiting) >= ROW_GROUP:
            self._flush()

    def close(self, metadata: Mapping[bytes, bytes] | None = None) -> None:
        """See `Writer`; `metadata` goes into the file's own."""
        self._flush()
        if metadata:
            self.file.add_key_value_metadata(metadata)
        self.file.close()

    def _flush(self) -> None:
        if self.waiting:
            self.file.write_table(self.table.from_pylist(self.waiting, schema=self.schema))
        self.waiting = []
