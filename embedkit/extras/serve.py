"""Serving routes over HTTP: Starlette's routing, uvicorn's server, msgspec's checks of bodies, orjson's writing of answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import re
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any, Protocol, TypeVar, get_args, get_type_hints

import msgspec
import numpy as np
import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.requests import Request as StarletteRequest
from starlette.responses import Response as StarletteResponse
from starlette.routing import Match, compile_path
from starlette.routing import Route as StarletteRoute

T = TypeVar("T")
_MANY_BYTES = 2**14  # of a request: the answer to a larger one is written in a thread


class BodyError(ValueError):
    """A body that is no JSON, or not what a route takes; the message says where and why."""


def read_body(body: bytes, wanted: type[T]) -> T:
    """Read a JSON body into a dataclass.

    Raises:
        BodyError: it is no JSON, lacks a field, has one of a wrong type or one that is unknown.
    """
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise BodyError(f"the body is no JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise BodyError(f"the body is of type {type(value).__name__}; it must be an object")
    return convert(value, wanted)


def convert(value: Mapping[str, Any], wanted: type[T]) -> T:  # Any: JSON
    """Check a JSON object against a dataclass.

    Raises:
        BodyError: it lacks a field, has one of a wrong type or one that is unknown.
    """
    _refuse_unknown(value, wanted, "")
    try:
        return msgspec.convert(value, wanted)
    except (msgspec.ValidationError, ValueError) as exc:
        raise BodyError(str(exc)) from exc


def _refuse_unknown(value: Mapping[str, Any], wanted: type, where: str) -> None:  # Any: JSON
    """Refuse fields that a dataclass, or one within it, lacks; msgspec passes over them."""
    known, within = _names(wanted)
    unknown = [name for name in value if name not in known]
    if unknown:
        close = get_close_matches(unknown[0], known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
        raise BodyError(f"there is no field {where + unknown[0]!r}; {hint}")
    for name, inner in within.items():
        found = value.get(name)
        for number, each in enumerate(found if isinstance(found, list) else [found]):
            if isinstance(each, dict):
                place = f"{name}[{number}]" if isinstance(found, list) else name
                _refuse_unknown(each, inner, f"{where}{place}.")


@cache
def _names(wanted: type) -> tuple[Sequence[str], Mapping[str, type]]:
    """Return the fields of a dataclass, and those that hold one, or a list of one."""
    hints = get_type_hints(wanted)
    known = [each.name for each in fields(wanted)]
    within = {}
    for name in known:
        kinds = [each for kind in (hints[name], *get_args(hints[name])) for each in (kind, *get_args(kind))]
        inner = [kind for kind in kinds if isinstance(kind, type) and is_dataclass(kind)]
        if len(set(inner)) == 1:
            within[name] = inner[0]
    return known, within


def json_bytes(value: Any) -> bytes:  # Any: JSON, with numpy arrays
    """Write JSON; arrays become lists, numbers that are not finite become null."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
    except TypeError:  # metadata may hold whole numbers of more than 64 bits, which orjson does not write
        return json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":")).encode()


def _plain(value: Any) -> Any:  # Any: JSON, with numpy arrays
    """Return what Python's own writer takes for the same JSON."""
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def schemas(
    types: Sequence[type],
) -> tuple[Sequence[Mapping[str, Any]], Mapping[str, Any]]:  # Any: JSON schemas
    """Return the JSON schema of each dataclass, as a reference, and what the references lead to."""
    found, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    return found, components


class Application(Protocol):
    """What answers requests: `embedkit.serving.http.app.App`."""

    draining: bool

    @property
    def routes(self) -> Sequence[Any]: ...  # Any: routes with a method and a path

    @property
    def limits(self) -> Any: ...  # Any: with body_bytes, seconds and drain_seconds

    @property
    def counts(self) -> Any: ...  # Any: with the number that is running

    async def answer(
        self,
        request: Any,  # Any: a request, a route and a response as the application has them
        route: Any,
        *,
        known: Sequence[str] = (),
        refusal: tuple[int, str] | None = None,
    ) -> Any: ...


class _Router:
    """Finds the route of a method and a path."""

    def __init__(self, routes: Sequence[Any]) -> None:  # Any: as above
        compiled = [(*compile_path(route.path)[::2], route) for route in routes]
        # A path may hold a line end, which an id may, too.
        self._routes = [
            (re.compile(pattern.pattern, re.DOTALL), converters, route)
            for pattern, converters, route in compiled
        ]

    def find(self, method: str, path: str) -> tuple[Any, Mapping[str, str], Sequence[str]]:
        """Return the route with the values in the path; None, and the methods that this path takes, where there is none."""
        known = []
        for pattern, converters, route in self._routes:
            found = pattern.fullmatch(path)
            if found is None:
                continue
            if route.method == method or (method == "HEAD" and route.method == "GET"):
                return (
                    route,
                    {name: str(converters[name].convert(each)) for name, each in found.groupdict().items()},
                    (),
                )
            known.append(route.method)
        return None, {}, known


class _Everything(StarletteRoute):
    """Takes every path, line ends and all, to the one endpoint; `_Router` looks for the route."""

    def matches(self, scope: Any) -> tuple[Match, Any]:  # Any: ASGI's scope
        return (Match.FULL, {"endpoint": self.endpoint}) if scope["type"] == "http" else (Match.NONE, {})


class _Bodies:
    """The memory of all bodies that are being read or answered: no more than four of the largest at once."""

    def __init__(self, largest: int) -> None:
        self.largest, self._free = largest, 4 * largest

    def take(self, count: int) -> bool:
        if count > self._free:
            return False
        self._free -= count
        return True

    def give(self, count: int) -> None:
        self._free += count


