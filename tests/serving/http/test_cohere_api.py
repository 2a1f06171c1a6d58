from __future__ import annotations

import base64
from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("starlette")

from embedkit.serving.http import cohere_api
from embedkit.serving.services import Services
from tests.serving.asking import Client
from tests.serving.running import served
from tests.serving.tiny_services import LONG, tiny_services

QUERY = "who plays"
DOCUMENTS = ["a girl plays the piano", "the dog sleeps", "a song", ""]


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with tiny_services(tmp_path_factory.mktemp("models")) as made:
        yield made


@pytest.fixture(scope="module")
def client(services: Services) -> Iterator[Client]:
    routes = cohere_api.routes(services)
    with served(routes, limits=services.limits) as address:
        yield Client(address, routes)


@pytest.mark.parametrize("number", ["1", "2"])
def test_rerank(client: Client, services: Services, number: str) -> None:
    own = services.rerankers["ranker"].score(QUERY, DOCUMENTS)
    answer = client.post(
        f"/v{number}/rerank", {"query": QUERY, "documents": DOCUMENTS, "model": "ranker", "top_n": 3}
    )
    results = answer.content["results"]
    assert [row["index"] for row in results] == list(np.argsort(-own)[:3])
    relevance = [row["relevance_score"] for row in results]
    np.testing.assert_allclose(relevance, 1 / (1 + np.exp(np.sort(-own)[:3])), atol=1e-5)
    assert "document" not in results[0]
    assert answer.content["meta"]["api_version"] == {"version": number}
    assert answer.content["meta"]["billed_units"] == {"search_units": 1}
    assert answer.content["usage"]["total_tokens"] > 0
    assert answer.content["id"] == answer.headers["x-request-id"]


def test_documents_as_objects(client: Client, services: Services) -> None:
    objects = [{"text": "a girl", "title": "piano"}, "a song"]
    answer = client.post("/v1/rerank", {"query": QUERY, "documents": objects, "return_documents": True})
    assert {row["document"]["text"] for row in answer.content["results"]} == {"a girl", "a song"}
    by_fields = client.post(
        "/v1/rerank",
        {
            "query": QUERY,
            "documents": objects[:1],
            "rank_fields": ["title", "text"],
            "return_documents": True,
        },
    )
    assert by_fields.content["results"][0]["document"]["text"] == "piano\na girl"


def test_long_documents_are_cut_and_told(client: Client) -> None:
    asked = {"query": QUERY, "documents": [LONG, "a song"]}
    answer = client.post("/v2/rerank", asked)
    assert answer.headers["x-embedkit-truncated"] == "1"
    assert answer.content["usage"]["truncated"] == 1
    assert answer.content["meta"]["warnings"] == ["1 of 2 documents were cut to what ranker reads"]
    refused = client.post("/v1/rerank", {**asked, "truncation": False})
    assert refused.status == 400
    assert "documents[0] and the query have more tokens" in refused.content["message"]
    few = client.post(
        "/v2/rerank",
        {"query": QUERY, "documents": ["the girl sings"], "max_tokens_per_doc": 2, "return_documents": True},
    )
    assert few.content["results"][0]["document"]["text"] == "the girl"
    assert few.headers["x-embedkit-truncated"] == "1"


def test_embed_by_roles(client: Client, services: Services) -> None:
    encoder = services.encoders["tiny"]
    texts = ["a girl", "the dog"]
    for kind, wanted in (
        ("search_query", encoder.encode_queries(texts)),
        ("search_document", encoder.encode_documents(texts)),
        ("clustering", encoder.encode(texts)),
    ):
        answer = client.post("/v2/embed", {"texts": texts, "input_type": kind, "model": "tiny"})
        np.testing.assert_allclose(answer.content["embeddings"]["float"], wanted, atol=1e-6)
        assert answer.content["response_type"] == "embeddings_by_type"
        assert answer.content["texts"] == texts
    plain = client.post("/v1/embed", {"texts": texts, "input_type": "search_query"}).content
    np.testing.assert_allclose(plain["embeddings"], encoder.encode_queries(texts), atol=1e-6)
    assert plain["response_type"] == "embeddings_floats"
    parts = [{"content": [{"type": "text", "text": "a girl"}]}]
    mixed = client.post("/v2/embed", {"inputs": parts, "input_type": "search_query"}).content
    np.testing.assert_allclose(mixed["embeddings"]["float"], encoder.encode_queries(["a girl"]), atol=1e-6)


