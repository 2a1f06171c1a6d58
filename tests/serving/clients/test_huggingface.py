from __future__ import annotations

import numpy as np
import pytest

from embedkit.serving.services import Services
from tests.serving.tiny_services import LONG

# What other projects warn of is not ours to mend.
pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("ignore")]
TEXTS = ["a girl plays the piano", "the dog sleeps"]


def test_inference_client(address: str, services: Services) -> None:
    hub = pytest.importorskip("huggingface_hub")
    client = hub.InferenceClient(model=address)
    own = services.encoders["tiny"].encode(TEXTS)
    np.testing.assert_allclose(client.feature_extraction(TEXTS[0]), own[:1], atol=1e-6)
    np.testing.assert_allclose(client.feature_extraction(TEXTS), own, atol=1e-6)
    found = client.feature_extraction(
        LONG, normalize=True, truncate=True, truncation_direction="Left", prompt_name="query", dimensions=8
    )
    assert found.shape == (1, 8)
    np.testing.assert_allclose(
        client.sentence_similarity(TEXTS[0], other_sentences=TEXTS), own @ own[0], atol=1e-5
    )


def test_errors_are_read(address: str) -> None:
    hub = pytest.importorskip("huggingface_hub")
    client = hub.InferenceClient(model=address)
    with pytest.raises(hub.errors.HfHubHTTPError, match="413") as caught:
        client.feature_extraction(LONG, truncate=False)
    assert "the model reads 32" in caught.value.response.text
    with pytest.raises(hub.errors.HfHubHTTPError, match="inputs is an empty string"):
        client.feature_extraction("")


def test_langchain(address: str, services: Services) -> None:
    langchain = pytest.importorskip(
        "langchain_huggingface", reason="langchain-huggingface wants huggingface_hub below 2"
    )
    hub = pytest.importorskip("huggingface_hub")
    embeddings = langchain.HuggingFaceEndpointEmbeddings(model="org/name")  # newer releases refuse an address
    embeddings.client = hub.InferenceClient(model=address)
    own = services.encoders["tiny"].encode(TEXTS)
    np.testing.assert_allclose(embeddings.embed_documents(TEXTS), own, atol=1e-6)
    np.testing.assert_allclose(embeddings.embed_query(TEXTS[0]), own[0], atol=1e-6)
