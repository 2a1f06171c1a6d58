"""Every faiss call: the ANN structures (HNSW, IVF, IVF-PQ), scans of codes, Hamming search, k-means.

The structures hold 8-bit or product-quantised codes, never the vectors: they need only be good enough to find the way,
since whatever they find is scored again by the stored vectors. That keeps a million HNSW vectors of 384 dimensions at
0.6 GB instead of 1.7 and makes the search faster, which memory bandwidth limits.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from pathlib import Path
from typing import Any, get_args

import faiss as _faiss
import numpy as np
import numpy.typing as npt

from embedkit.native.search import num_threads

from ..candidates import Candidates, Mask
from ..storage.segment import FloatArray, RowArray, Segment
from ..types import Kind, Metric
from .tiles import keep_best

faiss: Any = _faiss  # Any: its stubs lack much of what it has
KINDS: tuple[Kind, ...] = get_args(Kind)
Knobs = Mapping[str, int]

HNSW_LINKS = 24
HNSW_EF_CONSTRUCTION = 100
MAX_TRAINING_ROWS = 100_000  # 150 MB of 384 dimensions
# So many numbers, 100,000 rows of 384 dimensions, take one thread 6 ms to score: more than others take to start.
THREADS_WORTH = 38_000_000
BLOCK_QUERIES = 512  # at most, of a search by one thread
# What a search uses until `tune` has measured something better.
DEFAULT_KNOBS: dict[Kind, dict[str, int]] = {
    "hnsw": {"efSearch": 96},
    "ivf-flat": {"nprobe": 32},
    "ivf-pq": {"nprobe": 32, "oversampling": 20},
}


def _metric(metric: Metric) -> int:
    return int(faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT)


def num_lists(rows: int) -> int:
    """Return how many lists an IVF over so many rows has: 4 sqrt(N), the middle of what faiss's guide advises."""
    return max(1, min(rows, int(4 * rows**0.5)))


