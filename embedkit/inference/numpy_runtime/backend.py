"""Backends without torch: our kernels, numpy or a static model's table for the tokens, numpy for what follows."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from embedkit.checkpoint.arrays import Weights, load_sentence_weights
from embedkit.checkpoint.folder import ModelFolder
from embedkit.inference.numpy_runtime.encoder import NumpyEncoder
from embedkit.inference.numpy_runtime.sentence_head import SentenceHead
from embedkit.model.config import EncoderConfig
from embedkit.tokenization.batch import TokenBatch
from embedkit.types import Float32, Precision, Runtime

Ids = NDArray[np.int64]


class PackedEncoder(Protocol):
    """Token vectors of packed sequences: `embedkit.native.NativeEncoder`, `NumpyEncoder` or a `TokenTable`."""

    def hidden_states(
        self, input_ids: Ids, lengths: Ids, token_type_ids: Ids | None = None, *, layers: int | None = None
    ) -> Float32:
        """Return the token vectors of B sequences of N tokens in all, after so many layers: -> (N, D) float32."""
        ...

    def first_states(
        self, input_ids: Ids, lengths: Ids, token_type_ids: Ids | None = None, *, layers: int | None = None
    ) -> Float32:
        """Return those of the first tokens alone, for which the last layer is less work: -> (B, D) float32."""
        ...


class TokenTable:
    """A static model's token vectors: rows of a mapped table, whatever stands around them."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights

    def hidden_states(
        self, input_ids: Ids, lengths: Ids, token_type_ids: Ids | None = None, *, layers: int | None = None
    ) -> Float32:
        return self.weights.rows("tokens.weight", input_ids)

    def first_states(
        self, input_ids: Ids, lengths: Ids, token_type_ids: Ids | None = None, *, layers: int | None = None
    ) -> Float32:
        return self.weights.rows("tokens.weight", input_ids[np.cumsum(lengths) - lengths])


class PackedBackend:
    """A `Backend` of token vectors and a `SentenceHead` over them."""

    def __init__(
        self, encoder: PackedEncoder, head: SentenceHead, *, runtime: Runtime, precision: Precision
    ) -> None:
        self.encoder, self.head = encoder, head
        self.runtime, self.precision = runtime, precision

    def __repr__(self) -> str:
        return f"{self.runtime} on cpu, {self.precision}"

    @classmethod
    def load(
        cls, folder: ModelFolder, *, runtime: Runtime, precision: Precision, merge_tokens: float = 0.0
    ) -> PackedBackend:
        """Load a folder's weights for a runtime that can compute them; see `embedkit.inference.choice`.

        Raises:
            CheckpointError: the weights do not fit the folder's config.
        """
        weights = load_sentence_weights(folder)
        head = SentenceHead(folder.modules.sentence, weights.dense)
        encoder: PackedEncoder
        if folder.static:
            encoder = TokenTable(weights.encoder)
        else:
            encoder = load_encoder(
                folder.config,
                weights.encoder,
                runtime=runtime,
                precision=precision,
                merge_tokens=merge_tokens,
            )
        return cls(encoder, head, runtime=runtime, precision=precision)

    def forward(self, batch: TokenBatch, *, skip: int = 0) -> Float32:
        if self.head.config.pooling == ("cls",) and not skip:
            first = self.encoder.first_states(batch.input_ids, batch.lengths, batch.token_type_ids)
            return self.head(first, np.ones(len(batch), np.int64))
        return self.head(self.hidden_states(batch), batch.lengths, skip=skip)

    def hidden_states(self, batch: TokenBatch) -> Float32:
        return self.encoder.hidden_states(batch.input_ids, batch.lengths, batch.token_type_ids)


def load_encoder(
    config: EncoderConfig,
    weights: Weights,
    *,
    runtime: Runtime,
    precision: Precision,
    merge_tokens: float = 0.0,
) -> PackedEncoder:
    """Make the encoder of a runtime: `native` or `numpy`."""
    if runtime == "numpy":
        return NumpyEncoder(config, weights, merge_tokens=merge_tokens)
    from embedkit.native.encoder import NativeEncoder

    assert precision != "fp16"  # chosen for torch alone
    return NativeEncoder(config, weights, precision=precision, merge_tokens=merge_tokens)
