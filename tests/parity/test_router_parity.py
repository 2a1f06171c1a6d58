"""Folders with a router: queries and documents get the vectors that sentence-transformers gives them, and each its prompt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sentence_transformers", reason="the extra 'parity' is not installed")

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Router

from embedkit.checkpoint.adapter_merging import merge_task
from embedkit.checkpoint.folder import read_model_folder
from embedkit.checkpoint.weights import load_sentence_encoder
from embedkit.encoding.embedder import Embedder
from embedkit.encoding.encoder import Encoder
from embedkit.errors import CheckpointError
from tests.checkpoint.test_task_adapters import BOTH, write_hub_folder
from tests.tiny import tiny_config, write_static_model, write_tiny_model

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of their own code
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

TOLERANCE = 1e-5
TEXTS = ["the dog runs", "a small red horse", "the boy sings an old song by the water"]


def write_routed(folder: Path, *, static: bool = False, **router: Any) -> Any:  # Any: an untyped library
    config = tiny_config(hidden_size=16) if static else tiny_config()
    (write_static_model if static else write_tiny_model)(folder / "a")
    write_tiny_model(folder / "b", seed=3, config=config)
    sides = [SentenceTransformer(str(folder / name), device="cpu") for name in "ab"]
    parts = [[module for module in side.children() if not isinstance(module, Normalize)] for side in sides]
    route = Router.for_query_document(query_modules=parts[0], document_modules=parts[1], **router)
    theirs = SentenceTransformer(
        modules=[route, Normalize()], device="cpu", prompts={"query": "which song ", "document": "a song "}
    )
    theirs.save(str(folder / "routed"))
    return SentenceTransformer(str(folder / "routed"), device="cpu", local_files_only=True)


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("default", [None, "query", "document"])
def test_each_role_has_the_vectors_of_sentence_transformers(
    static: bool, default: str | None, tmp_path: Path
) -> None:
    theirs = write_routed(tmp_path, static=static, default_route=default)
    ours = Encoder.load(tmp_path / "routed", device="cpu")
    pairs = [
        (ours.encode_queries(TEXTS), theirs.encode_query(TEXTS)),
        (ours.encode_documents(TEXTS), theirs.encode_document(TEXTS)),
        (ours.encode_document(TEXTS[0]), theirs.encode_document(TEXTS[0])),
        (ours.encode(TEXTS), theirs.encode(TEXTS)),
        (Embedder(ours, "query")(TEXTS), theirs.encode_query(TEXTS)),
        (Embedder(ours, "document")(TEXTS), theirs.encode_document(TEXTS)),
    ]
    for role in ("query", "document"):
        windows = ours.encode_role_windows(TEXTS, role=role, prompt=None, on_truncate="ok")
        encode = theirs.encode_query if role == "query" else theirs.encode_document
        pairs.append((np.concatenate([window.embeddings for window in windows]), encode(TEXTS)))
    for mine, wanted in pairs:
        np.testing.assert_allclose(mine, wanted, atol=TOLERANCE)
    assert np.abs(pairs[0][0] - pairs[1][0]).max() > 0.1


def test_the_fingerprint_holds_both_and_training_is_refused(tmp_path: Path) -> None:
    write_routed(tmp_path)
    encoder = Encoder.load(tmp_path / "routed", device="cpu")
    assert set(encoder.fingerprint["routes"]) == {"query", "document"}
    folder = read_model_folder(tmp_path / "routed")
    with pytest.raises(
        CheckpointError, match=r"modules of their own \(Router\), and training or converting takes one"
    ):
        load_sentence_encoder(folder)


def test_a_router_that_knows_no_queries_is_refused(tmp_path: Path) -> None:
    write_routed(tmp_path)
    path = tmp_path / "routed" / "router_config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["structure"] = {"picture": content["structure"]["query"]}
    content["parameters"]["default_route"] = None
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(CheckpointError, match="the router has no way for a query; it has: picture"):
        Encoder.load(tmp_path / "routed", device="cpu")


def test_a_folder_of_jina_tasks_by_role_is_read_alike(tmp_path: Path) -> None:
    """`model convert --task retrieval`: plain modules for each role, which need no code."""
    write_hub_folder(tmp_path / "hub", BOTH)
    merge_task(tmp_path / "hub", tmp_path / "both", "retrieval")
    theirs = SentenceTransformer(str(tmp_path / "both"), device="cpu", local_files_only=True)
    ours = Encoder.load(tmp_path / "both", device="cpu")
    queries, documents = ours.encode_queries(TEXTS), ours.encode_documents(TEXTS)
    np.testing.assert_allclose(queries, theirs.encode_query(TEXTS), atol=TOLERANCE)
    np.testing.assert_allclose(documents, theirs.encode_document(TEXTS), atol=TOLERANCE)
    assert np.abs(queries - documents).max() > 0.01
