from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("starlette")

from embedkit.encoding.encoder import Encoder
from embedkit.serving.http import tei_api
from embedkit.serving.services import Services
from tests.serving.asking import Client
from tests.serving.running import served
from tests.serving.tiny_services import LONG, PROMPTS, tiny_services
from tests.tiny import write_static_model

TEXTS = ["a girl plays the piano", "the dog sleeps", "a girl plays the guitar"]


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with tiny_services(tmp_path_factory.mktemp("models")) as made:
        yield made


@pytest.fixture(scope="module")
def client(services: Services) -> Iterator[Client]:
    routes = tei_api.routes(services)
    with served(routes, limits=services.limits) as address:
        yield Client(address, routes)


@pytest.mark.parametrize("path", ["/embed", "/"])
def test_embed(client: Client, services: Services, path: str) -> None:
    encoder = services.encoders["tiny"]
    np.testing.assert_allclose(client.post(path, {"inputs": TEXTS}).content, encoder.encode(TEXTS), atol=1e-6)
    one = client.post(path, {"inputs": TEXTS[0], "prompt_name": "topic", "dimensions": 8}).content
    cut = encoder.encode(TEXTS[:1], prompt=PROMPTS["topic"])[:, :8]
    np.testing.assert_allclose(one, cut / np.linalg.norm(cut), atol=1e-5)


def test_embed_all_gives_a_vector_for_each_token(client: Client, services: Services) -> None:
    encoder = services.encoders["org/raw"]
    answer = client.post("/embed_all", {"inputs": [*TEXTS, LONG], "model": "org/raw"})
    found = [np.array(each) for each in answer.content]
    lengths = encoder.tokenizer.encode([*TEXTS, LONG]).lengths
    assert [each.shape for each in found] == [(length, 32) for length in lengths]
    assert answer.headers["x-embedkit-truncated"] == "1"
    means = np.stack([each.mean(axis=0) for each in found])  # as this model pools
    np.testing.assert_allclose(means, encoder.encode([*TEXTS, LONG], on_truncate="ok"), atol=1e-5)
    refused = client.post("/embed_all", {"inputs": LONG, "truncate": False})
    assert (refused.status, refused.content["error_type"]) == (413, "Validation")


def test_embed_all_refuses_what_has_no_token_vectors_and_what_is_too_much(
    services: Services, tmp_path: Path
) -> None:
    static = Encoder.load(write_static_model(tmp_path / "static"))
    many = replace(services.limits, inputs=10_000)
    routes = tei_api.routes(replace(services, limits=many, encoders={"static": static, **services.encoders}))
    with served(routes) as address:
        client = Client(address, routes)
        refused = client.post("/embed_all", {"inputs": "a girl"})
        assert refused.status == 422
        assert "static is a static model" in refused.content["error"]
        large = client.post("/embed_all", {"inputs": [LONG] * 9000, "model": "tiny"})
        assert large.status == 413
        assert "288,000 tokens, whose vectors are 9,216,000 numbers" in large.content["error"]


def test_normalize(client: Client, services: Services) -> None:
    own = services.encoders["org/raw"].encode(TEXTS)
    raw = client.post("/embed", {"inputs": TEXTS, "model": "org/raw", "normalize": False})
    np.testing.assert_allclose(raw.content, own, atol=1e-5)
    unit = client.post("/embed", {"inputs": TEXTS, "model": "org/raw"})
    np.testing.assert_allclose(unit.content, own / np.linalg.norm(own, axis=1, keepdims=True), atol=1e-5)


def test_long_texts_are_cut_at_either_end(client: Client, services: Services) -> None:
    encoder = services.encoders["tiny"]
    text = "dog " * 40 + "the girl sings a song"
    tail = client.post("/embed", {"inputs": text, "truncation_direction": "Left"})
    kept = encoder.encode(["dog " * 25 + "the girl sings a song"])  # 30 tokens of its own
    np.testing.assert_allclose(tail.content, kept, atol=1e-6)
    assert tail.headers["x-embedkit-truncated"] == "1"
    head = client.post("/embed", {"inputs": text, "truncate": True})
    np.testing.assert_allclose(head.content, encoder.encode(["dog " * 30]), atol=1e-6)
    refused = client.post("/embed", {"inputs": text, "truncate": False})
    assert (refused.status, refused.content["error_type"]) == (413, "Validation")
    assert "47 tokens; the model reads 32. Cut it, or have it cut: truncate=true" in refused.content["error"]


@pytest.mark.parametrize("path", ["/similarity", "/"])
def test_similarity(client: Client, services: Services, path: str) -> None:
    inputs = {"source_sentence": TEXTS[0], "sentences": TEXTS[1:]}
    answer = client.post(path, {"inputs": inputs, "parameters": {"truncate": True}})
    own = services.encoders["tiny"].encode(TEXTS)
    np.testing.assert_allclose(answer.content, own[1:] @ own[0], atol=1e-5)
    topic = client.post(path, {"inputs": inputs, "parameters": {"prompt_name": "topic"}})
    assert topic.content != answer.content
    long = {"source_sentence": LONG, "sentences": ["a"]}
    assert client.post(path, {"inputs": long, "parameters": {"truncate": False}}).status == 413


def test_rerank(client: Client, services: Services) -> None:
    model = services.rerankers["ranker"]
    texts = [*TEXTS, ""]
    asked = {"query": "who plays", "texts": texts, "return_text": True}
    ranks = client.post("/rerank", asked).content
    own = model.score("who plays", texts)
    assert [rank["index"] for rank in ranks] == list(np.argsort(-own))
    np.testing.assert_allclose([rank["score"] for rank in ranks], 1 / (1 + np.exp(np.sort(-own))), atol=1e-5)
    assert ranks[0]["text"] == texts[ranks[0]["index"]]
    raw = client.post("/rerank", {**asked, "raw_scores": True, "return_text": False}).content
    np.testing.assert_allclose([rank["score"] for rank in raw], np.sort(-own) * -1, atol=1e-5)
    assert "text" not in raw[0]


