"""Search speed by kind of index, beside plain FAISS calls on the same structure, hnswlib and usearch, in one run.

    python benchmarks/sentences.py sentences.txt
    embedkit index build sentences.txt --text-unit line --chunk-tokens 0 --index wiki.index --model FOLDER
    python benchmarks/search.py wiki.index [--rows 1000000] [--kinds flat hnsw ivf-flat ivf-pq] [--peers hnswlib usearch]

Queries are 1,000 stored sentences that are left out of the index. For every kind: time to build, bytes on disk, and, for
recall@10 of .95 and of .99 against exact search, queries a second in one batch and milliseconds for one query, through
`Index.search` (which also reads ids, texts and metadata of the hits) and through the bare FAISS call.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from timing import report

from indexes import Index, Settings, build_ann, build_vectors
from indexes.structure import stream_vectors

K = 10
EFFORTS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
NPROBES = (4, 8, 16, 32, 64, 128, 256)
OVERSAMPLING = (10, 20, 50, 100)

Search = Callable[[np.ndarray], Any]


@dataclass(frozen=True)
class Measured:
    """One setting of one kind: its recall, and the two calls to be timed."""

    setting: str
    recall: float
    whole: Search
    bare: Search | None = None


def collect(path: Path, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first `rows` vectors of an index and 1,000 others as queries."""
    with Index.open(path) as index:
        parts, seen = [], 0
        for _, vectors in stream_vectors(index.snapshot):
            parts.append(vectors)
            seen += len(vectors)
            if seen >= rows + 1000:
                break
    everything = np.concatenate(parts)[: rows + 1000]
    chosen = np.random.default_rng(0).choice(len(everything), 1000, replace=False)
    rest = np.ones(len(everything), np.bool_)
    rest[chosen] = False
    return everything[rest], everything[chosen]


def recall(found: np.ndarray, truth: np.ndarray) -> float:
    return float(
        np.mean([len(set(a) & set(b)) / K for a, b in zip(found.tolist(), truth.tolist(), strict=True)])
    )


def seconds_of(search: Search, queries: np.ndarray, rounds: int = 3) -> tuple[float, float]:
    """Return the best seconds for the batch, and the median for one query of 50."""
    search(queries[:8])
    batch = []
    for _ in range(rounds):
        start = time.perf_counter()
        search(queries)
        batch.append(time.perf_counter() - start)
    single = []
    for query in queries[:50]:
        start = time.perf_counter()
        search(query[None])
        single.append(time.perf_counter() - start)
    return min(batch), statistics.median(single)


def ids_of(hits: list[list[Any]]) -> np.ndarray:
    return np.array([[int(hit.doc_id) for hit in some] for some in hits])


def our_settings(index: Index, kind: str, queries: np.ndarray, truth: np.ndarray) -> Iterator[Measured]:
    """Yield the settings of one kind, from fast to thorough."""
    import faiss

    if kind == "flat":
        yield Measured("all vectors", 1.0, lambda some: index.search(some, k=K))
        return
    assert index.ann is not None
    structure: Any = index.ann.load()._index
    if kind == "hnsw":
        knobs: list[dict[str, int]] = [{"efSearch": effort} for effort in EFFORTS]
    elif kind == "ivf-flat":
        knobs = [{"nprobe": nprobe} for nprobe in NPROBES]
    else:
        knobs = [{"nprobe": nprobe, "oversampling": times} for nprobe in NPROBES for times in OVERSAMPLING]
    for setting in knobs:
        found = recall(ids_of(index.search(queries, k=K, knobs=setting)), truth)
        if kind == "hnsw":
            parameters = faiss.SearchParametersHNSW(efSearch=setting["efSearch"])
        else:
            parameters = faiss.SearchParametersIVF(nprobe=setting["nprobe"])
        fetch = K * setting.get("oversampling", 2)
        name = " ".join(f"{key} {value}" for key, value in setting.items())
        yield Measured(
            name,
            found,
            lambda some, setting=setting: index.search(some, k=K, knobs=setting),
            lambda some, fetch=fetch, parameters=parameters: structure.search(some, fetch, params=parameters),
        )


