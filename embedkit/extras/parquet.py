"""Reading and writing Parquet files, some rows in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, BinaryIO

import pyarrow
import pyarrow.parquet


def read_rows(stream: BinaryIO) -> Iterator[dict[str, Any]]:  # Any: whatever the columns hold
    """Yield the rows as dicts, one batch of rows in memory at a time.

    Raises:
        ValueError, OSError: the file is damaged or is not Parquet; pyarrow's own errors are children of these.
    """
    table = pyarrow.parquet.ParquetFile(stream)
    for batch in table.iter_batches(batch_size=1024):
        yield from batch.to_pylist()


def write_rows(rows: Iterable[Mapping[str, Any]], stream: BinaryIO) -> None:  # Any: whatever the columns hold
    """Write records with the keys id, passage, title, text, metadata (as JSON text) and vector.

    Raises:
        OSError: the stream cannot be written to.
    """
    schema = pyarrow.schema(
        [
            ("id", pyarrow.string()),
            ("passage", pyarrow.int64()),
            ("title", pyarrow.string()),
            ("text", pyarrow.string()),
            ("metadata", pyarrow.string()),
            ("vector", pyarrow.list_(pyarrow.float32())),
        ]
    )
    records = iter(rows)
    with pyarrow.parquet.ParquetWriter(stream, schema) as writer:
        while batch := list(islice(records, 4096)):
            writer.write_batch(pyarrow.RecordBatch.from_pylist(batch, schema=schema))
