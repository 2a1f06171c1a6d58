"""Tiny random models for tests, built by our own code from nothing."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer as HFTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from embedkit.checkpoint.hf_config import family_of
from embedkit.checkpoint.sentence_folder import write_model
from embedkit.checkpoint.st_modules import SentenceModules
from embedkit.checkpoint.weights import save_sentence_encoder
from embedkit.model.attention_config import DisentangledConfig
from embedkit.model.config import EncoderConfig, SentenceConfig
from embedkit.model.encoder import TransformerEncoder
from embedkit.model.rope_config import RopeScalingConfig
from embedkit.model.routing_config import ExpertsConfig, RecursionConfig
from embedkit.model.sentence import SentenceEncoder
from embedkit.model.static import StaticEncoder
from embedkit.tokenization.tokenizer import Tokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = (  # noqa: SIM905 (a list of these would fill a page)
    "the a of and to in is it on that for was with as he she they we you i this not are be by from or an at which one "
    "girl boy man woman dog cat horse guitar piano song hair ball beach water red green blue small large old new "
    "plays plays ##s ##ing ##ed runs sleeps eats sings walks reads writes searches index vector encoder sentence word"
).split()

_LLAMA: dict[str, object] = {
    "position": "rope",
    "type_vocab_size": 0,
    "gated_mlp": True,
    "hidden_act": "silu",
    "norm": "rms",
    "norm_first": True,
    "embedding_norm": False,
    "attention_bias": False,
    "mlp_bias": False,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "layer_norm_eps": 1e-6,
}
_T5: dict[str, object] = {
    "position": "none",
    "type_vocab_size": 0,
    "norm": "rms",
    "norm_first": True,
    "embedding_norm": False,
    "attention_bias": False,
    "mlp_bias": False,
    "layer_norm_eps": 1e-6,
    "query_pre_attn_scalar": 1.0,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
    "max_position_embeddings": 2**15,
}

# What tells each family's encoder from BERT's; ModernBERT's window is short, so that short texts reach beyond it.
FAMILY_SHAPES: dict[str, dict[str, object]] = {
    "bert": {},
    "roberta": {"position_offset": 2, "pad_token_id": 1},
    "xlm-roberta": {"position_offset": 2, "pad_token_id": 1, "type_vocab_size": 1},
    "camembert": {"position_offset": 2, "pad_token_id": 1, "type_vocab_size": 1},
    "distilbert": {"type_vocab_size": 0},
    "mpnet": {
        "type_vocab_size": 0,
        "position_offset": 2,
        "pad_token_id": 1,
        "relative_attention_num_buckets": 32,
    },
    "albert": {
        "embedding_size": 16,
        "num_hidden_groups": 2,
        "num_hidden_layers": 4,
        "hidden_act": "gelu_tanh",
    },
    "modernbert": {
        "type_vocab_size": 0,
        "position": "rope",
        "norm_first": True,
        "gated_mlp": True,
        "norm_bias": False,
        "attention_bias": False,
        "mlp_bias": False,
        "local_attention": 6,
        "global_attn_every_n_layers": 3,
        "num_hidden_layers": 4,
        "layer_norm_eps": 1e-5,
    },
    "electra": {"embedding_size": 16},
    "deberta-v2": {
        "type_vocab_size": 0,
        "position": "none",
        "layer_norm_eps": 1e-7,
        "disentangled": DisentangledConfig(position_buckets=8, max_relative_positions=32),
    },
    "nomic_bert": {
        "position": "rope",
        "global_rope_theta": 1000.0,
        "gated_mlp": True,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
    },
    "gte": {
        "position": "rope",
        "type_vocab_size": 1,
        "gated_mlp": True,
        "gate_second": True,
        "mlp_bias": False,
        "mlp_out_bias": True,
        "rope_factor": 1.5,
    },
    "eurobert": {**_LLAMA, "num_key_value_heads": 2},
    "t5": {**_T5, "hidden_act": "relu"},
    "mt5": {**_T5, "hidden_act": "gelu_tanh", "gated_mlp": True},
    "jina_embeddings_v3": {
        "position": "rope",
        "type_vocab_size": 1,
        "pad_token_id": 1,
        "layer_norm_eps": 1e-5,
        "global_rope_theta": 20_000.0,
    },
    "jina_bert": {"position": "alibi", "gated_mlp": True, "mlp_bias": False, "mlp_out_bias": True},
    "qwen2": {
        **_LLAMA,
        "num_key_value_heads": 2,
        "causal": True,
        "attention_bias": True,
        "attention_out_bias": False,
    },
    "llama": {
        **_LLAMA,
        "num_key_value_heads": 2,
        "causal": True,
        "rope_scaling": RopeScalingConfig(kind="llama3", factor=4.0, original_max_position_embeddings=24),
    },
    "mistral": {
        **_LLAMA,
        "num_key_value_heads": 2,
        "causal": True,
        "local_attention": 6,
        "global_attn_every_n_layers": 3,
        "global_attn_offset": 2,
        "global_rope_theta": 20_000.0,
        "local_rope_theta": 20_000.0,
    },
    "qwen3": {**_LLAMA, "num_key_value_heads": 2, "head_dim": 12, "qk_norm": True, "causal": True},
    "gemma3_text": {
        **_LLAMA,
        "num_hidden_layers": 3,
        "num_key_value_heads": 1,
        "head_dim": 12,
        "qk_norm": True,
        "hidden_act": "gelu_tanh",
        "norm": "rms_offset",
        "post_norm": True,
        "scale_embeddings": True,
        "query_pre_attn_scalar": 24.0,
        "local_attention": 6,
        "global_attn_every_n_layers": 3,
        "global_attn_offset": 2,
    },
    "gpt2": {
        "type_vocab_size": 0,
        "norm_first": True,
        "embedding_norm": False,
        "causal": True,
        "hidden_act": "gelu_tanh",
        "layer_norm_eps": 1e-5,
    },
    # What all runtimes compute of it; what torch alone does is below.
    "embedkit": {
        "num_hidden_layers": 6,
        "recursion": RecursionConfig(routing="fixed", num_recursions=2, num_block_layers=2),
    },
}
# Of jina-embeddings-v2-base-code, which is saved as Jina v2's.
JINA_CODE_SHAPE: dict[str, object] = FAMILY_SHAPES["jina_bert"] | {
    "gate_second": True,
    "qk_norm": True,
    "qk_norm_over_heads": True,
    "second_attention_norm": True,
}
# Encoders that route tokens. A fresh router tells tokens hardly apart; the large weights of `tiny_config` change that.
ROUTED_SHAPES: dict[str, dict[str, object]] = {
    "experts": {
        "num_hidden_layers": 4,
        "experts": ExpertsConfig(num_experts=4, shared_intermediate_size=16, noisy=True),
    },
    "experts, one of few tokens": {
        "experts": ExpertsConfig(
            num_experts=4, num_experts_per_tok=1, every_n_layers=1, intermediate_size=24, capacity_factor=1.0
        ),
    },
    "expert choice": {
        "num_hidden_layers": 8,
        "recursion": RecursionConfig(num_block_layers=2),
    },
    "token choice": {
        "num_hidden_layers": 5,
        "recursion": RecursionConfig(routing="token_choice"),
    },
    "experts in a recursion": {
        "num_hidden_layers": 8,
        "experts": ExpertsConfig(num_experts=4, norm_topk_prob=True, intermediate_size=16),
        "recursion": RecursionConfig(routing="token_choice", num_block_layers=2),
    },
    "expert choice, random features": {
        "num_hidden_layers": 5,
        "attention": "random_features",
        "attention_features": 20,
        "recursion": RecursionConfig(),
    },
    "experts, additive scores": {"attention": "additive", "experts": ExpertsConfig(num_experts=4)},
    "experts, norms first": {
        "norm_first": True,
        "gated_mlp": True,
        "mlp_bias": False,
        "experts": ExpertsConfig(num_experts=4),
    },
}

# What of an encoder no family says: each is saved under our own.
VARIANT_SHAPES: dict[str, dict[str, object]] = {
    "rotary": {"position": "rope", "global_rope_theta": 100.0},
    "relative": {"position": "relative", "max_relative_position": 4},
    "local": {"local_attention": 6, "global_attn_every_n_layers": 2},
    "local relative": {
        "position": "relative",
        "max_relative_position": 4,
        "local_attention": 6,
        "global_attn_every_n_layers": 2,
    },
    "additive": {"attention": "additive"},
    "additive local": {"attention": "additive", "local_attention": 6, "global_attn_every_n_layers": 2},
    "bilinear": {"attention": "bilinear"},
    "bilinear rotary": {"attention": "bilinear", "position": "rope"},
    "low rank": {"attention": "low_rank", "attention_rank": 8},
    "random features": {"attention": "random_features", "attention_features": 20},
    "shared random features": {
        "attention": "random_features",
        "num_hidden_groups": 1,
        "num_hidden_layers": 2,
        "position_offset": 2,
        "pad_token_id": 1,
    },
}


def tiny_tokenizer(*, max_length: int = 32) -> Tokenizer:
    """A lower-case word-piece tokenizer whose vocabulary has some words and every ASCII letter and sign."""
    signs = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    pieces = [*SPECIAL, *dict.fromkeys([*WORDS, *signs, *("##" + sign for sign in signs)])]
    backend = HFTokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.add_special_tokens(list(SPECIAL))
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    roles = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    return Tokenizer(backend, roles, max_length)


def tiny_config(**fields: object) -> EncoderConfig:
    """The shape of a BERT with two layers of 32; `fields` change it."""
    shape: dict[str, object] = {
        "vocab_size": tiny_tokenizer().vocab_size,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "initializer_range": 0.2,  # large, so that attention and activations are far from linear
    }
    return EncoderConfig(**(shape | fields))  # type: ignore[arg-type] # a test names the fields it wants


def write_tiny_model(
    folder: Path,
    *,
    seed: int = 0,
    sentence: SentenceConfig | None = None,
    config: EncoderConfig | None = None,
    max_length: int = 32,
    **modules: object,
) -> Path:
    """Write a random tiny sentence encoder; the same seed gives the same weights."""
    torch.manual_seed(seed)
    sentence = sentence or SentenceConfig(normalize=True)
    model = SentenceEncoder(TransformerEncoder(config or tiny_config()), sentence)
    if sentence.layer_start is not None:  # equal weights would hide a mix-up
        assert model.layer_mean is not None
        torch.nn.init.uniform_(model.layer_mean.layer_weights, 0.5, 2)
    if sentence.similarity is not None:
        assert model.similarity is not None
        for parameter in model.similarity.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    parts = SentenceModules(sentence=sentence, max_seq_length=max_length, **modules)  # type: ignore[arg-type] # as above
    family = family_of(model.encoder.config)
    save_sentence_encoder(folder, model, tiny_tokenizer(max_length=max_length), parts, family=family)
    return folder


def write_static_model(folder: Path, *, seed: int = 0, normalize: bool = True, size: int = 16) -> Path:
    """Write a random table of token vectors: a text without tokens becomes the zero vector."""
    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer(max_length=2**16)
    model = StaticEncoder(tokenizer.vocab_size, size, normalize=normalize)
    write_model(folder, model, tokenizer, SentenceModules(), family=None)
    return folder
