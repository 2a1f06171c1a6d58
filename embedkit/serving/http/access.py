"""Who may ask: keys, the hosts that this server is called by, and the origins of pages that call it."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from embedkit.serving.http.messages import HttpRequest, RefusedError, Route

LOCAL_NAMES = ("localhost",)


@dataclass(frozen=True, kw_only=True)
class Access:
    """Who is let in.

    `keys` empty: everybody who reaches the server. `hosts` are the names that it may be called by, besides any address; a page that
    made its own name lead to this machine (DNS rebinding) calls it by that name. None: by any. `origins` are those of other pages
    that may call it and read answers (CORS); "*" is any.
    """

    keys: tuple[str, ...] = ()
    hosts: tuple[str, ...] | None = LOCAL_NAMES
    origins: tuple[str, ...] = ()

    def check(self, request: HttpRequest, route: Route | None) -> None:
        """Let a request in, or refuse it.

        Raises:
            RefusedError: 421, called by another name; 403, from a foreign page, or writing without a key; 401, no key or a wrong one.
        """
        headers = request.headers
        host = host_name(headers.get("host", ""))
        if self.hosts is not None and host not in self.hosts and not is_address(host):
            raise RefusedError(
                421,
                f"the Host header is {headers.get('host', '')[:100]!r}; this server answers to {', '.join(self.hosts)} and "
                "addresses. "
                "Allow it with: embedkit serve --allow-host NAME",
            )
        origin = headers.get("origin")
        if origin is not None and not self._same(origin, headers.get("host", "")) and not self.allows(origin):
            raise RefusedError(
                403,
                f"pages of {origin[:100]!r} may not call this server. Allow them with: embedkit serve --cors ORIGIN",
            )
        if route is not None and route.keyless:
            return
        if self.keys and not self._has_key(headers):
            raise RefusedError(
                401,
                "this server wants an API key: send the header Authorization: Bearer KEY",
                headers={"www-authenticate": "Bearer"},
            )

    def allows(self, origin: str) -> bool:
        return "*" in self.origins or origin in self.origins

    def cors_headers(self, origin: str | None) -> Mapping[str, str]:
        """Return what lets a page of an allowed origin read the answer."""
        if origin is None or not self.allows(origin):
            return {}
        return {
            "access-control-allow-origin": origin,
            "vary": "Origin",
            "access-control-expose-headers": "x-request-id, x-embedkit-truncated, retry-after",
        }

    def preflight_headers(self, origin: str | None) -> Mapping[str, str]:
        """Return what a browser asks for before it sends a request for a page of an allowed origin."""
        allowed = self.cors_headers(origin)
        if not allowed:
            return {}
        return {
            **allowed,
            "access-control-allow-methods": "GET, POST, DELETE",
            "access-control-allow-headers": "authorization, content-type, x-request-id",
            "access-control-max-age": "600",
        }

    def _has_key(self, headers: Mapping[str, str]) -> bool:
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer":
            given = headers.get("x-api-key", "")
        given = given.strip()
        # All are compared, each in the same time wherever it differs.
        found = [hmac.compare_digest(given.encode(), key.encode()) for key in self.keys]
        return any(found)

    @staticmethod
    def _same(origin: str, host: str) -> bool:
        try:
            return urlsplit(origin).netloc == host
        except ValueError:  # no address, such as http://[x
            return False


def is_address(host: str) -> bool:
    """Say whether a host is an IP address, which no name server can redirect."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Say whether a server that listens here is reached from this machine alone."""
    return host in LOCAL_NAMES or (is_address(host) and ip_address(host).is_loopback)


def host_name(host: str) -> str:
    """Return the name or address in a Host header, without port and brackets: "[::1]:80" -> "::1"."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()
