"""The files of the page as routes: no key (the page asks for it), strict headers, and an answer of 304 to who has them.

The page is static: it takes everything from this server's other routes, and nothing from elsewhere.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from functools import cache
from importlib import resources

from embedkit.serving.http.messages import HttpRequest, HttpResponse, Route

# Nothing but this server's own scripts, styles and answers; the heat map and icons may be data: images. No inline script or style.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'none'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS: Mapping[str, str] = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # Asked for anew each time, and answered with 304 while it is the same: a new version of embedkit is seen at once.
    "cache-control": "no-cache",
    "vary": "Accept-Encoding",
}
KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
START = "index.html"


def routes() -> list[Route]:
    """Return a route for each file: the page at `/`, what it loads below `/page/`."""
    return [_route("/" if name == START else f"/page/{name}", name) for name in sorted(_files())]


def _route(path: str, name: str) -> Route:
    async def handle(request: HttpRequest) -> HttpResponse:
        return _answer(name, request.headers)

    what = "The search page" if name == START else f"A file of the search page: {name}"
    return Route(
        method="GET", path=path, handle=handle, error_body=_error, summary=what, tag="page", keyless=True
    )


def _answer(name: str, headers: Mapping[str, str]) -> HttpResponse:
    content, packed = _files()[name]
    is_packed = "gzip" in [
        part.partition(";")[0].strip() for part in headers.get("accept-encoding", "").split(",")
    ]
    # The two forms of a file are different answers, and have tags of their own.
    tag = f'"{hashlib.sha256(content).hexdigest()[:20]}{"-gzip" if is_packed else ""}"'
    kind = f"{KINDS[name.rpartition('.')[2]]}; charset=utf-8"
    own = {**HEADERS, "etag": tag}
    known = [each.strip().removeprefix("W/") for each in headers.get("if-none-match", "").split(",")]
    if tag in known or "*" in known:
        return HttpResponse(status=304, body=b"", media_type=kind, headers=own)
    if not is_packed:
        return HttpResponse(body=content, media_type=kind, headers=own)
    return HttpResponse(body=packed, media_type=kind, headers={**own, "content-encoding": "gzip"})


@cache
def _files() -> Mapping[str, tuple[bytes, bytes]]:
    """Return the files by name, each as it is and packed."""
    folder = resources.files("embedkit.serving.page") / "static"
    found = {
        entry.name: entry.read_bytes() for entry in folder.iterdir() if entry.name.rpartition(".")[2] in KINDS
    }
    return {name: (content, gzip.compress(content, mtime=0)) for name, content in found.items()}


def _error(status: int, message: str) -> Mapping[str, object]:
    return {"error": {"message": message, "status": status}}
