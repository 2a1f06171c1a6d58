"""Measure a multi-vector index: recall and speed against exact MaxSim, bytes a token, build time.

    python benchmarks/multi_vector.py DIR --passages 100000 [--data FOLDER] [--storage 2-bit] [--target-recall 0.95]

Passages are 80 words each of simplewiki, their token vectors those of embedkit-small, taken to 128 dimensions by a projection on
the principal components of the first of them (no model of the box gives token vectors of that size); the queries are questions of
SQuAD, 32 tokens at most. Both are kept in DIR as float16, so that the next run begins at once. With --made-up the vectors are drawn:
each token is one of 20,000 topics and noise, and a query takes tokens of one passage.

Recall@10 is that of `Index.search` against two truths: exact MaxSim over what the index stores, as `embedkit index tune` measures it,
and over the vectors that it was given. Speeds are of one query at a time.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from timing import data_folder, report

from embedkit.data.reading import read_documents
from embedkit.data.records import Document
from embedkit.retrieval.token_vectors import TokenVectors
from indexes import Index, Settings, compact, stats, tune

DIMENSION, WORDS, K = 128, 80, 10
QUERY_TOKENS, NUM_QUERIES = 32, 200
PCA_TOKENS = 100_000
PER_COMMIT = 4096
ENCODED = 512  # texts at a time
Array = np.ndarray[Any, Any]


def passages(path: Path, count: int) -> list[str]:
    """Cut articles into passages of WORDS words, up to `count`."""
    found: list[str] = []
    for article in read_documents([str(path)]):
        words = article.text.split()
        found += [
            " ".join(words[at : at + WORDS]) for at in range(0, len(words), WORDS) if len(words) - at > 16
        ]
        if len(found) >= count:
            return found[:count]
    raise SystemExit(f"{path}: {len(found):,} passages; {count:,} were asked for")


def questions(path: Path, count: int) -> list[str]:
    return [document.text for document in islice(read_documents([str(path)]), count)]


class Projector:
    """The token vectors of embedkit-small, in DIMENSION dimensions and of unit length."""

    def __init__(self) -> None:
        from embedkit import Encoder
        from embedkit.models import ENCODER, shipped

        self.encoder = Encoder.load(shipped(ENCODER), backend="native", precision="int8")
        self.axes: Array | None = None

    def __call__(self, texts: Sequence[str], *, most: int | None = None) -> TokenVectors:
        batch = self.encoder.tokenizer.encode(list(texts))
        hidden = self.encoder.token_vectors(batch)
        if self.axes is None:
            sample = hidden[:PCA_TOKENS] / np.linalg.norm(hidden[:PCA_TOKENS], axis=1, keepdims=True)
            self.axes = np.linalg.svd(sample, full_matrices=False)[2][:DIMENSION].T
        owners = np.repeat(np.arange(len(texts)), batch.lengths)
        at = np.arange(len(hidden)) - np.repeat(np.cumsum(batch.lengths) - batch.lengths, batch.lengths)
        own = (at > 0) & (at < batch.lengths[owners] - 1) & (at <= (most or len(hidden)))
        vectors = hidden[own] @ self.axes
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return TokenVectors(vectors.astype(np.float32), np.bincount(owners[own], minlength=len(texts)))


def encode(folder: Path, data: Path, count: int) -> None:
    """Write the token vectors of passages and queries to DIR."""
    project = Projector()
    texts = passages(data / "text/simplewiki.jsonl.zst", count)
    started = time.perf_counter()
    project(texts[:ENCODED])  # finds the axes
    keep(folder, "passages", (project(texts[at : at + ENCODED]) for at in range(0, len(texts), ENCODED)))
    print(f"{count:,} passages embedded in {time.perf_counter() - started:,.0f} s", file=sys.stderr)
    asked = questions(data / "retrieval/squad_v11_dev/queries.jsonl.zst", NUM_QUERIES)
    keep(folder, "queries", iter([project(asked, most=QUERY_TOKENS)]))


def make_up(folder: Path, count: int) -> None:
    """Draw the token vectors of passages and queries."""
    rng = np.random.default_rng(0)
    topics = rng.standard_normal((20_000, DIMENSION)).astype(np.float32)

    def draw() -> Iterator[TokenVectors]:
        for start in range(0, count, ENCODED):
            counts = rng.integers(30, 120, min(ENCODED, count - start))
            of = rng.integers(0, len(topics), int(counts.sum()))
            vectors = topics[of] + 0.7 * rng.standard_normal((len(of), DIMENSION)).astype(np.float32)
            yield TokenVectors(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), counts)

    keep(folder, "passages", draw())
    vectors = kept(folder, "passages")
    some = vectors.take(np.linspace(0, count - 1, NUM_QUERIES, dtype=np.int64))
    noisy = [some.text(at)[:QUERY_TOKENS] for at in range(len(some))]
    asked = np.concatenate(noisy) + 0.05 * rng.standard_normal((sum(map(len, noisy)), DIMENSION))
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    keep(
        folder,
        "queries",
        iter([TokenVectors(asked.astype(np.float32), np.array([len(one) for one in noisy]))]),
    )


def keep(folder: Path, name: str, parts: Iterator[TokenVectors]) -> None:
    counts = []
    with (folder / f"{name}.vectors").open("wb") as file:
        for part in parts:
            file.write(part.vectors.astype(np.float16).tobytes())
            counts.append(part.counts)
    np.save(folder / f"{name}.counts.npy", np.concatenate(counts))


def kept(folder: Path, name: str, start: int = 0, stop: int | None = None) -> TokenVectors:
    """Return the vectors of some texts, of unit length again."""
    counts = np.load(folder / f"{name}.counts.npy")
    starts = np.concatenate([[0], np.cumsum(counts)])
    stop = len(counts) if stop is None else min(stop, len(counts))
    halves = np.memmap(folder / f"{name}.vectors", np.float16, "r").reshape(-1, DIMENSION)
    vectors = halves[starts[start] : starts[stop]].astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return TokenVectors(vectors, counts[start:stop])


def build_index(folder: Path, storage: str) -> tuple[Index, float]:
    """Make the index of the passages, a commit after another as `embedkit index build` does, and compact it."""
    path = folder / f"{storage}.index"
    shutil.rmtree(path, ignore_errors=True)
    total = len(np.load(folder / "passages.counts.npy"))
    started = time.perf_counter()
    index = Index.create(path, Settings(dimension=DIMENSION, storage=storage, kind="multi-vector"))  # type: ignore[arg-type]  # argparse checks it
    for start in range(0, total, PER_COMMIT):
        vectors = kept(folder, "passages", start, start + PER_COMMIT)
        index.add([Document(f"p{start + at}", "") for at in range(len(vectors))], vectors)
    for _ in compact(index):
        pass
    return index, time.perf_counter() - started


def original_hits(folder: Path, queries: TokenVectors) -> list[set[str]]:
    """Return the ids of the best K passages of each query by exact MaxSim over the vectors that were given, once for all runs."""
    path = folder / "truth.json"
    if not path.exists():
        total = len(np.load(folder / "passages.counts.npy"))
        scores = np.empty((len(queries), total), np.float32)
        for start in range(0, total, PER_COMMIT):
            part = kept(folder, "passages", start, start + PER_COMMIT)
            for at in range(len(queries)):
                products = part.vectors @ queries.text(at).T
                scores[at, start : start + len(part)] = np.maximum.reduceat(products, part.starts[:-1]).sum(
                    axis=1
                )
        best = np.argsort(-scores, axis=1, kind="stable")[:, :K]
        path.write_text(json.dumps([[f"p{row}" for row in rows] for rows in best.tolist()]))
    return [set(ids) for ids in json.loads(path.read_text())]


def seconds_a_query(index: Index, queries: TokenVectors, count: int, **how: Any) -> float:
    """Return the median time of a query alone."""
    index.search_ids(queries.take(np.array([0])), k=K, **how)
    taken = []
    for at in np.linspace(0, len(queries) - 1, count, dtype=np.int64):
        started = time.perf_counter()
        index.search_ids(queries.take(np.array([at])), k=K, **how)
        taken.append(time.perf_counter() - started)
    return float(np.median(taken))


def recall(found: list[list[tuple[str, float]]], truth: list[set[str]]) -> float:
    return (
        float(
            np.mean(
                [len({doc_id for doc_id, _ in hits} & best) for hits, best in zip(found, truth, strict=True)]
            )
        )
        / K
    )


def measure(folder: Path, storage: str, target: float) -> dict[str, Any]:
    queries = kept(folder, "queries")
    queries = queries.take(np.flatnonzero(queries.counts))
    index, build_seconds = build_index(folder, storage)
    with index:
        exact = index.search_ids(queries, k=K, exact=True)
        stored = [{doc_id for doc_id, _ in hits} for hits in exact]
        original = original_hits(folder, queries)
        usual = index.search_ids(queries, k=K)
        usual_seconds = seconds_a_query(index, queries, 50)
        *_, tuned = tune(index, target_recall=target, queries=queries)
        assert tuned.chosen is not None
        found = index.search_ids(queries, k=K)
        exact_seconds = seconds_a_query(index, queries, 10, exact=True)
        tuned_seconds = seconds_a_query(index, queries, 50)
        held = stats(index)
    return {
        "passages": held.vectors,
        "tokens": held.tokens,
        "query_tokens": float(queries.counts.mean()),
        "centroids": held.centroids,
        "bytes_per_token": held.bytes_per_token,
        "build_seconds": build_seconds,
        "exact_ms": 1000 * exact_seconds,
        "exact_recall_of_original": recall(exact, original),
        "default_ms": 1000 * usual_seconds,
        "default_recall": recall(usual, stored),
        "knobs": dict(tuned.chosen.knobs),
        "tuned_ms": 1000 * tuned_seconds,
        "recall": recall(found, stored),
        "recall_of_original": recall(found, original),
        "times_faster": exact_seconds / tuned_seconds,
        "curve": [point.as_json() for point in tuned.curve],
    }


def measure_encodings(folder: Path) -> list[dict[str, Any]]:
    """Say what share of the best K by exact MaxSim is among the first so many by products of fixed-dimensional encodings (MUVERA)."""
    from indexes.multi_vector.fde import FixedEncoder

    queries, documents = kept(folder, "queries"), kept(folder, "passages")
    queries = queries.take(np.flatnonzero(queries.counts))
    truth = original_hits(folder, queries)
    rows = []
    for final in (1024, 2048, None):
        encoder = FixedEncoder(dimension=DIMENSION, final=final)
        started = time.perf_counter()
        encoded = np.concatenate(
            [
                encoder.documents(documents.take(np.arange(at, min(at + ENCODED, len(documents)))))
                for at in range(0, len(documents), ENCODED)
            ]
        )
        seconds = time.perf_counter() - started
        order = np.argsort(-(encoder.queries(queries) @ encoded.T), axis=1)
        row: dict[str, Any] = {"width": encoder.width, "documents/s": len(documents) / seconds}
        for count in (64, 128, 256, 512):
            found = [{f"p{at}" for at in line[:count].tolist()} for line in order]
            row[f"of {count}"] = float(np.mean([len(a & b) for a, b in zip(found, truth, strict=True)])) / K
        rows.append(row)
    return rows


def turned(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[Any, ...]]:
    """Yield a line for each figure: its name, and what it is of each storage."""
    for name in rows[0]:
        if name != "storage":
            yield name, *(str(row[name]) if isinstance(row[name], dict) else row[name] for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--passages", type=int, default=20_000)
    parser.add_argument(
        "--data", type=Path, help="the folder of the data; default: where the other benchmarks look"
    )
    parser.add_argument("--made-up", action="store_true")
    parser.add_argument("--storage", choices=["2-bit", "4-bit"], nargs="+", default=["2-bit"])
    parser.add_argument("--target-recall", type=float, default=0.95)
    parser.add_argument(
        "--encodings", action="store_true", help="measure MUVERA's encodings instead, all in memory"
    )
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    folder = args.folder / f"{'made-up' if args.made_up else 'wiki'}-{args.passages}"
    if not (folder / "queries.counts.npy").exists():
        folder.mkdir(parents=True, exist_ok=True)
        if args.made_up:
            make_up(folder, args.passages)
        else:
            encode(folder, args.data or data_folder(), args.passages)
    if args.encodings:
        report(
            f"{folder.name}: recall@10 within the first so many",
            measure_encodings(folder),
            output=args.output,
        )
        return
    rows = [{"storage": storage, **measure(folder, storage, args.target_recall)} for storage in args.storage]
    for row in rows:
        print(f"\n{row['storage']}: recall@10 and queries/s of a batch, by setting")
        for point in row.pop("curve"):
            print(f"  {point['knobs']}  {point['recall']:.4f}  {point['queries_per_second']:,.0f}")
    report(
        folder.name,
        [dict(zip(("what", *(r["storage"] for r in rows)), each, strict=True)) for each in turned(rows)],
        output=args.output,
    )


if __name__ == "__main__":
    main()
