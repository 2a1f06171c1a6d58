"""What vectors must be to go into an index."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embedkit.errors import IndexMismatchError

from .codes import FloatArray
from .settings import Settings


def prepare_vectors(vectors: FloatArray, settings: Settings, names: Sequence[str]) -> FloatArray:
    """Check (N, E) vectors and, for cosine, bring them to unit length. `names` says what each is in a message.

    Raises:
        IndexMismatchError: a wrong shape, a vector that is not finite, or one without a direction.
    """
    if not isinstance(vectors, np.ndarray):
        raise IndexMismatchError(
            f"{type(vectors).__name__} were given; this index holds one vector a passage, of dimension {settings.dimension}. "
            "Use the model that the index was built with"
        )
    wanted = (len(names), settings.dimension)
    if vectors.shape != wanted:
        raise IndexMismatchError(
            f"vectors have shape {vectors.shape}; {len(names)} texts in an index of dimension {settings.dimension} "
            f"need {wanted}. Use the model that the index was built with"
        )
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        at = int(np.argmin(finite))
        raise IndexMismatchError(
            f"the vector of {names[at]} (number {at + 1} of {len(names)}) holds NaN or infinity; "
            "an index takes finite numbers. Check the model that made it"
        )
    if settings.metric == "cosine" and len(vectors):
        norms = np.sqrt(np.einsum("ne,ne->n", vectors, vectors, dtype=np.float64))
        if not norms.all():
            at = int(np.argmin(norms))
            raise IndexMismatchError(
                f"the vector of {names[at]} (number {at + 1} of {len(names)}) is all zeros; "
                "cosine needs a direction. Leave it out, or make a new index with: embedkit index build --metric dot"
            )
        vectors = (vectors / norms[:, None]).astype(np.float32)
    if settings.storage == "float16" and len(vectors) and np.abs(vectors).max() > 65504:
        at = int(np.argmax(np.abs(vectors).max(axis=1)))
        raise IndexMismatchError(
            f"the vector of {names[at]} holds {np.abs(vectors[at]).max():g}; float16 reaches 65504. "
            "Make a new index with: embedkit index build --storage float32"
        )
    return vectors
