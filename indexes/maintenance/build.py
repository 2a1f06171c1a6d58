"""build(): read, cut, embed, commit, resume.

1. A thread reads documents and hashes them, a few hundred ahead of what follows.
2. What the index holds with the same hash is passed over; that alone makes the same command resume after a kill.
3. Other threads embed the new and changed passages as they come, while this one commits the batch before.
Memory: two batches of documents, with the vectors of their `commit_every` passages, and a few chunks of documents. A document
is never cut in two: where they are large, three of them and the vectors of two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import compress, pairwise
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedkit.data.records import Document, titled_text
from embedkit.retrieval.vectors import Vectors, take

from ..storage.commit import WHOLE, Addition, Change, Update
from ..storage.documents import Known, Passage, duplicate_id, find_documents
from ..storage.runs import begin_run, find_duplicate, vanished_documents
from ..store import Index
from .read_ahead import read_ahead

Content = str | tuple[str | None, ...]  # of a passage: its text, or those of its document's fields
ContentOf = Callable[[Document, str], Content]  # a document and the text of one of its passages
Embed = Callable[
    [Sequence[Any]], Vectors
]  # N contents (Any: of the kind that it takes) -> (N, E) float32, or as the index's kind has it
Split = Callable[
    [str, str], Sequence[tuple[int, int]]
]  # title, text -> start and stop of each passage, in characters

# A chunk of documents ends with the one that makes it as long as this.
_CHUNK_DOCUMENTS = 256
_CHUNK_CHARS = 2**20
_CHUNKS_AHEAD = 4
_MAX_READ = 65_536
# Texts embedded between two reports: a second or so on a processor.
_SLICE_TEXTS = 1024
# Slices in the embedder's hands: while it computes one it can cut the texts of the next into tokens.
_EMBEDDERS = 2


@dataclass(frozen=True, kw_only=True)
class BuildReport:
    """How far a build is. `read` counts documents; `empty` ones hold no text that the model reads, so no search can find them."""

    read: int = 0
    added: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0
    empty: int = 0
    first_empty: str = ""  # where the first of these is
    passages: int = 0  # embedded and committed in this run
    embedded: int = 0  # passages embedded so far, of which the last batch may not be committed
    fraction: float | None = None  # of the input's bytes read, where it is known
    seconds: float = 0.0
    finished: bool = False


@dataclass
class _Batch:
    """What the next commit holds, while it is gathered and embedded."""

    additions: list[Addition] = field(default_factory=list)
    updates: list[Update] = field(default_factory=list)
    replaced: list[int] = field(default_factory=list)
    fields: set[str] = field(default_factory=set)
    passages: list[tuple[Document, Passage]] = field(default_factory=list)
    futures: list[Future[tuple[Vectors, NDArray[np.bool_]]]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    first_empty: str = ""

    def count_empty(self, document: Document) -> None:
        self.counts["empty"] += 1
        self.first_empty = self.first_empty or document.where

    def leave_out(self, kept: NDArray[np.bool_]) -> None:
        """Take away the passages whose vectors are not kept; a document that has no others is an empty one."""
        if kept.all():
            return
        at = 0
        for number, addition in enumerate(self.additions):
            own = kept[at : at + len(addition.passages)].tolist()
            at += len(own)
            if not all(own):
                left = list(compress(addition.passages, own))
                self.additions[number] = replace(addition, passages=left)
                if not left:
                    self.count_empty(addition.document)


def build(
    index: Index,
    documents: Iterable[Document],
    *,
    embed: Embed,
    split: Split | None = None,
    commit_every: int = 4096,
    slice_texts: int = _SLICE_TEXTS,
    fraction: Callable[[], float | None] = lambda: None,
    content_of: ContentOf | None = None,
) -> Iterator[BuildReport]:
    """Bring an index up to date with documents; yields a report after each `slice_texts` that are embedded and each commit.

    `split` cuts a text into passages; without it each document is one. `commit_every` counts passages; `fraction` tells how much of the input has been read. `embed` is called from two
    threads: for the texts that come next it need not compute anything before those before are done. `content_of` says what of a document
    and the text of a passage is embedded (else its title and that text); where that is empty, there is no vector.

    Raises (while iterating):
        RecordError: a document cannot be read, or an id occurs twice; what was committed before stays.
        IndexMismatchError: the vectors do not fit the index.
        IndexFileError: the disk is full or cannot be written; what was committed stays.
    """
    index.need_writer()
    if commit_every < 1:
        raise ValueError(f"commit_every is {commit_every}; it must be at least 1")
    return _Build(index, embed, split, commit_every, slice_texts, fraction, content_of or _titled).run(
        documents
    )


class _Build:
    """The state of one run."""

    def __init__(
        self,
        index: Index,
        embed: Embed,
        split: Split | None,
        commit_every: int,
        slice_texts: int,
        fraction: Callable[[], float | None],
        content_of: ContentOf,
    ) -> None:
        self.index, self.embed, self.split, self.content_of = index, embed, split, content_of
        self.commit_every, self.slice_texts, self.fraction = commit_every, slice_texts, fraction
        self.report = BuildReport()
        self.started = perf_counter()
        self.noted = 0  # documents whose ids are noted
        self.has_places = index.database.has_places

    def run(self, documents: Iterable[Document]) -> Iterator[BuildReport]:
        begin_run(self.index.database)
        pending: _Batch | None = None
        pool = ThreadPoolExecutor(_EMBEDDERS, thread_name_prefix="embed")
        try:
            for batch in self._batches(documents, pool):
                self._submit(batch, pool, 1)
                if pending is not None:
                    yield from self._finish(pending)
                pending = batch
            if pending is not None:
                yield from self._finish(pending)
        finally:
            # Where this ends early, nobody waits for the slices at hand, which a large model computes for a minute.
            pool.shutdown(wait=False, cancel_futures=True)
        self.index.settle()
        yield self._now(finished=True, fraction=1.0)

    def _now(self, **changes: float | str | None) -> BuildReport:
        changes = {"fraction": self.fraction(), "seconds": perf_counter() - self.started, **changes}
        self.report = replace(self.report, **changes)  # type: ignore[arg-type]  # the names are the report's own
        return self.report

    def _submit(self, batch: _Batch, pool: ThreadPoolExecutor, least: int) -> None:
        """Hand the batch's passages to the embedder, slice by slice, as long as there are `least` of them or more."""
        while len(batch.passages) - (start := len(batch.futures) * self.slice_texts) >= least:
            batch.futures.append(pool.submit(self._embed, batch.passages[start : start + self.slice_texts]))

    def _embed(self, passages: Sequence[tuple[Document, Passage]]) -> tuple[Vectors, NDArray[np.bool_]]:
        """Return the vectors of those passages that have one, as they are stored, and which these are."""
        payload = self.index.need_writer().payload
        # The texts are made when their turn comes: those of a book would take as much room as the book.
        found = self.embed(
            [self.content_of(document, _text_of(document, passage)) for document, passage in passages]
        )
        kept = payload.has_direction(found)
        names = [repr(document.doc_id) for document, _ in passages]
        if not kept.all():
            found, names = take(found, np.flatnonzero(kept)), list(compress(names, kept.tolist()))
        return payload.compress(payload.prepare(found, names)), kept

    def _batches(self, documents: Iterable[Document], pool: ThreadPoolExecutor) -> Iterator[_Batch]:
        """Sort documents into batches of about `commit_every` passages; one document is never cut in two."""
        batch = _Batch()
        chunks = _chunks(documents, min(_CHUNK_DOCUMENTS, self.commit_every))
        for chunk in read_ahead(chunks, _share, room=_CHUNKS_AHEAD):
            places = [(addition.document.doc_id, addition.document.where) for addition in chunk]
            duplicate = find_duplicate(self.index.database, self.noted, places)
            self.noted += len(places)
            if duplicate is not None:
                raise duplicate_id(*duplicate)
            known = find_documents(self.index.database, [doc_id for doc_id, _ in places])
            for addition in chunk:
                self._place(batch, addition, known.get(addition.document.doc_id))
                self._submit(
                    batch, pool, self.slice_texts
                )  # at once: the first texts need not wait for the last
                # Unchanged documents make no work, but a pass over many of them must show some progress.
                work = max(len(batch.passages), len(batch.updates), len(batch.additions))
                if work >= self.commit_every or batch.counts["read"] >= _MAX_READ:
                    yield batch
                    batch = _Batch()
        yield batch

    def _place(self, batch: _Batch, addition: Addition, known: Known | None) -> None:
        """Decide what a document is: new, changed in its words, changed in its metadata, or as it was."""
        document, digest = addition.document, addition.digest
        places = addition.places if self.has_places else ""
        batch.counts["read"] += 1
        if known is not None and known[1:] == (digest, document.source, places):
            batch.counts["unchanged"] += 1
            return
        batch.fields.update(document.metadata)
        # Where the words are the same, there are no new vectors. A field may stand in the metadata, whose hash follows on the words'.
        words = 24 if self.index.settings.fields else 16
        if known is not None and known.digest[:words] == digest[:words]:
            update = Update(known.doc_key, addition.metadata, digest, document.source, places)
            batch.updates.append(update)
            batch.counts["updated" if known.digest != digest else "unchanged"] += 1
            return
        if known is not None:
            batch.replaced.append(known.doc_key)
        batch.counts["added" if known is None else "updated"] += 1
        self._cut(addition, batch)

    def _cut(self, addition: Addition, batch: _Batch) -> None:
        document = addition.document
        passages: Sequence[Passage] = WHOLE
        if not any(self.content_of(document, document.text)):
            passages = ()
            batch.count_empty(document)
        elif self.split is not None:
            spans = self._spans(document, self.split)
            if len(spans) > 1:  # one passage is the whole text, white space around it and all
                passages = [Passage(start, stop) for start, stop in spans]
        batch.additions.append(replace(addition, passages=passages))
        batch.passages.extend((document, passage) for passage in passages)

    def _spans(self, document: Document, split: Split) -> list[tuple[int, int]]:
        """Cut a document into passages, each part of it by itself."""
        text, title = document.text, document.title
        borders = [0, *(at for at in document.parts if 0 < at < len(text)), len(text)]
        if len(borders) == 2:
            return list(split(title, text))
        return [
            (first + start, first + stop)
            for first, last in pairwise(borders)
            for start, stop in split(title, text[first:last])
        ]

    def _finish(self, batch: _Batch) -> Iterator[BuildReport]:
        """Wait for a batch's vectors and commit it."""
        vectors: list[Vectors] = []
        kept = [np.empty(0, np.bool_)]
        for future in batch.futures:
            found, which = future.result()
            vectors.append(found)
            kept.append(which)
            yield self._now(embedded=self.report.embedded + len(which))
        batch.leave_out(np.concatenate(kept))
        if batch.additions or batch.updates:
            change = Change(batch.additions, batch.updates, batch.replaced, frozenset(batch.fields))
            self.index.need_writer().commit(change, *vectors)
            self.index.settle()
        counts = {name: getattr(self.report, name) + count for name, count in batch.counts.items()}
        first_empty = self.report.first_empty or batch.first_empty
        passages = self.report.passages + sum(map(len, vectors))
        yield self._now(**counts, passages=passages, first_empty=first_empty)


