"""`ShardedIndex`: shards searched as one index: scatter, gather, exact merge.

The hits and their scores are those of one index of the same documents, however these are cut into shards:
1. By vectors, whatever kind: a score depends on the query and what is stored of one passage alone. Each shard gives its best k, put in one order: by score, id and passage.
2. text: BM25 depends on how frequent each word is and how long rows are in all shards together. They are asked for these first,
   and score by them (`indexes.search.shared_text`).
3. Both are merged before a `Retriever` fuses them.
An ANN structure, binary vectors and the lists of token vectors find nearly all of the best, each shard in its own: there more shards find a little more.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from embedkit.data.records import Document, Hit
from embedkit.retrieval.strength import CosineNoise
from embedkit.retrieval.vectors import Vectors

from ..candidates import Scorer
from ..maintenance.field_values import FieldValues, merge_fields
from ..search.conditions import check_in_all
from ..search.shared_scans import SharedScans
from ..search.snapshot import NOISE_SAMPLE, noise_of, spread
from ..search.syntax import parse_filter
from ..storage.codes import FloatArray
from ..storage.settings import Fingerprint
from .coverage import Coverage
from .merging import by_shard, filled_hits, merged_hits, merged_ids
from .options import GatherOptions
from .places import shards_of
from .scatter import Scatter
from .statistics import SharedStatistics


class ShardedIndex:
    """Shards, open for reading; each is seen at one commit until `follow`. One thread at a time may use it."""

    def __init__(self, path: Path | str, scatter: Scatter, *, allow_regex: bool = True) -> None:
        """Use `ShardedIndex.open`."""
        self.path, self._scatter, self._allow_regex = path, scatter, allow_regex
        self.settings = scatter.file.settings
        self._words = SharedStatistics(scatter)
        self._checked: set[str] = set()  # filters
        self._noise: CosineNoise | None = None
        self._share_fields()

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        device: str | None = None,
        gathering: GatherOptions | None = None,
        allow_regex: bool = True,
    ) -> ShardedIndex:
        """Open the shards that a folder's shards.json names, or with `gathering.more` those together with what `path` names.

        Without `allow_regex` filters with regular expressions are refused, whatever the servers of shards allow.

        Raises:
            IndexFileError: there is none, it is damaged, or no shard can be opened.
            ServerError: all shards lie on servers, and none answers.
            IndexMismatchError: one of `gathering.more` does not belong to the others.
        """
        gathering = gathering or GatherOptions()
        scatter = Scatter(Path(path), shards_of(path, gathering), device, gathering)
        try:
            return cls(path, scatter, allow_regex=allow_regex)
        except BaseException:
            scatter.close()
            raise

    def close(self) -> None:
        self._scatter.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def take_coverage(self) -> Coverage:
        """Return how many shards the searches since the last call have seen."""
        return self._scatter.take_coverage()

    # What it is

    def __len__(self) -> int:
        return sum(self._scatter.each(len).values())

    @property
    def model_path(self) -> str | None:
        return self._scatter.file.model_path or None

    def check_encoder(self, fingerprint: Fingerprint | None) -> None:
        """As `Index.check_encoder`."""
        self.settings.check_encoder(fingerprint, str(self.path))

    @property
    def score_limit(self) -> float | None:
        return 1.0 if self.settings.metric == "cosine" and self.settings.kind == "dense" else None

    @property
    def state(self) -> object:
        return tuple(self._scatter.each(lambda shard: shard.state).items())

    @property
    def noise(self) -> CosineNoise | None:
        """As `Index.noise`: measured on the vectors that one index would measure it on."""
        if self._noise is None and self.settings.kind == "dense":
            lengths = self._scatter.each(len)
            places = spread(NOISE_SAMPLE, sum(lengths.values()))
            ends = dict(zip(lengths, np.cumsum(list(lengths.values())).tolist(), strict=True))
            parts = {
                number: places[(places >= end - lengths[number]) & (places < end)] - (end - lengths[number])
                for number, end in ends.items()
            }
            wanted = [number for number, part in parts.items() if len(part)]
            found = self._scatter.ask(lambda number, shard: shard.vectors_at(parts[number]), wanted)
            empty = np.empty((0, self.settings.dimension), np.float32)
            scorer = Scorer(self.settings.metric, self.settings.fields)
            self._noise = noise_of(np.concatenate([empty, *found.values()]), scorer)
        return self._noise

    def count_rows(self, where: str | None = None) -> int:
        """As `Index.count_rows`."""
        if where is None:
            return len(self)
        self._check(where)
        return sum(self._scatter.ask(lambda _, shard: shard.count_rows(where)).values())

    def count_documents(self) -> int:
        return sum(self._scatter.ask(lambda _, shard: shard.count_documents()).values())

    def known_ids(self, doc_ids: Sequence[str]) -> set[str]:
        """As `Index.known_ids`."""
        return set().union(*self._scatter.ask(lambda _, shard: shard.known_ids(doc_ids)).values())

    def document(self, doc_id: str) -> Document | None:
        """As `Index.document`."""
        found = self._scatter.ask(lambda _, shard: shard.document(doc_id))
        return next((document for document in found.values() if document is not None), None)

    def passages(self, doc_id: str) -> tuple[list[Hit], FloatArray]:
        """As `Index.passages`."""
        found = self._scatter.ask(lambda _, shard: shard.passages(doc_id))
        width = self.settings.dimension if self.settings.kind == "dense" else 0
        none: tuple[list[Hit], FloatArray] = ([], np.empty((0, width), np.float32))
        return next((each for each in found.values() if each[0]), none)

    def field_values(self) -> Sequence[FieldValues]:
        """As `Index.field_values`; of the commonest values those that are common in a shard."""
        return merge_fields(list(self._scatter.ask(lambda _, shard: shard.field_values()).values()))

    # One commit after the other

    def follow(self) -> bool:
        """As `Index.follow`; shards that could not be opened are tried again after a while."""
        changed = self._scatter.open_missing()
        changed |= self._scatter.follow()
        if changed:
            self._words = SharedStatistics(self._scatter)
            self._checked.clear()
            self._noise = None
            self._share_fields()
        return changed

    def rest(self) -> None:
        """As `Index.rest`."""
        self._scatter.each(lambda shard: shard.rest())

    def limit_cache(self, num_bytes: int) -> None:
        """As `Index.limit_cache`, for all shards together."""
        share = num_bytes // max(1, len(self._scatter.numbers))
        self._scatter.each(lambda shard: shard.limit_cache(max(2**18, share)))

    def share_scans(self, scans: SharedScans) -> None:
        """As `Index.share_scans`, of each shard by itself."""
        self._scatter.each(lambda shard: shard.share_scans(scans))

    def _share_fields(self) -> None:
        names = sorted(
            set(chain.from_iterable(self._scatter.each(lambda shard: shard.field_names()).values()))
        )
        self._scatter.each(lambda shard: shard.share_fields(names))
        self._fields = names

    def _check(self, where: str | None) -> None:
        """Refuse a filter that one index of all documents would refuse."""
        if where is not None and where not in self._checked:
            if not self._allow_regex:
                parse_filter(where, self._fields, allow_regex=False)
            check_in_all(list(self._scatter.ask(lambda _, shard: shard.misuses(where)).values()))
            self._checked.add(where)

    # Searching

    def search(
        self,
        queries: Vectors,
        *,
        k: int = 10,
        where: str | None = None,
        group: bool = False,
        bare: bool = False,
    ) -> list[list[Hit]]:
        """As `Index.search`."""
        self._check(where)
        found = self._scatter.ask(
            lambda _, shard: shard.search(queries, k=k, where=where, group=group, bare=bare)
        )
        return merged_hits(found, len(queries), k, bare=bare)

    def search_ids(
        self, queries: Vectors, *, k: int = 10, where: str | None = None, group: bool = False
    ) -> list[list[tuple[str, float]]]:
        """As `Index.search_ids`."""
        self._check(where)
        found = self._scatter.ask(lambda _, shard: shard.search_ids(queries, k=k, where=where, group=group))
        return merged_ids(found, len(queries), k)

    def search_text(
        self,
        queries: Sequence[str],
        *,
        k: int = 10,
        where: str | None = None,
        group: bool = False,
        bare: bool = False,
        vectors: FloatArray | None = None,
    ) -> list[list[Hit]]:
        """As `Index.search_text`.

        Raises:
            TypeError: `queries` is one string.
        """
        if isinstance(queries, str):
            raise TypeError(f"queries is the string {queries[:60]!r}; it must be a sequence of strings")
        self._check(where)
        statistics, among = self._words.of([self._scatter.any().text_terms(query) for query in queries])
        found = self._scatter.ask(
            lambda _, shard: shard.search_text(
                queries, k=k, where=where, group=group, bare=bare, statistics=statistics, vectors=vectors
            ),
            among,
        )
        return merged_hits(found, len(queries), k, bare=bare)

    def text_limits(self, queries: Sequence[str]) -> list[float]:
        """As `Index.text_limits`."""
        terms = [self._scatter.any().text_terms(query) for query in queries]
        statistics, _ = self._words.of(terms)
        return [statistics.limit(each) for each in terms]

    def fill(self, hits: Sequence[Sequence[Hit]]) -> list[list[Hit]]:
        """As `Index.fill`; hits of a shard that fails now are left out."""
        wanted = by_shard(hits)
        found = self._scatter.ask(lambda number, shard: shard.fill([wanted[number]])[0], wanted)
        return filled_hits(hits, wanted, found)
