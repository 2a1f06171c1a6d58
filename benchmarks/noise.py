"""Do the scales of `embedkit.retrieval.strength` tell answers from chance? Relevant hits that are hidden, and chance hits that are not.

    python benchmarks/noise.py [--model MODEL] [--sets adi cisi …] [--documents N] [--rerank] [--work DIR]

Each collection is asked its own queries, which have judgements, and those of the others, which it cannot answer (CISI, ADI and this
manual are about one field, and are not asked each other's). Queries are parted in two halves: the first shows what bounds on cosines and
on shares of BM25 would hide, for choosing them, the second what `judge` hides with those that were chosen. The last table has what the
scales rest on: the 95th percentile of other collections' queries, which chance gives, and the median of relevant hits. `--documents`
keeps so many documents a set, the relevant ones among them, `--rerank` tries the rerankers too, and `--work` keeps the indexes for
another run.
"""

from __future__ import annotations

import argparse
import csv
import math
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import timing
from small import ROOT, SOURCES, page_name

from embedkit.data.beir import load_retrieval_set
from embedkit.data.reading import DocumentReader, read_documents
from embedkit.data.records import Document, Hit, ReadOptions
from embedkit.encoding.embedder import Embedder
from embedkit.encoding.encoder import Encoder
from embedkit.encoding.noise import cosine_noise
from embedkit.models import ENCODER, RERANKER, find_model
from embedkit.pipelines.judging import judge
from embedkit.pipelines.searching import Search, open_search
from embedkit.retrieval.options import Mode, SearchOptions
from embedkit.retrieval.strength import MOST_TEXTS
from embedkit.tokenization.passages import PassageSplitter
from embedkit.types import Computing
from indexes import Index, Settings, build, is_index

SETS = ["adi", "articles", "docs", "cisi", "wikiqa_test", "squad_v11_dev", "scifact"]
ONE_FIELD = {"adi", "cisi", "docs"}
MODES: tuple[Mode, ...] = ("dense", "hybrid", "text")
OWN, OTHERS = 300, 50  # queries: a set's own, and of each other set
RERANKED, CANDIDATES = 12, 20  # where a reranker reads so many hits of each
BOUNDS, SHARES = (0.7, 0.8, 0.9, 1.0), (0.1, 0.12, 0.15)


@dataclass(frozen=True)
class Set:
    """A collection's documents, and its queries with the ids of what answers each."""

    name: str
    documents: list[Document]
    queries: dict[str, frozenset[str]]


@dataclass(frozen=True)
class Seen:
    """A hit: `bound` is the part of the bound on chance cosines that it reaches, `above` by how many deviations it passes all of it."""

    place: str
    own: bool
    query: str
    search: str
    relevant: bool
    weak: bool
    bound: float
    above: float
    share: float
    rerank: float

    @property
    def half(self) -> int:
        return zlib.crc32(self.query.encode()) % 2


def read_set(name: str, limit: int | None) -> Set:
    if name in SOURCES:
        with (ROOT / "benchmarks/small_queries.tsv").open(encoding="utf-8", newline="") as stream:
            rows = [row for row in csv.DictReader(stream, delimiter="\t") if row["collection"] == name]
        small = list(DocumentReader([str(SOURCES[name])], ReadOptions(text_unit="file")))
        return Set(name, small, {row["query"]: frozenset([page_name(row["document"])]) for row in rows})
    test = load_retrieval_set(timing.data_folder() / "retrieval" / name)
    assert test.corpus is not None
    judged = some(sorted(set(test.queries) & set(test.qrels)), OWN)
    right = {
        query: frozenset(doc for doc, level in test.qrels[query].items() if level > 0) for query in judged
    }
    documents = list(read_documents([str(test.corpus)]))
    if limit is not None:
        wanted = frozenset[str]().union(*right.values())
        documents.sort(key=lambda document: document.doc_id not in wanted)
        documents = documents[: max(limit, len(wanted))]
    return Set(name, documents, {test.queries[query]: right[query] for query in judged})


