from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette")

from embedkit.serving.http import openai_api
from embedkit.serving.services import Services
from tests.serving.asking import Client
from tests.serving.running import served
from tests.serving.tiny_services import LONG, tiny_services

TEXTS = ["a girl plays the piano", "the dog sleeps"]


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with tiny_services(tmp_path_factory.mktemp("models")) as made:
        yield made


@pytest.fixture(scope="module")
def client(services: Services) -> Iterator[Client]:
    routes = openai_api.routes(services)
    with served(routes, limits=services.limits) as address:
        yield Client(address, routes)


def vectors(content: Any) -> Any:
    assert [row["index"] for row in content["data"]] == list(range(len(content["data"])))
    return np.array([row["embedding"] for row in content["data"]], dtype=np.float32)


def test_vectors_are_the_models_own(client: Client, services: Services) -> None:
    answer = client.post("/v1/embeddings", {"input": TEXTS, "model": "tiny", "user": "u"})
    assert answer.status == 200
    encoder = services.encoders["tiny"]
    np.testing.assert_allclose(vectors(answer.content), encoder.encode(TEXTS), atol=1e-6)
    read = sum(len(encoder.tokenizer.encode([text]).input_ids) for text in TEXTS)
    assert answer.content["usage"] == {"prompt_tokens": read, "total_tokens": read, "truncated": 0}
    assert answer.headers["x-embedkit-truncated"] == "0"
    one = client.post("/v1/embeddings", {"input": TEXTS[0]})
    assert one.content["model"] == "tiny"
    np.testing.assert_allclose(vectors(one.content), encoder.encode(TEXTS[:1]), atol=1e-6)


def test_base64_holds_the_same_numbers(client: Client) -> None:
    plain = vectors(client.post("/v1/embeddings", {"input": TEXTS}).content)
    coded = client.post("/v1/embeddings", {"input": TEXTS, "encoding_format": "base64"}).content["data"]
    read = [np.frombuffer(base64.b64decode(row["embedding"]), dtype="<f4") for row in coded]
    np.testing.assert_array_equal(np.stack(read), plain)


def test_fewer_dimensions_are_normalized_where_the_model_does(client: Client, services: Services) -> None:
    for model, unit in (("tiny", True), ("org/raw", False)):
        found = vectors(
            client.post("/v1/embeddings", {"input": TEXTS, "model": model, "dimensions": 8}).content
        )
        whole = services.encoders[model].encode(TEXTS)[:, :8]
        wanted = whole / np.linalg.norm(whole, axis=1, keepdims=True) if unit else whole
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_other_names_for_a_model(client: Client, services: Services) -> None:
    answer = client.post("/v1/embeddings", {"input": "a girl", "model": "text-embedding-3-small"})
    assert answer.content["model"] == "tiny"
    listed = client.get("/v1/models").content["data"]
    assert [row["id"] for row in listed] == ["tiny", "org/raw", "ranker", "text-embedding-3-small"]
    assert client.get("/v1/models/org/raw").content["id"] == "org/raw"
    missing = client.get("/v1/models/gpt-5")
    assert missing.status == 404
    assert "there is tiny, org/raw" in missing.content["error"]["message"]


def test_jinas_fields(client: Client, services: Services) -> None:
    encoder = services.encoders["tiny"]
    asked = {"input": [{"text": "a girl"}], "task": "retrieval.query", "embedding_type": "ubinary"}
    bits = client.post("/v1/embeddings", asked).content["data"][0]["embedding"]
    np.testing.assert_array_equal(bits, np.packbits(encoder.encode_query("a girl") > 0))
    found = client.post("/v1/embeddings", {"input": "a girl", "input_type": "passage"})
    np.testing.assert_allclose(vectors(found.content), encoder.encode_document(["a girl"]), atol=1e-6)
    raw = {"input": "a girl", "model": "org/raw", "normalized": True}
    unit = vectors(client.post("/v1/embeddings", raw).content)
    assert np.linalg.norm(unit) == pytest.approx(1, abs=1e-5)


def test_what_was_cut_is_counted_and_refused_on_request(client: Client, services: Services) -> None:
    answer = client.post("/v1/embeddings", {"input": [LONG, "a girl"]})
    assert (answer.headers["x-embedkit-truncated"], answer.content["usage"]["truncated"]) == ("1", 1)
    for body, headers in (({}, {"x_embedkit_on_truncate": "error"}), ({"truncate": False}, {})):
        refused = client.post("/v1/embeddings", {"input": [LONG], **body}, **headers)
        assert refused.status == 400
        message = refused.content["error"]["message"]
        assert "the model reads 32. Cut it" in message
        assert "--" not in message
    averaged = client.post("/v1/embeddings", {"input": [LONG]}, x_embedkit_on_truncate="chunk")
    assert averaged.headers["x-embedkit-truncated"] == "0"
    whole = services.encoders["tiny"].encode([LONG], on_truncate="chunk")
    np.testing.assert_allclose(vectors(averaged.content), whole, atol=1e-6)


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ({}, 400, "missing required field `input`"),
        ({"input": 3}, 400, "Expected `str | array`, got `int` - at `$.input`"),
        ({"input": [None]}, 400, "`$.input[0]`"),
        ({"input": []}, 400, "input is empty; it must hold one text at least"),
        ({"input": ""}, 400, "input is an empty string"),
        ({"input": ["a", ""]}, 400, "input[1] is an empty string"),
        ({"input": ["a"] * 51}, 400, "input has 51 texts; this server takes 50"),
        ({"input": [[1, 2], [3]]}, 400, "check_embedding_ctx_length=False"),
        ({"input": [1, 2, 3]}, 400, "check_embedding_ctx_length=False"),
        (
            {"input": "a", "model": "gpt"},
            404,
            "no embedding model 'gpt' is served here; there is tiny, org/raw",
        ),
        ({"input": "a", "model": "ranker"}, 404, "no embedding model 'ranker'"),
        ({"input": "a", "dimensions": 0}, 400, "0 dimensions were asked for; the vectors of tiny have 32"),
        ({"input": "a", "dimensions": 33}, 400, "Ask for 1 to 32"),
        ({"input": "a", "encoding_format": "hex"}, 400, "Invalid enum value 'hex'"),
        ({"input": "a", "inputs": "a"}, 400, "there is no field 'inputs'; did you mean 'input'?"),
        ({"input": "a", "late_chunking": True}, 400, "late_chunking is true"),
        (
            {"input": "a", "task": "separation", "input_type": "query"},
            400,
            "input_type and task are both given",
        ),
    ],
)
def test_refusals(client: Client, body: dict[str, object], status: int, reason: str) -> None:
    answer = client.post("/v1/embeddings", body)
    assert answer.status == status
    assert reason in answer.content["error"]["message"]
    assert answer.content["error"]["type"] == "invalid_request_error"
    assert answer.content["detail"] == answer.content["error"]["message"]


def test_an_unknown_header_value_is_refused(client: Client) -> None:
    answer = client.post("/v1/embeddings", {"input": "a"}, x_embedkit_on_truncate="warn")
    assert answer.status == 400
    assert "must be error, chunk or ok" in answer.content["error"]["message"]


def test_errors_name_their_kind() -> None:
    kinds = {status: openai_api.error_body(status, "…")["error"] for status in (401, 403, 429, 503)}
    assert {status: kind["type"] for status, kind in kinds.items()} == {
        401: "authentication_error",
        403: "permission_error",
        429: "rate_limit_error",
        503: "server_error",
    }
    assert kinds[401]["code"] == "invalid_api_key"
