"""`embedkit mcp --install CLIENT`: printing or writing what makes a client start the server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from embedkit.errors import RecordError
from embedkit.serving.mcp.clients import CLIENTS, ClientName, installation

from ..shared import console
from ..shared.completing import WORDS

_NOT_PASSED = ("install", "write", "name", "quiet", "verbose")


def install(
    client: ClientName, served: Path, context: Any, *, name: str, write: bool
) -> None:  # Any: click's
    """Print the configuration, or put it into the client's file.

    Raises:
        RecordError: there is nothing to serve.
        OutputError: as `Installation.write`.
    """
    if not served.exists():
        raise RecordError(f"{served}: there is no such file or folder to serve")
    found = installation(client, served, list(_options(context)), name=name)
    if not write:
        console.note(f"in {found.path}:")
        console.say(found.described().rstrip("\n"))
        return
    done = found.write()
    console.note(f"{found.path}: server {name!r} {done}. {CLIENTS[client].then}")


def _options(context: Any) -> Iterator[str]:  # Any: click's
    """Yield the options of the command line that the server is to have, as they were spelled."""
    raw, _, _ = context.command.make_parser(context).parse_args(list(context.meta[WORDS]))
    for parameter in context.command.params:
        if (
            parameter.name not in raw
            or parameter.param_type_name == "argument"
            or parameter.name in _NOT_PASSED
        ):
            continue
        value = raw[parameter.name]
        if parameter.is_flag:
            yield parameter.opts[0]
        else:
            # A model's folder is seen from here; the client starts elsewhere.
            yield from (parameter.opts[0], str(Path(value).resolve()) if Path(value).is_dir() else value)
