"""How vectors are written to files: one a text as `.npy`, several or weights of terms as `.npz`, each of them as JSON lines.

A `.npz` of weights of terms is the CSR matrix of scipy's `load_npz`, (N, V) float32, with an id a line in a file beside it. One of token
vectors holds three arrays: `vectors`, (sum of counts, E) float32, those of one text after the other; `counts`, (N,) int64, how many are
each text's; `ids`, (N,) strings.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from embedkit.encoding.archives import ENTRY
from embedkit.encoding.sparse_windows import SparseWindow
from embedkit.encoding.windows import AnyWindow, EncodedWindow, TokenWindow
from embedkit.retrieval.sparse_vectors import SparseVectors
from embedkit.types import Float32


def file_content(ids: Sequence[str], window: AnyWindow, output: Path) -> tuple[bytes, bytes]:
    """Return the bytes of a window's vectors as they are written to `output`, and those of its counts."""
    if isinstance(window, TokenWindow) and output.suffix == ".npz":
        return window.vectors.vectors.astype("<f4").tobytes(), window.vectors.counts.astype("<i8").tobytes()
    if isinstance(window, SparseWindow) and output.suffix == ".npz":
        return _entries(window.vectors), window.vectors.counts.astype("<i8").tobytes()
    if isinstance(window, EncodedWindow) and output.suffix == ".npy":
        return window.embeddings.astype("<f4").tobytes(), b""
    return "".join(json_rows(ids, window)).encode("utf-8"), b""


def json_rows(ids: Sequence[str], window: AnyWindow) -> list[str]:
    """Write a JSON line of each text: its id, and its `embedding`, `embeddings` or `terms` with their weights."""
    if isinstance(window, TokenWindow):
        return [token_row(doc_id, window.vectors.text(number)) for number, doc_id in enumerate(ids)]
    if isinstance(window, SparseWindow):
        return [terms_row(doc_id, terms) for doc_id, terms in zip(ids, window.describe(), strict=True)]
    assert isinstance(window, EncodedWindow)
    return [json_row(doc_id, row) for doc_id, row in zip(ids, window.embeddings, strict=True)]


def json_row(doc_id: str, embedding: Float32) -> str:
    """Write one vector (E,) as a JSON line; floats in the fewest digits that give the same float32 again."""
    return f'{{"id": {json.dumps(doc_id, ensure_ascii=False)}, "embedding": {_numbers(embedding)}}}\n'


def token_row(doc_id: str, embeddings: Float32) -> str:
    """Write the vectors of a text's tokens, (T, E), as a JSON line, digits as in `json_row`."""
    rows = ",".join(map(_numbers, embeddings))
    return f'{{"id": {json.dumps(doc_id, ensure_ascii=False)}, "embeddings": [{rows}]}}\n'


def terms_row(doc_id: str, terms: dict[str, float]) -> str:
    """Write the weights of a text's terms as a JSON line."""
    finite = {term: weight if np.isfinite(weight) else None for term, weight in terms.items()}
    return json.dumps({"id": doc_id, "terms": finite}, ensure_ascii=False) + "\n"


def _entries(vectors: SparseVectors) -> bytes:
    entries = np.empty(len(vectors.terms), ENTRY)
    entries["term"], entries["weight"] = vectors.terms, vectors.weights
    return entries.tobytes()


def _numbers(vector: Float32) -> str:
    # JSON has no NaN; such vectors are counted and reported.
    whole = np.isfinite(vector).all()
    return f"[{','.join(str(value) if whole or np.isfinite(value) else 'null' for value in vector)}]"
