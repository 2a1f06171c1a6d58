"""What `embedkit bench` measures of search and of starting up."""

from __future__ import annotations

import math
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from indexes.types import Kind

if TYPE_CHECKING:
    from embedkit.encoding.encoder import Encoder
    from indexes import Index

QUERIES, QUERY_WORDS, K = 50, 8, 10
KINDS: tuple[Kind, ...] = get_args(Kind)
STARTS = 3
STARTED = ("embedkit --version", "embedkit encode, one text", "embedkit search, one query")


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one thing done many times."""

    what: str
    p50: float
    p95: float


def latency(what: str, tasks: Sequence[Callable[[], object]]) -> Latency:
    """Run each task once, after one unmeasured."""
    tasks[0]()
    taken = []
    for task in tasks:
        started = time.perf_counter()
        task()
        taken.append(1000 * (time.perf_counter() - started))
    return Latency(what, statistics.median(taken), sorted(taken)[math.ceil(0.95 * len(taken)) - 1])


@contextmanager
def made_index(encoder: Encoder, size: int) -> Iterator[Index]:
    """Make an index of random vectors and words for the time being."""
    import numpy as np

    from embedkit.data.records import Document
    from embedkit.encoding.throughput import WORDS
    from indexes import Index, Settings

    draw, numbers = random.Random(0), np.random.default_rng(0)
    # Rare words beside the common ones, as real texts have them.
    words = [*WORDS, *(a + b for a in WORDS for b in WORDS)]
    with tempfile.TemporaryDirectory(prefix="embedkit-bench-") as folder:
        settings = Settings(dimension=encoder.dimension, fingerprint=encoder.fingerprint)
        with Index.create(Path(folder) / "bench.index", settings) as index:
            for start in range(0, size, 4096):
                count = min(4096, size - start)
                documents = [
                    Document(f"d{start + i}", " ".join(draw.choices(words, k=60))) for i in range(count)
                ]
                index.add(documents, numbers.standard_normal((count, encoder.dimension), np.float32))
            yield index


def measure_made(encoder: Encoder, size: int) -> Iterator[Latency]:
    """Measure every kind of structure over an index made for it, the search by words, both, and a cold start."""
    from indexes import build_ann

    with made_index(encoder, size) as index:
        queries = _queries(index)
        for kind in KINDS:
            for _ in build_ann(index, kind):
                pass
            index.refresh()
            yield _dense(index, encoder, queries, kind=kind)
        yield from _words_and_both(index, encoder, queries)
        yield from _starts(encoder, index.path)


def measure_index(encoder: Encoder, path: Path) -> Iterator[Latency]:
    """Measure an index that is there, as it is; it is not changed."""
    from indexes import Index

    with Index.open(path) as index:
        index.check_encoder(encoder.fingerprint)
        queries = _queries(index)
        kind = "flat" if index.ann is None else index.ann.info.kind
        yield _dense(index, encoder, queries, kind=kind)
        if index.ann is not None:
            yield _dense(index, encoder, queries, kind="exact", exact=True)
        yield from _words_and_both(index, encoder, queries)
    yield from _starts(encoder, path)


def _queries(index: Index) -> list[str]:
    """Take a few words out of the first documents."""
    from embedkit.data.records import titled_text
    from embedkit.errors import EvaluationError

    documents = index.first_documents(QUERIES)
    if not documents:
        raise EvaluationError(f"{index.path}: the index is empty; there is nothing to search")
    texts = (titled_text(each.title, each.text).split() for each in documents)
    return [" ".join(words[:QUERY_WORDS]) for words in texts]


def _dense(index: Index, encoder: Encoder, queries: list[str], *, kind: str, exact: bool = False) -> Latency:
    vectors = encoder.encode_queries(queries)

    def task(row: int) -> Callable[[], object]:
        return lambda: index.search(vectors[row : row + 1], k=K, exact=exact)

    return latency(f"search {kind}, {len(index):,} vectors", [task(row) for row in range(len(queries))])


def _words_and_both(index: Index, encoder: Encoder, queries: list[str]) -> Iterator[Latency]:
    from embedkit.retrieval.options import SearchOptions
    from embedkit.retrieval.retriever import Retriever

    def by_words(query: str) -> Callable[[], object]:
        return lambda: index.search_text([query], k=K)

    retriever = Retriever(index, embed=encoder.encode_queries)

    def by_both(query: str) -> Callable[[], object]:
        return lambda: retriever.search([query], SearchOptions(k=K, mode="hybrid"))

    yield latency("search text (BM25)", [by_words(query) for query in queries])
    yield latency("encode a query and search hybrid", [by_both(query) for query in queries])


def _starts(encoder: Encoder, index: Path) -> Iterator[Latency]:
    """Start the command afresh each time, as a shell does."""
    model = ["--model", str(encoder.folder.path)]
    commands = (
        ["--version"],
        ["encode", "-", *model],
        ["search", str(index), "water", "--json", *model],
    )
    for what, words in zip(STARTED, commands, strict=True):
        yield latency(f"start: {what}", [lambda words=words: _start(words)] * STARTS)  # type: ignore[misc] # a default binds it


def _start(words: list[str]) -> None:
    command = [sys.executable, "-c", "from cli.main import run; run()", *words]
    subprocess.run(command, input=b"water\n", check=True, capture_output=True)