class AnnIndex:
    """One faiss structure over rows: `add` until it is full, `save`, `load`, `search`."""

    def __init__(self, index: Any, kind: Kind, data: npt.NDArray[np.uint8] | None = None) -> None:
        # Any: faiss has no types
        self._index, self.kind, self._data = index, kind, data  # data: what the index points into, kept alive

    @classmethod
    def train(cls, kind: Kind, metric: Metric, rows: int, sample: FloatArray) -> AnnIndex:
        """Make an empty structure fit for so many rows, from a sample of the vectors."""
        dimension, measure = sample.shape[1], _metric(metric)
        if kind == "hnsw":
            index = faiss.IndexHNSWSQ(dimension, faiss.ScalarQuantizer.QT_8bit, HNSW_LINKS, measure)
            index.hnsw.efConstruction = HNSW_EF_CONSTRUCTION
            index.train(sample)
            return cls(faiss.IndexIDMap(index), kind)
        lists = min(num_lists(rows), len(sample))
        quantizer = faiss.IndexFlat(dimension, measure)
        if kind == "ivf-flat":
            index = faiss.IndexIVFScalarQuantizer(
                quantizer, dimension, lists, faiss.ScalarQuantizer.QT_8bit, measure, False
            )
        else:
            sample = np.repeat(sample, 2, axis=0) if len(sample) == 1 else sample  # one bit has two centroids
            parts = next(m for m in range(max(1, dimension // 8), 0, -1) if dimension % m == 0)
            bits = min(8, max(1, int(np.log2(len(sample)))))  # no more centroids than vectors
            index = faiss.IndexIVFPQ(quantizer, dimension, lists, parts, bits, measure)
            index.pq.cp.min_points_per_centroid = 1
        index.cp.min_points_per_centroid = 1  # faiss would write a warning to stderr for a small collection
        index.train(sample)
        return cls(index, kind)

    def add(self, rows: RowArray, vectors: FloatArray) -> None:
        self._index.add_with_ids(vectors, rows)

    def save(self, path: Path) -> None:
        faiss.write_index(self._index, str(path))
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    @classmethod
    def map(cls, data: mmap.mmap, kind: Kind) -> AnnIndex:
        """Take a saved structure where it lies in a memory map; nothing of it is copied."""
        view = np.frombuffer(data, np.uint8)
        return cls(faiss.read_index(faiss.ZeroCopyIOReader(faiss.swig_ptr(view), len(view))), kind, view)

    @property
    def num_lists(self) -> int:
        return 1 if self.kind == "hnsw" else int(self._index.nlist)

    def search(
        self, queries: FloatArray, k: int, knobs: Knobs, *, mask: Mask | None = None, share: float = 1.0
    ) -> Candidates:
        """Return rows near each query, for rescoring; -1 where fewer were found.

        `share` is the part of the rows that `mask` lets pass. Both structures spend their effort on rows that will not
        be returned too, so it grows as the share falls: with a tenth of 100,000 rows allowed, HNSW's recall@10 is .96
        so and would be .73 at the effort that finds all ten among all rows.
        """
        selector = None
        if mask is not None:
            bitmap = np.packbits(mask, bitorder="little")
            selector = faiss.IDSelectorBitmap(len(mask), faiss.swig_ptr(bitmap))
        # 8-bit codes put hardly a row out of place: rescoring 12 for 10 finds .9541 of a million's best, rescoring 14 .9542.
        fetch = k * knobs["oversampling"] if "oversampling" in knobs else k + max(2, k // 4)
        if self.kind == "hnsw":
            effort = int(max(knobs["efSearch"], fetch) / share)
            parameters = faiss.SearchParametersHNSW(efSearch=effort, sel=selector)
        else:
            nprobe = min(self.num_lists, int(np.ceil(knobs["nprobe"] / share)))
            parameters = faiss.SearchParametersIVF(nprobe=nprobe, sel=selector)
        scores, rows = self._index.search(queries, min(fetch, self._index.ntotal), params=parameters)
        return Candidates(scores, rows)


def search_blocks(
    search: Callable[[FloatArray], Candidates], queries: FloatArray
) -> Iterator[tuple[FloatArray, Candidates]]:
    """Yield blocks of the queries, in order, with what `search` finds for each: one to a thread, where faiss takes no more.

    So no thread waits for another after each step, as faiss's own threads would. The blocks are large, since faiss clears a
    byte for every row of a graph each time it is called.
    """
    threads = num_threads()
    rounds = -(-len(queries) // (threads * BLOCK_QUERIES))
    size = -(-len(queries) // (threads * rounds))
    blocks = [queries[start : start + size] for start in range(0, len(queries), size)]
    if len(blocks) == 1:
        yield queries, search(queries)
        return
    pool = ThreadPoolExecutor(threads, "search", initializer=faiss.omp_set_num_threads, initargs=(1,))
    try:
        yield from zip(blocks, pool.map(search, blocks), strict=True)
    finally:
        pool.shutdown(cancel_futures=True)


def scan_codes(
    segment: Segment, metric: Metric, queries: FloatArray, k: int, start: int, allowed: Mask | None
) -> Candidates:
    """Score codes from `start` on where they lie in the memory map, with as many threads as faiss may use.

    `allowed` is by position from `start` on.
    """
    threads = num_threads() if segment.codes[start:].size > THREADS_WORTH else 1
    borders = np.linspace(start, len(segment), threads + 1).astype(int).tolist()
    scan = _scan_floats if segment.storage == "float32" else _scan_quantised

    def part(at: int, stop: int) -> Candidates:
        here = None if allowed is None else allowed[at - start : stop - start]
        return scan(segment, metric, queries, k, slice(at, stop), here)

    if threads == 1:
        return part(start, len(segment))
    with ThreadPoolExecutor(threads, thread_name_prefix="scan") as pool:
        found = list(pool.map(part, borders[:-1], borders[1:]))
    return reduce(lambda best, other: best.merge(other, k), found)


def _scan_quantised(
    segment: Segment, metric: Metric, queries: FloatArray, k: int, where: slice, allowed: Mask | None
) -> Candidates:
    quantizer = faiss.IndexScalarQuantizer(
        segment.dimension,
        faiss.ScalarQuantizer.QT_fp16 if segment.storage == "float16" else faiss.ScalarQuantizer.QT_8bit,
        _metric(metric),
    )
    if segment.scales is not None:
        # faiss decodes low + span * (code + 0.5) / 255; ours is (code - 128) * scale.
        trained = np.concatenate([-128.5 * segment.scales, 255 * segment.scales]).astype(np.float32)
        faiss.copy_array_to_vector(trained, quantizer.sq.trained)
    selector = None
    if allowed is not None:
        bitmap = np.packbits(allowed, bitorder="little")
        selector = faiss.IDSelectorBitmap(len(allowed), faiss.swig_ptr(bitmap))
    scanner = quantizer.sq.select_InvertedListScanner(_metric(metric), quantizer, True, selector, False)
    codes = segment.codes[where].view(np.uint8)
    worst = -np.inf if metric != "l2" else np.inf
    scores = np.full((len(queries), k), worst, np.float32)
    found = np.full((len(queries), k), -1, np.int64)
    for query in range(len(queries)):
        scanner.set_query(faiss.swig_ptr(np.ascontiguousarray(queries[query])))
        scanner.set_list(0, 0.0)
        scanner.scan_codes(
            len(codes),
            faiss.swig_ptr(codes),
            None,
            faiss.swig_ptr(scores[query]),
            faiss.swig_ptr(found[query]),
            k,
        )
    if metric == "l2":
        scores = -scores
    rows = np.where(found >= 0, segment.rows[where][np.maximum(found, 0)], -1)
    order = np.argsort(-scores, axis=1, kind="stable")  # the scanner leaves a heap
    return Candidates(np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1))


def _scan_floats(
    segment: Segment, metric: Metric, queries: FloatArray, k: int, where: slice, allowed: Mask | None
) -> Candidates:
    best = Candidates.none(len(queries), k)
    vectors, rows = segment.codes[where], segment.rows[where]
    score = faiss.fvec_L2sqr_ny if metric == "l2" else faiss.fvec_inner_products_ny
    for query in range(len(queries)):
        scores = np.empty((1, len(vectors)), np.float32)
        one = np.ascontiguousarray(queries[query])
        score(*map(faiss.swig_ptr, (scores, one, vectors)), segment.dimension, len(vectors))
        if metric == "l2":
            np.negative(scores, out=scores)
        if allowed is not None:
            scores[0, ~allowed] = -np.inf
        keep_best(scores, rows, best.scores[query : query + 1], best.rows[query : query + 1])
    return best


def score_in_place(segment: Segment, metric: Metric, queries: FloatArray, positions: RowArray) -> FloatArray:
    """Score fp32 vectors where they lie in the memory map, good to six digits.

    Shapes:
        queries: (Q, E); positions: (Q, K) in the segment, or -1
        returns: (Q, K), -inf for a position of -1
    """
    scores = np.empty(positions.shape, np.float32)
    kernel = faiss.fvec_L2sqr_by_idx if metric == "l2" else faiss.fvec_inner_products_by_idx
    arrays = (scores, np.ascontiguousarray(queries), segment.codes, np.ascontiguousarray(positions))
    kernel(*map(faiss.swig_ptr, arrays), segment.dimension, *positions.shape)
    return -scores if metric == "l2" else scores


def hamming_search(
    queries: npt.NDArray[np.uint8], bits: npt.NDArray[np.uint8], k: int
) -> tuple[npt.NDArray[np.int32], RowArray]:
    """Return the distances and positions of the k nearest bit strings of each query, as (Q, k) each, nearest first."""
    distances, positions = faiss.knn_hamming(queries, np.ascontiguousarray(bits), k, variant="hc")
    return distances, np.asarray(positions, np.int64)


def k_means(
    vectors: FloatArray, num_clusters: int, *, seed: int, spherical: bool
) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Cluster (N, E) vectors.

    Shapes:
        returns: (N,) the cluster of each, and the centroids (num_clusters, E)
    """
    means = faiss.Kmeans(
        vectors.shape[1], num_clusters, niter=20, seed=seed, spherical=spherical, min_points_per_centroid=1
    )
    means.train(vectors)
    _, assigned = means.index.search(vectors, 1)
    return assigned[:, 0].astype(np.int64), np.asarray(means.centroids, np.float32)


def write_flat(
    path: Path, metric: Metric, dimension: int, chunks: Iterable[tuple[RowArray, FloatArray]]
) -> int:
    """Write a plain faiss file of (row, vector) pairs that faiss alone opens; return how many there are."""
    index = faiss.IndexFlat(dimension, _metric(metric))
    for _, vectors in chunks:
        index.add(vectors)
    faiss.write_index(index, str(path))
    return int(index.ntotal)
