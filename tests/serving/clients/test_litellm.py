from __future__ import annotations

import numpy as np
import pytest

from embedkit.serving.services import Services

# What other projects warn of is not ours to mend.
pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("ignore")]
TEXTS = ["a girl plays the piano", "the dog sleeps"]


def test_embedding(address: str, services: Services) -> None:
    litellm = pytest.importorskip("litellm")
    answer = litellm.embedding(model="openai/tiny", input=TEXTS, api_base=f"{address}/v1", api_key="none")
    own = services.encoders["tiny"].encode(TEXTS)
    np.testing.assert_allclose([row["embedding"] for row in answer.data], own, atol=1e-6)
    with pytest.raises(litellm.NotFoundError, match="no embedding model 'gpt' is served here"):
        litellm.embedding(
            model="openai/gpt", input=TEXTS, api_base=f"{address}/v1", api_key="none", max_retries=0
        )


@pytest.mark.parametrize(("provider", "path"), [("cohere", "/v2/rerank"), ("jina_ai", "/v1/rerank")])
def test_rerank(address: str, services: Services, provider: str, path: str) -> None:
    litellm = pytest.importorskip("litellm")
    own = services.rerankers["ranker"].score("who plays", TEXTS)
    answer = litellm.rerank(
        model=f"{provider}/ranker",
        query="who plays",
        documents=TEXTS,
        top_n=2,
        api_base=f"{address}{path}",
        api_key="none",
    )
    assert [row["index"] for row in answer.results] == list(np.argsort(-own))
