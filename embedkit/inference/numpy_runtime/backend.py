"""Backends without torch: our kernels, numpy or a static model's table for the tokens, numpy for what follows."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from embedkit.checkpoint.arrays import Weights, load_classifier_weights, load_sentence_weights
from embedkit.checkpoint.classification import ClassifierFolder
from embedkit.checkpoint.folder import ModelFolder
from embedkit.checkpoint.mlm_arrays import load_mlm_weights
from embedkit.checkpoint.stored_arrays import StoredArray
from embedkit.inference.backend import AnyFolder, Backend
from embedkit.inference.numpy_runtime.encoder import NumpyEncoder
from embedkit.inference.numpy_runtime.scoring_head import ScoringHead
from embedkit.inference.numpy_runtime.sentence_head import SentenceHead, mean_of
from embedkit.inference.numpy_runtime.term_head import TermHead
from embedkit.model.config import EncoderConfig, SentenceConfig
from embedkit.model.sparse_config import TermPooling
from embedkit.native.library import why_not_loadable
from embedkit.native.means import RowMeans
from embedkit.tokenization.batch import TokenBatch
from embedkit.types import Float32, Precision, Runtime

Ids = NDArray[np.int64]


class TokenEncoder(Protocol):
    """Token vectors of packed sequences: `embedkit.native.NativeEncoder`, `NumpyEncoder` or a `TokenTable`."""

    def hidden_states(
        self,
        input_ids: Ids,
        lengths: Ids,
        token_type_ids: Ids | None = None,
        *,
        layers: int | None = None,
        num_keys: Ids | None = None,
    ) -> Float32:
        """Return the token vectors of B sequences of N tokens in all, after so many layers: -> (N, D) float32.

        `num_keys` (B,) says how many of a sequence's first tokens are attended to; None: all.
        """
        ...

    def first_states(
        self, input_ids: Ids, lengths: Ids, token_type_ids: Ids | None = None, *, layers: int | None = None
    ) -> Float32:
        """Return those of the first tokens alone, for which the last layer is less work: -> (B, D) float32."""
        ...

    def mean_states(
        self,
        input_ids: Ids,
        lengths: Ids,
        token_type_ids: Ids | None = None,
        *,
        layers: int | None = None,
        skip: int = 0,
    ) -> Float32:
        """Return the mean of each sequence's tokens behind the first `skip`: -> (B, D) float32."""
        ...


class TokenTable:
    """A static model's token vectors: rows of a mapped table, whatever stands around them."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self._means = _row_means(weights.stored("tokens.weight"))

    def hidden_states(
        self,
        input_ids: Ids,
        lengths: Ids,
        token_type_ids: Ids | None = None,
        *,
        layers: int | None = None,
        num_keys: Ids | None = None,
    ) -> Float32:
        return self.weights.rows("tokens.weight", input_ids)

    def first_states(
        self, input_ids: Ids, lengths: Ids, token_type_ids: Ids | None = None, *, layers: int | None = None
    ) -> Float32:
        return self.weights.rows("tokens.weight", input_ids[np.cumsum(lengths) - lengths])

    def mean_states(
        self,
        input_ids: Ids,
        lengths: Ids,
        token_type_ids: Ids | None = None,
        *,
        layers: int | None = None,
        skip: int = 0,
    ) -> Float32:
        if self._means is not None:
            return self._means(input_ids, lengths, skip=skip)
        return mean_of(self.weights.rows("tokens.weight", input_ids), lengths, skip=skip)


def _row_means(table: StoredArray) -> RowMeans | None:
    """Return what averages a table's rows as they are stored; None where there are no kernels, or it is stored otherwise."""
    if why_not_loadable() is not None:
        return None
    if table.scales is not None:
        return (
            RowMeans(table.raw, (table.scales.row, table.scales.column))
            if table.raw.dtype == np.int8
            else None
        )
    return RowMeans(table.raw) if table.dtype == "float32" else None


