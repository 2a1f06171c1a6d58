"""/openapi.json, made of the routes themselves, and /docs, a page of it that people read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from embedkit.extras import load_extra
from embedkit.serving.http.docs_page import POLICY, docs_page
from embedkit.serving.http.messages import JSON, HttpRequest, HttpResponse, Route
from embedkit.serving.http.search_bodies import error_body

TAG = "Running"
Document = Mapping[str, Any]  # Any: JSON
ABOUT = (
    "Embeddings, reranking and search. Errors say the reason in words, in the form that the clients of each API parse. Texts that "
    "are longer than the model reads are cut, and the header x-embedkit-truncated counts them; with x-embedkit-on-truncate: error "
    "they are refused, with chunk the vectors of their pieces are averaged."
)
_PLACE = re.compile(r"\{(\w+)(?::\w+)?\}")
_REFUSALS = {
    "POST": {
        "400": "The body is not what the route takes",
        "413": "Too much at once, or a text that is too long",
        "429": "Too much waits to be computed; Retry-After says for how many seconds",
    },
    "GET": {},
    "DELETE": {},
}


def routes(all_routes: Callable[[], Sequence[Route]]) -> list[Route]:
    """Return the routes that describe all others, as `all_routes` lists them once requests come."""

    async def openapi(request: HttpRequest) -> HttpResponse:
        return HttpResponse(content=document(all_routes()))

    async def docs(request: HttpRequest) -> HttpResponse:
        page = docs_page(document(all_routes()))
        return HttpResponse(
            body=page.encode(),
            media_type="text/html",
            headers={"content-security-policy": POLICY, "x-content-type-options": "nosniff"},
        )

    described = (
        ("/openapi.json", openapi, "Describe all routes (OpenAPI 3.1)"),
        ("/docs", docs, "Show them to people"),
    )
    return [
        Route(
            method="GET",
            path=path,
            handle=handle,
            error_body=error_body,
            summary=summary,
            tag=TAG,
            keyless=True,
        )
        for path, handle, summary in described
    ]


def document(routes: Sequence[Route]) -> Document:
    """Return the OpenAPI document of some routes."""
    types = list(
        dict.fromkeys(each for route in routes for each in (route.takes, route.gives) if each is not None)
    )
    found, components = load_extra("serve", purpose="embedkit serve").schemas(types)
    schemas = dict(zip(types, found, strict=True))
    components = {name: dict(schema) for name, schema in components.items()}
    for route in routes:
        if route.takes is not None:  # what it lacks is refused
            name = schemas[route.takes]["$ref"].rpartition("/")[2]
            components[name]["additionalProperties"] = False
    paths: dict[str, dict[str, Any]] = {}  # Any: JSON
    for route in routes:
        path = _PLACE.sub(r"{\1}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "embedkit", "version": version("embedkit"), "description": ABOUT},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route, schemas: Mapping[type, Any]) -> Document:  # Any: JSON
    answer: dict[str, Any] = {"description": "The answer"}  # Any: JSON
    if route.gives is not None:
        answer["content"] = {JSON: {"schema": schemas[route.gives]}}
    refusals = {"404": "No such model, or nothing there"} | dict(_REFUSALS.get(route.method, {}))
    if route.takes is not None and route.wrong_body != 400:
        refusals["400"] = "Nothing to compute: no text, or an empty one"
        refusals[str(route.wrong_body)] = _REFUSALS["POST"]["400"]
    operation: dict[str, Any] = {  # Any: JSON
        "summary": route.summary,
        "operationId": re.sub(r"\W+", "_", f"{route.method.lower()}{route.path}").strip("_"),
        "tags": [route.tag],
        # Without keys at the server none is needed.
        "security": [] if route.keyless else [{"key": []}, {}],
        "responses": {
            "200": answer,
            **{status: _refusal(route, int(status), reason) for status, reason in refusals.items()},
            "default": _refusal(route, 500, "The reason in words"),
        },
    }
    names = _PLACE.findall(route.path)
    if names:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    if route.takes is not None:
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": schemas[route.takes]}}}
        operation["description"] = (route.takes.__doc__ or "").strip()
    return operation


def _refusal(route: Route, status: int, reason: str) -> Document:
    example = route.error_body(status, "the reason in words")
    return {"description": reason, "content": {JSON: {"schema": {"type": "object"}, "example": example}}}
