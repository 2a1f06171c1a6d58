"""Tiny random masked language models for tests, built by our own code from nothing."""

from __future__ import annotations

from pathlib import Path

import torch

from embedkit.checkpoint.names import Family
from embedkit.checkpoint.pretraining import write_pretraining
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.heads import MaskedLMHead
from embedkit.model.pretraining import PretrainingModel
from tests.tiny import FAMILY_SHAPES, tiny_config, tiny_tokenizer


def write_tiny_masked_lm(folder: Path, *, seed: int = 0, family: Family = "bert", **fields: object) -> Path:
    """Write a random masked language model of few layers; the same seed gives the same weights, `fields` another shape."""
    torch.manual_seed(seed)
    config = tiny_config(**FAMILY_SHAPES[family] | fields)
    model = PretrainingModel(TransformerEncoder(config), MaskedLMHead(config))
    with torch.no_grad():  # fresh biases are 0, which would hide a mix-up
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    folder.mkdir()
    write_pretraining(folder, model.eval(), tiny_tokenizer(), family)
    return folder
