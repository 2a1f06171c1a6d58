"""Measure search over 1 to 64 shards against one index of the same rows: equal answers, and how long they take.

    python benchmarks/gather.py [--texts 100000] [--shards 1 2 4 8 16 32 64] [--queries 50] [--k 10] [--dimension 384] [--output FILE]

Texts are those of simplewiki (shared data), cut at 600 characters; vectors are random: what a vector stands for does not change how long it is searched.
Queries are runs of 2 to 8 words of the texts with vectors of their own. One index and the shards answer each query in turn, best of three rounds;
p50 and p95 are over the queries, in milliseconds. `equal` counts the queries whose ids and scores are those of one index, to the last bit.
"""

from __future__ import annotations

import argparse
import itertools
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from timing import data_folder, report

from embedkit.data.reading import read_documents
from embedkit.data.records import Document, Hit
from embedkit.retrieval.options import SearchOptions
from embedkit.retrieval.retriever import Retriever
from embedkit.types import Float32
from indexes import Index, Searchable, Settings, ShardedIndex, ShardPlace, ShardsFile

MODES = ("dense", "text", "hybrid")
ROUNDS = 3
BATCH = 8192
CHARS = 600


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--texts", type=int, default=100_000)
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--output", type=Path, help="also write the figures here, as JSON")
    wanted = parser.parse_args()
    documents = texts(wanted.texts)
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(len(documents), wanted.dimension)).astype(np.float32)
    queries = some_queries(documents, wanted.queries)
    of_query = dict(
        zip(queries, generator.normal(size=(len(queries), wanted.dimension)).astype(np.float32), strict=True)
    )
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(prefix="embedkit-gather-") as folder:
        one = made(Path(folder) / "one.index", documents, vectors)
        for count in wanted.shards:
            big = cut(Path(folder) / f"{count}.index", documents, vectors, count)
            with Index.open(one) as whole, ShardedIndex.open(big) as sharded:
                for mode in MODES:
                    options = SearchOptions(k=wanted.k, mode=mode)
                    found = compared(whole, sharded, of_query, options)
                    rows.append({"texts": len(documents), "shards": count, "mode": mode} | found)
    report("gather", rows, output=wanted.output)


def texts(count: int) -> list[Document]:
    path = data_folder() / "text" / "simplewiki.jsonl.zst"
    return [
        Document(f"d{number}", document.text[:CHARS], title=document.title)
        for number, document in enumerate(itertools.islice(read_documents([str(path)]), count))
    ]


def some_queries(documents: Sequence[Document], count: int) -> list[str]:
    chosen, found = random.Random(0), dict[str, None]()
    while len(found) < count:
        words = chosen.choice(documents).text.split()
        length = chosen.choice([2, 4, 8])
        if len(words) >= length:
            first = chosen.randrange(len(words) - length + 1)
            found[" ".join(words[first : first + length])] = None
    return list(found)


def made(path: Path, documents: Sequence[Document], vectors: Float32) -> Path:
    with Index.create(path, Settings(dimension=vectors.shape[1])) as index:
        for start in range(0, len(documents), BATCH):
            index.add(documents[start : start + BATCH], vectors[start : start + BATCH])
    return path


def cut(folder: Path, documents: Sequence[Document], vectors: Float32, count: int) -> Path:
    places = []
    for number, rows in enumerate(np.array_split(np.arange(len(documents)), count)):
        first, last = int(rows[0]), int(rows[-1]) + 1
        location = f"shards/{number:05d}.index"
        made(folder / location, documents[first:last], vectors[first:last])
        places.append(ShardPlace(f"{number:05d}", location, last - first, last - first, ""))
    ShardsFile("", Settings(dimension=vectors.shape[1]), "", places).write(folder)
    return folder


def compared(
    one: Index, sharded: ShardedIndex, queries: dict[str, Float32], options: SearchOptions
) -> dict[str, object]:
    seconds: dict[str, dict[str, float]] = {"one": {}, "sharded": {}}
    hits: dict[str, dict[str, list[Hit]]] = {"one": {}, "sharded": {}}
    indexes: dict[str, Searchable] = {"one": one, "sharded": sharded}
    for _ in range(ROUNDS):
        for query in queries:
            for name, index in indexes.items():
                retriever = Retriever(index, embed=lambda asked: np.stack([queries[each] for each in asked]))
                began = time.perf_counter()
                hits[name][query] = retriever.search([query], options)[0]
                took = time.perf_counter() - began
                seconds[name][query] = min(took, seconds[name].get(query, took))
    equal = sum(named(hits["one"][query]) == named(hits["sharded"][query]) for query in queries)
    figures = {
        f"{name}_p{percent}_ms": round(1000 * float(np.percentile(list(took.values()), percent)), 2)
        for name, took in seconds.items()
        for percent in (50, 95)
    }
    return {"queries": len(queries), "equal": equal} | figures


def named(hits: Sequence[Hit]) -> list[tuple[str, float]]:
    return [(hit.doc_id, hit.score) for hit in hits]


if __name__ == "__main__":
    main()
