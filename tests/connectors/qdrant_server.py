"""What a Qdrant server answers, by the client's local mode behind HTTP: no server can be installed here.

It shows what we ask for and that vectors survive JSON; how a real server searches it cannot show.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

KEY = "the key"


@dataclass
class QdrantServer:
    """A server on a free port; `fail_after` requests with points for `docs` more, it goes away."""

    port: int = 0
    fail_after: int | None = None
    asked: list[tuple[str, str, Any]] = field(default_factory=list)  # Any: JSON

    def url(self, collection: str, *, key: str = "the%20key", more: str = "") -> str:
        return f"qdrant://:{key}@127.0.0.1:{self.port}?collection={collection}{more}"


@contextmanager
def qdrant_server() -> Iterator[QdrantServer]:
    package = pytest.importorskip("qdrant_client", reason="needs: pip install 'embedkit[qdrant]'")
    local = package.QdrantClient(":memory:", force_disable_check_same_thread=True)
    state, lock = QdrantServer(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def answer(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"null")
            path = self.path.partition("?")[0]
            with lock:
                state.asked.append((self.command, path, body))
                if self.headers.get("api-key") != KEY:
                    self.send(401, {"status": {"error": "Must provide an API key"}})
                    return
                if (
                    state.fail_after is not None
                    and self.command == "PUT"
                    and path == "/collections/docs/points"
                ):
                    state.fail_after -= 1
                    if state.fail_after < 0:
                        self.close_connection = True
                        return
                try:
                    result = _call(local, self.command, path.split("/")[2], path.split("/")[3:], body)
                except ValueError as exc:
                    self.send(404, {"status": {"error": str(exc)}})
                    return
            self.send(200, {"result": result, "status": "ok", "time": 0.0})

        def send(self, status: int, value: object) -> None:
            text = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_PUT = do_POST = do_PATCH = answer  # noqa: N815 # the names that http.server asks for

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        local.close()


def _call(local: Any, method: str, name: str, rest: list[str], body: Any) -> Any:  # Any: JSON, and a client
    from qdrant_client import models

    def plain(value: Any) -> Any:  # Any: as above
        if isinstance(value, list):
            return [plain(item) for item in value]
        return value.model_dump(mode="json", exclude_none=True) if hasattr(value, "model_dump") else value

    if (method, rest) == ("GET", ["exists"]):
        return {"exists": local.collection_exists(name)}
    if (method, rest) == ("GET", []):
        return plain(local.get_collection(name))
    if (method, rest) == ("PUT", []):
        asked = models.CreateCollection(**body)
        return local.create_collection(
            name, vectors_config=asked.vectors, sparse_vectors_config=asked.sparse_vectors
        )
    if (method, rest) in (("PATCH", []), ("PUT", ["index"])):
        return True if method == "PATCH" else {"operation_id": 0, "status": "completed"}
    if (method, rest) == ("PUT", ["points"]):
        return plain(local.upsert(name, models.PointsList(**body).points))
    if rest == ["points"]:
        got = local.retrieve(
            name, body["ids"], with_payload=body["with_payload"], with_vectors=body["with_vector"]
        )
        return plain(got)
    where = models.Filter(**body["filter"]) if body.get("filter") else None
    if rest == ["points", "scroll"]:
        points, offset = local.scroll(
            name,
            limit=body["limit"],
            offset=body.get("offset"),
            with_payload=body["with_payload"],
            with_vectors=body["with_vector"],
        )
        return {"points": plain(points), "next_page_offset": offset}
    if rest == ["points", "count"]:
        return plain(local.count(name, count_filter=where))
    if rest == ["points", "delete"]:
        return plain(local.delete(name, models.PointIdsList(**body)))
    assert rest == ["points", "query"]
    request = models.QueryRequest(**body)
    found = local.query_points(
        name,
        query=getattr(request.query, "nearest", request.query),
        using=request.using,
        limit=request.limit,
        query_filter=where,
        with_payload=body.get("with_payload", False),
        with_vectors=body.get("with_vector", False),
    )
    return plain(found)
