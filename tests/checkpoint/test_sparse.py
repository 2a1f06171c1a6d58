"""Folders of learned sparse models: what is refused, and with which words."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedkit.checkpoint.folder import read_model_folder
from embedkit.checkpoint.sparse import is_sparse, read_sparse_folder
from embedkit.checkpoint.sparse_weights import sparse_of, write_sparse
from embedkit.encoding.encoder import Encoder
from embedkit.encoding.sparse import SparseEncoder
from embedkit.errors import CheckpointError
from embedkit.model.sparse_config import TermPooling
from embedkit.reranking.cross_encoder import CrossEncoder
from embedkit.types import Computing
from tests.tiny import write_tiny_model
from tests.tiny_masked_lm import write_tiny_masked_lm

ON_CPU = Computing(device="cpu", precision="fp32")


def write_tiny_sparse(
    folder: Path, *, weigh_queries: bool = False, heads: int = 4, **modules: Any
) -> Path:  # Any: fields of `SentenceModules`
    made = write_tiny_masked_lm(folder.with_name(folder.name + "-mlm"), num_attention_heads=heads)
    read = read_model_folder(made)
    model, _ = sparse_of(read, TermPooling(), weigh_queries=weigh_queries)
    settings = replace(read.modules, **{"similarity": "dot"} | modules)
    write_sparse(folder, model, read.tokenizer, settings, family=read.family)
    return folder


def change(path: Path, **values: object) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | values), encoding="utf-8")


def test_kinds_are_told_apart_and_refused_by_name(tmp_path: Path) -> None:
    sparse, dense = write_tiny_sparse(tmp_path / "sparse"), write_tiny_model(tmp_path / "dense")
    assert is_sparse(sparse)
    assert not is_sparse(dense)
    with pytest.raises(
        CheckpointError, match=r"this is a learned sparse model \(SPLADE\).*here a dense model is wanted"
    ):
        Encoder.load(sparse)
    with pytest.raises(CheckpointError, match="this is no learned sparse model"):
        SparseEncoder.load(dense)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            "sentence_transformers.sparse_encoder.modules.sparse_auto_encoder.SparseAutoEncoder",
            r"SparseAutoEncoder \(CSR\)",
        ),
        ("my_model.Evil", "code that a model brings along is never run"),
        (
            "sentence_transformers.sentence_transformer.modules.normalize.Normalize",
            "code that a model brings along",
        ),
    ],
)
def test_other_modules_are_refused_by_name(kind: str, message: str, tmp_path: Path) -> None:
    folder = write_tiny_sparse(tmp_path / "sparse")
    rows = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    rows[1]["type"] = kind
    (folder / "modules.json").write_text(json.dumps(rows), encoding="utf-8")
    with pytest.raises(CheckpointError, match=message):
        read_sparse_folder(folder)


@pytest.mark.parametrize(
    ("file", "values", "message"),
    [
        (
            "1_SpladePooling/config.json",
            {"pooling_strategy": "mean"},
            "strategy is 'mean'; it must be one of max, sum",
        ),
        ("1_SpladePooling/config.json", {"activation_function": "tanh"}, "activation is 'tanh'"),
        ("config_sentence_transformers.json", {"max_active_dims": 0}, "max_active_dims is 0"),
        ("config_sentence_transformers.json", {"truncate_dim": 9}, "truncate_dim is set"),
        (
            "sentence_bert_config.json",
            {"transformer_task": "feature-extraction"},
            "a learned sparse model has 'fill-mask'",
        ),
    ],
)
def test_settings_that_are_not_computed_are_refused(
    file: str, values: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = write_tiny_sparse(tmp_path / "sparse")
    change(folder / file, **values)
    with pytest.raises(CheckpointError, match=message):
        SparseEncoder.load(folder, computing=ON_CPU)


def test_a_folder_without_a_head_is_refused(tmp_path: Path) -> None:
    folder = write_tiny_sparse(tmp_path / "sparse")
    dense = write_tiny_model(tmp_path / "dense")
    (folder / "model.safetensors").write_bytes((dense / "model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="has no masked-language-model head"):
        SparseEncoder.load(folder, computing=ON_CPU)


def test_weights_may_stand_in_a_file_by_token(tmp_path: Path) -> None:
    folder = write_tiny_sparse(tmp_path / "sparse", weigh_queries=True)
    query = folder / "query_0_SparseStaticEmbedding"
    (query / "model.safetensors").unlink()
    (query / "config.json").write_text(json.dumps({"path": "idf.json"}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"idf\.json: no such file"):
        read_sparse_folder(folder)
    (query / "idf.json").write_text(json.dumps({"dog": 2.5, "red": 0.5}), encoding="utf-8")
    encoder = SparseEncoder.load(folder, computing=ON_CPU)
    assert encoder.describe(encoder.encode_queries(["the red red dog", "a cat"])) == [
        {"dog": 2.5, "red": 0.5},
        {},
    ]
    (query / "idf.json").write_text(json.dumps({"dog": "much"}), encoding="utf-8")
    with pytest.raises(CheckpointError, match="the weight of 'dog' is \"much\"; it must be a number"):
        read_sparse_folder(folder)


def test_chunks_of_a_long_text_are_pooled(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    encoder = SparseEncoder.load(write_tiny_sparse(tmp_path / "sparse"), computing=ON_CPU)
    long = "the dog runs on the beach by the water " * 10
    chunks = encoder.encode([long], "document", on_truncate="chunk").to_dense()
    cut = encoder.encode_documents([long]).to_dense()
    assert "1 of 1 texts were cut to the 32 tokens" in caplog.text
    assert (chunks >= cut - 1e-6).all()
    assert (chunks > cut + 1e-6).any()


def test_a_fingerprint_tells_what_decides_the_vectors(tmp_path: Path) -> None:
    plain, weighed = (
        write_tiny_sparse(tmp_path / str(weigh), weigh_queries=weigh) for weigh in (False, True)
    )
    prints = [SparseEncoder.load(folder, computing=ON_CPU).fingerprint for folder in (plain, weighed)]
    assert prints[0]["sides"]["document"] == prints[1]["sides"]["document"]
    assert prints[0]["sides"]["query"] != prints[1]["sides"]["query"]
    limited = SparseEncoder.load(plain, computing=ON_CPU, max_active_dims=5)
    assert limited.fingerprint != prints[0]
    assert limited.encode_documents(["the dog runs"]).counts.tolist() == [5]
    with pytest.raises(TypeError, match="texts is the string"):
        limited.encode_documents("the dog runs")
    assert len(limited.encode_documents([])) == 0
    assert np.isfinite(limited.encode_documents(["a"]).weights).all()


def test_it_is_no_cross_encoder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="weights of terms; here a cross-encoder is wanted"):
        CrossEncoder.load(write_tiny_sparse(tmp_path / "sparse", weigh_queries=True))
