"""A linear map learned from hybrid search: what words find comes nearer, a query's own document does not count, the rest stays as it was."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from embedkit.errors import TrainingError
from embedkit.training import hybrid_ranking
from embedkit.training.hybrid_ranking import AskedPassages, learn_hybrid_ranking, most_steps
from embedkit.training.whitening import LinearMap

COUNT, WIDTH = 60, 24
START = LinearMap(np.eye(WIDTH))


def asked() -> AskedPassages:
    """Passages of random vectors; the words of query i find passage i alone, of which its vector knows little."""
    rng = np.random.default_rng(0)
    passages = rng.normal(size=(COUNT, WIDTH)).astype(np.float32) * 7
    noise = rng.normal(size=(COUNT, WIDTH)).astype(np.float32) * 20
    return AskedPassages(
        queries=passages + noise,
        passages=passages,
        query_documents=np.arange(COUNT) + COUNT,
        passage_documents=np.arange(COUNT),
        hits=np.stack([np.arange(COUNT), np.full(COUNT, -1)], axis=1),
        scores=np.stack([np.full(COUNT, 9.0), np.zeros(COUNT)], axis=1).astype(np.float32),
    )


@pytest.fixture(autouse=True)
def read_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few queries would be read ten times in three steps."""
    monkeypatch.setattr(hybrid_ranking, "EPOCHS", 1000)


def learned(given: AskedPassages, steps: int = 60, start: LinearMap = START, seed: int = 0) -> LinearMap:
    return list(learn_hybrid_ranking(start, given, steps=steps, seed=seed))[-1]


def cosines(linear: LinearMap, given: AskedPassages) -> np.ndarray:
    mapped = [
        each @ linear.weight.T + (0 if linear.bias is None else linear.bias)
        for each in (given.queries, given.passages)
    ]
    one, other = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in mapped)
    found: np.ndarray = one @ other.T
    return found


def mean_rank(linear: LinearMap, given: AskedPassages) -> float:
    """Return the mean rank, from 1, of passage i for query i."""
    found = cosines(linear, given)
    return float((found >= np.diag(found)[:, None]).sum(axis=1).mean())


def test_what_words_find_comes_nearer() -> None:
    given = asked()
    before, after = mean_rank(START, given), mean_rank(learned(given), given)
    assert after < 0.8 * before
    # Of words that find other passages the same steps make nothing of the kind.
    astray = replace(given, hits=np.roll(given.hits, 1, axis=0))
    assert mean_rank(learned(astray), given) > 0.9 * before


def test_passages_of_a_query_s_own_document_do_not_count() -> None:
    given = asked()
    own = replace(given, query_documents=np.arange(COUNT))
    assert mean_rank(learned(own), given) > 0.9 * mean_rank(START, given)


def test_one_step_by_hand() -> None:
    """Two passages at right angles, a query midway: cosines say nothing, words find the first, so its cosine rises.

    Teacher: cosines all alike count 0, BM25 of 3 and 0 counts +1 and -1, the mean ±1/2, over 1/2: softmax (e, 1/e) = (.88, .12). Student:
    equal cosines, (.5, .5). Adam's first step moves each weight by the rate, in the direction that the gradient has.
    """
    given = AskedPassages(
        queries=np.array([[1, 1]], np.float32),
        passages=np.eye(2, dtype=np.float32),
        query_documents=np.array([9]),
        passage_documents=np.array([0, 1]),
        hits=np.array([[0]]),
        scores=np.array([[3]], np.float32),
    )
    found = learned(given, steps=1, start=LinearMap(np.eye(2)))
    rate = 3e-3 * float(np.std(np.eye(2), ddof=1))
    moved = found.weight - np.eye(2)
    assert np.abs(moved).max() == pytest.approx(rate, rel=1e-2)
    before, after = (cosines(each, given)[0] for each in (LinearMap(np.eye(2)), found))
    assert before[0] == pytest.approx(before[1])
    assert after[0] > after[1]


def test_few_queries_are_not_learned_by_heart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hybrid_ranking, "EPOCHS", 10)
    assert [most_steps(100, queries) for queries in (1, 60, 256, 5000)] == [1, 3, 10, 100]
    assert len(list(learn_hybrid_ranking(START, asked(), steps=60, seed=0))) == 3


def test_at_a_slower_pace_the_map_moves_less() -> None:
    slow, fast = (
        list(learn_hybrid_ranking(START, asked(), steps=5, seed=0, pace=pace))[-1] for pace in (0.25, 1.0)
    )
    moved = [np.abs(each.weight - START.weight).mean() for each in (slow, fast)]
    assert 0.15 * moved[1] < moved[0] < 0.4 * moved[1]


def test_the_scale_of_vectors_changes_nothing() -> None:
    given = asked()
    large = replace(given, queries=given.queries * 100, passages=given.passages * 100)
    small, other = learned(given, steps=5), learned(large, steps=5)
    np.testing.assert_allclose(other.weight, small.weight, atol=1e-5)
    assert small.bias is not None
    assert other.bias is not None
    np.testing.assert_allclose(other.bias, small.bias * 100, atol=1e-2)


def test_the_same_seed_gives_the_same_map() -> None:
    given = asked()
    one, other, third = (learned(given, steps=3, seed=seed).weight for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, other)
    assert (one != third).any()


def test_vectors_that_are_not_finite_are_refused() -> None:
    given = asked()
    given.passages[3, 4] = np.nan
    with pytest.raises(TrainingError, match=r"not finite: the model's vectors are not\. Leave it out"):
        learned(given)
