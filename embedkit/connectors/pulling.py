"""`pull`: an ordinary index made of what a store holds, with the same bits as the one that was pushed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from embedkit.connectors.carrying import Gatherer
from embedkit.connectors.info import StoreInfo, read_info
from embedkit.connectors.store import Store
from embedkit.errors import OutputError, StoreError
from embedkit.storage.files import new_folder
from indexes import Index


@dataclass(frozen=True)
class PullReport:
    rows: int
    total: int
    documents: int
    seconds: float
    finished: bool = False

    @property
    def fraction(self) -> float:
        return self.rows / max(1, self.total)


def pull(store: Store, path: Path) -> Iterator[PullReport]:
    """Make an index of a store's rows; it takes its name when it is whole. A killed pull is begun anew: the store may have changed.

    Raises:
        OutputError: there is something of this name.
        StoreError: nothing was pushed, the push has not ended, or (while iterating) a row is not what was pushed.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise OutputError(f"{path}: there is something already. Name a new folder for the index")
    info = read_info(store)
    if not info.finished:
        raise StoreError(
            f"{store.place}: the last push has not ended, or was stopped. Wait for it, or end it by the same command again"
        )
    return _pull(store, info, path)


def _pull(store: Store, info: StoreInfo, path: Path) -> Iterator[PullReport]:
    started = perf_counter()
    with new_folder(path) as draft:
        with Index.create(draft, info.settings) as index:
            if info.model_path is not None:
                index.note_model_path(info.model_path)
            gatherer = Gatherer(index, store.place)
            for rows, vectors in store.scan():
                gatherer.take(rows, vectors)
                yield PullReport(gatherer.rows, info.rows, 0, perf_counter() - started)
            gatherer.finish()
            documents = index.count_documents()
        _check_counts(store, info, gatherer.rows, documents)
    yield PullReport(gatherer.rows, info.rows, documents, perf_counter() - started, finished=True)


def _check_counts(store: Store, info: StoreInfo, rows: int, documents: int) -> None:
    if rows != info.rows or (documents != info.documents):
        raise StoreError(
            f"{store.place}: {rows:,} rows of {documents:,} documents came; the push left {info.rows:,} of {info.documents:,}. "
            "Somebody else writes to it; pull again when they have ended, or push again"
        )
