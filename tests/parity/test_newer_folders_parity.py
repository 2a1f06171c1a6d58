"""Folders as the newer models come: Qwen3-Embedding's, EmbeddingGemma's and sentence-T5's modules, beside sentence-transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from tokenizers import processors

pytest.importorskip("sentence_transformers", reason="the extra 'parity' is not installed")

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

from embedkit.checkpoint.folder import read_model_folder
from embedkit.checkpoint.sentence_folder import load_model, write_model
from embedkit.encoding.encoder import Encoder
from tests.parity.newer import TOLERANCE, Case, write_theirs
from tests.parity.test_newer_families_parity import CASES
from tests.parity.test_newer_tokenizers_parity import make

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of their own code
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

QUERY = "Instruct: Given a question, find texts that answer it\nQuery: "
TEXTS = ["the dog runs", "a small red horse", "the old man walks by the water and the boy sings " * 9]
# The case of the encoder, the pooling, the sizes of the dense layers, and the settings of the texts.
FOLDERS: dict[str, tuple[str, str, tuple[int, ...], dict[str, Any]]] = {
    "Qwen3-Embedding": (
        "qwen3",
        "lasttoken",
        (),
        {"prompts": {"query": QUERY, "document": ""}, "similarity_fn_name": "cosine"},
    ),
    "EmbeddingGemma": (
        "gemma3_text",
        "mean",
        (48, 32),
        {"prompts": {"query": "task: search result | query: ", "document": "title: none | text: "}},
    ),
    "sentence-T5": ("t5", "mean", (24,), {}),
    "GTR": ("t5 gated", "mean", (24,), {"similarity_fn_name": "dot"}),
    "E5-Mistral": ("mistral", "lasttoken", (), {"prompts": {"query": QUERY}}),
    "LLM2Vec": ("llama_both_ways", "mean", (48,), {}),
    "SGPT": ("gpt2", "weightedmean", (), {}),
}


def write_folder(name: str, folder: Path) -> Any:  # Any: an untyped library
    case, pooling, widths, settings = FOLDERS[name]
    write_theirs(CASES[case], folder / "plain")
    encoder = Transformer(str(folder / "plain"))
    modules: list[Any] = [encoder, Pooling(32, pooling_mode=pooling)]
    size = 32
    torch.manual_seed(1)
    for width in widths:
        modules.append(Dense(size, width, bias=False, activation_function=torch.nn.Identity()))
        size = width
    theirs = SentenceTransformer(modules=[*modules, Normalize()], device="cpu", **settings)
    if pooling == "lasttoken":
        theirs.tokenizer.padding_side = "left"
    theirs.save(str(folder / "sentence"))
    return SentenceTransformer(str(folder / "sentence"), device="cpu", local_files_only=True)


@pytest.mark.parametrize("name", FOLDERS)
def test_queries_and_documents_get_the_vectors_of_sentence_transformers(name: str, tmp_path: Path) -> None:
    theirs = write_folder(name, tmp_path)
    ours = Encoder.load(tmp_path / "sentence", device="cpu")
    for mine, wanted in (
        (ours.encode_queries(TEXTS), theirs.encode_query(TEXTS)),
        (ours.encode_documents(TEXTS), theirs.encode_document(TEXTS)),
    ):
        np.testing.assert_allclose(mine, wanted, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", FOLDERS)
def test_what_we_write_gives_them_the_same_vectors(name: str, tmp_path: Path) -> None:
    wanted = write_folder(name, tmp_path).encode_query(TEXTS)
    folder = read_model_folder(tmp_path / "sentence")
    write_model(tmp_path / "ours", load_model(folder), folder.tokenizer, folder.modules, family=folder.family)
    theirs = SentenceTransformer(str(tmp_path / "ours"), device="cpu", local_files_only=True)
    np.testing.assert_allclose(theirs.encode_query(TEXTS), wanted, rtol=0, atol=TOLERANCE)
    assert theirs.similarity_fn_name == FOLDERS[name][3].get("similarity_fn_name", "cosine")


@pytest.mark.parametrize("both_ways", [True, False])
def test_gte_qwen2_has_the_end_token_that_its_own_tokenizer_class_sets(
    both_ways: bool, tmp_path: Path
) -> None:
    """Theirs without that class needs the token in tokenizer.json; the folder, as it comes, leaves it to the class."""
    shape = {"vocab_size": 300, "num_key_value_heads": 2, "is_causal": not both_ways}
    write_theirs(Case("qwen2", shape), tmp_path / "plain")
    for name in ("special_tokens_map.json", "tokenizer_config.json", "tokenizer.json"):
        (tmp_path / "plain" / name).unlink()
    make("Qwen2Tokenizer").save_pretrained(tmp_path / "plain")
    modules: list[Any] = [
        Transformer(str(tmp_path / "plain")),
        Pooling(32, pooling_mode="lasttoken"),
        Normalize(),
    ]
    SentenceTransformer(modules=modules, device="cpu").save(str(tmp_path / "gte"))
    shutil.copytree(tmp_path / "gte", tmp_path / "theirs")
    path = tmp_path / "theirs" / "tokenizer.json"
    backend = tokenizers.Tokenizer.from_file(str(path))
    end = "<|endoftext|>"
    backend.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", pair=f"$A {end} $B {end}", special_tokens=[(end, backend.token_to_id(end))]
    )
    backend.save(str(path))
    code = {"AutoTokenizer": ["tokenization_qwen.Qwen2Tokenizer", "tokenization_qwen.Qwen2TokenizerFast"]}
    for name, own in (
        ("config.json", {"auto_map": {"AutoModel": "modeling_qwen.Qwen2Model"}, "is_causal": not both_ways}),
        ("tokenizer_config.json", {"auto_map": code, "add_eos_token": True}),
    ):
        file = tmp_path / "gte" / name
        file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | own), encoding="utf-8")
    theirs = SentenceTransformer(str(tmp_path / "theirs"), device="cpu", local_files_only=True)
    ours = Encoder.load(tmp_path / "gte", device="cpu")
    np.testing.assert_allclose(ours.encode(TEXTS), theirs.encode(TEXTS), rtol=0, atol=TOLERANCE)
    without = SentenceTransformer(str(tmp_path / "gte"), device="cpu", local_files_only=True)
    assert np.abs(without.encode(TEXTS) - theirs.encode(TEXTS)).max() > 0.01
