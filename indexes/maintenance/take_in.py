"""What comes into an index without being embedded here: ready vectors, and the documents of another index."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from time import perf_counter
from typing import Any

import numpy as np

from embedkit.data.records import Document
from embedkit.errors import IndexFileError, IndexMismatchError, RecordError
from embedkit.retrieval.vectors import Vectors

from ..storage.codes import FloatArray
from ..storage.commit import Addition, Change
from ..storage.documents import (
    Known,
    Passage,
    StoredDocument,
    duplicate_id,
    find_documents,
    read_documents,
    stored_places,
)
from ..storage.hashes import is_whole
from ..storage.settings import CODEBOOK, Settings, check_same
from ..storage.vectors import prepare_vectors
from ..store import Index
from .build import BuildReport
from .verify import loose_documents


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
        RecordError: an id occurs twice.
    """
    index.need_writer()
    index.settings.need_dense(index.path, "building of ready vectors")
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
            addition = Addition.of(
                documents.get(doc_id) or Document(doc_id, ""), vector=ready[number].tobytes()
            )
            key, old_digest, *_ = known.get(doc_id, Known(0, b"", "", ""))
            if key and old_digest == addition.digest:
                counts["unchanged"] += 1
                continue
            counts["updated" if key else "added"] += 1
            additions.append(addition)
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


def merge_indexes(target: Index, source: Index, *, replace: bool = False) -> Iterator[BuildReport]:
    """Put all documents of one index into another of the same encoder; the same call resumes.

    A document that both have alike stays. One that they have differently is an error, or with `replace` the
    source's wins. Weights of terms, and vectors of tokens that one codebook tells, are taken as they are stored.

    Raises:
        IndexMismatchError: the kinds, encoders, dimensions, metrics or ways of cutting differ, or codebooks do; or (while iterating)
            the indexes hold different documents of one id.
        IndexFileError: the source holds metadata that JSON has no value for, as earlier versions stored it; or (while
            iterating) a document that is not what was written.
    """
    target.need_writer()
    ours, theirs = target.settings, source.settings
    place = str(target.path)
    check_same({"kind": ours.kind}, {"kind": theirs.kind}, place, f"does not fit {source.path}")
    ours.check_encoder(theirs.fingerprint, place)
    check_same(_compared(ours), _compared(theirs), place, f"does not fit {source.path}")
    loose = list(loose_documents(source.database))
    if loose:
        doc_id, fields = loose[0]
        raise IndexFileError(
            f"{source.path}: the metadata of {len(loose):,} documents hold what JSON cannot, such as {fields} in {doc_id!r}. "
            f"Store null in its place with: embedkit index repair {source.path}"
        )
    take_steps(target, source)
    _check_codebooks(target, source)
    return _merge_indexes(target, source, replace)


def _compared(settings: Settings) -> dict[str, Any]:  # Any: JSON
    found = {"dimension": settings.dimension, "metric": settings.metric, **settings.cutting}
    return found | ({"storage": settings.storage} if settings.kind == "multi-vector" else {})


def _check_codebooks(target: Index, source: Index) -> None:
    """Refuse token vectors that were told by different codebooks: told again, they would lose what the first telling left of them.

    Raises:
        IndexMismatchError: they were.
    """
    if target.settings.kind != "multi-vector":
        return
    ours, theirs = target.database.meta(CODEBOOK), source.database.meta(CODEBOOK)
    if ours is not None and theirs is not None and bytes(ours) != bytes(theirs):
        raise IndexMismatchError(
            f"{target.path} and {source.path} tell token vectors by centroids of their own, and would lose precision if these were told "
            "again. Search both together (embedkit index join), or build one index of all texts"
        )


def take_steps(target: Index, source: Index) -> bool:
    """Have an index that has no vectors yet keep its codes by the steps, or the codebook, of another, so that these stay as they are.

    Says whether that has any.
    """
    entry = target.settings.decided_first
    database, steps = target.database, None if entry is None else source.database.meta(entry)
    if entry is None or steps is None or target.settings.storage != source.settings.storage:
        return False
    if database.meta(entry) is None:
        with database.transaction():
            database.set_meta(entry, steps)
    return True


def _check_whole(stored: StoredDocument, source: Index) -> None:
    document = stored.document
    if not is_whole(stored.digest, document.doc_id, document.title, document.text, stored.metadata):
        raise IndexFileError(
            f"{source.path}: document {document.doc_id!r} is not what was written: its hash differs. "
            f"Run: embedkit index repair {source.path}"
        )


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
            _check_whole(stored, source)
            key, digest, *_ = known.get(stored.document.doc_id, Known(0, b"", "", ""))
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
            places = stored_places(stored.document)
            additions.append(Addition(stored.document, stored.metadata, stored.digest, cuts, places))
            rows.extend(row for row, _, _ in stored.passages)
            if key:
                replaced.append(key)
        if additions:
            # What both store alike is stored as it is: to norm it again would change its last bit.
            names = [repr(addition.document.doc_id) for addition in additions for _ in addition.passages]
            vectors: list[Vectors] = [source.snapshot.stored(np.asarray(rows, np.int64))] if rows else []
            if target.settings.storage != source.settings.storage:
                ready = [np.asarray(each, np.float32) for each in vectors]
                vectors = [prepare_vectors(each, target.settings, names) for each in ready]
            fields = frozenset(name for a in additions for name in json.loads(a.metadata))
            target.need_writer().commit(Change(additions, (), replaced, fields), *vectors)
            target.settle()
        read += len(batch)
        passages += len(rows)
        yield _report(counts, passages, read, total, started)
    if not total:
        yield _report(counts, 0, 0, 0, started)
