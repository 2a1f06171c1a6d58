"""Measuring search pipelines on judged sets: every model in every mode on every set, BM25 beside, reranked where asked.

`measure` yields what happens as it happens: a model that was loaded, how far a step is, and what was measured of each system.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from embedkit.data.beir import RetrievalSet
from embedkit.data.qrels import Run
from embedkit.errors import CheckpointError
from embedkit.evaluation.identical_ids import ignored_note, queries_are_documents
from embedkit.evaluation.metrics import Metric
from embedkit.evaluation.results import Evaluation
from embedkit.pipelines.collection_cache import digest
from embedkit.pipelines.collections import (
    CollectionPlace,
    cached_collection,
    fill_collection,
    known_documents,
    open_collection,
    own_documents,
)
from embedkit.pipelines.embedders import check_kind, load_embedder
from embedkit.pipelines.models import MAXSIM, kind_of_model, load_reranker, of_index
from embedkit.pipelines.systems import (
    Found,
    depth_of,
    evaluate_found,
    full_name,
    labels,
    rerank_all,
    search_all,
    unknown_notes,
)
from embedkit.pipelines.token_models import refuse_for_tokens
from embedkit.retrieval.options import Fusion, Mode, SearchOptions
from embedkit.retrieval.reranker import Reranker
from embedkit.retrieval.retriever import Retriever
from embedkit.storage.hashing import file_hash
from embedkit.types import Computing
from indexes import Searchable

if TYPE_CHECKING:
    from embedkit.inference.choice import Choice
    from embedkit.pipelines.embedders import AnyEmbedder
    from embedkit.reranking.cross_encoder import CrossEncoder
    from embedkit.reranking.maxsim import MaxSim

BM25 = "BM25"


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to measure: every model in every mode on every set, BM25 beside, and each reranked where a reranker is named."""

    sets: Sequence[RetrievalSet]
    models: Sequence[str | Path]
    modes: Sequence[Mode]
    metrics: Sequence[Metric]
    place: CollectionPlace
    command: Sequence[str]  # noted with each result
    rerank: Sequence[str] = ()
    rerank_weight: float | None = None  # None: the reranker's own
    fusion: Fusion = "scores"
    text_weights: Sequence[float] = (
        1.0,
    )  # of words in mode hybrid, where meaning has 1; each makes a system
    candidates: int = 100
    computing: Computing
    merge_tokens: float | None = None  # None: none, or what the index has
    recursions: int | None = None  # None: as many as the models were trained with
    kind: Literal["retrieval", "reranking"] = "retrieval"
    ignore_identical_ids: bool | None = None  # None: where the queries are documents of the collection


@dataclass(frozen=True)
class Loaded:
    """A model was loaded."""

    role: Literal["encoder", "reranker"]
    name: str
    choice: Choice | None


@dataclass(frozen=True)
class Underway:
    """How far a step is; `what` names the step, `fraction` is None where it cannot be known."""

    what: str
    fraction: float | None
    text: str


@dataclass(frozen=True)
class Stale:
    """What the cache holds under a collection's name is of another state of it; it is read again."""

    corpus: Path
    name: str


@dataclass(frozen=True)
class Measured:
    """One system on one set: its figures, and the run behind them."""

    test: RetrievalSet
    evaluation: Evaluation
    run: Run


Event = Loaded | Underway | Stale | Measured
Rerankers = Sequence[tuple[str, "CrossEncoder | MaxSim | None"]]


@dataclass(frozen=True)
class _Encoder:
    """An encoder of the job, and what it is called in tables; BM25 alone has none."""

    name: str
    embedder: AnyEmbedder | None


@dataclass(frozen=True)
class _System:
    """A first stage on one set."""

    name: str
    mode: Mode
    index: Searchable
    embedder: AnyEmbedder | None
    notes: tuple[str, ...]
    ignore_identical_ids: bool
    text_weight: float = 1.0


