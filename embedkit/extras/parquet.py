"""Reading and writing Parquet files, some rows in memory at a time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow
import pyarrow.parquet

from embedkit.errors import OutputError


def read_rows(stream: BinaryIO) -> Iterator[dict[str, Any]]:  # Any: whatever the columns hold
    """Yield the rows as dicts, one batch of rows in memory at a time.

    Raises:
        ValueError, OSError: the file is damaged or is not Parquet; pyarrow's own errors are children of these.
    """
    table = pyarrow.parquet.ParquetFile(stream)
    for batch in table.iter_batches(batch_size=1024):
        yield from batch.to_pylist()


def write_rows(rows: Iterable[dict[str, Any]], path: Path) -> None:  # Any: whatever the columns hold
    """Write records with the keys id, passage, title, text, metadata (as JSON text) and vector.

    Raises:
        OutputError: the file cannot be written.
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
    temporary = path.with_name(f".{path.name}.tmp")
    records = iter(rows)
    try:
        with pyarrow.parquet.ParquetWriter(temporary, schema) as writer:
            while batch := list(islice(records, 4096)):
                writer.write_batch(pyarrow.RecordBatch.from_pylist(batch, schema=schema))
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as exc:
        temporary.unlink(missing_ok=True)
        raise OutputError(
            f"{path}: cannot be written ({exc.strerror or exc}). Check the folder and the disk"
        ) from exc
