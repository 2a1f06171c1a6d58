"""What is alike within a collection: the most similar pairs, near-duplicates, clusters.

All of it works on blocks of the similarity matrix, which is never held whole. The work grows with the square of the
number of texts (clusters by k-means apart): 10,000 texts are 0.05 * 10^9 pairs and take about half a second on two
cores, 100,000 a minute.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..storage.codes import FloatArray, RowArray
from ..storage.settings import Settings
from ..storage.vectors import prepare_vectors

_BLOCK = 1024
# Two blocks' products differ from a sum in double precision by less than this for unit vectors.
_ERROR = 1e-5


@dataclass(frozen=True)
class Pair:
    """Two texts by their positions, first < second, and their cosine."""

    first: int
    second: int
    score: float


@dataclass(frozen=True)
class Cluster:
    """Texts that belong together, by position: the most central first."""

    members: Sequence[int]


def similar_pairs(vectors: FloatArray, *, k: int = 100, min_score: float = -1.0) -> list[Pair]:
    """Return the k most similar pairs among (N, E) vectors, best first, ties by position.

    Raises:
        IndexMismatchError: a vector is zero or not finite; the message says which.
    """
    if k < 1:
        raise ValueError(f"k is {k}; it must be at least 1")
    unit = _unit(vectors)
    total = len(unit)
    firsts, seconds, scores = np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32)
    bar = np.float32(min_score - _ERROR)
    for top in range(0, total, _BLOCK):
        for left in range(top, total, _BLOCK):
            tile = unit[top : top + _BLOCK] @ unit[left : left + _BLOCK].T
            if top == left:
                tile[np.tril_indices(len(tile))] = -2  # below any cosine: each pair once, none with itself
            above = np.flatnonzero(tile >= bar)
            if len(above) > 4 * k:
                # A tie with the last of the best must stay: which of them come first is a matter of position.
                worst = np.partition(tile.ravel()[above], -k)[-k] - _ERROR
                above = above[tile.ravel()[above] >= worst]
            rows, columns = np.divmod(above, tile.shape[1])
            firsts = np.concatenate([firsts, rows + top])
            seconds = np.concatenate([seconds, columns + left])
            scores = np.concatenate([scores, tile.ravel()[above]])
            if len(scores) > 8 * k:
                bar = max(bar, np.partition(scores, -k)[-k] - np.float32(_ERROR))
                kept = scores >= bar
                firsts, seconds, scores = firsts[kept], seconds[kept], scores[kept]
    return _best_pairs(unit, firsts, seconds, k, min_score)


def _best_pairs(
    unit: FloatArray, firsts: RowArray, seconds: RowArray, k: int, min_score: float
) -> list[Pair]:
    exact = np.empty(len(firsts), np.float32)
    for start in range(0, len(firsts), 8192):
        part = slice(start, start + 8192)
        exact[part] = np.einsum("ne,ne->n", unit[firsts[part]], unit[seconds[part]], dtype=np.float64)
    order = np.lexsort((seconds, firsts, -exact))[:k]
    return [
        Pair(int(firsts[at]), int(seconds[at]), float(exact[at]))
        for at in order
        if exact[at] >= np.float32(min_score)
    ]


def duplicates(vectors: FloatArray, *, threshold: float = 0.95) -> list[Pair]:
    """Find the texts that are nearly the same as an earlier one that stays: `second` may go, for `first` is kept.

    Texts are kept in order, so that a chain of small differences does not pull far things together: each text that goes
    is within `threshold` of one that stays.
    """
    _check_threshold(threshold)
    unit = _unit(vectors)
    kept = np.empty((0, unit.shape[1]), np.float32)
    kept_at = np.empty(0, np.int64)
    found = []
    for start in range(0, len(unit), _BLOCK):
        block = unit[start : start + _BLOCK]
        best, best_at = _nearest(block, kept, kept_at)
        inner = block @ block.T
        staying: list[int] = []
        for row in range(len(block)):
            score, other = best[row], best_at[row]
            if staying:
                nearest = int(np.argmax(inner[row, staying]))
                if inner[row, staying[nearest]] > score:
                    score, other = inner[row, staying[nearest]], start + staying[nearest]
            if score >= threshold:
                found.append(Pair(int(other), start + row, float(score)))
            else:
                staying.append(row)
        kept = np.concatenate([kept, block[staying]])
        kept_at = np.concatenate([kept_at, start + np.asarray(staying, np.int64)])
    return found


def _nearest(block: FloatArray, kept: FloatArray, kept_at: RowArray) -> tuple[FloatArray, RowArray]:
    """Return the best score of each row of a block among the kept vectors, and where that one stands."""
    best, best_at = np.full(len(block), -2, np.float32), np.full(len(block), -1, np.int64)
    for at in range(0, len(kept), 8 * _BLOCK):
        scores = block @ kept[at : at + 8 * _BLOCK].T
        nearest = scores.argmax(axis=1)
        value = scores[np.arange(len(block)), nearest]
        better = value > best
        best[better], best_at[better] = value[better], kept_at[at + nearest[better]]
    return best, best_at


def cluster(
    vectors: FloatArray,
    *,
    num_clusters: int | None = None,
    threshold: float = 0.75,
    min_size: int = 5,
    seed: int = 0,
) -> list[Cluster]:
    """Group texts: by k-means where `num_clusters` is given, else by communities; the largest first.

    A community is a text with all that are within `threshold` of it, at least `min_size` of them; larger ones are taken
    first, a text belongs to one at most, and those that belong to none are left out.
    """
    unit = _unit(vectors)
    if num_clusters is None:
        _check_threshold(threshold)
        if min_size < 1:
            raise ValueError(f"min_size is {min_size}; it must be at least 1")
        return _communities(unit, threshold, min_size)
    if not 1 <= num_clusters <= len(unit):
        raise ValueError(
            f"num_clusters is {num_clusters}; with {len(unit)} texts it must be 1 to {len(unit)}"
        )
    from ..search.ann import k_means

    assigned, centroids = k_means(unit, num_clusters, seed=seed, spherical=True)
    closeness = np.einsum("ne,ne->n", unit, centroids[assigned])
    order = np.lexsort((-closeness, assigned))
    borders = np.searchsorted(assigned[order], np.arange(num_clusters + 1))
    groups = [order[start:stop].tolist() for start, stop in itertools.pairwise(borders)]
    return [Cluster(tuple(members)) for members in sorted(groups, key=lambda g: (-len(g), g)) if members]


def _communities(unit: FloatArray, threshold: float, min_size: int) -> list[Cluster]:
    counts = np.zeros(len(unit), np.int64)
    for start in range(0, len(unit), _BLOCK):
        block = unit[start : start + _BLOCK]
        for at in range(0, len(unit), 8 * _BLOCK):
            counts[start : start + _BLOCK] += np.count_nonzero(
                block @ unit[at : at + 8 * _BLOCK].T >= threshold, axis=1
            )
    free = np.ones(len(unit), bool)
    centres = np.flatnonzero(counts >= min_size)
    centres = centres[np.argsort(-counts[centres], kind="stable")]
    found = []
    for centre in centres.tolist():
        if not free[centre]:
            continue
        candidates = np.flatnonzero(free)
        scores = unit[candidates] @ unit[centre]
        close = scores >= threshold
        if np.count_nonzero(close) < min_size:
            continue
        members = candidates[close][np.argsort(-scores[close], kind="stable")]
        free[members] = False
        found.append(Cluster((centre, *(member for member in members.tolist() if member != centre))))
    return sorted(found, key=lambda group: (-len(group.members), group.members[0]))


def _unit(vectors: FloatArray) -> FloatArray:
    settings = Settings(dimension=vectors.shape[1])
    return prepare_vectors(vectors, settings, [f"text {number}" for number in range(1, len(vectors) + 1)])


def _check_threshold(threshold: float) -> None:
    if not -1 <= threshold <= 1:
        raise ValueError(f"threshold is {threshold}; a cosine is between -1 and 1")