def test_rerank_of_long_texts(client: Client) -> None:
    text = "dog " * 40 + "the girl sings a song"
    asked = {"query": "who sings", "texts": ["a", text]}
    assert client.post("/rerank", asked).headers["x-embedkit-truncated"] == "1"
    refused = client.post("/rerank", {**asked, "truncate": False})
    assert refused.status == 413
    assert "texts[1] and the query have more tokens than the 32 that ranker reads" in refused.content["error"]
    head, tail = (
        {
            rank["index"]: rank["score"]
            for rank in client.post("/rerank", {**asked, "truncation_direction": side}).content
        }
        for side in ("Right", "Left")
    )
    assert head[0] == tail[0]
    assert head[1] != tail[1]
    chunks = client.post("/rerank", asked, x_embedkit_on_truncate="chunk")
    assert (chunks.status, chunks.content["error_type"]) == (422, "Validation")


def test_tokenize(client: Client, services: Services) -> None:
    tokens = client.post("/tokenize", {"inputs": "the girl"}).content[0]
    assert tokens[0] == {"id": 2, "text": "[CLS]", "special": True, "start": None, "stop": None}
    assert (tokens[2]["text"], tokens[2]["start"], tokens[2]["stop"]) == ("girl", 4, 8)
    assert [token["id"] for token in tokens] == services.encoders["tiny"].tokenizer.encode(
        ["the girl"]
    ).input_ids.tolist()
    bare = client.post("/tokenize", {"inputs": ["the girl", "a"], "add_special_tokens": False}).content
    assert [len(row) for row in bare] == [2, 1]
    prompted = client.post("/tokenize", {"inputs": "dog", "prompt_name": "topic"}).content[0]
    assert [token["text"] for token in prompted[1:-1]] == ["a", "song", "dog"]


def test_info_and_health(client: Client, services: Services, tmp_path: object) -> None:
    info = client.get("/info").content
    assert info["model_id"] == "tiny"
    assert info["model_type"] == {"embedding": {"pooling": "mean"}}
    assert (info["max_input_length"], info["max_client_batch_size"], info["dimension"]) == (32, 50, 32)
    assert info["prompts"] == ["document", "query", "topic"]
    assert client.get("/health").content == {"status": "ok"}
    alone = tei_api.routes(replace(services, encoders={}))
    with served(alone) as address:
        other = Client(address, alone)
        assert other.get("/info").content["model_type"]["reranker"]["id2label"] == {"0": "LABEL_0"}
        refused = other.post("/embed", {"inputs": "a"})
        assert refused.status == 404
        assert "no embedding model is served here" in refused.content["error"]


@pytest.mark.parametrize(
    ("path", "body", "status", "kind", "reason"),
    [
        ("/embed", {"inputs": []}, 400, "Validation", "inputs is empty"),
        ("/embed", {"inputs": ""}, 400, "Validation", "inputs is an empty string"),
        ("/embed", {"inputs": ["a"] * 51}, 413, "Validation", "inputs has 51 texts; this server takes 50"),
        ("/embed", {"inputs": [[1, 2]]}, 422, "Validation", "inputs holds token ids"),
        ("/embed", {"inputs": "a", "prompt_name": "q"}, 422, "Validation", "it has: document, query, topic"),
        ("/embed", {"inputs": "a", "dimensions": 99}, 422, "Validation", "Ask for 1 to 32"),
        ("/embed", {"inputs": "a", "truncate": "yes"}, 422, "Validation", "Expected `bool | null`"),
        (
            "/embed",
            {"inputs": "a", "truncation_direction": "Up"},
            422,
            "Validation",
            "Invalid enum value 'Up'",
        ),
        (
            "/similarity",
            {"inputs": {"source_sentence": "", "sentences": ["a"]}},
            400,
            "Validation",
            "source_sentence",
        ),
        (
            "/similarity",
            {"inputs": {"source_sentence": "a", "sentences": []}},
            400,
            "Validation",
            "sentences is empty",
        ),
        ("/rerank", {"query": "", "texts": ["a"]}, 400, "Validation", "query is an empty string"),
        ("/rerank", {"query": "a", "texts": []}, 400, "Validation", "texts is empty"),
        ("/rerank", {"query": "a", "texts": ["a"] * 51}, 413, "Validation", "texts has 51 texts"),
        ("/rerank", {"query": "a", "texts": ["a"], "model": "x"}, 404, "Validation", "no reranker 'x'"),
        ("/tokenize", {"inputs": []}, 400, "Validation", "inputs is empty"),
        ("/tokenize", {"inputs": "a " * 2**17 + "a"}, 413, "Validation", "inputs has 262,145 characters"),
    ],
)
def test_refusals(
    client: Client, path: str, body: dict[str, object], status: int, kind: str, reason: str
) -> None:
    answer = client.post(path, body)
    assert (answer.status, answer.content["error_type"]) == (status, kind)
    assert reason in answer.content["error"]


@pytest.mark.parametrize("path", ["/", "/embed", "/embed_all", "/rerank", "/similarity", "/tokenize"])
def test_a_body_that_is_no_json_or_holds_something_else_gets_teis_status(client: Client, path: str) -> None:
    for body, reason in ((b"inputs=a", "the body is no JSON"), (b'["a"]', "must be an object")):
        answer = client.ask("POST", path, body)
        assert (answer.status, answer.content["error_type"]) == (422, "Validation")
        assert reason in answer.content["error"]
