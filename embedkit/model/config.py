"""The shape of an encoder and of what stands on it: which pieces there are and how large they are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from embedkit.model.attention_config import DisentangledConfig, check_form, check_heads
from embedkit.model.rope_config import RopeScalingConfig
from embedkit.model.routing_config import ExpertsConfig, RecursionConfig
from embedkit.model.sentence_config import (
    DenseActivation,
    DenseConfig,
    HeadActivation,
    HeadConfig,
    HeadLayer,
    HeadPooling,
    LayerNormConfig,
    PoolingMode,
    SentenceConfig,
)

__all__ = [
    "Activation",
    "Attention",
    "DenseActivation",
    "DenseConfig",
    "EncoderConfig",
    "HeadActivation",
    "HeadConfig",
    "HeadLayer",
    "HeadPooling",
    "LayerNormConfig",
    "Norm",
    "PoolingMode",
    "Position",
    "SentenceConfig",
]

Activation = Literal["gelu", "gelu_tanh", "relu", "silu"]
Norm = Literal["layer", "rms", "rms_offset"]
Position = Literal["learned", "sinusoidal", "rope", "relative", "alibi", "none"]
Attention = Literal["dot", "additive", "bilinear", "low_rank", "random_features"]


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Everything that decides the parameters of a `TransformerEncoder` and how it computes.

    The defaults are BERT base (Devlin et al. 2019, https://arxiv.org/abs/1810.04805). Fields carry Hugging Face's
    names where it has one. The pieces that tell the families apart:

    | family | pieces |
    |---|---|
    | BERT | learned positions, token types, layer norm after each sublayer |
    | RoBERTa, XLM-R, CamemBERT | the same with `position_offset` = padding id + 1 |
    | DistilBERT | the same without token types |
    | MPNet | position offset and `relative_attention_num_buckets` (Song et al. 2020) |
    | ALBERT | `embedding_size` < `hidden_size`, `num_hidden_groups` < `num_hidden_layers` (Lan et al. 2020) |
    | ELECTRA | BERT's, with ALBERT's narrow `embedding_size` where that is another than `hidden_size` (Clark et al. 2020) |
    | DeBERTa v2, v3 | `disentangled` attention, `position` none, no token types (He et al. 2021) |
    | ModernBERT | `position` rope, `gated_mlp`, `norm_first`, `local_attention` in all but every n-th layer (Warner et al. 2024) |
    | Jina v2 | BERT's with `position` alibi and `gated_mlp`, with a bias behind the gate alone, `mlp_out_bias` (Günther et al. 2023) |
    | Jina v2 for code | the same, the gate in the second half, `qk_norm` with `qk_norm_over_heads`, and `second_attention_norm` |
    | NomicBERT | BERT's with `position` rope and `gated_mlp` (Nussbaum et al. 2024) |
    | GTE | the same, with a bias behind the gate alone (`mlp_out_bias`), and the gate in the second half (Zhang et al. 2024) |
    | Jina v3 | BERT's with `position` rope (Sturua et al. 2024) |
    | EuroBERT | `position` rope, `gated_mlp`, `norm_first`, `norm` rms, `num_key_value_heads`, no `embedding_norm` (Boizard et al. 2025) |
    | T5, mT5 | `relative_attention_num_buckets`, `position` none, `norm_first`, `norm` rms, scores that are not scaled (Raffel et al. 2020) |
    | Qwen3 | EuroBERT's, `causal`, with norms of queries and keys, `qk_norm` (Zhang et al. 2025) |
    | Gemma 3 | Qwen3's, `norm` rms_offset, `post_norm`, `scale_embeddings`, `local_attention` (Gemma Team 2025) |
    | GPT-2 | learned positions, `norm_first`, `causal`, no `embedding_norm` (Radford et al. 2019) |
    | Llama | EuroBERT's, `causal` (Touvron et al. 2023) |
    | Mistral | the same, with `local_attention` in every layer (Jiang et al. 2023) |
    | Qwen2 | Llama's, with biases of queries, keys and values, and none behind attention, `attention_out_bias` (Yang et al. 2024) |
    | embedkit's own | any of these; `experts`, a mixture of experts; `recursion`, layers that are run several times |

    With `position` alibi the scores of a head fall with the distance of two tokens, in a straight line and to both sides (Press et al. 2022,
    https://arxiv.org/abs/2108.12409). `num_hidden_layers` counts layers as often as they are run. `norm` is a layer norm (Ba et al. 2016), or divides by the root mean square
    alone (Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467, eq. 4), where rms_offset multiplies by 1 + weight. `post_norm`
    has a norm behind each sublayer besides the one before it. With `qk_norm_over_heads` queries and keys are normed over all heads together, else
    each head by itself. With `second_attention_norm` what the norm behind attention gives is added to the layer's input and normed once more. Queries share keys and values where there are fewer
    `num_key_value_heads` than heads (Ainslie et al. 2023, https://arxiv.org/abs/2305.13245). Scores are divided by the root of
    `query_pre_attn_scalar`, else of the head size. Layer i is global where i mod `global_attn_every_n_layers` is `global_attn_offset`. Positions
    are divided by `rope_factor` in global layers, or scaled there as `rope_scaling` says. With `gate_second` the activation is of the second half of what `mlp.up` gives.

    And those that no family has, which are computed by torch alone (docs/variants.md):

    | variant | pieces |
    |---|---|
    | relative positions | `position` relative: a vector for each distance up to `max_relative_position` (Shaw et al. 2018) |
    | additive scores | `attention` additive: v·tanh(q + k) (Bahdanau et al. 2015) |
    | bilinear scores | `attention` bilinear: qWk (Luong et al. 2015, "general") |
    | low-rank keys and values | `attention` low_rank: `attention_rank` mixtures of all tokens (Wang et al. 2020) |
    | random features | `attention` random_features: `attention_features` of them (Choromanski et al. 2021) |

    Raises:
        ValueError: a field is out of range, or two do not fit together.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: Activation = "gelu"
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    pad_token_id: int = 0
    layer_norm_eps: float = 1e-12
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    initializer_range: float = 0.02
    position: Position = "learned"
    position_offset: int = 0
    relative_attention_num_buckets: int = 0
    embedding_size: int | None = None
    num_hidden_groups: int | None = None
    norm_first: bool = False
    norm_bias: bool = True
    attention_bias: bool = True
    mlp_bias: bool = True
    gated_mlp: bool = False
    local_attention: int = 0
    global_attn_every_n_layers: int = 1
    global_rope_theta: float = 160_000.0
    local_rope_theta: float = 10_000.0
    max_relative_position: int = 16
    attention: Attention = "dot"
    attention_rank: int = 32
    attention_features: int = 64
    experts: ExpertsConfig | None = None
    recursion: RecursionConfig | None = None
    norm: Norm = "layer"
    embedding_norm: bool = True
    post_norm: bool = False
    scale_embeddings: bool = False
    head_dim: int | None = None
    num_key_value_heads: int | None = None
    qk_norm: bool = False
    causal: bool = False
    query_pre_attn_scalar: float | None = None
    disentangled: DisentangledConfig | None = None
    relative_attention_max_distance: int = 128
    global_attn_offset: int = 0
    rope_factor: float = 1.0
    mlp_out_bias: bool | None = None
    gate_second: bool = False
    attention_out_bias: bool | None = None
    rope_scaling: RopeScalingConfig | None = None
    qk_norm_over_heads: bool = False
    second_attention_norm: bool = False

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        counts = ("max_relative_position", "attention_rank", "attention_features")
        for name in (*sizes, "max_position_embeddings", "global_attn_every_n_layers", *counts):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.local_attention < 0:
            raise ValueError(
                f"local_attention is {self.local_attention}; it must be at least 0, which is none"
            )
        check_heads(self.hidden_size, self.num_attention_heads, self.head_dim, self.num_key_value_heads)
        if self.position == "rope" and self.head_size % 2:
            raise ValueError(f"rotary positions need an even head size; it is {self.head_size}")
        if self.hidden_act not in get_args(Activation):
            raise ValueError(
                f"hidden_act is {self.hidden_act!r}; it must be one of {', '.join(get_args(Activation))}"
            )
        if self.position not in get_args(Position):
            raise ValueError(
                f"position is {self.position!r}; it must be one of {', '.join(get_args(Position))}"
            )
        if self.rope_scaling is not None and (self.position != "rope" or self.rope_factor != 1):
            raise ValueError("rope_scaling goes with position 'rope' and rope_factor 1 alone")
        if self.rope_scaling is not None and (self.global_rope_theta <= 1 or self.head_size <= 2):
            raise ValueError(
                f"rope_scaling needs global_rope_theta above 1 and heads of more than 2; they are {self.global_rope_theta} "
                f"and {self.head_size}"
            )
        if self.norm not in get_args(Norm):
            raise ValueError(f"norm is {self.norm!r}; it must be one of {', '.join(get_args(Norm))}")
        if not 0 <= self.global_attn_offset < self.global_attn_every_n_layers:
            raise ValueError(
                f"global_attn_offset is {self.global_attn_offset}; it must be below global_attn_every_n_layers, "
                f"{self.global_attn_every_n_layers}"
            )
        if self.qk_norm_over_heads and not self.qk_norm:
            raise ValueError("qk_norm_over_heads says how queries and keys are normed; it goes with qk_norm")
        if self.second_attention_norm and self.norm_first:
            raise ValueError(
                "second_attention_norm comes behind a norm after attention; it does not go with norm_first"
            )
        for name in ("rope_factor", "relative_attention_max_distance", "query_pre_attn_scalar"):
            if (getattr(self, name) or 1) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0")
        if self.num_hidden_layers % (self.num_hidden_groups or self.num_hidden_layers):
            raise ValueError(
                f"num_hidden_layers {self.num_hidden_layers} is not a multiple of num_hidden_groups {self.num_hidden_groups}"
            )
        self._check_attention()
        self._check_recursion()
        if self.experts is not None and self.experts.every_n_layers > self.num_distinct_layers:
            raise ValueError(
                f"experts.every_n_layers is {self.experts.every_n_layers}; of {self.num_distinct_layers} layers none would have experts"
            )

    def _check_attention(self) -> None:
        """Refuse pieces that need of attention what its form does not have."""
        if self.attention not in get_args(Attention):
            raise ValueError(
                f"attention is {self.attention!r}; it must be one of {', '.join(get_args(Attention))}"
            )
        needs_scores = {
            "position 'relative'": self.position == "relative",
            "position 'alibi'": self.position == "alibi",
            "local_attention": self.local_attention > 0,
            "relative_attention_num_buckets": self.relative_attention_num_buckets > 0,
            "causal attention": self.causal,
        }
        needs_dot = {
            "disentangled attention": self.disentangled is not None,
            "num_key_value_heads": self.num_key_value_heads not in (None, self.num_attention_heads),
            "query_pre_attn_scalar": self.query_pre_attn_scalar is not None,
        }
        check_form(
            self.attention,
            self.position,
            needs_scores=[name for name, there in needs_scores.items() if there],
            needs_dot=[name for name, there in needs_dot.items() if there],
        )
        if self.attention == "low_rank" and self.attention_rank > self.max_position_embeddings:
            raise ValueError(
                f"attention_rank is {self.attention_rank}; it must be at most max_position_embeddings, "
                f"{self.max_position_embeddings}: more mixtures than tokens save nothing"
            )

    @property
    def has_position_table(self) -> bool:
        """Say whether positions are vectors that are added to the tokens'."""
        return self.position in ("learned", "sinusoidal")

    @property
    def attention_variant(self) -> str:
        """Name the first of `attention_variants`; empty where there is none."""
        return next(iter(self.attention_variants), "")

    @property
    def attention_variants(self) -> list[str]:
        """Name the pieces, of attention or around it, that are neither in numpy nor in graphs; some are in our kernels."""
        if self.attention != "dot":
            return [f"{self.attention.replace('_', '-')} attention"]
        pieces = {
            "relative positions in attention": self.position == "relative",
            "scores that fall with the distance (ALiBi)": self.position == "alibi",
            "disentangled attention": self.disentangled is not None,
            "causal attention": self.causal,
            "fewer key than query heads": self.key_value_heads != self.num_attention_heads,
            "norms of queries and keys": self.qk_norm,
            "an RMS norm": self.norm != "layer",
            "embeddings without a norm, or scaled": self.scale_embeddings or not self.embedding_norm,
            "norms before and after a sublayer": self.post_norm,
            "a second norm behind attention": self.second_attention_norm,
            "heads of another size": self.query_size != self.hidden_size,
            "scores of another scale": self.query_pre_attn_scalar is not None,
            "scaled rotary positions": self.rope_factor != 1 or self.rope_scaling is not None,
            "no positions": self.position == "none",
            "a bias before attention alone": self.attention_out_bias not in (None, self.attention_bias),
            "a gate of its own kind": self.gate_second or self.mlp_out_bias not in (None, self.mlp_bias),
            "global layers that are not the first": self.global_attn_offset > 0,
            "another largest distance": self.relative_attention_max_distance != 128,
        }
        return [name for name, there in pieces.items() if there]

    def _check_recursion(self) -> None:
        if self.recursion is None:
            return
        if self.num_hidden_groups is not None:
            raise ValueError("num_hidden_groups and recursion both share layers; set one of them")
        apart = (
            not self.has_position_table
            or bool(self.relative_attention_num_buckets or self.local_attention or self.causal)
            or self.attention == "low_rank"
        )
        self.recursion.check(
            num_hidden_layers=self.num_hidden_layers,
            max_tokens=self.max_tokens,
            norm_first=self.norm_first,
            apart=apart,
        )

    @property
    def routed(self) -> str | None:
        """Say what routes tokens in this encoder; None where all tokens are computed alike."""
        found = []
        if self.experts is not None:
            found.append(f"{self.experts.num_experts} experts")
        if self.recursion is not None and self.recursion.routed:
            found.append(f"recursion by {self.recursion.routing}")
        return " and ".join(found) or None

    @property
    def why_no_keys(self) -> str | None:
        """Name the piece with which tokens that none attends to cannot be left beside others; None where there is none."""
        if self.routed is not None:
            return self.routed
        if self.disentangled is not None:
            return "disentangled attention"
        if self.scaled_by_length:
            return "rotary positions that are scaled by a text's length"
        return None if self.attention == "dot" else f"{self.attention.replace('_', '-')} attention"

    @property
    def num_distinct_layers(self) -> int:
        """How many layers have weights of their own."""
        if self.recursion is not None:
            return self.num_hidden_layers - self.recursion.num_repeated_layers
        return self.num_hidden_groups or self.num_hidden_layers

    def module_of(self, layer: int) -> int:
        """Return the number, among the distinct ones, of the layer whose weights layer `layer` has."""
        if self.recursion is not None:
            return self.recursion.module_of(layer)
        return layer * self.num_distinct_layers // self.num_hidden_layers

    def has_experts(self, module: int) -> bool:
        """Say whether a distinct layer has experts in its feed-forward part."""
        return self.experts is not None and (module + 1) % self.experts.every_n_layers == 0

    def with_recursions(self, count: int) -> EncoderConfig:
        """Return the shape of the same model run with fewer recursions; its weights are the same.

        Raises:
            ValueError: it has no recursion, or fewer.
        """
        if self.recursion is None:
            raise ValueError(f"recursions is {count}; the model has no layers that recur. Leave it out")
        recursion = self.recursion.fewer(count)
        if recursion is self.recursion:
            return self
        layers = self.num_hidden_layers - self.recursion.num_repeated_layers + recursion.num_repeated_layers
        return replace(self, num_hidden_layers=layers, recursion=recursion)

    @property
    def head_size(self) -> int:
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def key_value_heads(self) -> int:
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def query_size(self) -> int:
        """How many numbers the queries of all heads of a token are."""
        return self.num_attention_heads * self.head_size

    @property
    def qk_norm_sizes(self) -> tuple[int, int]:
        """Over how many numbers queries are normed, and over how many keys, where `qk_norm` says so."""
        if self.qk_norm_over_heads:
            return self.query_size, self.key_value_heads * self.head_size
        return self.head_size, self.head_size

    @property
    def qkv_size(self) -> int:
        """How many numbers a token's queries, keys and values are."""
        return self.query_size + 2 * self.key_value_heads * self.head_size

    @property
    def attention_scale(self) -> float:
        """What the product of a query and a key is multiplied by."""
        scalar = self.query_pre_attn_scalar or self.head_size
        parts = 1 if self.disentangled is None else self.disentangled.num_parts
        return float((scalar * parts) ** -0.5)

    @property
    def out_bias(self) -> bool:
        """Say whether the projection behind attention has a bias."""
        return self.attention_bias if self.attention_out_bias is None else self.attention_out_bias

    @property
    def down_bias(self) -> bool:
        """Say whether the last product of a feed-forward part has a bias, and so that of a masked-language-model head's transform."""
        return self.mlp_bias if self.mlp_out_bias is None else self.mlp_out_bias

    @property
    def of_an_expert(self) -> EncoderConfig:
        """The config by which one expert is shaped: without biases, where all experts share one."""
        shared = self.experts is not None and self.experts.shared_bias
        return replace(self, mlp_bias=False, mlp_out_bias=False) if shared else self

    @property
    def scaled_by_length(self) -> bool:
        """Say whether a token's position depends on how long its sequence is."""
        return self.rope_scaling is not None and self.rope_scaling.kind == "dynamic"

    @property
    def usual_tokens(self) -> int:
        """How many tokens a sequence has at most where nobody asks for more."""
        return self.max_position_embeddings - self.position_offset

    @property
    def max_tokens(self) -> int:
        """How many tokens a sequence may have, special tokens included; scaled positions may reach further than usual."""
        return max(self.usual_tokens, 0 if self.rope_scaling is None else self.rope_scaling.max_tokens)

    def layer_is_local(self, layer: int) -> bool:
        """Say whether the layer attends only within the window of `local_attention` tokens."""
        every = self.global_attn_every_n_layers
        return self.local_attention > 0 and layer % every != self.global_attn_offset
