"""A BERT of embedkit's, computed over sequences without padding by flash attention, and parts of it compiled."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from data import CUDA, DEVICE, Numbers, Packed, Texts, mixed_precision, pack_texts
from torch import Tensor, nn

from embedkit.checkpoint.folder import ModelFolder
from embedkit.checkpoint.st_modules import SentenceModules
from embedkit.checkpoint.weights import load_sentence_encoder, save_sentence_encoder
from embedkit.model.config import DenseConfig, EncoderConfig, SentenceConfig
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.layers import EncoderLayer
from embedkit.model.sentence import SentenceEncoder
from embedkit.tokenization.tokenizer import Tokenizer
from embedkit.training.distillation.student import last_linear

MAX_TOKENS = 512


def attend(query: Tensor, key: Tensor, value: Tensor, packed: Packed) -> Tensor:
    """Attend within each sequence: (T, H, D/H) three times -> the same.

    Source: Dao et al. 2022, FlashAttention, https://arxiv.org/abs/2205.14135, for sequences of different lengths.
    """
    if CUDA:
        from torch.nn.attention.varlen import varlen_attn

        out: Tensor = varlen_attn(query, key, value, packed.ends, packed.ends, packed.longest, packed.longest)
        return out
    parts = []
    ends = packed.ends.tolist()
    for start, end in pairwise(ends):
        one = (each[start:end].transpose(0, 1) for each in (query, key, value))  # (H, T', D/H)
        parts.append(F.scaled_dot_product_attention(*one).transpose(0, 1))
    return torch.cat(parts)


def after_attention(layer: EncoderLayer, hidden: Tensor, attended: Tensor) -> Tensor:
    hidden = layer.attention_norm(hidden + layer.attention.out(attended))
    out: Tensor = layer.mlp_norm(hidden + layer.mlp(hidden))
    return out


class _AfterAttention(Protocol):
    def __call__(self, layer: EncoderLayer, hidden: Tensor, attended: Tensor) -> Tensor: ...


@cache
def compiled_after_attention() -> _AfterAttention:
    import torch._dynamo

    torch._dynamo.config.cache_size_limit = 64  # a layer each, of several models
    return torch.compile(after_attention, dynamic=False)


def run_layers(encoder: TransformerEncoder, packed: Packed, *, compiled: bool) -> Tensor:
    """Compute the vectors of all tokens: (T, D)."""
    hidden = encoder.embeddings(packed.ids, packed.positions, packed.types)
    rest = compiled_after_attention() if compiled else after_attention
    for number in range(encoder.config.num_hidden_layers):
        layer = encoder.layer(number)
        heads = layer.attention.qkv(hidden).view(len(hidden), 3, encoder.config.num_attention_heads, -1)
        attended = attend(*heads.unbind(1), packed)  # (T, H, D/H)
        hidden = rest(layer, hidden, attended.reshape(hidden.shape))
    return hidden


class Student(nn.Module):
    """A sentence encoder to train, with a square last layer; `rows` (V,) says which row of the table a token takes, None: its own.

    `size` is how many tokens a training step is filled to, and that part of it is compiled; 0: neither.
    """

    rows: Tensor | None

    def __init__(self, model: SentenceEncoder, *, rows: Tensor | None = None, size: int = 0) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("rows", rows)
        self.size = size

    @property
    def width(self) -> int:
        return self.model.encoder.config.hidden_size

    @property
    def turn(self) -> nn.Linear:
        """The last layer: (D, D), without a bias."""
        return last_linear(self.model)

    def vectors(self, texts: Texts, numbers: Numbers) -> Tensor:
        """Compute unit vectors of some texts: (B, D), in fp32."""
        size = self.size if self.training else 0
        cap = min(MAX_TOKENS, self.model.encoder.config.max_tokens) - 2
        packed = pack_texts(texts, numbers, cap=cap).filled(size, texts.special.pad)
        if self.rows is not None:
            packed = replace(packed, ids=self.rows[packed.ids])
        hidden = run_layers(self.model.encoder, packed, compiled=size > 0)
        sums = torch.zeros(len(numbers) + 1, self.width, device=DEVICE)  # the last row takes what only fills
        means = sums.index_add(0, packed.sequence, hidden.float())[:-1] / packed.lens[:, None]
        with torch.autocast(DEVICE.type, enabled=False):
            return F.normalize(self.turn(means), dim=1)


def fresh_model(config: EncoderConfig) -> SentenceEncoder:
    """Make a sentence encoder that pools by the mean and ends in a square layer, an identity for now."""
    size = config.hidden_size
    dense = DenseConfig(in_features=size, out_features=size, bias=False, activation="identity")
    model = SentenceEncoder(TransformerEncoder(config), SentenceConfig(dense=(dense,), normalize=True))
    with torch.no_grad():
        last_linear(model).weight.copy_(torch.eye(size))
    return model


def load_start(folder: ModelFolder) -> Student:
    """Take the encoder of a folder, without dropout, with an identity behind it."""
    config = replace(folder.config, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    loaded = load_sentence_encoder(replace(folder, config=config))
    model = fresh_model(config)
    model.encoder.load_state_dict(loaded.encoder.state_dict())
    return Student(model).to(DEVICE).eval()


def load_trained(folder: ModelFolder) -> Student:
    """Load what `save_student` wrote."""
    return Student(load_sentence_encoder(folder)).to(DEVICE).eval()


def save_student(target: Path, student: Student, tokenizer: Tokenizer) -> None:
    """Write a sentence-transformers folder, in fp32."""
    limit = min(MAX_TOKENS, student.model.encoder.config.max_tokens)
    modules = SentenceModules(sentence=student.model.config, max_seq_length=limit)
    save_sentence_encoder(
        target, student.model.cpu(), tokenizer.with_max_length(limit), modules, family="bert"
    )
    student.to(DEVICE)


@torch.no_grad()
def embed(student: Student, texts: Texts, numbers: Numbers, tokens: int) -> Tensor:
    """Compute the vectors of some texts, in batches of `tokens` tokens of texts of like length: (N,) -> (N, D)."""
    order = texts.lens[numbers].argsort(kind="stable")
    sizes = texts.lens[numbers[order]] + 2
    out = torch.empty(len(numbers), student.width, device=DEVICE)
    start = 0
    while start < len(order):
        count = max(1, int(sizes[start : start + 8192].cumsum().searchsorted(tokens, "right")))
        part = order[start : start + count]
        with mixed_precision():
            out[torch.from_numpy(part).to(DEVICE)] = student.vectors(texts, numbers[part])
        start += count
    return out
