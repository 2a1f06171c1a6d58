"""Tiny random multi-vector models, and the folders that others would write of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import tokenizers
import torch

from embedkit.checkpoint.hf_config import family_of
from embedkit.checkpoint.multi_vector_modules import MultiVectorModules, QueryExpansion
from embedkit.checkpoint.multi_vector_weights import save_multi_vector
from embedkit.model.config import DenseConfig, EncoderConfig, SentenceConfig
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.sentence import SentenceEncoder
from embedkit.tokenization.tokenizer import Tokenizer
from embedkit.types import Computing
from tests.tiny import tiny_config, tiny_tokenizer

MARKERS = ("[unused0]", "[unused1]")
DIMENSION = 16
EXPANSION = QueryExpansion(length=8)
ON_CPU = Computing(device="cpu", precision="fp32")


def marked_tokenizer(*, special: bool = True, max_length: int = 32) -> Tokenizer:
    """The tiny tokenizer with two markers in its vocabulary, which it makes one token of where they are `special`."""
    tokenizer = tiny_tokenizer(max_length=max_length)
    content = json.loads(tokenizer.backend.to_str())
    for marker in MARKERS:
        content["model"]["vocab"][marker] = len(content["model"]["vocab"])
    backend = tokenizers.Tokenizer.from_str(json.dumps(content))
    if special:
        backend.add_special_tokens(
            [tokenizers.AddedToken(m, special=True, normalized=False) for m in MARKERS]
        )
    return replace(tokenizer, backend=backend)


def tiny_multi_vector_config(**fields: object) -> EncoderConfig:
    """The shape of a tiny encoder that has rows for the markers, and heads that the native kernels compute."""
    size = marked_tokenizer().vocab_size
    return tiny_config(**({"vocab_size": size, "num_attention_heads": 2} | fields))


def write_tiny_multi_vector(
    folder: Path,
    *,
    seed: int = 0,
    config: EncoderConfig | None = None,
    dimension: int = DIMENSION,
    expansion: QueryExpansion | None = EXPANSION,
    **modules: object,
) -> Path:
    """Write a random tiny multi-vector model with markers, query expansion and a skiplist."""
    torch.manual_seed(seed)
    config = config or tiny_multi_vector_config()
    layer = DenseConfig(
        in_features=config.hidden_size, out_features=dimension, bias=False, activation="identity"
    )
    model = SentenceEncoder(TransformerEncoder(config), SentenceConfig(dense=(layer,), normalize=True))
    settings: dict[str, object] = {
        "prompts": {"query": MARKERS[0] + " ", "document": MARKERS[1] + " "},
        "document_length": 20,
        "skiplist": (".", ",", "!"),
    }
    parts = MultiVectorModules(expansion=expansion, **(settings | modules))  # type: ignore[arg-type] # a test names them
    save_multi_vector(folder, model, marked_tokenizer(), parts, family=family_of(config))
    return folder
