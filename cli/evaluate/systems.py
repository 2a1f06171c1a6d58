"""The pipelines that `evaluate retrieval`, `evaluate reranking` and `compare` measure, and their cached collections."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..shared import computing, console
from ..shared import models as which_model
from ..shared.options import DeviceName, PrecisionName
from .collections import Place, known_documents, open_collection

if TYPE_CHECKING:
    from embedkit.data.beir import RetrievalSet
    from embedkit.encoding.embedder import Embedder
    from embedkit.evaluation.metrics import Metric
    from embedkit.evaluation.results import Evaluation
    from embedkit.pipelines.systems import Found
    from embedkit.reranking.cross_encoder import CrossEncoder
    from embedkit.retrieval.fusion import Fusion
    from embedkit.retrieval.reranker import Reranker
    from embedkit.retrieval.retriever import Mode
    from indexes import Index

BM25 = "BM25"
MAXSIM = "maxsim"


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to measure: every model in every mode on every set, BM25 beside, and each reranked where a reranker is named."""

    sets: Sequence[RetrievalSet]
    models: Sequence[str | Path]
    modes: Sequence[Mode]
    metrics: Sequence[Metric]
    place: Place
    rerank: Sequence[str] = ()
    rerank_weight: float | None = None  # None: the reranker's own
    fusion: Fusion = "scores"
    candidates: int = 100
    device: DeviceName
    precision: PrecisionName
    merge_tokens: float | None = None  # None: none, or what the index has
    kind: Literal["retrieval", "reranking"] = "retrieval"
    quiet: bool = False


@dataclass(frozen=True)
class Measured:
    """One system on one set: its figures, and the hits behind them."""

    test: RetrievalSet
    evaluation: Evaluation
    found: Found


@dataclass(frozen=True)
class _System:
    """A first stage on one set."""

    name: str
    mode: Mode
    index: Index
    embedder: Embedder | None
    notes: tuple[str, ...]


def measure(job: Job) -> list[Measured]:
    """Measure all systems on all sets, set by set, BM25 first."""
    from embedkit.pipelines.systems import labels

    found: list[Measured] = []
    rerankers = [(name, _load_reranker(name, job)) for name in job.rerank]
    # Words need no vectors, and no encoder but for maxsim.
    by_words = set(job.modes) == {"text"} and MAXSIM not in job.rerank
    encoders: list[str | Path | None] = [None] if by_words else list(job.models) or [None]
    for number, folder in enumerate(encoders):
        embedder, name = None, ""
        if folder is not None:
            embedder, name = _load_embedder(folder, job), labels(job.models)[number]
        elif job.place.index is not None and not by_words:
            embedder = _embedder_of_index(job.place.index, job)
            name = labels([job.place.index])[0]
        if embedder is not None and not job.quiet:
            which_model.say(embedder.encoder.folder.name)
        if job.precision not in (PrecisionName.auto, PrecisionName.fp32) and name:
            name += f" {job.precision.value}"
        if job.merge_tokens and name:
            name += f" merging {job.merge_tokens:g}"
        for test in job.sets:
            found += _measure_set(job, test, name, embedder, rerankers, with_bm25=number == 0)
    order = {test.name: place for place, test in enumerate(job.sets)}
    return sorted(found, key=lambda each: order[each.test.name])


def _measure_set(
    job: Job,
    test: RetrievalSet,
    name: str,
    embedder: Embedder | None,
    rerankers: Sequence[tuple[str, CrossEncoder | None]],
    *,
    with_bm25: bool,
) -> Iterator[Measured]:
    from embedkit.pipelines.systems import unknown_notes

    with open_collection(job.place, test, embedder) as index:
        notes = unknown_notes(test, known_documents(index, test))
        modes: list[Mode] = [mode for mode in job.modes if mode != "text"] if embedder is not None else []
        if with_bm25:
            modes.insert(0, "text")
        for mode in modes:
            shown = {"text": BM25, "dense": name, "hybrid": f"{name} hybrid"}[mode]
            system = _System(shown, mode, index, embedder, notes)
            # BM25 stands beside; it is reranked where it was asked for, or where there is nothing else.
            wanted = mode in job.modes
            yield from _measure_system(job, test, system, rerankers if wanted else ())


