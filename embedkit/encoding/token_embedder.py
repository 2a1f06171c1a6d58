"""A multi-vector encoder as a plain function from texts to token vectors that counts what it did, as `Embedder` is of an encoder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embedkit.encoding.multi_vector import MultiVectorEncoder
from embedkit.encoding.text_counts import TextCounts
from embedkit.retrieval.token_vectors import TokenVectors
from embedkit.tokenization.tokenizer import Tokenizer
from embedkit.types import TextRole


class TokenEmbedder(TextCounts):
    """Embeds documents or queries; keeps count of texts, tokens, cut, empty and unknown texts.

    A query that is empty or unknown to the model gets no vectors: with none a search finds nothing. May be called from several threads.
    """

    def __init__(self, encoder: MultiVectorEncoder, role: TextRole) -> None:
        super().__init__()
        self.encoder, self.role = encoder, role

    @property
    def tokenizer(self) -> Tokenizer:
        """What cuts the texts of its role into tokens."""
        return self.encoder.tokenizer(self.role)

    @property
    def room(self) -> int:
        """The tokens that the model reads of a text, beside special ones and its marker."""
        tokenizer, prompt = self.tokenizer, self.encoder.folder.modules.prompt(self.role)
        own = len(tokenizer.ids([prompt])[0]) if prompt else 0
        return tokenizer.max_length - tokenizer.single.num_special - own

    def __call__(self, texts: Sequence[str]) -> TokenVectors:
        """Encode texts: -> the token vectors of N texts."""
        parts = [TokenVectors(np.empty((0, self.encoder.dimension), np.float32), np.empty(0, np.int64))]
        for window in self.encoder.encode_windows(texts, role=self.role, on_truncate="ok"):
            vectors = window.vectors
            if self.role == "query":
                vectors = vectors.where(~(window.empty | window.unknown))
            parts.append(vectors)
            self.count(window)
        return TokenVectors.concatenate(parts)
