"""The encoders of T5 and mT5: bucketed distances, RMS norms before each sublayer, scores that are not scaled."""

from __future__ import annotations

from typing import Any

from embedkit.checkpoint.families.fields import read_sizes, wanted
from embedkit.checkpoint.families.row import FamilyRow, Json, Names, add_layers
from embedkit.checkpoint.json_files import json_field
from embedkit.errors import CheckpointError
from embedkit.model.config import Activation, EncoderConfig

_SPELLING = {
    "hidden_size": "d_model",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "intermediate_size": "d_ff",
}
_FEED_FORWARD: dict[str, tuple[bool, Activation]] = {  # gated; activation
    "relu": (False, "relu"),
    "gelu": (False, "gelu"),
    "gated-relu": (True, "relu"),
    "gated-gelu": (True, "gelu_tanh"),  # so in transformers, too, whose first T5 of this kind had it
    "gated-silu": (True, "silu"),
}
MAX_TOKENS = 2**15  # a bound for the memory: distances have none


def _read(content: Json, where: str) -> dict[str, Any]:
    fields = read_sizes({"max_position_embeddings": MAX_TOKENS} | dict(content), where, _SPELLING)
    kind = json_field(
        content, "feed_forward_proj", "gated-gelu" if content.get("model_type") == "mt5" else "relu", where
    )
    if kind not in _FEED_FORWARD:
        raise CheckpointError(f"{where}: feed_forward_proj is {kind!r}; known are {', '.join(_FEED_FORWARD)}")
    gated, activation = _FEED_FORWARD[kind]
    wanted(content, where, is_decoder=False)
    size, heads = fields["hidden_size"], fields["num_attention_heads"]
    head_size = json_field(content, "d_kv", 64, where)
    return fields | {
        "max_position_embeddings": MAX_TOKENS,
        "hidden_act": activation,
        "gated_mlp": gated,
        "type_vocab_size": 0,
        "pad_token_id": json_field(content, "pad_token_id", 0, where),
        # None of T5's fields, which scales each matrix by its size: it means something where we draw weights.
        "initializer_range": json_field(content, "initializer_range", 0.02, where),
        "layer_norm_eps": json_field(content, "layer_norm_epsilon", 1e-6, where),
        "hidden_dropout_prob": json_field(content, "dropout_rate", 0.1, where),
        "attention_probs_dropout_prob": json_field(content, "dropout_rate", 0.1, where),
        "position": "none",
        "relative_attention_num_buckets": json_field(content, "relative_attention_num_buckets", 32, where),
        "relative_attention_max_distance": json_field(content, "relative_attention_max_distance", 128, where),
        "norm": "rms",
        "norm_first": True,
        "embedding_norm": False,
        "attention_bias": False,
        "mlp_bias": False,
        "head_dim": None if head_size * heads == size else head_size,
        "query_pre_attn_scalar": 1.0,
    }


def _write(config: EncoderConfig) -> dict[str, Any]:
    own = (config.gated_mlp, config.hidden_act)
    content = {theirs: getattr(config, ours) for ours, theirs in _SPELLING.items()}
    return content | {
        "vocab_size": config.vocab_size,
        "feed_forward_proj": next((name for name, kind in _FEED_FORWARD.items() if kind == own), "relu"),
        "d_kv": config.head_size,
        "pad_token_id": config.pad_token_id,
        "eos_token_id": 1,
        "initializer_range": config.initializer_range,
        "layer_norm_epsilon": config.layer_norm_eps,
        "dropout_rate": config.hidden_dropout_prob,
        "relative_attention_num_buckets": config.relative_attention_num_buckets,
        "relative_attention_max_distance": config.relative_attention_max_distance,
        "is_encoder_decoder": False,
        "use_cache": False,
        "tie_word_embeddings": True,
    }


def _names(config: EncoderConfig) -> Names:
    names: Names = {
        "embeddings.tokens.weight": ("shared.weight",),
        "final_norm.weight": ("encoder.final_layer_norm.weight",),
        "relative_bias.weight": ("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",),
    }
    attention, feed_forward = "layer.0.SelfAttention.", "layer.1.DenseReluDense."
    up = ("wi_0", "wi_1") if config.gated_mlp else ("wi",)
    layer = {
        "attention.qkv": tuple(attention + part for part in "qkv"),
        "attention.out": (f"{attention}o",),
        "attention_norm": ("layer.0.layer_norm",),
        "mlp.up": tuple(feed_forward + part for part in up),
        "mlp.down": (f"{feed_forward}wo",),
        "mlp_norm": ("layer.1.layer_norm",),
    }
    add_layers(names, config, "encoder.block.{}.", layer)
    return names


def _row(architecture: str) -> FamilyRow:
    return FamilyRow(
        architecture=architecture,
        base_prefix="transformer.",
        tokenizer_class="T5Tokenizer",
        # The decoder's weights, and the encoder's own copy of the table that both share.
        ignored=("decoder.", "lm_head.", "encoder.embed_tokens."),
        read=_read,
        write=_write,
        names=_names,
        class_end="EncoderModel",
    )


T5, MT5 = _row("T5"), _row("MT5")
