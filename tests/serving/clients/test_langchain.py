from __future__ import annotations

import numpy as np
import pytest

from embedkit.serving.services import Services

# What other projects warn of is not ours to mend.
pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("ignore")]
TEXTS = ["a girl plays the piano", "the dog sleeps"]


def test_embeddings(address: str, services: Services) -> None:
    langchain = pytest.importorskip("langchain_openai")
    embeddings = langchain.OpenAIEmbeddings(
        model="tiny", base_url=f"{address}/v1", api_key="none", check_embedding_ctx_length=False
    )
    own = services.encoders["tiny"].encode(TEXTS)
    np.testing.assert_allclose(embeddings.embed_documents(TEXTS), own, atol=1e-6)
    np.testing.assert_allclose(embeddings.embed_query(TEXTS[0]), own[0], atol=1e-6)