def _measure_system(
    job: Job, test: RetrievalSet, system: _System, rerankers: Sequence[tuple[str, CrossEncoder | None]]
) -> Iterator[Measured]:
    from embedkit.pipelines.collection_cache import digest
    from embedkit.pipelines.systems import depth_of, evaluate_found, rerank_all, search_all
    from embedkit.retrieval.retriever import Retriever, SearchOptions

    prints = []
    if system.embedder is not None and system.mode != "text":
        prints = [digest(system.embedder.encoder.fingerprint)]
    depth = depth_of(job.metrics)
    width = max(depth, job.candidates)
    options = SearchOptions(k=depth, mode=system.mode, candidates=width, fusion=job.fusion, group=True)
    with console.progress_bar(f"{test.name}: {system.name}", quiet=job.quiet) as bar:
        bar.update(None, f"{len(test.queries):,} queries")
        found = search_all(Retriever(system.index, embed=system.embedder), test.queries, options)
        results = [(system.name, found, prints)]
        for folder, model in rerankers:
            reranker, print_of = _ready_reranker(model, system)
            reranked = found
            for reranked in rerank_all(
                reranker, test.queries, found, candidates=job.candidates, weight=job.rerank_weight
            ):
                rate = reranked.reranked_pairs / reranked.rerank_seconds
                bar.update(
                    len(reranked.hits) / len(test.queries),
                    f"reranked by {_short(folder)}  {rate:,.0f} pairs/s",
                )
            results.append((f"{system.name} + {_short(folder)}", reranked, [*prints, print_of]))
    for name, hits, fingerprints in results:
        evaluation = evaluate_found(
            test,
            hits,
            job.metrics,
            system=name,
            command=console.command_words(),
            fingerprint="+".join(fingerprints),
            kind=job.kind,
            notes=system.notes,
        )
        yield Measured(test, evaluation, hits)


def _short(folder: str) -> str:
    from embedkit.pipelines.systems import labels

    return folder if folder == MAXSIM else labels([folder])[0]


def _load_embedder(folder: str | Path, job: Job, *, merge_tokens: float = 0.0) -> Embedder:
    from embedkit.encoding.embedder import Embedder
    from embedkit.encoding.encoder import Encoder

    encoder = Encoder.load(
        folder,
        device=job.device.value,
        precision=job.precision.value,
        merge_tokens=merge_tokens if job.merge_tokens is None else job.merge_tokens,
    )
    computing.say(encoder.choice, quiet=job.quiet)
    return Embedder(encoder, "query")


def _embedder_of_index(path: Path, job: Job) -> Embedder:
    from embedkit.inference.token_merging import merging_of
    from indexes import Index

    with Index.open(path) as index:
        share = merging_of(index.settings.fingerprint)
        return _load_embedder(which_model.of_index(index, None), job, merge_tokens=share)


def _load_reranker(name: str, job: Job) -> CrossEncoder | None:
    """Load a cross-encoder; MaxSim is made of the encoder at hand."""
    if name == MAXSIM:
        return None
    from embedkit.reranking.cross_encoder import CrossEncoder

    model = CrossEncoder.load(name, device=job.device.value, precision=job.precision.value)
    computing.say(model.choice, quiet=job.quiet, what="reranker")
    model.check_single()
    if not job.quiet:
        which_model.say(None, model.folder.name)
    return model


def _ready_reranker(model: CrossEncoder | None, system: _System) -> tuple[Reranker, str]:
    """Return a reranker and the hash of its weights."""
    from embedkit.checkpoint.folder import weight_files
    from embedkit.storage.files import file_hash

    if model is not None:
        return model, "+".join(file_hash(file) for file in weight_files(model.folder.path))
    from embedkit.reranking.maxsim import MaxSim

    assert system.embedder is not None  # wherever maxsim is asked for, a model is loaded
    return MaxSim(system.embedder.encoder), MAXSIM
