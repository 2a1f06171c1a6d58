"""The decoders of T5 and mT5: shape and names of weights, for text generators that people have (doc2query, FLAN-T5)."""

from __future__ import annotations

from embedkit.checkpoint.families.row import Json, Names
from embedkit.checkpoint.families.t5 import MAX_TOKENS, T5
from embedkit.checkpoint.json_files import json_field
from embedkit.errors import CheckpointError
from embedkit.model.config import EncoderConfig
from embedkit.model.decoder_config import DecoderConfig

# What transformers stores besides: copies of the table that both halves share.
COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
OUTPUT = "lm_head.weight"


def is_t5_generator(content: Json) -> bool:
    """Say whether a config.json is that of a whole T5, which generates, and not of its encoder."""
    architectures = content.get("architectures")
    return content.get("model_type") in ("t5", "mt5") and architectures in (
        ["T5ForConditionalGeneration"],
        ["MT5ForConditionalGeneration"],
        ["T5WithLMHeadModel"],
    )


def read_t5_decoder(content: Json, encoder: EncoderConfig, where: str, *, has_output: bool) -> DecoderConfig:
    """Return the shape of the decoder beside an encoder; `has_output`: the output layer has weights of its own.

    T5 scales what its output layer reads unless tie_word_embeddings is false, as from version 1.1 on; mT5 never does.

    Raises:
        CheckpointError: a field is missing or out of range, or the tokenizer's first token of a text is another than padding.
    """
    layers = json_field(content, "num_decoder_layers", encoder.num_hidden_layers, where)
    start = json_field(content, "decoder_start_token_id", encoder.pad_token_id, where)
    if start != encoder.pad_token_id:
        raise CheckpointError(
            f"{where}: decoder_start_token_id is {start}; texts are begun with the padding token alone, {encoder.pad_token_id}"
        )
    tied = json_field(content, "tie_word_embeddings", True, where)
    own_output = has_output and not tied
    try:
        return DecoderConfig(
            vocab_size=encoder.vocab_size,
            hidden_size=encoder.hidden_size,
            num_hidden_layers=layers,
            num_attention_heads=encoder.num_attention_heads,
            intermediate_size=encoder.intermediate_size,
            hidden_act=encoder.hidden_act,
            max_position_embeddings=MAX_TOKENS,
            position="none",
            layer_norm_eps=encoder.layer_norm_eps,
            hidden_dropout_prob=encoder.hidden_dropout_prob,
            attention_probs_dropout_prob=encoder.attention_probs_dropout_prob,
            initializer_range=encoder.initializer_range,
            norm_first=True,
            encoder_size=encoder.hidden_size,
            share_embeddings=True,
            tie_word_embeddings=not own_output,
            scale_output=content.get("model_type") == "t5" and tied,
            norm="rms",
            attention_bias=False,
            mlp_bias=False,
            gated_mlp=encoder.gated_mlp,
            head_dim=encoder.head_dim,
            query_pre_attn_scalar=1.0,
            relative_attention_num_buckets=encoder.relative_attention_num_buckets,
            relative_attention_max_distance=encoder.relative_attention_max_distance,
        )
    except ValueError as exc:
        raise CheckpointError(f"{where}: {exc}. Take the model's own config.json") from exc


def t5_generator_names(encoder: EncoderConfig, decoder: DecoderConfig) -> Names:
    """Map every parameter of a `TextGenerator` to T5's names."""
    names = {f"encoder.{ours}": theirs for ours, theirs in T5.names(encoder).items()}
    names["decoder.relative_bias.weight"] = (
        "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
    )
    names["decoder.final_norm.weight"] = ("decoder.final_layer_norm.weight",)
    if not decoder.tie_word_embeddings:
        names["decoder.output.weight"] = (OUTPUT,)
    up = ("wi_0", "wi_1") if decoder.gated_mlp else ("wi",)
    sublayers = {
        "attention.qkv": tuple(f"layer.0.SelfAttention.{part}" for part in "qkv"),
        "attention.out": ("layer.0.SelfAttention.o",),
        "attention_norm": ("layer.0.layer_norm",),
        "cross_attention.query": ("layer.1.EncDecAttention.q",),
        "cross_attention.key_value": ("layer.1.EncDecAttention.k", "layer.1.EncDecAttention.v"),
        "cross_attention.out": ("layer.1.EncDecAttention.o",),
        "cross_attention_norm": ("layer.1.layer_norm",),
        "mlp.up": tuple(f"layer.2.DenseReluDense.{part}" for part in up),
        "mlp.down": ("layer.2.DenseReluDense.wo",),
        "mlp_norm": ("layer.2.layer_norm",),
    }
    for number in range(decoder.num_hidden_layers):
        for ours, theirs in sublayers.items():
            names[f"decoder.layers.{number}.{ours}.weight"] = tuple(
                f"decoder.block.{number}.{part}.weight" for part in theirs
            )
    return names
