"""Tiny random cross-encoders for tests, built by our own code from nothing."""

from __future__ import annotations

from pathlib import Path

import torch

from embedkit.checkpoint.classification_heads import default_head
from embedkit.checkpoint.classification_weights import save_classifier
from embedkit.checkpoint.names import Family
from embedkit.model.classification import SequenceClassifier
from embedkit.model.config import DenseActivation, HeadConfig
from embedkit.model.encoder import TransformerEncoder
from tests.tiny import tiny_config, tiny_tokenizer

LONG = "the old man reads a book at the beach and writes a sentence for an index that searches a vector"
QUERY = "the girl plays the piano"
TEXTS = ("a boy sings a song", "horse", LONG, "the dog sleeps in the red water", "")


def tiny_classifier(
    *, seed: int = 0, num_labels: int = 1, family: Family = "bert", **fields: object
) -> SequenceClassifier:
    """A random two-layer cross-encoder in evaluation mode; `fields` change the encoder's shape."""
    torch.manual_seed(seed)
    config, head = tiny_config(**fields), HeadConfig(num_labels=num_labels)
    if family == "modernbert":  # whose head has a norm
        head = default_head(family, config, num_labels)
    model = SequenceClassifier(TransformerEncoder(config), head)
    with torch.no_grad():  # fresh biases are 0, which would hide a mix-up
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def write_tiny_cross_encoder(
    folder: Path,
    *,
    seed: int = 0,
    labels: tuple[str, ...] = ("LABEL_0",),
    activation: DenseActivation = "identity",
    max_length: int = 32,
    family: Family = "bert",
    **fields: object,
) -> Path:
    """Write a random tiny cross-encoder; the same seed gives the same weights. `fields` change the encoder's shape."""
    model = tiny_classifier(seed=seed, num_labels=len(labels), family=family, **fields)
    tokenizer = tiny_tokenizer(max_length=max_length)
    save_classifier(folder, model, tokenizer, family=family, labels=labels, activation=activation)
    return folder
