"""Project an index of a billion passages from what is measured here, with every assumption beside it.

    python benchmarks/billion.py [--texts 2000] [--rows 100000] [--model embedkit-small] [--passages 1e9] [--output FILE.json]

Measured on this machine, with texts of simplewiki (shared data) cut at 600 characters, a passage each:
1. embedding --texts of them
2. with --rows of them and vectors that differ in 24 directions, as long as the model's: writing, bytes in each storage and in the database,
   HNSW; and one query of 10 hits, alone, over half of them and over all: what it takes of each passage, and of each shard whatever it holds.
   Of HNSW each shard is taken to cost what it costs over --rows; over more it is more, by about the logarithm.
Prices, the cores of a machine, and the loss to failures and stragglers are assumed: they are options, and the last is what
`benchmarks/shards.py simulate` gives. A query is taken to use one core; the seconds of what uses all cores are times their number.
Each row says whether it was measured, assumed, or follows from others. No row covers networks, and reading what memory has no room for.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from gather import some_queries, texts
from timing import report

from embedkit.data.records import Document
from embedkit.machine import num_cores
from embedkit.models import shipped
from embedkit.pipelines.models import load_encoder
from embedkit.types import Computing, Float32
from indexes import Index, Settings, Storage, build_ann
from indexes.storage.codes import STORAGES

BATCH = 2048
QUERIES, DIRECTIONS = 20, 24
Row = dict[str, object]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--model", default="embedkit-small")
    parser.add_argument("--passages", type=float, default=1e9)
    parser.add_argument("--shard-passages", type=float, default=4e6)
    parser.add_argument("--workers", type=int, default=1000, help="cores that build at once")
    parser.add_argument("--loss", type=float, default=1.25, help="makespan to the ideal")
    parser.add_argument("--core-hour", type=float, default=0.04, help="dollars, on demand")
    parser.add_argument("--gb-month", type=float, default=0.08, help="dollars, of a disk")
    parser.add_argument("--machine-cores", type=int, default=32, help="of a machine that searches")
    parser.add_argument("--output", type=Path, help="also write the rows here, as JSON")
    wanted = parser.parse_args()
    projection = Projection(wanted)
    report("billion", list(projection.rows()), output=wanted.output)


class Projection:
    """Rows of figures: each is named, with its unit and where it is from."""

    def __init__(self, wanted: argparse.Namespace) -> None:
        self.wanted, self.cores = wanted, num_cores()
        self.passages, self.shards = wanted.passages, -(-wanted.passages // wanted.shard_passages)

    def rows(self) -> Iterator[Row]:
        wanted = self.wanted
        yield _row("passages", wanted.passages, "", "assumed")
        yield _row("passages of a shard", wanted.shard_passages, "", "assumed")
        yield _row("shards", self.shards, "", "follows")
        yield _row("cores here", self.cores, "", "measured")
        documents = texts(max(wanted.texts, wanted.rows))
        encoder = load_encoder(shipped(wanted.model), Computing(precision="fp32"))
        began = time.perf_counter()
        encoder.encode_documents([each.text for each in documents[: wanted.texts]])
        embedding = (time.perf_counter() - began) * self.cores / wanted.texts
        yield _row("embedding a passage", 1000 * embedding, "core-ms", "measured")
        documents = documents[: wanted.rows]
        vectors = of_few_directions(len(documents) + QUERIES, encoder.dimension)
        with tempfile.TemporaryDirectory(prefix="embedkit-billion-") as folder:
            yield from self._kept(Path(folder), documents, vectors[QUERIES:], embedding)
            yield from self._searched(Path(folder), documents, vectors)

    def _kept(
        self, folder: Path, documents: Sequence[Document], vectors: Float32, embedding: float
    ) -> Iterator[Row]:
        wanted, count = self.wanted, len(documents)
        kept = {}
        for storage in STORAGES:
            began = time.perf_counter()
            made(folder / storage, documents, vectors, storage)
            writing = (time.perf_counter() - began) * self.cores / count
            kept[storage] = _bytes(folder / storage / "segments") / count
        yield _row("writing a passage", 1000 * writing, "core-ms, at most", "measured")
        database = (_bytes(folder / storage) - _bytes(folder / storage / "segments")) / count
        yield _row("texts, words and places of a passage", database, "bytes", "measured")
        before = _bytes(folder / "float32")
        with Index.open(folder / "float32", writable=True) as index:
            began = time.perf_counter()
            for _ in build_ann(index, "hnsw"):
                pass
            graph = (time.perf_counter() - began) * self.cores / count
        links = (_bytes(folder / "float32") - before) / count
        yield _row("HNSW of a passage", 1000 * graph, "core-ms, and more in larger shards", "measured")
        yield _row("HNSW of a passage", links, "bytes", "measured")
        for name, seconds in (("flat", embedding + writing), ("HNSW", embedding + writing + graph)):
            core_hours = self.passages * seconds / 3600
            yield _row(f"build, {name}", core_hours, "core-hours", "follows")
            hours = core_hours / wanted.workers * wanted.loss
            yield _row(
                f"build, {name}: {wanted.workers:,} cores, loss {wanted.loss:g}", hours, "hours", "follows"
            )
            dollars = core_hours * wanted.loss * wanted.core_hour
            yield _row(f"build, {name}: ${wanted.core_hour:g} a core-hour", dollars, "dollars", "follows")
        for storage, num_bytes in kept.items():
            yield _row(f"vector, {storage}", num_bytes, "bytes", "measured")
            gigabytes = self.passages * (num_bytes + database) / 1e9
            yield _row(f"index, {storage}", gigabytes / 1000, "TB", "follows")
            month = gigabytes * wanted.gb_month
            yield _row(
                f"index, {storage}: ${wanted.gb_month:g} a GB-month", month, "dollars a month", "follows"
            )
        yield _row("HNSW beside it", self.passages * links / 1e12, "TB", "follows")

    def _searched(self, folder: Path, documents: Sequence[Document], vectors: Float32) -> Iterator[Row]:
        asked, queries = vectors[:QUERIES], some_queries(documents, QUERIES)
        half = len(documents) // 2
        for storage in ("int8", "binary"):
            made(folder / "half", documents[:half], vectors[QUERIES : QUERIES + half], storage)
            taken = [
                of_each(folder / name, lambda index, each: index.search(asked[each : each + 1], k=10))
                for name in ("half", storage)
            ]
            yield from self._grown(f"query, flat {storage}", taken, len(documents))
            words = [
                of_each(folder / name, lambda index, each: index.search_text([queries[each]], k=10))
                for name in ("half", storage)
            ]
            shutil.rmtree(folder / "half")
        yield from self._grown("query, words", words, len(documents))
        near = of_each(folder / "float32", lambda index, each: index.search(asked[each : each + 1], k=10))
        yield _row(f"query, HNSW, {len(documents):,} passages", 1000 * near, "ms", "measured")
        yield from self._query("query, HNSW in each shard", near * self.shards)

    def _grown(self, name: str, taken: Sequence[float], count: int) -> Iterator[Row]:
        """Tell what a query takes of each passage from what it takes of each shard, which is taken to be half of it at most."""
        slope = (taken[1] - taken[0]) / (count - count // 2)
        slope = max(slope, taken[1] / count / 2)  # or noise could make passages free
        fixed = max(0.0, taken[1] - slope * count)
        yield _row(f"{name}, {count:,} passages", 1000 * taken[1], "ms", "measured")
        yield _row(f"{name}, of a million passages", 1e9 * slope, "ms", "measured")
        yield from self._query(name, slope * self.passages + fixed * self.shards)

    def _query(self, name: str, core_seconds: float) -> Iterator[Row]:
        wanted = self.wanted
        yield _row(name, core_seconds, "core-seconds", "follows")
        machines = core_seconds / wanted.machine_cores
        yield _row(
            f"{name}: machines of {wanted.machine_cores} cores for a query a second", machines, "", "follows"
        )
        dollars = 1000 * core_seconds / 3600 * wanted.core_hour
        yield _row(f"{name}: 1,000 queries", dollars, "dollars", "follows")


def made(path: Path, documents: Sequence[Document], vectors: Float32, storage: Storage) -> None:
    settings = Settings(dimension=vectors.shape[1], storage=storage)
    with Index.create(path, settings) as index:
        for start in range(0, len(documents), BATCH):
            index.add(documents[start : start + BATCH], vectors[start : start + BATCH])


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def of_few_directions(count: int, dimension: int) -> Float32:
    """Return vectors (N, E) that an ANN structure finds its way among, as among those of texts."""
    generator = np.random.default_rng(0)
    turned = generator.normal(size=(DIRECTIONS, dimension)).astype(np.float32)
    noise = generator.normal(size=(count, dimension)).astype(np.float32)
    return generator.normal(size=(count, DIRECTIONS)).astype(np.float32) @ turned + 0.1 * noise


def of_each(path: Path, search: Callable[[Index, int], object]) -> float:
    """Return the seconds of a query, the best of three rounds, in the middle of all."""
    best = [float("inf")] * QUERIES
    with Index.open(path) as index:
        for _ in range(3):
            for number in range(QUERIES):
                began = time.perf_counter()
                search(index, number)
                best[number] = min(best[number], time.perf_counter() - began)
    return float(np.median(best))


def _row(name: str, value: float, unit: str, source: str) -> Row:
    shown = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return {"figure": name, "value": shown, "unit": unit, "from": source}


if __name__ == "__main__":
    main()
