"""`embedkit search`: one query, many, or a conversation."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedkit.models import RERANKER

from ..rerank import budget_seconds
from ..shared import computing, console, options
from ..shared import models as which_model
from ..shared.options import DeviceName, FusionName, ModeName, PrecisionName
from .hits import explain_nothing, print_hits
from .many import search_many

if TYPE_CHECKING:
    from embedkit.encoding.embedder import Embedder
    from embedkit.retrieval.reranker import Reranker
    from embedkit.retrieval.retriever import Retriever, SearchOptions

EXAMPLES = """\b
Examples:
  embedkit search docs.index "how do I resume a build"
  embedkit search my.index "wind energy" --mode hybrid --where "year > 2020" -k 5
  embedkit search my.index "wind energy" --rerank --candidates 100 --rerank-budget 200ms
  embedkit search my.index --queries queries.jsonl --run out.trec
  embedkit search my.index                      (asks for queries; Ctrl-D ends)
"""

MAXSIM = "maxsim"


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
    fusion: options.FusionBy = FusionName.scores,
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
    rerank_weight: options.RerankWeight = None,
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
    A higher score is better: a cosine, BM25, of a hybrid search the mean of both scaled to 0 … 1, or the reranker's score.
    """
    from embedkit.errors import IndexMismatchError
    from embedkit.inference.token_merging import merging_of
    from embedkit.retrieval.retriever import Retriever, SearchOptions
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
        fusion=fusion.value,
        rerank_weight=rerank_weight,
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
            embedder = _load_embedder(
                which_model.of_index(opened, model),
                device,
                precision,
                few=few,
                merge_tokens=merging_of(opened.settings.fingerprint),
            )
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
            print_hits(query, hits, as_json=as_json)
            if not hits:
                explain_nothing(wanted, len(opened))
        elif queries is None and sys.stdin.isatty() and run is None:
            _converse(retriever, wanted, as_json=as_json)
        else:
            search_many(retriever, wanted, "-" if queries is None else str(queries), run)
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
    folder: str | Path, device: DeviceName, precision: PrecisionName, *, few: bool, merge_tokens: float
) -> Embedder:
    from embedkit.encoding.embedder import Embedder
    from embedkit.encoding.encoder import Encoder

    encoder = Encoder.load(
        folder, device=device.value, precision=precision.value, few=few, merge_tokens=merge_tokens
    )
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
            print_hits(query, retriever.search([query], wanted)[0], as_json=as_json)
