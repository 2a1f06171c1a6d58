"""The settings of a sentence-transformers folder: what changes vectors is computed, or refused by its name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedkit.checkpoint.folder import fingerprint, read_model_folder
from embedkit.encoding.encoder import Encoder
from embedkit.errors import CheckpointError
from embedkit.model.config import DenseConfig, LayerNormConfig, SentenceConfig
from tests.checkpoint.damage import copy_of, edit_json
from tests.tiny import write_tiny_model

LIMITS, TEXTS = "sentence_bert_config.json", "config_sentence_transformers.json"


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    return copy_of(tiny_model, tmp_path / "model")


def test_the_folders_dimension_is_cut_and_in_the_fingerprint(folder: Path) -> None:
    """As in sentence-transformers: what is left of a unit vector is shorter than 1, unless a cut is asked for."""
    whole = Encoder.load(folder).encode(["the dog"])
    before = fingerprint(read_model_folder(folder))
    edit_json(folder / TEXTS, truncate_dim=8)
    encoder = Encoder.load(folder)
    np.testing.assert_array_equal(encoder.encode(["the dog"]), whole[:, :8])
    changed = {name for name, value in encoder.fingerprint.items() if value != before[name]}
    assert (encoder.dimension, changed) == (8, {"dimension"})
    assert encoder.fingerprint == fingerprint(encoder.folder)
    asked = Encoder.load(folder, truncate_dim=8)
    assert asked.fingerprint == encoder.fingerprint
    np.testing.assert_allclose(np.linalg.norm(asked.encode(["the dog"]), axis=1), 1, rtol=1e-6)
    assert Encoder.load(folder, truncate_dim=16).encode(["the dog"]).shape == (1, 16)
    edit_json(folder / TEXTS, truncate_dim=99)
    assert Encoder.load(folder).fingerprint == before


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        (TEXTS, {"truncate_dim": 0}, "truncate_dim is 0; it must be at least 1"),
        (TEXTS, {"truncate_dim": "8"}, "'truncate_dim' is '8'; it must be a whole number"),
        (TEXTS, {"model_type": "SparseEncoder"}, "this is a learned sparse model"),
        (TEXTS, {"model_type": "CrossEncoder"}, "this is a cross-encoder, whose modules end in scores"),
        (
            LIMITS,
            {"transformer_task": "fill-mask"},
            "transformer_task is 'fill-mask'; a sentence encoder has",
        ),
        (LIMITS, {"module_output_name": "sentence_embedding"}, "module_output_name is 'sentence_embedding'"),
        (
            LIMITS,
            {"modality_config": {"text": {"method": "forward", "method_output_name": "pooler_output"}}},
            "modality_config is .*'pooler_output'.*; only a text's last_hidden_state is computed",
        ),
        (LIMITS, {"modality_config": {}}, "modality_config is {}; only"),
        (
            LIMITS,
            {"processing_kwargs": {"text": {"max_length": 9}}},
            "processing_kwargs is .*does not compute",
        ),
        (LIMITS, {"query_length": 9}, "query_length is 9, which embedkit does not compute. Set it to null"),
        (LIMITS, {"document_length": 9}, "document_length is 9"),
        (LIMITS, {"query_expansion": {"strategy": "fixed"}}, "query_expansion is {'strategy': 'fixed'}"),
        (LIMITS, {"tokenizer_name_or_path": "/else"}, "tokenizer_name_or_path is '/else'"),
        (
            LIMITS,
            {"tokenizer_args": {"truncation_side": "left", "use_fast": True}},
            r"tokenizer_args sets truncation_side, which embedkit does not read there\. Write it into tokenizer_conf",
        ),
        (
            LIMITS,
            {"config_kwargs": {"hidden_act": "relu"}},
            r"config_kwargs sets hidden_act.*into config\.json",
        ),
        (LIMITS, {"model_kwargs": 7}, "'model_kwargs' is 7; it must be an object"),
        (
            "1_Pooling/config.json",
            {"include_prompt": "no"},
            "'include_prompt' is 'no'; it must be true or false",
        ),
        (
            "2_Normalize/config.json",
            {"module_output_name": "x"},
            "module_output_name is 'x'; only 'sentence_emb",
        ),
        ("config.json", {"is_decoder": True}, r"config\.json: is_decoder is true; only an encoder"),
        (
            "config.json",
            {"quantization_config": {"bits": 4}},
            r"has a quantization_config; take the model's weights",
        ),
        (
            "adapter_config.json",
            {"peft_type": "LORA"},
            r"adapter_config.json without adapter_model.safetensors",
        ),
    ],
)
def test_what_would_change_vectors_and_is_not_computed_is_refused_by_name(
    name: str, fields: dict[str, Any], message: str, folder: Path
) -> None:
    edit_json(folder / name, **fields)
    with pytest.raises(CheckpointError, match=message):
        read_model_folder(folder)


def test_settings_that_change_no_vector_are_passed_over(folder: Path) -> None:
    before = fingerprint(read_model_folder(folder))
    harmless = {
        "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
        "module_output_name": "token_embeddings",
        "processing_kwargs": {},
        "unpad_inputs": True,
        "query_length": None,
        "model_args": {"trust_remote_code": True, "torch_dtype": "float16"},
    }
    edit_json(folder / LIMITS, **harmless)
    edit_json(folder / TEXTS, model_type="SentenceTransformer", __version__={"transformers": "5"})
    edit_json(
        folder / "1_Pooling" / "config.json", word_embedding_dimension=7
    )  # only the encoder's own counts
    edit_json(folder / "tokenizer_config.json", padding_side="left")  # batches here have no padding
    assert fingerprint(read_model_folder(folder)) == before


def test_a_plain_encoder_takes_no_settings_of_sentence_transformers(folder: Path) -> None:
    """Without modules.json they are not its own, and sentence-transformers reads none."""
    edit_json(folder / LIMITS, max_seq_length=7, query_length=9)
    edit_json(folder / TEXTS, truncate_dim=8, prompts={"query": "q: "})
    (folder / "modules.json").unlink()
    read = read_model_folder(folder)
    assert (read.dimension, read.tokenizer.max_length, dict(read.modules.prompts)) == (32, 32, {})
    edit_json(folder / "config.json", architectures=["RobertaForCausalLM"])
    with pytest.raises(
        CheckpointError, match=r"a language model \(RobertaForCausalLM\), of which nothing says"
    ):
        read_model_folder(folder)


def test_layers_whose_sizes_do_not_meet_are_refused(tmp_path: Path) -> None:
    dense = (DenseConfig(in_features=32, out_features=8), LayerNormConfig(size=8))
    folder = write_tiny_model(tmp_path / "m", sentence=SentenceConfig(dense=dense))
    assert read_model_folder(folder).modules.sentence.dense == dense
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == [
        "1_Pooling",
        "2_Dense",
        "3_LayerNorm",
    ]
    edit_json(folder / "3_LayerNorm" / "config.json", dimension=9)
    with pytest.raises(CheckpointError, match=r"3_LayerNorm: takes vectors of 9 dimensions; .* have 8"):
        read_model_folder(folder)


def test_a_pickled_layer_names_the_whole_models_folder_to_convert(tmp_path: Path) -> None:
    dense = (DenseConfig(in_features=32, out_features=8),)
    folder = write_tiny_model(tmp_path / "m", sentence=SentenceConfig(dense=dense))
    (folder / "2_Dense" / "model.safetensors").rename(folder / "2_Dense" / "pytorch_model.bin")
    for backend in ("numpy", "torch"):
        with pytest.raises(CheckpointError, match=rf"embedkit model convert {folder} --output NEW_FOLDER"):
            Encoder.load(folder, backend=backend)


def test_texts_are_cut_on_the_left_where_the_folder_says_so(folder: Path) -> None:
    before = fingerprint(read_model_folder(folder))["tokenizer"]
    edit_json(folder / "tokenizer_config.json", truncation_side="left")
    read = read_model_folder(folder)
    assert fingerprint(read)["tokenizer"] != before
    words = ["dog", "cat", *["girl"] * 30]
    batch, whole = (read.tokenizer.encode([" ".join(some)]) for some in (words, words[2:]))
    np.testing.assert_array_equal(batch.input_ids, whole.input_ids)
    assert batch.truncated.tolist() == [True]
    pair = read.tokenizer.encode_pairs(["dog cat"], [" ".join(words)])
    assert pair.input_ids.tolist()[1:3] == read.tokenizer.ids(["dog cat"])[0]
    assert pair.input_ids.tolist()[4:-1] == read.tokenizer.ids(["girl " * 27])[0]
    folder_again = folder.with_name("again")
    folder_again.mkdir()
    read.tokenizer.save(folder_again)
    saved = json.loads((folder_again / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert saved["truncation_side"] == "left"
