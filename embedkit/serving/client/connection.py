"""Requests to a server: connections that are kept, patience where it is busy, and reasons in words."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from embedkit.errors import ServerError

Json = dict[str, Any]  # Any: JSON
PATIENCE_SECONDS = 120.0  # with a server that is busy, over all tries of a request
LONGEST_WAIT_SECONDS = 30.0
TIMEOUT_SECONDS = 330.0  # a little more than a server gives a request
_BUSY = (429, 503)
# Of a connection that was kept, and that the server has closed meanwhile.
_DROPPED = (
    http.client.RemoteDisconnected,
    BrokenPipeError,
    ConnectionResetError,
    http.client.CannotSendRequest,
)


@dataclass(frozen=True)
class Address:
    """Where a server is, and the index that the path names; "" for all of them."""

    secure: bool
    host: str
    port: int
    index: str = ""

    @classmethod
    def of(cls, text: str) -> Address:
        """Read `http://host:8080/index`.

        Raises:
            ServerError: it is no such address.
        """
        example = "Write it as http://HOST:8080, or http://HOST:8080/INDEX"
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError as exc:
            raise ServerError(f"{text}: no address of a server ({exc}). {example}") from exc
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ServerError(f"{text}: no address of a server. {example}")
        if parts.username is not None or parts.query or parts.fragment:
            raise ServerError(
                f"{text}: holds more than host, port and index. {example}; keys go into --api-key"
            )
        secure = parts.scheme == "https"
        return cls(secure, parts.hostname, port or (443 if secure else 80), unquote(parts.path.strip("/")))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.secure else 'http'}://{host}:{self.port}"


class ServerRefusalError(ServerError):
    """An answer that says why not: `status` is HTTP's, `content` is its body."""

    def __init__(self, message: str, status: int, content: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.status, self.content = status, content


class Client:
    """Asks one server; connections are kept until `close`. May be used from several threads."""

    def __init__(
        self,
        address: Address,
        *,
        key: str | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if key is not None and not (key.isascii() and key.isprintable()):
            raise ServerError(
                "the API key holds signs that no header can. Check --api-key or $EMBEDKIT_API_KEY"
            )
        self.address, self._key = address, key
        self._patience, self._sleep = patience_seconds, sleep
        self._idle: list[http.client.HTTPConnection] = []  # appended to and popped from, which is safe
        self._closed = False

    def close(self) -> None:
        self._closed = True
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def ask(self, method: str, path: str, body: Json | None = None) -> Json:
        """Return the JSON that answers a request; waits where the server is busy, as long as it says.

        Raises:
            ServerError: it cannot be reached, or is no embedkit server.
            ServerRefusalError: it says why not.
        """
        content = None if body is None else json.dumps(body, ensure_ascii=False).encode()
        ends = time.monotonic() + self._patience
        tried = 0
        while True:
            status, headers, answer = self._exchange(method, path, content)
            wait = _wait_seconds(headers, tried)
            tried += 1
            if status not in _BUSY or time.monotonic() + wait > ends:
                return self._read(status, headers, answer)
            self._sleep(wait)

    def _exchange(
        self, method: str, path: str, content: bytes | None
    ) -> tuple[int, Mapping[str, str], bytes]:
        try:
            if self._idle:
                with contextlib.suppress(IndexError, *_DROPPED):
                    return self._send(self._idle.pop(), method, path, content)
            return self._send(self._connection(), method, path, content)
        except (OSError, http.client.HTTPException) as exc:
            raise ServerError(f"{self.address}: {self._reason(exc)}") from exc

    def _connection(self) -> http.client.HTTPConnection:
        where = self.address
        if where.secure:
            return http.client.HTTPSConnection(where.host, where.port, timeout=TIMEOUT_SECONDS)
        return http.client.HTTPConnection(where.host, where.port, timeout=TIMEOUT_SECONDS)

    def _send(
        self, connection: http.client.HTTPConnection, method: str, path: str, content: bytes | None
    ) -> tuple[int, Mapping[str, str], bytes]:
        headers = {"accept": "application/json", "content-type": "application/json"}
        if self._key is not None:
            headers["authorization"] = f"Bearer {self._key}"
        try:
            connection.request(method, path, content, headers)
            answer = connection.getresponse()
            found = answer.read()
        except BaseException:
            connection.close()
            raise
        if connection.sock is None:  # the server closes it
            connection.close()
        else:
            self._idle.append(connection)
            if self._closed:  # by another thread, meanwhile
                self.close()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, found

    def _reason(self, exc: Exception) -> str:
        match exc:
            case ssl.SSLCertVerificationError():
                return f"its certificate is not trusted ({exc.verify_message}). Name a file of trusted ones in $SSL_CERT_FILE"
            case ssl.SSLError():
                return f"no TLS connection ({exc.reason or exc}). Is it http://, without TLS?"
            case ConnectionRefusedError():
                return "the connection was refused: no server listens there. Start one with: embedkit serve INDEX"
            case socket.gaierror():
                return f"there is no host {self.address.host!r} ({exc.strerror}). Check the name"
            case TimeoutError():
                return f"no answer within {TIMEOUT_SECONDS:g} s. Send less at once, or ask later"
            case http.client.HTTPException() | ConnectionError() if not self.address.secure:
                return f"no answer as of an embedkit server ({exc!r}). Does it speak TLS? Then write https://"
        return f"cannot be asked ({exc}). Check the address and the network"

    def _read(self, status: int, headers: Mapping[str, str], answer: bytes) -> Json:
        stranger = f"{self.address}: this is no embedkit server (it answered {status}, {headers.get('content-type', 'no type')})"
        if 300 <= status < 400:
            raise ServerError(
                f"{stranger}; it points to {headers.get('location', 'nowhere')}. Name that address"
            )
        try:
            content = json.loads(answer)
        except ValueError as exc:
            raise ServerError(f"{stranger}. Check the address") from exc
        if status == 200 and isinstance(content, dict):
            return content
        error = content.get("error") if isinstance(content, dict) else None
        message = error.get("message") if isinstance(error, dict) else None
        if not isinstance(message, str):
            raise ServerError(f"{stranger}. Check the address")
        if status == 401:
            given = "wants an API key" if self._key is None else "does not know this API key"
            raise ServerRefusalError(
                f"{self.address}: the server {given}. Give one with --api-key KEY or in $EMBEDKIT_API_KEY",
                status,
                content,
            )
        raise ServerRefusalError(f"{self.address}: {message}", status, content)


def _wait_seconds(headers: Mapping[str, str], tried: int) -> float:
    """Return what Retry-After asks for, else more from try to try."""
    try:
        asked = float(headers["retry-after"])
    except (KeyError, ValueError):
        asked = 0.5 * 2**tried
    return min(max(asked, 0.05), LONGEST_WAIT_SECONDS)
