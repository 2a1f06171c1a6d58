"""`embedkit search`: one query, many, or a conversation."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedkit.models import RERANKER

from ..shared import console, options
from ..shared.commands import SearchCommand
from ..shared.completing import complete_index, complete_reranker
from ..shared.groups import grouped
from ..shared.locating import is_address, looks_like_index, split_words
from ..shared.threads import compute_single_queries
from .hits import answer, wants_json_hits
from .many import search_many
from .prompt import converse
from .sources import LocalSource, Searched, ServerSource

if TYPE_CHECKING:
    from embedkit.retrieval.options import SearchOptions
    from embedkit.types import Computing
    from indexes import GatherOptions

EXAMPLES = """\b
Examples:
  embedkit search docs.index "how do I resume a build"
  embedkit search my.index "wind energy" --mode hybrid --where "year > 2020" -k 5
  embedkit search my.index "wind energy" --rerank --candidates 100 --rerank-budget 200ms
  embedkit search dense.index "wind energy" --with sparse.index --mode hybrid   # vectors, terms and words
  embedkit search my.index --queries queries.jsonl --run out.trec
  embedkit search http://localhost:8080/docs "wind energy"   # the index docs of `embedkit serve`
  embedkit search --shard http://a:8080/x --shard http://b:8080/y "wind energy"   # two servers as one index
  embedkit search my.index                      # asks for queries; Ctrl-D ends
  embedkit search 'postgresql://me@db.example/search?table=docs' "wind energy"
