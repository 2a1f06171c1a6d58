"""What faiss builds: the ANN structures (HNSW, IVF, IVF-PQ), flat files, k-means.

The structures hold 8-bit or product-quantised codes, never the vectors: they need only be good enough to find the way,
since whatever they find is scored again by the stored vectors. That keeps a million HNSW vectors of 384 dimensions at
0.6 GB instead of 1.7 and makes the search faster, which memory bandwidth limits.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any, BinaryIO, get_args

import faiss as _faiss
import numpy as np
import numpy.typing as npt

from embedkit.native.search import num_threads
from embedkit.native.threads import on_threads

from ..candidates import Candidates, Mask
from ..storage.codes import FloatArray, RowArray
from ..types import Kind, Metric

faiss: Any = _faiss  # Any: its stubs lack much of what it has
KINDS: tuple[Kind, ...] = get_args(Kind)
Knobs = Mapping[str, int]

HNSW_LINKS = 24
HNSW_EF_CONSTRUCTION = 100
MAX_TRAINING_ROWS = 100_000  # 150 MB of 384 dimensions
BLOCK_QUERIES = 512  # at most, of a search by one thread
# What a search uses until `tune` has measured something better.
DEFAULT_KNOBS: dict[Kind, dict[str, int]] = {
    "hnsw": {"efSearch": 96},
    "ivf-flat": {"nprobe": 32},
    "ivf-pq": {"nprobe": 32, "oversampling": 20},
}


def faiss_metric(metric: Metric) -> int:
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
        dimension, measure = sample.shape[1], faiss_metric(metric)
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

    def save(self, stream: BinaryIO) -> None:
        _write(self._index, stream)

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
    with (
        ThreadPoolExecutor(threads, "search", initializer=faiss.omp_set_num_threads, initargs=(1,)) as pool,
        closing(on_threads(pool, search, blocks)) as found,
    ):
        yield from zip(blocks, found, strict=True)


def k_means(
    vectors: FloatArray, num_clusters: int, *, seed: int, spherical: bool, iterations: int = 20
) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Cluster (N, E) vectors.

    Shapes:
        returns: (N,) the cluster of each, and the centroids (num_clusters, E)
    """
    means = faiss.Kmeans(
        vectors.shape[1],
        num_clusters,
        niter=iterations,
        seed=seed,
        spherical=spherical,
        min_points_per_centroid=1,
    )
    means.train(vectors)
    _, assigned = means.index.search(vectors, 1)
    return assigned[:, 0].astype(np.int64), np.asarray(means.centroids, np.float32)


def write_flat(
    stream: BinaryIO, metric: Metric, dimension: int, chunks: Iterable[tuple[RowArray, FloatArray]]
) -> None:
    """Write a plain faiss file of (row, vector) pairs that faiss alone opens."""
    index = faiss.IndexFlat(dimension, faiss_metric(metric))
    for _, vectors in chunks:
        index.add(vectors)
    _write(index, stream)


def _write(index: Any, stream: BinaryIO) -> None:  # Any: faiss has no types
    # Given a name, faiss opens the file itself, and where the disk is full at its last bytes it loses them without an error.
    faiss.write_index(index, faiss.PyCallbackIOWriter(stream.write))
