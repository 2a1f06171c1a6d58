from __future__ import annotations

import asyncio
import http.client
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from embedkit.errors import RecordError
from embedkit.serving.http.access import Access
from embedkit.serving.http.messages import HttpRequest, HttpResponse, Route
from embedkit.serving.limits import Limits

pytest.importorskip("starlette")

from tests.serving.running import served


@dataclass(frozen=True, kw_only=True)
class Greeting:
    name: str
    times: int = 1


def error_body(status: int, message: str) -> Mapping[str, Any]:
    return {"error": message, "code": status}


def route(method: str, path: str, handle: Any, **more: Any) -> Route:
    return Route(
        method=method, path=path, handle=handle, error_body=error_body, summary="…", tag="test", **more
    )


async def greet(request: HttpRequest) -> HttpResponse:
    return HttpResponse(content={"said": [f"hello {request.content.name}"] * request.content.times})


async def echo(request: HttpRequest) -> HttpResponse:
    return HttpResponse(content={"id": request.params["id"], "query": dict(request.query)})


async def fail(request: HttpRequest) -> HttpResponse:
    raise KeyError("a fault of ours")


async def refuse(request: HttpRequest) -> HttpResponse:
    raise RecordError("notes.txt: there is nothing in it")


async def dawdle(request: HttpRequest) -> HttpResponse:
    await asyncio.sleep(30)
    return HttpResponse(content={})


async def health(request: HttpRequest) -> HttpResponse:
    return HttpResponse(content={"status": "ok"})


ROUTES = (
    route("POST", "/greet", greet, takes=Greeting),
    route("GET", "/echo/{id:path}", echo),
    route("GET", "/fail", fail),
    route("GET", "/refuse", refuse),
    route("GET", "/dawdle", dawdle),
    route("GET", "/health", health, keyless=True),
)


def ask(
    address: str, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, Any, Mapping[str, str]]:
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=20)
    try:
        connection.request(
            method, path, body, {name.replace("_", "-"): value for name, value in headers.items()}
        )
        answer = connection.getresponse()
        content = answer.read()
        return (
            answer.status,
            json.loads(content) if content else None,
            {k.lower(): v for k, v in answer.getheaders()},
        )
    finally:
        connection.close()


def test_an_answer_has_a_request_id_and_takes_the_one_that_was_given() -> None:
    with served(ROUTES) as address:
        status, content, headers = ask(address, "POST", "/greet", b'{"name": "Ada", "times": 2}')
        assert (status, content) == (200, {"said": ["hello Ada"] * 2})
        assert len(headers["x-request-id"]) == 32
        assert ask(address, "GET", "/health", x_request_id="mine-1")[2]["x-request-id"] == "mine-1"
        assert ask(address, "GET", "/health", x_request_id="no good")[2]["x-request-id"] != "no good"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "no JSON"),
        (b"[1", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b'["a"]', "must be an object"),
        (b'{"nam": "Ada"}', "there is no field 'nam'; did you mean 'name'?"),
        (b"{}", "missing required field `name`"),
        (b'{"name": 3}', "Expected `str`, got `int` - at `$.name`"),
        (b'{"name": "a", "times": NaN}', "no JSON"),
    ],
)
def test_a_bad_body_is_refused_with_the_reason(body: bytes, reason: str) -> None:
    with served(ROUTES) as address:
        status, content, _ = ask(address, "POST", "/greet", body)
    assert status == 400
    assert reason in content["error"]


def test_paths_and_methods() -> None:
    with served(ROUTES) as address:
        assert ask(address, "GET", "/echo/a%2Fb/c%20d?x=1&y=")[1] == {
            "id": "a/b/c d",
            "query": {"x": "1", "y": ""},
        }
        status, content, headers = ask(address, "DELETE", "/greet")
        assert (status, headers["allow"]) == (405, "POST")
        assert "takes POST, not DELETE" in content["error"]
        status, content, _ = ask(address, "GET", "/nowhere")
        assert status == 404
        assert "/openapi.json" in content["error"]
        assert ask(address, "HEAD", "/health")[0] == 200


