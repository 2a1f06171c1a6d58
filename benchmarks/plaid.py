"""Measure fast-plaid, the engine of PyLate's PLAID index, on the token vectors that `benchmarks/multi_vector.py` has kept.

    python benchmarks/multi_vector.py DIR --passages 100000     # writes DIR/wiki-100000, with the truth of exact MaxSim
    python benchmarks/plaid.py DIR/wiki-100000 [--bits 2 4] [--threads 2]

In an environment of its own with fast-plaid and the torch that it was built for: it needs neither embedkit nor its packages. Recall@10 is
against exact MaxSim over the vectors that were given, which is `recall_of_original` there; speeds are of one query at a time.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

DIMENSION, K = 128, 10


def kept(folder: Path, name: str) -> list[torch.Tensor]:
    """Return the vectors of each text, of unit length: (T, DIMENSION) float32."""
    counts = np.load(folder / f"{name}.counts.npy")
    halves = np.memmap(folder / f"{name}.vectors", np.float16, "r").reshape(-1, DIMENSION)
    vectors = torch.nn.functional.normalize(torch.from_numpy(halves.astype(np.float32)), dim=1)
    return list(torch.split(vectors, counts[counts > 0].tolist()))


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def measure(folder: Path, bits: int) -> None:
    """Build an index, search it with several settings, and print a line for each."""
    from fast_plaid import search

    path = folder / f"plaid-{bits}"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    documents, queries = kept(folder, "passages"), kept(folder, "queries")
    truth: list[list[str]] = json.loads((folder / "truth.json").read_text())
    index = search.FastPlaid(index=str(path), device="cpu")
    started = time.perf_counter()
    index.create(documents_embeddings=documents, nbits=bits)
    build_seconds, tokens = time.perf_counter() - started, sum(map(len, documents))
    del documents
    for probes, scored in ((2, 512), (4, 1024), (8, 4096), (32, 8192)):  # 8 and 4,096 are its defaults
        found, taken = [], []
        for query in queries:
            started = time.perf_counter()
            hits = index.search(
                query[None], top_k=K, n_ivf_probe=probes, n_full_scores=scored, show_progress=False
            )
            taken.append(time.perf_counter() - started)
            found.append({f"p{number}" for number, _ in hits[0]})
        recall = float(np.mean([len(a & set(b)) for a, b in zip(found, truth, strict=True)])) / K
        row = {
            "bits": bits,
            "n_ivf_probe": probes,
            "n_full_scores": scored,
            "recall_of_original": round(recall, 4),
            "ms": round(1000 * float(np.median(taken)), 1),
            "bytes_per_token": round(size_of(path) / tokens, 1),
            "build_seconds": round(build_seconds),
        }
        print(json.dumps(row), flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bits", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--threads", type=int, help="default: torch's")
    given = parser.parse_args(arguments)
    if given.threads:
        torch.set_num_threads(given.threads)
    for bits in given.bits:
        measure(given.folder, bits)


if __name__ == "__main__":
    main()
