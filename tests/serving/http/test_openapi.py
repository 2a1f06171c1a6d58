from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema
import pytest

pytest.importorskip("starlette")

from embedkit.serving.http import openapi
from embedkit.serving.http.docs_page import sample
from embedkit.serving.http.messages import Route
from tests.serving.asking import Client
from tests.serving.running import served
from tests.serving.tiny_services import api_routes, tiny_services


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("models")
    with (
        tiny_services(folder, aliases={"embedkit-small": "tiny"}) as services,
        served(partial(api_routes, services), limits=services.limits) as address,
    ):
        yield Client(address, ())


@pytest.fixture(scope="module")
def document(client: Client) -> Any:
    return client.get("/openapi.json").content


def test_every_route_is_described(document: Any) -> None:
    assert document["openapi"] == "3.1.0"
    assert document["paths"]["/v1/models/{id}"]["get"]["parameters"][0]["name"] == "id"
    assert set(document["paths"]["/v1/embeddings"]) == {"post"}
    assert document["paths"]["/health"]["get"]["security"] == []
    identifiers = [each["operationId"] for path in document["paths"].values() for each in path.values()]
    assert len(identifiers) == len(set(identifiers)) > 15
    body = document["components"]["schemas"]["EmbeddingsRequest"]
    assert body["required"] == ["input"]
    assert body["additionalProperties"] is False
    references = set(re.findall(r"#/components/schemas/([\w.]+)", str(document)))
    assert references <= set(document["components"]["schemas"])


def test_the_schemas_are_schemas(document: Any) -> None:
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_the_example_of_every_route_is_answered(document: Any, client: Client) -> None:
    schemas = document["components"]["schemas"]
    asked = 0
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if method != "post":
                continue
            wanted = schemas[
                operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
            ]
            answer = client.post(path, sample(wanted, schemas))
            assert (path, answer.status) == (path, 200), answer.content
            gives = operation["responses"]["200"]["content"]["application/json"]["schema"]
            jsonschema.validate(answer.content, {**gives, "components": document["components"]})
            asked += 1
    assert asked > 10


def test_the_page_is_complete_and_asks_nobody_else(client: Client) -> None:
    answer = client.get("/docs")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    page = answer.content
    assert re.findall(r'(?:src|href)="([^"]*)"', page) == ["openapi.json"]
    assert "<script" not in page
    for shown in (
        "POST /v1/embeddings",
        "POST /rerank",
        "encoding_format",
        "<h2>Ollama</h2>",
        "curl http://localhost:8080/embed",
    ):
        assert shown in page
    opened = re.findall(r"<(details|table|div|pre|main)\b", page)
    assert len(opened) == len(re.findall(r"</(details|table|div|pre|main)>", page))


def test_descriptions_cannot_break_out_of_the_page(tmp_path: Path) -> None:
    async def never(request: Any) -> Any:
        raise AssertionError

    route = Route(
        method="GET",
        path="/a",
        handle=never,
        error_body=lambda status, message: {"error": "<script>"},
        summary="<script>alert(1)</script>",
        tag="<b>",
    )
    with served([route, *openapi.routes(lambda: [route])]) as address:
        page = Client(address, ()).get("/docs").content
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
