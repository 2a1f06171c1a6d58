"""Compare our vectors with those of sentence-transformers, where that is installed. A check, never a dependency."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedkit.types import Float32

# Lengths from nothing to beyond what most models read, signs, scripts, odd spaces.
CHECK_TEXTS: tuple[str, ...] = (
    "",
    "a",
    "A girl is styling her hair.",
    "Schrödinger's naïve café in 東京 costs 3.50 € — no?",
    "  spaces\tand\nlines  ",
    "UPPER lower 12345 http://example.org/path?query=1",
    "The index remembers the encoder that made its vectors. " * 4,
    "Every token attends to every other token of its sentence. " * 40,
    "word " * 700,
)


@dataclass(frozen=True)
class Agreement:
    """How far two sets of vectors of the same texts lie apart."""

    texts: int
    largest_difference: float
    lowest_cosine: float


def compare_vectors(ours: Float32, theirs: Float32) -> Agreement:
    """Compare row by row: (N, E) and (N, E); two zero vectors, of a text without tokens, agree."""
    if ours.shape != theirs.shape:
        raise ValueError(f"vectors have shapes {ours.shape} and {theirs.shape}; they must be equal")
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    cosines = (ours * theirs).sum(axis=1) / np.maximum(norms, 1e-12)
    cosines[~ours.any(axis=1) & ~theirs.any(axis=1)] = 1
    return Agreement(len(ours), float(np.abs(ours - theirs).max()), float(cosines.min()))
