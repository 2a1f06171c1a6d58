"""The shape of a decoder: what a text generator writes with, over an encoder's token vectors or alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from embedkit.model.config import Activation, EncoderConfig, Norm

DecoderPosition = Literal["learned", "sinusoidal", "none"]


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Everything that decides the parameters of a `Decoder` and how it computes.

    Fields carry Hugging Face's names where it has one. `encoder_size` is the width of the token vectors that cross-attention
    reads; None means that there is no cross-attention: a language model. With `share_embeddings` the token table is the
    encoder's; with `tie_word_embeddings` it is the output layer too (Press and Wolf 2017, https://arxiv.org/abs/1608.05859), and with
    `scale_output` what it reads is divided by the root of its size. `query_pre_attn_scalar` is what scores are divided by the root of;
    None: the size of a head.

    | decoder of | pieces |
    |---|---|
    | Vaswani et al. 2017 | sinusoidal positions, ReLU, norms after each sublayer, cross-attention |
    | BART (Lewis et al. 2020) | learned positions, `embedding_norm`, norms after, cross-attention |
    | GPT-2 (Radford et al. 2019) | learned positions, `norm_first`, gelu_tanh, no cross-attention |
    | T5 (Raffel et al. 2020) | `relative_attention_num_buckets`, `position` none, `norm_first`, `norm` rms, no biases, scores that are not scaled, `scale_output` |

    Raises:
        ValueError: a field is out of range, or two do not fit together.
    """

    vocab_size: int
    hidden_size: int = 256
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    intermediate_size: int = 1024
    hidden_act: Activation = "gelu"
    max_position_embeddings: int = 512
    position: DecoderPosition = "learned"
    layer_norm_eps: float = 1e-5
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    initializer_range: float = 0.02
    norm_first: bool = True
    embedding_norm: bool = False
    encoder_size: int | None = None
    share_embeddings: bool = False
    tie_word_embeddings: bool = True
    output_bias: bool = False
    scale_output: bool = False
    norm: Norm = "layer"
    attention_bias: bool = True
    mlp_bias: bool = True
    gated_mlp: bool = False
    head_dim: int | None = None
    query_pre_attn_scalar: float | None = None
    relative_attention_num_buckets: int = 0
    relative_attention_max_distance: int = 128

    def __post_init__(self) -> None:
        self.pieces()  # checks the sizes
        if self.position not in get_args(DecoderPosition):
            raise ValueError(
                f"position is {self.position!r}; it must be one of {', '.join(get_args(DecoderPosition))}"
            )
        if self.encoder_size is not None and self.encoder_size < 1:
            raise ValueError(f"encoder_size is {self.encoder_size}; it must be at least 1")
        if self.share_embeddings and self.encoder_size is None:
            raise ValueError(
                "share_embeddings is true; a language model has no encoder to share a table with"
            )

    @property
    def head_size(self) -> int:
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def attention_size(self) -> int:
        """The width of all heads together."""
        return self.num_attention_heads * self.head_size

    @property
    def attention_scale(self) -> float:
        return 1 / math.sqrt(self.query_pre_attn_scalar or self.head_size)

    def pieces(self) -> EncoderConfig:
        """Return the sizes as an encoder's, for the pieces that both have: feed-forward layers and norms."""
        return EncoderConfig(
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            intermediate_size=self.intermediate_size,
            hidden_act=self.hidden_act,
            max_position_embeddings=self.max_position_embeddings,
            layer_norm_eps=self.layer_norm_eps,
            norm=self.norm,
            attention_bias=self.attention_bias,
            mlp_bias=self.mlp_bias,
            gated_mlp=self.gated_mlp,
            head_dim=self.head_dim,
            query_pre_attn_scalar=self.query_pre_attn_scalar,
            relative_attention_num_buckets=self.relative_attention_num_buckets,
            relative_attention_max_distance=self.relative_attention_max_distance,
        )
