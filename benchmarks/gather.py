"""Measure search over 1 to 64 shards against one index of the same rows: equal answers, and how long they take.

    python benchmarks/gather.py [--texts 100000] [--shards 1 2 4 8 16 32 64] [--queries 50] [--k 10] [--dimension 384] [--output FILE]
    python benchmarks/gather.py --model embedkit-tiny --kind hnsw     # and the recall of an ANN structure in each shard

Texts are those of simplewiki (shared data), cut at 600 characters; vectors are random: what a vector stands for does not change how long it is searched.
That is not so of an ANN structure, whose recall is the higher the fewer directions vectors differ in: for --kind, give a --model, or --latent N
for random vectors of N dimensions turned into those of --dimension, with a tenth of noise.
Queries are runs of 2 to 8 words of the texts with vectors of their own. One index and the shards answer each query in turn, best of three rounds;
p50 and p95 are over the queries, in milliseconds. `equal` counts the queries whose ids and scores are those of one index, to the last bit.
With --kind, one index and each shard have such a structure, and `recall` is the share of the k best by exact search that each finds, over
the queries, in mode dense.
"""

from __future__ import annotations

import argparse
import itertools
import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from timing import data_folder, report

from embedkit.data.reading import read_documents
from embedkit.data.records import Document, Hit
from embedkit.retrieval.options import SearchOptions
from embedkit.retrieval.retriever import Retriever
from embedkit.types import Float32
from indexes import Index, Kind, Searchable, Settings, ShardedIndex, ShardPlace, ShardsFile, build_ann

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
    parser.add_argument("--model", help="embed texts and queries with it, in place of random vectors")
    parser.add_argument(
        "--latent", type=int, default=0, help="directions that random vectors differ in; 0: all"
    )
    parser.add_argument("--kind", choices=["hnsw", "ivf-flat", "ivf-pq"], help="search by such a structure")
    wanted = parser.parse_args()
    documents = texts(wanted.texts)
    queries = some_queries(documents, wanted.queries)
    vectors, asked = embedded(documents, queries, wanted)
    of_query = dict(zip(queries, asked, strict=True))
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(prefix="embedkit-gather-") as folder:
        exact = made(Path(folder) / "exact.index", documents, vectors) if wanted.kind else None
        one = made(Path(folder) / "one.index", documents, vectors, wanted.kind)
        for count in wanted.shards:
            big = cut(Path(folder) / f"{count}.index", documents, vectors, count, wanted.kind)
            with Index.open(one) as whole, ShardedIndex.open(big) as sharded:
                for mode in MODES:
                    options = SearchOptions(k=wanted.k, mode=mode)
                    found = compared(whole, sharded, of_query, options)
                    row = {"texts": len(documents), "shards": count, "mode": mode} | found
                    if exact is not None and mode == "dense":
                        row |= recalls(exact, {"one": whole, "sharded": sharded}, asked, wanted.k)
                    rows.append(row)
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


def embedded(
    documents: Sequence[Document], queries: Sequence[str], wanted: argparse.Namespace
) -> tuple[Float32, Float32]:
    """Return vectors of the documents (N, E) and of the queries (Q, E)."""
    if wanted.model is None:
        generator = np.random.default_rng(0)
        shape = (len(documents) + len(queries), wanted.dimension)
        found = generator.normal(size=shape).astype(np.float32)
        if wanted.latent:
            turned = generator.normal(size=(wanted.latent, wanted.dimension)).astype(np.float32)
            found = generator.normal(size=(shape[0], wanted.latent)).astype(np.float32) @ turned + 0.1 * found
        return found[: len(documents)], found[len(documents) :]
    from embedkit.models import shipped
    from embedkit.pipelines.models import load_encoder
    from embedkit.types import Computing

    encoder = load_encoder(shipped(wanted.model), Computing())
    return (
        encoder.encode_documents([document.text for document in documents]),
        encoder.encode_queries(list(queries)),
    )


def made(path: Path, documents: Sequence[Document], vectors: Float32, kind: Kind | None = None) -> Path:
    with Index.create(path, Settings(dimension=vectors.shape[1])) as index:
        for start in range(0, len(documents), BATCH):
            index.add(documents[start : start + BATCH], vectors[start : start + BATCH])
        if kind is not None:
            for _ in build_ann(index, kind):
                pass
    return path


def recalls(exact: Path, indexes: Mapping[str, Searchable], queries: Float32, k: int) -> dict[str, float]:
    """Return which share of the k best each index finds."""
    with Index.open(exact) as index:
        best = [{doc_id for doc_id, _ in ids} for ids in index.search_ids(queries, k=k)]
    found = {}
    for name, each in indexes.items():
        ids = each.search_ids(queries, k=k, where=None, group=False)
        shared = sum(
            len(wanted & {doc_id for doc_id, _ in some}) for wanted, some in zip(best, ids, strict=True)
        )
        found[f"{name}_recall"] = round(shared / (k * len(best)), 4)
    return found


def cut(
    folder: Path, documents: Sequence[Document], vectors: Float32, count: int, kind: Kind | None = None
) -> Path:
    places = []
    for number, rows in enumerate(np.array_split(np.arange(len(documents)), count)):
        first, last = int(rows[0]), int(rows[-1]) + 1
        location = f"shards/{number:05d}.index"
        made(folder / location, documents[first:last], vectors[first:last], kind)
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
