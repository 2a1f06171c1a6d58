"""`App`: lets requests in, reads their bodies, has them answered, turns every failure into a body that says why."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from embedkit.errors import EmbedkitError, FilterError, IndexMismatchError, RecordError
from embedkit.extras import load_extra
from embedkit.serving.engine.engine import EngineClosedError, QueueFullError
from embedkit.serving.http.access import Access
from embedkit.serving.http.messages import ErrorBody, HttpRequest, HttpResponse, RefusedError, Route
from embedkit.serving.limits import Limits

logger = logging.getLogger(__name__)
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")


@dataclass
class RequestCounts:
    """What was answered since the start, for /metrics: by route and status, and how long it took."""

    answered: Counter[tuple[str, str, int]] = field(default_factory=Counter)  # (method, route, status)
    seconds: dict[tuple[str, str], list[int]] = field(
        default_factory=dict
    )  # one bucket each of SECONDS, and one more
    total_seconds: Counter[tuple[str, str]] = field(default_factory=Counter)
    running: int = 0

    def note(self, method: str, path: str, status: int, seconds: float) -> None:
        self.answered[method, path, status] += 1
        buckets = self.seconds.setdefault((method, path), [0] * (len(SECONDS) + 1))
        buckets[sum(seconds > limit for limit in SECONDS)] += 1
        self.total_seconds[method, path] += seconds  # type: ignore[assignment] # a Counter adds floats, too


class App:
    """Answers requests by routes. `draining` says that the server is about to end: only what runs is finished."""

    def __init__(
        self, routes: Sequence[Route], access: Access, limits: Limits, *, log_json: bool = False
    ) -> None:
        self.routes, self.access, self.limits, self.log_json = tuple(routes), access, limits, log_json
        self.counts = RequestCounts()
        self.draining = False
        self._codec = load_extra("serve", purpose="embedkit serve")

    async def answer(
        self,
        request: HttpRequest,
        route: Route | None,
        *,
        known: Sequence[str] = (),
        refusal: tuple[int, str] | None = None,
    ) -> HttpResponse:
        """Answer a request: where no route fits, `known` are the methods of its path; `refusal` is why its body was not read."""
        started = time.perf_counter()
        request = replace(request, request_id=_request_id(request.headers))
        self.counts.running += 1
        try:
            response = await self._answer(request, route, known, refusal)
        except asyncio.CancelledError:
            self._log(request, route, 499, started)  # as nginx calls a client that has gone
            raise
        finally:
            self.counts.running -= 1
        self._log(request, route, response.status, started)
        headers = {
            "x-request-id": request.request_id,
            **self.access.cors_headers(request.headers.get("origin")),
        }
        return replace(response, headers={**response.headers, **headers})

    async def _answer(
        self, request: HttpRequest, route: Route | None, known: Sequence[str], refusal: tuple[int, str] | None
    ) -> HttpResponse:
        shape = self._error_body(request, route)
        try:
            if request.method == "OPTIONS" and "access-control-request-method" in request.headers:
                allowed = self.access.preflight_headers(request.headers.get("origin"))
                return HttpResponse(status=204 if allowed else 403, body=b"", headers=allowed)
            self.access.check(request, route)
            if refusal is not None:
                raise RefusedError(*refusal)
            if route is None:
                raise self._not_there(request, known)
            if self.draining and not route.keyless:
                raise RefusedError(
                    503, "this server is shutting down. Ask another one", headers={"retry-after": "5"}
                )
            if route.takes is not None:
                request = replace(request, content=self._content(request, route.takes, route.wrong_body))
            async with asyncio.timeout(self.limits.seconds):
                return await route.handle(request)
        except Exception as exc:
            refused = self._refused(exc, request)
            return HttpResponse(
                status=refused.status, content=shape(refused.status, refused.message), headers=refused.headers
            )

    def _content(self, request: HttpRequest, wanted: type, wrong: int) -> object:
        try:
            return self._codec.read_body(request.body, wanted)
        except self._codec.BodyError as exc:
            raise RefusedError(wrong, str(exc)) from exc

    def _refused(self, exc: Exception, request: HttpRequest) -> RefusedError:
        """Turn what went wrong into a status and a reason."""
        match exc:
            case RefusedError():
                return exc
            case QueueFullError():
                wait = str(max(1, round(exc.retry_seconds)))
                return RefusedError(429, exc.message, headers={"retry-after": wait})
            case EngineClosedError():
                return RefusedError(503, exc.message, headers={"retry-after": "5"})
            case FilterError():  # which names the command line's option
                return RefusedError(400, exc.message.removeprefix("--"))
            case RecordError() | IndexMismatchError():
                return RefusedError(422 if isinstance(exc, RecordError) else 400, exc.message)
            case TimeoutError():
                return RefusedError(
                    504, f"no answer within {self.limits.seconds:g} s. Send fewer texts at once"
                )
            case EmbedkitError():
                logger.error("request %s: %s", request.request_id, exc)
                return RefusedError(500, exc.message)
        logger.exception("request %s failed", request.request_id, exc_info=exc)
        return RefusedError(
            500, f"this is a fault of the server; its log has it under the request id {request.request_id}"
        )

    def _error_body(self, request: HttpRequest, route: Route | None) -> ErrorBody:
        """Return how errors look here: as the route has them, or as most routes below the same first part of the path do."""
        if route is not None:
            return route.error_body
        first = request.path.split("/")[1:2]
        near = [each for each in self.routes if each.path.split("/")[1:2] == first]
        return (near or [*self.routes])[0].error_body if self.routes else _plain_error

    def _not_there(self, request: HttpRequest, known: Sequence[str]) -> RefusedError:
        if known:
            allowed = ", ".join(known)
            return RefusedError(
                405, f"{request.path} takes {allowed}, not {request.method}", headers={"allow": allowed}
            )
        return RefusedError(404, f"there is nothing at {request.path}. GET /openapi.json lists what there is")

    def _log(self, request: HttpRequest, route: Route | None, status: int, started: float) -> None:
        seconds = time.perf_counter() - started
        path = request.path if route is None else route.path
        # A path that no route has is anything that anybody thinks of: counted together, so that counters stay few.
        self.counts.note(request.method if route else "", path if route else "", status, seconds)
        if self.log_json:
            row = {
                "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
                "request_id": request.request_id,
                "method": request.method,
                "path": request.path,
                "status": status,
                "ms": round(1000 * seconds, 2),
                "bytes_in": len(request.body),
            }
            logger.info("%s", json.dumps(row))
        else:
            shown = request.path.encode("unicode_escape").decode()
            logger.info(
                "%s %s %d %.1f ms  %s", request.method, shown, status, 1000 * seconds, request.request_id
            )


def _request_id(headers: Mapping[str, str]) -> str:
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _plain_error(status: int, message: str) -> Mapping[str, object]:
    return {"error": message, "status": status}
