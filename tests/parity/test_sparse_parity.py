"""Learned sparse models: the same weights of terms as sentence-transformers', from its folders, and in it from ours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

pytest.importorskip("sentence_transformers", reason="the extra 'parity' is not installed")

import torch
from sentence_transformers import SparseEncoder as TheirEncoder
from sentence_transformers.base.modules import Router, Transformer
from sentence_transformers.sparse_encoder.modules import MLMTransformer, SparseStaticEmbedding, SpladePooling

from embedkit.checkpoint.folder import ModelFolder, read_model_folder
from embedkit.checkpoint.sparse import read_sparse_folder
from embedkit.checkpoint.sparse_weights import load_sparse, sparse_of, write_sparse
from embedkit.encoding.sparse import SparseEncoder
from embedkit.model.sparse import SparseModel
from embedkit.model.sparse_config import TermPooling
from embedkit.types import Computing
from tests.tiny_masked_lm import write_tiny_masked_lm

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of their own code
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

TOLERANCE = 1e-5
# One of no tokens, of one, of an odd number, and one that is cut.
TEXTS = [
    "the dog runs",
    "",
    "cat",
    "a small red horse runs on the beach",
    "the boy sings an old song by the water " * 8,
]
FAMILIES = ("bert", "roberta", "distilbert", "mpnet", "albert", "electra", "modernbert", "gte")


def write_theirs(folder: Path, *modules: Any, **settings: Any) -> Any:  # Any: an untyped library
    theirs = TheirEncoder(modules=list(modules), device="cpu", **settings)
    theirs.save(str(folder))
    return TheirEncoder(str(folder), device="cpu", local_files_only=True)


def their_transformer(folder: Path, family: Any = "bert", **fields: Any) -> Any:  # Any: an untyped library
    written = write_tiny_masked_lm(folder, family=family, **fields)
    return Transformer(str(written), transformer_task="fill-mask")


def dense(vectors: Any) -> Any:  # Any: a tensor of an untyped library
    return vectors.to_dense().numpy()


def check(theirs: Any, folder: Path, backend: Literal["native", "numpy", "torch", "auto"] = "auto") -> None:
    ours = SparseEncoder.load(folder, computing=Computing(device="cpu", precision="fp32", backend=backend))
    for mine, wanted in (
        (ours.encode_queries(TEXTS), theirs.encode_query(TEXTS)),
        (ours.encode_documents(TEXTS), theirs.encode_document(TEXTS)),
    ):
        np.testing.assert_allclose(mine.to_dense(), dense(wanted), atol=TOLERANCE)
        assert mine.counts.sum() >= len(TEXTS) - 1  # or there is nothing to compare


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_the_weights_of_sentence_transformers(family: str, tmp_path: Path) -> None:
    theirs = write_theirs(tmp_path / "splade", their_transformer(tmp_path / "mlm", family), SpladePooling())
    check(theirs, tmp_path / "splade")


@pytest.mark.parametrize("backend", ["native", "numpy", "torch"])
@pytest.mark.parametrize("strategy", ["max", "sum"])
@pytest.mark.parametrize("activation", ["relu", "log1p_relu"])
def test_every_backend_and_pooling(
    backend: Literal["native", "numpy", "torch"], strategy: str, activation: str, tmp_path: Path
) -> None:
    encoder = their_transformer(tmp_path / "mlm", num_attention_heads=2)  # of the size that the kernels want
    theirs = write_theirs(tmp_path / "splade", encoder, SpladePooling(strategy, activation))
    check(theirs, tmp_path / "splade", backend)


def test_prompts_and_the_older_module(tmp_path: Path) -> None:
    encoder = MLMTransformer(str(write_tiny_masked_lm(tmp_path / "mlm")))
    prompts = {"query": "which song ", "document": "a song "}
    theirs = write_theirs(tmp_path / "splade", encoder, SpladePooling(), prompts=prompts)
    check(theirs, tmp_path / "splade")


@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_the_strongest_terms_are_kept(limit: int, tmp_path: Path) -> None:
    encoder = their_transformer(tmp_path / "mlm")
    theirs = write_theirs(tmp_path / "splade", encoder, SpladePooling(), max_active_dims=limit)
    check(theirs, tmp_path / "splade")


@pytest.mark.parametrize("frozen", [False, True])
def test_queries_of_token_weights(frozen: bool, tmp_path: Path) -> None:
    encoder = their_transformer(tmp_path / "mlm")
    weights = torch.linspace(0.0, 3.0, 207)  # of which the first is 0
    table = SparseStaticEmbedding(encoder.tokenizer, weights, frozen=frozen)
    route = Router.for_query_document([table], [encoder, SpladePooling("max", "log1p_relu")])
    theirs = write_theirs(tmp_path / "splade", route, prompts={"query": "song ", "document": ""})
    check(theirs, tmp_path / "splade")


def our_model(folder: Path, *, weigh_queries: bool, family: Any = "bert") -> tuple[SparseModel, ModelFolder]:
    read = read_model_folder(write_tiny_masked_lm(folder, family=family))
    model, fresh = sparse_of(read, TermPooling(), weigh_queries=weigh_queries)
    assert not fresh
    if model.query_weights is not None:
        torch.nn.init.uniform_(model.query_weights, 0.1, 3.0)
    return model.eval(), read


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("weigh_queries", [False, True])
def test_what_we_write_has_the_same_vectors_there(family: str, weigh_queries: bool, tmp_path: Path) -> None:
    model, read = our_model(tmp_path / "mlm", weigh_queries=weigh_queries, family=family)
    modules = replace(read.modules, similarity="dot", prompts={"query": "which ", "document": ""})
    write_sparse(tmp_path / "splade", model, read.tokenizer, modules, family=read.family, max_active_dims=30)
    theirs = TheirEncoder(str(tmp_path / "splade"), device="cpu", local_files_only=True)
    assert theirs.similarity_fn_name == "dot"
    assert theirs.max_active_dims == 30
    check(theirs, tmp_path / "splade")
    again = load_sparse(read_sparse_folder(tmp_path / "splade"))
    for name, parameter in model.state_dict().items():
        assert torch.equal(parameter, again.state_dict()[name])


@pytest.mark.parametrize("strategy", ["max", "sum"])
def test_gradients_are_those_of_their_pooling(strategy: Literal["max", "sum"], tmp_path: Path) -> None:
    model, read = our_model(tmp_path / "mlm", weigh_queries=False)
    model.pooling = TermPooling(strategy=strategy)
    batch = read.tokenizer.encode(TEXTS)
    _, mask, _ = batch.padded(0)
    weight = torch.randn(len(batch), model.dimension)
    mine = model.forward_packed(torch.from_numpy(batch.input_ids), batch.lengths.tolist())
    (mine * weight).sum().backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    hidden = model.encoder.forward_packed(torch.from_numpy(batch.input_ids), batch.lengths.tolist())
    logits = model.mlm(hidden, model.encoder.embeddings.tokens.weight)
    padded = torch.zeros(*mask.shape, model.dimension)
    padded[torch.from_numpy(mask)] = logits
    features = {"token_embeddings": padded, "attention_mask": torch.from_numpy(mask).long()}
    wanted = SpladePooling(strategy).train()(features)["sentence_embedding"]
    torch.testing.assert_close(mine, wanted)
    (wanted * weight).sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, atol=1e-5, rtol=1e-4)