def some(queries: Iterable[str], count: int) -> list[str]:
    """Take up to `count` queries from all parts of a list."""
    listed = list(queries)
    return listed[:: max(1, len(listed) // count)][:count]


def build_index(path: Path, encoder: Encoder, documents: Sequence[Document]) -> None:
    if is_index(path):
        return
    unfinished = path.with_name(f"{path.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    settings = Settings(dimension=encoder.dimension, fingerprint=encoder.fingerprint)
    with Index.create(unfinished, settings) as index:
        split = PassageSplitter.of(encoder.tokenizer)
        for _ in build(index, documents, embed=Embedder(encoder, "document"), split=split):
            pass
    unfinished.rename(path)


def look(
    path: Path, model: str, here: Set, sets: Sequence[Set], mode: Mode, rerank: str | None
) -> Iterator[Seen]:
    """Ask a collection its own and the others' queries."""
    options = SearchOptions(mode=mode, group=True, candidates=100 if rerank is None else CANDIDATES)
    computing = Computing(precision="fp32")
    with open_search(path, options, computing, model=model, rerank=rerank) as opened:
        for other in sets:
            if other is not here and {other.name, here.name} <= ONE_FIELD:
                continue
            count = OWN if other is here else OTHERS
            queries = some(other.queries, count if rerank is None else RERANKED)
            for query, hits in zip(queries, opened.retriever.search(queries, options), strict=True):
                right = other.queries[query] if other is here else None
                yield from see(opened, options, query, hits, here.name, right)


def see(
    opened: Search,
    options: SearchOptions,
    query: str,
    hits: Sequence[Hit],
    place: str,
    right: frozenset[str] | None,
) -> Iterator[Seen]:
    limit = opened.index.text_limits([query])[0]
    most = math.sqrt(2 * math.log(min(len(opened.index), MOST_TEXTS)))
    noise = None if opened.embedder is None else cosine_noise(opened.embedder.encoder)
    for judged in judge(opened, query, hits, options):
        scores = judged.hit.scores
        far = -math.inf
        if noise is not None and "dense" in scores:
            far = (scores["dense"] - noise.mean) / noise.deviation
        yield Seen(
            place=place,
            own=right is not None,
            query=query,
            search=options.mode if opened.reranker is None else opened.reranker.name,
            relevant=right is not None and page_name(judged.hit.doc_id) in right,
            weak=judged.weak,
            bound=far / most,
            above=far - most,
            share=scores["text"] / limit if "text" in scores and limit else 0.0,
            rerank=scores.get("rerank", math.nan),
        )


def part(hidden: Iterable[bool]) -> float:
    return float(np.mean(list(hidden)))


def show_choice(seen: Sequence[Seen]) -> None:
    print(
        "\nfirst half, hybrid\n\n| bound | share | relevant hidden | others' hidden |\n|---:|---:|---:|---:|"
    )
    half = [each for each in seen if each.search == "hybrid" and each.half == 0]
    for bound, share in product(BOUNDS, SHARES):
        hidden = [(each, each.bound < bound and each.share < share) for each in half]
        lost, gone = (
            part(hid for each, hid in hidden if each.relevant),
            part(hid for each, hid in hidden if not each.own),
        )
        print(f"| {bound} | {share} | {lost:.2%} | {gone:.0%} |")


def show_chosen(seen: Sequence[Seen], search: str) -> None:
    print(f"\nsecond half, {search}\n")
    print(
        "| set | relevant hits | hidden | others' hits hidden | others' queries without a hit |\n|---|---:|---:|---:|---:|"
    )
    half = [each for each in seen if each.search == search and each.half == 1]
    for name in [*dict.fromkeys(each.place for each in half), None]:
        here = [each for each in half if name in (each.place, None)]
        relevant = [each.weak for each in here if each.relevant]
        others = [each for each in here if not each.own]
        queries: dict[tuple[str, str], list[bool]] = {}
        for each in others:
            queries.setdefault((each.place, each.query), []).append(each.weak)
        print(
            f"| {name or 'all'} | {len(relevant)} | {sum(relevant)} ({part(relevant):.1%}) "
            f"| {part(each.weak for each in others):.0%} | {part(map(all, queries.values())):.0%} |"
        )


def show_scale(seen: Sequence[Seen], name: str, search: str, value: Callable[[Seen], float]) -> None:
    of_search = [each for each in seen if each.search == search and not math.isnan(value(each))]
    for place in dict.fromkeys(each.place for each in of_search):
        here = [each for each in of_search if each.place == place]
        chance = np.quantile([value(each) for each in here if not each.own], 0.95)
        typical = np.median([value(each) for each in here if each.relevant])
        print(f"| {name} | {place} | {chance:.2f} | {typical:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=ENCODER)
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--documents", type=int)
    parser.add_argument("--rerank", action="store_true")
    parser.add_argument("--work", type=Path)
    asked = parser.parse_args()
    encoder = Encoder.load(find_model(asked.model))
    noise = cosine_noise(encoder)
    print(f"unrelated texts: mean {noise.mean:.3f}, deviation {noise.deviation:.3f}")
    sets = [read_set(name, asked.documents) for name in asked.sets]
    rerankers = [RERANKER, "maxsim"] if asked.rerank else []
    seen: list[Seen] = []
    with tempfile.TemporaryDirectory(prefix="embedkit-noise-") as folder:
        for here in sets:
            path = (asked.work or Path(folder)) / here.name
            print(f"{here.name}: {len(here.documents):,} documents", file=sys.stderr)
            build_index(path, encoder, here.documents)
            for mode in MODES:
                seen += look(path, asked.model, here, sets, mode, None)
            for reranker in rerankers:
                seen += look(path, asked.model, here, sets, "hybrid", reranker)
    show_choice(seen)
    for search in ("dense", "hybrid", *rerankers):
        show_chosen(seen, search)
    print("\n| scale | set | chance | relevant |\n|---|---|---:|---:|")
    show_scale(seen, "deviations above the bound", "dense", lambda each: each.above)
    show_scale(seen, "share of BM25", "text", lambda each: each.share)
    for reranker in rerankers:
        show_scale(seen, reranker, reranker, lambda each: each.rerank)


if __name__ == "__main__":
    main()
