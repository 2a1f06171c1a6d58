"""A client of bare HTTP, that holds each answer against what its route says it gives."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import msgspec

from embedkit.serving.http.messages import Route


@dataclass(frozen=True)
class Answer:
    """`content` is the body as JSON, or as it is."""

    status: int
    content: Any
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Client:
    """Asks a server of some routes."""

    address: str
    routes: Sequence[Route]

    def post(self, path: str, content: object, **headers: str) -> Answer:
        return self.ask("POST", path, json.dumps(content).encode(), **headers)

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, None, **headers)

    def ask(self, method: str, path: str, body: bytes | None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection(urlsplit(self.address).netloc, timeout=30)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, named)
            answer = connection.getresponse()
            raw = answer.read()
            told = {name.lower(): value for name, value in answer.getheaders()}
            content = json.loads(raw) if told.get("content-type") == "application/json" else raw.decode()
        finally:
            connection.close()
        route = next((each for each in self.routes if (each.method, each.path) == (method, path)), None)
        if answer.status == 200 and route is not None and route.gives is not None:
            msgspec.convert(content, route.gives)
        return Answer(answer.status, content, told)
