"""Compare the shipped models with all-MiniLM-L6-v2 and BM25 on real test sets; this writes docs/results.md.

    python benchmarks/models.py [MODEL…] [--data FOLDER] [--rerank MODEL] [--cache-dir FOLDER] [--output docs/results.md]

The first model is the one being measured and the last is the reference; the default is embedkit-small, embedkit-tiny,
embedkit-static and all-MiniLM-L6-v2. A folder of all-mpnet-base-v2 before the last one adds the teacher.
Collections are encoded once, which takes minutes for each, and kept in the cache. After that, a run encodes and searches
the queries and measures the speed of all models in turn, which takes a few minutes.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from encode import texts_by_kind
from timing import data_folder, in_turn, minilm_folder, surroundings

from embedkit.encoding.encoder import Encoder
from embedkit.machine import BF16_FLAGS, INT8_FLAGS, cpu_flags
from embedkit.models import ENCODER, RERANKER, STATIC, TINY, find_model

PAIRS = {"STS-B test": "sts/stsb/test.tsv", "SICK dev": "sts/sick/dev.tsv"}
SETS = {
    "SciFact": "scifact",
    "CACM": "cacm",
    "CISI": "cisi",
    "SQuAD dev": "squad_v11_dev",
    "WikiQA test": "wikiqa_test",
}
CANDIDATES = 20
# Known scores of all-MiniLM-L6-v2 and the tolerance: SciFact and STS-B as published (MTEB leaderboard), CACM and CISI
# as measured with sentence-transformers on these files.
KNOWN = {
    "STS-B test": (0.8203, 0.0005),
    "SciFact": (0.645, 0.003),
    "CACM": (0.410, 0.005),
    "CISI": (0.420, 0.005),
}
HEADER = """# Results

