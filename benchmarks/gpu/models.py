"""Random models: a tiny one of every family for the checks, well-known shapes for the measurements."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from embedkit.checkpoint.names import FAMILIES as FAMILIES
from embedkit.checkpoint.names import Family
from embedkit.checkpoint.sentence_folder import write_model
from embedkit.checkpoint.st_modules import SentenceModules
from embedkit.checkpoint.static import without_template
from embedkit.inference.sample import SAMPLE_TEXTS
from embedkit.model.config import EncoderConfig, SentenceConfig
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.sentence import SentenceEncoder
from embedkit.model.static import StaticEncoder
from embedkit.tokenization.batch import TokenBatch
from tests.tiny import FAMILY_SHAPES, WORDS, tiny_config, tiny_tokenizer

MAX_LENGTH = 128  # of the tiny models
# Heads of 16: some attention kernels need a multiple of 8.
TINY = {"hidden_size": 64, "intermediate_size": 128, "max_position_embeddings": MAX_LENGTH + 2}
# With the usual 0.02, attention would be nearly uniform and the layers nearly linear.
SPREAD = 0.1
# 3 to 128 tokens: the tiny tokenizer knows few words and spells the others out.
TEXTS = [*SAMPLE_TEXTS, *(" ".join(WORDS[start : start + start % 17 + 1]) for start in range(40))]

SHAPES = {
    "MiniLM-L6": EncoderConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    ),
    "BERT base": EncoderConfig(),
    "BERT large": EncoderConfig(
        hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096
    ),
    "ModernBERT base": EncoderConfig(
        vocab_size=50_368,
        num_hidden_layers=22,
        intermediate_size=1152,
        max_position_embeddings=8192,
        type_vocab_size=0,
        position="rope",
        norm_first=True,
        gated_mlp=True,
        norm_bias=False,
        attention_bias=False,
        mlp_bias=False,
        local_attention=128,
        global_attn_every_n_layers=3,
    ),
}


def family_config(family: Family, **fields: object) -> EncoderConfig:
    """Return the shape of a tiny encoder of a family, with BERT's dropout."""
    return tiny_config(**(TINY | {"initializer_range": SPREAD} | FAMILY_SHAPES[family] | fields))


@torch.no_grad()
def shake(module: torch.nn.Module, seed: int) -> None:
    """Move biases and norms away from 0 and 1, which would hide a mix-up."""
    torch.manual_seed(seed)
    for parameter in module.parameters():
        if parameter.ndim == 1:
            parameter.add_(torch.randn_like(parameter) * 0.1)


def random_encoder(config: EncoderConfig, *, seed: int = 0) -> TransformerEncoder:
    torch.manual_seed(seed)
    encoder = TransformerEncoder(config)
    shake(encoder, seed + 1)
    return encoder


@cache
def sentence_folder(
    place: Path, family: Family, *, name: str = "", sentence: SentenceConfig | None = None, prompt: str = ""
) -> Path:
    """Write a tiny sentence encoder of a family, once."""
    folder = place / f"sentence-{family}{name}"
    sentence = sentence or SentenceConfig(normalize=True)
    model = SentenceEncoder(random_encoder(family_config(family)), sentence)
    shake(model.dense, 2)
    prompts = {"query": prompt} if prompt else {}
    modules = SentenceModules(sentence=sentence, max_seq_length=MAX_LENGTH, prompts=prompts)
    write_model(folder, model, tiny_tokenizer(max_length=MAX_LENGTH), modules, family=family)
    return folder


@cache
def static_folder(place: Path) -> Path:
    """Write a static model, once."""
    folder, tokenizer = place / "static", without_template(tiny_tokenizer())
    torch.manual_seed(0)
    modules = SentenceModules(sentence=SentenceConfig(normalize=True))
    write_model(folder, StaticEncoder(tokenizer.vocab_size, 64), tokenizer, modules, family=None)
    return folder


def random_batch(lengths: NDArray[np.int64], vocab_size: int, *, seed: int = 0) -> TokenBatch:
    ids = np.random.default_rng(seed).integers(5, vocab_size, int(lengths.sum()))
    return TokenBatch(ids, lengths)
