"""A request, a response, and a route between them, as plain values."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from embedkit.errors import EmbedkitError

JSON = "application/json"
# What turns a refusal into the body that the clients of an API parse: (status, reason) -> JSON.
ErrorBody = Callable[[int, str], Mapping[str, Any]]  # Any: JSON


class RefusedError(EmbedkitError):
    """A request that is not answered: `status` is HTTP's, the message says why and what to do."""

    def __init__(self, status: int, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers or {}


@dataclass(frozen=True, kw_only=True)
class HttpRequest:
    """One request. `headers` have lower-case names; `params` come from the path, `query` from behind the question mark.

    A name may come several times behind the question mark: `query_pairs` has all of them, in order, and `query` the last.

    `content` is the body as the route's `takes` has it; None where the route takes none.
    """

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    query_pairs: Sequence[tuple[str, str]] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    content: Any = None  # Any: an instance of the route's `takes`
    request_id: str = ""


@dataclass(frozen=True, kw_only=True)
class HttpResponse:
    """One answer. `content` becomes JSON, numpy arrays as lists; `body` is sent as it is, and excludes it."""

    status: int = 200
    content: Any = None  # Any: what JSON holds, and numpy arrays
    body: bytes | None = None
    media_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[HttpRequest], Awaitable[HttpResponse]]


@dataclass(frozen=True, kw_only=True)
class Route:
    """What answers a method at a path, such as `/documents/{id:path}`.

    `takes` and `gives` are dataclasses: the body's fields are checked against the first, and both describe the route in
    /openapi.json. A body that is no JSON or not as `takes` has it, or holds more, gets the status `wrong_body`. `keyless` routes want no key, as those that probes ask; `writes` marks
    those that change an index.
    """

    method: str
    path: str
    handle: Handler
    error_body: ErrorBody
    summary: str
    tag: str
    takes: type | None = None
    gives: type | None = None
    wrong_body: int = 400
    keyless: bool = False
    writes: bool = False