Measured by `python benchmarks/models.py`, which writes this page. Retrieval scores are nDCG@10 as trec_eval
computes it (linear gain), in fp32, with title and text joined and documents cut only to what the model reads.
Similarity is Spearman's correlation with the cosine. BM25 is `--mode text` (SQLite FTS5, Porter stemming,
k1 = 1.2, b = 0.75); hybrid fuses its scores with the model's, with equal weights. SQuAD dev is all
10,570 questions over all 2,067 paragraphs.
"""
Figures = dict[
    tuple[str, str], float
]  # (set, system) -> value; a system is a model's label, "… hybrid" or "BM25"


def embedkit(*arguments: str) -> list[dict[str, Any]]:
    """Run a command and return its JSON lines."""
    command = [sys.executable, "-c", "from cli.main import run; run()", *arguments]
    command += ["--precision", "fp32", "--json", "--quiet"]
    repository = Path(__file__).resolve().parent.parent
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=repository)
    return [json.loads(line) for line in done.stdout.decode("utf-8").splitlines()]


def quality(data: Path, models: dict[str, Path], cache: Sequence[str]) -> Figures:
    """Measure similarity and retrieval of every model, dense and hybrid, and BM25."""
    found: Figures = {}
    for label, folder in models.items():
        for row in embedkit(
            "evaluate", "similarity", *(str(data / path) for path in PAIRS.values()), "--model", str(folder)
        ):
            name = next(name for name, path in PAIRS.items() if path.endswith(row["dataset"]))
            found[name, label] = row["values"]["spearman"]
        folders = [str(data / "retrieval" / name) for name in SETS.values()]
        modes = ["--mode", "dense", "--mode", "hybrid"]
        for row in embedkit("evaluate", "retrieval", *folders, "--model", str(folder), *modes, *cache):
            name = next(name for name, path in SETS.items() if path == row["dataset"])
            system = row["system"]
            if system != "BM25":
                system = f"{label} hybrid" if system.endswith(" hybrid") else label
            found[name, system] = row["values"]["ndcg@10"]
    return found


def sampled(folder: Path, num_queries: int, place: Path) -> Path:
    """Make a test set from a fixed sample of another's queries, over its whole collection."""
    from embedkit.data.beir import load_retrieval_set

    test = load_retrieval_set(folder)
    assert test.corpus is not None
    chosen = sorted(test.qrels)
    if len(chosen) > num_queries:
        chosen = random.Random(0).sample(chosen, num_queries)
    target = place / folder.name  # the collection is cached under this name
    (target / "qrels").mkdir(parents=True)
    (target / Path(test.corpus).name).symlink_to(test.corpus)
    queries = [json.dumps({"_id": name, "text": test.queries[name]}) for name in chosen]
    (target / "queries.jsonl").write_text("\n".join(queries) + "\n", encoding="utf-8")
    lines = [f"{name}\t{doc}\t{level}" for name in chosen for doc, level in test.qrels[name].items()]
    rows = ["query-id\tcorpus-id\tscore", *lines]
    (target / "qrels" / "test.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return target


def reranking(
    data: Path, model: Path, reranker: Path, num_queries: int, cache: Sequence[str]
) -> list[tuple[str, ...]]:
    """Measure a reranker on the model's hits, of dense and of hybrid search: nDCG@10 without and with it, ms per query."""
    rows: list[tuple[str, ...]] = [
        ("nDCG@10", "queries", "dense", "reranked", "gain", "hybrid", "reranked", "gain", "ms per query")
    ]
    with tempfile.TemporaryDirectory() as place:
        for name, path in SETS.items():
            folder = sampled(data / "retrieval" / path, num_queries, Path(place))
            how = ["--rerank", str(reranker), "--model", str(model), "--candidates", str(CANDIDATES), *cache]
            found = [
                row
                for row in embedkit(
                    "evaluate", "reranking", str(folder), "--mode", "dense", "--mode", "hybrid", *how
                )
                if row["system"] != "BM25"
            ]
            row = [name, f"{found[0]['counts']['queries']:,}"]
            for before, after in (found[:2], found[2:]):
                values = [each["values"]["ndcg@10"] for each in (before, after)]
                row += [*(f"{value:.4f}" for value in values), f"{values[1] - values[0]:+.4f}"]
            rows.append((*row, f"{found[1]['values']['ms/query']:,.0f}"))
    return rows


def shares(values: Sequence[float]) -> list[str]:
    """Say how all but the last relate to the last."""
    return [f"{value / values[-1]:.2f}" for value in values[:-1]]


def speeds(data: Path, models: dict[str, Path], rounds: int, num_texts: int) -> list[tuple[str, ...]]:
    """Measure the size on disk of all models and, in turn, their texts per second, short and long."""
    labels = list(models)
    rows: list[tuple[str, ...]] = [("", *labels, *(f"{label} / {labels[-1]}" for label in labels[:-1]))]
    sizes = [sum(file.stat().st_size for file in models[label].rglob("*.*")) / 1e6 for label in labels]
    rows.append(("size on disk, MB", *(f"{size:,.1f}" for size in sizes), *shares(sizes)))
    kinds = texts_by_kind(data, num_texts)
    fast = {"bf16": BF16_FLAGS, "int8": INT8_FLAGS}
    precisions = ["fp32", *(name for name, flags in fast.items() if cpu_flags() & set(flags))]
    for precision in precisions:
        encoders = {
            # A static model is a table, the same in every precision.
            label: Encoder.load(folder, device="cpu", precision="fp32" if label == STATIC else precision)  # type: ignore[arg-type] # one of its names
            for label, folder in models.items()
        }
        for kind in ("short", "long"):
            texts = kinds[kind]
            tasks = {
                label: partial(encoder.encode, texts, on_truncate="ok") for label, encoder in encoders.items()
            }
            timings = in_turn(tasks, rounds=rounds)
            rates = [len(texts) / timings[label].best for label in labels]
            rows.append(
                (
                    f"{kind} texts/s, {precision}",
                    *(f"{rate:,.0f}" for rate in rates),
                    *shares(rates),
                )
            )
    return rows


def quality_rows(found: Figures, labels: Sequence[str]) -> list[tuple[str, ...]]:
    """Arrange the figures: one row per set, and the means; the last columns are the models relative to the last."""
    systems = ["BM25", *(system for label in labels for system in (label, f"{label} hybrid"))]
    rows: list[tuple[str, ...]] = [("", *systems, *(f"{label} / {labels[-1]}" for label in labels[:-1]))]
    groups = {"mean of similarity": list(PAIRS), "mean of retrieval": list(SETS)}
    for mean, names in groups.items():
        for name in names:
            found_here = {system: found[name, system] for system in systems if (name, system) in found}
            rows.append(_row(name, found_here, systems, labels))
        rows.append(_mean_row(mean, names, found, systems, labels))
    rows.append(_mean_row("mean of all", [*PAIRS, *SETS], found, systems, labels))
    return rows


def _mean_row(
    label: str, names: Sequence[str], found: Figures, systems: Sequence[str], labels: Sequence[str]
) -> tuple[str, ...]:
    """Average the figures of every system measured on all the sets."""
    means = {
        system: sum(found[name, system] for name in names) / len(names)
        for system in systems
        if all((name, system) in found for name in names)
    }
    return _row(label, means, systems, labels)


def _row(
    name: str, values: dict[str, float], systems: Sequence[str], labels: Sequence[str]
) -> tuple[str, ...]:
    cells = [f"{values[system]:.4f}" if system in values else "" for system in systems]
    return (name, *cells, *(f"{values[label] / values[labels[-1]]:.1%}" for label in labels[:-1]))


def markdown(rows: Sequence[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|---|" + "---:|" * (len(rows[0]) - 1), *lines[1:]]) + "\n"


def misses(found: Figures, minilm: str) -> list[str]:
    """Name the figures of all-MiniLM-L6-v2 that are outside their tolerance."""
    return [
        f"{name}: {found[name, minilm]:.4f}; expected {known} ± {near}"
        for name, (known, near) in KNOWN.items()
        if (name, minilm) in found and abs(found[name, minilm] - known) > near
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", default=[ENCODER, TINY, STATIC, "all-MiniLM-L6-v2"])
    parser.add_argument("--data", type=Path, help="default: $EMBEDKIT_DATA, else ../shared/data")
    parser.add_argument("--rerank", default=RERANKER, help="a cross-encoder, or 'none'")
    parser.add_argument("--rerank-queries", type=int, default=300, help="queries per set for reranking")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--texts", type=int, default=1000, help="number of short texts to time; a quarter as many long ones"
    )
    parser.add_argument("--cache-dir", type=Path)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    data = (arguments.data or data_folder()).resolve()
    named = {Path(name).name: name for name in arguments.models}
    models = {
        label: minilm_folder() if name == "all-MiniLM-L6-v2" else find_model(name).resolve()
        for label, name in named.items()
    }
    labels = list(models)
    cache = ["--cache-dir", str(arguments.cache_dir.resolve())] if arguments.cache_dir else []
    found = quality(data, models, cache)
    parts = [
        HEADER,
        markdown(quality_rows(found, labels)),
        "Speed is the best of several rounds in which all models encode the same texts in turn: STS sentences (short)\n"
        "and SciFact abstracts (long).\n",
        markdown(speeds(data, models, arguments.rounds, arguments.texts)),
    ]
    if arguments.rerank != "none":
        reranker = find_model(arguments.rerank).resolve()
        parts += [
            f"{reranker.name} over the first {CANDIDATES} hits of {labels[0]}, on a fixed sample of the queries:\n",
            markdown(reranking(data, models[labels[0]], reranker, arguments.rerank_queries, cache)),
        ]
    parts.append(
        "Measured with " + ", ".join(f"{name} {what}" for name, what in surroundings().items()) + ".\n"
    )
    page = "\n".join(parts)
    print(page)
    if arguments.output is not None:
        arguments.output.write_text(page, encoding="utf-8")
    if wrong := misses(found, "all-MiniLM-L6-v2"):
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
