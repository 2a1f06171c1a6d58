"""Multi-vector folders: our token vectors are sentence-transformers', whoever wrote the folder, and ours load there."""

from __future__ import annotations

import json
import string
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from embedkit.checkpoint.multi_vector_modules import QueryExpansion, TokenPooling
from embedkit.encoding.multi_vector import MultiVectorEncoder
from embedkit.encoding.token_pooling import ward_clusters
from embedkit.model.config import DenseConfig
from embedkit.types import Float32, TextRole
from tests.tiny import FAMILY_SHAPES
from tests.tiny_multi_vector import (
    MARKERS,
    ON_CPU,
    marked_tokenizer,
    tiny_multi_vector_config,
    write_tiny_multi_vector,
)

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of their own code
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

pytest.importorskip(
    "sentence_transformers", "6", reason="the extra 'parity' is not installed, or older than 6"
)

from sentence_transformers import MultiVectorEncoder as Theirs  # noqa: E402  (after the check)
from sentence_transformers.base.modules import Dense, Normalize, Transformer  # noqa: E402
from sentence_transformers.multi_vector_encoder.modules import (  # noqa: E402
    HierarchicalTokenPooling,
    MultiVectorMask,
)
from transformers import AutoConfig, AutoModel  # noqa: E402

TOLERANCE = 1e-5  # float32, sums in another order
QUERIES = ["the dog runs", "a", "", "Which small cats eat, and who sings? " * 3]
DOCUMENTS = [
    "The old man walks by the water; and the boy sings, an old song.",
    "",
    "!!! , .",
    "red horse",
    "the old man walks by the water and the boy sings an old song " * 4,
]
ROLES: tuple[TextRole, ...] = ("query", "document")
FIXED = {"strategy": "fixed", "length": 8}


def theirs(folder: Path, role: TextRole) -> list[Float32]:
    model = Theirs(str(folder), device="cpu", local_files_only=True)
    encode = model.encode_query if role == "query" else model.encode_document
    texts = QUERIES if role == "query" else DOCUMENTS
    return [np.asarray(each) for each in encode(texts, convert_to_numpy=True, show_progress_bar=False)]


def ours(folder: Path, role: TextRole, **how: Any) -> list[Float32]:
    encoder = MultiVectorEncoder.load(folder, computing=replace(ON_CPU, **how))
    found = encoder.encode_queries(QUERIES) if role == "query" else encoder.encode_documents(DOCUMENTS)
    return [found.text(number) for number in range(len(found))]


def check_alike(folder: Path, **how: Any) -> None:
    for role in ROLES:
        for mine, wanted in zip(ours(folder, role, **how), theirs(folder, role), strict=True):
            assert mine.shape == wanted.shape
            np.testing.assert_allclose(mine, wanted, atol=TOLERANCE)


def base(folder: Path, family: str = "bert", *, special: bool = True, **sizes: Any) -> Path:
    """Save a random encoder of theirs, with our tiny tokenizer that has markers."""
    torch.manual_seed(0)
    tokenizer = marked_tokenizer(special=special)
    sizes |= (
        {"pad_token_id": 0} if family in ("modernbert", "eurobert") else {}
    )  # theirs is far beyond our few tokens
    shape = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
    config = AutoConfig.for_model(
        family,
        vocab_size=tokenizer.vocab_size,
        max_position_embeddings=64,
        initializer_range=0.2,
        **(shape | sizes),
    )
    AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save(folder)
    return folder


def saved(tmp_path: Path, *more: Any, family: str = "bert", skip: Any = None, **knobs: Any) -> Path:
    """Save a multi-vector model of theirs."""
    torch.manual_seed(1)
    first = Transformer(str(base(tmp_path / "base", family)), **knobs)
    dense = Dense(
        32, 16, bias=False, activation_function=torch.nn.Identity(), module_input_name="token_embeddings"
    )
    mask = MultiVectorMask(**(skip or {"skiplist_words": list(string.punctuation)}))
    modules = [first, dense, mask, Normalize(module_input_name="token_embeddings"), *more]
    prompts = {"query": f"{MARKERS[0]} ", "document": f"{MARKERS[1]} "}
    Theirs(modules=modules, device="cpu", prompts=prompts).save_pretrained(str(tmp_path / "theirs"))
    return tmp_path / "theirs"


