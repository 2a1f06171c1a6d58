"""`embedkit serve`: models and indexes over HTTP."""

from __future__ import annotations

import logging
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import typer

from embedkit.errors import ConfigError
from embedkit.models import ENCODER, RERANKER

from .shared import console, options
from .shared.completing import complete_index, complete_model, complete_reranker
from .shared.groups import grouped
from .shared.threads import switch_often

if TYPE_CHECKING:
    from embedkit.serving.http.access import Access
    from embedkit.serving.services import Services

EXAMPLES = """\b
Examples:
  embedkit serve                                 # the shipped models, at http://127.0.0.1:8080
  embedkit serve docs.index papers.index         # and a page to search these from
  embedkit serve --host 0.0.0.0 --api-key-file key.txt
  curl http://127.0.0.1:8080/v1/embeddings -d '{"input": "how do I resume a build"}'
"""


@dataclass(frozen=True, kw_only=True)
class Reach:
    """Where the server listens, and who may ask."""

    PANEL: ClassVar[str] = "Access"

    host: Annotated[
        str,
        typer.Option(
            "--host",
            metavar="ADDRESS",
            help="Listen here. Beyond this machine it takes --api-key or --insecure.",
        ),
    ] = "127.0.0.1"
    port: Annotated[
        int, typer.Option("--port", "-p", metavar="N", min=0, max=65535, help="0: any that is free.")
    ] = 8080
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            "--api-key",
            metavar="KEY",
            help=f"Answer only requests with this key (Authorization: Bearer KEY); repeat it for several. ${options.KEY_VARIABLE} and "
            "--api-key-file show it to nobody who lists processes.",
            show_default=False,
        ),
    ] = None
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            "--api-key-file", metavar="FILE", help="Read keys from a file, one per line.", show_default=False
        ),
    ] = None
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Answer anybody who reaches this machine, without a key.")
    ] = False
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host",
            metavar="NAME",
            help="A name that clients call this server by, as behind a proxy; * is any. Default: this machine's own.",
            show_default=False,
        ),
    ] = None
    cors: Annotated[
        list[str] | None,
        typer.Option(
            "--cors",
            metavar="ORIGIN",
            help="Let pages of this origin, such as https://example.org, call the server; * is any.",
            show_default=False,
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.insecure and (self.api_key or self.api_key_file):
            raise ValueError("--insecure excludes --api-key and --api-key-file")


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How much may be asked for."""

    PANEL: ClassVar[str] = "Limits"

    max_inputs: Annotated[
        int, typer.Option("--max-inputs", metavar="N", min=1, help="Texts of one request.")
    ] = 10_000
    max_body_mb: Annotated[
        int, typer.Option("--max-body-mb", metavar="N", min=1, help="Megabytes of one request.")
    ] = 64
    queue_tokens: Annotated[
        int,
        typer.Option(
            "--queue-tokens",
            metavar="N",
            min=1024,
            help="Tokens that may wait; beyond them requests get 429 and the seconds to wait.",
        ),
    ] = 2**20
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=0.1, help="What one request may take.")
    ] = 300.0
    drain: Annotated[
        float,
        typer.Option(
            "--drain", metavar="SECONDS", min=0.1, help="What running requests get after SIGTERM or Ctrl-C."
        ),
    ] = 30.0
    allow_regex: Annotated[
        bool,
        typer.Option(
            "--allow-regex",
            help="Take filters with regular expressions (matches), of which a single one can stop the server for hours; --timeout does "
            "not end it. For trusted clients only.",
        ),
    ] = False


@grouped
def serve(
    indexes: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[INDEX]...",
            help="Indexes to search, by the names of their folders. Without any, texts are embedded and reranked.",
            show_default=False,
            autocompletion=complete_index,
        ),
    ] = None,
    *,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            autocompletion=complete_model,
            help=f"Model folder or name; repeat it for several, of which requests name one. Default: those of the indexes, else {ENCODER}.",
            show_default=False,
        ),
    ] = None,
    reranker: Annotated[
        list[str] | None,
        typer.Option(
            "--reranker",
            metavar="MODEL",
            autocompletion=complete_reranker,
            help=f"Cross-encoder or multi-vector model, or none; repeat it for several. Default: {RERANKER}.",
            show_default=False,
        ),
    ] = None,
    alias: Annotated[
        list[str] | None,
        typer.Option(
            "--alias",
            metavar="NAME=MODEL",
            help="A further name of a model, for clients that ask for one of their own, such as text-embedding-3-small=embedkit-small.",
            show_default=False,
        ),
    ] = None,
    writable: Annotated[
        bool,
        typer.Option(
            "--writable", help="Let whoever has a key add documents to the indexes, and delete them."
        ),
    ] = False,
    reach: Reach,
    bounds: Bounds,
    gathering: options.Gathering,
    computing: options.ComputingOptions,
    log_format: Annotated[
        Literal["text", "json"],
        typer.Option(
            "--log-format",
            help="A line for each request on standard error, as text or as JSON; none with --quiet.",
        ),
    ] = "text",
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print one JSON line with the address and what is served once requests are answered.",
        ),
    ] = False,
) -> None:
    """Serve models and indexes over HTTP, with a page to search from.

    Clients of OpenAI, Cohere, Jina, Hugging Face (TEI) and Ollama work unchanged; /docs lists the routes. Nothing but this
    machine reaches the server unless --host says so. SIGTERM or Ctrl-C ends it: what runs is finished first.
    """
    switch_often()
    from embedkit.extras import load_extra

    http_server = load_extra("serve", purpose="embedkit serve")
    from embedkit.serving.http.app import App
    from embedkit.serving.http.messages import HttpRequest
    from embedkit.serving.limits import Limits
    from embedkit.serving.opening import all_routes, open_services
    from embedkit.serving.options import ServeOptions

    access = _access(reach, writable=writable)
    limits = Limits(
        body_bytes=bounds.max_body_mb * 2**20,
        inputs=bounds.max_inputs,
        queue_tokens=bounds.queue_tokens,
        seconds=bounds.timeout,
        drain_seconds=bounds.drain,
    )
    wanted = ServeOptions(
        indexes=indexes or (),
        models=model or (),
        rerankers=[] if reranker == ["none"] else reranker or [RERANKER],
        aliases=dict(map(_alias, alias or [])),
        writable=writable,
        allow_regex=bounds.allow_regex,
        gathering=gathering.options(),
        computing=computing,
        limits=limits,
    )
    opened = _listen(http_server, reach)
    try:
        services = open_services(wanted)
    except BaseException:
        opened.close()
        raise
    _log_requests(as_json=log_format == "json")
    host, port = opened.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    app = App((), access, limits, log_json=log_format == "json")
    app.routes = tuple(all_routes(services, app))
    try:
        http_server.run(
            app, HttpRequest, opened, ready=lambda: _say_ready(services, address, access, as_json=as_json)
        )
    finally:
        services.close()


def _alias(text: str) -> tuple[str, str]:
    name, sign, model = text.partition("=")
    if not (name and sign and model):
        raise typer.BadParameter(f"--alias is {text!r}; it must be NAME=MODEL")
    return name, model


def _access(reach: Reach, *, writable: bool) -> Access:
    """Decide who is let in.

    Raises:
        typer.BadParameter: the server would be open to others without a key.
        ConfigError: a file of keys cannot be read, or holds none.
    """
    from embedkit.serving.http.access import LOCAL_NAMES, Access, is_loopback

    keys = _keys(reach)
    local = is_loopback(reach.host)
    if not local and not keys and not reach.insecure:
        raise typer.BadParameter(
            f"--host {reach.host} opens the server to other machines: name a key with --api-key, or say --insecure"
        )
    if writable and not keys:
        raise typer.BadParameter("--writable goes with --api-key: whoever has a key may change the indexes")
    if not local and not keys:
        console.warn(
            f"anybody who reaches {reach.host} may use this server and read what its indexes hold (--insecure)"
        )
    names = reach.allow_host or []
    own = (*LOCAL_NAMES, *(() if local else (reach.host, socket.gethostname(), socket.getfqdn())))
    # With a key a page that found its way here by a name of its own has nothing to show.
    anything = "*" in names or (bool(keys) and not local and not names)
    return Access(
        keys=keys,
        hosts=None if anything else tuple(dict.fromkeys(name.lower() for name in (*own, *names))),
        origins=tuple(reach.cors or ()),
    )


def _keys(reach: Reach) -> tuple[str, ...]:
    keys = [*(reach.api_key or [])]
    if reach.api_key_file is not None:
        try:
            lines = reach.api_key_file.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigError(
                f"{reach.api_key_file}: the keys cannot be read ({exc}). Write one per line"
            ) from exc
        found = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not found:
            raise ConfigError(f"{reach.api_key_file}: there is no key in it. Write one per line")
        keys += found
    if not keys and not reach.insecure and os.environ.get(options.KEY_VARIABLE):
        keys = [os.environ[options.KEY_VARIABLE]]
    for key in keys:
        if not key.isascii() or not key.isprintable() or " " in key or not key:
            raise ConfigError(
                "an API key must be printable ASCII without spaces; a header carries it. Choose another one"
            )
    return tuple(keys)


def _listen(http_server: Any, reach: Reach) -> socket.socket:  # Any: the module that serves
    try:
        opened: socket.socket = http_server.listen(reach.host, reach.port)
    except (OSError, UnicodeError) as exc:
        reason = getattr(exc, "strerror", None) or str(exc)
        raise ConfigError(
            f"cannot listen on {reach.host} port {reach.port}: {reason}. Choose another one with --host or --port"
        ) from exc
    return opened


def _log_requests(*, as_json: bool) -> None:
    """Send a line for each request, and what went wrong, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s" if as_json else "%(asctime)s %(message)s"))
    logger = logging.getLogger("embedkit")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.WARNING if console.is_quiet() else logging.INFO)
    logger.propagate = False


def _say_ready(services: Services, address: str, access: Access, *, as_json: bool) -> None:
    if as_json:
        console.print_json(
            {
                "address": address,
                "models": list(services.encoders),
                "rerankers": list(services.rerankers),
                "indexes": list(services.indexes),
                "key": bool(access.keys),
            }
        )
    served = [f"models {', '.join(services.encoders)}"] if services.encoders else []
    if services.rerankers:
        served.append(f"rerankers {', '.join(services.rerankers)}")
    if services.indexes:
        served.append(f"indexes {', '.join(services.indexes)}")
    console.note("; ".join(served))
    key = "with a key" if access.keys else "without a key"
    console.note(f"serving at {address} {key}; Ctrl-C ends")
