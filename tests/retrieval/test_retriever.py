"""Retriever: what comes from which side, how it is fused, grouped, reranked and cut."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from embedkit.data.records import Hit
from embedkit.retrieval.options import Fusion, SearchOptions
from embedkit.retrieval.reranker import Reranker
from embedkit.retrieval.retriever import Retriever

Embeddings = npt.NDArray[np.float32]


def first_of_each_document(hits: Sequence[Hit]) -> list[Hit]:
    best: dict[str, Hit] = {}
    for hit in hits:
        best.setdefault(hit.doc_id, hit)
    return list(best.values())


class ListedIndex:
    """An index that answers with lists made beforehand, and remembers what it was asked."""

    def __init__(
        self,
        dense: Sequence[Hit],
        text: Sequence[Hit],
        limit: float | None = 1.0,
        cosines: Mapping[str, float] | None = None,
    ) -> None:
        """`cosines` are those of the hits by words."""
        self.cosines = {hit.doc_id: 0.0 for hit in text} | {hit.doc_id: hit.score for hit in dense}
        self.cosines |= cosines or {}
        self.dense, self.text, self.limit = list(dense), list(text), limit
        self.asked: list[tuple[str, int, str | None, bool]] = []
        self.filled: list[int] = []

    def search(
        self, queries: Embeddings, *, k: int, where: str | None, group: bool, bare: bool
    ) -> list[list[Hit]]:
        self.asked.append(("dense", k, where, group))
        hits = first_of_each_document(self.dense) if group else self.dense
        return [self._shown(hits[:k], bare=bare) for _ in queries]

    def search_ids(
        self, queries: Embeddings, *, k: int, where: str | None, group: bool
    ) -> list[list[tuple[str, float]]]:
        found = self.search(queries, k=k, where=where, group=group, bare=False)
        return [[(hit.doc_id, hit.score) for hit in hits] for hits in found]

    def search_text(
        self,
        queries: Sequence[str],
        *,
        k: int,
        where: str | None,
        group: bool,
        bare: bool,
        vectors: Embeddings | None = None,
    ) -> list[list[Hit]]:
        self.asked.append(("text", k, where, group))
        assert vectors is None or len(vectors) == len(queries)
        hits = first_of_each_document(self.text) if group else self.text
        hits = self._shown(hits[:k], bare=bare)
        if vectors is not None:
            hits = [replace(hit, scores={**hit.scores, "dense": self.cosines[hit.doc_id]}) for hit in hits]
        return [hits for _ in queries]

    def fill(self, hits: Sequence[Sequence[Hit]]) -> list[list[Hit]]:
        whole = {(hit.doc_id, hit.passage): hit for hit in [*self.dense, *self.text]}
        self.filled = [len(some) for some in hits]
        return [[replace(hit, text=whole[hit.doc_id, hit.passage].text) for hit in some] for some in hits]

    @staticmethod
    def _shown(hits: Sequence[Hit], *, bare: bool) -> list[Hit]:
        return [replace(hit, text="") if bare else hit for hit in hits]

    def text_limits(self, queries: Sequence[str]) -> list[float]:
        return [10.0] * len(queries)

    @property
    def score_limit(self) -> float | None:
        return self.limit


class LengthReranker(Reranker):
    """Scores a text by its length."""

    name = "by length"
    weight = 1.0

    def __init__(self) -> None:
        self.seen: list[str] = []

    def score(self, query: str, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.seen = list(texts)
        return np.asarray([len(text) for text in texts], np.float32)


def test_queries_of_zeros_find_nothing_by_meaning_and_the_others_keep_their_places() -> None:
    """As of a text that an encoder finds no tokens in; by words such a query is searched like any other."""

    def zero_where_blank(texts: Sequence[str]) -> Embeddings:
        return np.asarray([[float(bool(text.strip()))] * 3 for text in texts], np.float32)

    index = ListedIndex(DENSE, TEXT)
    retriever = Retriever(index, embed=zero_where_blank)
    for k in (1, 2):
        found = retriever.search(["", "x", " ", "y"], SearchOptions(k=k))
        assert [len(hits) for hits in found] == [0, k, 0, k]
        assert [len(hits) for hits in retriever.search_ids(["", "x"], SearchOptions(k=k))] == [0, k]
    assert retriever.search([""], SearchOptions(k=2)) == [[]]
    (hybrid,) = retriever.search([""], SearchOptions(k=2, mode="hybrid"))
    assert [found.doc_id for found in hybrid] == ["b", "d"]


def hit(doc_id: str, score: float, *, passage: int = 0, part: str = "dense", text: str = "") -> Hit:
    return Hit(doc_id, score, text, passage=passage, scores={part: score})


DENSE = [hit("a", 0.9), hit("b", 0.8), hit("c", 0.7)]
TEXT = [hit("b", 7.0, part="text"), hit("d", 6.0, part="text"), hit("a", 5.0, part="text")]


def embed(texts: Sequence[str]) -> Embeddings:
    return np.ones((len(texts), 2), np.float32)


@pytest.mark.parametrize(
    ("mode", "asked", "ids"),
    [
        ("dense", [("dense", 2, "x = 1", True)], ["a", "b"]),
        ("text", [("text", 2, "x = 1", True)], ["b", "d"]),
        ("hybrid", [("dense", 50, "x = 1", False), ("text", 50, "x = 1", False)], ["b", "a"]),
    ],
)
def test_each_mode_asks_its_sides_for_as_much_as_it_needs(
    mode: str, asked: list[tuple[str, int, str | None, bool]], ids: list[str]
) -> None:
    index = ListedIndex(DENSE, TEXT)
    options = SearchOptions(k=2, mode=mode, where="x = 1", candidates=50, group=True)  # type: ignore[arg-type]  # a Mode
    found = Retriever(index, embed=embed).search(["q", "r"], options)
    assert index.asked == asked
    assert [[h.doc_id for h in hits] for hits in found] == [ids, ids]


def test_hybrid_groups_after_fusing() -> None:
    dense = [hit("a", 0.9, passage=0), hit("a", 0.8, passage=1), hit("b", 0.7)]
    text = [hit("a", 9, passage=1, part="text"), hit("b", 8, part="text")]
    options = SearchOptions(mode="hybrid", group=True)
    (found,) = Retriever(ListedIndex(dense, text), embed=embed).search(["q"], options)
    assert [(h.doc_id, h.passage) for h in found] == [("a", 1), ("b", 0)]


def test_a_reranker_orders_the_candidates_with_their_titles() -> None:
    reranker = LengthReranker()
    dense = [Hit("a", 0.9, "x", "T"), Hit("b", 0.8, "longest of all"), Hit("c", 0.7, "longer")]
    index = ListedIndex(dense, [])
    (found,) = Retriever(index, embed=embed, reranker=reranker).search(
        ["q"], SearchOptions(k=1, candidates=3)
    )
    assert reranker.seen == ["T x", "longest of all", "longer"]
    assert [(h.doc_id, h.score, h.scores["rerank"]) for h in found] == [("b", 14.0, 14.0)]
    assert index.asked[0][1] == 3


@pytest.mark.parametrize(
    ("weight", "ids"), [(None, ["b", "c", "a"]), (0.0, ["a", "b", "c"]), (0.4, ["b", "a", "c"])]
)
def test_the_first_stage_has_its_part_in_the_order_of_reranked_hits(
    weight: float | None, ids: list[str]
) -> None:
    """Lengths 1, 14, 6 scaled: 0, 1, 5/13; cosines scaled: 1, 1/2, 0. With .4: a .6, b .7, c .154."""
    dense = [Hit("a", 0.9, "x"), Hit("b", 0.8, "longest of all"), Hit("c", 0.7, "longer")]
    options = SearchOptions(rerank_weight=weight)
    (found,) = Retriever(ListedIndex(dense, []), embed=embed, reranker=LengthReranker()).search(
        ["q"], options
    )
    assert [h.doc_id for h in found] == ids
    if weight == 0.4:
        np.testing.assert_allclose([h.score for h in found], [0.7, 0.6, 0.4 * 5 / 13])


def test_hybrid_fuses_as_asked() -> None:
    index = ListedIndex(DENSE, TEXT)
    (by_ranks,) = Retriever(index, embed=embed).search(["q"], SearchOptions(mode="hybrid", fusion="ranks"))
    assert by_ranks[0].score == pytest.approx(1 / 62 + 1 / 61)


@pytest.mark.parametrize("reranked", [False, True])
def test_of_fused_candidates_only_those_are_read_that_are_wanted(reranked: bool) -> None:
    sides = [[replace(hit, text=hit.doc_id * 3) for hit in hits] for hits in (DENSE, TEXT)]
    index, reranker = ListedIndex(sides[0], sides[1]), LengthReranker()
    retriever = Retriever(index, embed=embed, reranker=reranker if reranked else None)
    (hits,) = retriever.search(["q"], SearchOptions(mode="hybrid", k=1, candidates=3))
    assert index.filled == [3 if reranked else 1]
    assert len(hits) == 1
    assert hits[0].text
    assert all(reranker.seen)


def fused(index: ListedIndex, **options: float) -> dict[str, float]:
    (found,) = Retriever(index, embed=embed).search(["q"], SearchOptions(mode="hybrid", **options))  # type: ignore[arg-type]  # weights
    return {hit.doc_id: round(hit.score, 6) for hit in found}


def test_cosines_count_as_they_are_and_bm25_as_the_share_of_its_limit() -> None:
    """Text, of 10: b .7, d .6, a .5. b: (.8 + .7) / 2 = .75; d, found by words alone: (.4 + .6) / 2 = .5."""
    index = ListedIndex(DENSE, TEXT, cosines={"d": 0.4})
    assert fused(index) == {"b": 0.75, "a": 0.7, "d": 0.5, "c": 0.35}
    assert fused(index, text_weight=3.0) == {"b": 0.725, "a": 0.6, "d": 0.55, "c": 0.175}
    assert fused(index, text_weight=0.0) == {"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.4}
    (found,) = Retriever(index, embed=embed).search(["q"], SearchOptions(mode="hybrid"))
    assert [dict(hit.scores) for hit in found] == [
        {"dense": 0.8, "text": 7.0},
        {"dense": 0.9, "text": 5.0},
        {"dense": 0.4, "text": 6.0},
        {"dense": 0.7},
    ]


def test_where_scores_have_no_limit_both_sides_are_scaled_by_their_hits() -> None:
    """Dense: a 1, b 1/2, c 0. Text: b 1, d 1/2, a 0."""
    assert fused(ListedIndex(DENSE, TEXT, None)) == {"b": 0.75, "a": 0.5, "d": 0.25, "c": 0.0}


def test_one_chance_word_does_not_lead() -> None:
    """It is a small part of what the query could reach, though it is the best and only hit by words."""
    chance = [hit("c", 0.8, part="text")]
    assert next(iter(fused(ListedIndex(DENSE, chance)))) == "a"


def test_hits_below_the_minimum_are_dropped() -> None:
    (found,) = Retriever(ListedIndex(DENSE, TEXT), embed=embed).search(["q"], SearchOptions(min_score=0.8))
    assert [h.doc_id for h in found] == ["a", "b"]


@pytest.mark.parametrize(
    "options",
    [
        SearchOptions(k=2),
        SearchOptions(min_score=0.8),
        SearchOptions(mode="text"),
        SearchOptions(mode="hybrid", group=True),
    ],
)
@pytest.mark.parametrize("reranker", [None, LengthReranker()])
def test_search_ids_returns_the_ids_and_scores_of_search(
    options: SearchOptions, reranker: LengthReranker | None
) -> None:
    index = ListedIndex(DENSE, TEXT)
    retriever = Retriever(index, embed=embed, reranker=reranker)
    hits = retriever.search(["p", "q"], options)
    asked = list(index.asked)
    index.asked.clear()
    assert retriever.search_ids(["p", "q"], options) == [[(h.doc_id, h.score) for h in some] for some in hits]
    assert index.asked == asked
    assert retriever.search_ids([], options) == []


def test_words_are_searched_without_an_encoder_and_meaning_is_not() -> None:
    retriever = Retriever(ListedIndex(DENSE, TEXT))
    assert len(retriever.search(["q"], SearchOptions(mode="text"))[0]) == 3
    assert retriever.search([]) == []
    with pytest.raises(ValueError, match="a search in mode 'dense' needs `embed`"):
        retriever.search(["q"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "both"}, "mode is 'both'; it must be one of dense, text, hybrid"),
        ({"k": 0}, "k is 0"),
        ({"candidates": 0}, "candidates is 0"),
        ({"dense_weight": 0.0, "text_weight": 0.0}, "are both 0"),
        ({"text_weight": float("nan")}, "must be finite"),
        ({"fusion": "best"}, "fusion is 'best'; it must be one of scores, ranks"),
        ({"min_score": float("nan")}, "min_score is nan, which no score reaches"),
        ({"rerank_weight": 1.5}, r"rerank_weight is 1.5; it must be from 0 to 1"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SearchOptions(**options)  # type: ignore[arg-type]  # that is what is tested


def test_a_reranker_with_too_few_scores_is_a_mistake() -> None:
    class Short(Reranker):
        name = "short"
        weight = 1.0

        def score(self, query: str, texts: Sequence[str]) -> npt.NDArray[np.float32]:
            return np.zeros(1, np.float32)

    with pytest.raises(ValueError, match=r"scores of shape \(1,\) for 3 texts"):
        Retriever(ListedIndex(DENSE, TEXT), embed=embed, reranker=Short()).search(["q"])


def test_a_blank_query_has_no_direction() -> None:
    """An encoder makes a vector of it all the same, which would be near some document or other."""
    asked = []

    class Noting(ListedIndex):
        def search(self, queries: Embeddings, **how: object) -> list[list[Hit]]:
            asked.append([bool(vector.any()) for vector in queries])
            return [self.dense for _ in queries]

    retriever = Retriever(Noting([Hit("a", 0.9)], []), embed=lambda some: np.ones((len(some), 2), np.float32))
    found = retriever.search(["", "dog", " \n"], SearchOptions(mode="dense"))
    assert [[hit.doc_id for hit in hits] for hits in found] == [[], ["a"], []]
    assert asked == [[True]]


def test_a_string_in_place_of_queries_is_refused_not_taken_letter_by_letter() -> None:
    retriever = Retriever(ListedIndex([], []))
    with pytest.raises(TypeError, match=r"queries is the string 'dog'; it must be a sequence of strings"):
        retriever.search("dog", SearchOptions(mode="text"))
    with pytest.raises(TypeError, match=r"it must be a sequence of strings"):
        retriever.search_ids("dog")


@pytest.mark.parametrize("fusion", ["scores", "ranks"])
def test_a_document_of_many_passages_takes_no_place_of_others(fusion: Fusion) -> None:
    """The ten best passages of either side are of one book; grouped, each of the other documents is found all the same."""
    by_meaning = [hit("book", 0.9 - 0.001 * number, passage=number) for number in range(20)]
    by_words = [hit("book", 9.0 - 0.001 * number, passage=number, part="text") for number in range(20)]
    others = [hit(doc_id, 0.5 - 0.1 * number) for number, doc_id in enumerate("abc")]
    index = ListedIndex([*by_meaning, *others], [*by_words, hit("c", 1.0, part="text")])
    options = SearchOptions(k=4, mode="hybrid", group=True, candidates=10, fusion=fusion)
    (found,) = Retriever(index, embed=embed).search(["x"], options)
    assert sorted(each.doc_id for each in found) == ["a", "b", "book", "c"]
    assert found[0].doc_id == "book"
    assert len({(each.doc_id, each.passage) for each in found}) == 4
    assert index.asked[2:] == [("dense", 4, None, True), ("text", 4, None, True)]


def test_where_all_passages_were_fetched_nothing_further_is_asked_for() -> None:
    index = ListedIndex(DENSE, TEXT)
    options = SearchOptions(k=9, mode="hybrid", group=True, candidates=10)
    Retriever(index, embed=embed).search(["x"], options)
    assert len(index.asked) == 2
