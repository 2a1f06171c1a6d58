"""The newer families' configs: older spellings, code that is never run, and pieces that are refused by their names."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embedkit.checkpoint.folder import read_model_folder
from embedkit.checkpoint.hf_config import read_config, write_config
from embedkit.checkpoint.names import FAMILIES, Family
from embedkit.checkpoint.weights import load_sentence_encoder
from embedkit.encoding.encoder import Encoder
from embedkit.errors import CheckpointError, DeviceError
from embedkit.inference.choice import choose_runtime, why_not_parts
from embedkit.model.positions import rotary_table
from embedkit.model.rope_config import RopeScalingConfig
from embedkit.tokenization.tokenizer import Tokenizer
from tests.tiny import FAMILY_SHAPES, tiny_config, write_tiny_model

NOMIC: dict[str, Any] = {  # as the folders of the first NomicBERT models spell it
    "model_type": "nomic_bert",
    "auto_map": {"AutoModel": "modeling_hf_nomic_bert.NomicBertModel"},
    "activation_function": "swiglu",
    "vocab_size": 207,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_inner": 64,
    "n_positions": 64,
    "layer_norm_epsilon": 1e-12,
    "resid_pdrop": 0.1,
    "attn_pdrop": 0.1,
    "rotary_emb_base": 1000,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_scaling_factor": None,
    "qkv_proj_bias": False,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
    "prenorm": False,
    "causal": False,
    "type_vocab_size": 2,
    "initializer_range": 0.2,
}
GTE: dict[str, Any] = {
    "model_type": "new",
    "auto_map": {"AutoModel": "owner/implementation--modeling.NewModel"},
    "vocab_size": 207,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "type_vocab_size": 1,
    "position_embedding_type": "rope",
    "pack_qkv": True,
    "rope_theta": 20000,
    "rope_scaling": {"type": "ntk", "factor": 8.0},
    "logn_attention_scale": False,
}


E5_MISTRAL: dict[str, Any] = {  # as intfloat/e5-mistral-7b-instruct spells it, smaller
    "model_type": "mistral",
    "architectures": ["MistralModel"],
    "vocab_size": 207,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "sliding_window": 16,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
}
GTE_QWEN2: dict[str, Any] = {  # as Alibaba-NLP/gte-Qwen2-1.5B-instruct spells it, smaller
    **E5_MISTRAL,
    "model_type": "qwen2",
    "architectures": ["Qwen2ForCausalLM"],
    "auto_map": {"AutoModel": "modeling_qwen.Qwen2Model"},
    "is_causal": False,
    "use_sliding_window": False,
    "sliding_window": 64,
    "max_window_layers": 2,
}
JINA: dict[str, Any] = {  # as jinaai/jina-embeddings-v3 spells it, smaller
    "model_type": "xlm-roberta",
    "auto_map": {"AutoModel": "jinaai/xlm-roberta-flash-implementation--modeling_lora.XLMRobertaLoRA"},
    "position_embedding_type": "rotary",
    "rotary_emb_base": 20000.0,
    "vocab_size": 207,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
    "initializer_range": 0.2,
    "emb_pooler": None,
    "truncate_dim": None,
}


def written(family: Family, **fields: object) -> dict[str, Any]:
    return write_config(tiny_config(**FAMILY_SHAPES[family]), family) | fields


def test_the_older_spelling_of_nomic_bert_is_the_same_model() -> None:
    family, config = read_config(NOMIC, "config.json")
    assert (family, config) == ("nomic_bert", tiny_config(**FAMILY_SHAPES["nomic_bert"]))


def test_gte_is_known_by_its_config_and_its_positions_are_scaled_as_its_own_code_does() -> None:
    """With d = 8, base 20000 and factor 8: frequency i is (20000 · 8)^(-2i/8) / 8^(2/8)."""
    family, config = read_config(GTE, "config.json")
    assert family == "gte"
    frequency = (20000 * 8.0) ** (-2 * np.arange(4) / 8) / 8 ** (2 / 8)
    cos, sin = rotary_table(
        50,
        head_size=8,
        theta=config.global_rope_theta,
        factor=config.rope_factor,
        device=torch.device("cpu"),
    )
    angle = np.arange(50)[:, None] * np.tile(frequency, 2)
    np.testing.assert_allclose(cos.numpy(), np.cos(angle), atol=1e-5)
    np.testing.assert_allclose(sin.numpy(), np.sin(angle), atol=1e-5)
    assert read_config(write_config(config, "gte"), "config.json") == ("gte", config)


def test_decoders_are_known_by_their_configs() -> None:
    family, config = read_config(E5_MISTRAL, "config.json")
    assert (family, config.causal, config.layer_is_local(1), config.local_attention) == (
        "mistral",
        True,
        True,
        30,
    )
    family, config = read_config(GTE_QWEN2, "config.json")
    assert (family, config.causal, config.local_attention) == ("qwen2", False, 0)
    assert (config.attention_bias, config.out_bias) == (True, False)
    assert read_config(write_config(config, "qwen2"), "config.json") == ("qwen2", config)
    assert read_config({**GTE_QWEN2, "is_causal": True}, "config.json")[1].causal


def test_jina_is_known_by_its_config_which_calls_itself_another() -> None:
    family, config = read_config(JINA, "config.json")
    assert (family, config) == ("jina_embeddings_v3", tiny_config(**FAMILY_SHAPES["jina_embeddings_v3"]))


def test_the_numbers_of_yarn_that_a_config_leaves_out() -> None:
    scaling = {"type": "yarn", "factor": 4.0}
    config = read_config(written("llama", rope_parameters=None, rope_scaling=scaling), "config.json")[1]
    assert config.rope_scaling == RopeScalingConfig(
        kind="yarn",
        factor=4.0,
        original_max_position_embeddings=64,
        attention_factor=0.1 * math.log(4) + 1,
    )
    longer = written("llama", rope_parameters={"rope_type": "yarn", "original_max_position_embeddings": 16})
    found = read_config(longer, "config.json")[1].rope_scaling
    assert found is not None
    assert found.factor == 4.0


def test_the_end_of_a_text_that_the_code_of_gte_qwen2_sets_is_set(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "m", config=tiny_config(**FAMILY_SHAPES["qwen2"]))
    before = Tokenizer.load(folder).encode(["dog"]).input_ids.tolist()
    path = folder / "tokenizer_config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    code = {"AutoTokenizer": ["tokenization_qwen.Qwen2Tokenizer", "tokenization_qwen.Qwen2TokenizerFast"]}
    own = {"auto_map": code, "eos_token": "[MASK]", "add_eos_token": True}
    path.write_text(json.dumps(content | own), encoding="utf-8")
    loaded = Tokenizer.load(folder)
    end = loaded.backend.token_to_id("[MASK]")
    assert loaded.encode(["dog"]).input_ids.tolist() == [*before, end]
    loaded.save(tmp_path)
    assert Tokenizer.load(tmp_path).encode(["dog"]).input_ids.tolist() == [*before, end]
    path.write_text(json.dumps(content | own | {"add_eos_token": False}), encoding="utf-8")
    assert Tokenizer.load(folder).encode(["dog"]).input_ids.tolist() == before
    path.write_text(json.dumps(content | own | {"eos_token": "<|end|>"}), encoding="utf-8")
    with pytest.raises(
        CheckpointError, match=r"there is no '<\|end\|>', which stands at an end of every text"
    ):
        Tokenizer.load(folder)


@pytest.mark.parametrize("family", ["qwen3", "gemma3_text", "eurobert", "qwen2"])
def test_older_spellings_of_rotary_positions_are_the_same_model(family: Family) -> None:
    content = written(family)
    del content["rope_parameters"]
    config = tiny_config(**FAMILY_SHAPES[family])
    content["rope_theta"], content["rope_local_base_freq"] = config.global_rope_theta, config.local_rope_theta
    content.pop("layer_types", None)
    content["_sliding_window_pattern"] = 3
    assert read_config(content, "config.json") == (family, config)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (NOMIC | {"moe_every_n_layers": 2}, "activation_function is 'swiglu'; only 'gelu' is computed"),
        (NOMIC | {"rotary_emb_fraction": 0.5}, "rotary_emb_fraction is 0.5; only 1.0 is computed"),
        (NOMIC | {"prenorm": True}, "prenorm is True; only False is computed"),
        (NOMIC | {"activation_function": "gelu"}, "activation_function is 'gelu'; only 'swiglu'"),
        (NOMIC | {"rotary_scaling_factor": 2}, "rotary_scaling_factor is 2; only 1.0 is computed"),
        (GTE | {"logn_attention_scale": True}, "logn_attention_scale is True; only False is computed"),
        (GTE | {"layer_norm_type": "rms_norm"}, "layer_norm_type is 'rms_norm'; only 'layer_norm'"),
        (
            GTE | {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
            "rotary positions are scaled by 'dynamic'; default, linear and ntk without mixed_b are computed",
        ),
        (
            written("qwen3", rope_parameters={"rope_type": "longrope", "factor": 4.0}),
            "rotary positions are scaled by 'longrope'; default, linear, yarn, llama3, dynamic are computed",
        ),
        (
            written("gemma3_text", rope_parameters={"full_attention": {"rope_type": "yarn", "factor": 4.0}}),
            "rotary positions are scaled by 'yarn'; default, linear and ntk",
        ),
        (
            written("llama", rope_parameters={"rope_type": "llama3", "factor": 4.0}),
            "the scaling of the rotary positions lacks 'low_freq_factor'",
        ),
        (written("llama", rope_parameters={"rope_type": "dynamic"}), "lacks 'factor'"),
        (
            written("llama", rope_parameters={"rope_type": "yarn", "factor": 0.5}),
            "factor of the rotary positions is 0.5",
        ),
        (written("llama", partial_rotary_factor=0.5), "partial_rotary_factor is 0.5; only 1.0 is computed"),
        (written("qwen2", use_sliding_window=True), "use_sliding_window is True; only False is computed"),
        (
            {key: value for key, value in GTE_QWEN2.items() if key != "is_causal"},
            r"code of its own along \(modeling_qwen.Qwen2Model\), which is never run, and nothing says whether it lets tokens see",
        ),
        (
            written("mistral", rope_parameters={"rope_type": "linear", "factor": 2.0}),
            "sliding_window is 4, and rotary positions are scaled; one of the two is computed",
        ),
        (
            written("mistral", sliding_window=100, rope_parameters={"rope_type": "yarn", "factor": 2.0}),
            "sliding_window is 100, and rotary positions are scaled; one of the two is computed",
        ),
        (
            written("mistral", sliding_window="all"),
            "sliding_window is 'all'; it must be a whole number or null",
        ),
        (written("mistral", attention_bias=True), "attention_bias is True; only False is computed"),
        (JINA | {"emb_pooler": "mean"}, "emb_pooler is 'mean'"),
        (
            JINA | {"auto_map": {"AutoModel": "modeling_own.OwnModel"}},
            r"code of its own along \(auto_map: modeling_own.OwnModel\)",
        ),
        (written("qwen3", use_sliding_window=True), "use_sliding_window is True; only False is computed"),
        (written("gemma3_text", attn_logit_softcapping=50.0), "capped scores are not computed"),
        (
            written(
                "gemma3_text",
                layer_types=["full_attention", "full_attention", "sliding_attention"],
            ),
            "only global attention in every n-th layer is computed",
        ),
        (written("gpt2", scale_attn_by_inverse_layer_idx=True), "scale_attn_by_inverse_layer_idx is True"),
        (written("t5", feed_forward_proj="gated-tanh"), "feed_forward_proj is 'gated-tanh'; known are relu"),
        (written("t5", is_decoder=True), "is_decoder is True; only False is computed"),
        (written("deberta-v2", embedding_size=16), "embedding_size is 16; only 32 is computed"),
        (written("deberta-v2", pos_att_type="p2p"), "pos_att_type has 'p2p'; known are c2p, p2c"),
        (written("deberta-v2", conv_kernel_size=4), "conv_kernel_size is 4; it must be odd"),
        (written("eurobert", num_key_value_heads=3), "4 is not a multiple of num_key_value_heads 3"),
        (
            written("qwen3", auto_map={"AutoModel": "modeling_own.OwnModel"}),
            r"code of its own along \(auto_map: modeling_own.OwnModel\), which is never run, and which may compute another model",
        ),
        (
            {"model_type": "llada", "auto_map": {"AutoModel": "modeling_llada.LLaDAModel"}},
            r"model_type is 'llada'; .* the code that the folder brings along \(modeling_llada.LLaDAModel\) is never run",
        ),
    ],
)
def test_a_piece_that_is_not_computed_is_named(content: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_config(content, "config.json")


NEWER = [family for family in FAMILIES if tiny_config(**FAMILY_SHAPES[family]).attention_variant]


@pytest.mark.parametrize("family", NEWER)
def test_torch_computes_what_the_other_runtimes_refuse_by_name(family: Family) -> None:
    config = tiny_config(**FAMILY_SHAPES[family])
    assert choose_runtime(config, "fp32", "cpu").runtime == "torch"
    assert f"{config.attention_variant} is not written as a graph" == why_not_parts("onnx", config, None)
    with pytest.raises(DeviceError, match="the numpy backend does not compute this model"):
        choose_runtime(config, "fp32", "cpu", wanted="numpy")
    assert choose_runtime(config, "fp32", "cpu", interactive=True).runtime == "torch"


@pytest.mark.parametrize("family", ["deberta-v2", "qwen3", "gpt2"])
def test_weights_that_do_not_fit_the_config_are_refused(family: Family, tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "m", config=tiny_config(**FAMILY_SHAPES[family]))
    path = folder / "config.json"
    text = path.read_text(encoding="utf-8")
    for old, new in (
        ('"intermediate_size": 64', '"intermediate_size": 48'),
        ('"n_inner": 64', '"n_inner": 48'),
    ):
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"has shape \(64, .* config.json asks for \(48, "):
        Encoder.load(folder, device="cpu")


def test_what_is_stored_turned_is_contiguous_once_it_is_loaded(tmp_path: Path) -> None:
    """Safetensors, and so the state of a training run, takes nothing else."""
    folder = write_tiny_model(tmp_path / "m", config=tiny_config(**FAMILY_SHAPES["gpt2"]))
    model = load_sentence_encoder(read_model_folder(folder))
    assert all(parameter.is_contiguous() for parameter in model.parameters())
