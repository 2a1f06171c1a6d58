"""One score out of several: by values and by ranks."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.data.records import Hit
from embedkit.retrieval.fusion import Ranking, fuse, min_max
from embedkit.retrieval.options import Fusion


def hit(doc_id: str, score: float, *, passage: int = 0, part: str = "dense") -> Hit:
    return Hit(doc_id, score, "", passage=passage, scores={part: score})


DENSE = [hit("a", 0.9), hit("b", 0.8), hit("c", 0.7)]
TEXT = [hit("b", 7.0, part="text"), hit("d", 6.0, part="text"), hit("a", 4.0, part="text")]


def test_scaled_scores_are_averaged() -> None:
    """Dense: a 1, b 1/2, c 0. Text: b 1, d 2/3, a 0. Means: b 3/4, a 1/2, d 1/3, c 0."""
    fused = fuse([Ranking(DENSE, 1.0), Ranking(TEXT, 1.0)])
    assert [h.doc_id for h in fused] == ["b", "a", "d", "c"]
    np.testing.assert_allclose([h.score for h in fused], [3 / 4, 1 / 2, 1 / 3, 0])
    assert fused[0].scores == {"dense": 0.8, "text": 7.0}


def test_scores_are_scaled_between_what_counts_as_nothing_and_what_can_be_reached() -> None:
    """Dense from 0 to 1, text from 0 to 20: a (.9 + .2) / 2, b (.8 + .35) / 2, c .7 / 2, d .3 / 2."""
    fused = fuse([Ranking(DENSE, low=0.0, high=1.0), Ranking(TEXT, low=0.0, high=20.0)])
    assert [(h.doc_id, round(h.score, 6)) for h in fused] == [
        ("b", 0.575),
        ("a", 0.55),
        ("c", 0.35),
        ("d", 0.15),
    ]


def test_reciprocal_ranks_are_added() -> None:
    """a: 1/61 + 1/63, b: 1/62 + 1/61, c: 1/63, d: 1/62."""
    fused = fuse([Ranking(DENSE, 1.0), Ranking(TEXT, 1.0)], by="ranks")
    assert [h.doc_id for h in fused] == ["b", "a", "d", "c"]
    np.testing.assert_allclose([h.score for h in fused], [1 / 62 + 1 / 61, 1 / 61 + 1 / 63, 1 / 62, 1 / 63])


def test_what_one_side_is_sure_of_is_not_outvoted() -> None:
    """z is far ahead by words and unknown by meaning; w is second in both by a hair. Ranks see no difference in distance."""
    words = [hit("z", 30.0), hit("w", 10.0), hit("v", 9.0)]
    meaning = [hit("u", 0.50), hit("w", 0.20), hit("t", 0.10)]
    assert fuse([Ranking(meaning, 1.0), Ranking(words, 1.0)])[0].doc_id in {"u", "z"}
    assert fuse([Ranking(meaning, 1.0), Ranking(words, 1.0)], by="ranks")[0].doc_id == "w"


@pytest.mark.parametrize("by", ["scores", "ranks"])
def test_a_weight_of_zero_takes_a_side_out(by: Fusion) -> None:
    assert [h.doc_id for h in fuse([Ranking(DENSE, 1.0), Ranking(TEXT, 0.0)], by=by)] == ["a", "b", "c"]
    assert [h.doc_id for h in fuse([Ranking(DENSE, 0.1), Ranking(TEXT, 10.0)], by=by)][:2] == ["b", "d"]


@pytest.mark.parametrize("by", ["scores", "ranks"])
def test_equal_scores_come_in_the_order_of_id_and_passage(by: Fusion) -> None:
    fused = fuse(
        [Ranking([hit("z", 1), hit("m", 0.5)]), Ranking([hit("a", 1), hit("m", 0.5, passage=1)])], by=by
    )
    assert [(h.doc_id, h.passage) for h in fused] == [("a", 0), ("z", 0), ("m", 0), ("m", 1)]


def test_the_best_of_each_document_and_no_more_than_wanted() -> None:
    lists = [Ranking([hit("a", 3), hit("a", 2, passage=1), hit("b", 1), hit("c", 0)])]
    whole = fuse(lists)
    assert [(h.doc_id, h.passage) for h in whole] == [("a", 0), ("a", 1), ("b", 0), ("c", 0)]
    assert fuse(lists, k=2) == whole[:2]
    assert fuse(lists, k=2, group=True) == [whole[0], whole[2]]


def test_a_list_may_have_scores_of_its_own() -> None:
    """What the list says of b counts, 1 of 2, and not the score of the hit."""
    (first, second) = fuse([Ranking([hit("a", 9), hit("b", 8)], low=0.0, high=2.0, scores=[0.5, 1.0])])
    assert [(h.doc_id, h.score) for h in (first, second)] == [("b", 0.5), ("a", 0.25)]


def test_a_hit_with_another_score_keeps_its_kind_and_all_else() -> None:
    @dataclass(frozen=True, slots=True)
    class Placed(Hit):
        shard: int = 0

    one = Placed("a", 1.0, "text", "title", {"x": 1}, 2, {"dense": 1.0}, "file", 3, 4, None, shard=7)
    assert one.scored(0.5, {"text": 9.0}) == replace(one, score=0.5, scores={"text": 9.0})


def test_lists_without_hits_and_with_equal_ones() -> None:
    assert fuse([Ranking([], 1.0), Ranking([], 1.0)]) == []
    assert [h.score for h in fuse([Ranking([hit("a", 0.3)]), Ranking([])])] == [0.5]
    np.testing.assert_array_equal(min_max([2.0, 2.0]), [1.0, 1.0])


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20))
def test_scaling_keeps_the_order_and_the_range(scores: list[float]) -> None:
    scaled = min_max(scores)
    assert scaled.min() >= 0
    assert scaled.max() == 1
    order = np.argsort(scores, kind="stable")
    assert (np.diff(scaled[order]) >= 0).all()