class PackedBackend(Backend):
    """Token vectors, a `SentenceHead` that pools them, a cross-encoder's `ScoringHead` over that, or a `TermHead` over the tokens'."""

    def __init__(
        self,
        encoder: TokenEncoder,
        head: SentenceHead,
        *,
        scoring: ScoringHead | None = None,
        terms: TermHead | None = None,
        runtime: Runtime,
        precision: Precision,
    ) -> None:
        self.encoder, self.head, self.scoring, self.terms = encoder, head, scoring, terms
        self.runtime, self.precision = runtime, precision

    def __repr__(self) -> str:
        return f"{self.runtime} on cpu, {self.precision}"

    def pooled(self, batch: TokenBatch, *, skip: int = 0) -> Float32:
        return self._pooled(batch, skip=skip)

    def hidden_states(self, batch: TokenBatch) -> Float32:
        if isinstance(self.encoder, TokenTable):  # whose vectors know nothing of what stands around them
            return super().hidden_states(batch)
        tokens = batch.input_ids, batch.lengths, batch.token_type_ids
        return self.encoder.hidden_states(*tokens, num_keys=batch.num_keys)

    def class_logits(self, batch: TokenBatch, *, layers: int | None = None) -> Float32:
        if self.scoring is None:
            return super().class_logits(batch, layers=layers)
        return self.scoring(self._pooled(batch, layers=layers))

    def term_weights(self, batch: TokenBatch, pooling: TermPooling) -> Float32:
        if self.terms is None:
            return super().term_weights(batch, pooling)
        return self.terms(self.hidden_states(batch), batch.lengths, pooling)

    def _pooled(self, batch: TokenBatch, *, skip: int = 0, layers: int | None = None) -> Float32:
        """Compute no more of the last layer than the pooling reads: -> (B, E)."""
        tokens = batch.input_ids, batch.lengths, batch.token_type_ids
        if self.head.config.pooling == ("mean",):
            return self.head.project(self.encoder.mean_states(*tokens, layers=layers, skip=skip))
        if self.head.config.pooling == ("cls",) and not skip:
            return self.head(self.encoder.first_states(*tokens, layers=layers), np.ones(len(batch), np.int64))
        return self.head(self.encoder.hidden_states(*tokens, layers=layers), batch.lengths, skip=skip)


def load_packed(
    folder: AnyFolder,
    *,
    runtime: Runtime,
    precision: Precision,
    merge_tokens: float = 0.0,
    terms: bool = False,
) -> PackedBackend:
    """Load a folder's weights for a runtime that can compute them; see `embedkit.inference.choice`.

    With `terms` a masked-language-model head is loaded, too, and gives `term_weights`.

    Raises:
        CheckpointError: the weights do not fit the folder's config.
    """
    scoring = None
    if isinstance(folder, ClassifierFolder):
        classifier = load_classifier_weights(folder)
        weights = classifier.encoder
        head = SentenceHead(SentenceConfig(pooling=(folder.head.pooling,)), ())
        scoring = ScoringHead(folder.config, folder.head, classifier.head)
    else:
        sentence = load_sentence_weights(folder)
        weights = sentence.encoder
        head = SentenceHead(folder.modules.sentence, sentence.dense, sentence.parts.get("attention_pooling"))
    encoder: TokenEncoder
    if isinstance(folder, ModelFolder) and folder.static:
        encoder = TokenTable(weights)
    else:
        encoder = make_encoder(
            folder.config, weights, runtime=runtime, precision=precision, merge_tokens=merge_tokens
        )
    term_head = None
    if terms:
        assert isinstance(folder, ModelFolder)  # a cross-encoder is asked for class scores
        assert precision != "fp16"
        kernels = precision if runtime == "native" else None
        term_head = TermHead(folder.config, load_mlm_weights(folder), precision=kernels)
    return PackedBackend(
        encoder, head, scoring=scoring, terms=term_head, runtime=runtime, precision=precision
    )


def make_encoder(
    config: EncoderConfig,
    weights: Weights,
    *,
    runtime: Runtime,
    precision: Precision,
    merge_tokens: float = 0.0,
) -> TokenEncoder:
    """Make the encoder of a runtime: `native` or `numpy`."""
    if runtime == "numpy":
        return NumpyEncoder(config, weights, merge_tokens=merge_tokens)
    from embedkit.native.encoder import NativeEncoder

    assert precision != "fp16"  # chosen for torch alone
    return NativeEncoder(config, weights, precision=precision, merge_tokens=merge_tokens)