class _Body:
    """The body of one request, as far as it was read; `refusal` is why no more of it is."""

    def __init__(self, bodies: _Bodies) -> None:
        self._bodies, self._taken = bodies, 0
        self.content, self.refusal = b"", None  # type: bytes, tuple[int, str] | None

    async def read(self, request: StarletteRequest, seconds: float) -> None:
        """Read all of it.

        Raises:
            ClientDisconnect: the client has gone.
        """
        declared = request.headers.get("content-length", "0")
        if self._too_large(int(declared) if declared.isdigit() else 0):
            return
        parts = []
        try:
            async with asyncio.timeout(seconds):
                async for part in request.stream():
                    if self._too_large(self._taken + len(part)):
                        return
                    if not self._bodies.take(len(part)):
                        self.refusal = 503, "too many bodies are being read at once. Try again in a second"
                        return
                    self._taken += len(part)
                    parts.append(part)
        except TimeoutError:
            self.refusal = 408, f"the body did not arrive within {seconds:g} s"
            return
        self.content = b"".join(parts)

    def _too_large(self, size: int) -> bool:
        if size > self._bodies.largest:
            limit = self._bodies.largest
            self.refusal = (
                413,
                f"the body has more than {limit:,} bytes, which this server takes. Send it in parts",
            )
            return True
        return False

    def close(self) -> None:
        self._bodies.give(self._taken)


def asgi_app(app: Application, make_request: Callable[..., Any]) -> Starlette:  # Any: a request
    """Make an ASGI application of `app`; `make_request` makes its requests of their parts."""
    bodies, router = _Bodies(app.limits.body_bytes), _Router(app.routes)

    async def respond(request: StarletteRequest) -> StarletteResponse:
        path = request.scope["path"]  # not that of `url`, which ends at a question mark that was sent as %3F
        route, params, known = router.find(request.method, path)
        body = _Body(bodies)
        try:
            with contextlib.suppress(ClientDisconnect):
                await body.read(request, app.limits.seconds)
                asked = make_request(
                    method=request.method,
                    path=path,
                    params=params,
                    query=dict(request.query_params),
                    query_pairs=tuple(request.query_params.multi_items()),
                    headers=dict(request.headers),
                    body=body.content,
                )
                answering = app.answer(asked, route, known=known, refusal=body.refusal)
                answer = await _unless_gone(request, answering) if body.refusal is None else await answering
                if answer is not None:
                    return await _sent(
                        answer, request_bytes=len(body.content), close=body.refusal is not None
                    )
            return StarletteResponse(status_code=499)
        except asyncio.CancelledError:  # the server ends, and this took longer than it may
            reason = {"error": f"the server ended before this was done, after {app.limits.drain_seconds:g} s"}
            return StarletteResponse(
                json_bytes(reason), 503, {"connection": "close"}, media_type="application/json"
            )
        finally:
            body.close()

    methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
    return Starlette(routes=[_Everything("/", respond, methods=methods)])


async def _unless_gone(
    request: StarletteRequest, answering: Any
) -> Any:  # Any: a coroutine, and what it returns
    """Wait for an answer; where its client goes first, cancel it and return None."""
    work = asyncio.ensure_future(answering)
    gone = asyncio.ensure_future(request.receive())  # after the body there comes nothing else than the end
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
        if not work.done():
            work.cancel()
    if work.done():
        return work.result()
    await asyncio.wait({work})
    return None


async def _sent(answer: Any, *, request_bytes: int, close: bool) -> StarletteResponse:  # Any: a response
    body = answer.body
    if (
        body is None and request_bytes > _MANY_BYTES
    ):  # to many texts there are many vectors; others are not to wait for them
        body = await asyncio.to_thread(json_bytes, answer.content)
    elif body is None:
        body = json_bytes(answer.content)
    headers = {**answer.headers, **({"connection": "close"} if close else {})}
    return StarletteResponse(body, answer.status, headers, media_type=answer.media_type)


def listen(host: str, port: int) -> socket.socket:
    """Open the socket that the server accepts connections on; port 0 takes a free one.

    Raises:
        OSError: the address is not this machine's, or the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((host, port))
        opened.listen(2048)
    except BaseException:
        opened.close()
        raise
    return opened


class _Server(uvicorn.Server):
    """A server whose signals are handled by `run`."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def run(
    app: Application, make_request: Callable[..., Any], opened: socket.socket, *, ready: Callable[[], None]
) -> None:
    """Serve until SIGTERM or Ctrl-C; then finish what runs within the limit. `ready` is called once requests are accepted."""
    config = uvicorn.Config(
        asgi_app(app, make_request),
        access_log=False,
        log_config=None,
        lifespan="off",
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=max(1, round(app.limits.drain_seconds)),
    )
    with contextlib.closing(opened), asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(_serve(_Server(config), app, opened, ready))


async def _serve(server: _Server, app: Application, opened: socket.socket, ready: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    serving = asyncio.ensure_future(server.serve(sockets=[opened]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.005)
    ready()
    stop = asyncio.ensure_future(stopping.wait())
    await asyncio.wait({serving, stop}, return_when=asyncio.FIRST_COMPLETED)
    app.draining = True  # new work is refused, while those who ask whether it is ready hear that it is not
    ends = loop.time() + app.limits.drain_seconds
    while app.counts.running and loop.time() < ends:
        await asyncio.sleep(0.02)
    server.should_exit = True
    await serving
