"""Folders as much-used models come from the hub, whose weights or settings are laid out otherwise than their families': by hand beside them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from embedkit.checkpoint.folder import read_model_folder
from embedkit.checkpoint.hf_config import read_config, write_config
from embedkit.checkpoint.sentence_folder import load_model, write_model
from embedkit.encoding.encoder import Encoder
from embedkit.errors import CheckpointError
from embedkit.reranking.cross_encoder import CrossEncoder
from embedkit.types import WantedRuntime
from tests.checkpoint.damage import edit_json, edit_weights
from tests.tiny import FAMILY_SHAPES, tiny_config, tiny_tokenizer, write_tiny_model
from tests.tiny_cross_encoder import QUERY, TEXTS, write_tiny_cross_encoder

VOCABULARY, SIZE, INNER, HEADS, LAYERS, EXPERTS = tiny_tokenizer().vocab_size, 48, 64, 3, 2, 4
TOLERANCE = 1e-5  # fp32, sums in another order
Weights = dict[str, Tensor]

JINA_V2: dict[str, Any] = {  # as jinaai/jina-embeddings-v2-base-en spells it, smaller
    "architectures": ["JinaBertForMaskedLM"],
    "attn_implementation": None,
    "auto_map": {
        "AutoConfig": "jinaai/jina-bert-implementation--configuration_bert.JinaBertConfig",
        "AutoModel": "jinaai/jina-bert-implementation--modeling_bert.JinaBertModel",
    },
    "emb_pooler": "mean",
    "feed_forward_type": "geglu",
    "hidden_act": "gelu",
    "hidden_size": SIZE,
    "intermediate_size": INNER,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 8192,
    "model_type": "bert",
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "pad_token_id": 0,
    "position_embedding_type": "alibi",
    "type_vocab_size": 2,
    "vocab_size": VOCABULARY,
}
JINA_CODE = JINA_V2 | {  # as jinaai/jina-embeddings-v2-base-code has them
    "auto_map": {
        "AutoConfig": "jinaai/jina-bert-v2-qk-post-norm--configuration_bert.JinaBertConfig",
        "AutoModel": "jinaai/jina-bert-v2-qk-post-norm--modeling_bert.JinaBertModel",
    },
}
NOMIC_V2: dict[str, Any] = {  # as nomic-ai/nomic-embed-text-v2-moe spells it, smaller
    "activation_function": "gelu",
    "architectures": ["NomicBertModel"],
    "auto_map": {"AutoModel": "nomic-ai/nomic-bert-2048--modeling_hf_nomic_bert.NomicBertModel"},
    "causal": False,
    "expert_choice_router": False,
    "ffn_div": 1,
    "layer_norm_epsilon": 1e-5,
    "mlp_fc1_bias": True,
    "mlp_fc2_bias": True,
    "model_type": "nomic_bert",
    "moe_every_n_layers": 2,
    "moe_normalize_expert_weights": False,
    "moe_top_k": 2,
    "n_embd": SIZE,
    "n_head": HEADS,
    "n_inner": INNER,
    "n_layer": LAYERS,
    "n_positions": 64,
    "num_experts": EXPERTS,
    "num_shared_experts": 0,
    "prenorm": False,
    "qkv_proj_bias": True,
    "rotary_emb_base": 10000,
    "rotary_emb_fraction": 1.0,
    "rotary_scaling_factor": None,
    "type_vocab_size": 1,
    "vocab_size": VOCABULARY,
}
FLASH = {  # of jinaai/jina-reranker-v2-base-multilingual, which has no model_type
    "auto_map": {
        "AutoConfig": "configuration_xlm_roberta.XLMRobertaFlashConfig",
        "AutoModel": "modeling_xlm_roberta.XLMRobertaModel",
        "AutoModelForSequenceClassification": "modeling_xlm_roberta.XLMRobertaForSequenceClassification",
    },
    "emb_pooler": None,
    "position_embedding_type": "absolute",
    "use_flash_attn": True,
}


def write_folder(folder: Path, config: dict[str, Any], weights: Weights) -> Path:
    folder.mkdir()
    tiny_tokenizer(max_length=64).save(folder)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def drawn(shapes: dict[str, tuple[int, ...]]) -> Weights:
    """Draw weights; norms lie around 1."""
    torch.manual_seed(0)
    return {
        name: torch.randn(shape) * 0.2
        + ("orm" in name or "ln" in name) * name.endswith("weight") * (len(shape) == 1)
        for name, shape in shapes.items()
    }


def layer_shapes(
    prefix: str, *names: str, out: int = SIZE, size: int = SIZE, bias: bool = True
) -> dict[str, Any]:
    shapes: dict[str, tuple[int, ...]] = {}
    for name in names:
        shapes[f"{prefix}{name}.weight"] = (out, size)
        shapes |= {f"{prefix}{name}.bias": (out,)} if bias else {}
    return shapes


def norm_shapes(*names: str) -> dict[str, tuple[int, ...]]:
    return {f"{name}.{kind}": (SIZE,) for name in names for kind in ("weight", "bias")}


def linear(weights: Weights, name: str, x: Tensor) -> Tensor:
    return F.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))


def norm(weights: Weights, name: str, x: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], eps)


def attend(query: Tensor, key: Tensor, value: Tensor, added: Tensor | float = 0.0) -> Tensor:
    """Attention of (T, D) each, by heads; `added` is (H, T, T)."""
    q, k, v = (each.view(len(each), HEADS, -1).transpose(0, 1) for each in (query, key, value))
    scores = q @ k.mT / math.sqrt(SIZE // HEADS) + added
    return (scores.softmax(dim=-1) @ v).transpose(0, 1).reshape(len(query), SIZE)


def jina_v2_weights() -> Weights:
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (VOCABULARY, SIZE),
        "embeddings.token_type_embeddings.weight": (2, SIZE),
        **norm_shapes("embeddings.LayerNorm"),
        **layer_shapes("", "pooler.dense"),
    }
    for number in range(LAYERS):
        own = f"encoder.layer.{number}."
        shapes |= layer_shapes(f"{own}attention.", "self.query", "self.key", "self.value", "output.dense")
        shapes |= norm_shapes(f"{own}attention.output.LayerNorm", f"{own}mlp.layernorm")
        shapes |= layer_shapes(own, "mlp.gated_layers", out=2 * INNER, bias=False)
        shapes |= layer_shapes(own, "mlp.wo", size=INNER)
    return drawn(shapes)


def jina_start(weights: Weights, ids: list[int]) -> tuple[Tensor, Tensor]:
    """Return what the first layer reads, and what distances add to scores: of 3 heads those of 2, 1/16 and 1/256, then the first of 4, 1/4."""
    hidden = (
        weights["embeddings.word_embeddings.weight"][ids]
        + weights["embeddings.token_type_embeddings.weight"][0]
    )
    hidden = norm(weights, "embeddings.LayerNorm", hidden, 1e-12)
    place = torch.arange(len(ids), dtype=torch.float32)
    far = -torch.tensor([1 / 16, 1 / 256, 1 / 4])[:, None, None] * (place[:, None] - place).abs()
    return hidden, far


def jina_v2(weights: Weights, ids: list[int]) -> Tensor:
    """Günther et al. 2023, sections 4 and 5."""
    hidden, far = jina_start(weights, ids)
    for number in range(LAYERS):
        own = f"encoder.layer.{number}."
        query, key, value = (
            linear(weights, f"{own}attention.self.{n}", hidden) for n in ("query", "key", "value")
        )
        out = linear(weights, f"{own}attention.output.dense", attend(query, key, value, far))
        hidden = norm(weights, f"{own}attention.output.LayerNorm", hidden + out, 1e-12)
        gate, plain = linear(weights, f"{own}mlp.gated_layers", hidden).chunk(2, dim=-1)
        out = linear(weights, f"{own}mlp.wo", F.gelu(gate) * plain)
        hidden = norm(weights, f"{own}mlp.layernorm", hidden + out, 1e-12)
    return hidden


def jina_code_weights() -> Weights:
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (VOCABULARY, SIZE),
        "embeddings.token_type_embeddings.weight": (2, SIZE),
        **norm_shapes("embeddings.LayerNorm"),
    }
    for number in range(LAYERS):
        own = f"encoder.layer.{number}."
        shapes |= layer_shapes(f"{own}attention.", "self.query", "self.key", "self.value", "output.dense")
        shapes |= norm_shapes(*(f"{own}attention.self.layer_norm_{of}" for of in ("q", "k")))
        shapes |= norm_shapes(f"{own}attention.output.LayerNorm", f"{own}layer_norm_1", f"{own}layer_norm_2")
        shapes |= layer_shapes(own, "mlp.up_gated_layer", out=2 * INNER, bias=False)
        shapes |= layer_shapes(own, "mlp.down_layer", size=INNER)
    return drawn(shapes)


def jina_code(weights: Weights, ids: list[int]) -> Tensor:
    """Jina v2 with queries and keys normed over all heads, two norms behind attention, and the gate in the second half."""
    hidden, far = jina_start(weights, ids)
    for number in range(LAYERS):
        own = f"encoder.layer.{number}."
        query, key, value = (
            linear(weights, f"{own}attention.self.{n}", hidden) for n in ("query", "key", "value")
        )
        query = norm(weights, f"{own}attention.self.layer_norm_q", query, 1e-12)
        key = norm(weights, f"{own}attention.self.layer_norm_k", key, 1e-12)
        out = linear(weights, f"{own}attention.output.dense", attend(query, key, value, far))
        once = norm(weights, f"{own}attention.output.LayerNorm", hidden + out, 1e-12)
        hidden = norm(weights, f"{own}layer_norm_1", hidden + once, 1e-12)
        plain, gate = linear(weights, f"{own}mlp.up_gated_layer", hidden).chunk(2, dim=-1)
        out = linear(weights, f"{own}mlp.down_layer", plain * F.gelu(gate))
        hidden = norm(weights, f"{own}layer_norm_2", hidden + out, 1e-12)
    return hidden


def nomic_v2_weights() -> Weights:
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (VOCABULARY, SIZE),
        "embeddings.token_type_embeddings.weight": (1, SIZE),
        **norm_shapes("emb_ln"),
    }
    for number in range(LAYERS):
        own = f"encoder.layers.{number}."
        shapes |= layer_shapes(own, "attn.Wqkv", out=3 * SIZE) | layer_shapes(own, "attn.out_proj")
        shapes |= norm_shapes(f"{own}norm1", f"{own}norm2")
        if number % 2:
            shapes |= {f"{own}mlp.experts.mlp.w{which}": (EXPERTS * INNER, SIZE) for which in (1, 2)}
            shapes |= {f"{own}mlp.router.layer.weight": (EXPERTS, SIZE), f"{own}mlp.experts.bias": (SIZE,)}
        else:
            shapes |= layer_shapes(own, "mlp.fc1", out=INNER) | layer_shapes(own, "mlp.fc2", size=INNER)
    return drawn(shapes)


def rotated(x: Tensor) -> Tensor:
    """Rotate (T, D) by heads: Su et al. 2021, eq. 34, with halves."""
    heads = x.view(len(x), HEADS, -1)
    frequency = 10_000.0 ** (-torch.arange(0, SIZE // HEADS, 2) / (SIZE // HEADS))
    angle = torch.arange(len(x))[:, None, None] * frequency
    first, second = heads.chunk(2, dim=-1)
    turned = (first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin())
    return torch.cat(turned, dim=-1).view(len(x), SIZE)


def nomic_v2(weights: Weights, ids: list[int]) -> Tensor:
    """Nussbaum and Duderstadt 2025, section 3: of every token the two most probable of four experts, weighted as they are."""
    hidden = (
        weights["embeddings.word_embeddings.weight"][ids]
        + weights["embeddings.token_type_embeddings.weight"][0]
    )
    hidden = norm(weights, "emb_ln", hidden, 1e-5)
    for number in range(LAYERS):
        own = f"encoder.layers.{number}."
        query, key, value = linear(weights, f"{own}attn.Wqkv", hidden).chunk(3, dim=-1)
        out = linear(weights, f"{own}attn.out_proj", attend(rotated(query), rotated(key), value))
        hidden = norm(weights, f"{own}norm1", hidden + out, 1e-5)
        if number % 2:
            out = torch.stack([_by_experts(weights, f"{own}mlp.", token) for token in hidden])
        else:
            out = linear(weights, f"{own}mlp.fc2", F.gelu(linear(weights, f"{own}mlp.fc1", hidden)))
        hidden = norm(weights, f"{own}norm2", hidden + out, 1e-5)
    return hidden


def _by_experts(weights: Weights, own: str, token: Tensor) -> Tensor:
    first, second = (weights[f"{own}experts.mlp.w{which}"].view(EXPERTS, INNER, SIZE) for which in (1, 2))
    shares = linear(weights, f"{own}router.layer", token).softmax(dim=-1)
    out = weights[f"{own}experts.bias"].clone()
    for expert in shares.topk(2).indices.tolist():
        out += shares[expert] * (F.gelu(first[expert] @ token) @ second[expert])
    return out


CASES = {
    "jina v2": (JINA_V2, jina_v2_weights, jina_v2),
    "jina v2 for code": (JINA_CODE, jina_code_weights, jina_code),
    "nomic v2": (NOMIC_V2, nomic_v2_weights, nomic_v2),
}


@pytest.mark.parametrize("case", CASES)
def test_vectors_are_those_by_hand_and_what_is_written_has_the_same(case: str, tmp_path: Path) -> None:
    config, make, compute = CASES[case]
    weights = make()
    folder = write_folder(tmp_path / "hub", config, weights)
    tokenizer = tiny_tokenizer(max_length=64)
    wanted = np.stack(
        [compute(weights, tokenizer.encode([text]).input_ids.tolist()).mean(dim=0).numpy() for text in TEXTS]
    )
    backends: tuple[WantedRuntime, ...] = ("auto", "torch")
    for backend in backends:
        ours = Encoder.load(folder, device="cpu", precision="fp32", backend=backend)
        np.testing.assert_allclose(ours.encode(TEXTS), wanted, atol=TOLERANCE)
    read = read_model_folder(folder)
    write_model(tmp_path / "own", load_model(read), read.tokenizer, read.modules, family=read.family)
    again = Encoder.load(tmp_path / "own", device="cpu").encode(TEXTS)
    np.testing.assert_allclose(again, wanted, atol=TOLERANCE)
    assert "auto_map" not in json.loads((tmp_path / "own" / "config.json").read_text(encoding="utf-8"))


def test_jina_v2_is_known_by_its_config_which_calls_itself_another() -> None:
    family, config = read_config(JINA_V2, "config.json")
    assert (family, config.position, config.max_tokens) == ("jina_bert", "alibi", 8192)
    assert read_config(write_config(config, "jina_bert"), "config.json") == ("jina_bert", config)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            JINA_V2 | {"feed_forward_type": "original"},
            "feed_forward_type is 'original'; known are geglu, reglu",
        ),
        (
            JINA_V2
            | {
                "auto_map": {
                    "AutoModel": "jinaai/jina-bert-v2-qk-devlin-norm-1e-2--modeling_bert.JinaBertModel"
                }
            },
            "whose norms of queries and keys are not known",
        ),
        (
            JINA_V2 | {"auto_map": {"AutoModel": "modeling_own.OwnModel"}},
            r"code of its own along \(auto_map: modeling_own.OwnModel\)",
        ),
        (NOMIC_V2 | {"moe_every_n_layers": 3}, "moe_every_n_layers is 3; only 2 is computed"),
        (NOMIC_V2 | {"expert_choice_router": True}, "expert_choice_router is True; only False is computed"),
        (NOMIC_V2 | {"num_shared_experts": 1}, "num_shared_experts is 1; only False is computed"),
        (
            NOMIC_V2 | {"activation_function": "swiglu"},
            "activation_function is 'swiglu'; only 'gelu' is computed",
        ),
        (NOMIC_V2 | {"num_experts": 1}, "num_experts is 1; there must be at least 2"),
        (FLASH | {"position_embedding_type": "alibi"}, "model_type is None; embedkit reads"),
    ],
)
def test_a_piece_that_is_not_computed_is_named(content: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_config(content, "config.json")


def flashed(folder: Path) -> None:
    """Name and pack the weights of an XLM-RoBERTa as Jina's code does."""
    path, names = (
        folder / "model.safetensors",
        {
            "embeddings.LayerNorm.": "emb_ln.",
            "encoder.layer.": "encoder.layers.",
            ".attention.output.dense.": ".mixer.out_proj.",
            ".attention.output.LayerNorm.": ".norm1.",
            ".intermediate.dense.": ".mlp.fc1.",
            ".output.dense.": ".mlp.fc2.",
            ".output.LayerNorm.": ".norm2.",
        },
    )
    stored = load_file(path)
    packed: Weights = {}
    for name, tensor in stored.items():
        if ".attention.self." in name:
            before, _, kind = name.partition(".attention.self.")[0], "", name.rpartition(".")[2]
            parts = [stored[f"{before}.attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
            name, tensor = f"{before}.mixer.Wqkv.{kind}", torch.cat(parts)
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        packed[name] = tensor.contiguous()
    path.unlink()
    save_file(packed, path, metadata={"format": "pt"})


@pytest.mark.parametrize("backend", ["native", "numpy", "torch"])
def test_a_reranker_in_jinas_own_layout_has_the_scores_of_the_plain_one(backend: str, tmp_path: Path) -> None:
    shape: dict[str, Any] = FAMILY_SHAPES["xlm-roberta"] | {"num_attention_heads": 2}
    plain = write_tiny_cross_encoder(tmp_path / "m", family="xlm-roberta", **shape)
    how: dict[str, Any] = {"device": "cpu", "precision": "fp32", "backend": backend}
    wanted = CrossEncoder.load(plain, **how).score(QUERY, TEXTS)
    flashed(plain)
    content = json.loads((plain / "config.json").read_text(encoding="utf-8")) | FLASH
    del content["model_type"]
    (plain / "config.json").write_text(json.dumps(content), encoding="utf-8")
    assert any(".mixer.Wqkv." in name for name in load_file(plain / "model.safetensors"))
    np.testing.assert_array_equal(CrossEncoder.load(plain, **how).score(QUERY, TEXTS), wanted)


def test_a_head_that_classifies_tokens_is_left_out_where_the_config_names_it(tmp_path: Path) -> None:
    """gte-multilingual-base has one, for its sparse vectors."""
    folder = write_tiny_model(tmp_path / "m", config=tiny_config(**FAMILY_SHAPES["gte"]))
    wanted = Encoder.load(folder, device="cpu").encode(TEXTS)
    edit_weights(folder, lambda tensors: tensors.update({"classifier.weight": torch.ones(1, 32)}))
    with pytest.raises(CheckpointError, match=r"has no place for: classifier\.weight"):
        Encoder.load(folder, device="cpu")
    edit_json(folder / "config.json", architectures=["NewModel", "NewForTokenClassification"])
    np.testing.assert_array_equal(Encoder.load(folder, device="cpu").encode(TEXTS), wanted)
    how: dict[str, Any] = {"device": "cpu", "precision": "fp32", "backend": "torch"}
    np.testing.assert_allclose(Encoder.load(folder, **how).encode(TEXTS), wanted, atol=TOLERANCE)
