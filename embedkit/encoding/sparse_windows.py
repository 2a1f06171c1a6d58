"""The sparse vectors of some consecutive texts, and their terms in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedkit.retrieval.sparse_vectors import SparseVectors
from embedkit.tokenization.tokenizer import Tokenizer


@dataclass(frozen=True)
class SparseWindow:
    """The sparse vectors of some consecutive texts, and what there is to say about them; `vocabulary` has the terms.

    Shapes:
        vectors: of N texts; truncated, empty, unknown: (N,) bool, as in `EncodedWindow`; num_tokens counts what the model has read
    """

    vectors: SparseVectors
    truncated: NDArray[np.bool_]
    empty: NDArray[np.bool_]
    unknown: NDArray[np.bool_]
    num_tokens: int
    vocabulary: Tokenizer

    @property
    def finite(self) -> NDArray[np.bool_]:
        """(N,) True where all weights of a text are finite."""
        wrong = np.concatenate(([0], np.cumsum(~np.isfinite(self.vectors.weights))))
        found: NDArray[np.bool_] = np.diff(wrong[self.vectors.starts]) < 1
        return found

    def describe(self) -> list[dict[str, float]]:
        """Return each text as {term: weight}, the largest weight first."""
        return describe_terms(self.vectors, self.vocabulary)


def describe_terms(vectors: SparseVectors, vocabulary: Tokenizer) -> list[dict[str, float]]:
    """Return each row as {term: weight}, the largest weight first."""
    found = []
    for position in range(len(vectors)):
        terms, weights = vectors.row(position)
        order = np.argsort(-weights, kind="stable")
        names = term_names(terms[order].tolist(), vocabulary)
        found.append(dict(zip(names, weights[order].tolist(), strict=True)))
    return found


def term_names(terms: Sequence[int], vocabulary: Tokenizer) -> list[str]:
    """Return the tokens that dimensions stand for, as the vocabulary spells them; of a number without a token "#number"."""
    tokens = map(vocabulary.backend.id_to_token, terms)
    return [f"#{term}" if token is None else token for term, token in zip(terms, tokens, strict=True)]
