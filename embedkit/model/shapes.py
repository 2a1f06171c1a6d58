"""The names and shapes of an encoder's parameters, told from its config alone. No torch here."""

from __future__ import annotations

from embedkit.model.config import (
    EncoderConfig,
    HeadConfig,
    HeadLayer,
    LayerNormConfig,
    SentenceConfig,
)
from embedkit.model.learned_parts import SimilarityConfig

Shapes = dict[str, tuple[int, ...]]


def encoder_shapes(config: EncoderConfig) -> Shapes:
    """Return the shape of every parameter of a `TransformerEncoder`, as its `state_dict` names them."""
    width = config.embedding_size or config.hidden_size
    shapes: Shapes = {"embeddings.tokens.weight": (config.vocab_size, width)}
    if config.has_position_table:
        shapes["embeddings.positions.weight"] = (config.max_position_embeddings, width)
    if config.type_vocab_size:
        shapes["embeddings.token_types.weight"] = (config.type_vocab_size, width)
    if config.embedding_norm:
        shapes |= config_norm(config, "embeddings.norm", width)
    if config.embedding_size is not None:
        shapes |= _linear("embeddings.projection", width, config.hidden_size, bias=True)
    for number in range(config.num_distinct_layers):
        shapes |= _layer(config, f"layers.{number}", number)
    if config.recursion is not None and config.recursion.routed:
        shapes["recursion.router.weight"] = (config.recursion.num_depths, config.hidden_size)
    if config.norm_first:
        shapes |= config_norm(config, "final_norm", config.hidden_size)
    if config.relative_attention_num_buckets:
        shapes["relative_bias.weight"] = (config.relative_attention_num_buckets, config.num_attention_heads)
    return shapes | _disentangled(config)


def encoder_splits(config: EncoderConfig) -> dict[str, tuple[int, ...]]:
    """Return how many rows each part has of what is stacked of unequal parts: queries, keys and values of fewer heads."""
    if config.key_value_heads == config.num_attention_heads:
        return {}
    own = config.key_value_heads * config.head_size
    return {
        f"layers.{number}.attention.qkv.{kind}": (config.query_size, own, own)
        for number in range(config.num_distinct_layers)
        for kind in ("weight", "bias")
    }


