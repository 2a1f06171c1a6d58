"""What BM25 needs to know of all shards together, asked once for each term."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..search.shared_text import TextStatistics
from .scatter import Scatter


class SharedStatistics:
    """The statistics of all shards at one commit."""

    def __init__(self, scatter: Scatter) -> None:
        self._scatter = scatter
        self._known: TextStatistics | None = None
        self._among: frozenset[int] = frozenset()

    def of(self, terms: Sequence[Sequence[str]]) -> tuple[TextStatistics, frozenset[int]]:
        """Return them with the terms of queries, and the numbers of the shards that they are of.

        Where another set of shards answers than before, what was counted counts no more.
        """
        if self._known is not None and self._among != self._scatter.numbers:
            self._known = None
        counts: Mapping[str, int] = {} if self._known is None else self._known.counts
        new = list(dict.fromkeys(term for each in terms for term in each if term not in counts))
        if new or self._known is None:
            found = self._scatter.ask(lambda _, shard: shard.text_statistics(new))
            if self._known is not None and frozenset(found) != self._among:
                self._known = None
                return self.of(terms)
            total = TextStatistics.total(found.values())
            self._known = TextStatistics(total.rows, total.words, {**counts, **total.counts})
            self._among = frozenset(found)
        asked = {term: self._known.counts[term] for each in terms for term in each}
        return TextStatistics(self._known.rows, self._known.words, asked), self._among
