"""What runs a model: the one seam behind which torch, our kernels or another runtime does the work."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from embedkit.checkpoint.classification import ClassifierFolder
from embedkit.checkpoint.folder import ModelFolder
from embedkit.model.sparse_config import TermPooling
from embedkit.tokenization.batch import TokenBatch
from embedkit.types import Float32

AnyFolder = ModelFolder | ClassifierFolder  # what a model is loaded from
Output = Literal["pooled", "hidden_states", "mlm_logits", "class_logits", "term_weights"]
OUTPUT_NAMES: dict[Output, str] = {
    "pooled": "pooled vectors",
    "hidden_states": "token vectors",
    "mlm_logits": "masked-language-model logits",
    "class_logits": "class scores",
    "term_weights": "weights of terms",
}


class Backend(Protocol):
    """Runs one model on batches of packed tokens: B sequences, N tokens in all.

    A runtime inherits from this class and overrides what it computes of its model; the other methods raise TypeError.
    `embedkit.inference.loading.choose` takes none that lacks the output asked for.
    """

    def pooled(self, batch: TokenBatch, *, skip: int = 0) -> Float32:
        """Return one vector per sequence, (B, E): its embedding, or what the head of a cross-encoder reads.

        The first `skip` tokens of each sequence are not pooled.
        """
        raise _refusal(self, "pooled")

    def hidden_states(self, batch: TokenBatch) -> Float32:
        """Return the vectors of all tokens before pooling: (N, D)."""
        raise _refusal(self, "hidden_states")

    def mlm_logits(self, batch: TokenBatch, places: NDArray[np.int64]) -> Float32:
        """Score the whole vocabulary at M places, numbers of tokens in [0, N): (M,) -> (M, V)."""
        raise _refusal(self, "mlm_logits")

    def class_logits(self, batch: TokenBatch, *, layers: int | None = None) -> Float32:
        """Score each sequence for each class, (B, C): after `layers` layers, or after all of them."""
        raise _refusal(self, "class_logits")

    def term_weights(self, batch: TokenBatch, pooling: TermPooling) -> Float32:
        """Weigh the whole vocabulary for each sequence by its masked-language-model logits: (B, V), none below 0."""
        raise _refusal(self, "term_weights")


def _refusal(backend: Backend, output: Output) -> TypeError:
    return TypeError(
        f"{backend!r} computes no {OUTPUT_NAMES[output]} of this model. Choose what does: choose(…, output={output!r})"
    )
