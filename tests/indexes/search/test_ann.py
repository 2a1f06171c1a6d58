"""HNSW, IVF and IVF-PQ: nearly what exact search finds, never what is deleted or filtered out, and tuned by measurement."""

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from embedkit.data.records import Document, Hit
from embedkit.errors import IndexFileError
from indexes import Index, Settings, build_ann, compact, stats, tune, verify
from indexes.candidates import Candidates
from indexes.storage.codes import FloatArray
from indexes.types import Kind, Metric, Storage

COUNT = 6_000
E = 32


@pytest.fixture(scope="module")
def vectors() -> FloatArray:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((120, E))
    return (centres[rng.integers(0, 120, COUNT)] + 0.6 * rng.standard_normal((COUNT, E))).astype(np.float32)


def make(folder: Path, vectors: FloatArray, metric: Metric = "cosine", storage: Storage = "float32") -> Index:
    index = Index.create(folder, Settings(dimension=E, metric=metric, storage=storage))
    docs = [Document(f"d{number:05d}", "", "", {"part": number % 100}) for number in range(len(vectors))]
    index.add(docs, vectors)
    return index


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, vectors: FloatArray) -> Callable[[Kind], Path]:
    """The index by cosine of all vectors with a structure of a kind, which is built once: for tests that change nothing in it."""

    @cache
    def built(kind: Kind) -> Path:
        folder = tmp_path_factory.mktemp("whole") / "i"
        with make(folder, vectors) as index:
            list(build_ann(index, kind))
        return folder

    return built


def recall(index: Index, queries: FloatArray, **options: object) -> float:
    found = index.search(queries, k=10, **options)  # type: ignore[arg-type]  # tests give the right ones
    truth = index.search(queries, k=10, exact=True, **options)  # type: ignore[arg-type]  # the same
    assert all(len(a) == len(b) for a, b in zip(found, truth, strict=True))
    return overlap(found, truth)


def overlap(found: list[list[Hit]], truth: list[list[Hit]]) -> float:
    shares = [
        len({h.doc_id for h in a} & {h.doc_id for h in b}) / len(b) for a, b in zip(found, truth, strict=True)
    ]
    return float(np.mean(shares))


@pytest.mark.parametrize(
    ("kind", "metric", "storage"),
    [
        ("hnsw", "cosine", "float32"),
        pytest.param("ivf-flat", "cosine", "int8", marks=pytest.mark.slow),
        pytest.param("ivf-pq", "cosine", "float16", marks=pytest.mark.slow),
        pytest.param("hnsw", "l2", "int8", marks=pytest.mark.slow),
        ("ivf-flat", "l2", "float32"),
        ("ivf-pq", "dot", "float32"),
    ],
)
def test_each_kind_finds_what_exact_search_finds_whatever_is_deleted_filtered_or_new(
    tmp_path: Path, vectors: FloatArray, kind: Kind, metric: Metric, storage: Storage
) -> None:
    queries = vectors[:40] + 0.1
    with make(tmp_path / "i", vectors, metric, storage) as index:
        reports = list(build_ann(index, kind))
        assert (reports[-1].rows_done, reports[-1].rows_total) == (COUNT, COUNT)
        assert recall(index, queries) > 0.9
        assert recall(index, queries, where="part < 50") > 0.85  # through a selector
        assert recall(index, queries, where="part = 7") == 1  # few rows: exactly
        gone = [f"d{number:05d}" for number in range(0, COUNT, 2)]
        index.delete(gone)
        found = index.search(queries, k=10)
        assert not {hit.doc_id for hits in found for hit in hits} & set(gone)
        assert recall(index, queries) > 0.85
        new = [Document(f"new{number}", "") for number in range(40)]
        index.add(new, queries)
        if (
            metric != "dot"
        ):  # the nearest to itself, to int8's precision, though the structure does not know it
            found = index.search(queries, k=2)
            assert all(
                doc.doc_id in {hit.doc_id for hit in hits} for doc, hits in zip(new, found, strict=True)
            )
        list(compact(index))  # the structure still holds what is gone from the segments
        assert recall(index, queries) > 0.85
        assert not {hit.doc_id for hits in index.search(queries, k=10) for hit in hits} & set(gone)
    assert list(verify(tmp_path / "i")) == []


def test_a_batch_of_many_blocks_gives_each_query_its_own_hits(tmp_path: Path, vectors: FloatArray) -> None:
    queries = vectors[:300] + 0.1
    with make(tmp_path / "i", vectors) as index:
        list(build_ann(index, "ivf-flat"))
        index.delete([f"d{number:05d}" for number in range(0, 300, 2)])
        index.add([Document(f"new{number}", "") for number in range(5)], queries[:5])
        together = index.search(queries, k=5)
        assert [
            hits for start in (0, 100, 200) for hits in index.search(queries[start : start + 100], k=5)
        ] == together
        assert index.search_ids(queries, k=5) == [[(h.doc_id, h.score) for h in hits] for hits in together]


