"""`embedkit search`: one query, many, or a conversation."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedkit.models import RERANKER

from ..shared import console, models, options
from ..shared.completing import complete_index, complete_reranker
from ..shared.groups import grouped
from ..shared.locating import split_words
from ..shared.threads import compute_single_queries
from .hits import answer, wants_json_hits
from .many import search_many
from .prompt import converse

if TYPE_CHECKING:
    from embedkit.pipelines.searching import Search
    from embedkit.retrieval.options import SearchOptions

EXAMPLES = """\b
Examples:
  embedkit search docs.index "how do I resume a build"
  embedkit search my.index "wind energy" --mode hybrid --where "year > 2020" -k 5
  embedkit search my.index "wind energy" --rerank --candidates 100 --rerank-budget 200ms
  embedkit search my.index --queries queries.jsonl --run out.trec
  embedkit search my.index                      # asks for queries; Ctrl-D ends
"""


@grouped
def search(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[INDEX] [QUERY]...",
            help="Index folder (default: this folder's, made by `embedkit index .`), and what to look for, with or without "
            "quotes. Without a query: ask for queries, or read them from a pipe.",
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
            help=f"Rerank the candidates with a cross-encoder (without a value {RERANKER}), or with 'maxsim': token by "
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
    computing: options.ComputingOptions,
    as_json: options.AsJson = False,
) -> None:
    """Search an index.

    The hits of one query are a list for people, with the matching words marked, or JSON lines with --json; those of
    --queries are JSON lines, or a TREC run. A higher score is better: a cosine, BM25, of a hybrid search the mean of both
    scaled to 0 … 1, or the reranker's score. In a pipe, EMBEDKIT_PIPE=json stands for --json.
    """
    index, said = split_words(words or [])
    query = " ".join(said) if said else None
    if query is not None and queries is not None:
        raise typer.BadParameter("QUERY and --queries exclude each other")
    if run is not None and query is not None:
        raise typer.BadParameter("--run goes with --queries or a pipe: a query on the command line has no id")
    # A query alone, or typed by hand: what starts fastest answers fastest.
    interactive = query is not None or (queries is None and run is None and sys.stdin.isatty())
    if interactive:
        compute_single_queries()
    if interactive and not passages and not wants_json_hits(as_json):  # people want one line for one document
        searching = replace(searching, group=True)
    from embedkit.pipelines.searching import open_search

    with open_search(
        index, searching, computing, model=model, rerank=rerank, interactive=interactive
    ) as opened:
        _say_models(opened, searching)
        if query is not None:
            answer(opened, query, searching, show_all=show_all, as_json=as_json)
        elif interactive:
            converse(opened, searching, show_all=show_all, as_json=as_json)
        else:
            search_many(opened.retriever, searching, source="-" if queries is None else str(queries), run=run)
        _say_truncated(opened)
        _say_unknown(opened, searching)


def _say_models(opened: Search, wanted: SearchOptions) -> None:
    encoder = None if opened.embedder is None else opened.embedder.encoder
    models.say_names(
        None if encoder is None or wanted.mode == "text" else encoder.folder.name,
        None if opened.reranker is None else opened.reranker.name,
    )
    models.say_choice(None if encoder is None else encoder.choice)


def _say_truncated(opened: Search) -> None:
    if opened.embedder is not None and opened.embedder.truncated:
        limit = opened.embedder.encoder.tokenizer.max_length
        console.warn(
            f"{console.counted(opened.embedder.truncated, 'query')} cut to the {limit} tokens that the model reads"
        )


def _say_unknown(opened: Search, wanted: SearchOptions) -> None:
    """Say where queries could not be searched by meaning: the model has no token for any part of them."""
    if opened.embedder is not None and opened.embedder.unknown:
        how = "only their words were searched" if wanted.mode == "hybrid" else "nothing was found for them"
        console.warn(
            f"{console.counted(opened.embedder.unknown, 'query')} made of nothing that this model knows, as of another "
            f"script: {how}. Build the index with a model of that language"
        )
