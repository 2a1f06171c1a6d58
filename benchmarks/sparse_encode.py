"""Encode documents with a learned sparse model, beside sentence-transformers' SparseEncoder.

    python benchmarks/sparse_encode.py MODEL [--texts 200] [--rounds 3] [--output FILE.json]

MODEL is a folder of a `SparseEncoder`, such as `benchmarks/kinds.py` trains. The texts are those of `benchmarks/encode.py`. Rows: our kernels
in fp32 and int8; the same encoders with the head computed by numpy, as before there were kernels for it; sentence-transformers, where it is
installed. All are held to one core, and times are those of the processor, which other work on the machine disturbs less; the best of several
alternating rounds counts. Beside it stands how much two encoders agree: the mean cosine of the vectors with those of fp32.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import numpy as np
from encode import texts_by_kind
from timing import data_folder, in_turn, report

from embedkit.encoding.sparse import SparseEncoder
from embedkit.inference.numpy_runtime.backend import PackedBackend
from embedkit.inference.numpy_runtime.term_head import TermHead
from embedkit.retrieval.sparse_vectors import SparseVectors
from embedkit.types import Computing, WantedPrecision

PRECISIONS: tuple[WantedPrecision, ...] = ("fp32", "int8")


def loaded(folder: str, precision: WantedPrecision, *, kernels: bool) -> SparseEncoder:
    """Load the model in our own runtime; without `kernels` numpy computes its head."""
    computing = Computing(device="cpu", precision=precision, backend="native", force_precision=True)
    encoder = SparseEncoder.load(folder, computing=computing, measure=False)
    backend = encoder.sides["document"].backend
    assert isinstance(backend, PackedBackend)
    assert isinstance(backend.terms, TermHead)
    if not kernels:
        backend.terms._largest = backend.terms._largest_by_numpy
    return encoder


def cosine(one: SparseVectors, other: SparseVectors) -> float:
    rows = []
    for number in range(len(one)):
        vectors = np.zeros((2, one.dimension))
        for vector, (terms, weights) in zip(vectors, (one.row(number), other.row(number)), strict=True):
            vector[terms] = weights
        norms = np.linalg.norm(vectors, axis=1)
        rows.append(float(vectors[0] @ vectors[1] / max(norms.prod(), 1e-12)))
    return float(np.mean(rows))


def tasks(folder: str, texts: list[str]) -> dict[str, Callable[[], Any]]:
    found: dict[str, Callable[[], Any]] = {}
    for precision in PRECISIONS:
        for kernels in (True, False):
            encoder = loaded(folder, precision, kernels=kernels)
            name = f"{precision}{'' if kernels else ', head by numpy'}"
            found[name] = lambda encoder=encoder: encoder.encode(texts, "document", on_truncate="ok")
    if find_spec("sentence_transformers"):
        import torch
        from sentence_transformers import SparseEncoder as Peer

        torch.set_num_threads(1)
        peer = Peer(folder, device="cpu")
        found["sentence-transformers, fp32"] = lambda: peer.encode_document(texts, show_progress_bar=False)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--texts", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    reference = loaded(asked.model, "fp32", kernels=True)
    rows = []
    for kind, texts in texts_by_kind(data_folder(), asked.texts).items():
        exact = reference.encode(texts, "document", on_truncate="ok")
        tokens = sum(
            each.num_tokens for each in reference.encode_windows(texts, role="document", on_truncate="ok")
        )
        of_kind = tasks(asked.model, texts)
        for name, timing in in_turn(of_kind, rounds=asked.rounds, clock=time.process_time).items():
            row: dict[str, Any] = {"texts": kind, "what": name, "tokens/s": tokens / timing.best}
            made = of_kind[name]()
            if isinstance(made, SparseVectors):
                row["cosine"] = f"{cosine(exact, made):.5f}"
            rows.append(row)
    report("Learned sparse encoding on one core", rows, output=asked.output)


if __name__ == "__main__":
    sys.exit(main())
