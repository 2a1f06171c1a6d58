"""A learned sparse encoder as a plain function from texts to vectors that counts what it did; the twin of `Embedder`."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

import numpy as np

from embedkit.encoding.sparse import SparseEncoder
from embedkit.retrieval.sparse_vectors import SparseVectors
from embedkit.tokenization.tokenizer import Tokenizer
from embedkit.types import TextRole


class SparseEmbedder:
    """Embeds documents or queries with an encoder's prompt for them; keeps count of texts, tokens, cut, empty and unknown texts.

    A query that is empty or unknown to the model gets no terms, with which a search finds nothing. May be called from several threads.
    """

    def __init__(self, encoder: SparseEncoder, role: TextRole) -> None:
        self.encoder, self.role = encoder, role
        self.prompt = encoder.role_prompt(role)
        self.texts = 0
        self.tokens = 0
        self.truncated = 0
        self.empty = 0
        self.unknown = 0
        self._counting = Lock()

    @property
    def tokenizer(self) -> Tokenizer:
        """What cuts the texts of its role into tokens."""
        return self.encoder.of_role(self.role).tokenizer

    @property
    def room(self) -> int:
        """The tokens that the model reads of a text, beside special ones."""
        return self.tokenizer.max_length - self.tokenizer.single.num_special

    def __call__(self, texts: Sequence[str]) -> SparseVectors:
        parts = [SparseVectors.none(self.encoder.dimension)]
        for window in self.encoder.encode_windows(texts, role=self.role, on_truncate="ok"):
            vectors = window.vectors
            if self.role == "query":
                vectors = vectors.without(window.empty | window.unknown)
            parts.append(vectors)
            with self._counting:
                self.texts += len(vectors)
                self.tokens += window.num_tokens
                self.truncated += int(np.count_nonzero(window.truncated))
                self.empty += int(np.count_nonzero(window.empty))
                self.unknown += int(np.count_nonzero(window.unknown))
        return SparseVectors.concatenate(parts)
