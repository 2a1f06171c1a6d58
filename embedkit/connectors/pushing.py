"""`push`: a store brought up to date with an index.

1. Open or create the table; refuse what is of another model, or holds rows that are not ours.
2. Compare digests: what is new, changed, the same, and what has gone from the index. (`--dry-run` ends here.)
3. Note that a push is at work; send what is new or changed, in batches; delete what has gone.
4. Build the graph for approximate search.
5. Verify: the count, and a sample of rows with their vectors, bit by bit. Note that the push has ended.

What is done is known from the store alone, so the same command goes on where another was stopped.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Literal

import numpy as np

from embedkit.connectors.carrying import read_rows
from embedkit.connectors.info import StoreInfo
from embedkit.connectors.store import Key, Store, StoreRow, Vectors
from embedkit.errors import StoreError
from embedkit.pipelines.building import needs_consent
from indexes import Index

SAMPLE = 100  # rows that are read back in the end
_DIGEST = re.compile(r"[0-9a-f]{32}")
Step = Literal["compare", "push", "delete", "build", "verify", "done"]


@dataclass(frozen=True)
class PushOptions:
    """`keep` leaves rows that the index no longer has; `consent` lets a push delete more than a tenth of the documents."""

    keep: bool = False
    consent: bool = False
    dry_run: bool = False


@dataclass
class PushReport:
    """How far a push is: rows of the index by what became of them, and rows of the store that have gone from the index (`kept` are those that stay)."""

    total: int
    step: Step = "compare"
    done: int = 0  # of this step
    new: int = 0
    changed: int = 0
    unchanged: int = 0
    gone: int = 0
    documents: int = 0  # of the rows; documents without a vector have none
    kept: int = 0
    sent: int = 0
    deleted: int = 0
    verified: int = 0
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    _started: float = field(default_factory=perf_counter, repr=False)

    def at(self, step: Step, done: int) -> PushReport:
        self.step, self.done, self.seconds = step, done, perf_counter() - self._started
        return self

    @property
    def fraction(self) -> float | None:
        """How much of the rows has been compared (a tenth of the way) and sent; None where it cannot be told."""
        share = self.done / max(1, self.total)
        if self.step == "compare":
            return 0.1 * share
        if self.step == "push":
            return 0.1 + 0.9 * self.sent / max(1, self.new + self.changed)
        return None


@dataclass
class _Tally:
    """What is noted of the rows of the index while they pass by: how many documents they are of, and some of them."""

    step: int
    rows: int = 0
    documents: int = 0
    sample: list[tuple[StoreRow, Vectors]] = field(default_factory=list)

    def take(self, rows: Sequence[StoreRow], vectors: Vectors) -> None:
        self.documents += sum(not row.key.passage for row in rows)
        for number in range(-self.rows % self.step, len(rows), self.step):
            self.sample.append((rows[number], vectors[number].copy()))
        self.rows += len(rows)


def check_pushable(index: Index) -> None:
    """Refuse an index that no store takes, before one is opened.

    Raises:
        IndexMismatchError: it holds something other than one vector a passage.
    """
    index.settings.need_dense(index.path, "a store")


def push(index: Index, store: Store, info: StoreInfo, options: PushOptions) -> Generator[PushReport]:
    """Bring a store up to date with an index; yields one report, kept up to date.

    Raises:
        IndexMismatchError: the table holds vectors of another model or kind; or as `check_pushable`.
        StoreError: the table is not ours, another push is at work, a deletion needs consent, or the store fails.
    """
    check_pushable(index)
    there = _read(store, info)
    if options.dry_run and there is None:
        return _nothing_there(index)
    return _push(index, store, info, options)


def _nothing_there(index: Index) -> Generator[PushReport]:
    yield PushReport(len(index), new=len(index)).at("done", len(index))


def _read(store: Store, info: StoreInfo) -> StoreInfo | None:
    text = store.read_info()
    if text is None:
        return None
    there = StoreInfo.from_json(text, store.place)
    there.check_fits(info, store.place)
    return there


def _push(index: Index, store: Store, info: StoreInfo, options: PushOptions) -> Generator[PushReport]:
    report, tally = PushReport(len(index)), _Tally(max(1, len(index) // SAMPLE))
    if options.dry_run:
        yield from _compare(index, store, info, report, tally, options)
        yield report.at("done", report.total)
        return
    with store.writing():
        if _read(store, info) is None:  # looked at again: another push may have made it meanwhile
            store.create(info.layout, info.to_json())
        yield from _compare(index, store, info, report, tally, options)
        _check_deletion(store, report, options)
        store.write_info(replace(info, finished=False).to_json())
        yield from _send(index, store, info, report, tally)
        yield from _delete(index, store, report, options)
        yield report.at("build", 0)
        note = store.build_ann(info.layout, info.hnsw)
        report.notes += [note] if note else []
        yield report.at("verify", 0)
        _verify(store, report, tally)
        report.documents += tally.documents
        rows = report.total + report.kept
        store.write_info(replace(info, finished=True, rows=rows, documents=report.documents).to_json())
    yield report.at("done", report.total)


def _compare(
    index: Index, store: Store, info: StoreInfo, report: PushReport, tally: _Tally, options: PushOptions
) -> Iterator[PushReport]:
    if not store.count():  # all are new, and what there is to note of them is noted as they are sent
        report.new = report.total
        return
    for rows, vectors in read_rows(index, info.layout.storage):
        known = store.digests([row.key for row in rows])
        for row in rows:
            digest = known.get(row.key)
            report.new += digest is None
            report.unchanged += digest == row.digest
            report.changed += digest not in (None, row.digest)
        tally.take(rows, vectors)
        yield report.at("compare", report.done + len(rows))
    for batch in store.scan_digests():
        foreign = next((key for key, digest in batch.items() if not _DIGEST.fullmatch(digest)), None)
        if foreign is not None:
            raise StoreError(
                f"{store.place}: holds rows that embedkit did not write, such as passage {foreign.passage} of {foreign.doc_id!r}. "
                "Nothing was changed. Remove them, or push under another name"
            )
        gone = _gone(index, list(batch), False)
        going = _gone(index, list(batch), True) if options.keep else gone
        report.gone += len(going)
        report.kept += len(gone) - len(going)
        report.documents += sum(not key.passage for key in set(gone) - set(going))
        yield report.at("compare", report.total)


def _gone(index: Index, keys: list[Key], keep: bool) -> list[Key]:
    """Return the keys that the index has no more; with `keep` those alone whose documents it still has, in fewer passages."""
    counts = index.passage_counts([key.doc_id for key in keys])
    return [
        key for key in keys if key.passage >= counts.get(key.doc_id, 0) and (key.doc_id in counts or not keep)
    ]


def _check_deletion(store: Store, report: PushReport, options: PushOptions) -> None:
    there = report.gone + report.kept + report.changed + report.unchanged
    if not options.consent and needs_consent(report.gone, there):
        raise StoreError(
            f"{store.place}: {report.gone:,} of its {there:,} rows are not in the index and would be deleted; nothing was changed. "
            "Check that this is the right index and table",
            ", then repeat with --yes, or with --keep to leave them",
        )


def _send(
    index: Index, store: Store, info: StoreInfo, report: PushReport, tally: _Tally
) -> Iterator[PushReport]:
    if not report.new and not report.changed:
        return
    done, compared = 0, bool(tally.rows)
    for rows, vectors in read_rows(index, info.layout.storage):
        if not compared:
            tally.take(rows, vectors)
        known = store.digests([row.key for row in rows]) if compared else {}
        wanted = [number for number, row in enumerate(rows) if known.get(row.key) != row.digest]
        if wanted:
            sending = [rows[number] for number in wanted]
            store.upsert(sending, vectors[wanted], new=not any(row.key in known for row in sending))
        report.sent += len(wanted)
        done += len(rows)
        yield report.at("push", done)


def _delete(index: Index, store: Store, report: PushReport, options: PushOptions) -> Iterator[PushReport]:
    if not report.gone:
        return
    gone = [key for batch in store.scan_digests() for key in _gone(index, list(batch), options.keep)]
    for start in range(0, len(gone), 1000):
        part = gone[start : start + 1000]
        store.delete(part)
        report.deleted += len(part)
        yield report.at("delete", report.deleted)


def _verify(store: Store, report: PushReport, tally: _Tally) -> None:
    """Count the rows, and read a sample of them back.

    Raises:
        StoreError: the store does not hold what was sent.
    """
    wanted = report.total + report.kept
    if (count := store.count()) != wanted:
        raise StoreError(
            f"{store.place}: holds {count:,} rows after the push; {wanted:,} were expected. "
            "Somebody else writes to it; push again when they have ended"
        )
    keys = [row.key for row, _ in tally.sample]
    stored, there = store.fetch(keys), store.vectors(keys)
    for row, vector in tally.sample:
        same = row.key in there and np.array_equal(there[row.key], vector)
        if not same or stored.get(row.key) is None or stored[row.key].digest != row.digest:
            raise StoreError(
                f"{store.place}: passage {row.key.passage} of {row.key.doc_id!r} is not what was sent. "
                "Somebody else writes to it; push again when they have ended"
            )
    report.verified = len(keys)
