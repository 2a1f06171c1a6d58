"""Reading Parquet files row by row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow
import pyarrow.parquet

from embedkit.errors import RecordError


def read_rows(stream: BinaryIO, source: str) -> Iterator[dict[str, Any]]:  # Any: whatever the columns hold
    """Yield the rows as dicts, one batch of rows in memory at a time."""
    try:
        table = pyarrow.parquet.ParquetFile(stream)
        for batch in table.iter_batches(batch_size=1024):
            yield from batch.to_pylist()
    except pyarrow.ArrowException as exc:
        raise RecordError(
            f"{source}: cannot be read as Parquet ({exc}). Make or fetch the file again"
        ) from exc
