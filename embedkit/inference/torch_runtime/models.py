"""The kinds of models that torch runs: sentence encoders, cross-encoders, masked language models and learned sparse ones."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from embedkit.checkpoint.classification import ClassifierFolder
from embedkit.checkpoint.classification_weights import load_classifier
from embedkit.checkpoint.pretraining import load_pretraining
from embedkit.checkpoint.sentence_folder import load_model
from embedkit.inference.backend import AnyFolder, Output
from embedkit.inference.numpy_runtime.scoring_head import ScoringHead
from embedkit.inference.torch_runtime.backend import DTYPES, TorchBackend, rows
from embedkit.inference.torch_runtime.terms import load_terms
from embedkit.model.classification import SequenceClassifier
from embedkit.model.pretraining import PretrainingModel
from embedkit.model.sentence import SentenceEncoder
from embedkit.model.static import StaticEncoder
from embedkit.tokenization.batch import TokenBatch
from embedkit.types import DeviceType, Float32, Precision


class TorchSentence(TorchBackend):
    """A sentence encoder of either kind; the weights are cast once, sums of the pooling stay in fp32."""

    def __init__(
        self, model: SentenceEncoder | StaticEncoder, *, device: torch.device, precision: Precision
    ) -> None:
        self.model: SentenceEncoder | StaticEncoder = model.to(device=device, dtype=DTYPES[precision]).eval()
        encoder = self.model.encoder if isinstance(self.model, SentenceEncoder) else None
        super().__init__(encoder, device=device, precision=precision)

    @torch.inference_mode()
    def pooled(self, batch: TokenBatch, *, skip: int = 0) -> Float32:
        return rows(self.model.forward_packed(*self._tokens(batch), skip=skip), len(batch))


class TorchClassifier(TorchBackend):
    """A cross-encoder, whose transformer is cast once; its head is numpy's, as with every runtime."""

    def __init__(self, model: SequenceClassifier, *, device: torch.device, precision: Precision) -> None:
        weights = {name: weight.cpu().numpy() for name, weight in model.head.state_dict().items()}
        self.head = ScoringHead(model.encoder.config, model.config, weights)
        self.model = model.to(device=device).eval()
        super().__init__(model.encoder.to(dtype=DTYPES[precision]), device=device, precision=precision)

    def pooled(self, batch: TokenBatch, *, skip: int = 0) -> Float32:
        if skip:
            raise ValueError(f"skip is {skip}; a cross-encoder's head reads whole sequences")
        return self._pooled(batch, None)

    def class_logits(self, batch: TokenBatch, *, layers: int | None = None) -> Float32:
        return self.head(self._pooled(batch, layers))

    def _pooled(self, batch: TokenBatch, layers: int | None) -> Float32:
        return rows(self.model.pooled(*self._tokens(batch), layers=layers), len(batch))


class TorchMaskedLM(TorchBackend):
    """An encoder with its masked-language-model head, cast once."""

    def __init__(self, model: PretrainingModel, *, device: torch.device, precision: Precision) -> None:
        self.model = model.to(device=device, dtype=DTYPES[precision]).eval()
        super().__init__(model.encoder, device=device, precision=precision)

    @torch.inference_mode()
    def mlm_logits(self, batch: TokenBatch, places: NDArray[np.int64]) -> Float32:
        ids, lengths, types = self._tokens(batch)
        logits, _ = self.model(ids, lengths, torch.from_numpy(places).to(self.device), types)
        return rows(logits, len(places))


def load_torch(
    folder: AnyFolder, *, output: Output, device: DeviceType, precision: Precision
) -> TorchBackend:
    """Load a folder's weights onto a device that is there, with what gives the output.

    Raises:
        CheckpointError: the weights do not fit the folder's config, or there is no masked-language-model head.
    """
    place = torch.device(device)
    if isinstance(folder, ClassifierFolder):
        return TorchClassifier(load_classifier(folder), device=place, precision=precision)
    if output == "term_weights":
        return load_terms(folder, device=device, precision=precision)
    if output == "mlm_logits":
        model, _ = load_pretraining(folder, fresh_heads=False)
        return TorchMaskedLM(model, device=place, precision=precision)
    return TorchSentence(load_model(folder), device=place, precision=precision)
