from __future__ import annotations

import numpy as np
import pytest

from embedkit.serving.services import Services

# What other projects warn of is not ours to mend.
pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("ignore")]
TEXTS = ["a girl plays the piano", "the dog sleeps"]


def test_embeddings(address: str, services: Services) -> None:
    module = pytest.importorskip("llama_index.embeddings.openai_like")
    embeddings = module.OpenAILikeEmbedding(model_name="tiny", api_base=f"{address}/v1", api_key="none")
    own = services.encoders["tiny"].encode(TEXTS)
    np.testing.assert_allclose(embeddings.get_text_embedding_batch(TEXTS), own, atol=1e-6)
    np.testing.assert_allclose(embeddings.get_query_embedding(TEXTS[0]), own[0], atol=1e-6)


def test_rerankers(address: str, services: Services) -> None:
    jina = pytest.importorskip("llama_index.postprocessor.jinaai_rerank")
    tei = pytest.importorskip("llama_index.postprocessor.tei_rerank")
    schema = pytest.importorskip("llama_index.core.schema")
    own = services.rerankers["ranker"].score("who plays", TEXTS)
    nodes = [schema.NodeWithScore(node=schema.TextNode(text=text), score=0.5) for text in TEXTS]
    query = schema.QueryBundle("who plays")
    for reranker in (
        jina.JinaRerank(model="ranker", base_url=f"{address}/v1", api_key="none", top_n=1),
        tei.TextEmbeddingInference(base_url=address, top_n=1),
    ):
        found = reranker.postprocess_nodes(nodes, query)
        assert [node.node.text for node in found] == [TEXTS[int(np.argmax(own))]]
        assert found[0].score == pytest.approx(1 / (1 + np.exp(-own.max())), abs=1e-5)
    missing = jina.JinaRerank(model="jina-reranker-v2", base_url=f"{address}/v1", api_key="none")
    with pytest.raises(RuntimeError, match="no reranker 'jina-reranker-v2' is served here"):
        missing.postprocess_nodes(nodes, query)
