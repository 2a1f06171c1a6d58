"""Writing records to files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from embedkit.extras import load_extra
from embedkit.storage.files import atomic_file


def write_parquet(path: Path, records: Iterable[Mapping[str, Any]]) -> None:  # Any: what the columns hold
    """Write records with the keys id, passage, title, text, metadata (as JSON text) and vector.

    Raises:
        MissingExtraError: the package that writes Parquet is not installed.
        OutputError: the file cannot be written.
    """
    parquet = load_extra("parquet", purpose=f"writing {path}")
    with atomic_file(path) as stream:
        parquet.write_rows(records, stream)
