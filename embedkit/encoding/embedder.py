"""An encoder as a plain function from texts to vectors that counts what it did."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Literal

import numpy as np

from embedkit.encoding.encoder import Encoder
from embedkit.types import Float32


class Embedder:
    """Embeds documents or queries with an encoder's prompt for them; keeps count of texts, tokens, cut and empty texts.

    May be called from several threads: while the texts of one call are computed, those of another become tokens.
    """

    def __init__(self, encoder: Encoder, role: Literal["query", "document"]) -> None:
        self.encoder = encoder
        self.prompt = encoder.role_prompt(role)
        self.texts = 0
        self.tokens = 0
        self.truncated = 0
        self.empty = 0
        self._counting = Lock()

    def __call__(self, texts: Sequence[str]) -> Float32:
        """Encode texts: -> (N, E) float32."""
        parts = []
        for window in self.encoder.encode_windows(texts, prompt=self.prompt, on_truncate="ok"):
            parts.append(window.embeddings)
            with self._counting:
                self.texts += len(window.embeddings)
                self.tokens += window.num_tokens
                self.truncated += int(window.truncated.sum())
                self.empty += int(window.empty.sum())
        return np.concatenate(parts) if parts else np.empty((0, self.encoder.dimension), np.float32)
