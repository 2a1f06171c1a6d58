"""In and out: ready vectors, plain faiss and numpy files, records, and one index into another."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from embedkit.data.records import Document, titled_text
from embedkit.errors import IndexFileError, IndexMismatchError, OutputError, RecordError

from ..storage.commit import WHOLE, Addition, Change, prepare_vectors
from ..storage.documents import (
    Passage,
    content_hash,
    doc_ids,
    duplicate_id,
    find_documents,
    metadata_json,
    passage_counts,
    read_documents,
    read_passages,
)
from ..storage.segment import FloatArray
from ..storage.settings import check_same
from ..store import Index
from .ann_build import stream_vectors
from .build import BuildReport


@dataclass(frozen=True)
class Exported:
    """What was written: the files, and how many vectors of which dimension."""

    paths: tuple[Path, ...]
    vectors: int
    dimension: int


def build_vectors(
    index: Index,
    ids: Sequence[str],
    vectors: FloatArray,
    *,
    documents: Mapping[str, Document] | None = None,
    commit_every: int = 16384,
) -> Iterator[BuildReport]:
    """Bring an index up to date with ready vectors (N, E), which may be a memory map; the same call resumes.

    `documents` gives ids their texts and metadata.

    Raises:
        IndexMismatchError: the numbers or dimensions differ, or (while iterating) a vector is not finite or zero.
        RecordError: an id stands twice.
    """
    index.need_writer()
    if vectors.ndim != 2 or vectors.shape != (len(ids), index.settings.dimension):
        raise IndexMismatchError(
            f"vectors have shape {vectors.shape}; {len(ids)} ids in an index of dimension {index.settings.dimension} "
            f"need {(len(ids), index.settings.dimension)}"
        )
    seen: dict[str, int] = {}
    for number, doc_id in enumerate(ids, 1):
        if not doc_id:
            raise RecordError(f"ids:{number}: the id is empty; every vector needs one")
        first = seen.setdefault(doc_id, number)
        if first != number:
            raise duplicate_id(doc_id, f"ids:{first}", f"ids:{number}")
    return _build_vectors(index, ids, vectors, documents or {}, commit_every)


def _build_vectors(
    index: Index,
    ids: Sequence[str],
    vectors: FloatArray,
    documents: Mapping[str, Document],
    commit_every: int,
) -> Iterator[BuildReport]:
    counts: Counter[str] = Counter()
    started = perf_counter()
    for start in range(0, len(ids), commit_every):
        part = ids[start : start + commit_every]
        names = [repr(doc_id) for doc_id in part]
        ready = prepare_vectors(
            np.asarray(vectors[start : start + commit_every], np.float32), index.settings, names
        )
        known = find_documents(index.database, part)
        additions, kept, replaced = [], [], []
        for number, doc_id in enumerate(part):
            document = documents.get(doc_id) or Document(doc_id, "")
            metadata = metadata_json(document.metadata)
            digest = content_hash(doc_id, document.title, document.text, metadata, ready[number].tobytes())
            key, old_digest, _ = known.get(doc_id, (0, b"", ""))
            if key and old_digest == digest:
                counts["unchanged"] += 1
                continue
            counts["updated" if key else "added"] += 1
            additions.append(Addition(document, metadata, digest, WHOLE))
            kept.append(number)
            if key:
                replaced.append(key)
        if additions:
            fields = frozenset(name for addition in additions for name in addition.document.metadata)
            index.need_writer().commit(Change(additions, (), replaced, fields), ready[kept])
            index.settle()
        done = start + len(part)
        yield _report(counts, counts["added"] + counts["updated"], done, len(ids), started)


def _report(counts: Counter[str], passages: int, read: int, total: int, started: float) -> BuildReport:
    return BuildReport(
        read=read,
        added=counts["added"],
        updated=counts["updated"],
        unchanged=counts["unchanged"],
        passages=passages,
        embedded=passages,
        fraction=read / total if total else 1.0,
        seconds=perf_counter() - started,
        finished=read == total,
    )


def export_faiss(index: Index, path: Path) -> Exported:
    """Write all living vectors to a flat faiss file that faiss alone opens, and their ids beside it as `.ids.txt`.

    A document of several passages has the number of the passage behind its id: `id#2`.
    Memory: the whole of the vectors as float32, which faiss's flat index keeps.

    Raises:
        OutputError: the file cannot be written.
    """
    from ..search.ann import write_flat

    _need_vectors(index)

    def write(temporary: Path) -> None:
        write_flat(temporary, index.settings.metric, index.settings.dimension, stream_vectors(index.snapshot))

    return _export(index, path, write)


def export_npy(index: Index, path: Path) -> Exported:
    """Write all living vectors to a float32 `.npy` file, and their ids beside it as `.ids.txt`.

    Raises:
        OutputError: the file cannot be written.
    """
    _need_vectors(index)

    def write(temporary: Path) -> None:
        shape = (index.snapshot.num_rows, index.settings.dimension)
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        with temporary.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for _, vectors in stream_vectors(index.snapshot):
                file.write(vectors.astype("<f4", copy=False).tobytes())

    return _export(index, path, write)


def _need_vectors(index: Index) -> None:
    if not index.snapshot.num_rows:
        raise IndexFileError(f"{index.path}: no vectors to export. Add documents first")


def _export(index: Index, path: Path, write: Callable[[Path], None]) -> Exported:
    """Write vectors and ids to temporary files, then put both in place."""
    ids_path = path.with_suffix(".ids.txt")
    temporary, temporary_ids = (p.with_name(f".{p.name}.tmp") for p in (path, ids_path))
    try:
        write(temporary)
        with temporary_ids.open("w", encoding="utf-8") as file:
            file.writelines(name + "\n" for name in vector_names(index))
        for written, final in ((temporary, path), (temporary_ids, ids_path)):
            with written.open("rb") as file:
                os.fsync(file.fileno())
            written.replace(final)
    except (OSError, RuntimeError) as exc:  # faiss raises RuntimeError
        for leftover in (temporary, temporary_ids):
            leftover.unlink(missing_ok=True)
        reason = getattr(exc, "strerror", None) or str(exc).strip().splitlines()[-1]
        raise OutputError(f"{path}: cannot be written ({reason}). Check the folder and the disk") from exc
    return Exported((path, ids_path), index.snapshot.num_rows, index.settings.dimension)


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
                "metadata": passage.metadata,
                "vector": vector.tolist(),
            }


def merge_indexes(target: Index, source: Index, *, replace: bool = False) -> Iterator[BuildReport]:
    """Put all documents of one index into another of the same encoder; the same call resumes.

    A document that both have alike stays. One that they have differently is an error, or with `replace` the
    source's wins.

    Raises:
        IndexMismatchError: the encoders, dimensions, metrics or ways of cutting differ; or (while iterating) the
            indexes hold different documents of one id.
    """
    target.need_writer()
    ours, theirs = target.settings, source.settings
    place = str(target.path)
    ours.check_encoder(theirs.fingerprint, place)
    check_same(
        {"dimension": ours.dimension, "metric": ours.metric, **ours.cutting},
        {"dimension": theirs.dimension, "metric": theirs.metric, **theirs.cutting},
        place,
        f"does not fit {source.path}",
    )
    return _merge_indexes(target, source, replace)


def _merge_indexes(target: Index, source: Index, replace: bool) -> Iterator[BuildReport]:
    total, read, after = source.database.count("documents"), 0, 0
    counts: Counter[str] = Counter()
    started = perf_counter()
    passages = 0
    while True:
        batch = read_documents(source.database, after, 1024)
        if not batch:
            break
        after = batch[-1].doc_key
        known = find_documents(target.database, [stored.document.doc_id for stored in batch])
        additions, replaced = [], []
        rows: list[int] = []
        for stored in batch:
            key, digest, _ = known.get(stored.document.doc_id, (0, b"", ""))
            if key and digest == stored.digest:
                counts["unchanged"] += 1
                continue
            if key and not replace:
                raise IndexMismatchError(
                    f"{target.path} and {source.path} hold different documents with the id "
                    f"{stored.document.doc_id!r}. Say which one is right: --replace takes that of {source.path}"
                )
            counts["updated" if key else "added"] += 1
            cuts = [Passage(start, stop) for _, start, stop in stored.passages]
            additions.append(Addition(stored.document, stored.metadata, stored.digest, cuts))
            rows.extend(row for row, _, _ in stored.passages)
            if key:
                replaced.append(key)
        if additions:
            names = [repr(addition.document.doc_id) for addition in additions for _ in addition.passages]
            vectors = prepare_vectors(
                source.snapshot.gather(np.asarray(rows, np.int64)), target.settings, names
            )
            fields = frozenset(name for a in additions for name in json.loads(a.metadata))
            target.need_writer().commit(Change(additions, (), replaced, fields), vectors)
            target.settle()
        read += len(batch)
        passages += len(rows)
        yield _report(counts, passages, read, total, started)
    if not total:
        yield _report(counts, 0, 0, 0, started)