@pytest.mark.parametrize("backend", ["native", "numpy", "torch"])
@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"query_length": 6, "document_length": 9},
        {"query_expansion": FIXED},
        {"query_expansion": FIXED | {"attend": True}, "document_length": 12},
        {"query_expansion": FIXED | {"token": "[UNK]"}},
        {"query_expansion": FIXED | {"strategy": "min"}},
        {"query_expansion": FIXED | {"strategy": "min"}, "query_length": 10},
    ],
    ids=["plain", "lengths", "fixed", "attended", "another token", "at least", "at least and at most"],
)
def test_vectors_are_theirs(
    tmp_path: Path, knobs: dict[str, Any], backend: Literal["native", "numpy", "torch"]
) -> None:
    check_alike(saved(tmp_path, **knobs), backend=backend)


@pytest.mark.parametrize("family", ["roberta", "mpnet", "modernbert", "distilbert", "albert", "eurobert"])
@pytest.mark.parametrize("attend", [False, True])
def test_vectors_of_other_families_are_theirs(tmp_path: Path, family: str, attend: bool) -> None:
    check_alike(saved(tmp_path, family=family, query_expansion=FIXED | {"attend": attend}))


def test_a_skiplist_may_be_of_queries_too(tmp_path: Path) -> None:
    skip = {"skiplist_words": ["the", ".", ",", "no single token"], "skiplist_tasks": ["query", "document"]}
    check_alike(saved(tmp_path, skip=skip))


def test_pooled_tokens_are_theirs_in_another_order(tmp_path: Path) -> None:
    folder = saved(tmp_path, HierarchicalTokenPooling(2.0))
    for mine, wanted in zip(ours(folder, "document"), theirs(folder, "document"), strict=True):
        assert mine.shape == wanted.shape
        products = mine @ wanted.T
        np.testing.assert_allclose(products.max(axis=0), 1, atol=TOLERANCE)
        np.testing.assert_allclose(products.max(axis=1), 1, atol=TOLERANCE)
    for mine, wanted in zip(ours(folder, "query"), theirs(folder, "query"), strict=True):
        np.testing.assert_allclose(mine, wanted, atol=TOLERANCE)


@pytest.mark.parametrize("seed", range(5))
def test_clusters_are_those_of_scipy(seed: int) -> None:
    hierarchy = pytest.importorskip("scipy.cluster.hierarchy")
    distance = pytest.importorskip("scipy.spatial.distance")
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(rng.integers(5, 60), 8)).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    distances = np.clip(1 - points @ points.T, 0, 2)
    wanted = max(2, len(points) // 3)
    tree = hierarchy.linkage(distance.squareform(distances, checks=False), method="ward")
    scipy = hierarchy.fcluster(tree, t=wanted, criterion="maxclust")
    found = ward_clusters(distances, wanted)
    np.testing.assert_array_equal(found[:, None] == found, scipy[:, None] == scipy)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"expansion": None, "query_length": 9},
        {"expansion": QueryExpansion(length=8, attend=True, fixed=False)},
        {"pooling": TokenPooling(factor=3.0), "similarity": "meanmaxsim"},
        {"skiplist_roles": ("query", "document")},
    ],
)
def test_what_we_write_gives_the_same_vectors_there(tmp_path: Path, settings: dict[str, Any]) -> None:
    folder = write_tiny_multi_vector(tmp_path / "ours", **settings)
    if "pooling" not in settings:
        check_alike(folder)
        return
    model = Theirs(str(folder), device="cpu", local_files_only=True)
    assert model.similarity_fn_name == "meanmaxsim"
    for mine, wanted in zip(ours(folder, "document"), theirs(folder, "document"), strict=True):
        assert mine.shape == wanted.shape
        np.testing.assert_allclose((mine @ wanted.T).max(axis=1), 1, atol=TOLERANCE)


def test_rotary_models_that_we_write_leave_tokens_unattended_too(tmp_path: Path) -> None:
    config = tiny_multi_vector_config(**FAMILY_SHAPES["modernbert"] | {"local_attention": 6})
    check_alike(write_tiny_multi_vector(tmp_path / "ours", config=config, expansion=QueryExpansion(length=4)))


