"""Measure what merging tokens costs and gains: nDCG@10 and texts/s on SciFact with all-MiniLM-L6-v2, for each share.

    python benchmarks/merging.py [--shares 0.05 0.1 0.15 0.2] [--cuts 192 128] [--precision int8] [--rounds 5]
                                 [--texts 96] [--cache-dir DIR] [--output FILE.json] [--plot FILE.png]

It is compared with the simplest way to save work on long texts, reading only their first tokens. Speed is the best of
several rounds in which all settings encode the same abstracts in turn. Quality is measured with exact search over all 5,183
abstracts; with --cache-dir their vectors are kept, so an interrupted run can be resumed.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from timing import data_folder, in_turn, minilm_folder, report

from embedkit.data.beir import RetrievalSet, load_retrieval_set
from embedkit.data.reading import read_documents
from embedkit.data.records import titled_text
from embedkit.encoding.encoder import Encoder
from embedkit.evaluation.metrics import Metric
from embedkit.evaluation.retrieval import evaluate_retrieval
from embedkit.extras import load_extra
from embedkit.inference.precision_measuring import cosines
from embedkit.storage.files import atomic_file

DEPTH = 100
Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Setting:
    """One way to encode: the share of tokens that each layer merges, or the number of tokens read per text."""

    share: float = 0.0
    cut: int | None = None

    @property
    def name(self) -> str:
        if self.cut is not None:
            return f"cut at {self.cut} tokens"
        return f"merging {self.share:g}" if self.share else "all tokens"

    def load(self, folder: Path, precision: str) -> Encoder:
        return Encoder.load(
            folder,
            device="cpu",
            precision=precision,  # type: ignore[arg-type] # named by the user
            merge_tokens=self.share,
            max_seq_length=self.cut,
        )


def vectors_of(encoder: Encoder, texts: list[str], kept: Path | None) -> Float32:
    """Encode texts, or read the vectors that an earlier run kept."""
    if kept is not None and kept.is_file():
        found: Float32 = np.load(kept, allow_pickle=False)
        return found
    vectors = encoder.encode(texts, on_truncate="ok")
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        draft = kept.with_name(f"draft-{kept.name}")
        np.save(draft, vectors)
        draft.replace(kept)
    return vectors


def ndcg(test: RetrievalSet, doc_ids: list[str], documents: Float32, queries: Float32) -> float:
    """Search all queries among all documents, and return the mean nDCG@10."""
    scores = queries @ documents.T  # (Q, N)
    run = {}
    for query_id, row in zip(test.queries, scores, strict=True):
        best = np.argsort(-row, kind="stable")[:DEPTH]
        run[query_id] = {doc_ids[number]: float(row[number]) for number in best.tolist()}
    judged = {query_id: test.qrels[query_id] for query_id in test.qrels}
    run = {query_id: hits for query_id, hits in run.items() if query_id in judged}
    return evaluate_retrieval(judged, run, [Metric("ndcg", 10)]).means["ndcg@10"]


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Plot nDCG@10 over speedup: one line for merging and one for cutting, from the same starting point."""
    drawing = load_extra("plot", purpose=f"drawing {path}")
    lines = []
    for name in ("merging", "cut"):
        points = [row for row in rows if row["with"].startswith(("all tokens", name))]
        x, y = ([row[column] for row in points] for column in ("speedup", "nDCG@10"))
        lines.append((f"{name} tokens" if name == "merging" else "reading fewer tokens", x, y))
    with atomic_file(path) as stream:
        drawing.save_lines(
            lines, stream, name=path.name, x_label="speedup over all tokens", y_label="nDCG@10 on SciFact"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shares", type=float, nargs="*", default=[0.05, 0.1, 0.15, 0.2])
    parser.add_argument("--cuts", type=int, nargs="*", default=[192, 128])
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=96, help="abstracts whose encoding is timed")
    parser.add_argument("--cache-dir", type=Path)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    test = load_retrieval_set(data_folder() / "retrieval" / "scifact")
    corpus = {d.doc_id: titled_text(d.title, d.text) for d in read_documents([str(test.corpus)])}
    settings = [Setting(), *(Setting(share=each) for each in arguments.shares)]
    settings += [Setting(cut=each) for each in arguments.cuts]
    encoders = {each: each.load(minilm_folder(), arguments.precision) for each in settings}
    sample = random.Random(0).sample(list(corpus.values()), arguments.texts)
    tasks = {each.name: partial(encoders[each].encode, sample, on_truncate="ok") for each in settings}
    timings = in_turn(tasks, rounds=arguments.rounds)
    rows: list[dict[str, Any]] = []
    exact: Float32 | None = None
    for each in settings:
        name = f"{arguments.precision}-{each.share:g}-{each.cut}.npy"
        kept = arguments.cache_dir / name if arguments.cache_dir else None
        documents = vectors_of(encoders[each], list(corpus.values()), kept)
        exact = documents if exact is None else exact
        queries = encoders[each].encode(list(test.queries.values()), on_truncate="ok")
        rows.append(
            {
                "with": each.name,
                "nDCG@10": round(ndcg(test, list(corpus), documents, queries), 4),
                "texts/s": round(len(sample) / timings[each.name].best, 1),
                "speedup": round(timings["all tokens"].best / timings[each.name].best, 2),
                "cosine to all tokens": f"{cosines(documents, exact).mean():.4f}",
            }
        )
        print(rows[-1], flush=True)
    report(
        f"all-MiniLM-L6-v2 in {arguments.precision} on SciFact, {len(corpus):,} abstracts",
        rows,
        output=arguments.output,
    )
    if arguments.plot is not None:
        plot(rows, arguments.plot)


if __name__ == "__main__":
    main()
