"""`embedkit search`: one query, many, or a conversation."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedkit.models import RERANKER

from ..shared import console, models, options
from ..shared.groups import grouped
from .hits import explain_nothing, print_hits
from .many import search_many

if TYPE_CHECKING:
    from embedkit.pipelines.searching import Search
    from embedkit.retrieval.options import SearchOptions

EXAMPLES = """\b
Examples:
  embedkit search docs.index "how do I resume a build"
  embedkit search my.index "wind energy" --mode hybrid --where "year > 2020" -k 5
  embedkit search my.index "wind energy" --rerank --candidates 100 --rerank-budget 200ms
  embedkit search my.index --queries queries.jsonl --run out.trec
  embedkit search my.index                      (asks for queries; Ctrl-D ends)
"""


@grouped
def search(
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="Index folder.")],
    query: Annotated[
        str | None,
        typer.Argument(
            metavar="[QUERY]",
            help="What to look for. Default: ask for queries, or read them from a pipe.",
            show_default=False,
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
            help=f"Rerank the candidates with a cross-encoder (without a value {RERANKER}), or with 'maxsim': token by "
            "token, by the search's own model.",
            show_default=False,
        ),
    ] = None,
    computing: options.Computing,
    as_json: options.AsJson = False,
) -> None:
    """Search an index.

    On a terminal a query's hits come as a list with the matching words marked; with --json or into a pipe, as JSON lines.
    A higher score is better: a cosine, BM25, of a hybrid search the mean of both scaled to 0 … 1, or the reranker's score.
    """
    from embedkit.pipelines.searching import open_search

    if query is not None and queries is not None:
        raise typer.BadParameter("QUERY and --queries exclude each other")
    if run is not None and query is not None:
        raise typer.BadParameter("--run goes with --queries or a pipe: a query on the command line has no id")
    # A query alone, or typed by hand: what starts fastest answers fastest.
    interactive = query is not None or (queries is None and run is None and sys.stdin.isatty())
    with open_search(
        index, searching, computing, model=model, rerank=rerank, interactive=interactive
    ) as opened:
        _say_models(opened, searching)
        if query is not None:
            hits = opened.retriever.search([query], searching)[0]
            print_hits(query, hits, as_json=as_json)
            if not hits:
                explain_nothing(searching, len(opened.index))
        elif interactive:
            _converse(opened, searching, as_json=as_json)
        else:
            search_many(opened.retriever, searching, source="-" if queries is None else str(queries), run=run)
        _say_truncated(opened)


def _say_models(opened: Search, wanted: SearchOptions) -> None:
    embedder, reranker = opened.embedder, opened.reranker
    shown = embedder is not None and wanted.mode != "text"
    models.say_names(
        embedder.encoder.folder.name if embedder is not None and shown else None,
        None if reranker is None else reranker.name,
    )
    models.say_choice(None if embedder is None else embedder.encoder.choice)


def _say_truncated(opened: Search) -> None:
    if opened.embedder is not None and opened.embedder.truncated:
        limit = opened.embedder.encoder.tokenizer.max_length
        console.note(
            f"warning: {opened.embedder.truncated:,} queries were cut to the {limit} tokens that the model reads"
        )


def _converse(opened: Search, wanted: SearchOptions, *, as_json: bool) -> None:
    import contextlib

    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 (line editing and history for input())
    console.note("Type a query; Ctrl-D ends.")
    while True:
        try:
            query = input("query> ").strip()
        except EOFError:
            console.note("")
            return
        if query:
            print_hits(query, opened.retriever.search([query], wanted)[0], as_json=as_json)
