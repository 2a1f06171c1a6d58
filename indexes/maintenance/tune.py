"""Measuring an ANN structure against exact search, and choosing how hard it shall look."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from embedkit.errors import IndexFileError

from ..search.ann_file import AnnFile
from ..search.search import search_structure
from ..storage.codes import FloatArray, RowArray
from ..storage.commit import prepare_vectors
from .ann_build import sample_vectors

if TYPE_CHECKING:
    from ..search.ann import AnnIndex, Knobs
    from ..store import Index

_EF_SEARCH = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
_OVERSAMPLING = (5, 10, 20, 50, 100)
# More effort than this recall buys nothing.
_ENOUGH = 0.9995


@dataclass(frozen=True)
class TunePoint:
    """One setting, measured. `queries_per_second` is of one batch with all processors."""

    knobs: Mapping[str, int]
    recall: float
    queries_per_second: float


@dataclass(frozen=True)
class TuneReport:
    """The points measured so far; the last report names the one chosen, and whether it reaches the target."""

    curve: tuple[TunePoint, ...]
    chosen: TunePoint | None = None
    reached: bool = False


def tune(
    index: Index,
    *,
    target_recall: float = 0.95,
    k: int = 10,
    queries: FloatArray | None = None,
    num_queries: int = 200,
    seed: int = 0,
) -> Iterator[TuneReport]:
    """Measure recall@k over the knobs of the ANN structure and store the fastest setting that reaches the target.

    Without `queries` (Q, E), stored vectors stand in for them, and a query's own row counts for nothing. Where no setting
    reaches the target, that with the highest recall is stored.

    Raises:
        IndexFileError: the index has no ANN structure, or too few vectors to measure anything.
    """
    index.need_writer()
    if not 0 < target_recall <= 1:
        raise ValueError(f"target_recall is {target_recall}; it must be above 0 and at most 1")
    if index.ann is None:
        raise IndexFileError(
            f"{index.path}: the index is searched exactly, so there is nothing to tune. "
            f"Build a structure with: embedkit index build INPUT --index {index.path} --kind hnsw"
        )
    if index.snapshot.num_rows <= k:
        raise IndexFileError(
            f"{index.path}: {index.snapshot.num_rows} vectors; recall@{k} needs more than {k}. Add documents first"
        )
    if queries is not None:
        names = [f"query {number}" for number in range(1, len(queries) + 1)]
        queries = prepare_vectors(queries, index.settings, names)
    return _tune(index, index.ann, target_recall, k, queries, num_queries, seed)


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
            if curve[-1].recall >= _ENOUGH:
                break
    reaching = [point for point in curve if point.recall >= target]
    if reaching:
        chosen = max(reaching, key=lambda point: point.queries_per_second)
    else:
        chosen = max(curve, key=lambda point: point.recall)
    points = [{**vars(point), "knobs": dict(point.knobs)} for point in curve]
    with index.database.transaction():
        index.database.set_ann(
            replace(ann.info, knobs=dict(chosen.knobs), target_recall=target, curve=points)
        )
    index.refresh()
    yield TuneReport(tuple(curve), chosen, bool(reaching))


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
    return _without_own(found.rows, own, k)


def _without_own(rows: RowArray, own: RowArray | None, k: int) -> RowArray:
    """Take each query's own row out and keep the first k of the rest, as (Q, k)."""
    if own is None:
        return rows[:, :k]
    order = np.argsort(rows == own[:, None], axis=1, kind="stable")  # its own row goes to the end
    return np.take_along_axis(rows, order, axis=1)[:, :k]


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
    rows = _without_own(np.concatenate(found), own, k)
    hits = [len(np.intersect1d(a, b)) for a, b in zip(rows, truth, strict=True)]
    return TunePoint(dict(knobs), float(np.mean(hits)) / k, len(queries) / seconds)