def reach(
    settings: Iterator[Measured], kind: str, queries: np.ndarray, built: dict[str, Any]
) -> list[dict[str, Any]]:
    """Time the first setting that reaches each target."""
    rows = []
    targets = [0.95, 0.99]
    for measured in settings:
        while targets and measured.recall >= targets[0]:
            batch, single = seconds_of(measured.whole, queries)
            row = {"kind": kind, **built, "target": targets.pop(0), "setting": measured.setting}
            row |= {
                "recall@10": round(measured.recall, 4),
                "queries/s": round(len(queries) / batch),
                "ms for one": round(1000 * single, 2),
            }
            if measured.bare is not None:
                bare_batch, bare_single = seconds_of(measured.bare, queries)
                row |= {
                    "bare queries/s": round(len(queries) / bare_batch),
                    "bare ms": round(1000 * bare_single, 2),
                }
            rows.append(row)
        if not targets:
            break
    rows += [{"kind": kind, **built, "target": target, "setting": "not reached"} for target in targets]
    return rows


def hnswlib_settings(vectors: np.ndarray, queries: np.ndarray, truth: np.ndarray) -> Iterator[Measured]:
    import hnswlib

    peer = hnswlib.Index(space="ip", dim=vectors.shape[1])
    peer.init_index(max_elements=len(vectors), ef_construction=100, M=24)
    peer.add_items(vectors)
    for effort in EFFORTS:
        peer.set_ef(effort)
        yield Measured(
            f"ef {effort}",
            recall(peer.knn_query(queries, k=K)[0], truth),
            lambda some: peer.knn_query(some, k=K),
        )


def usearch_settings(vectors: np.ndarray, queries: np.ndarray, truth: np.ndarray) -> Iterator[Measured]:
    from usearch.index import Index as Peer

    peer = Peer(ndim=vectors.shape[1], metric="ip", dtype="i8", connectivity=24, expansion_add=100)
    peer.add(np.arange(len(vectors)), vectors)
    for effort in EFFORTS:
        peer.expansion_search = effort
        yield Measured(
            f"expansion {effort}",
            recall(np.asarray(peer.search(queries, K).keys), truth),
            lambda some: peer.search(some, K),
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("index", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--kinds", nargs="*", default=["flat", "ivf-flat", "ivf-pq", "hnsw"])
    parser.add_argument("--peers", nargs="*", default=["faiss", "hnswlib", "usearch"])
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    vectors, queries = collect(arguments.index, arguments.rows)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=arguments.index.parent) as folder:
        start = time.perf_counter()
        with Index.create(Path(folder) / "work.index", Settings(dimension=vectors.shape[1])) as index:
            for _ in build_vectors(index, [str(number) for number in range(len(vectors))], vectors):
                pass
            written = time.perf_counter() - start
            truth = ids_of(index.search(queries, k=K, exact=True))
            for kind in arguments.kinds:
                start = time.perf_counter()
                last = None
                if kind != "flat":
                    for last in build_ann(index, kind):  # noqa: B007 (the last is the report)
                        pass
                seconds = time.perf_counter() - start if kind != "flat" else written
                size = last.num_bytes if last is not None else vectors.nbytes
                built = {"build s": round(seconds, 1), "MB": round(size / 1e6)}
                rows += reach(our_settings(index, kind, queries, truth), f"embedkit {kind}", queries, built)
    if "faiss" in arguments.peers:
        import faiss

        flat = faiss.IndexFlatIP(vectors.shape[1])
        flat.add(vectors)
        settings = iter([Measured("all vectors", 1.0, lambda some: flat.search(some, K))])
        rows += reach(settings, "faiss flat", queries, {"build s": 0.0, "MB": round(vectors.nbytes / 1e6)})
        del flat
    for name, peer in (("hnswlib", hnswlib_settings), ("usearch", usearch_settings)):
        if name in arguments.peers:
            start = time.perf_counter()
            settings = peer(vectors, queries, truth)
            first = next(settings)
            built = {"build s": round(time.perf_counter() - start, 1), "MB": ""}
            rows += reach(iter([first, *settings]), name, queries, built)
    report(
        f"Search over {len(vectors):,} × {vectors.shape[1]}, {len(queries):,} queries",
        rows,
        output=arguments.output,
    )


if __name__ == "__main__":
    main()
