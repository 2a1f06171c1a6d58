"""Multi-vector folders: written and read, and refused where something in them does not fit."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from embedkit.checkpoint.classification import read_classifier_folder
from embedkit.checkpoint.converting import convert_folder
from embedkit.checkpoint.folder import read_model_folder
from embedkit.checkpoint.multi_vector import (
    is_multi_vector,
    load_layers,
    read_multi_vector_folder,
    with_markers,
)
from embedkit.checkpoint.multi_vector_modules import PUNCTUATION, QueryExpansion, TokenPooling
from embedkit.checkpoint.multi_vector_weights import load_multi_vector
from embedkit.errors import CheckpointError
from tests.tiny import write_tiny_model
from tests.tiny_multi_vector import MARKERS, marked_tokenizer, write_tiny_multi_vector

MASK = "2_MultiVectorMask/config.json"
DENSE = "1_Dense/config.json"
LIMITS = "sentence_bert_config.json"
TEXTS = "config_sentence_transformers.json"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_multi_vector(tmp_path_factory.mktemp("written") / "model")


def changed(folder: Path, tmp_path: Path, file: str, **fields: Any) -> Path:
    """Copy a folder and change fields of one of its JSON files."""
    copy = tmp_path / "changed"
    shutil.copytree(folder, copy)
    content = json.loads((copy / file).read_text(encoding="utf-8"))
    (copy / file).write_text(json.dumps(content | fields), encoding="utf-8")
    return copy


def test_what_is_written_is_read(tmp_path: Path) -> None:
    expansion = QueryExpansion(length=12, token="[UNK]", attend=True, fixed=False)
    folder = write_tiny_multi_vector(
        tmp_path / "model",
        expansion=expansion,
        query_length=14,
        skiplist_roles=("query", "document"),
        pooling=TokenPooling(factor=2.5, protected=2),
        similarity="meanmaxsim",
    )
    read = read_multi_vector_folder(folder)
    modules = read.modules
    assert is_multi_vector(folder)
    assert (modules.style, modules.expansion, modules.similarity) == (
        "sentence-transformers",
        expansion,
        "meanmaxsim",
    )
    assert (modules.query_length, modules.document_length) == (14, 20)
    assert modules.pooling == TokenPooling(factor=2.5, protected=2)
    assert modules.skiplist_roles == ("query", "document")
    assert (modules.prompt("query"), modules.prompt("document")) == ("[unused0] ", "[unused1] ")
    assert (read.dimension, read.tokenizer("query").max_length, read.tokenizer("document").max_length) == (
        16,
        14,
        20,
    )
    assert read.expansion_id == 1
    assert len(read.skipped_ids) == 3


def test_weights_come_back_as_they_were(written: Path) -> None:
    read = read_multi_vector_folder(written)
    model = load_multi_vector(read)
    (layer,) = load_layers(read)
    stored = load_file(written / "1_Dense" / "model.safetensors")["linear.weight"]
    torch.testing.assert_close(model.dense[0][0].weight, stored)  # type: ignore[index] # a Sequential
    torch.testing.assert_close(torch.from_numpy(layer["0.weight"]), stored)


def test_the_fingerprint_tells_apart_what_changes_vectors(written: Path, tmp_path: Path) -> None:
    before = read_multi_vector_folder(written).fingerprint
    longer = changed(written, tmp_path, LIMITS, document_length=21)
    assert read_multi_vector_folder(longer).fingerprint == before | {"document_length": 21}
    assert json.loads(json.dumps(before)) == before


def test_max_seq_length_is_that_of_documents_and_of_queries_that_are_not_filled_up(
    written: Path, tmp_path: Path
) -> None:
    read = read_multi_vector_folder(written, max_seq_length=12)
    assert (read.tokenizer("query").max_length, read.tokenizer("document").max_length) == (8, 12)
    plain = write_tiny_multi_vector(tmp_path / "plain", expansion=None)
    read = read_multi_vector_folder(plain, max_seq_length=12)
    assert (read.tokenizer("query").max_length, read.tokenizer("document").max_length) == (12, 12)


def test_it_is_refused_where_another_kind_is_wanted_and_the_reverse(written: Path, tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match="multi-vector model, which gives a text a vector for each token"
    ):
        read_model_folder(written)
    with pytest.raises(CheckpointError, match="multi-vector model, which reads query and text apart"):
        read_classifier_folder(written)
    dense = write_tiny_model(tmp_path / "dense")
    assert not is_multi_vector(dense)
    with pytest.raises(CheckpointError, match="no multi-vector model, and gives a text one vector"):
        read_multi_vector_folder(dense)
    with pytest.raises(CheckpointError, match="nowhere"):
        read_multi_vector_folder("nowhere")


@pytest.mark.parametrize(
    ("file", "fields", "message"),
    [
        (MASK, {"keep_only_token_ids": [3]}, "keep_only_token_ids names tokens of images"),
        (DENSE, {"in_features": 24}, "takes vectors of 24 dimensions; those that reach it have 32"),
        (DENSE, {"out_features": 8}, r"shape \(16, 32\); config.json asks for \(8, 32\)"),
        (DENSE, {"module_input_name": "sentence_embedding"}, "only 'token_embeddings' is computed"),
        (DENSE, {"use_residual": True}, "1 of 2 weights are missing: residual.weight"),
        (LIMITS, {"query_expansion": {"strategy": "all", "length": 8}}, "strategy must be fixed or min"),
        (LIMITS, {"query_expansion": {"strategy": "fixed"}}, "its length at least 1"),
        (LIMITS, {"query_expansion": "yes"}, "query_expansion is 'yes'; it must be an object"),
        (
            LIMITS,
            {"query_expansion": {"strategy": "fixed", "length": 8, "token": "[NONE]"}},
            "filled up with the token '\\[NONE\\]', which is not in the vocabulary",
        ),
        (LIMITS, {"query_expansion": {"strategy": "min", "length": 65}}, "the encoder reads 64"),
        (LIMITS, {"query_length": 5}, "query_length is 5, and queries are filled up to 8"),
        (LIMITS, {"document_length": "long"}, "'document_length' is 'long'; it must be a whole number"),
        (
            TEXTS,
            {"similarity_fn_name": "cosine"},
            "similarity_fn_name is 'cosine'; known are maxsim, meanmaxsim",
        ),
        (TEXTS, {"prompts": {"query": 3}}, "each must be a string"),
        ("tokenizer_config.json", {"padding_side": "left"}, "pads on the left; only on the right"),
    ],
)
def test_what_does_not_fit_is_refused(
    written: Path, tmp_path: Path, file: str, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_layers(read_multi_vector_folder(changed(written, tmp_path, file, **fields)))


def _without(kind: str) -> Callable[[list[dict[str, Any]]], list[dict[str, Any]]]:
    return lambda rows: [row for row in rows if not row["type"].endswith(kind)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without("Normalize"), "there is no Normalize"),
        (_without("MultiVectorMask"), "there is no MultiVectorMask"),
        (_without("Transformer"), "wanted Transformer, then"),
        (lambda rows: rows[::-1], "wanted Transformer, then"),
        (
            lambda rows: [*rows, {"path": "", "type": "my.code.Pooling"}],
            "'my.code.Pooling' is not one that embedkit",
        ),
        (lambda rows: [*rows, {"path": "../x", "type": rows[1]["type"]}], "leads out of the model's folder"),
        (lambda rows: [{"path": "", "type": "sentence_transformers.models.Router"}, *rows], "Router"),
    ],
)
def test_modules_that_are_not_computed_are_refused(
    written: Path, tmp_path: Path, change: Callable[[Any], Any], message: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(written, copy)
    rows = json.loads((copy / "modules.json").read_text(encoding="utf-8"))
    (copy / "modules.json").write_text(json.dumps(change(rows)), encoding="utf-8")
    with pytest.raises(CheckpointError, match=message):
        read_multi_vector_folder(copy)


def test_pooling_that_leaves_vectors_short_is_refused(tmp_path: Path) -> None:
    folder = write_tiny_multi_vector(tmp_path / "model", pooling=TokenPooling(factor=2))
    file = "4_HierarchicalTokenPooling/config.json"
    with pytest.raises(CheckpointError, match="'tasks' is 3; it must be a list"):
        read_multi_vector_folder(changed(folder, tmp_path / "c", file, tasks=3))
    with pytest.raises(CheckpointError, match="normalize_embeddings is not true"):
        read_multi_vector_folder(changed(folder, tmp_path / "a", file, normalize_embeddings=None))
    with pytest.raises(CheckpointError, match=r"pool_factor is 0.5 and num_protected_tokens 1"):
        read_multi_vector_folder(changed(folder, tmp_path / "b", file, pool_factor=0.5))


def colbert(folder: Path, written: Path, **metadata: Any) -> Path:
    """Lay out a folder as ColBERT's own code saves it."""
    shutil.copytree(written, folder)
    for name in ("modules.json", LIMITS, TEXTS):
        (folder / name).unlink()
    content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(
        json.dumps(content | {"architectures": ["HF_ColBERT"]}), encoding="utf-8"
    )
    weights = {f"bert.{name}": tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    projection = load_file(written / "1_Dense" / "model.safetensors")["linear.weight"]
    save_file(weights | {"linear.weight": projection}, folder / "model.safetensors")
    (folder / "artifact.metadata").write_text(json.dumps(metadata), encoding="utf-8")
    return folder


def test_colberts_own_folder_is_read(written: Path, tmp_path: Path) -> None:
    folder = colbert(tmp_path / "colbert", written, query_maxlen=8, doc_maxlen=20, dim=16)
    read = read_multi_vector_folder(folder)
    assert (read.modules.style, read.modules.skiplist, read.dimension) == ("colbert", PUNCTUATION, 16)
    assert read.modules.expansion == QueryExpansion(length=8)
    theirs, ours = load_multi_vector(read), load_multi_vector(read_multi_vector_folder(written))
    for name, tensor in ours.state_dict().items():
        torch.testing.assert_close(theirs.state_dict()[name], tensor)


def test_a_colbert_folder_in_fewer_bits_keeps_its_settings(written: Path, tmp_path: Path) -> None:
    folder = colbert(tmp_path / "colbert", written, query_maxlen=8, doc_maxlen=20, dim=16)
    convert_folder(folder, tmp_path / "half", dtype=torch.float16)
    assert read_multi_vector_folder(tmp_path / "half").modules == read_multi_vector_folder(folder).modules


def test_a_colbert_folder_that_does_not_fit_is_refused(written: Path, tmp_path: Path) -> None:
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({"dim": 128}, r"linear.weight has the shape \(16, 32\); artifact.metadata asks for vectors of 128"),
        ({"similarity": "l2"}, "similarity is 'l2'"),
        ({"query_token_id": "[Q]"}, r"the marker '\[Q\]' is not in the vocabulary"),
    )
    for number, (metadata, message) in enumerate(wrong):
        folder = colbert(tmp_path / str(number), written, **metadata)
        with pytest.raises(CheckpointError, match=message):
            read_multi_vector_folder(folder)
    folder = colbert(tmp_path / "bare", written)
    shutil.copy(written / "model.safetensors", folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"no weight 'linear.weight', ColBERT's projection"):
        read_multi_vector_folder(folder)


