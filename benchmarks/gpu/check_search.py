"""Exact search on the device finds the same hits with the same scores as on the CPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np

from embedkit.data.records import Document, Hit
from embedkit.types import Float32
from indexes import Index, Settings
from indexes.types import Metric, Storage

from .ceilings import tf32
from .setting import Setting
from .stages import Case, Measured

STORAGES: tuple[Storage, ...] = ("float32", "float16", "int8", "binary")
DIMENSION = 96
NUM_QUERIES = 20


def cases(setting: Setting) -> Iterator[Case]:
    if setting.device == "cuda":  # the calling program may have allowed it
        yield "float32 cosine through TF32", partial(_search, setting, "float32", "cosine", coarse=True)
    for storage in STORAGES:
        for metric in get_args(Metric) if storage != "binary" else ("cosine",):
            yield f"{storage} {metric}", partial(_search, setting, storage, metric)


def _search(setting: Setting, storage: Storage, metric: Metric, *, coarse: bool = False) -> Measured:
    """Search an index with ties, deleted documents and two segments, with and without a filter."""
    folder = setting.place / f"index-{storage}-{metric}-{coarse}"
    draw = np.random.default_rng(0)
    queries = draw.standard_normal((NUM_QUERIES, DIMENSION), np.float32)
    with Index.create(folder, Settings(dimension=DIMENSION, metric=metric, storage=storage)) as index:
        for start in (0, setting.size(4000, 400)):
            vectors = draw.standard_normal((setting.size(4000, 400), DIMENSION), np.float32)
            vectors[:50] = queries[0]  # ties
            index.add(
                [
                    Document(f"d{start + n:06d}", f"text {n}", metadata={"topic": n % 5})
                    for n in range(len(vectors))
                ],
                vectors,
            )
        index.delete([f"d{number:06d}" for number in range(0, setting.size(4000, 400), 3)])
    wrong = 0
    for where in (None, "topic = 3"):
        # By torch, too: the tests compare this with faiss and our kernels.
        wanted = _hits(folder, queries, where, "cpu")
        with tf32(coarse):
            found = _hits(folder, queries, where, setting.device)
        wrong += sum(ours != theirs for ours, theirs in zip(found, wanted, strict=True))
    return Measured({"queries with different hits": wrong}, {"queries with different hits": 0})


def _hits(folder: Path, queries: Float32, where: str | None, device: str) -> Sequence[Sequence[Hit]]:
    with Index.open(folder, device=device) as index:
        return index.search(queries, k=10, where=where)
