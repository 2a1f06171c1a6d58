"""Pairs, near-duplicates and clusters against the full similarity matrix, which only a test may build."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.errors import IndexMismatchError
from indexes import Pair, cluster, duplicates, similar_pairs
from indexes.storage.codes import FloatArray


def blobs(sizes: list[int], noise: float, seed: int = 0) -> tuple[FloatArray, list[int]]:
    rng = np.random.default_rng(seed)
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    centres = np.linalg.qr(rng.standard_normal((24, len(sizes))))[0].T
    vectors = centres[labels] + noise * rng.standard_normal((len(labels), 24))
    order = rng.permutation(len(labels))
    return vectors[order].astype(np.float32), [labels[at] for at in order]


def every_pair(vectors: FloatArray) -> list[Pair]:
    doubles = vectors.astype(np.float64)
    unit = (doubles / np.linalg.norm(doubles, axis=1, keepdims=True)).astype(np.float32).astype(np.float64)
    scores = unit @ unit.T
    pairs = [
        Pair(i, j, float(np.float32(scores[i, j]))) for i in range(len(unit)) for j in range(i + 1, len(unit))
    ]
    return sorted(pairs, key=lambda pair: (-pair.score, pair.first, pair.second))


def assert_same_pairs(found: list[Pair], wanted: list[Pair]) -> None:
    assert [(pair.first, pair.second) for pair in found] == [(pair.first, pair.second) for pair in wanted]
    np.testing.assert_allclose([pair.score for pair in found], [pair.score for pair in wanted], rtol=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(st.lists(st.sampled_from([1.0, -1.0]), min_size=4, max_size=4), min_size=1, max_size=40),
    k=st.integers(1, 30),
    block=st.integers(2, 9),
)
def test_the_most_similar_pairs_are_those_of_the_full_matrix(
    rows: list[list[float]], k: int, block: int
) -> None:
    """Signs in 4 dimensions: norms of exactly 2, cosines in quarters, and many ties."""
    vectors = np.asarray(rows, np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("indexes.maintenance.pairs._BLOCK", block)
        assert_same_pairs(similar_pairs(vectors, k=k), every_pair(vectors)[:k])


def test_pairs_over_many_blocks_are_those_of_the_full_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexes.maintenance.pairs._BLOCK", 64)
    vectors = np.random.default_rng(0).standard_normal((300, 16)).astype(np.float32)
    wanted = every_pair(vectors)
    assert_same_pairs(similar_pairs(vectors, k=50), wanted[:50])
    assert_same_pairs(similar_pairs(vectors, k=10**6, min_score=0.5), [p for p in wanted if p.score >= 0.5])


@pytest.mark.parametrize("block", [7, 1024])
def test_every_duplicate_is_near_one_that_stays_and_those_that_stay_are_apart(
    monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr("indexes.maintenance.pairs._BLOCK", block)
    vectors, labels = blobs([5, 4, 3, 1, 1], 0.01)
    found = duplicates(vectors, threshold=0.9)
    assert len(found) == 4 + 3 + 2
    gone = {pair.second for pair in found}
    assert all(labels[pair.first] == labels[pair.second] and pair.first < pair.second for pair in found)
    assert not gone & {pair.first for pair in found}
    staying = [at for at in range(len(labels)) if at not in gone]
    assert sorted(labels[at] for at in staying) == [0, 1, 2, 3, 4]


def test_identical_texts_leave_the_first_of_them() -> None:
    found = duplicates(np.ones((2500, 4), np.float32))
    assert {pair.first for pair in found} == {0}
    assert [pair.second for pair in found] == list(range(1, 2500))


@pytest.mark.parametrize("options", [{"num_clusters": 4}, {"threshold": 0.7, "min_size": 3}])
def test_clusters_are_the_groups_that_were_made(options: dict[str, float]) -> None:
    vectors, labels = blobs([30, 20, 10, 5], 0.05)
    found = cluster(vectors, **options)  # type: ignore[arg-type]  # ints and floats as they belong
    assert [len(group.members) for group in found] == [30, 20, 10, 5]
    for group in found:
        assert len({labels[at] for at in group.members}) == 1


def test_communities_leave_out_what_belongs_nowhere() -> None:
    vectors, labels = blobs([10, 6, 2, 1], 0.05)
    found = cluster(vectors, threshold=0.7, min_size=5)
    assert [{labels[at] for at in group.members} for group in found] == [{0}, {1}]


def test_one_text_has_no_pairs_and_bad_options_are_refused() -> None:
    one = np.ones((1, 4), np.float32)
    assert similar_pairs(one) == []
    assert duplicates(one) == []
    with pytest.raises(ValueError, match="k is 0"):
        similar_pairs(one, k=0)
    with pytest.raises(ValueError, match=r"threshold is 2\.0; a cosine is between -1 and 1"):
        duplicates(one, threshold=2.0)
    with pytest.raises(ValueError, match="num_clusters is 3; with 1 texts it must be 1 to 1"):
        cluster(one, num_clusters=3)
    with pytest.raises(ValueError, match="min_size is 0"):
        cluster(one, min_size=0)
    with pytest.raises(IndexMismatchError, match=r"the vector of text 2 .* is all zeros"):
        similar_pairs(np.stack([np.ones(3), np.zeros(3)]).astype(np.float32))
