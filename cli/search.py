"""`embedkit search`: one query, many, or a conversation."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedkit.models import RERANKER

from . import computing, console, options, which_model
from .options import DeviceName, PrecisionName
from .rerank import budget_seconds

if TYPE_CHECKING:
    from embedkit.encoding.embedder import Embedder
    from embedkit.records import Hit, Query
    from embedkit.reranking.reranker import Reranker
    from embedkit.retrieval import Retriever, SearchOptions

EXAMPLES = """\b
Examples:
  embedkit search docs.index "how do I resume a build"
  embedkit search my.index "wind energy" --mode hybrid --where "year > 2020" -k 5
  embedkit search my.index "wind energy" --rerank --candidates 100 --rerank-budget 200ms
  embedkit search my.index --queries queries.jsonl --run out.trec
  embedkit search my.index                      (asks for queries; Ctrl-D ends)
"""

MAXSIM = "maxsim"
# Queries searched together: one product against all vectors instead of one each.
BATCH_QUERIES = 256


class ModeName(StrEnum):
    dense = "dense"
    text = "text"
    hybrid = "hybrid"


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
    model: options.IndexModel = None,
    queries: Annotated[
        Path | None,
        typer.Option(
            "--queries",
            metavar="FILE",
            help="Many queries: JSON lines, TSV with a header, or a text a line.",
            show_default=False,
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option("--run", metavar="FILE", help="Write the hits as a TREC run.", show_default=False),
    ] = None,
    top_k: Annotated[
        int, typer.Option("--top-k", "-k", metavar="K", min=1, help="Hits for a query, at most.")
    ] = 10,
    mode: Annotated[
        ModeName, typer.Option("--mode", help="By meaning (dense), by words (text, BM25), or both.")
    ] = ModeName.dense,
    where: options.Where = None,
    group: Annotated[bool, typer.Option("--group", help="One hit a document: its best passage.")] = False,
    min_score: Annotated[
        float | None,
        typer.Option("--min-score", metavar="S", help="Leave out hits below this score.", show_default=False),
    ] = None,
    candidates: Annotated[
        int,
        typer.Option("--candidates", metavar="N", min=1, help="Hits fetched for fusing and reranking."),
    ] = 100,
    dense_weight: Annotated[
        float, typer.Option("--dense-weight", metavar="W", min=0.0, help="Weight of meaning in mode hybrid.")
    ] = 1.0,
    text_weight: Annotated[
        float, typer.Option("--text-weight", metavar="W", min=0.0, help="Weight of words in mode hybrid.")
    ] = 1.0,
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
    rerank_budget: Annotated[
        str | None,
        typer.Option(
            "--rerank-budget",
            metavar="TIME",
            help="Rerank as deep as fits in so much time a query, such as 200ms.",
            show_default=False,
        ),
    ] = None,
    device: options.Device = DeviceName.auto,
    precision: options.Precision = PrecisionName.auto,
    as_json: options.AsJson = False,
) -> None:
    """Search an index.

    On a terminal a query's hits come as a list with the matching words marked; with --json or into a pipe, as JSON lines.
    A higher score is better: a cosine, BM25, a sum of reciprocal ranks, or the reranker's score.
    """
    from embedkit.errors import IndexMismatchError
    from embedkit.retrieval import Retriever, SearchOptions
    from indexes import Index

    if query is not None and queries is not None:
        raise typer.BadParameter("QUERY and --queries exclude each other")
    if run is not None and query is not None:
        raise typer.BadParameter("--run goes with --queries or a pipe: a query on the command line has no id")
    if not dense_weight and not text_weight:
        raise typer.BadParameter("--dense-weight and --text-weight are both 0")
    wanted = SearchOptions(
        k=top_k,
        mode=mode.value,
        where=where,
        candidates=candidates,
        dense_weight=dense_weight,
        text_weight=text_weight,
        group=group,
        min_score=min_score,
        rerank_budget_seconds=budget_seconds(rerank_budget),
    )
    # A query alone, or typed by hand: what starts fastest answers fastest.
    few = query is not None or (queries is None and run is None and sys.stdin.isatty())
    if few and rerank == MAXSIM:  # which reads many texts, but is not worth measuring for one query
        few, precision = False, PrecisionName.fp32 if precision == PrecisionName.auto else precision
    with Index.open(index, device="cuda" if device == DeviceName.cuda else None) as opened:
        embedder = None
        if mode != ModeName.text or rerank == MAXSIM:
            if opened.settings.fingerprint is None:
                raise IndexMismatchError(
                    f"{index} was built from ready vectors: which encoder made them is not known. "
                    "Search it with --mode text, or build it with --model"
                )
            embedder = _load_embedder(which_model.of_index(opened, model), device, precision, few=few)
            opened.check_encoder(embedder.encoder.fingerprint)
        reranker = None if rerank is None else _load_reranker(rerank, embedder, device, precision, few=few)
        which_model.say(
            embedder.encoder.folder.name if embedder is not None and mode != ModeName.text else None,
            None if reranker is None else _reranker_name(reranker),
        )
        computing.say(None if embedder is None else embedder.encoder.choice)
        retriever = Retriever(opened, embed=embedder, reranker=reranker)
        if query is not None:
            hits = retriever.search([query], wanted)[0]
            _print_hits(query, hits, as_json=as_json)
            if not hits:
                _explain_nothing(wanted, len(opened))
        elif queries is None and sys.stdin.isatty() and run is None:
            _converse(retriever, wanted, as_json=as_json)
        else:
            _search_many(retriever, wanted, "-" if queries is None else str(queries), run)
        if embedder is not None and embedder.truncated:
            limit = embedder.encoder.tokenizer.max_length
            console.note(
                f"warning: {embedder.truncated:,} queries were cut to the {limit} tokens that the model reads"
            )


def _load_reranker(
    rerank: str, embedder: Embedder | None, device: DeviceName, precision: PrecisionName, *, few: bool
) -> Reranker:
    if rerank == MAXSIM:
        from embedkit.reranking.maxsim import MaxSim

        assert embedder is not None
        return MaxSim(embedder.encoder)
    from embedkit.reranking.cross_encoder import CrossEncoder

    return CrossEncoder.load(rerank, device=device.value, precision=precision.value, few=few)


def _reranker_name(reranker: Reranker) -> str:
    from embedkit.reranking.cross_encoder import CrossEncoder

    return reranker.folder.name if isinstance(reranker, CrossEncoder) else MAXSIM


def _load_embedder(
    folder: str | Path, device: DeviceName, precision: PrecisionName, *, few: bool
) -> Embedder:
    from embedkit.encoding.embedder import Embedder
    from embedkit.encoding.encoder import Encoder

    encoder = Encoder.load(folder, device=device.value, precision=precision.value, few=few)
    return Embedder(encoder, "query")


def _converse(retriever: Retriever, wanted: SearchOptions, *, as_json: bool) -> None:
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
            _print_hits(query, retriever.search([query], wanted)[0], as_json=as_json)


def _search_many(retriever: Retriever, wanted: SearchOptions, source: str, run: Path | None) -> None:
    from embedkit.records import read_queries

    queries = read_queries([source])
    if run is None:
        for query, hits in _batches(retriever, wanted, queries):
            for rank, hit in enumerate(hits, 1):
                console.print_json({"query_id": query.query_id, **_as_json(hit, rank)})
        return
    from embedkit.evaluation.trec import write_run

    found: dict[str, dict[str, float]] = {}
    for query, hits in _batches(retriever, wanted, queries):
        scores = found.setdefault(query.query_id, {})
        for hit in hits:  # a run knows documents, not passages: the best passage counts
            scores.setdefault(hit.doc_id, hit.score)
    write_run(run, found)
    console.note(f"{run}: {sum(map(len, found.values())):,} hits for {len(found):,} queries")


def _batches(
    retriever: Retriever, wanted: SearchOptions, queries: Iterator[Query]
) -> Iterator[tuple[Query, list[Hit]]]:
    while batch := list(islice(queries, BATCH_QUERIES)):
        yield from zip(batch, retriever.search([query.text for query in batch], wanted), strict=True)


def _as_json(hit: Hit, rank: int) -> dict[str, object]:
    return {
        "rank": rank,
        "id": hit.doc_id,
        "score": hit.score,
        "title": hit.title,
        "text": hit.text,
        "passage": hit.passage,
        "metadata": dict(hit.metadata),
        "scores": dict(hit.scores),
    }


def _print_hits(query: str, hits: list[Hit], *, as_json: bool) -> None:
    if console.wants_json(as_json):
        for rank, hit in enumerate(hits, 1):
            console.print_json(_as_json(hit, rank))
        return
    from rich.console import Console
    from rich.text import Text

    from indexes import snippets

    out = Console(highlight=False)
    for rank, (hit, snippet) in enumerate(
        zip(hits, snippets(query, [hit.text for hit in hits]), strict=True), 1
    ):
        place = hit.doc_id + (f" #{hit.passage}" if hit.passage else "")
        head = Text(f"{rank:>2}  {hit.score:.4f}  ", style="bold")
        head.append(hit.title or place, style="bold cyan")
        if hit.title and hit.title != place:
            head.append(f"  {place}", style="dim")
        body = Text(snippet.text.replace("\n", " "))
        for start, stop in snippet.spans:
            body.stylize("bold yellow", start, stop)
        out.print(head)
        for line in body.wrap(out, max(20, out.width - 4)):
            out.print(Text("    ").append_text(line))


def _explain_nothing(wanted: SearchOptions, size: int) -> None:
    if not size:
        console.note("no hits: the index is empty")
    elif wanted.where is not None:
        console.note("no hits: the filter lets none of the matching documents pass")
    elif wanted.min_score is not None:
        console.note(f"no hits: none scores {wanted.min_score} or more")
    else:
        console.note("no hits: no document has a word of the query")
