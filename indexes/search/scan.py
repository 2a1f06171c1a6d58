"""Passes of faiss over vectors where they lie in a segment: by inner product or distance, and by Hamming distance."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from embedkit.native.search import num_threads
from embedkit.native.threads import on_threads

from ..candidates import Candidates, Mask
from ..storage.codes import FloatArray, RowArray
from ..storage.segment import Segment
from ..types import Metric
from .ann import faiss, faiss_metric
from .tiles import keep_best

# So many numbers, 100,000 rows of 384 dimensions, take one thread 6 ms to score: more than others take to start.
THREADS_WORTH = 38_000_000
HAMMING_PAIRS = 70_000_000  # compared in one call: half a second of one core, for which Ctrl-C has to wait


def scan_codes(
    segment: Segment, metric: Metric, queries: FloatArray, k: int, start: int, allowed: Mask | None
) -> Candidates:
    """Score codes from `start` on where they lie in the memory map, with as many threads as faiss may use.

    `allowed` is by position from `start` on.
    """
    threads = num_threads() if segment.codes[start:].size > THREADS_WORTH else 1
    borders = np.linspace(start, len(segment), threads + 1).astype(int).tolist()
    scan = _scan_floats if segment.storage == "float32" else _scan_quantised

    def part(between: tuple[int, int]) -> Candidates:
        at, stop = between
        here = None if allowed is None else allowed[at - start : stop - start]
        return scan(segment, metric, queries, k, slice(at, stop), here)

    if threads == 1:
        return part((start, len(segment)))
    with ThreadPoolExecutor(threads, thread_name_prefix="scan") as pool:
        found = list(on_threads(pool, part, pairwise(borders)))
    return reduce(lambda best, other: best.merge(other, k), found)


def _scan_quantised(
    segment: Segment, metric: Metric, queries: FloatArray, k: int, where: slice, allowed: Mask | None
) -> Candidates:
    quantizer = faiss.IndexScalarQuantizer(
        segment.dimension,
        faiss.ScalarQuantizer.QT_fp16 if segment.storage == "float16" else faiss.ScalarQuantizer.QT_8bit,
        faiss_metric(metric),
    )
    if segment.scales is not None:
        # faiss decodes low + span * (code + 0.5) / 255; ours is (code - 128) * scale.
        trained = np.concatenate([-128.5 * segment.scales, 255 * segment.scales]).astype(np.float32)
        faiss.copy_array_to_vector(trained, quantizer.sq.trained)
    selector = None
    if allowed is not None:
        bitmap = np.packbits(allowed, bitorder="little")
        selector = faiss.IDSelectorBitmap(len(allowed), faiss.swig_ptr(bitmap))
    scanner = quantizer.sq.select_InvertedListScanner(faiss_metric(metric), quantizer, True, selector, False)
    codes = segment.codes[where].view(np.uint8)
    worst = -np.inf if metric != "l2" else np.inf
    scores = np.full((len(queries), k), worst, np.float32)
    found = np.full((len(queries), k), -1, np.int64)
    queries = np.ascontiguousarray(queries)  # the scanner keeps the address of the one that it was given
    for query in range(len(queries)):
        scanner.set_query(faiss.swig_ptr(queries[query]))
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
    bits = np.ascontiguousarray(bits)
    step = max(64, HAMMING_PAIRS // max(1, len(bits)))  # enough for all cores
    blocks = [queries[start : start + step] for start in range(0, max(1, len(queries)), step)]
    found = [faiss.knn_hamming(block, bits, k, variant="hc") for block in blocks]
    distances, positions = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return distances, np.asarray(positions, np.int64)