def measure(job: Job) -> Iterator[Event]:
    """Measure all systems on all sets; of each set BM25 comes first."""
    rerankers = []
    for name in job.rerank:
        model = _load_reranker(name, job)
        if model is not None:
            yield Loaded("reranker", model.name, model.choice)
        rerankers.append((name, model))
    for number, encoder in enumerate(_encoders(job)):
        if encoder.embedder is not None:
            loaded = encoder.embedder.encoder
            yield Loaded("encoder", loaded.folder.name, loaded.choice)
        for test in job.sets:
            yield from _measure_set(job, test, encoder, rerankers=rerankers, with_bm25=number == 0)


def in_order(job: Job, measured: Sequence[Measured]) -> list[Measured]:
    """Put what was measured in the order of the sets."""
    places = {test.name: place for place, test in enumerate(job.sets)}
    return sorted(measured, key=lambda each: places[each.test.name])


def _encoders(job: Job) -> Iterator[_Encoder]:
    # Words need no vectors, and no encoder but for maxsim.
    if set(job.modes) == {"text"} and MAXSIM not in job.rerank:
        yield _Encoder("", None)
    elif job.models:
        for folder, name in zip(job.models, labels(job.models), strict=True):
            yield _Encoder(
                full_name(name, job.computing, merge_tokens=job.merge_tokens, recursions=job.recursions),
                _load_embedder(folder, job),
            )
    elif job.place.index is not None:
        name = labels([job.place.index])[0]
        yield _Encoder(
            full_name(name, job.computing, merge_tokens=job.merge_tokens, recursions=job.recursions),
            _embedder_of_index(job),
        )
    else:
        yield _Encoder("", None)


def _measure_set(
    job: Job, test: RetrievalSet, encoder: _Encoder, *, rerankers: Rerankers, with_bm25: bool
) -> Iterator[Event]:
    cached = cached_collection(job.place, test, encoder.embedder)
    if cached is not None and not cached.is_whole():
        assert test.corpus is not None
        if cached.earlier():
            yield Stale(test.corpus, test.name)
        what = f"{cached.name}: " + ("words" if encoder.embedder is None else "encode")
        for report in fill_collection(cached, test.corpus, encoder.embedder):
            rate = report.embedded / report.seconds if report.seconds else 0.0
            yield Underway(what, report.fraction, f"{report.embedded:,} documents  {rate:,.0f} documents/s")
    with open_collection(job.place, cached, encoder.embedder) as index:
        notes = unknown_notes(test, known_documents(index, test))
        ignore = job.ignore_identical_ids
        if ignore is None:
            ignore = queries_are_documents(test.queries, test.qrels, own_documents(index, test))
        if ignore:
            notes += (ignored_note(job.ignore_identical_ids),)
        modes: list[Mode] = [mode for mode in job.modes if mode != "text"] if encoder.embedder else []
        if with_bm25:
            modes.insert(0, "text")
        for mode, weight in _weighted(modes, job.text_weights):
            shown = {"text": BM25, "dense": encoder.name, "hybrid": f"{encoder.name} hybrid"}[mode]
            system = _System(
                name=shown if weight == 1 else f"{shown} (words {weight:g})",
                mode=mode,
                index=index,
                embedder=encoder.embedder,
                notes=notes,
                ignore_identical_ids=ignore,
                text_weight=weight,
            )
            # BM25 stands beside; it is reranked where it was asked for, or where there is nothing else.
            yield from _measure_system(job, test, system, rerankers=rerankers if mode in job.modes else ())


def _weighted(modes: Sequence[Mode], text_weights: Sequence[float]) -> Iterator[tuple[Mode, float]]:
    for mode in modes:
        for weight in text_weights if mode == "hybrid" else (1.0,):
            yield mode, weight


