"""The blocks of docs/integrations.md, run as they stand with the frameworks themselves."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tests.conftest import REPOSITORY

pytestmark = pytest.mark.clients
PAGE = (REPOSITORY / "docs" / "integrations.md").read_text(encoding="utf-8")
TEXTS = ["A cat sleeps on the sofa.", "Wind turbines stand at sea.", "The parliament passed a law."]
QUERY = "electricity from wind"


def blocks(heading: str) -> Sequence[str]:
    part = (
        PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0] if heading else PAGE.partition("\n## ")[0]
    )
    return re.findall(r"^```python\n(.*?)^```", part, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def start() -> dict[str, Any]:
    names: dict[str, Any] = {}
    (block,) = blocks("")
    exec(block, names)
    return names


def run(heading: str, start: dict[str, Any]) -> dict[str, Any]:
    names = dict(start)
    found = blocks(heading)
    assert found
    for block in found:
        exec(block, names)
    return names


def test_langchain(start: dict[str, Any]) -> None:
    store = pytest.importorskip("langchain_core.vectorstores")
    names = run("LangChain", start)
    made = store.InMemoryVectorStore.from_texts(TEXTS, names["EmbedkitEmbeddings"]())
    assert made.similarity_search(QUERY, k=1)[0].page_content == TEXTS[1]


def test_llama_index(start: dict[str, Any]) -> None:
    core = pytest.importorskip("llama_index.core")
    names = run("LlamaIndex", start)
    nodes = [core.Document(text=text) for text in TEXTS]
    index = core.VectorStoreIndex.from_documents(nodes, embed_model=names["EmbedkitEmbedding"]())
    assert index.as_retriever(similarity_top_k=1).retrieve(QUERY)[0].text == TEXTS[1]


def test_haystack(start: dict[str, Any]) -> None:
    haystack = pytest.importorskip("haystack")
    retrievers = pytest.importorskip("haystack.components.retrievers.in_memory")
    stores = pytest.importorskip("haystack.document_stores.in_memory")
    names = run("Haystack", start)
    store = stores.InMemoryDocumentStore(embedding_similarity_function="cosine")
    documents = [haystack.Document(content=text) for text in TEXTS]
    store.write_documents(names["EmbedkitDocumentEmbedder"]().run(documents=documents)["documents"])
    pipeline = haystack.Pipeline()
    pipeline.add_component("embed", names["EmbedkitTextEmbedder"]())
    pipeline.add_component("find", retrievers.InMemoryEmbeddingRetriever(store, top_k=1))
    pipeline.connect("embed.embedding", "find.query_embedding")
    assert pipeline.run({"embed": {"text": QUERY}})["find"]["documents"][0].content == TEXTS[1]


def test_chroma(start: dict[str, Any]) -> None:
    chromadb = pytest.importorskip("chromadb")
    names = run("Chroma", start)
    client = chromadb.EphemeralClient()
    found = client.create_collection("texts", embedding_function=names["EmbedkitFunction"]())
    found.add(ids=["a", "b", "c"], documents=TEXTS)
    assert found.query(query_texts=[QUERY], n_results=1)["ids"] == [["b"]]


def test_txtai(start: dict[str, Any]) -> None:
    pytest.importorskip("txtai")
    embeddings = run("txtai", start)["embeddings"]
    embeddings.index(TEXTS)
    assert embeddings.search(QUERY, 1)[0][0] == 1


def test_beir(start: dict[str, Any]) -> None:
    dense = pytest.importorskip("beir.retrieval.search.dense")
    model = run("BEIR", start)["EmbedkitForBeir"]()
    corpus = {str(n): {"title": "", "text": text} for n, text in enumerate(TEXTS)}
    queries = {"q": QUERY, "p": "a law"}  # it fails with a single one
    found = dense.DenseRetrievalExactSearch(model).search(corpus, queries, 1, "cos_sim")
    assert {query: list(documents) for query, documents in found.items()} == {"q": ["1"], "p": ["2"]}


def test_mteb(start: dict[str, Any]) -> None:
    mteb = pytest.importorskip("mteb")
    names = run("mteb", start)
    for kind in ("EmbedkitEncoder", "EmbedkitSearch"):
        statuses = mteb.mock_run(names[kind]()).task_results
        failed = {
            name: status
            for name, status in statuses.items()
            if status is not None and not isinstance(status, mteb.TaskResult)
        }
        assert not failed
        assert any(isinstance(status, mteb.TaskResult) for status in statuses.values())


def test_what_is_scored_by_mteb_is_what_a_search_finds(start: dict[str, Any]) -> None:
    pytest.importorskip("mteb")
    system = run("mteb", start)["EmbedkitSearch"]()
    system.index([{"id": str(n), "text": text, "title": ""} for n, text in enumerate(TEXTS)])
    found = system.search({"id": ["q"], "text": [QUERY]}, top_k=2)
    assert len(found["q"]) == 2
    assert max(found["q"], key=found["q"].__getitem__) == "1"
    assert np.isfinite(list(found["q"].values())).all()
