"""`SharedScans`: searches by vectors that wait for the same processors are one search, which reads the vectors once for all.

1. A search begins at once where none of its kind runs: nobody waits for company.
2. Those that come meanwhile wait; when it is over, the first of them to wake searches for all that wait.

A score depends on nothing but its query and its vector (`indexes/search/exact.py`), and so not on who searches together.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from threading import Condition
from typing import NamedTuple

import numpy as np

from embedkit.data.records import Hit
from embedkit.types import Float32
from indexes import Searchable


class _Kind(NamedTuple):
    """What searches have in common that can be one: the commit that they look at, and all but the queries."""

    commit: Hashable
    k: int
    where: str | None
    group: bool
    bare: bool


@dataclass(eq=False)
class _Search:
    queries: Float32  # (Q, E)
    found: list[list[Hit]] = field(default_factory=list)
    error: BaseException | None = None
    done: bool = False


class SharedScans:
    """The searches by vectors of one index, in any number of threads, each with a handle of its own."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._running: set[_Kind] = set()
        self._waiting: dict[_Kind, list[_Search]] = {}

    def search(
        self, index: Searchable, queries: Float32, *, k: int, where: str | None, group: bool, bare: bool
    ) -> list[list[Hit]]:
        """Return what `index.search` returns; an error of a search is one of all that were made together."""
        commit = index.commit
        if commit is None:  # shards, which are searched elsewhere
            return index.search(queries, k=k, where=where, group=group, bare=bare)
        kind, own = _Kind(commit, k, where, group, bare), _Search(queries)
        with self._changed:
            self._waiting.setdefault(kind, []).append(own)
            while not own.done and kind in self._running:
                self._changed.wait()
            together = [] if own.done else self._waiting.pop(kind)
            if together:
                self._running.add(kind)
        if together:
            self._search(index, kind, together)
        if own.error is not None:
            raise own.error
        return own.found

    def _search(self, index: Searchable, kind: _Kind, together: list[_Search]) -> None:
        try:
            queries = np.concatenate([each.queries for each in together])
            found = iter(index.search(queries, k=kind.k, where=kind.where, group=kind.group, bare=kind.bare))
            for each in together:
                each.found = [next(found) for _ in each.queries]
        except BaseException as exc:
            for each in together:
                each.error = exc
        finally:
            with self._changed:
                for each in together:
                    each.done = True
                self._running.discard(kind)
                self._changed.notify_all()


class SharedIndex:
    """What a retriever needs of an index, its searches by vectors shared with those of other requests."""

    def __init__(self, index: Searchable, scans: SharedScans) -> None:
        self._index, self._scans = index, scans

    def search(
        self, queries: Float32, *, k: int, where: str | None, group: bool, bare: bool
    ) -> list[list[Hit]]:
        return self._scans.search(self._index, queries, k=k, where=where, group=group, bare=bare)

    def search_ids(
        self, queries: Float32, *, k: int, where: str | None, group: bool
    ) -> list[list[tuple[str, float]]]:
        return self._index.search_ids(queries, k=k, where=where, group=group)

    def search_text(
        self, queries: Sequence[str], *, k: int, where: str | None, group: bool, bare: bool
    ) -> list[list[Hit]]:
        return self._index.search_text(queries, k=k, where=where, group=group, bare=bare)

    def fill(self, hits: Sequence[Sequence[Hit]]) -> list[list[Hit]]:
        return self._index.fill(hits)

    def text_limits(self, queries: Sequence[str]) -> list[float]:
        return self._index.text_limits(queries)

    @property
    def score_limit(self) -> float | None:
        return self._index.score_limit
