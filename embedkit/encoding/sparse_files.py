"""Reading sparse vectors from a file: the `.npz` that scipy's `load_npz` reads as a CSR matrix."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from embedkit.errors import RecordError
from embedkit.retrieval.sparse_vectors import SparseVectors

_FORMAT = "csr"


def read_sparse(path: Path) -> SparseVectors:
    """Read what a job over files, or scipy's `save_npz`, wrote.

    Raises:
        RecordError: the file cannot be read, or is no CSR matrix.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            form = content["format"].item()
            rows, dimension = content["shape"].tolist()
            vectors = SparseVectors(
                content["indptr"].astype(np.int64),
                content["indices"].astype(np.int32),
                content["data"].astype(np.float32),
                dimension,
            )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as exc:
        raise RecordError(
            f"{path}: cannot be read as a sparse matrix ({exc}). Write it with: embedkit encode -o FILE.npz"
        ) from exc
    if form not in (_FORMAT.encode(), _FORMAT) or len(vectors) != rows:
        raise RecordError(
            f"{path}: holds a matrix of format {form!r} with {rows} rows; a CSR matrix with {len(vectors)} is wanted"
        )
    return vectors
