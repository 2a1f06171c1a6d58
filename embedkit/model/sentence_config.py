"""The shape of what stands on an encoder: pooling and the layers after it, or a classification head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from embedkit.model.learned_parts import AttentionPoolingConfig, SimilarityConfig

PoolingMode = Literal["mean", "cls", "max", "last", "weighted_mean", "mean_sqrt_len"]
UsualActivation = Literal["identity", "tanh", "relu", "gelu", "silu", "sigmoid", "elu", "leaky_relu"]
RareActivation = Literal[
    "mish", "softplus", "selu", "relu6", "softsign", "log_sigmoid", "hardtanh", "hardsigmoid", "hardswish"
]
DenseActivation = Literal[UsualActivation, RareActivation]
HeadPooling = Literal["cls", "mean", "last"]
HeadActivation = Literal["tanh", "gelu", "gelu_tanh", "relu", "silu"]


@dataclass(frozen=True, kw_only=True)
class DenseConfig:
    """One linear layer after pooling; with `residual` what it takes is added to what it gives, by a matrix where their lengths differ."""

    in_features: int
    out_features: int
    bias: bool = True
    activation: DenseActivation = "tanh"
    residual: bool = False

    @property
    def projects_residual(self) -> bool:
        """Say whether the residual goes through a matrix of its own."""
        return self.residual and self.in_features != self.out_features


@dataclass(frozen=True, kw_only=True)
class LayerNormConfig:
    """A layer norm after pooling."""

    size: int
    eps: float = 1e-5  # as torch.nn.LayerNorm has it

    @property
    def in_features(self) -> int:
        return self.size

    @property
    def out_features(self) -> int:
        return self.size


HeadLayer = DenseConfig | LayerNormConfig


@dataclass(frozen=True, kw_only=True)
class SentenceConfig:
    """How token vectors become a sentence vector; several pooling modes are concatenated in their order.

    `attention` is pooling by attention, which stands in place of all modes: `pooling` is then empty. `dense` are the layers that
    follow, dense ones and layer norms. `pool_prompt` False leaves the first special token and the prompt's tokens out of the pooling.
    With `layer_start` token vectors are the weighted mean of what the layers from that one on give, counted from 0, the embeddings;
    None takes the last layer's. `similarity` compares vectors by more than a product.
    """

    pooling: tuple[PoolingMode, ...] = ("mean",)
    pool_prompt: bool = True
    dense: tuple[HeadLayer, ...] = ()
    normalize: bool = False
    attention: AttentionPoolingConfig | None = None
    layer_start: int | None = None
    similarity: SimilarityConfig | None = None

    def __post_init__(self) -> None:
        if any(mode not in get_args(PoolingMode) for mode in self.pooling) or (
            not self.pooling and self.attention is None
        ):
            raise ValueError(
                f"pooling is {self.pooling}; it must name some of {', '.join(get_args(PoolingMode))}"
            )
        if self.pooling and self.attention is not None:
            raise ValueError(
                f"pooling is {self.pooling} beside attention; pooling by attention stands alone, with pooling ()"
            )
        if self.layer_start is not None and self.layer_start < 0:
            raise ValueError(f"layer_start is {self.layer_start}; it must be at least 0")
        if self.similarity is not None and not self.normalize:
            raise ValueError(f"a {self.similarity.kind} similarity compares unit vectors; set normalize")

    @property
    def described_pooling(self) -> str:
        """Name the pooling in a word or two."""
        parts = "+".join(self.pooling)
        if self.attention is not None:
            each = self.attention
            parts = f"attention ({each.aspects} aspects of {each.size}, {each.combine})"
        return parts if self.layer_start is None else f"{parts} of layers {self.layer_start} to last"

    def pooled_size(self, hidden_size: int) -> int:
        """Return P, the length of a pooled vector, before the layers that follow."""
        if self.attention is not None:
            return self.attention.pooled_size(hidden_size)
        return hidden_size * len(self.pooling)

    def embedding_size(self, hidden_size: int) -> int:
        """Return E, the length of a sentence vector, for an encoder of `hidden_size`."""
        return self.dense[-1].out_features if self.dense else self.pooled_size(hidden_size)


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """The shape of a classification head: pool, dense, activation, norm, then one number a label.

    Without `dense` the labels' numbers are a product of the pooled vector alone; `out_bias` adds one number to each. `norm_bias` and
    `norm_eps` None are the encoder's.

    | family | pieces |
    |---|---|
    | BERT, RoBERTa, XLM-R, CamemBERT, MPNet, ALBERT | first token, tanh |
    | DistilBERT | first token, relu |
    | ELECTRA, DeBERTa | first token, gelu |
    | NomicBERT, GTE | first token, tanh |
    | EuroBERT | first token or mean, gelu |
    | ModernBERT | first token or mean, gelu, no bias, norm |
    | Qwen2, Qwen3, Llama, Mistral, Gemma 3, GPT-2 | last token, no dense layer, no bias |

    Raises:
        ValueError: a field is out of range.
    """

    num_labels: int = 1
    pooling: HeadPooling = "cls"
    activation: HeadActivation = "tanh"
    bias: bool = True
    norm: bool = False
    dropout: float = 0.1
    dense: bool = True
    out_bias: bool = True
    norm_bias: bool | None = None
    norm_eps: float | None = None

    def __post_init__(self) -> None:
        if self.num_labels < 1:
            raise ValueError(f"num_labels is {self.num_labels}; it must be at least 1")
        if self.pooling not in get_args(HeadPooling):
            raise ValueError(
                f"classifier_pooling is {self.pooling!r}; it must be one of {', '.join(get_args(HeadPooling))}"
            )