def pylate(tmp_path: Path, *, special: bool = True, **settings: Any) -> Path:
    """Lay out a folder as PyLate saves it: an encoder, a dense layer, and its settings beside the prompts."""
    folder = base(tmp_path / "pylate", special=special)
    rows = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Dense", "type": "pylate.models.Dense.Dense"},
    ]
    (folder / "modules.json").write_text(json.dumps(rows), encoding="utf-8")
    (folder / "1_Dense").mkdir()
    content: dict[str, Any] = {"in_features": 32, "out_features": 16, "bias": False}
    content |= {"activation_function": "torch.nn.modules.linear.Identity"}
    (folder / "1_Dense" / "config.json").write_text(json.dumps(content), encoding="utf-8")
    save_file({"linear.weight": torch.randn(16, 32)}, folder / "1_Dense" / "model.safetensors")
    limits: dict[str, Any] = {"max_seq_length": 31, "do_lower_case": False}
    (folder / "sentence_bert_config.json").write_text(json.dumps(limits), encoding="utf-8")
    texts: dict[str, Any] = {
        "prompts": {},
        "default_prompt_name": None,
        "similarity_fn_name": "MaxSim",
        "model_type": "ColBERT",
    }
    texts |= {
        "query_prefix": MARKERS[0],
        "document_prefix": MARKERS[1],
        "query_length": 8,
        "document_length": 14,
    }
    (folder / "config_sentence_transformers.json").write_text(json.dumps(texts | settings), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"attend_to_expansion_tokens": True, "skiplist_words": [".", "the"]},
        {"do_query_expansion": False},
        {"prompts": {"query": "which ", "document": MARKERS[1] + "about "}},
    ],
    ids=["plain", "attended", "not filled up", "prompts"],
)
def test_folders_of_pylate_are_read_as_there(tmp_path: Path, settings: dict[str, Any]) -> None:
    check_alike(pylate(tmp_path, **settings))


def test_a_marker_that_the_tokenizer_does_not_know_as_one_becomes_one(tmp_path: Path) -> None:
    check_alike(pylate(tmp_path, special=False))


def colbert(tmp_path: Path, **metadata: Any) -> Path:
    """Lay out a folder as ColBERT's own code saves it: one file of weights, and `artifact.metadata`."""
    folder = base(tmp_path / "colbert", special=False)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8")) | {
        "architectures": ["HF_ColBERT"]
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    weights = {f"bert.{name}": tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    torch.manual_seed(2)
    save_file(
        weights | {"linear.weight": torch.randn(16, 32)}, folder / "model.safetensors", {"format": "pt"}
    )
    if metadata:
        (folder / "artifact.metadata").write_text(json.dumps(metadata), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    "metadata",
    [
        {"query_maxlen": 8, "doc_maxlen": 13, "dim": 16, "similarity": "cosine", "mask_punctuation": True},
        {
            "query_maxlen": 10,
            "doc_maxlen": 30,
            "mask_punctuation": False,
            "attend_to_mask_tokens": True,
            "query_token_id": MARKERS[1],
            "doc_token_id": MARKERS[0],
        },
        {},
    ],
    ids=["usual", "all others", "no metadata"],
)
def test_folders_of_colbert_are_read_as_there(tmp_path: Path, metadata: dict[str, Any]) -> None:
    check_alike(colbert(tmp_path, **metadata))


def test_two_layers_project_as_there(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    assert MultiVectorEncoder.load(folder, computing=ON_CPU).folder.modules.layers == (
        DenseConfig(in_features=32, out_features=16, bias=False, activation="identity"),
    )
    torch.manual_seed(3)
    names = ("token_embeddings", "token_embeddings")
    wide = Dense(32, 48, use_residual=True, activation_function=torch.nn.Tanh(), module_input_name=names[0])
    narrow = Dense(48, 8, bias=False, activation_function=torch.nn.Identity(), module_input_name=names[0])
    modules = [Transformer(str(tmp_path / "base")), wide, narrow, MultiVectorMask()]
    model = Theirs(modules=[*modules, Normalize(module_input_name=names[0])], device="cpu")
    model.save_pretrained(str(tmp_path / "two"))
    check_alike(tmp_path / "two")
