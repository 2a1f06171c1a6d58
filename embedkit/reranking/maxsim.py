"""Late interaction as a second stage: over the token vectors of a multi-vector model, or of the search's own encoder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embedkit.encoding.encoder import Encoder
from embedkit.encoding.multi_vector import MultiVectorEncoder
from embedkit.inference.choice import Choice
from embedkit.reranking.pairs import PairCounts
from embedkit.retrieval.reranker import Reranker
from embedkit.retrieval.strength import Scale
from embedkit.retrieval.token_vectors import TokenVectors
from embedkit.types import Float32

# Measured as the scales of `embedkit.retrieval.strength` are.
SIMILARITIES = Scale(0.35, 0.55)
GROUP_TEXTS = 256  # whose token vectors are in memory together


def mean_maxsim(query: TokenVectors, texts: TokenVectors) -> Float32:
    """Return the mean over a query's tokens of the largest cosine with any token of each text: (K,); 0 where one of both has no token."""
    scores = np.zeros(len(texts), dtype=np.float32)
    some = np.flatnonzero(texts.counts)
    if len(query.vectors) and len(some):
        similarities = texts.vectors @ query.vectors.T  # (N, Tq)
        best = np.maximum.reduceat(similarities, texts.starts[some], axis=0)
        scores[some] = best.mean(axis=1)
    return scores


class MaxSim(Reranker):
    """Scores a text by how well each token of the query is met by its best token of the text.

    The score is the mean over the query's tokens of the largest cosine with any token of the text, from -1 to 1. The paper sums where
    this takes the mean, which orders the texts of a query alike. Which tokens count, a multi-vector model says; of a dense one special
    tokens and prompts stand aside. Query and text are each cut to what the encoder reads; `counts` adds up what was scored and cut.
    Source: Khattab and Zaharia 2020, https://arxiv.org/abs/2004.12832, eq. 3.
    """

    name = "maxsim"
    weight = 1.0

    def __init__(self, encoder: Encoder | MultiVectorEncoder) -> None:
        """Use a loaded encoder, of either kind; `tokens` is what gives the vectors of tokens.

        Raises:
            CheckpointError: it is a static model, whose tokens have no vectors in context.
        """
        self.encoder = encoder
        self.tokens = (
            encoder if isinstance(encoder, MultiVectorEncoder) else MultiVectorEncoder.of_dense(encoder)
        )
        if isinstance(encoder, MultiVectorEncoder):
            self.name = encoder.name
        self.counts = PairCounts()

    @property
    def choice(self) -> Choice | None:
        """What computes the encoder."""
        return self.encoder.choice

    @property
    def max_length(self) -> int:
        """The tokens that are read of a text."""
        return self.tokens.max_length("document")

    def score(self, query: str, texts: Sequence[str]) -> Float32:
        """Score texts against one query: -> (K,) float32.

        A query or text without tokens that count scores 0.
        """
        scores = np.zeros(len(texts), dtype=np.float32)
        if not texts:
            return scores
        (asked,) = self.tokens.encode_windows([query], role="query", on_truncate="ok")
        query_cut = bool(asked.truncated[0])
        self.counts += PairCounts(pairs=len(texts), cut_queries=query_cut * len(texts))
        if not len(asked.vectors.vectors):
            return scores
        for start in range(0, len(texts), GROUP_TEXTS):
            group = texts[start : start + GROUP_TEXTS]
            (window,) = self.tokens.encode_windows(group, role="document", on_truncate="ok")
            cut = window.truncated | query_cut
            found = window.vectors
            self.counts += PairCounts(tokens=int(found.counts.sum()), truncated=int(cut.sum()))
            scores[start : start + len(group)] = mean_maxsim(asked.vectors, found)
        return scores

    def strength(self, score: float) -> float:
        return SIMILARITIES.strength(score)
