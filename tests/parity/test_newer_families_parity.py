"""The newer families against transformers on random tiny models: padded on either side, odd lengths, beyond windows and buckets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("sentence_transformers", reason="the extra 'parity' is not installed")

import transformers
from sentence_transformers import SentenceTransformer

from embedkit.checkpoint.folder import read_model_folder
from embedkit.checkpoint.weights import load_sentence_encoder, save_sentence_encoder
from embedkit.encoding.encoder import Encoder
from tests.parity.newer import TOLERANCE, VOCABULARY, Case, batch, their_tokens, write_theirs

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of their own code
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

DEBERTA: dict[str, Any] = {
    "relative_attention": True,
    "position_buckets": 32,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "position_biased_input": False,
    "type_vocab_size": 0,
}
T5: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 3,
    "num_heads": 4,
}
GEMMA: dict[str, Any] = {
    "num_hidden_layers": 7,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "sliding_window": 8,
    "query_pre_attn_scalar": 24,
}
GPT2: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "n_embd": 32,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 300,
    "initializer_range": 0.2,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
CASES: dict[str, Case] = {
    "electra": Case("electra", {"embedding_size": 16}),
    "electra as wide": Case("electra", {"embedding_size": 32, "hidden_act": "relu"}),
    "nomic_bert": Case("nomic_bert", {"type_vocab_size": 2}),
    "gte": Case("gte", {"type_vocab_size": 1}),
    "gte scaled": Case(
        "gte",
        {
            "type_vocab_size": 0,
            "rope_parameters": {"rope_type": "linear", "rope_theta": 20000.0, "factor": 1.7},
        },
    ),
    "eurobert": Case("eurobert", {"num_key_value_heads": 2, "rope_theta": 250000.0}),
    "deberta-v2": Case("deberta-v2", DEBERTA),
    "deberta-v2 far": Case("deberta-v2", DEBERTA | {"max_relative_positions": 300, "position_buckets": 16}),
    "deberta-v2 apart": Case(
        "deberta-v2",
        DEBERTA
        | {
            "share_att_key": False,
            "position_buckets": -1,
            "norm_rel_ebd": "none",
            "position_biased_input": True,
        },
    ),
    "deberta-v2 convolved": Case(
        "deberta-v2",
        DEBERTA | {"pos_att_type": ["c2p"], "conv_kernel_size": 3, "conv_act": "gelu", "type_vocab_size": 2},
    ),
    "t5": Case("t5", T5, "T5EncoderModel", {}),
    "t5 gated": Case(
        "t5",
        T5 | {"feed_forward_proj": "gated-gelu", "d_kv": 12, "relative_attention_max_distance": 40},
        "T5EncoderModel",
        {},
    ),
    "mt5": Case("mt5", T5 | {"feed_forward_proj": "gated-gelu"}, "MT5EncoderModel", {}),
    "qwen3": Case("qwen3", {"num_key_value_heads": 2, "head_dim": 16}),
    "gemma3_text": Case("gemma3_text", GEMMA | {"use_bidirectional_attention": True}),
    "gemma3_text causal": Case(
        "gemma3_text", GEMMA | {"use_bidirectional_attention": False, "sliding_window": 7}
    ),
    "gpt2": Case("gpt2", GPT2, "", {}),
    "qwen2 causal": Case("qwen2", {"num_key_value_heads": 2, "rope_theta": 1e6}),
    "qwen2 both ways": Case("qwen2", {"num_key_value_heads": 1, "is_causal": False}),
    "llama": Case("llama", {"num_key_value_heads": 2, "rms_norm_eps": 1e-5}),
    "llama biased": Case("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama_both_ways": Case("llama", {"num_key_value_heads": 2, "is_causal": False}),
    "mistral": Case("mistral", {"num_key_value_heads": 2, "sliding_window": 8, "head_dim": 16}),
    "mistral both ways": Case("mistral", {"sliding_window": 7, "is_causal": False, "num_key_value_heads": 2}),
    "mistral without a window": Case("mistral", {"sliding_window": None, "num_key_value_heads": 4}),
    "qwen3 both ways": Case(
        "qwen3", {"num_key_value_heads": 2, "head_dim": 8, "is_causal": False, "num_hidden_layers": 2}
    ),
    "jina_embeddings_v3": Case("jina_embeddings_v3", {"type_vocab_size": 1}),
    "eurobert biased": Case("eurobert", {"attention_bias": True, "mlp_bias": True}),
}
TEXTS = [
    "the dog runs",
    "",
    "A small RED horse, naïve; eats 12 large green guitars!",
    "the old man walks by the water and the boy sings an old song " * 12,
]


@pytest.mark.parametrize("name", CASES)
def test_their_folder_gives_us_their_token_vectors_and_ours_gives_them_ours(
    name: str, tmp_path: Path
) -> None:
    model = write_theirs(CASES[name], tmp_path / "theirs")
    folder = read_model_folder(tmp_path / "theirs")
    loaded = load_sentence_encoder(folder)
    for lengths in ([61, 37, 37, 5, 1], [233, 160]):
        ids, mask = batch(lengths)
        expected = their_tokens(model, ids, mask)
        with torch.inference_mode():
            padded = loaded.encoder(ids, mask)[mask]
            packed = loaded.encoder.forward_packed(ids[mask], lengths)
        torch.testing.assert_close(packed, expected, rtol=0, atol=TOLERANCE)
        torch.testing.assert_close(padded, expected, rtol=0, atol=TOLERANCE)
    save_sentence_encoder(tmp_path / "ours", loaded, folder.tokenizer, folder.modules, family=folder.family)
    again = read_model_folder(tmp_path / "ours")
    assert (again.family, again.config) == (folder.family, folder.config)
    kind = getattr(transformers, CASES[name].class_name or "AutoModel")
    theirs = kind.from_pretrained(tmp_path / "ours", attn_implementation="eager").eval()
    torch.testing.assert_close(their_tokens(theirs, ids, mask), expected, rtol=0, atol=TOLERANCE)


# Not of Qwen 2, whose tokenizer transformers reads as Qwen's whatever the folder says (test_newer_folders_parity.py has one).
@pytest.mark.parametrize("name", [name for name in CASES if " " not in name])
def test_texts_get_the_vectors_of_sentence_transformers(name: str, tmp_path: Path) -> None:
    write_theirs(CASES[name], tmp_path / "theirs")
    theirs = SentenceTransformer(str(tmp_path / "theirs"), device="cpu", local_files_only=True)
    theirs.save(str(tmp_path / "sentence"))
    wanted = theirs.encode(TEXTS, show_progress_bar=False)
    for folder in ("theirs", "sentence"):
        ours = Encoder.load(tmp_path / folder, device="cpu").encode(TEXTS, on_truncate="ok")
        np.testing.assert_allclose(ours, wanted, rtol=0, atol=TOLERANCE)
