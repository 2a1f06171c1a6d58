"""What a store is to us: one Protocol, the rows that it holds, and what is written beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from indexes.search.syntax import Node

Vectors = npt.NDArray[np.float32]
StoredAs = Literal["float32", "float16"]
BATCH_ROWS = 1024  # that go to a store or come from it at a time: 1.5 MB of vectors of 384 numbers


class Key(NamedTuple):
    """What a row is known by, whatever the store: its document, and the number of the passage in it."""

    doc_id: str
    passage: int


@dataclass(frozen=True, slots=True)
class StoreRow:
    """A passage as a store holds it.

    `text` is the passage's own, and with title, source and metadata (JSON) what a store searches and shows. `record` (JSON) is what else an index
    needs to be made again. `digest` is a hash of everything, the vector among it.
    """

    key: Key
    title: str
    text: str
    source: str
    metadata: str
    record: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class Hnsw:
    """The graph for approximate search: neighbours of a node, and candidates while it is built. `m` 0: none, search is exact.

    Source: Malkov and Yashunin 2018, https://arxiv.org/abs/1603.09320. The defaults are pgvector's.
    """

    m: int = 16
    ef_construction: int = 64

    def __post_init__(self) -> None:
        if self.m and not 2 <= self.m <= 100:
            raise ValueError(f"--hnsw-m is {self.m}; it must be from 2 to 100, or 0 for exact search")
        if self.m and not max(4, 2 * self.m) <= self.ef_construction <= 1000:
            raise ValueError(
                f"--hnsw-ef-construction is {self.ef_construction}; with --hnsw-m {self.m} it must be from {max(4, 2 * self.m)} to 1000"
            )


@dataclass(frozen=True, kw_only=True)
class TableLayout:
    """What a table is made for, fixed once it is there."""

    dimension: int
    metric: Literal["cosine", "dot", "l2"]
    storage: StoredAs


class Store(Protocol):
    """One table or collection of a store. Whatever goes wrong there is a `StoreError` that names `place`.

    Scores are as an index has them, higher is better: a cosine, an inner product, or minus the squared distance.
    """

    place: str  # the URL without its password
    storages: Sequence[StoredAs]  # how vectors can be stored
    has_text: bool  # whether it can be searched by words

    def read_info(self) -> str | None:
        """Return what `write_info` wrote; None where there is no table of this name.

        Raises:
            StoreError: the table was made by somebody else.
        """
        ...

    def create(self, layout: TableLayout, info: str) -> None:
        """Make the table, empty, with its info. What a kill leaves of this, `create` takes up."""
        ...

    def write_info(self, info: str) -> None: ...

    def writing(self) -> AbstractContextManager[None]:
        """Keep other pushes out; a killed one keeps nobody out.

        Raises:
            StoreError: another push is at work.
        """
        ...

    def digests(self, keys: Sequence[Key]) -> dict[Key, str]:
        """Return the digests of those rows that are there."""
        ...

    def upsert(self, rows: Sequence[StoreRow], vectors: Vectors, *, new: bool = False) -> None:
        """Put rows with (N, E) vectors in, each in place of what has its key; all of them or none.

        `new`: nothing has their keys, so that a store need not look for it.
        """
        ...

    def delete(self, keys: Sequence[Key]) -> None: ...

    def scan_digests(self) -> Iterator[dict[Key, str]]:
        """Yield all rows' keys and digests in batches, in any order."""
        ...

    def scan(self) -> Iterator[tuple[list[StoreRow], Vectors]]:
        """Yield all rows with their vectors in batches, in any order, of one moment where the store can."""
        ...

    def fetch(self, keys: Sequence[Key]) -> dict[Key, StoreRow]:
        """Return those rows that are there."""
        ...

    def vectors(self, keys: Sequence[Key]) -> dict[Key, Vectors]:
        """Return the vectors (E,) of those rows that are there."""
        ...

    def count(self, where: Node | None = None) -> int:
        """Count the rows, or those that a condition lets pass."""
        ...

    def build_ann(self, layout: TableLayout, hnsw: Hnsw) -> str:
        """Make what speeds up search, unless it is there; return why there is none, "" where there is one or none was asked for."""
        ...

    def search(
        self, query: Vectors, *, layout: TableLayout, k: int, where: Node | None, ef: int | None
    ) -> list[tuple[Key, float]]:
        """Return up to k rows for a query (E,), best first.

        Raises:
            FilterError: the store has no way to say the condition.
        """
        ...

    def search_text(self, query: str, *, k: int, where: Node | None) -> list[tuple[Key, float]]:
        """Return up to k rows for a query by its words, best first; only where `has_text`."""
        ...

    def text_limit(self, query: str) -> float:
        """Return what the scores of `search_text` cannot exceed; 0 where the query has no words."""
        ...

    def num_bytes(self) -> int | None:
        """Return what the table takes on disk; None where the store does not say."""
        ...

    def close(self) -> None: ...


def best_first(found: Mapping[Key, float] | Sequence[tuple[Key, float]]) -> list[tuple[Key, float]]:
    """Order rows by score, ties by id and passage."""
    pairs = found.items() if isinstance(found, Mapping) else found
    return sorted(pairs, key=lambda pair: (-pair[1], pair[0]))


def not_ours(place: str, table: str, columns: Sequence[str]) -> str:
    """Say that there is a table of somebody else's where one of ours would be."""
    return (
        f"{place}: there is a table {table!r} that embedkit did not make; its columns are {', '.join(columns)}. "
        "Name another table in the URL"
    )
