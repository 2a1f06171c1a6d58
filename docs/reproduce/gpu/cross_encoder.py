"""A cross-encoder over sequences without padding: query and text in, one score out."""

from __future__ import annotations

from pathlib import Path

from data import Numbers, Texts, pack_pairs
from model import run_layers
from torch import Tensor, nn

from embedkit.checkpoint.classification_weights import save_classifier
from embedkit.checkpoint.folder import ModelFolder
from embedkit.model.classification import SequenceClassifier
from embedkit.model.config import HeadConfig
from embedkit.model.encoder import TransformerEncoder


class CrossStudent(nn.Module):
    """An encoder with a fresh head: tanh layer and one number over [CLS]; `size` as `Student`'s.

    Source: Nogueira and Cho 2019, https://arxiv.org/abs/1901.04085, section 3.
    """

    def __init__(self, encoder: TransformerEncoder, *, size: int = 0) -> None:
        super().__init__()
        self.model = SequenceClassifier(encoder, HeadConfig(num_labels=1, dropout=0.0))
        self.size = size

    def scores(self, texts: Texts, queries: Numbers, documents: Numbers, *, cap: int) -> Tensor:
        """Score pairs of text numbers, (n,) each, cut to `cap` tokens: (n,) logits in fp32."""
        size = self.size if self.training else 0
        packed = pack_pairs(texts, queries, documents, cap=cap).filled(size, texts.special.pad)
        hidden = run_layers(self.model.encoder, packed, compiled=size > 0)
        first = hidden[packed.ends[: len(queries)]]  # (n, D): [CLS]
        return self.model.head(first).squeeze(1).float()


def save_cross(target: Path, student: CrossStudent, folder: ModelFolder) -> None:
    save_classifier(target, student.model.cpu(), folder.tokenizer, family=folder.family)
