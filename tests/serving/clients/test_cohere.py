from __future__ import annotations

import numpy as np
import pytest

from embedkit.serving.services import Services
from tests.serving.tiny_services import LONG

# What other projects warn of is not ours to mend.
pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("ignore")]
TEXTS = ["a girl plays the piano", "the dog sleeps"]


def test_rerank(address: str, services: Services) -> None:
    cohere = pytest.importorskip("cohere")
    own = services.rerankers["ranker"].score("who plays", TEXTS)
    client = cohere.ClientV2(api_key="none", base_url=address)
    answer = client.rerank(
        model="ranker", query="who plays", documents=TEXTS, top_n=1, max_tokens_per_doc=4096
    )
    assert [row.index for row in answer.results] == [int(np.argmax(own))]
    assert answer.results[0].relevance_score == pytest.approx(1 / (1 + np.exp(-own.max())), abs=1e-5)
    assert answer.meta.billed_units.search_units == 1


def test_embed(address: str, services: Services) -> None:
    cohere = pytest.importorskip("cohere")
    client = cohere.ClientV2(api_key="none", base_url=address)
    own = services.encoders["tiny"].encode_queries(TEXTS)
    answer = client.embed(
        model="tiny",
        texts=TEXTS,
        input_type="search_query",
        embedding_types=["float", "int8", "ubinary", "base64"],
    )
    np.testing.assert_allclose(answer.embeddings.float_, own, atol=1e-6)
    assert np.shape(answer.embeddings.int8) == (2, 32)
    np.testing.assert_array_equal(answer.embeddings.ubinary, np.packbits(own > 0, axis=1))
    assert answer.response_type == "embeddings_by_type"


def test_the_first_version(address: str, services: Services) -> None:
    cohere = pytest.importorskip("cohere")
    if not hasattr(cohere, "Client"):
        pytest.skip("this release of cohere has no client of version 1")
    client = cohere.Client(api_key="none", base_url=address)
    answer = client.rerank(
        model="ranker", query="who plays", documents=[{"text": text} for text in TEXTS], return_documents=True
    )
    assert {row.document.text for row in answer.results} == set(TEXTS)
    plain = client.embed(model="tiny", texts=TEXTS, input_type="search_document")
    np.testing.assert_allclose(plain.embeddings, services.encoders["tiny"].encode_documents(TEXTS), atol=1e-6)


def test_errors_are_read(address: str) -> None:
    cohere = pytest.importorskip("cohere")
    client = cohere.ClientV2(api_key="none", base_url=address)
    with pytest.raises(cohere.NotFoundError) as missing:
        client.rerank(model="rerank-v3.5", query="a", documents=["b"])
    assert "there is ranker" in missing.value.body.get("message", "")
    with pytest.raises(cohere.BadRequestError) as long:
        client.embed(
            model="tiny", texts=[LONG], input_type="search_query", embedding_types=["float"], truncate="NONE"
        )
    assert "the model reads 32" in long.value.body["message"]