def test_markers_become_one_token_and_the_tokenizer_stays_as_it_is(tmp_path: Path) -> None:
    tokenizer = marked_tokenizer(special=False)
    before = tokenizer.ids([MARKERS[0] + " the dog"])
    marked = with_markers(tokenizer, MARKERS, tmp_path)
    (ids,) = marked.ids([MARKERS[0] + " the dog"])
    assert ids == [tokenizer.backend.token_to_id(MARKERS[0]), *tokenizer.ids(["the dog"])[0]]
    assert tokenizer.ids([MARKERS[0] + " the dog"]) == before != [ids]
    assert with_markers(marked, MARKERS, tmp_path) is marked


VALUES: tuple[Any, ...] = (3, "x", [], [3], {}, {"a": 3}, True, None, -1)


@pytest.mark.parametrize("file", [TEXTS, LIMITS, MASK, DENSE, "config.json", "artifact.metadata"])
def test_no_value_of_another_kind_ends_in_anything_but_a_checkpoint_error(
    written: Path, tmp_path: Path, file: str
) -> None:
    folder = written
    keys = json.loads((written / file).read_text(encoding="utf-8")) if file != "artifact.metadata" else {}
    if not keys:
        names = ("dim", "query_maxlen", "doc_maxlen", "similarity", "mask_punctuation", "query_token_id")
        folder, keys = colbert(tmp_path / "colbert", written), dict.fromkeys(names)
    for number, key in enumerate(keys):
        for place, value in enumerate(VALUES):
            copy = changed(folder, tmp_path / f"{number}.{place}", file, **{key: value})
            with contextlib.suppress(CheckpointError):
                load_layers(read_multi_vector_folder(copy))
            shutil.rmtree(copy)
