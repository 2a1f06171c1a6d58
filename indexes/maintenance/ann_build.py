"""Building the ANN structure of an index from its segments, as a stream."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from embedkit.errors import IndexFileError

from ..search.ann_file import checksums
from ..search.snapshot import Snapshot
from ..storage.ann_info import AnnInfo
from ..storage.codes import FloatArray, RowArray
from ..storage.faults import writing
from ..storage.layout import ANN_PATTERN
from ..storage.new_file import unnamed_file

if TYPE_CHECKING:
    from ..store import Index
    from ..types import Kind

_CHUNK_ROWS = 8192


@dataclass(frozen=True)
class AnnReport:
    """How far the building of an ANN structure is."""

    rows_done: int
    rows_total: int
    seconds: float
    num_bytes: int = 0  # of the file, once it is done


def build_ann(index: Index, kind: Kind, *, seed: int = 0) -> Iterator[AnnReport]:
    """Build an ANN structure over all living rows, in place of the one there is; 'flat' takes it away.
    A multi-vector index has lists of its own, which 'flat' passes over from then on, until `tune`.

    Memory: the structure itself, its training sample and one chunk of vectors.

    Raises:
        IndexFileError: the index is empty, a segment is damaged, or the disk is full.
    """
    from ..search.ann import KINDS

    index.need_writer()
    check_structure(index, kind)
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; it must be one of {', '.join(KINDS)}")
    if kind != "flat" and not index.snapshot.num_rows:
        raise IndexFileError(f"{index.path}: no vectors to build {kind} over. Add documents first")
    return _drop(index) if kind == "flat" else _build(index, kind, seed)


def check_structure(index: Index, kind: Kind) -> None:
    """Refuse a structure over vectors that are not compared by one product.

    Raises:
        IndexFileError: the documents of the index have fields.
    """
    if kind != "flat":
        index.settings.need_dense(index.path, kind)
    if kind != "flat" and index.settings.fields:
        raise IndexFileError(
            f"{index.path}: its documents have fields, which are compared one by one, and {kind} finds by one product. "
            "Searches of it are exact without"
        )


def _drop(index: Index) -> Iterator[AnnReport]:
    with index.database.transaction():
        index.database.set_ann(None)
        if index.settings.kind == "multi-vector":
            from ..multi_vector.probing import Probing

            Probing(knobs={}).store(index.database)
    index.need_writer().remove_orphans()
    index.refresh()
    yield AnnReport(index.snapshot.num_rows, index.snapshot.num_rows, 0.0)


def _build(index: Index, kind: Kind, seed: int) -> Iterator[AnnReport]:
    from ..search.ann import DEFAULT_KNOBS, MAX_TRAINING_ROWS, AnnIndex

    started = perf_counter()
    snapshot = index.snapshot
    total = snapshot.num_rows
    yield AnnReport(0, total, 0.0)
    ann = AnnIndex.train(
        kind, index.settings.metric, total, sample_vectors(snapshot, MAX_TRAINING_ROWS, seed)[1]
    )
    done = 0
    for rows, vectors in stream_vectors(snapshot):
        ann.add(rows, vectors)
        done += len(rows)
        yield AnnReport(done, total, perf_counter() - started)
    name = index.database.next_file_name(ANN_PATTERN)
    path = index.path / name
    with writing(index.path), unnamed_file(path) as stream:
        ann.save(stream)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        of_blocks, num_bytes = checksums(data), len(data)
    info = AnnInfo(
        name=name,
        kind=kind,
        rows=total,
        last_row=snapshot.next_row - 1,
        num_bytes=num_bytes,
        checksums=of_blocks,
        knobs=DEFAULT_KNOBS[kind],
    )
    with index.database.transaction():
        index.database.take_file_name()
        index.database.set_ann(info)
    index.need_writer().remove_orphans()
    index.refresh()
    yield AnnReport(total, total, perf_counter() - started, num_bytes)


def stream_vectors(snapshot: Snapshot) -> Iterator[tuple[RowArray, FloatArray]]:
    """Yield the living rows with their vectors (n, E), in order, without keeping the files in memory."""
    for segment in snapshot.dense:
        for start in range(0, len(segment), _CHUNK_ROWS):
            stop = min(len(segment), start + _CHUNK_ROWS)
            rows, vectors = segment.rows[start:stop], segment.decode(start, stop)
            if snapshot.alive is not None:
                living = snapshot.alive[rows]
                rows, vectors = rows[living], vectors[living]
            if len(rows):
                yield np.array(rows), np.ascontiguousarray(vectors)
            segment.release()


def sample_vectors(snapshot: Snapshot, size: int, seed: int) -> tuple[RowArray, FloatArray]:
    """Draw up to `size` living rows with their vectors, ascending."""
    total = snapshot.num_rows
    numbers = np.arange(total)
    if total > size:
        numbers = np.sort(np.random.default_rng(seed).choice(total, size, replace=False))
    kept_rows, kept_vectors, seen = [], [], 0
    for rows, vectors in stream_vectors(snapshot):
        here = numbers[np.searchsorted(numbers, seen) : np.searchsorted(numbers, seen + len(rows))] - seen
        kept_rows.append(rows[here])
        kept_vectors.append(vectors[here])
        seen += len(rows)
    return np.concatenate(kept_rows), np.concatenate(kept_vectors)
