"""The shape of an encoder and of what stands on it: which pieces there are and how large they are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from embedkit.model.learned_parts import AttentionPoolingConfig, SimilarityConfig
from embedkit.model.routing_config import ExpertsConfig, RecursionConfig

Activation = Literal["gelu", "gelu_tanh", "relu", "silu"]
Position = Literal["learned", "sinusoidal", "rope", "relative"]
Attention = Literal["dot", "additive", "bilinear", "low_rank", "random_features"]
PoolingMode = Literal["mean", "cls", "max", "last", "weighted_mean", "mean_sqrt_len"]
DenseActivation = Literal["identity", "tanh", "relu", "gelu", "silu", "sigmoid", "elu", "leaky_relu"]
HeadPooling = Literal["cls", "mean"]
HeadActivation = Literal["tanh", "gelu", "gelu_tanh", "relu", "silu"]


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
    | ModernBERT | `position` rope, `gated_mlp`, `norm_first`, `local_attention` in all but every n-th layer (Warner et al. 2024) |
    | embedkit's own | any of these; `experts`, a mixture of experts; `recursion`, layers that are run several times |

    `num_hidden_layers` counts layers as often as they are run.

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
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}"
            )
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
        products = self.attention in ("dot", "bilinear")
        if self.position in ("rope", "relative") and self.attention == "additive":
            raise ValueError(
                f"position {self.position!r} changes the product of query and key, and additive attention has none; "
                "use learned or sinusoidal positions"
            )
        needs_scores = {
            "position 'relative'": self.position == "relative",
            "local_attention": self.local_attention > 0,
            "relative_attention_num_buckets": self.relative_attention_num_buckets > 0,
        }
        named = [name for name, there in needs_scores.items() if there]
        if named and not products and self.attention != "additive":
            raise ValueError(
                f"{named[0]} changes the scores of single keys, and attention {self.attention!r} has none; "
                "use attention 'dot' or 'bilinear'"
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
        """Name the attention that none but torch computes here; empty where it is the usual one."""
        if self.attention != "dot":
            return f"{self.attention.replace('_', '-')} attention"
        return "relative positions in attention" if self.position == "relative" else ""

    def _check_recursion(self) -> None:
        recursion = self.recursion
        if recursion is None:
            return
        if self.num_hidden_groups is not None:
            raise ValueError("num_hidden_groups and recursion both share layers; set one of them")
        if recursion.end > self.num_hidden_layers:
            raise ValueError(
                f"recursion.num_recursions is {recursion.num_recursions}: {recursion.num_first_layers} layers and "
                f"{recursion.num_recursions} × {recursion.num_block_layers} are {recursion.end}; num_hidden_layers is "
                f"{self.num_hidden_layers}, which counts layers as often as they are run. Raise it, or recur less"
            )
        if recursion.num_recursions > self.max_tokens:
            raise ValueError(
                f"recursion.num_recursions is {recursion.num_recursions}; a sequence has at most {self.max_tokens} tokens, "
                "and each recursion takes fewer. Recur less, or raise max_position_embeddings"
            )
        if self.norm_first and not recursion.num_first_layers:
            raise ValueError(
                "recursion.num_first_layers is 0; with norm_first the first layer has one norm less, so it cannot recur. Set 1"
            )
        apart = (
            not self.has_position_table
            or self.relative_attention_num_buckets
            or self.local_attention
            or self.attention == "low_rank"
        )
        if recursion.routed and apart:
            raise ValueError(
                f"recursion.routing is {recursion.routing!r}: attention is among some tokens of a text, whose places and distances are "
                "not known to it. It goes with learned and sinusoidal positions and global attention that is not low-rank; else set "
                "routing to fixed"
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
        trained = self.recursion.num_depths
        if not 1 <= count <= trained:
            raise ValueError(
                f"recursions is {count}; the model was trained with {trained}. Choose from 1 to {trained}"
            )
        if count == self.recursion.num_recursions:
            return self
        fewer = (self.recursion.num_recursions - count) * self.recursion.num_block_layers
        recursion = replace(self.recursion, num_recursions=count, trained_recursions=trained)
        return replace(self, num_hidden_layers=self.num_hidden_layers - fewer, recursion=recursion)

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def max_tokens(self) -> int:
        """How many tokens a sequence may have, special tokens included."""
        return self.max_position_embeddings - self.position_offset

    def layer_is_local(self, layer: int) -> bool:
        """Say whether the layer attends only within the window of `local_attention` tokens."""
        return self.local_attention > 0 and layer % self.global_attn_every_n_layers != 0


@dataclass(frozen=True, kw_only=True)
class DenseConfig:
    """One linear layer after pooling."""

    in_features: int
    out_features: int
    bias: bool = True
    activation: DenseActivation = "tanh"


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

    | family | pieces |
    |---|---|
    | BERT, RoBERTa, XLM-R, CamemBERT, MPNet, ALBERT | first token, tanh |
    | DistilBERT | first token, relu |
    | ModernBERT | first token or mean, gelu, no bias, norm |

    Raises:
        ValueError: a field is out of range.
    """

    num_labels: int = 1
    pooling: HeadPooling = "cls"
    activation: HeadActivation = "tanh"
    bias: bool = True
    norm: bool = False
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.num_labels < 1:
            raise ValueError(f"num_labels is {self.num_labels}; it must be at least 1")
        if self.pooling not in get_args(HeadPooling):
            raise ValueError(f"classifier_pooling is {self.pooling!r}; it must be one of cls, mean")
