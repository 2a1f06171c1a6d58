"""Measuring an ANN structure against exact search, and choosing how hard it shall look."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, cast

import numpy as np

from embedkit.errors import IndexFileError

from ..search.ann_file import AnnFile
from ..search.search import search_structure
from ..storage.codes import FloatArray, RowArray
from .ann_build import sample_vectors
from .tune_points import ENOUGH, TunePoint, TuneReport, choose, recall_of, without_own

if TYPE_CHECKING:
    from embedkit.retrieval.token_vectors import TokenVectors
    from embedkit.retrieval.vectors import Vectors

    from ..search.ann import AnnIndex, Knobs
    from ..store import Index
    from ..types import Kind

_EF_SEARCH = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
_OVERSAMPLING = (5, 10, 20, 50, 100)


def tune(
    index: Index,
    *,
    target_recall: float = 0.95,
    k: int = 10,
    queries: Vectors | None = None,
    num_queries: int = 200,
    seed: int = 0,
) -> Iterator[TuneReport]:
    """Measure recall@k over the knobs of the ANN structure, or of the lists of a multi-vector index, and store the fastest setting that reaches the target.

    Without `queries` (Q, E), or `TokenVectors`, stored vectors stand in for them, and a query's own row counts for nothing. Where no setting
    reaches the target, that with the highest recall is stored.

    Raises:
        IndexFileError: the index has no ANN structure, or too few vectors to measure anything.
    """
    index.need_writer()
    if not 0 < target_recall <= 1:
        raise ValueError(f"target_recall is {target_recall}; it must be above 0 and at most 1")
    check_tunable(index)
    if index.snapshot.num_rows <= k:
        raise IndexFileError(
            f"{index.path}: {index.snapshot.num_rows} vectors; recall@{k} needs more than {k}. Add documents first"
        )
    if queries is not None:
        names = [f"query {number}" for number in range(1, len(queries) + 1)]
        queries = index.need_writer().payload.prepare(queries, names)
    if index.settings.kind == "multi-vector":
        from ..multi_vector.tune import tune_tokens

        asked = cast("TokenVectors | None", queries)
        return tune_tokens(index, target_recall, k, asked, num_queries, seed)
    queries = cast("FloatArray | None", queries)
    assert index.ann is not None
    return _tune(index, index.ann, target_recall, k, queries, num_queries, seed)


def check_tunable(index: Index, kind: Kind | None = None) -> None:
    """Refuse an index that is searched exactly, or that will be once a structure of a kind (None: the one that is there) is built.

    Raises:
        IndexFileError: there is nothing to tune.
        IndexMismatchError: the index is sparse.
    """
    if index.settings.kind == "sparse":
        index.settings.need_dense(index.path, "tuning")
    exact = index.ann is None if kind is None else kind == "flat"
    if exact and index.settings.kind == "dense":
        raise IndexFileError(
            f"{index.path}: the index is searched exactly, so there is nothing to tune. "
            f"Build a structure with: embedkit index build INPUT --index {index.path} --kind hnsw"
        )


def _tune(
    index: Index, ann: AnnFile, target: float, k: int, queries: FloatArray | None, num_queries: int, seed: int
) -> Iterator[TuneReport]:
    own: RowArray | None = None
    if queries is None:
        own, queries = sample_vectors(index.snapshot, num_queries, seed)
    truth = _true_rows(index, queries, own, k)
    structure = ann.load()
    curve: list[TunePoint] = []
    for group in _settings(structure):
        for knobs in group:
            curve.append(_measure(index, structure, queries, own, truth, knobs))
            yield TuneReport(tuple(curve))
            if curve[-1].recall >= ENOUGH:
                break
    chosen, reached = choose(curve, target)
    points = [point.as_json() for point in curve]
    with index.database.transaction():
        index.database.set_ann(
            replace(ann.info, knobs=dict(chosen.knobs), target_recall=target, curve=points)
        )
    index.refresh()
    yield TuneReport(tuple(curve), chosen, reached)


def _settings(structure: AnnIndex) -> list[list[Knobs]]:
    """Return the settings to try, in groups of growing effort."""
    if structure.kind == "hnsw":
        return [[{"efSearch": effort} for effort in _EF_SEARCH]]
    probes = [2**power for power in range(structure.num_lists.bit_length()) if 2**power < structure.num_lists]
    probes.append(structure.num_lists)
    if structure.kind == "ivf-flat":
        return [[{"nprobe": probe} for probe in probes]]
    return [[{"nprobe": probe, "oversampling": factor} for probe in probes] for factor in _OVERSAMPLING]


def _true_rows(index: Index, queries: FloatArray, own: RowArray | None, k: int) -> RowArray:
    found = index.snapshot.search_exact(queries, k + 1, release=True)
    return without_own(found.rows, own, k)


def _measure(
    index: Index,
    structure: AnnIndex,
    queries: FloatArray,
    own: RowArray | None,
    truth: RowArray,
    knobs: Knobs,
) -> TunePoint:
    k = truth.shape[1]
    mask = None if index.snapshot.alive is None else index.snapshot.present
    started = perf_counter()
    found = [
        some.rows for _, some in search_structure(index.snapshot, structure, queries, k + 1, knobs, mask=mask)
    ]
    seconds = perf_counter() - started
    rows = without_own(np.concatenate(found), own, k)
    return TunePoint(dict(knobs), recall_of(rows, truth), len(queries) / seconds)