def _measure_system(
    job: Job, test: RetrievalSet, system: _System, *, rerankers: Rerankers
) -> Iterator[Event]:
    prints = []
    if system.embedder is not None and system.mode != "text":
        prints = [digest(system.embedder.encoder.fingerprint)]
    depth = depth_of(job.metrics)
    width = max(depth, job.candidates)
    options = SearchOptions(
        k=depth,
        mode=system.mode,
        candidates=width,
        fusion=job.fusion,
        text_weight=system.text_weight,
        group=True,
    )
    what = f"{test.name}: {system.name}"
    yield Underway(what, None, f"{len(test.queries):,} queries")
    retriever = Retriever(system.index, embed=system.embedder)
    found = search_all(
        retriever,
        test.queries,
        options,
        ignore_identical_ids=system.ignore_identical_ids,
        keep_hits=bool(rerankers),
    )
    yield _evaluated(job, test, system, found=found, name=system.name, fingerprints=prints)
    for folder, model in rerankers:
        reranker, print_of = _ready_reranker(model, system)
        reranked = found
        for reranked in rerank_all(
            reranker, test.queries, found, candidates=job.candidates, weight=job.rerank_weight
        ):
            rate = reranked.reranked_pairs / reranked.rerank_seconds
            done = len(reranked.run) / len(test.queries)
            yield Underway(what, done, f"reranked by {_short(folder)}  {rate:,.0f} pairs/s")
        name = f"{system.name} + {_short(folder)}"
        yield _evaluated(job, test, system, found=reranked, name=name, fingerprints=[*prints, print_of])


def _evaluated(
    job: Job, test: RetrievalSet, system: _System, *, found: Found, name: str, fingerprints: Sequence[str]
) -> Measured:
    evaluation = evaluate_found(
        test,
        found,
        job.metrics,
        system=name,
        command=job.command,
        fingerprint="+".join(fingerprints),
        kind=job.kind,
        notes=system.notes,
    )
    return Measured(test, evaluation, found.run)


def _short(folder: str) -> str:
    return folder if folder == MAXSIM else labels([folder])[0]


def _load_embedder(
    folder: str | Path, job: Job, *, merge_tokens: float = 0.0, max_active_dims: int | None = None
) -> AnyEmbedder:
    if kind_of_model(folder) == "multi-vector":
        refuse_for_tokens(folder, merge_tokens=job.merge_tokens, recursions=job.recursions, rerank=job.rerank)
    share = merge_tokens if job.merge_tokens is None else job.merge_tokens
    return load_embedder(
        folder,
        job.computing,
        "query",
        merge_tokens=share,
        recursions=job.recursions,
        max_active_dims=max_active_dims,
    )


def _embedder_of_index(job: Job) -> AnyEmbedder:
    from embedkit.inference.token_merging import merging_of

    with job.place.open_named() as index:
        share = merging_of(index.settings.fingerprint)
        model = of_index(index, None)
        check_kind(index, model)
        limit = (index.settings.fingerprint or {}).get("max_active_dims")
        return _load_embedder(model, job, merge_tokens=share, max_active_dims=limit)


def _load_reranker(name: str, job: Job) -> CrossEncoder | MaxSim | None:
    """Load a cross-encoder or a multi-vector model; MaxSim without one is made of the encoder at hand."""
    from embedkit.reranking.cross_encoder import CrossEncoder
    from embedkit.reranking.maxsim import MaxSim

    if name == MAXSIM:
        return None
    model = load_reranker(name, job.computing)
    assert isinstance(model, CrossEncoder | MaxSim)
    if isinstance(model, CrossEncoder):
        model.check_single()
    return model


def _ready_reranker(model: CrossEncoder | MaxSim | None, system: _System) -> tuple[Reranker, str]:
    """Return a reranker and the hash of its weights."""
    from embedkit.reranking.maxsim import MaxSim

    if isinstance(model, MaxSim):
        return model, str(model.encoder.fingerprint["weights"])
    if model is not None:
        return model, "+".join(file_hash(file) for file in model.folder.all_weight_files)
    from embedkit.encoding.encoder import Encoder

    assert system.embedder is not None  # wherever maxsim is asked for, a model is loaded
    encoder = system.embedder.encoder
    if not isinstance(encoder, Encoder):
        raise CheckpointError(
            f"{encoder.folder.path}: maxsim compares token vectors, and this is a learned sparse model. Name a reranker"
        )
    return MaxSim(encoder), MAXSIM
