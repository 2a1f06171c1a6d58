from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("starlette")

from embedkit.serving.http import ollama_api
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
    routes = ollama_api.routes(services)
    with served(routes, limits=services.limits) as address:
        yield Client(address, routes)


def test_embed(client: Client, services: Services) -> None:
    answer = client.post(
        "/api/embed", {"model": "tiny:latest", "input": TEXTS, "keep_alive": "5m", "options": {}}
    )
    np.testing.assert_allclose(
        answer.content["embeddings"], services.encoders["tiny"].encode(TEXTS), atol=1e-6
    )
    assert answer.content["model"] == "tiny:latest"
    assert answer.content["prompt_eval_count"] > 0
    assert answer.content["total_duration"] > 0
    raw = client.post("/api/embed", {"model": "org/raw", "input": TEXTS[0], "dimensions": 8})
    assert np.linalg.norm(raw.content["embeddings"]) == pytest.approx(1, abs=1e-5)
    assert np.shape(raw.content["embeddings"]) == (1, 8)


def test_the_older_route(client: Client, services: Services) -> None:
    answer = client.post("/api/embeddings", {"model": "org/raw", "prompt": TEXTS[0]})
    np.testing.assert_allclose(
        answer.content["embedding"], services.encoders["org/raw"].encode(TEXTS[0]), atol=1e-5
    )
    assert client.post("/api/embeddings", {"model": "tiny", "prompt": ""}).content == {"embedding": []}


def test_no_text_asks_for_the_model_only(client: Client) -> None:
    nothings: tuple[dict[str, object], ...] = ({}, {"input": ""}, {"input": []})
    for nothing in nothings:
        assert client.post("/api/embed", {"model": "tiny", **nothing}).content["embeddings"] == []
    assert client.post("/api/embed", {"model": "llama"}).status == 404


def test_what_was_cut(client: Client) -> None:
    assert client.post("/api/embed", {"model": "tiny", "input": LONG}).headers["x-embedkit-truncated"] == "1"
    refused = client.post("/api/embed", {"model": "tiny", "input": LONG, "truncate": False})
    assert refused.status == 400
    assert "the model reads 32. Cut it, or have it cut: truncate=true" in refused.content["error"]


def test_models_and_version(client: Client) -> None:
    models = client.get("/api/tags").content["models"]
    assert [model["name"] for model in models] == ["tiny", "org/raw"]
    assert models[0]["size"] > 1000
    assert models[0]["details"]["family"] == "bert"
    assert client.get("/api/version").content["version"]


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ({"input": "a"}, 400, "missing required field `model`"),
        ({"model": "tiny", "input": ["a", ""]}, 400, "input[1] is an empty string"),
        ({"model": "tiny", "input": [1]}, 400, "Expected `str`, got `int` - at `$.input[0]`"),
        ({"model": "tiny", "input": ["a"] * 51}, 400, "input has 51 texts"),
        ({"model": "llama3:8b", "input": "a"}, 404, "no embedding model 'llama3:8b'"),
        ({"model": "tiny", "input": "a", "prompt": "a"}, 400, "there is no field 'prompt'"),
    ],
)
def test_refusals(client: Client, body: dict[str, object], status: int, reason: str) -> None:
    answer = client.post("/api/embed", body)
    assert answer.status == status
    assert reason in answer.content["error"]
