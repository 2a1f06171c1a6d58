"""What runs a sentence encoder: the one seam behind which torch, our kernels or another runtime does the work."""

from __future__ import annotations

from typing import Protocol

from embedkit.tokenization.batch import TokenBatch
from embedkit.types import Float32


class Backend(Protocol):
    """Runs a sentence encoder on one batch of tokens."""

    def forward(self, batch: TokenBatch, *, skip: int = 0) -> Float32:
        """Encode B sequences: -> (B, E) float32. The first `skip` tokens of each are not pooled."""
        ...

    def hidden_states(self, batch: TokenBatch) -> Float32:
        """Return the vectors of all N tokens before pooling: -> (N, D) float32. For transformers only."""
        ...
