"""An encoder as a plain function from texts to vectors that counts what it did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from embedkit.encoding.encoder import Encoder
from embedkit.encoding.text_counts import TextCounts
from embedkit.encoding.windows import EncodedWindow
from embedkit.tokenization.tokenizer import Tokenizer
from embedkit.types import Float32, TextRole


class Embedder(TextCounts):
    """Embeds documents or queries with an encoder's prompt for them; keeps count of texts, tokens, cut, empty and unknown texts.

    A query that is empty or unknown to the model has no direction: it gets zeros, with which a search finds nothing. (Documents
    keep their vectors: words may find them.)

    With `by_field` documents come as the texts of the model's fields, one for each, None for a missing one.

    Raises:
        CheckpointError: no index searches by the model's similarity, or documents come as single texts and the model has fields.

    May be called from several threads: while the texts of one call are computed, those of another become tokens.
    """

    def __init__(self, encoder: Encoder, role: TextRole, *, by_field: bool = False) -> None:
        super().__init__()
        encoder.check_searchable(by_field=by_field or role == "query")
        self.encoder, self.role = encoder, role
        self._by_field = by_field and bool(encoder.fields)
        self.prompt = encoder.role_prompt(role)

    @property
    def tokenizer(self) -> Tokenizer:
        """What cuts the texts of its role into tokens."""
        return self.encoder.of_role(self.role).tokenizer

    @property
    def room(self) -> int:
        """The tokens that the model reads of a text, beside special ones."""
        return self.tokenizer.max_length - self.tokenizer.single.num_special

    def __call__(self, texts: Sequence[Any]) -> Float32:  # Any: strings, or with fields tuples of them
        """Encode texts as they are compared: -> (N, E) float32, or with the model's fields (N, F·E)."""
        parts = []
        for window in self._windows(texts):
            embeddings = window.embeddings
            if self.role == "query":
                embeddings[window.empty | window.unknown] = 0
                embeddings = self.encoder.as_queries(embeddings)
            parts.append(embeddings)
            self.count(window)
        return np.concatenate(parts) if parts else np.empty((0, self.encoder.width(self.role)), np.float32)

    def _windows(self, texts: Sequence[Any]) -> Iterator[EncodedWindow]:  # Any: as above
        if self._by_field:
            return self.encoder.encode_field_windows(texts, on_truncate="ok")
        return self.encoder.of_role(self.role).encode_windows(texts, prompt=self.prompt, on_truncate="ok")
