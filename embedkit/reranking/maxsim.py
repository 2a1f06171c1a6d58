"""Late interaction over the token vectors of a bi-encoder: a second stage without a second model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from embedkit.checkpoint.folder import check_one_model
from embedkit.encoding.encoder import Encoder
from embedkit.errors import CheckpointError
from embedkit.inference.choice import Choice
from embedkit.inference.numpy_runtime.sentence_head import normalize
from embedkit.reranking.pairs import PairCounts
from embedkit.retrieval.reranker import Reranker
from embedkit.retrieval.strength import Scale
from embedkit.tokenization.batching import padded_batches
from embedkit.types import Float32

# Measured as the scales of `embedkit.retrieval.strength` are.
SIMILARITIES = Scale(0.35, 0.55)


@dataclass(frozen=True)
class _TokenVectors:
    """The unit vectors of the own tokens of B texts.

    Shapes:
        vectors: (N, D); counts: (B,) of each text; truncated: (B,) True where a text was cut
    """

    vectors: Float32
    counts: NDArray[np.int64]
    truncated: NDArray[np.bool_]


class MaxSim(Reranker):
    """Scores a text by how well each token of the query is met by its best token of the text.

    The score is the mean over the query's tokens of the largest cosine with any token of the text, from -1 to 1; special
    tokens stand aside. The paper sums where this takes the mean, which orders the texts of a query alike.
    Query and text are each cut to what the encoder reads; `counts` adds up what was scored and cut.
    Source: Khattab and Zaharia 2020, https://arxiv.org/abs/2004.12832, eq. 3.
    """

    name = "maxsim"
    weight = 1.0

    def __init__(self, encoder: Encoder) -> None:
        """Use a loaded encoder.

        Raises:
            CheckpointError: it is a static model, whose tokens have no vectors in context.
        """
        check_one_model(encoder.folder, "maxsim")
        if encoder.folder.static:
            raise CheckpointError(
                f"{encoder.folder.path}: a static model gives its tokens no vectors in context, which maxsim compares. "
                "Use a transformer model"
            )
        self.encoder = encoder
        self.counts = PairCounts()

    @property
    def choice(self) -> Choice | None:
        """What computes the encoder."""
        return self.encoder.choice

    def score(self, query: str, texts: Sequence[str]) -> Float32:
        """Score texts against one query: -> (K,) float32.

        A query or text without tokens of its own scores 0.
        """
        scores = np.zeros(len(texts), dtype=np.float32)
        if not texts:
            return scores
        asked = self._token_vectors([query], "query")
        query_tokens, query_cut = asked.vectors, bool(asked.truncated[0])  # (Tq, D)
        self.counts += PairCounts(pairs=len(texts), cut_queries=query_cut * len(texts))
        if not len(query_tokens):
            return scores
        lengths = self.encoder.tokenizer.encode(list(texts)).lengths
        for rows in padded_batches(lengths, self.encoder.token_budget):
            found = self._token_vectors([texts[row] for row in rows], "document")
            cut = found.truncated | query_cut
            self.counts += PairCounts(tokens=int(found.counts.sum()), truncated=int(cut.sum()))
            some = np.flatnonzero(found.counts)
            similarities = found.vectors @ query_tokens.T  # (N, Tq)
            starts = (np.cumsum(found.counts) - found.counts)[some]
            if len(some):
                scores[rows[some]] = np.maximum.reduceat(similarities, starts, axis=0).mean(axis=1)
        return scores

    def strength(self, score: float) -> float:
        return SIMILARITIES.strength(score)

    def _token_vectors(self, texts: Sequence[str], role: Literal["query", "document"]) -> _TokenVectors:
        tokenizer, prompt = self.encoder.tokenizer, self.encoder.role_prompt(role)
        batch = tokenizer.encode([prompt + text for text in texts])
        template = tokenizer.single
        unit = normalize(self.encoder.backend.hidden_states(batch))
        ends = np.cumsum(batch.lengths)
        before = len(template.prefix) + (len(tokenizer.ids([prompt])[0]) if prompt else 0)
        position = np.arange(len(unit)) - np.repeat(ends - batch.lengths, batch.lengths)
        own = (position >= before) & (
            position < np.repeat(batch.lengths, batch.lengths) - len(template.suffix)
        )
        owners = np.repeat(np.arange(len(texts)), batch.lengths)
        counts = np.bincount(owners[own], minlength=len(texts))
        return _TokenVectors(unit[own], counts, batch.truncated)
