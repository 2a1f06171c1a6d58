"""Running a cross-encoder's transformer with torch, on packed tokens."""

from __future__ import annotations

import torch

from embedkit.checkpoint.classification import ClassifierFolder
from embedkit.checkpoint.classification_weights import load_classifier
from embedkit.inference.torch_runtime.backend import CPU_ROWS_MULTIPLE, DTYPES, batch_tensors, fill_up
from embedkit.model.classification import SequenceClassifier
from embedkit.tokenization.batch import TokenBatch
from embedkit.types import DeviceType, Float32, Precision


class TorchScorer:
    """A `Scorer` over a `SequenceClassifier`, whose encoder is cast once."""

    def __init__(self, model: SequenceClassifier, *, device: torch.device, precision: Precision) -> None:
        self.model = model.to(device=device).eval()
        self.model.encoder.to(dtype=DTYPES[precision])
        self.device = device

    @classmethod
    def load(cls, folder: ClassifierFolder, *, device: DeviceType, precision: Precision) -> TorchScorer:
        """Load a folder's weights onto a device that is there.

        Raises:
            CheckpointError: the weights do not fit the folder's config.
        """
        return cls(load_classifier(folder), device=torch.device(device), precision=precision)

    def pooled(self, batch: TokenBatch, *, layers: int | None = None) -> Float32:
        size = len(batch)
        if self.device.type == "cpu":
            batch = fill_up(batch, min(CPU_ROWS_MULTIPLE, self.model.encoder.config.max_tokens))
        ids, types = batch_tensors(batch, self.device)
        pooled = self.model.pooled(ids, batch.lengths.tolist(), types, layers=layers)
        result: Float32 = pooled[:size].float().cpu().numpy()
        return result
