"""Sparse search: pruned, exhaustive and without the kernel it finds the same; what is stored decides every score."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import indexes.sparse.lists
import indexes.sparse.search
from embedkit.errors import IndexFileError, IndexMismatchError
from embedkit.retrieval.sparse_vectors import SparseVectors
from indexes import Index, compact, repair, verify
from indexes.sparse.rows import SparseRows
from tests.indexes.sparse.made_up import DIMENSION, make_documents, make_index, make_vectors, settings

Found = list[list[tuple[str, float]]]


def expected(vectors: SparseVectors, queries: SparseVectors, k: int, ids: list[str]) -> Found:
    """Score everything as it is stored, in double precision; ties by id."""
    stored = SparseRows.of(vectors)
    results = []
    for query in queries.to_dense():
        scores = stored.scores(query)
        ranked = sorted(zip(ids, scores.tolist(), strict=True), key=lambda pair: (-pair[1], pair[0]))
        results.append([pair for pair in ranked if pair[1] > 0][:k])
    return results


def check(found: Found, wanted: Found) -> None:
    for mine, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose([score for _, score in mine], [score for _, score in theirs], rtol=1e-6)
        assert [doc_id for doc_id, _ in mine] == [doc_id for doc_id, _ in theirs]


def test_a_worked_example(tmp_path: Path) -> None:
    """The largest weight of a row, 51, is code 255, so a step is 0.2: 1.07 is stored as 5 steps, which are 1. 0.09 is less than half a step."""
    terms, weights = np.array([1, 3, 4, 4], np.int32), np.array([51, 0.09, 1.07, 3], np.float32)
    vectors = SparseVectors(np.array([0, 3, 4]), terms, weights, 5)
    with Index.create(tmp_path / "index", settings(5)) as index:
        index.add(make_documents(2), vectors)
        query = SparseVectors(
            np.array([0, 3]), np.array([1, 3, 4], np.int32), np.array([1, 9, 0.5], np.float32), 5
        )
        (found,) = index.search_ids(query, k=5)
    assert found == [("d0", pytest.approx(51.5, rel=1e-6)), ("d1", 1.5)]


@pytest.mark.parametrize("k", [1, 10, 5000])
@pytest.mark.parametrize("kernel", [True, False])
def test_all_ways_find_the_same(
    k: int, kernel: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kernel:
        monkeypatch.setattr(indexes.sparse.search, "can_search_postings", lambda: False)
    for module in (
        indexes.sparse.lists,
        indexes.sparse.payload,
        indexes.sparse.segment,
        indexes.sparse.segment_file,
    ):
        monkeypatch.setattr(module, "BLOCK_ROWS", 256)  # so that there are several
    vectors, queries = make_vectors(3000), make_vectors(20, seed=1, terms=8)
    ids = [f"d{number}" for number in range(3000)]
    with make_index(tmp_path / "index", vectors) as index:
        wanted = expected(vectors, queries, k, ids)
        pruned = index.search_ids(queries, k=k)
        check(pruned, wanted)
        assert index.search_ids(queries, k=k, exact=True) == pruned


def test_ties_come_by_id_however_many(tmp_path: Path) -> None:
    one = SparseVectors(np.array([0, 1]), np.array([3], np.int32), np.array([1.0], np.float32), DIMENSION)
    vectors = one.take([0] * 3000)
    with make_index(tmp_path / "index", vectors) as index:
        (found,) = index.search_ids(one, k=3)
    assert found == [("d0", 1.0), ("d1", 1.0), ("d10", 1.0)]


def test_filters_deletions_commits_and_compaction_change_no_score(tmp_path: Path) -> None:
    vectors, queries = make_vectors(900), make_vectors(10, seed=1, terms=8)
    ids = [f"d{number}" for number in range(900)]
    with Index.create(tmp_path / "index", settings()) as index:
        for first in range(0, 900, 30):  # more than are kept apart
            index.add(make_documents(30, first=first), vectors.take(range(first, first + 30)))
        check(index.search_ids(queries, k=10), expected(vectors, queries, 10, ids))
        gone = ids[::3]
        index.delete(gone)
        left = [number for number in range(900) if number % 3]
        wanted = expected(vectors.take(left), queries, 10, [ids[number] for number in left])
        check(index.search_ids(queries, k=10), wanted)
        before = index.search_ids(queries, k=10, where="part = 2")
        part = [number for number in left if number % 7 == 2]
        check(before, expected(vectors.take(part), queries, 10, [ids[number] for number in part]))
        list(compact(index))
        assert index.search_ids(queries, k=10, where="part = 2") == before
        check(index.search_ids(queries, k=10), wanted)
        with Index.open(tmp_path / "index") as reader:
            index.delete([wanted[0][0][0]])
            check(reader.search_ids(queries, k=10), wanted)  # its snapshot
            reader.refresh()
            assert reader.search_ids(queries, k=1)[0][0] == wanted[0][1]
    assert not list(verify(tmp_path / "index"))


def test_a_knob_finds_most_of_it(tmp_path: Path) -> None:
    vectors, queries = make_vectors(3000), make_vectors(50, seed=1, terms=8)
    with make_index(tmp_path / "index", vectors) as index:
        exact = index.search_ids(queries, k=10)
        found = index.search_ids(queries, k=10, knobs={"overshoot": 20})
        with pytest.raises(IndexMismatchError, match="a sparse index has one, overshoot"):
            index.search_ids(queries, k=10, knobs={"nprobe": 3})
    shares = [len({*mine} & {*theirs}) / len(theirs) for mine, theirs in zip(found, exact, strict=True)]
    assert np.mean(shares) > 0.9


def test_cosines_are_at_most_1(tmp_path: Path) -> None:
    vectors = make_vectors(200)
    with Index.create(tmp_path / "index", settings(metric="cosine")) as index:
        index.add(make_documents(200), vectors)
        found = index.search_ids(vectors, k=1)
    assert [hits[0][0] for hits in found] == [f"d{number}" for number in range(200)]
    np.testing.assert_allclose([hits[0][1] for hits in found], 1.0, atol=2e-3)


def test_hits_hold_their_documents(tmp_path: Path) -> None:
    vectors = make_vectors(50)
    with make_index(tmp_path / "index", vectors) as index:
        (hits,) = index.search(vectors.take([7]), k=50)
        assert {hit.doc_id: hit.text for hit in hits}["d7"] == "text number 7"
        assert index.search(SparseVectors.from_dense(np.zeros((1, DIMENSION), np.float32)), k=3) == [[]]


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    vectors = make_vectors(3)
    with make_index(tmp_path / "index", vectors) as index:
        with pytest.raises(
            IndexMismatchError, match=r"an array of shape \(1, 300\) was given; this index holds weights"
        ):
            index.search(np.ones((1, DIMENSION), np.float32))
        with pytest.raises(IndexMismatchError, match="1 sparse vectors of 200 dimensions were given"):
            index.search(make_vectors(1, dimension=200, terms=4))
        bad = SparseVectors(
            np.array([0, 1]), np.array([3], np.int32), np.array([-1.0], np.float32), DIMENSION
        )
        with pytest.raises(
            IndexMismatchError, match=r"term 3 of 'd0' weighs -1.0; an index takes finite weights above 0"
        ):
            index.add(make_documents(1), bad)
    with (
        Index.create(tmp_path / "dense", settings(kind="dense")) as dense,
        pytest.raises(IndexMismatchError, match="SparseVectors were given"),
    ):
        dense.search(vectors)
    with pytest.raises(ValueError, match="compared by dot or cosine; the metric l2"):
        settings(metric="l2")


@pytest.mark.parametrize(
    "part", ["terms", "codes", "places", "list codes", "list terms", "list starts", "list largest"]
)
def test_damage_is_refused_named_and_repaired(part: str, tmp_path: Path) -> None:
    vectors, queries = make_vectors(500), make_vectors(5, seed=1)
    with make_index(tmp_path / "index", vectors) as index:
        segment = index.snapshot.segments[0]
        at = segment._layout.offsets()[part][0] + 5  # type: ignore[attr-defined]  # a sparse one
        wanted = index.search_ids(queries, k=5)
    content = bytearray(segment.path.read_bytes())
    content[at] ^= 1
    segment.path.write_bytes(content)
    with (
        Index.open(tmp_path / "index") as index,
        pytest.raises(IndexFileError, match="does not match: bytes were changed"),
    ):
        index.search(queries)
    findings = list(verify(tmp_path / "index"))
    of_rows = part in ("terms", "codes")
    assert ("64 vectors from row 1 on" if of_rows else "lists of its rows by term") in findings[0].problem
    list(repair(tmp_path / "index"))
    assert not list(verify(tmp_path / "index"))
    with Index.open(tmp_path / "index") as index:
        assert len(index) == (436 if of_rows else 500)
        if not of_rows:
            assert index.search_ids(queries, k=5) == wanted


def test_a_large_vocabulary_takes_wider_numbers(tmp_path: Path) -> None:
    dense = np.zeros((3, 70_000), np.float32)
    dense[0, 69_999], dense[1, 65_536], dense[2, 0] = 1, 2, 3
    vectors = SparseVectors.from_dense(dense)
    with make_index(tmp_path / "index", vectors) as index:
        assert [hits[0][0] for hits in index.search_ids(vectors, k=3)] == ["d0", "d1", "d2"]
        assert all(len(hits) == 1 for hits in index.search_ids(vectors, k=3))
