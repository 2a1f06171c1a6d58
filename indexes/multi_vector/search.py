"""From the token vectors of queries to candidate rows.

1. The centroids nearest to each token of the query; the rows that have a token of any of them, by the lists of each segment.
2. These rows scored as if their tokens were their centroids; the best few go on.
3. Exact MaxSim with what is stored of these. The same with all rows is exact search.
Sources: Santhanam et al. 2022 (PLAID), https://arxiv.org/abs/2205.09707, sections 4.1 to 4.4, without the pruning of centroids in its
stage 2; Scheerer et al. 2025 (WARP), https://arxiv.org/abs/2501.17788.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import numpy as np

from embedkit.native.search import num_threads
from embedkit.native.threads import on_threads
from embedkit.retrieval.token_vectors import TokenVectors

from ..candidates import Candidates, Mask, Scored, best_and_ties
from ..search.ann_file import AnnFile
from ..search.search import SearchRequest
from ..search.snapshot import Snapshot
from ..storage.codes import FloatArray, RowArray
from ..storage.database import Database
from .probing import Probing
from .scoring import QueryScorer
from .segment import TokenSegment

Knobs = Mapping[str, int]
BLOCK_QUERIES = 64
# Where so many times the candidates of an approximate search are all there are, or all that a filter lets pass, looking at all is
# no slower.
EXACT_WORTH = 4


class TokenSearch:
    """Search in a multi-vector index, as hard as its database says."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def __call__(
        self, snapshot: Snapshot, ann: AnnFile | None, queries: TokenVectors, k: int, request: SearchRequest
    ) -> Iterator[Candidates]:
        """Yield at least the best k rows of each query, and all that tie with the last of them, in blocks."""
        knobs: Knobs | None = None
        if not request.exact:
            knobs = request.knobs or Probing.read(self._database).knobs or None
        yield from search_tokens(snapshot, queries, k, rows=request.rows, knobs=knobs)


def search_tokens(
    snapshot: Snapshot, queries: TokenVectors, k: int, *, rows: RowArray | None = None, knobs: Knobs | None
) -> Iterator[Candidates]:
    """Yield the best rows of each query in blocks; with `knobs` None by looking at all, else approximately."""
    mask, matching = snapshot.restrict(rows)
    for start in range(0, len(queries), BLOCK_QUERIES):
        block = [queries.text(at) for at in range(start, min(len(queries), start + BLOCK_QUERIES))]
        yield Candidates.of(_search_block(snapshot, block, k, mask, matching, knobs))


def _search_block(
    snapshot: Snapshot,
    queries: Sequence[FloatArray],
    k: int,
    mask: Mask | None,
    matching: int,
    knobs: Knobs | None,
) -> list[Scored]:
    def search(query: FloatArray, threads: int = 1) -> Scored:
        return _search_one(snapshot, query, k, mask, matching, knobs, threads)

    threads = num_threads()
    if len(queries) < 2 or threads < 2:
        return [search(query, threads) for query in queries]
    with ThreadPoolExecutor(threads, "maxsim") as pool:
        return list(on_threads(pool, search, queries))


def _search_one(
    snapshot: Snapshot,
    query: FloatArray,
    k: int,
    mask: Mask | None,
    matching: int,
    knobs: Knobs | None,
    threads: int,
) -> Scored:
    segments = cast("Sequence[TokenSegment]", snapshot.segments)
    if not segments or not matching:
        return np.empty(0, np.float32), np.empty(0, np.int64)
    scorer = QueryScorer(query, segments[0].codebook)
    if knobs is not None:
        count = max(knobs["candidates"], 2 * k)
        share = min(1.0, matching / max(1, snapshot.num_rows))
        if matching > EXACT_WORTH * count:
            # As a filter lets fewer rows pass, more lists have to be read for as many of them.
            chosen = _candidates(segments, scorer, int(np.ceil(knobs["nprobe"] / share)), count, mask)
            if sum(map(len, chosen)) >= min(k, matching):
                return best_and_ties(*_score(segments, scorer, chosen, threads), k)
    everything = [_allowed(segment, np.arange(len(segment)), mask) for segment in segments]
    return best_and_ties(*_score(segments, scorer, everything, threads), k)


def _candidates(
    segments: Sequence[TokenSegment], scorer: QueryScorer, nprobe: int, count: int, mask: Mask | None
) -> list[RowArray]:
    """Return the positions, in each segment, of the rows that are worth scoring: `count` of all, by centroids the best."""
    centroids = scorer.nearest(nprobe)
    found = [_allowed(segment, segment.candidates(centroids), mask) for segment in segments]
    if sum(map(len, found)) <= count:
        return found
    scores = [scorer.by_centroids(segment, at) for segment, at in zip(segments, found, strict=True)]
    least = np.partition(np.concatenate(scores), -count)[-count]
    return [at[of >= least] for at, of in zip(found, scores, strict=True)]


def _allowed(segment: TokenSegment, positions: RowArray, mask: Mask | None) -> RowArray:
    return positions if mask is None else positions[mask[segment.rows[positions]]]


def _score(
    segments: Sequence[TokenSegment], scorer: QueryScorer, positions: Sequence[RowArray], threads: int
) -> Scored:
    pairs = list(zip(segments, positions, strict=True))
    return (
        np.concatenate([scorer.by_tokens(segment, at, threads=threads) for segment, at in pairs]),
        np.concatenate([segment.rows[at] for segment, at in pairs]),
    )
