"""Speed of a cross-encoder on this CPU, beside sentence-transformers' `CrossEncoder` with the same model and pairs.

    python benchmarks/rerank.py [--rounds 3] [--queries 8] [--precisions fp32 bf16 int8]
                               [--backends native torch] [--output FILE.json]

The model is all-MiniLM-L6-v2's encoder with a random head (its scores mean nothing, its work is that of any MiniLM reranker).
Pairs are SciFact claims with abstracts, the cited one and others drawn at random, up to 512 tokens. The second table is one
query with 100 candidates cut to 128 tokens each: how long a user waits.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from timing import data_folder, in_turn, minilm_folder, report

from embedkit.checkpoint.classification_weights import classifier_from_encoder, save_classifier
from embedkit.checkpoint.folder import read_model_folder
from embedkit.errors import DeviceError
from embedkit.evaluation.beir import load_retrieval_set
from embedkit.records import read_documents
from embedkit.reranking.cross_encoder import CrossEncoder

CANDIDATES = 100
CANDIDATE_TOKENS = 128


def write_reranker(target: Path) -> Path:
    """Write all-MiniLM-L6-v2's encoder with a random head of one label."""
    folder = read_model_folder(minilm_folder())
    model = classifier_from_encoder(folder, num_labels=1, seed=0)
    tokenizer = folder.tokenizer.with_max_length(512)
    save_classifier(target, model, tokenizer, family=folder.family, activation="identity")
    return target


def scifact_pairs(data: Path, num_queries: int, per_query: int) -> tuple[list[str], list[str]]:
    """Pair claims with their cited abstracts and others drawn at random, the same for everybody."""
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


def throughput(
    folder: Path, ours: dict[str, CrossEncoder], queries: list[str], texts: list[str], rounds: int
) -> list[dict[str, Any]]:
    from sentence_transformers import CrossEncoder as Peer

    peer = Peer(str(folder), device="cpu")
    pairs = list(zip(queries, texts, strict=True))
    tasks: dict[str, Callable[[], Any]] = {
        "sentence-transformers": partial(peer.predict, pairs, show_progress_bar=False)
    }
    for name, model in ours.items():
        tasks[f"embedkit {name}"] = partial(model.score_pairs, queries, texts)
    timings = in_turn(tasks, rounds=rounds)
    base, reference = timings["sentence-transformers"], peer.predict(pairs, show_progress_bar=False)
    rows = []
    for name, timing in timings.items():
        row: dict[str, Any] = {
            "with": name,
            "pairs/s": round(len(pairs) / timing.best, 1),
            "ratio of best": round(base.best / timing.best, 2),
            "ratio of median": round(base.median / timing.median, 2),
        }
        if name != "sentence-transformers":
            model = ours[name.removeprefix("embedkit ")]
            tokens = model.counts.tokens / model.counts.pairs * len(pairs)
            row["tokens/s"] = round(tokens / timing.best)
            row["largest difference"] = f"{np.abs(model.score_pairs(queries, texts) - reference).max():.2g}"
        rows.append(row)
    return rows


def load(folder: Path, how: tuple[str, str], **settings: Any) -> CrossEncoder | None:
    """Load the model with a backend in a precision; None, and a word about it, where that is not to be had here."""
    backend, precision = how
    try:
        return CrossEncoder.load(folder, device="cpu", backend=backend, precision=precision, **settings)  # type: ignore[arg-type] # named by the user
    except DeviceError as exc:
        print(f"left out: {exc}")
        return None


def latency(
    folder: Path, hows: list[tuple[str, str]], texts: list[str], query: str, runs: int
) -> list[dict[str, Any]]:
    rows = []
    candidates = (sorted(texts, key=len, reverse=True) * CANDIDATES)[:CANDIDATES]
    for how in hows:
        for layers in (None, 3):
            model = load(folder, how, max_seq_length=CANDIDATE_TOKENS, layers=layers)
            if model is None:
                continue
            model.score(query, candidates)
            seconds = []
            for _ in range(runs):
                start = time.perf_counter()
                model.score(query, candidates)
                seconds.append(time.perf_counter() - start)
            rows.append(
                {
                    "backend": how[0],
                    "precision": how[1],
                    "layers": layers or model.folder.config.num_hidden_layers,
                    "tokens": model.counts.tokens // (runs + 1),
                    "p50 s": round(float(np.percentile(seconds, 50)), 3),
                    "p95 s": round(float(np.percentile(seconds, 95)), 3),
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=20, help="runs of the second table")
    parser.add_argument("--queries", type=int, default=8, help="claims, each with 16 abstracts")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16", "int8"])
    parser.add_argument("--backends", nargs="+", default=["native", "torch"])
    parser.add_argument("--output", type=Path, help="write the first table as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = write_reranker(Path(temporary) / "reranker")
        queries, texts = scifact_pairs(data_folder(), arguments.queries, 16)
        hows = list(product(arguments.backends, arguments.precisions))
        loaded = {" ".join(how): load(folder, how, truncation="longest_first") for how in hows}
        ours = {name: model for name, model in loaded.items() if model is not None}
        rows = throughput(folder, ours, queries, texts, arguments.rounds)
        report(f"{len(texts)} SciFact pairs", rows, output=arguments.output)
        waits = latency(folder, hows, texts, queries[0], arguments.runs)
        report(f"One query, {CANDIDATES} candidates of {CANDIDATE_TOKENS} tokens", waits, output=None)


if __name__ == "__main__":
    main()
