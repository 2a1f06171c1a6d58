"""A learned sparse encoder as a plain function from texts to vectors that counts what it did; the twin of `Embedder`."""

from __future__ import annotations

from collections.abc import Sequence

from embedkit.encoding.sparse import SparseEncoder
from embedkit.encoding.text_counts import TextCounts
from embedkit.retrieval.sparse_vectors import SparseVectors
from embedkit.tokenization.tokenizer import Tokenizer
from embedkit.types import TextRole


class SparseEmbedder(TextCounts):
    """Embeds documents or queries with an encoder's prompt for them; keeps count of texts, tokens, cut, empty and unknown texts.

    A query that is empty or unknown to the model gets no terms, with which a search finds nothing. May be called from several threads.
    """

    def __init__(self, encoder: SparseEncoder, role: TextRole) -> None:
        super().__init__()
        self.encoder, self.role = encoder, role
        self.prompt = encoder.role_prompt(role)

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
                vectors = vectors.where(~(window.empty | window.unknown))
            parts.append(vectors)
            self.count(window)
        return SparseVectors.concatenate(parts)
