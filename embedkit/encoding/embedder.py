"""An encoder as a plain function from texts to vectors that counts what it did."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Literal

import numpy as np

from embedkit.encoding.encoder import Encoder
from embedkit.types import Float32


class Embedder:
    """Embeds documents or queries with an encoder's prompt for them; keeps count of texts, tokens, cut, empty and unknown texts.

    A query that is empty or unknown to the model has no direction: it gets zeros, with which a search finds nothing. (Documents
    keep their vectors: words may find them.)

    Raises:
        CheckpointError: no index searches by the model's similarity.

    May be called from several threads: while the texts of one call are computed, those of another become tokens.
    """

    def __init__(self, encoder: Encoder, role: Literal["query", "document"]) -> None:
        encoder.check_searchable()
        self.encoder, self.role = encoder, role
        self.prompt = encoder.role_prompt(role)
        self.texts = 0
        self.tokens = 0
        self.truncated = 0
        self.empty = 0
        self.unknown = 0
        self._counting = Lock()

    def __call__(self, texts: Sequence[str]) -> Float32:
        """Encode texts, queries as they are compared with documents: -> (N, E) float32."""
        parts = []
        for window in self.encoder.encode_windows(texts, prompt=self.prompt, on_truncate="ok"):
            embeddings = window.embeddings
            if self.role == "query":
                embeddings[window.empty | window.unknown] = 0
                embeddings = self.encoder.as_queries(embeddings)
            parts.append(embeddings)
            with self._counting:
                self.texts += len(window.embeddings)
                self.tokens += window.num_tokens
                self.truncated += int(window.truncated.sum())
                self.empty += int(window.empty.sum())
                self.unknown += int(window.unknown.sum())
        return np.concatenate(parts) if parts else np.empty((0, self.encoder.dimension), np.float32)
