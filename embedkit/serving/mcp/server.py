"""The server: the tools for a folder or an index, on standard input and output."""

from __future__ import annotations

from importlib.metadata import version

from embedkit.extras import load_extra
from embedkit.serving.mcp.schemas import INSTRUCTIONS
from embedkit.serving.mcp.served import Served
from embedkit.serving.mcp.tools import Defaults, tools_for


def serve(served: Served, defaults: Defaults) -> None:
    """Answer a client until it closes standard input or ends.

    Raises:
        MissingExtraError: the package `mcp` is not installed.
    """
    load_extra("mcp", purpose="embedkit mcp").serve(
        tools_for(served, defaults),
        name="embedkit",
        version=version("embedkit"),
        instructions=INSTRUCTIONS.format(place=served.shown),
    )
