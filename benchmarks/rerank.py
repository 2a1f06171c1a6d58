"""Compare cross-encoder speed on this CPU with sentence-transformers' `CrossEncoder`, on the same model and pairs.

    python benchmarks/rerank.py [--rounds 3] [--queries 8] [--runs 20] [--precisions fp32 bf16 int8]
                               [--backends native torch] [--layers 3] [--output FILE.json]

The model is all-MiniLM-L6-v2's encoder with a random head (its scores are meaningless, but it does the work of any MiniLM
reranker). Pairs are SciFact claims with abstracts, the cited ones and others drawn at random, up to 512 tokens. The second table
is for one query with 100 candidates, each pair cut to 128 tokens: the time that a user waits. In both, all run alternately, and
ratios are to sentence-transformers in the same table.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from timing import data_folder, in_turn, minilm_folder, report

from embedkit.checkpoint.classification_weights import classifier_from_encoder, save_classifier
from embedkit.checkpoint.folder import read_model_folder
from embedkit.data.beir import load_retrieval_set
from embedkit.data.reading import read_documents
from embedkit.errors import DeviceError
from embedkit.reranking.cross_encoder import CrossEncoder

CANDIDATES = 100
PAIR_TOKENS = 128
PEER = "sentence-transformers"


def write_reranker(target: Path) -> Path:
    """Write all-MiniLM-L6-v2's encoder with a random single-label head."""
    folder = read_model_folder(minilm_folder())
    model = classifier_from_encoder(folder, num_labels=1, seed=0)
    tokenizer = folder.tokenizer.with_max_length(512)
    save_classifier(target, model, tokenizer, family=folder.family, activation="identity")
    return target


def scifact_pairs(data: Path, num_queries: int, per_query: int) -> tuple[list[str], list[str]]:
    """Pair claims with their cited abstracts and others drawn at random, the same ones in every run."""
    found = load_retrieval_set(data / "retrieval" / "scifact")
    abstracts = {d.doc_id: f"{d.title} {d.text}" for d in read_documents([str(found.corpus)])}
    draw = random.Random(0)
    queries, texts = [], []
    for query_id in list(found.queries)[:num_queries]:
        cited = [doc_id for doc_id in found.qrels[query_id] if doc_id in abstracts]
        chosen = [*cited, *draw.sample(sorted(abstracts), per_query)][:per_query]
        queries += [found.queries[query_id]] * per_query
        texts += [abstracts[doc_id] for doc_id in chosen]
    return queries, texts


def load_peer(folder: Path, max_length: int) -> Any:  # Any: sentence-transformers' CrossEncoder
    from sentence_transformers import CrossEncoder as Peer

    return Peer(str(folder), device="cpu", max_length=max_length)


def throughput(
    folder: Path, ours: dict[str, CrossEncoder], queries: list[str], texts: list[str], rounds: int
) -> list[dict[str, Any]]:
    peer = load_peer(folder, 512)
    pairs = list(zip(queries, texts, strict=True))
    tasks: dict[str, Callable[[], Any]] = {PEER: partial(peer.predict, pairs, show_progress_bar=False)}
    for name, model in ours.items():
        tasks[f"embedkit {name}"] = partial(model.score_pairs, queries, texts)
    timings = in_turn(tasks, rounds=rounds)
    base, reference = timings[PEER], peer.predict(pairs, show_progress_bar=False)
    rows = []
    for name, timing in timings.items():
        row: dict[str, Any] = {
            "with": name,
            "pairs/s": round(len(pairs) / timing.best, 1),
            "ratio of best": round(base.best / timing.best, 2),
            "ratio of median": round(base.median / timing.median, 2),
        }
        if name != PEER:
            model = ours[name.removeprefix("embedkit ")]
            tokens = model.counts.tokens / model.counts.pairs * len(pairs)
            row["tokens/s"] = round(tokens / timing.best)
            row["largest difference"] = f"{np.abs(model.score_pairs(queries, texts) - reference).max():.2g}"
        rows.append(row)
    return rows


def load_all(
    folder: Path,
    hows: list[tuple[str, str]],
    layers: list[int | None],
    **settings: Any,  # Any: as `CrossEncoder.load` takes them
) -> dict[str, CrossEncoder]:
    """Load the model with each backend in each precision available here; name the others and leave them out."""
    found = {}
    for (backend, precision), count in product(hows, layers):
        name = f"{backend} {precision}" + ("" if count is None else f", {count} layers")
        try:
            found[name] = CrossEncoder.load(
                folder,
                device="cpu",
                backend=backend,  # type: ignore[arg-type] # named by the user
                precision=precision,  # type: ignore[arg-type] # named by the user
                layers=count,
                **settings,
            )
        except DeviceError as exc:
            print(f"left out: {exc}")
    return found


def latency(
    folder: Path, ours: dict[str, CrossEncoder], texts: list[str], query: str, runs: int
) -> list[dict[str, Any]]:
    candidates = (sorted(texts, key=len, reverse=True) * CANDIDATES)[:CANDIDATES]
    peer = load_peer(folder, PAIR_TOKENS)
    pairs = [(query, text) for text in candidates]
    tasks: dict[str, Callable[[], Any]] = {PEER: partial(peer.predict, pairs, show_progress_bar=False)}
    for name, model in ours.items():
        tasks[f"embedkit {name}"] = partial(model.score, query, candidates)
    timings = in_turn(tasks, rounds=runs)
    base = timings[PEER]
    rows = []
    for name, timing in timings.items():
        row: dict[str, Any] = {
            "with": name,
            "p50 s": round(timing.median, 3),
            "p95 s": round(float(np.percentile(timing.seconds, 95)), 3),
            "best s": round(timing.best, 3),
            "ratio of median": round(base.median / timing.median, 2),
            "ratio of best": round(base.best / timing.best, 2),
        }
        if name != PEER:
            model = ours[name.removeprefix("embedkit ")]
            row["tokens"] = model.counts.tokens // (runs + 1)
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the first table; 0 skips it")
    parser.add_argument("--runs", type=int, default=20, help="runs of the second table; 0 skips it")
    parser.add_argument("--queries", type=int, default=8, help="number of claims, each with 16 abstracts")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16", "int8"])
    parser.add_argument("--backends", nargs="+", default=["native", "torch"])
    parser.add_argument(
        "--layers",
        type=int,
        nargs="*",
        default=[],
        help="also score after this many layers, in the second table",
    )
    parser.add_argument("--output", type=Path, help="write both tables as JSON: FILE and FILE-latency")
    arguments = parser.parse_args()
    output: Path | None = arguments.output
    with tempfile.TemporaryDirectory() as temporary:
        folder = write_reranker(Path(temporary) / "reranker")
        queries, texts = scifact_pairs(data_folder(), arguments.queries, 16)
        hows = list(product(arguments.backends, arguments.precisions))
        if arguments.rounds:
            ours = load_all(folder, hows, [None], truncation="longest_first")
            rows = throughput(folder, ours, queries, texts, arguments.rounds)
            report(f"{len(texts)} SciFact pairs", rows, output=output)
        if arguments.runs:
            ours = load_all(folder, hows, [None, *arguments.layers], max_seq_length=PAIR_TOKENS)
            waits = latency(folder, ours, texts, queries[0], arguments.runs)
            second = output and output.with_stem(output.stem + "-latency")
            report(f"One query, {CANDIDATES} pairs of {PAIR_TOKENS} tokens", waits, output=second)


if __name__ == "__main__":
    main()
