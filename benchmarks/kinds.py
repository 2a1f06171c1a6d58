"""Dense, multi-vector and sparse search side by side, with the models of the last two trained here from a dense one.

    python benchmarks/kinds.py DIR [--model embedkit-small] [--steps 400] [--sets scifact squad_v11_dev cacm cisi] [--queries 1000]
                               [--data FOLDER]

1. DIR/pairs.jsonl: questions and passages of SQuAD train, Stack Exchange, MedQuAD, forums, and titles and abstracts of arXiv.
2. DIR/multi-vector and DIR/sparse: `train contrastive` with the recipes of these names. Interrupted, the same command goes on.
3. Each set is indexed by each of the three models, with the defaults of its kind and no document cut into passages, and its judged queries,
   of more than `--queries` a sample, are searched: nDCG@10, bytes of vectors a passage, seconds to build, and queries a second, one after the other, the query's encoding included.
   Hybrid search adds BM25; "dense + sparse" fuses two indexes (`search --with`).

The table goes to standard output and DIR/results.json. The sets are none that the pairs come from; SQuAD dev is of a kind with SQuAD train.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from timing import data_folder, report

sys.path.append(str(Path(__file__).resolve().parent.parent / "docs" / "reproduce"))
from sources import rows

from embedkit.data.beir import RetrievalSet, load_retrieval_set
from embedkit.evaluation.metrics import parse_metric
from embedkit.evaluation.retrieval import evaluate_retrieval
from embedkit.pipelines.searching import Search, open_search
from embedkit.pipelines.systems import search_all
from embedkit.retrieval.options import Mode, SearchOptions
from embedkit.types import Computing
from indexes import Index

# Of each file: which columns ask and answer, and how many rows are taken.
PAIRS = {
    "pairs/stackexchange_qa": ("title", "answer", 6_000),
    "pairs/medquad": ("question", "answer", 8_000),
    "varied/forum_qa": ("title", "answer", 2_000),
    "pairs/arxiv_title_abstract": ("title", "abstract", 16_000),
}
SQUAD_QUESTIONS = 32_000
KINDS = ("dense", "multi-vector", "sparse")
SYSTEMS: dict[str, tuple[str, Mode, str | None]] = {  # index, mode, further index
    "BM25": ("dense", "text", None),
    "dense": ("dense", "dense", None),
    "dense, hybrid": ("dense", "hybrid", None),
    "multi-vector": ("multi-vector", "dense", None),
    "multi-vector, hybrid": ("multi-vector", "hybrid", None),
    "sparse": ("sparse", "dense", None),
    "dense + sparse": ("dense", "dense", "sparse"),
}
METRIC = parse_metric("ndcg@10")
TIMED = 200  # queries
ROOT = Path(__file__).resolve().parent.parent


def pairs(data: Path) -> Iterator[dict[str, str]]:
    for folder, (asks, answers, count) in PAIRS.items():
        file = next((data / folder).glob("*.zst"))
        found = ({"query": row[asks], "positive": row[answers]} for row in rows(file))
        yield from islice((row for row in found if row["query"] and row["positive"]), count)
    squad = load_retrieval_set(data / "retrieval" / "squad_v11_train", split="train")
    assert squad.corpus is not None
    texts = {row["_id"]: row["text"] for row in rows(squad.corpus)}
    for number in random.Random(0).sample(sorted(squad.qrels), SQUAD_QUESTIONS):
        yield {"query": squad.queries[number], "positive": texts[next(iter(squad.qrels[number]))]}


def write_pairs(data: Path, path: Path) -> None:
    """Write the rows of all sources, shuffled, once."""
    if path.is_file():
        return
    found = list(pairs(data))
    random.Random(0).shuffle(found)
    draft = path.with_suffix(".part")
    draft.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found), encoding="utf-8")
    draft.rename(path)


def embedkit(*words: str) -> None:
    command = [sys.executable, "-c", "from cli.main import run; run()", *words]
    subprocess.run(command, check=True, cwd=ROOT, stdout=sys.stderr)


def train(folder: Path, kind: str, model: str, steps: int) -> None:
    """Train a model, or go on with it; what is there whole stays."""
    if (folder / "modules.json").is_file():
        return
    words = ["train", "contrastive", str(folder.parent / "pairs.jsonl"), "--recipe", kind, "--model", model]
    words += ["--output", str(folder), "--steps", str(steps), "--set", "data.max_length=180"]
    words += ["--set", f"optim.warmup_steps={steps // 10}", "--set", "run.evaluate_every=100"]
    words += ["--set", "run.save_every=25"]
    if kind == "sparse":
        words += ["--set", f"sparse.flops_warmup_steps={steps // 2}"]
    embedkit(*words, *(["--resume"] if (folder / "training" / "run.json").is_file() else []))


def sampled(test: RetrievalSet, most: int) -> RetrievalSet:
    """Keep so many judged queries of a set, the same ones in every run."""
    kept = sorted(test.qrels.keys() & test.queries.keys())
    if len(kept) > most:
        kept = random.Random(0).sample(kept, most)
    return replace(
        test,
        queries={number: test.queries[number] for number in kept},
        qrels={number: test.qrels[number] for number in kept},
    )


def build(test: RetrievalSet, model: str, path: Path) -> float:
    """Index a set, and return the seconds; those of an index that is there already are in the file beside it."""
    beside = path.with_suffix(".json")
    if not beside.is_file():
        shutil.rmtree(
            path, ignore_errors=True
        )  # what was interrupted would be gone on with, and its time not known
        started = time.perf_counter()
        words = ["index", "build", str(test.corpus), "--index", str(path), "--model", model]
        embedkit(*words, "--chunk-tokens", "0", "--quiet")
        beside.write_text(json.dumps(time.perf_counter() - started), encoding="utf-8")
    return float(json.loads(beside.read_text(encoding="utf-8")))


def speed(opened: Search, test: RetrievalSet, options: SearchOptions) -> float:
    """Return queries a second, one after the other."""
    some = list(test.queries.values())[:TIMED]
    for query in some[:5]:
        opened.retriever.search_ids([query], options)
    started = time.perf_counter()
    for query in some:
        opened.retriever.search_ids([query], options)
    return len(some) / (time.perf_counter() - started)


def measure(test: RetrievalSet, models: dict[str, str], folder: Path) -> Iterator[dict[str, Any]]:
    indexes = {kind: folder / f"{test.name}-{kind}.index" for kind in KINDS}
    built = {kind: build(test, models[kind], indexes[kind]) for kind in KINDS}
    for system, (kind, mode, beside) in SYSTEMS.items():
        options = SearchOptions(k=100, mode=mode)
        others = [] if beside is None else [indexes[beside]]
        with open_search(indexes[kind], options, Computing(), beside=others) as opened:
            run = search_all(opened.retriever, test.queries, options).run
            found = evaluate_retrieval(test.qrels, run, [METRIC])
            row = {
                "set": test.name,
                "system": system,
                "nDCG@10": f"{found.means['ndcg@10']:.4f}",
                "queries/s": f"{speed(opened, test, options):.0f}",
            }
        if mode == "dense" and beside is None:
            with Index.open(indexes[kind]) as index:
                size = sum(segment.info.num_bytes for segment in index.snapshot.segments) / len(index)
            row |= {"bytes a passage": f"{size:,.0f}", "seconds to build": f"{built[kind]:.1f}"}
        print(row, file=sys.stderr, flush=True)
        yield row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--model", default="embedkit-small", help="dense model, and the start of the others")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--sets", nargs="+", default=["scifact", "squad_v11_dev", "cacm", "cisi"])
    parser.add_argument("--queries", type=int, default=1000, help="judged queries of a set, at most")
    parser.add_argument("--data", type=Path, default=None)
    asked = parser.parse_args()
    data, folder = asked.data or data_folder(), asked.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    write_pairs(data, folder / "pairs.jsonl")
    for kind in KINDS[1:]:
        train(folder / kind, kind, asked.model, asked.steps)
    models = {"dense": asked.model, **{kind: str(folder / kind) for kind in KINDS[1:]}}
    table = [
        row
        for name in asked.sets
        for row in measure(
            sampled(load_retrieval_set(data / "retrieval" / name), asked.queries), models, folder
        )
    ]
    report(f"Kinds of search, {asked.steps} steps of training", table, output=folder / "results.json")


if __name__ == "__main__":
    main()