def _disentangled(config: EncoderConfig) -> Shapes:
    """Return the shapes of what all layers of disentangled attention share, and of the convolution behind the first."""
    own, hidden = config.disentangled, config.hidden_size
    if own is None:
        return {}
    shapes: Shapes = {"distances.vectors.weight": (2 * own.span, hidden)}
    if own.norm_rel_ebd:
        shapes |= _norm("distances.norm", hidden, bias=True)
    if own.conv_kernel_size:
        shapes["convolution.conv.weight"] = (hidden, hidden // own.conv_groups, own.conv_kernel_size)
        shapes["convolution.conv.bias"] = (hidden,)
        shapes |= _norm("convolution.norm", hidden, bias=True)
    return shapes


def _layer(config: EncoderConfig, name: str, module: int) -> Shapes:
    hidden = config.hidden_size
    shapes: Shapes = {}
    shapes |= _linear(f"{name}.attention.qkv", hidden, config.qkv_size, bias=config.attention_bias)
    shapes |= _linear(f"{name}.attention.out", config.query_size, hidden, bias=config.out_bias)
    shapes |= {f"{name}.attention.form.{own}": shape for own, shape in attention_shapes(config).items()}
    if config.qk_norm:
        for each, size in zip(("query_norm", "key_norm"), config.qk_norm_sizes, strict=True):
            shapes |= config_norm(config, f"{name}.attention.{each}", size)
    if config.disentangled is not None and not config.disentangled.share_att_key:
        shapes |= _linear(f"{name}.attention.position_qk", hidden, 2 * config.query_size, bias=True)
    if config.has_experts(module):
        shapes |= _experts(config, f"{name}.mlp")
    else:
        shapes |= _feed_forward(config, f"{name}.mlp", config.intermediate_size)
    if not (config.norm_first and config.embedding_norm and module == 0):
        shapes |= config_norm(config, f"{name}.attention_norm", hidden)
    shapes |= config_norm(config, f"{name}.mlp_norm", hidden)
    if config.second_attention_norm:
        shapes |= config_norm(config, f"{name}.second_attention_norm", hidden)
    if config.post_norm:
        for each in ("attention_post_norm", "mlp_post_norm"):
            shapes |= config_norm(config, f"{name}.{each}", hidden)
    return shapes


def attention_shapes(config: EncoderConfig) -> Shapes:
    """Return the shapes of what attention has besides its projections; nothing where it is the usual one."""
    size = config.head_size
    shapes: Shapes = {}
    if config.position == "relative":
        distances = 2 * config.max_relative_position + 1
        shapes |= {"relative_keys": (distances, size), "relative_values": (distances, size)}
    match config.attention:
        case "additive":
            shapes["score"] = (config.num_attention_heads, size)
        case "bilinear":
            shapes["score"] = (config.num_attention_heads, size, size)
        case "low_rank":
            mixtures = (config.attention_rank, config.max_position_embeddings)
            shapes |= {"low_rank_keys": mixtures, "low_rank_values": mixtures}
        case "random_features":
            shapes["features"] = (config.attention_features, size)
    return shapes


def sentence_shapes(config: EncoderConfig, sentence: SentenceConfig) -> dict[str, Shapes]:
    """Return the shapes of the parts of a `SentenceEncoder` besides encoder and dense layers, by the parts' names."""
    parts: dict[str, Shapes] = {}
    if sentence.layer_start is not None:
        parts["layer_mean"] = {"layer_weights": (config.num_hidden_layers + 1 - sentence.layer_start,)}
    if sentence.attention is not None:
        pooling = sentence.attention
        inner = _linear("inner", config.hidden_size, pooling.size, bias=True)
        parts["attention_pooling"] = inner | _linear("aspects", pooling.size, pooling.aspects, bias=False)
    if sentence.similarity is not None:
        parts["similarity"] = similarity_shapes(
            sentence.similarity, sentence.embedding_size(config.hidden_size)
        )
    return parts


def similarity_shapes(similarity: SimilarityConfig, embedding_size: int) -> Shapes:
    """Return the shapes of a `LearnedSimilarity`, or of `FieldExperts`."""
    if similarity.kind == "fields":
        return _field_experts(len(similarity.fields), embedding_size)
    if similarity.kind == "bilinear":
        return {"weight": (embedding_size, embedding_size)}
    shapes = _linear("first", embedding_size, similarity.size, bias=True)
    return (
        shapes
        | _linear("second", embedding_size, similarity.size, bias=False)
        | {"score": (similarity.size,)}
    )


def _feed_forward(config: EncoderConfig, name: str, width: int) -> Shapes:
    up = width * (2 if config.gated_mlp else 1)
    return _linear(f"{name}.up", config.hidden_size, up, bias=config.mlp_bias) | _linear(
        f"{name}.down", width, config.hidden_size, bias=config.down_bias
    )


def _experts(config: EncoderConfig, name: str) -> Shapes:
    experts = config.experts
    assert experts is not None
    width = experts.intermediate_size or config.intermediate_size
    shapes = _linear(f"{name}.router", config.hidden_size, experts.num_experts, bias=False)
    if experts.noisy:
        shapes |= _linear(f"{name}.noise", config.hidden_size, experts.num_experts, bias=False)
    if experts.shared_bias:
        shapes[f"{name}.bias"] = (config.hidden_size,)
    for number in range(experts.num_experts):
        shapes |= _feed_forward(config.of_an_expert, f"{name}.experts.{number}", width)
    if experts.shared_intermediate_size:
        shapes |= _feed_forward(config, f"{name}.shared", experts.shared_intermediate_size)
    return shapes


def _field_experts(num_fields: int, size: int) -> Shapes:
    units: Shapes = {
        "weight": (num_fields, size, size),
        "bias": (num_fields, size),
        "gate": (num_fields, size, size),
        "gate_bias": (num_fields, size),
    }
    experts = {
        f"{side}_experts.{name}": shape for side in ("query", "document") for name, shape in units.items()
    }
    return {"router.weight": (num_fields, size)} | experts


def dense_shapes(layer: HeadLayer) -> Shapes:
    """Return the shapes of one layer after pooling."""
    if isinstance(layer, LayerNormConfig):
        return _norm("0", layer.size, bias=True)
    shapes = _linear("0", layer.in_features, layer.out_features, bias=layer.bias)
    if layer.projects_residual:
        shapes |= _linear("residual", layer.in_features, layer.out_features, bias=False)
    return shapes


def head_shapes(config: EncoderConfig, head: HeadConfig) -> Shapes:
    """Return the shapes of a `ClassificationHead`."""
    hidden = config.hidden_size
    shapes = _linear("dense", hidden, hidden, bias=head.bias) if head.dense else {}
    if head.norm:
        own = head.norm_eps is not None
        shapes |= (
            _norm("norm", hidden, bias=bool(head.norm_bias)) if own else config_norm(config, "norm", hidden)
        )
    return shapes | _linear("out", hidden, head.num_labels, bias=head.out_bias)


def _linear(name: str, size_in: int, size_out: int, *, bias: bool) -> Shapes:
    return {f"{name}.weight": (size_out, size_in)} | ({f"{name}.bias": (size_out,)} if bias else {})


def config_norm(config: EncoderConfig, name: str, size: int) -> Shapes:
    """Return the shapes of a norm of the config's kind; only a layer norm has a bias."""
    return _norm(name, size, bias=config.norm_bias and config.norm == "layer")


def _norm(name: str, size: int, *, bias: bool) -> Shapes:
    return {f"{name}.{kind}": (size,) for kind in (("weight", "bias") if bias else ("weight",))}
