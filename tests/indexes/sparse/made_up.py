"""Made-up sparse vectors, and documents to go with them."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from embedkit.data.records import Document
from embedkit.retrieval.sparse_vectors import SparseVectors
from indexes import Index, Settings

DIMENSION = 300


def make_vectors(count: int, *, seed: int = 0, terms: int = 20, dimension: int = DIMENSION) -> SparseVectors:
    """Make rows of about so many terms, of which few are frequent and most are rare, as in a language."""
    rng = np.random.default_rng(seed)
    luck = rng.gumbel(size=(count, dimension)) - np.log(np.arange(1, dimension + 1))
    ranks = np.argsort(np.argsort(-luck, axis=1), axis=1)
    weights = rng.gamma(2.0, 0.5, (count, dimension)) + 0.05
    dense = np.where(ranks < rng.integers(1, 2 * terms, (count, 1)), weights, 0).astype(np.float32)
    return SparseVectors.from_dense(dense)


def make_documents(count: int, *, first: int = 0) -> list[Document]:
    return [
        Document(f"d{number}", f"text number {number}", metadata={"part": number % 7})
        for number in range(first, first + count)
    ]


def embed_terms(texts: Sequence[str]) -> SparseVectors:
    """Give each text the terms that its words stand for, the same in every process, and one that all texts have."""
    dense = np.zeros((len(texts), DIMENSION), np.float32)
    for row, text in zip(dense, texts, strict=True):
        row[0] = 0.5
        for word in text.split():
            row[1 + zlib.crc32(word.encode()) % (DIMENSION - 1)] += 1
    return SparseVectors.from_dense(dense)


def settings(dimension: int = DIMENSION, **changes: object) -> Settings:
    values: dict[str, object] = {"dimension": dimension, "kind": "sparse", "metric": "dot", "storage": "int8"}
    return Settings(**(values | changes))  # type: ignore[arg-type]  # a test names the fields that it wants


def make_index(folder: Path, vectors: SparseVectors) -> Index:
    index = Index.create(folder, settings(vectors.dimension))
    index.add(make_documents(len(vectors)), vectors)
    return index