def find_vanished(index: Index, within: Callable[[str], bool]) -> list[int]:
    """Return the keys of documents whose source is `within` a scope and which the build before did not see.

    Call it after `build` has come to its end, on the same open index; what is found goes to `delete_keys`.
    """
    return vanished_documents(index.database, within)


def delete_keys(index: Index, keys: Sequence[int], *, commit_every: int = 4096) -> None:
    """Delete documents by their keys, in commits of at most so many."""
    for start in range(0, len(keys), commit_every):
        index.need_writer().commit(Change(deleted_keys=keys[start : start + commit_every]))
    index.settle()


def _titled(document: Document, text: str) -> str:
    return titled_text(document.title, text)


def _text_of(document: Document, passage: Passage) -> str:
    return document.text if passage.stop == -1 else document.text[passage.start : passage.stop]


def _chunks(documents: Iterable[Document], size: int) -> Iterator[list[Addition]]:
    chunk: list[Addition] = []
    for document in documents:
        chunk.append(Addition.of(document))
        if len(chunk) == size or _chars(chunk) >= _CHUNK_CHARS:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _chars(chunk: Sequence[Addition]) -> int:
    return sum(len(addition.document.text) for addition in chunk)


def _share(chunk: Sequence[Addition]) -> float:
    """Say how much a chunk takes of the room of one: more where it ends with a large document."""
    return max(1.0, _chars(chunk) / _CHUNK_CHARS)