def test_every_form_of_a_vector(client: Client) -> None:
    forms = ["float", "base64", "int8", "uint8", "binary", "ubinary"]
    found = client.post("/v2/embed", {"texts": ["a girl", "a dog"], "embedding_types": forms}).content[
        "embeddings"
    ]
    plain = np.array(found["float"], dtype=np.float32)
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(found["base64"][1]), "<f4"), plain[1])
    small = np.array(found["int8"])
    assert abs(small).max() <= 127
    np.testing.assert_array_equal(np.array(found["uint8"]) - 128, small)
    # Half of a step, 8 / (127 * sqrt(32)), is the error of each number.
    np.testing.assert_allclose(small * 8 / (127 * np.sqrt(32)), plain, atol=0.0056)
    np.testing.assert_array_equal(found["ubinary"], np.packbits(plain > 0, axis=1))
    np.testing.assert_array_equal(np.array(found["binary"]) + 128, found["ubinary"])


def test_long_texts(client: Client, services: Services) -> None:
    encoder = services.encoders["tiny"]
    answer = client.post("/v2/embed", {"texts": [LONG]})
    assert answer.content["meta"]["warnings"] == ["1 of 1 texts were cut to what tiny reads"]
    refused = client.post("/v2/embed", {"texts": [LONG], "truncate": "NONE"})
    assert refused.status == 400
    assert "the model reads 32. Cut it, or have it cut: truncate=END" in refused.content["message"]
    text = "dog " * 40 + "the girl sings"
    start = client.post("/v2/embed", {"texts": [text], "truncate": "START"}).content["embeddings"]["float"]
    np.testing.assert_allclose(start, encoder.encode(["dog " * 27 + "the girl sings"]), atol=1e-6)
    for side, kept in (("END", "the girl"), ("START", "girl sings")):
        asked = {"texts": ["the girl sings"], "max_tokens": 2, "truncate": side}
        few = client.post("/v2/embed", asked)
        np.testing.assert_allclose(few.content["embeddings"]["float"], encoder.encode([kept]), atol=1e-6)
        assert few.headers["x-embedkit-truncated"] == "1"


@pytest.mark.parametrize(
    ("path", "body", "status", "reason"),
    [
        ("/v1/rerank", {"query": "a"}, 400, "missing required field `documents`"),
        ("/v1/rerank", {"query": "", "documents": ["a"]}, 400, "query is an empty string"),
        ("/v1/rerank", {"query": "a", "documents": []}, 400, "documents is empty"),
        ("/v2/rerank", {"query": "a", "documents": [3]}, 400, "Expected `str | object`, got `int`"),
        ("/v2/rerank", {"query": "a", "documents": [{"t": "b"}]}, 400, "documents[0].text is missing"),
        ("/v2/rerank", {"query": "a", "documents": [{"text": 1}]}, 400, "documents[0].text is of type int"),
        ("/v2/rerank", {"query": "a", "documents": ["b"], "top_n": 0}, 400, "top_n is 0"),
        (
            "/v2/rerank",
            {"query": "a", "documents": ["b"], "max_tokens_per_doc": 0},
            400,
            "max_tokens_per_doc is 0",
        ),
        ("/v2/rerank", {"query": "a", "documents": ["b"], "model": "x"}, 404, "no reranker 'x'"),
        ("/v2/rerank", {"query": "a", "documents": ["b"] * 51}, 400, "documents has 51 texts"),
        ("/v2/embed", {"input_type": "search_query"}, 400, "texts or inputs must be given; neither is"),
        ("/v2/embed", {"texts": ["a"], "inputs": []}, 400, "both are"),
        ("/v2/embed", {"texts": []}, 400, "texts is empty"),
        ("/v2/embed", {"texts": ["a", ""]}, 400, "texts[1] is an empty string"),
        ("/v2/embed", {"images": ["data:"], "input_type": "image"}, 400, "the models here embed texts"),
        (
            "/v2/embed",
            {"inputs": [{"content": [{"type": "image_url"}]}]},
            400,
            "inputs[0] has a content of type image_url",
        ),
        ("/v2/embed", {"texts": ["a"], "embedding_types": ["int4"]}, 400, "Invalid enum value 'int4'"),
        ("/v2/embed", {"texts": ["a"], "truncate": "MIDDLE"}, 400, "Invalid enum value 'MIDDLE'"),
        ("/v2/embed", {"texts": ["a"], "max_tokens": 0}, 400, "max_tokens is 0"),
        ("/v2/embed", {"texts": ["a"], "max_tokens": 2, "truncate": "NONE"}, 400, "leave out one of them"),
        ("/v2/embed", {"texts": ["a"], "model": "x"}, 404, "no embedding model 'x'"),
    ],
)
def test_refusals(client: Client, path: str, body: dict[str, object], status: int, reason: str) -> None:
    answer = client.post(path, body)
    assert answer.status == status
    assert reason in answer.content["message"]
    assert answer.content["detail"] == answer.content["message"]
