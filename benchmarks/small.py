"""Hybrid search on small collections: the dozen articles in `examples` and the pages of this project's own manual.

    python benchmarks/small.py [--model MODEL]

`small_queries.tsv` has the queries, each with the one document that answers it. On so few documents a word that occurs once looks rare, so
that the best hit by words may be there by chance.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path

import timing  # lets this run as a script from anywhere

from embedkit.data.reading import DocumentReader
from embedkit.data.records import ReadOptions
from embedkit.encoding.embedder import Embedder
from embedkit.encoding.encoder import Encoder
from embedkit.evaluation.metrics import parse_metric
from embedkit.evaluation.retrieval import evaluate_retrieval
from embedkit.models import ENCODER, find_model
from embedkit.pipelines.systems import search_all
from embedkit.retrieval.retriever import Retriever, SearchOptions
from embedkit.tokenization.passages import PassageSplitter
from indexes import Index, Settings, build

ROOT = Path(timing.__file__).resolve().parent.parent
SOURCES = {"articles": ROOT / "examples/articles.jsonl", "docs": ROOT / "docs"}
SYSTEMS = {
    "words": SearchOptions(mode="text", group=True),
    "meaning": SearchOptions(mode="dense", group=True),
    "hybrid": SearchOptions(mode="hybrid", group=True),
    "hybrid, by ranks": SearchOptions(mode="hybrid", fusion="ranks", group=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=ENCODER)
    encoder = Encoder.load(find_model(parser.parse_args().model))
    with (ROOT / "benchmarks/small_queries.tsv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    print("| collection | search | nDCG@10 | first hit is right |\n|---|---|---:|---:|")
    for collection, source in SOURCES.items():
        asked = {row["query"]: row["document"] for row in rows if row["collection"] == collection}
        with tempfile.TemporaryDirectory(prefix="embedkit-small-") as folder:
            settings = Settings(dimension=encoder.dimension, fingerprint=encoder.fingerprint)
            with Index.create(Path(folder) / "index", settings) as index:
                documents = DocumentReader([str(source)], ReadOptions(text_unit="file"))
                split = PassageSplitter.of(encoder.tokenizer)
                for _ in build(index, documents, embed=Embedder(encoder, "document"), split=split):
                    pass
                retriever = Retriever(index, embed=Embedder(encoder, "query"))
                for system, options in SYSTEMS.items():
                    run = search_all(retriever, {query: query for query in asked}, options).run
                    near = {
                        query: {page_name(doc): score for doc, score in hits.items()}
                        for query, hits in run.items()
                    }
                    qrels = {query: {page_name(document): 1} for query, document in asked.items()}
                    metrics = [parse_metric("ndcg@10"), parse_metric("success@1")]
                    means = evaluate_retrieval(qrels, near, metrics).means
                    print(f"| {collection} | {system} | {means['ndcg@10']:.3f} | {means['success@1']:.2f} |")


def page_name(document: str) -> str:
    """Name a page by its place below `docs`, wherever the repository lies."""
    return document.rpartition("docs/")[2]


if __name__ == "__main__":
    main()
