"""An index in stores: push and pull in rows per second, queries per second, recall@10 and bytes, beside FAISS and our own index.

    python benchmarks/stores.py 'postgresql://me@localhost/test?table=bench' 'lance://lance?table=bench' --rows 100000
    python benchmarks/stores.py 'qdrant://localhost?collection=bench' 'chroma://localhost?collection=bench' --rows 100000

Without `--index` the vectors are made up: unit vectors around as many centres as the square root of their number, with texts of common words.
Queries are such vectors, too, and go one by one. The truth for recall is our own exact search. Where one run of all is too long, `--keep` keeps the
made-up index for the next run, `--stores-only` leaves out FAISS and our own index, and `--there` measures tables that hold the index
already, with another `--ef` for example. How far a push is goes to stderr.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from embedkit.connectors.info import StoreInfo, read_info
from embedkit.connectors.opening import open_store
from embedkit.connectors.pulling import pull
from embedkit.connectors.pushing import PushOptions, push
from embedkit.connectors.searching import StoreIndex
from embedkit.connectors.store import Hnsw, Store
from embedkit.connectors.urls import read_url
from embedkit.data.records import Document
from indexes import Index, Settings, build_ann, export_faiss

WORDS = [
    "wind",
    "energy",
    "turns",
    "a",
    "blade",
    "while",
    "the",
    "sea",
    "is",
    "calm",
    "and",
    "old",
    "ships",
    "wait",
    "for",
    "the",
    "morning",
    "tide",
    "to",
    "come",
]
K = 10
Find = Callable[[np.ndarray], Sequence[str]]


def made_up(count: int, dimension: int, rng: np.random.Generator, centres: np.ndarray) -> np.ndarray:
    vectors = centres[rng.integers(len(centres), size=count)]
    vectors = vectors + rng.standard_normal((count, dimension), dtype=np.float32) * np.float32(
        0.8 / dimension**0.5
    )
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def make_index(folder: Path, rows: int, vectors: np.ndarray, rng: np.random.Generator) -> None:
    with Index.create(folder, Settings(dimension=vectors.shape[1])) as index:
        for start in range(0, rows, 16384):
            numbers = range(start, min(rows, start + 16384))
            texts = [" ".join(rng.choice(WORDS, 60)) for _ in numbers]
            documents = [
                Document(f"doc-{number}", text, f"Title {number}", {"group": number % 10})
                for number, text in zip(numbers, texts, strict=True)
            ]
            index.add(documents, vectors[numbers.start : numbers.stop])


def measure(name: str, find: Find, queries: np.ndarray, truth: Sequence[set[str]]) -> dict[str, object]:
    find(queries[0])
    started = time.perf_counter()
    found = [find(query) for query in queries]
    seconds = time.perf_counter() - started
    hits = sum(len(set(some) & best) for some, best in zip(found, truth, strict=True))
    return {
        "what": name,
        "queries_per_second": round(len(queries) / seconds, 1),
        "recall@10": round(hits / sum(map(len, truth)), 4),
    }


def of_index(index: Index, *, exact: bool) -> Find:
    return lambda query: [doc_id for doc_id, _ in index.search_ids(query[None], k=K, exact=exact)[0]]


def send(index: Index, store: Store, hnsw: Hnsw) -> dict[str, object]:
    """Push an index into a table that is not there yet."""
    if store.read_info() is not None:
        raise SystemExit(
            f"{store.place}: there is a table already; name another, so that its making is measured, or say --there"
        )
    started, sending, said = time.perf_counter(), 0.0, 0.0
    for report in push(index, store, StoreInfo.of(index, "float32", hnsw), PushOptions()):
        pushed = time.perf_counter() - started
        if report.step in ("compare", "push"):
            sending = pushed
        if report.step != "push" or pushed - said >= 10:
            said = pushed
            print(f"{report.step} {report.done:,} rows, {pushed:.1f} s", file=sys.stderr, flush=True)
    return {
        "sent_rows_per_second": round(len(index) / sending),
        "push_seconds_with_graph": round(pushed, 1),
    }


def in_store(
    url: str,
    index: Index,
    hnsw: Hnsw,
    ef: int | None,
    queries: np.ndarray,
    truth: Sequence[set[str]],
    *,
    there: bool,
) -> None:
    with closing(open_store(url)) as store:
        sent = {} if there else send(index, store, hnsw)
        searched = StoreIndex(store, read_info(store), ef=ef)

        def find(query: np.ndarray) -> list[str]:
            hits = searched.search(query[None], k=K, where=None, group=False, bare=True)[0]
            return [hit.doc_id for hit in hits]

        row = measure(
            read_url(url).kind + (f" hnsw m={hnsw.m} ef={ef or 'default'}" if hnsw.m else " exact"),
            find,
            queries,
            truth,
        )
        folder = Path(tempfile.mkdtemp())
        started = time.perf_counter()
        list(pull(store, folder / "pulled"))
        pulled = time.perf_counter() - started
        shutil.rmtree(folder)
        speeds = sent | {
            "pull_rows_per_second": round(len(index) / pulled),
            "bytes": store.num_bytes() or num_bytes(Path(read_url(url).folder)) or None,
        }
    print(json.dumps(row | {"rows": len(index)} | speeds), flush=True)


def num_bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("urls", nargs="*", metavar="URL")
    parser.add_argument(
        "--index",
        type=Path,
        help="an index whose rows are pushed; its own vectors, disturbed, are the queries",
    )
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--hnsw-m", type=int, default=16)
    parser.add_argument("--hnsw-ef-construction", type=int, default=64)
    parser.add_argument("--ef", type=int)
    parser.add_argument("--keep", type=Path, help="where the made-up index is kept; made unless it is there")
    parser.add_argument("--stores-only", action="store_true")
    parser.add_argument("--there", action="store_true", help="the tables hold the index already")
    args = parser.parse_args()
    if args.index is not None and args.keep is not None:
        parser.error("--keep is for vectors that are made up")
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.index or args.keep or Path(scratch) / "bench.index"
        # Each has numbers of its own, so that they are the same where the index is kept.
        centres = np.random.default_rng(0).standard_normal(
            (max(1, int(args.rows**0.5)), args.dimension), dtype=np.float32
        ) / np.float32(args.dimension**0.5)
        if args.index is None and not folder.exists():
            rng = np.random.default_rng(1)
            make_index(folder, args.rows, made_up(args.rows, args.dimension, rng, centres), rng)
        rng = np.random.default_rng(2)
        with Index.open(folder) as index:
            if args.index is None:
                queries = made_up(args.queries, args.dimension, rng, centres)
            else:
                queries = index.snapshot.sample(args.queries)
                queries = queries + rng.standard_normal(queries.shape, dtype=np.float32) * np.float32(
                    0.3 / queries.shape[1] ** 0.5
                )
            truth = [set(of_index(index, exact=True)(query)) for query in queries]
        if not args.stores_only:
            beside(folder, Path(scratch), queries, truth)
        hnsw = Hnsw(m=args.hnsw_m, ef_construction=args.hnsw_ef_construction)
        with Index.open(folder) as index:
            for url in args.urls:
                in_store(url, index, hnsw, args.ef, queries, truth, there=args.there)


def beside(folder: Path, scratch: Path, queries: np.ndarray, truth: Sequence[set[str]]) -> None:
    """Measure FAISS and our own index, on a copy."""
    own = scratch / "own.index"
    shutil.copytree(folder, own)
    with Index.open(own, writable=True) as index:
        row = measure("embedkit exact", of_index(index, exact=True), queries, truth)
        print(json.dumps(row | {"rows": len(index), "bytes": num_bytes(own)}), flush=True)
        faiss_file = scratch / "bench.faiss"
        ids = export_faiss(index, faiss_file).paths[1].read_text(encoding="utf-8").splitlines()
        import faiss

        flat = faiss.read_index(str(faiss_file))
        unit = queries / np.linalg.norm(queries, axis=1, keepdims=True)
        row = measure("faiss flat", lambda q: [ids[n] for n in flat.search(q[None], K)[1][0]], unit, truth)
        print(json.dumps(row | {"bytes": num_bytes(faiss_file)}), flush=True)
        started = time.perf_counter()
        list(build_ann(index, "hnsw"))
        built = round(time.perf_counter() - started, 1)
        row = measure("embedkit hnsw", of_index(index, exact=False), queries, truth)
        print(json.dumps(row | {"build_seconds": built, "bytes": num_bytes(own)}), flush=True)


if __name__ == "__main__":
    main()
