"""`embedkit grep`: a folder searched by meaning, with nothing set up."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from embedkit.errors import EmbedkitError

from ..shared import console, options
from ..shared.commands import SearchCommand
from ..shared.groups import grouped
from ..shared.threads import compute_single_queries
from .asked import Managing, Narrowed, Refreshing, Rerank, SearchingFolder, ShowingHits, walk_options

EXAMPLES = """\b
Examples:
  embedkit grep "where are passwords checked"
  embedkit grep "how do I resume a build" docs src --type py,md -C 2
  embedkit grep "retry after a timeout" -e 'sleep\\(' -l
  embedkit grep "rate limits" --tokens 4000             (for a language model)
  embedkit grep --status
"""


class GrepCommand(SearchCommand):
    """As grep does, it ends with 2 after an error, also one in a configuration file."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # Any: typer keeps its own copy of click
        try:
            return super().parse_args(ctx, args)
        except EmbedkitError as exc:
            console.tell(f"error: {exc}")
            raise typer.Exit(2) from exc


COMMAND = GrepCommand


@grouped
def grep(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[QUESTION] [PATH]...",
            help="What to look for, in quotes, and the folders or files to look in. Default: this folder.",
            show_default=False,
        ),
    ] = None,
    *,
    narrowed: Narrowed,
    showing: ShowingHits,
    searching: SearchingFolder,
    rerank: Rerank = None,
    refreshing: Refreshing,
    managing: Managing,
    walking: options.Walking,
    model: options.IndexModel = None,
    computing: options.ComputingOptions,
    printing: options.Printing,
) -> None:
    """Search a folder by meaning and by words, with nothing set up.

    The first call reads all texts of the folder and keeps an index of them in the cache; later calls bring it up to date
    before they search. Each hit is named by file and lines. In a pipe, a hit is one line: path:line:text. Exit codes are
    grep's: 0 found, 1 nothing found, 2 an error.
    """
    compute_single_queries()
    from .run import Asked, run

    try:
        wanted = walk_options(walking, refreshing.max_filesize)
        if managing.asked:
            from .managing import manage

            manage(managing, words or ["."], wanted, printing)
            return
        if not words:
            raise typer.BadParameter(
                'say what to look for, such as: embedkit grep "where are passwords checked"'
            )
        asked = Asked(
            query=words[0],
            paths=words[1:] or ["."],
            narrowed=narrowed,
            showing=showing,
            searching=searching,
            rerank=rerank,
            refreshing=refreshing,
            walking=wanted,
            model=model,
            computing=computing,
            printing=printing,
        )
        found = run(asked)
    except EmbedkitError as exc:  # 1 says that nothing was found
        console.tell(f"error: {exc}")
        raise typer.Exit(2) from exc
    if not found:
        raise typer.Exit(1)
