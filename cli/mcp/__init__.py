"""`embedkit mcp`: a folder or an index served to language models."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from embedkit.retrieval.options import Mode
from embedkit.serving.mcp.clients import ClientName

from ..grep.asked import Keeping, Rerank, walk_options
from ..shared import console, options
from ..shared.completing import complete_index
from ..shared.groups import grouped
from ..shared.threads import compute_single_queries

if TYPE_CHECKING:
    from embedkit.serving.mcp.served import Served

EXAMPLES = """\b
Examples:
  embedkit mcp --install claude-code --write    # in a project: its agent can search it from now on
  embedkit mcp ~/notes --install claude-desktop # prints what to add to the client's file
  embedkit mcp ~/notes                          # what the client starts
"""


@dataclass(frozen=True, kw_only=True)
class Answering:
    """What a call gets that says nothing else."""

    k: Annotated[
        int, typer.Option("--top-k", "-k", metavar="K", min=1, max=200, help="Hits of a search, at most.")
    ] = 10
    mode: Annotated[
        Mode, typer.Option("--mode", help="By meaning (dense), by words (text, BM25), or both (hybrid).")
    ] = "hybrid"
    tokens: Annotated[
        int,
        typer.Option(
            "--tokens",
            metavar="N",
            min=100,
            max=200_000,
            help="How long an answer may be, in tokens of a language model.",
        ),
    ] = 4000


@dataclass(frozen=True, kw_only=True)
class Installing:
    """Making a client start the server."""

    PANEL: ClassVar[str] = "Setting up a client"

    install: Annotated[
        ClientName | None,
        typer.Option(
            "--install",
            metavar="CLIENT",
            help="Print the configuration with which this client starts the server: "
            "claude-code, claude-desktop, codex, cursor, gemini, vscode, windsurf or zed.",
            show_default=False,
        ),
    ] = None
    write: Annotated[
        bool, typer.Option("--write", help="Put it into the client's file; what else is in there stays.")
    ] = False
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="What the client calls the server.")] = (
        "embedkit"
    )

    def __post_init__(self) -> None:
        if self.write and self.install is None:
            raise ValueError("--write goes with --install CLIENT")


@grouped
def mcp(
    context: typer.Context,
    served: Annotated[
        Path,
        typer.Argument(
            metavar="[PATH|INDEX]",
            help="The folder (or file) to search, or an index. Default: this folder.",
            show_default=False,
            autocompletion=complete_index,
        ),
    ] = Path(),
    *,
    answering: Answering,
    rerank: Rerank = None,
    installing: Installing,
    keeping: Keeping,
    walking: options.Walking,
    model: options.IndexModel = None,
    computing: options.ComputingOptions,
) -> None:
    """Serve a folder or an index to language models (Model Context Protocol).

    A client (Claude, Cursor, VS Code, Zed and others) starts this, speaks to it on standard input and output, and offers its
    model four tools, none of which changes a file: search, get (lines of a file in the folder), similar and status. A folder is
    brought up to date before each search, as by `embedkit grep`, whose index it shares; an index is searched as it is. The
    server ends with its client.
    """
    if installing.install is not None:
        from .installing import install

        install(installing.install, served, context, name=installing.name, write=installing.write)
        return
    from embedkit.extras import need_extra

    need_extra("mcp", purpose="embedkit mcp")
    compute_single_queries()
    from embedkit.serving.mcp.server import serve
    from embedkit.serving.mcp.tools import Defaults

    opened = _opened(served, rerank, keeping, walking, model, computing)
    if sys.stdin.isatty():
        console.note(f"serving {opened.shown}; a client starts this (--install CLIENT). Ctrl-D ends")
    try:
        serve(opened, Defaults(k=answering.k, mode=answering.mode, tokens=answering.tokens))
    finally:
        opened.close()


def _opened(
    served: Path,
    rerank: str | None,
    keeping: Keeping,
    walking: options.Walking,
    model: str | None,
    computing: options.ComputingOptions,
) -> Served:
    from embedkit.serving.mcp.folder import FolderOptions, ServedFolder
    from embedkit.serving.mcp.index import IndexOptions, ServedIndex
    from indexes import is_searchable

    if is_searchable(served):
        gathering = options.Gathering().options()
        return ServedIndex(
            served, IndexOptions(computing=computing, model=model, rerank=rerank, gathering=gathering)
        )
    wanted = FolderOptions(
        walking=walk_options(walking, keeping.max_filesize),
        computing=computing,
        model=model,
        rerank=rerank,
        refresh_seconds=keeping.refresh,
        cache_limit=keeping.cache_limit,
    )
    return ServedFolder(served, wanted)
