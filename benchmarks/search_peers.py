"""hnswlib and usearch for search.py, with the same links and build effort as embedkit's HNSW."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from indexes.search.ann import HNSW_EF_CONSTRUCTION, HNSW_LINKS

EFFORTS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)


class Peer(Protocol):
    """An index of another library, built, or loaded if the folder has it."""

    name: str
    build_seconds: float
    num_bytes: int

    def find(self, queries: np.ndarray, k: int, effort: int) -> np.ndarray:
        """Return (Q, k) positions."""
        ...


def _kept(
    path: Path, build: Callable[[], Any], save: Callable[[str], Any], load: Callable[[str], Any]
) -> float:
    """Build and save an index, or load the saved one; return the time the build took."""
    note = path.with_suffix(".seconds")
    if not note.exists():
        start = time.perf_counter()
        build()
        seconds = time.perf_counter() - start
        save(str(path))
        note.write_text(f"{seconds}\n", encoding="utf-8")
    else:
        load(str(path))
    return float(note.read_text(encoding="utf-8"))


class HnswLib:
    """hnswlib, which stores float32."""

    name = "hnswlib f32"

    def __init__(self, folder: Path, vectors: np.ndarray) -> None:
        import hnswlib

        self._index: Any = hnswlib.Index(space="ip", dim=vectors.shape[1])
        path = folder / "hnswlib.bin"

        def build() -> None:
            self._index.init_index(
                max_elements=len(vectors), ef_construction=HNSW_EF_CONSTRUCTION, M=HNSW_LINKS
            )
            self._index.add_items(vectors)

        self.build_seconds = _kept(path, build, self._index.save_index, self._index.load_index)
        self.num_bytes = path.stat().st_size

    def find(self, queries: np.ndarray, k: int, effort: int) -> np.ndarray:
        self._index.set_ef(effort)
        return np.asarray(self._index.knn_query(queries, k=k)[0], np.int64)


class USearch:
    """usearch, with 16-bit vectors or with 8-bit ones as in embedkit's ANN index; it does not rescore its hits."""

    def __init__(self, folder: Path, vectors: np.ndarray, *, dtype: str) -> None:
        from usearch.index import Index

        self.name = f"usearch {dtype}"
        self._index: Any = Index(
            ndim=vectors.shape[1],
            metric="ip",
            dtype=dtype,
            connectivity=HNSW_LINKS,
            expansion_add=HNSW_EF_CONSTRUCTION,
        )
        path = folder / f"usearch-{dtype}.bin"

        def build() -> None:
            self._index.add(np.arange(len(vectors)), vectors)

        self.build_seconds = _kept(path, build, self._index.save, self._index.load)
        self.num_bytes = path.stat().st_size

    def find(self, queries: np.ndarray, k: int, effort: int) -> np.ndarray:
        self._index.expansion_search = effort
        return np.asarray(self._index.search(queries, k).keys, np.int64).reshape(len(queries), -1)


PEERS: dict[str, Callable[[Path, np.ndarray], Peer]] = {
    "hnswlib": HnswLib,
    "usearch": partial(USearch, dtype="f16"),
    "usearch-i8": partial(USearch, dtype="i8"),
}
