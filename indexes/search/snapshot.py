"""The vectors of one commit: the segments and the rows that are alive, their scores, and the exact search over them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from embedkit.errors import IndexFileError
from embedkit.native.search import can_search
from embedkit.retrieval.strength import CosineNoise
from embedkit.retrieval.vectors import TextVectors, Vectors

from ..candidates import Candidates, Mask, Scorer
from ..storage.codes import FloatArray, RowArray
from ..storage.database import Database
from ..storage.layout import SEGMENT_FOLDER
from ..storage.payload import Payload
from ..storage.segment import MappedSegment, Segment
from ..storage.settings import Settings
from .exact import BINARY_OVERSAMPLING, MissedFaiss, search_segments, stored_vectors
from .shared_scans import SharedScans

if TYPE_CHECKING:
    from ..multi_vector.segment import TokenSegment
    from ..sparse.segment import SparseSegment

# As many more than k are fetched, so that ties at the border can be put in order by id.
MARGIN = 8
# Vectors that are compared with each other, and how few say nothing.
NOISE_SAMPLE, NOISE_LEAST = 48, 10
_CACHED_PAIRS = 1024  # scored again at a time: their vectors, 1.5 MB of 384 dimensions, stay in the cache


@dataclass(frozen=True)
class Snapshot:
    """The vectors of one commit. `alive` is by row number, None where every row is."""

    settings: Settings
    segments: Sequence[MappedSegment]
    alive: Mask | None
    num_rows: int  # alive
    next_row: int
    missed: MissedFaiss  # of all snapshots of an index
    scans: SharedScans | None = None  # with other handles of the same index

    @classmethod
    def take(
        cls,
        folder: Path,
        database: Database,
        settings: Settings,
        payload: Payload,
        *,
        missed: MissedFaiss,
        known: Sequence[MappedSegment] = (),
    ) -> Snapshot:
        """Map the segments that the database names; `known` are mapped already.

        Raises:
            FileNotFoundError: a segment went away, since a compaction was committed meanwhile.
            IndexFileError: a segment or the tombstones are damaged.
        """
        mapped = {segment.info.name: segment for segment in known}
        segments = [
            mapped.get(info.name) or payload.open(folder / SEGMENT_FOLDER / info.name, info)
            for info in database.segments()
        ]
        tombstones = database.tombstones()
        next_row = database.meta("next_row")
        num_rows = sum(map(len, segments)) - len(tombstones)
        alive: Mask | None = None
        if len(tombstones):
            alive = np.ones(next_row, bool)
            alive[tombstones] = False
        return cls(settings, segments, alive, num_rows, next_row, missed)

    @property
    def dense(self) -> Sequence[Segment]:
        """The segments of an index with one vector a passage."""
        return cast("Sequence[Segment]", self.segments)

    @property
    def scorer(self) -> Scorer:
        return Scorer(self.settings.metric, self.settings.fields)

    def sharing(self, scans: SharedScans) -> Snapshot:
        """Return the same, which shares segments and passes over them with other handles."""
        return replace(self, segments=[scans.shared(each) for each in self.segments], scans=scans)

    @cached_property
    def vectors_key(self) -> Hashable:
        """What is equal where the same vectors are alive, whichever handle of an index sees them."""
        dead = b"" if self.alive is None else hashlib.sha256(self.alive.tobytes()).digest()
        return tuple(str(segment.path) for segment in self.segments), dead

    def restrict(self, rows: RowArray | None) -> tuple[Mask | None, int]:
        """Return the mask of the rows of a filter (None: no filter) that are alive, and how many they are."""
        if rows is None:
            return self.alive, self.num_rows
        mask = np.zeros(self.next_row, bool)
        mask[rows] = True
        return mask, len(rows)

    def rows_up_to(self, last_row: int) -> int:
        """Count the rows up to a number, deleted ones that a segment still holds among them."""
        return sum(int(np.searchsorted(segment.rows, last_row, side="right")) for segment in self.segments)

    @cached_property
    def present(self) -> Mask:
        """Return the mask of the rows that are alive and in a segment."""
        mask = np.zeros(self.next_row, bool)
        for segment in self.segments:
            mask[segment.rows] = True
        return mask if self.alive is None else mask & self.alive

    def gather(self, rows: RowArray) -> FloatArray:
        """Return the vectors of rows as (len(rows), E) float32.

        Raises:
            IndexFileError: no segment holds a row, or the bytes of one were changed.
        """
        located = [(cast("Segment", segment), at, positions) for segment, at, positions in self.locate(rows)]
        if len(located) == 1:
            return located[0][0].gather(located[0][2])
        vectors = np.empty((len(rows), self.settings.dimension), np.float32)
        for segment, at, positions in located:
            vectors[at] = segment.gather(positions)
        return vectors

    def stored(self, rows: RowArray) -> Vectors:
        """Return rows as a commit into an index that stores them alike takes them: vectors, or what stands for them as it is.

        Raises:
            IndexFileError: as `gather`.
        """
        if self.settings.kind == "dense":
            return self.gather(rows)
        parts: list[Any] = []  # Any: all of one kind
        order = []
        for segment, at, positions in self.locate(rows):
            parts.append(cast("TokenSegment | SparseSegment", segment).encoded(positions))
            order.append(at)
        joined: TextVectors = type(parts[0]).concatenate(parts)
        return joined.take(np.argsort(np.concatenate(order)))

    def sample(self, count: int) -> FloatArray:
        """Return the vectors of up to `count` living rows from all parts of the index, (N, E) float32."""
        return self.vectors_at(spread(count, len(np.flatnonzero(self.present))))

    def vectors_at(self, places: RowArray) -> FloatArray:
        """Return the vectors at places among the living rows, (N, E) float32."""
        return self.gather(np.flatnonzero(self.present)[places])

    @cached_property
    def noise(self) -> CosineNoise | None:
        """How alike the vectors here are, measured on some from all parts; None where they are too few to say, or not one a passage."""
        if self.settings.kind != "dense":
            return None
        return noise_of(self.sample(NOISE_SAMPLE), self.scorer)

    def keys(self, rows: RowArray) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
        keys = np.empty(len(rows), np.uint64)
        for segment, at, positions in self.locate(rows):
            keys[at] = segment.keys[positions]
        return keys

    def locate(self, rows: RowArray) -> list[tuple[MappedSegment, RowArray, RowArray]]:
        """Return (segment, indices into rows, positions in the segment) for each segment that holds some."""
        firsts = np.asarray([segment.info.first_row for segment in self.segments], np.int64)
        which = np.searchsorted(firsts, rows, side="right") - 1
        located = []
        for number in (np.flatnonzero(np.bincount(which + 1)) - 1).tolist():
            at = np.flatnonzero(which == number)
            segment = self.segments[max(number, 0)]
            positions = segment.positions(rows[at])
            found = segment.rows[positions]
            if number < 0 or not np.array_equal(found, rows[at]):
                missing = rows[at][found != rows[at]]
                raise IndexFileError(
                    f"{segment.path.parent.parent}: no segment holds row {missing[0]}, which the database names. "
                    f"Run: embedkit index repair {segment.path.parent.parent}"
                )
            located.append((segment, at, positions))
        return located

    def _placed(self, rows: RowArray) -> Iterator[tuple[Segment, RowArray]]:
        """Yield each segment that holds some of the rows (Q, K), with their positions there, -1 for all others (Q, K)."""
        there = np.flatnonzero(rows >= 0)
        for segment, at, positions in self.locate(rows.ravel()[there]):
            segment.check_positions(positions)
            places = np.full(rows.size, -1, np.int64)
            places[there[at]] = positions
            yield cast("Segment", segment), places.reshape(rows.shape)

    def rescore(self, queries: FloatArray, candidates: Candidates) -> Candidates:
        """Score candidates again by the stored vectors; best first."""
        scores = self.pair_scores(queries, candidates.rows)
        order = np.argsort(-scores, axis=1, kind="stable")
        return Candidates(np.take_along_axis(scores, order, 1), np.take_along_axis(candidates.rows, order, 1))

    def pair_scores(self, queries: FloatArray, rows: RowArray) -> FloatArray:
        """Return the scores of rows (Q, K), each pair alone, in double precision: (Q, K); minus infinity for a row of -1."""
        scores = np.full(rows.shape, -np.inf, np.float32)
        if can_search() and not self.settings.fields:
            for segment, places in self._placed(rows):
                stored_vectors(segment, self.settings.metric).score_pairs(queries, places, scores)
            return scores
        step = max(1, _CACHED_PAIRS // max(1, rows.shape[1]))
        for first in range(0, len(queries), step):
            some, part = queries[first : first + step], rows[first : first + step]
            there = part >= 0
            if there.any():
                vectors = np.zeros((*part.shape, self.settings.dimension), np.float32)  # (step, K, E)
                vectors[there] = self.gather(part[there])
                np.copyto(scores[first : first + step], self.scorer.pairs(some, vectors), where=there)
        return scores

    def shortlist(self, queries: FloatArray, candidates: Candidates, k: int) -> Candidates:
        """Keep, of many candidates, the best few by the stored vectors, in no order, for `rescore` to look at closely."""
        rows, width = candidates.rows, k + MARGIN
        if self.settings.storage != "float32" or rows.shape[1] <= 2 * width:
            return candidates
        from .scan import score_in_place

        scores = np.full(rows.shape, -np.inf, np.float32)
        for segment, places in self._placed(rows):
            np.maximum(scores, score_in_place(segment, self.settings.metric, queries, places), out=scores)
        best = np.argpartition(-scores, width, axis=1)[:, :width]
        return Candidates(np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1))

    def search_exact(
        self,
        queries: FloatArray,
        k: int,
        *,
        rows: RowArray | None = None,
        first_row: int = 0,
        release: bool = False,
    ) -> Candidates:
        """Return at least the best k of each query and all that tie with the last of them.

        `rows` are those that a filter lets pass; `release` keeps the files out of this process's memory.
        """
        mask, matching = self.restrict(rows)

        def search(some: FloatArray, width: int) -> Candidates:
            return search_segments(
                self.dense,
                self.scorer,
                some,
                width,
                missed=self.missed,
                mask=mask,
                first_row=first_row,
                release=release,
            )

        if self.scans is not None and rows is None and not first_row and not release:
            search = partial(self._search_together, self.scans, search)
        if self.settings.storage == "binary":
            return self.rescore(queries, search(queries, min(matching, max(200, BINARY_OVERSAMPLING * k))))
        return self._with_ties(search, queries, k, fetch=min(matching, k + MARGIN), matching=matching)

    def _search_together(
        self,
        scans: SharedScans,
        search: Callable[[FloatArray, int], Candidates],
        queries: FloatArray,
        width: int,
    ) -> Candidates:
        return scans.scan((self.vectors_key, width), queries, lambda some: search(some, width))

    def _with_ties(
        self,
        search: Callable[[FloatArray, int], Candidates],
        queries: FloatArray,
        k: int,
        *,
        fetch: int,
        matching: int,
    ) -> Candidates:
        """Search for `fetch` rows, and for more where what ties with the k-th may not be among them."""
        if not fetch:
            return Candidates.none(len(queries), 0)
        fast = search(queries, fetch)
        worst = fast.scores[:, -1]
        found = self.rescore(queries, fast)
        kth = found.scores[:, min(k, fetch) - 1]
        tied = np.flatnonzero(
            (worst > -np.inf) & (worst >= kth - self.scorer.error(queries, found.scores[:, 0]))
        )
        if fetch == matching or not len(tied):
            return found
        # More rows than were fetched may tie at the border: take four times as many for those queries.
        more = min(matching, 4 * fetch)
        return found.replace(tied, self._with_ties(search, queries[tied], k, fetch=more, matching=matching))


def spread(count: int, total: int) -> RowArray:
    """Return up to `count` places from all parts of `total`, each once."""
    # Each number but the last is at least 1 below the next: none comes twice.
    return np.linspace(0, total - 1, min(count, total), dtype=np.int64)


def noise_of(vectors: FloatArray, scorer: Scorer) -> CosineNoise | None:
    """Measure how alike vectors (N, E) of an index are; None where they are too few to say."""
    return CosineNoise.of(scorer.tile(vectors, vectors)) if len(vectors) >= NOISE_LEAST else None
