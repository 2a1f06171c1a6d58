"""Speed of exact search over a million random vectors on the device, and on the CPU."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import numpy as np

from embedkit.types import Float32
from indexes import Settings
from indexes.candidates import Candidates
from indexes.search.exact import MissedFaiss
from indexes.search.gpu import search_device
from indexes.search.snapshot import Snapshot
from indexes.storage.codes import calibrate, encode
from indexes.storage.segment import Segment
from indexes.storage.segment_file import write_segment
from indexes.types import Storage

from .setting import Setting
from .stages import Case, Measured

DIMENSION = 384
CHUNK = 65_536


def cases(setting: Setting) -> Iterator[Case]:
    storages: tuple[Storage, ...] = ("float32", "float16", "int8")
    for storage in storages:
        for count in (1, 1000, 10_000):
            yield f"{storage}, {count:,} queries", partial(_search, setting, storage, count)


def _search(setting: Setting, storage: Storage, count: int) -> Measured:
    """Search for the ten best; the first call also verifies the checksums of the file."""
    count = setting.size(count, min(count, 8))
    snapshot = _snapshot(setting.place, storage, setting.size(1_000_000, 3000))
    queries = _random(np.random.default_rng(1), count)

    def search() -> Candidates:
        matching = snapshot.num_rows
        return search_device(snapshot, queries, 10, mask=None, matching=matching, device=setting.device)

    setting.tidy()
    started = time.perf_counter()
    found = search()
    first = time.perf_counter() - started
    seconds = setting.seconds(search, spend=2, least=2)
    rescoring = setting.seconds(lambda: snapshot.rescore(queries, found), spend=0.5, least=1)
    values = {
        "queries/s": count / seconds,
        "ms per call": 1000 * seconds,
        "of which rescoring, ms": 1000 * rescoring,  # on the CPU
        "first call, s": first,
    }
    limits: dict[str, float] = {}
    if count > 2:  # for a single query the CPU may use faiss
        some = queries[:100]
        wanted = snapshot.search_exact(some, 10)
        started = time.perf_counter()
        snapshot.search_exact(some, 10)
        values["queries/s on the CPU, 100 at a time"] = len(some) / (time.perf_counter() - started)
        same = (found.rows[: len(some), :10] == wanted.rows[:, :10]).all(axis=1)
        values["queries with different hits"] = int((~same).sum())
        limits["queries with different hits"] = 0
    return Measured(values | {"peak memory, MB": setting.peak_mb()}, limits)


@cache
def _snapshot(place: Path, storage: Storage, rows: int) -> Snapshot:
    """Write and map one segment of random vectors, without the documents of an index."""
    path = place / f"speed-{storage}.vectors"
    draw = np.random.default_rng(0)
    scales = calibrate(_random(draw, 4096)) if storage == "int8" else None
    # Drawn once: with the dimensions rotated they are as good as new ones.
    some = _random(draw, min(CHUNK, rows))
    parts = (np.roll(some[: rows - start], start // CHUNK, axis=1) for start in range(0, rows, CHUNK))
    info = write_segment(
        path,
        (encode(part, storage, scales) for part in parts),
        storage=storage,
        rows=np.arange(rows),
        keys=np.arange(rows, dtype=np.uint64),
        dimension=DIMENSION,
        scales=scales,
    )
    segment = Segment(path, info, storage, DIMENSION)
    return Snapshot(
        Settings(dimension=DIMENSION, storage=storage), [segment], None, rows, rows, MissedFaiss()
    )


def _random(draw: np.random.Generator, count: int) -> Float32:
    vectors = draw.standard_normal((count, DIMENSION), np.float32)
    found: Float32 = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return found
