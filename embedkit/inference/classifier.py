"""What computes the vectors that a cross-encoder's head reads: our kernels, numpy or torch; and the head, in numpy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Protocol

import numpy as np

from embedkit.checkpoint.arrays import ClassifierWeights, load_classifier_weights
from embedkit.checkpoint.classification import ClassifierFolder
from embedkit.errors import DeviceError
from embedkit.inference.choice import GRAPH_PRECISIONS, Choice, choose_device_type, choose_runtime
from embedkit.inference.numpy_runtime.activations import ACTIVATIONS
from embedkit.inference.numpy_runtime.backend import PackedEncoder, load_encoder
from embedkit.inference.numpy_runtime.sentence_head import SentenceHead
from embedkit.inference.precision import settle
from embedkit.inference.sample import SAMPLE_TEXTS, sample_batches
from embedkit.model.config import EncoderConfig, HeadConfig, SentenceConfig
from embedkit.tokenization.batch import TokenBatch
from embedkit.types import Device, Float32, Precision, WantedPrecision, WantedRuntime


class Scorer(Protocol):
    """Runs a cross-encoder's transformer on one batch of tokens."""

    def pooled(self, batch: TokenBatch, *, layers: int | None = None) -> Float32:
        """Return what the head reads of B sequences, after so many layers: -> (B, D) float32."""
        ...


class PackedScorer:
    """A `Scorer` without torch."""

    def __init__(self, encoder: PackedEncoder, head: HeadConfig) -> None:
        self.encoder = encoder
        self._pool = SentenceHead(SentenceConfig(pooling=(head.pooling,)), ())

    def pooled(self, batch: TokenBatch, *, layers: int | None = None) -> Float32:
        tokens = batch.input_ids, batch.lengths, batch.token_type_ids
        if self._pool.config.pooling == ("cls",):
            return self.encoder.first_states(*tokens, layers=layers)
        return self._pool(self.encoder.hidden_states(*tokens, layers=layers), batch.lengths)


class ScoringHead:
    """The twin of `embedkit.model.classification.ClassificationHead` in numpy: (B, D) -> (B, C).

    It computes in fp32 whatever the transformer does: half precision would round scores to two digits and make ties.
    """

    def __init__(self, encoder: EncoderConfig, config: HeadConfig, weights: Mapping[str, Float32]) -> None:
        self.config, self.eps = config, encoder.layer_norm_eps
        self.weights = dict(weights)

    def __call__(self, pooled: Float32) -> Float32:
        weights = self.weights
        inner = pooled @ weights["dense.weight"].T
        if self.config.bias:
            inner += weights["dense.bias"]
        inner = ACTIVATIONS[self.config.activation](inner)
        if self.config.norm:
            inner = inner - inner.mean(axis=-1, keepdims=True)
            inner /= np.sqrt(np.mean(inner * inner, axis=-1, keepdims=True) + np.float32(self.eps))
            inner = inner * weights["norm.weight"] + weights.get("norm.bias", np.float32(0))
        logits: Float32 = inner @ weights["out.weight"].T + weights["out.bias"]
        return logits


def choose(
    folder: ClassifierFolder,
    *,
    device: Device = "auto",
    precision: WantedPrecision = "fp32",
    force: bool = False,
    backend: WantedRuntime = "auto",
    few: bool = False,
) -> Choice:
    """Choose what computes a cross-encoder, as `embedkit.inference.loading.choose` does for an encoder.

    Precisions are compared by the vectors that the head reads of pairs of the sample texts. With `few` nothing is
    measured: only what is known already counts.

    Raises:
        DeviceError: the device, or the precision with this model, is not to be had here.
    """
    if backend in GRAPH_PRECISIONS:
        raise DeviceError(
            f"the {backend} backend computes sentence encoders only, no cross-encoder. Leave the choice to --backend auto"
        )
    kind = choose_device_type(device)

    def each(wanted: Precision) -> Choice:
        return choose_runtime(folder.config, wanted, kind, wanted=backend, force=force)

    fingerprint = {**folder.fingerprint, "kind": "cross-encoder"} if precision in ("auto", "int8") else {}
    return settle(precision, each, partial(_load_sample, folder), fingerprint, measure=not few)


def load_scorer(folder: ClassifierFolder, choice: Choice) -> tuple[Scorer, ScoringHead]:
    """Load a folder's weights into what was chosen.

    Raises:
        CheckpointError: the weights do not fit the folder's config.
    """
    weights = load_classifier_weights(folder)
    return _load_transformer(folder, weights, choice), ScoringHead(folder.config, folder.head, weights.head)


def _load_transformer(folder: ClassifierFolder, weights: ClassifierWeights, choice: Choice) -> Scorer:
    if choice.runtime == "torch":
        from embedkit.inference.torch_runtime.classifier import TorchScorer

        return TorchScorer.load(folder, device=choice.device, precision=choice.precision)
    encoder = load_encoder(folder.config, weights.encoder, runtime=choice.runtime, precision=choice.precision)
    return PackedScorer(encoder, folder.head)


def _load_sample(folder: ClassifierFolder, choice: Choice) -> Callable[[], Float32]:
    """Load a scorer, and return what computes the head's vectors of pairs of neighbouring sample texts."""
    scorer = _load_transformer(folder, load_classifier_weights(folder), choice)
    batch = folder.tokenizer.encode_pairs(SAMPLE_TEXTS[:-1], SAMPLE_TEXTS[1:])
    if not folder.token_types:
        batch = replace(batch, token_type_ids=None)
    batches = sample_batches(batch)
    return lambda: np.concatenate([scorer.pooled(each) for each in batches])
