from __future__ import annotations

import numpy as np
import pytest

from embedkit.serving.services import Services

# What other projects warn of is not ours to mend.
pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("ignore")]
TEXTS = ["a girl plays the piano", "the dog sleeps"]


def test_embedders(address: str, services: Services) -> None:
    haystack = pytest.importorskip("haystack")
    module = pytest.importorskip("haystack_integrations.components.embedders.huggingface_api")
    own = services.encoders["tiny"].encode(TEXTS)
    settings = {"api_type": "text_embeddings_inference", "api_params": {"url": address}, "token": None}
    one = module.HuggingFaceAPITextEmbedder(**settings).run(text=TEXTS[0])
    np.testing.assert_allclose(one["embedding"], own[0], atol=1e-6)
    documents = [haystack.Document(content=text) for text in TEXTS]
    several = module.HuggingFaceAPIDocumentEmbedder(**settings, normalize=True, truncate=True).run(documents)
    np.testing.assert_allclose([each.embedding for each in several["documents"]], own, atol=1e-6)


def test_ranker(address: str, services: Services) -> None:
    haystack = pytest.importorskip("haystack")
    module = pytest.importorskip("haystack_integrations.components.rankers.huggingface_api")
    own = services.rerankers["ranker"].score("who plays", TEXTS)
    documents = [haystack.Document(content=text) for text in TEXTS]
    found = module.HuggingFaceTEIRanker(url=address, top_k=1, token=None).run(
        query="who plays", documents=documents
    )
    assert [each.content for each in found["documents"]] == [TEXTS[int(np.argmax(own))]]
