"""Opening an index for search with the models that its queries need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from embedkit.errors import IndexMismatchError
from embedkit.pipelines.embedders import check_kind, embedder_of, load_embedder
from embedkit.pipelines.models import MAXSIM, Built, load_reranker, of_index
from embedkit.pipelines.token_models import refuse_for_tokens
from embedkit.retrieval.joined import JoinedRetriever
from embedkit.retrieval.options import SearchOptions
from embedkit.retrieval.retriever import Retriever
from embedkit.types import Computing
from indexes import GatherOptions, Searchable, open_index

if TYPE_CHECKING:
    from embedkit.encoding.encoder import Encoder
    from embedkit.pipelines.embedders import AnyEmbedder, AnyEncoder
    from embedkit.retrieval.reranker import Reranker


@dataclass(frozen=True)
class Search:
    """An open index with what searches it; `embedder` is None where words alone are asked for."""

    index: Searchable
    retriever: Retriever
    embedder: AnyEmbedder | None
    reranker: Reranker | None


@contextmanager
def open_search(
    path: Path | str,
    options: SearchOptions,
    computing: Computing,
    *,
    model: str | None = None,
    rerank: str | None = None,
    interactive: bool = False,
    encoder: AnyEncoder | None = None,
    gathering: GatherOptions | None = None,
    beside: Sequence[Path] = (),
) -> Iterator[Search]:
    """Open an index, in one piece or in shards, and load what its queries need.

    `model` stands in for the index's own, and so does an `encoder` that is loaded already; `rerank` names a cross-encoder, or "maxsim". `interactive` says that a query or two
    will come: what starts fastest is taken. `gathering` says how shards are searched; where it names further ones, the path may be an address.
    `beside` are further indexes of the same documents, such as a sparse one: each is searched by its own model, and the hits are fused.

    Raises:
        IndexFileError: there is no index, or it is damaged.
        IndexMismatchError: the index was made of ready vectors, or by another model.
        ServerError: all shards lie on servers, and none answers.
        CheckpointError, DeviceError: a model cannot be loaded or computed here.
    """
    with open_index(path, device=computing.index_device, gathering=gathering) as index:
        loaded = load_models(
            index, options, computing, model=model, rerank=rerank, interactive=interactive, encoder=encoder
        )
        if not beside:
            yield Search(index, Retriever(index, embed=loaded[0], reranker=loaded[1]), *loaded)
            return
        with ExitStack() as stack:
            others = []
            for other in beside:
                opened = stack.enter_context(
                    open_index(other, device=computing.index_device, gathering=gathering)
                )
                embed = load_query_embedder(opened, None, computing, interactive=interactive, encoder=None)
                others.append(Retriever(opened, embed=embed))
            first = Retriever(index, embed=loaded[0])
            yield Search(index, JoinedRetriever(first, others, reranker=loaded[1]), *loaded)


def load_models(
    index: Built,
    options: SearchOptions,
    computing: Computing,
    *,
    model: str | None = None,
    rerank: str | None = None,
    interactive: bool = False,
    encoder: AnyEncoder | None = None,
) -> tuple[AnyEmbedder | None, Reranker | None]:
    """Load what embeds the queries, unless words alone are asked for, and what reranks, if anything; as `open_search`."""
    if rerank is not None and index.settings.kind == "multi-vector":
        refuse_for_tokens(of_index(index, model), rerank=[rerank])
    if rerank == MAXSIM and interactive:  # it reads many texts, but one query is not worth measuring for
        interactive = False
        computing = replace(computing, precision="fp32") if computing.precision == "auto" else computing
    embedder: AnyEmbedder | None = None
    reranker = None
    if options.mode != "text" or rerank == MAXSIM:
        embedder = load_query_embedder(index, model, computing, interactive=interactive, encoder=encoder)
    if rerank is not None:
        if rerank == MAXSIM:
            index.settings.need_dense(index.path, "--rerank maxsim")
        own = _dense_encoder(embedder)
        reranker = load_reranker(rerank, computing, encoder=own, interactive=interactive)
    return embedder, reranker


def load_query_embedder(
    index: Built, model: str | None, computing: Computing, *, interactive: bool, encoder: AnyEncoder | None
) -> AnyEmbedder:
    """Load what embeds queries for what a model made.

    Raises:
        IndexMismatchError: it was made of ready vectors, or by another model.
        CheckpointError, DeviceError: the model cannot be loaded or computed here.
    """
    from embedkit.inference.token_merging import merging_of

    fingerprint = index.settings.fingerprint
    if fingerprint is None:
        raise IndexMismatchError(
            f"{index.path} was built from ready vectors: which encoder made them is not known. "
            "Search it with --mode text, or build it with --model"
        )
    if encoder is not None:
        index.check_encoder(encoder.fingerprint)
        return embedder_of(encoder, "query")
    named = of_index(index, model)
    check_kind(index, named)
    embedder = load_embedder(
        named,
        computing,
        "query",
        interactive=interactive,
        merge_tokens=merging_of(fingerprint),
        max_active_dims=fingerprint.get("max_active_dims"),
    )
    index.check_encoder(embedder.encoder.fingerprint)
    return embedder


def _dense_encoder(embedder: AnyEmbedder | None) -> Encoder | None:
    from embedkit.encoding.embedder import Embedder

    return embedder.encoder if isinstance(embedder, Embedder) else None
