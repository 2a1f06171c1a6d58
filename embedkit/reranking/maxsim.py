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
from embedkit.types import Float32

# Measured as the scales of `embedkit.retrieval.strength` are.
SIMILARITIES = Scale(0.35, 0.55)
GROUP_TEXTS = 256  # whose token vectors are in memory together


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
        """Use a loaded encoder, of either kind.

        Raises:
            CheckpointError: it is a static model, whose tokens have no vectors in context.
        """
        self.encoder = encoder
        self._tokens = (
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
        return self._tokens.max_length("document")

    def score(self, query: str, texts: Sequence[str]) -> Float32:
        """Score texts against one query: -> (K,) float32.

        A query or text without tokens that count scores 0.
        """
        scores = np.zeros(len(texts), dtype=np.float32)
        if not texts:
            return scores
        (asked,) = self._tokens.encode_windows([query], role="query", on_truncate="ok")
        query_tokens, query_cut = asked.vectors.vectors, bool(asked.truncated[0])  # (Tq, E)
        self.counts += PairCounts(pairs=len(texts), cut_queries=query_cut * len(texts))
        if not len(query_tokens):
            return scores
        for start in range(0, len(texts), GROUP_TEXTS):
            group = texts[start : start + GROUP_TEXTS]
            (window,) = self._tokens.encode_windows(group, role="document", on_truncate="ok")
            cut = window.truncated | query_cut
            found = window.vectors
            self.counts += PairCounts(tokens=int(found.counts.sum()), truncated=int(cut.sum()))
            some = np.flatnonzero(found.counts)
            if len(some):
                similarities = found.vectors @ query_tokens.T  # (N, Tq)
                best = np.maximum.reduceat(similarities, found.starts[some], axis=0)
                scores[start + some] = best.mean(axis=1)
        return scores

    def strength(self, score: float) -> float:
        return SIMILARITIES.strength(score)