def test_failures_become_statuses() -> None:
    with served(ROUTES) as address:
        status, content, headers = ask(address, "GET", "/fail")
        assert status == 500
        assert headers["x-request-id"] in content["error"]
        assert "fault of ours" not in content["error"]
        assert ask(address, "GET", "/refuse")[0] == 422


def test_too_large_too_slow_and_too_long() -> None:
    with served(ROUTES, limits=Limits(body_bytes=1000, seconds=0.5)) as address:
        status, content, headers = ask(address, "POST", "/greet", b'{"name": "' + b"a" * 1000 + b'"}')
        assert status == 413
        assert "1,000 bytes" in content["error"]
        assert headers["connection"] == "close"
        status, content, _ = ask(address, "GET", "/dawdle")
        assert status == 504
        assert "within 0.5 s" in content["error"]
        connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=20)
        connection.putrequest("POST", "/greet")
        connection.putheader("content-length", "500")
        connection.endheaders(b'{"name"')
        assert connection.getresponse().status == 408  # half of a body
        connection.close()
        assert ask(address, "GET", "/health")[0] == 200


def test_keys() -> None:
    with served(ROUTES, Access(keys=("k1", "k2"))) as address:
        status, content, headers = ask(address, "POST", "/greet", b'{"name": "Ada"}')
        assert (status, headers["www-authenticate"]) == (401, "Bearer")
        assert "Authorization: Bearer KEY" in content["error"]
        assert ask(address, "POST", "/greet", b'{"name": "Ada"}', authorization="Bearer k3")[0] == 401
        assert ask(address, "POST", "/greet", b'{"name": "Ada"}', authorization="Bearer k2")[0] == 200
        assert ask(address, "GET", "/health")[0] == 200
        assert ask(address, "GET", "/nowhere")[0] == 401  # what there is, is nobody's business either


def test_other_names_and_foreign_pages() -> None:
    with served(ROUTES, Access(origins=("https://a.example",))) as address:
        status, content, _ = ask(address, "GET", "/health", host="evil.example")
        assert status == 421
        assert "--allow-host" in content["error"]
        assert ask(address, "GET", "/health", origin="https://evil.example")[0] == 403
        assert ask(address, "GET", "/health", origin="http://[x")[0] == 403
        assert ask(address, "GET", "/health", origin=address)[0] == 200
        status, _, headers = ask(address, "GET", "/health", origin="https://a.example")
        assert (status, headers["access-control-allow-origin"]) == (200, "https://a.example")
        status, _, headers = ask(
            address, "OPTIONS", "/greet", origin="https://a.example", access_control_request_method="POST"
        )
        assert status == 204
        assert "authorization" in headers["access-control-allow-headers"]
        status, _, _ = ask(
            address, "OPTIONS", "/greet", origin="https://evil.example", access_control_request_method="POST"
        )
        assert status == 403


def test_a_request_whose_client_has_gone_is_cancelled() -> None:
    ended = threading.Event()

    async def wait(request: HttpRequest) -> HttpResponse:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            ended.set()
            raise
        return HttpResponse(content={})

    with served([route("GET", "/wait", wait)]) as address:
        connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=20)
        connection.request("GET", "/wait")
        time.sleep(0.2)
        connection.close()
        assert ended.wait(10)


@pytest.mark.parametrize("doc_id", ["a b", "what?#1", "100%25 off", "straße/光", "../up", "a//b"])
def test_an_id_in_a_path_comes_as_it_is(doc_id: str) -> None:
    with served(ROUTES) as address:
        status, content, _ = ask(address, "GET", f"/echo/{quote(doc_id, safe='')}")
    assert (status, content["id"]) == (200, doc_id)
