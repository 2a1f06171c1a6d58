"""What a vector database's client does for `CollectionStore`: plain values in, plain values out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from embedkit.connectors.locks import Notes
from embedkit.connectors.store import Vectors

Columns = dict[str, Any]  # Any: what a point holds, by column
Native = Any  # Any: a condition as the database takes it


class VectorDatabase(Notes, Protocol):
    """A database's client, for one collection and the notes beside it. Scores: an inner product, or minus the squared distance."""

    name: str  # of the database, as messages name it
    words: Literal[
        "", "weights", "text"
    ]  # how it searches words: not, by weights that it is given, or by its own BM25
    folder: Path | None  # where it lies, if it is no server

    def dimension(self) -> int | None:
        """Return the dimension of the collection; None where there is none, 0 where it is not of our making."""
        ...

    def has_notes(self) -> bool:
        """Say whether there is a collection of the notes' name."""
        ...

    def create(self, dimension: int, *, space: str, half: bool, m: int, ef_construction: int) -> None: ...

    def get(
        self, ids: Sequence[str], columns: Sequence[str], *, vectors: bool
    ) -> tuple[list[Columns], Vectors]:
        """Return those points that are there, with (N, E) vectors if asked for."""
        ...

    def scan(
        self, columns: Sequence[str], batch: int, *, vectors: bool
    ) -> Iterator[tuple[list[Columns], Vectors]]:
        """Yield all points; one of somebody else's has an `id` and lacks our columns."""
        ...

    def upsert(self, ids: Sequence[str], rows: Sequence[Columns], vectors: Vectors) -> None: ...

    def delete(self, ids: Sequence[str]) -> None: ...

    def count(self, where: Native | None) -> int: ...

    def nearest(
        self, query: Vectors, *, k: int, where: Native | None, ef: int | None, exact: bool
    ) -> list[tuple[str, int, float]]: ...

    def by_words(
        self, query: Mapping[int, float] | str, *, k: int, where: Native | None
    ) -> list[tuple[str, int, float]]: ...

    def idf(self, word: Mapping[int, float] | str) -> float:
        """Return BM25's idf of a word; 0 of one that no point has."""
        ...

    def build(self, *, m: int, ef_construction: int) -> str:
        """As `Store.build_ann`."""
        ...

    def num_bytes(self) -> int | None: ...

    def close(self) -> None: ...