@pytest.mark.parametrize("metric", ["dot", "l2"])
def test_a_shortlist_keeps_the_best_of_many_candidates_by_the_stored_vectors(
    tmp_path: Path, vectors: FloatArray, metric: Metric
) -> None:
    """Rows 1 to 200 lie in two segments; of 60 candidates a query, some of them -1, the best k + 8 stay."""
    rng = np.random.default_rng(4)
    queries = vectors[500:505]
    rows = np.stack([rng.permutation(200)[:60] + 1 for _ in queries])
    rows[:, 5:9] = -1
    with make(tmp_path / "i", vectors[:120], metric) as index:
        index.add([Document(f"new{number}", "") for number in range(80)], vectors[120:200])
        assert len(index.snapshot.segments) == 2
        found = index.snapshot.shortlist(queries, Candidates(np.zeros(rows.shape, np.float32), rows), 10)
    assert found.rows.shape == (5, 18)
    for query, given, kept in zip(queries, rows, found.rows, strict=True):
        real = given[given > 0]
        stored = vectors[real - 1]
        scores = stored @ query if metric == "dot" else -((stored - query) ** 2).sum(axis=1)
        assert set(kept.tolist()) == set(real[np.argsort(-scores)][:18].tolist())


def test_a_search_that_meets_too_few_rows_gives_the_exact_answer(
    whole: Callable[[Kind], Path], vectors: FloatArray
) -> None:
    with Index.open(whole("ivf-flat")) as index:
        few = index.search(vectors[:5], k=2000, knobs={"nprobe": 1})
        assert [len(hits) for hits in few] == [2000] * 5
        assert few == index.search(vectors[:5], k=2000, exact=True)


def test_scores_are_those_of_exact_search(whole: Callable[[Kind], Path], vectors: FloatArray) -> None:
    with Index.open(whole("ivf-pq")) as index:
        exact = {hit.doc_id: hit.score for hit in index.search(vectors[:1], k=500, exact=True)[0]}
        found = index.search(vectors[:1], k=10)[0]
        assert {hit.doc_id: hit.score for hit in found}.items() <= exact.items()


@pytest.mark.parametrize("kind", ["hnsw", "ivf-flat", "ivf-pq"])
def test_tune_stores_the_curve_and_a_setting_that_reaches_the_target(
    whole: Callable[[Kind], Path], tmp_path: Path, vectors: FloatArray, kind: Kind
) -> None:
    shutil.copytree(whole(kind), tmp_path / "i")
    with Index.open(tmp_path / "i", writable=True) as index:
        *_, report = tune(index, target_recall=0.95, num_queries=60)
        assert report.reached
        assert report.chosen is not None
        assert report.chosen.recall >= 0.95
        told = stats(index)
        assert told.kind == kind
        assert told.knobs == report.chosen.knobs
        assert told.target_recall == 0.95
        assert [point["recall"] for point in told.curve] == [point.recall for point in report.curve]
    with Index.open(tmp_path / "i") as index:  # search uses it
        rng = np.random.default_rng(5)
        queries = vectors[rng.integers(0, COUNT, 100)] + 0.2 * rng.standard_normal((100, E)).astype(
            np.float32
        )
        assert recall(index, queries) > 0.9


def test_tune_measures_given_queries_and_says_when_the_target_is_out_of_reach(
    whole: Callable[[Kind], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(whole("hnsw"), tmp_path / "i")
    with Index.open(tmp_path / "i", writable=True) as index:
        monkeypatch.setattr("indexes.maintenance.tune._EF_SEARCH", (4,))
        *_, report = tune(
            index,
            target_recall=1.0,
            queries=np.random.default_rng(1).standard_normal((50, E)).astype(np.float32),
        )
        assert not report.reached
        assert report.chosen == report.curve[0]
        assert len(next(iter(tune(index))).curve) == 1


def test_there_is_nothing_to_tune_or_build_without_a_structure_or_vectors(
    tmp_path: Path, vectors: FloatArray
) -> None:
    with Index.create(tmp_path / "i", Settings(dimension=E)) as index:
        with pytest.raises(IndexFileError, match="no vectors to build hnsw over"):
            build_ann(index, "hnsw")
        with pytest.raises(
            ValueError, match="kind is 'tree'; it must be one of flat, hnsw, ivf-flat, ivf-pq"
        ):
            build_ann(index, "tree")  # type: ignore[arg-type]  # what a typing error looks like
        index.add([Document("a", "")], vectors[:1])
        with pytest.raises(IndexFileError, match="searched exactly, so there is nothing to tune"):
            tune(index)
        list(build_ann(index, "ivf-pq"))
        assert index.search(vectors[:1])[0][0].doc_id == "a"
        with pytest.raises(IndexFileError, match="1 vectors; recall@10 needs more than 10"):
            tune(index)
        with pytest.raises(ValueError, match=r"target_recall is 1\.5"):
            tune(index, target_recall=1.5)
        list(build_ann(index, "flat"))
        assert stats(index).kind == "flat"
        assert not list(index.path.glob("ann-*"))
