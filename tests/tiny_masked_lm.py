"""Tiny random masked language models for tests, built by our own code from nothing."""

from __future__ import annotations

from pathlib import Path

import torch

from embedkit.checkpoint.pretraining import write_pretraining
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.heads import MaskedLMHead
from embedkit.model.pretraining import PretrainingModel
from tests.tiny import tiny_config, tiny_tokenizer


def write_tiny_masked_lm(folder: Path, *, seed: int = 0) -> Path:
    """Write a random two-layer masked language model; the same seed gives the same weights."""
    torch.manual_seed(seed)
    config = tiny_config()
    model = PretrainingModel(TransformerEncoder(config), MaskedLMHead(config))
    with torch.no_grad():  # fresh biases are 0, which would hide a mix-up
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    folder.mkdir()
    write_pretraining(folder, model.eval(), tiny_tokenizer(), "bert")
    return folder