"""

COMMAND = SearchCommand


@grouped
def search(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[INDEX] [QUERY]...",
            help="Index folder (default: this folder's, made by `embedkit index .`), the address of a server, or the URL of a store "
            "(see `embedkit index push`), and what to look for, with or without quotes. Without a query: ask for queries, or read them "
            "from a pipe.",
            show_default=False,
            autocompletion=complete_index,
        ),
    ] = None,
    *,
    model: options.IndexModel = None,
    queries: Annotated[
        Path | None,
        typer.Option(
            "--queries",
            metavar="FILE",
            help="Many queries: JSON lines, TSV with a header, or one text per line.",
            show_default=False,
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option("--run", metavar="FILE", help="Write the hits as a TREC run.", show_default=False),
    ] = None,
    searching: options.Searching,
    rerank: Annotated[
        str | None,
        typer.Option(
            "--rerank",
            metavar="[MODEL]",
            autocompletion=complete_reranker,
            help=f"Rerank the candidates with a cross-encoder (without a value {RERANKER}) or a multi-vector model, or with 'maxsim': token by "
            "token, by the search's own model.",
            show_default=False,
        ),
    ] = None,
    passages: Annotated[
        bool,
        typer.Option(
            "--passages",
            help="Also list further passages of the same document; with --json they are always listed.",
        ),
    ] = False,
    show_all: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Also list hits that are no nearer to the query than unrelated texts; with --json they are always listed.",
        ),
    ] = False,
    shard: Annotated[
        list[str] | None,
        typer.Option(
            "--shard",
            rich_help_panel=options.Gathering.PANEL,
            metavar="PLACE",
            help="Search this, too, as a shard of one index: the address of an index that a server holds, or a folder; repeatable. "
            "Rankings are those of one index of all documents.",
            show_default=False,
        ),
    ] = None,
    api_key: options.ApiKey = None,
    ef: Annotated[
        int | None,
        typer.Option(
            "--ef",
            rich_help_panel=options.TUNING,
            metavar="N",
            min=1,
            help="Candidates that a store's approximate search looks at. Default: 100; with Qdrant the server's own.",
            show_default=False,
        ),
    ] = None,
    beside: Annotated[
        list[Path] | None,
        typer.Option(
            "--with",
            metavar="INDEX",
            autocompletion=complete_index,
            help="Search this index of the same documents, too, such as a sparse one, by its vectors, and fuse the hits; repeat for more.",
            show_default=False,
        ),
    ] = None,
    gathering: options.Gathering,
    computing: options.ComputingOptions,
    as_json: options.AsJson = False,
) -> None:
    """Search an index, or those of a server.

    The hits of one query are a list for people, with the matching words marked, or JSON lines with --json; those of
    --queries are JSON lines, or a TREC run. A higher score is better: a cosine, BM25, of a hybrid search the mean of both
    scaled to 0 … 1, or the reranker's score. In a pipe, EMBEDKIT_PIPE=json stands for --json.
    """
    place, said = _split(words or [], shards := [*(shard or [])])
    if ef is not None and not _is_store(place):
        raise typer.BadParameter("--ef goes with a store's URL; of an index see: embedkit index tune")
    query = " ".join(said) if said else None
    if query is not None and queries is not None:
        raise typer.BadParameter("QUERY and --queries exclude each other")
    if run is not None and query is not None:
        raise typer.BadParameter("--run goes with --queries or a pipe: a query on the command line has no id")
    # A query alone, or typed by hand: what starts fastest answers fastest.
    interactive = query is not None or (queries is None and run is None and sys.stdin.isatty())
    if interactive:
        compute_single_queries()
    # People want one line for one document, and a run knows documents, not passages.
    if run is not None or (interactive and not passages and not wants_json_hits(as_json)):
        searching = replace(searching, group=True)
    if beside and not isinstance(place, Path):
        raise typer.BadParameter("--with goes with an index that is here")
    loading = _Models(
        model=model, rerank=rerank, interactive=interactive, computing=computing, beside=tuple(beside or ())
    )
    with _opened(place, searching, loading, gathering.options(api_key, shards), api_key, ef) as searched:
        if query is not None:
            answer(searched, query, searching, show_all=show_all, as_json=as_json)
        elif interactive:
            converse(searched, searching, show_all=show_all, as_json=as_json)
        else:
            search_many(searched, searching, source="-" if queries is None else str(queries), run=run)
        searched.say_what_was_cut()


def _split(words: list[str], shards: list[str]) -> tuple[Path | str, list[str]]:
    """Tell the address of a server, the URL of a store, or the index from the words after it.

    Where shards are named, these alone are searched unless the first word is an index, too; the first of them is taken out then.
    """
    if shards and not (words and (is_address(words[0]) or looks_like_index(words[0]))):
        return shards.pop(0), words
    if words and (is_address(words[0]) or _is_store(words[0])):
        return words[0], words[1:]
    return split_words(words)


def _is_store(place: Path | str) -> bool:
    if isinstance(place, Path) or "://" not in place or is_address(place):
        return False
    from embedkit.connectors.urls import is_store_url

    return is_store_url(place)


@dataclass(frozen=True, kw_only=True)
class _Models:
    """Which models search, and how they are run."""

    model: str | None
    rerank: str | None
    interactive: bool
    computing: Computing
    beside: tuple[Path, ...] = ()


@contextmanager
def _opened(
    place: Path | str,
    wanted: SearchOptions,
    models: _Models,
    gathering: GatherOptions,
    api_key: str | None,
    ef: int | None,
) -> Iterator[Searched]:
    """Open an index or a store, or turn to a server; with further shards a server is asked as one of them."""
    if isinstance(place, Path) or gathering.more or not (is_address(place) or _is_store(place)):
        from embedkit.pipelines.searching import open_search

        with open_search(
            place,
            wanted,
            models.computing,
            model=models.model,
            rerank=models.rerank,
            interactive=models.interactive,
            gathering=gathering,
            beside=models.beside,
        ) as opened:
            yield LocalSource(opened, wanted)
        return
    if _is_store(place):
        from embedkit.connectors.searching import open_store_search

        with open_store_search(
            place,
            wanted,
            models.computing,
            model=models.model,
            rerank=models.rerank,
            interactive=models.interactive,
            ef=ef,
        ) as store:
            if not store.index.info.finished:
                console.warn(
                    f"{store.index.path}: a push is at work there or was stopped: not all of the index can be found yet"
                )
            yield LocalSource(store, wanted)
        return
    if models.model is not None:
        raise typer.BadParameter(
            "--model goes with an index that is here: a server has the models of its indexes"
        )
    from embedkit.serving.client.connection import Address, Client
    from embedkit.serving.client.searching import ServedIndexes

    with Client(Address.of(place), key=api_key) as client:
        # Without a value: the server's first.
        named = {None: False, RERANKER: True}.get(models.rerank, models.rerank or False)
        yield ServerSource(ServedIndexes(client, rerank=named))
