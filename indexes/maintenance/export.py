"""What leaves an index: vectors as plain faiss and numpy files, records, texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from embedkit.data.records import titled_text
from embedkit.data.vectors import ids_path, npy_header
from embedkit.data.writing import write_parquet
from embedkit.errors import IndexFileError
from embedkit.storage.files import atomic_file

from ..storage.codes import FloatArray
from ..storage.documents import doc_ids, passage_counts, read_passages
from ..storage.metadata import strict_json
from ..store import Index
from .ann_build import stream_vectors


@dataclass(frozen=True)
class Exported:
    """What was written: the files, and how many vectors of which dimension."""

    paths: tuple[Path, ...]
    vectors: int
    dimension: int


def export_faiss(index: Index, path: Path) -> Exported:
    """Write all living vectors to a flat faiss file that faiss alone opens, and their ids beside it as `.ids.txt`.

    A document of several passages has the number of the passage behind its id: `id#2`.
    Memory: the whole of the vectors as float32, which faiss's flat index keeps.

    Raises:
        OutputError: the file cannot be written.
    """
    from ..search.ann import write_flat

    if index.settings.fields:
        raise IndexFileError(
            f"{index.path}: its documents have fields, which are compared one by one; faiss would compare whole vectors. "
            "Export .npy, and compare with Encoder.similarity"
        )

    def write(stream: BinaryIO) -> None:
        write_flat(stream, index.settings.metric, index.settings.dimension, stream_vectors(index.snapshot))

    return _export(index, path, write)


def export_npy(index: Index, path: Path) -> Exported:
    """Write all living vectors to a float32 `.npy` file, and their ids beside it as `.ids.txt`.

    Raises:
        OutputError: the file cannot be written.
    """

    def write(stream: BinaryIO) -> None:
        stream.write(npy_header(index.snapshot.num_rows, index.settings.dimension))
        for _, vectors in stream_vectors(index.snapshot):
            stream.write(vectors.astype("<f4", copy=False).tobytes())

    return _export(index, path, write)


def _export(index: Index, path: Path, write: Callable[[BinaryIO], None]) -> Exported:
    """Write vectors and ids, of which neither takes its name before both are whole."""
    index.settings.need_dense(index.path, "an export")
    if not index.snapshot.num_rows:
        raise IndexFileError(f"{index.path}: no vectors to export. Add documents first")
    beside = ids_path(path)
    with atomic_file(path) as vectors, atomic_file(beside) as ids:
        write(vectors)
        ids.writelines(f"{name}\n".encode() for name in vector_names(index))
    return Exported((path, beside), index.snapshot.num_rows, index.settings.dimension)


def export_parquet(index: Index, path: Path) -> Exported:
    """Write each passage with its document and its vector to a Parquet file.

    Raises:
        MissingExtraError: the package that writes Parquet is not installed.
        OutputError: the file cannot be written.
    """
    index.settings.need_dense(index.path, "an export")
    write_parquet(path, export_records(index))
    return Exported((path,), index.snapshot.num_rows, index.settings.dimension)


def vector_names(index: Index) -> Iterator[str]:
    """Yield the document's id of each living row, in order, with '#number' where the document has more than one."""
    for rows, _ in stream_vectors(index.snapshot):
        places = doc_ids(index.database, rows)
        counts = passage_counts(index.database, rows)
        for row in rows.tolist():
            doc_id, number = places[row]
            yield doc_id if counts[row] == 1 else f"{doc_id}#{number}"


def living_texts(index: Index) -> tuple[list[str], list[str], FloatArray]:
    """Return the names, the texts (title before text) and the vectors (N, E) of all living passages, in memory."""
    index.settings.need_dense(index.path, "what compares its passages with each other")
    ids = list(vector_names(index))
    texts: list[str] = []
    parts = [np.empty((0, index.settings.dimension), np.float32)]
    for rows, vectors in stream_vectors(index.snapshot):
        passages = read_passages(index.database, rows)
        texts += [titled_text(passages[row].title, passages[row].text) for row in rows.tolist()]
        parts.append(vectors)
    return ids, texts, np.concatenate(parts)


def export_records(index: Index) -> Iterator[dict[str, Any]]:  # Any: whatever JSON holds
    """Yield each passage with its vector (a list of floats) as a flat record, for parquet or JSON lines."""
    for rows, vectors in stream_vectors(index.snapshot):
        passages = read_passages(index.database, rows)
        for row, vector in zip(rows.tolist(), vectors, strict=True):
            passage = passages[row]
            yield {
                "id": passage.doc_id,
                "passage": passage.number,
                "title": passage.title,
                "text": passage.text,
                "metadata": strict_json(passage.metadata),
                "vector": vector.tolist(),
            }
