"""One search over several indexes: passages are fused with passages, and with `group` documents with documents."""

import pytest

from embedkit.retrieval.joined import JoinedRetriever
from embedkit.retrieval.options import Fusion, SearchOptions
from embedkit.retrieval.retriever import Retriever
from tests.retrieval.test_retriever import ListedIndex, embed, hit

# D comes second in both, by another passage in each; A and B come first in one and are not in the other.
FIRST = [hit("A", 0.9), hit("D", 0.89, passage=0), hit("D", 0.5, passage=1), hit("Z", 0.1)]
SECOND = [
    hit("B", 30.0, part="sparse"),
    hit("D", 29.0, passage=1, part="sparse"),
    hit("D", 10.0, passage=0, part="sparse"),
    hit("Z", 0.0, part="sparse"),
]


def joined() -> JoinedRetriever:
    other = Retriever(ListedIndex(SECOND, [], limit=None), embed=embed)
    return JoinedRetriever(Retriever(ListedIndex(FIRST, []), embed=embed), [other])


@pytest.mark.parametrize("fusion", ["scores", "ranks"])
def test_grouped_a_document_that_both_find_comes_before_those_that_one_finds(fusion: Fusion) -> None:
    """By scores (.89 - .1) / .8 and 29 / 30, of which the mean is .977; by ranks 1 / 62 + 1 / 62."""
    options = SearchOptions(k=4, mode="dense", group=True, fusion=fusion)
    (found,) = joined().search(["q"], options)
    assert found[0].doc_id == "D"
    assert sorted(each.doc_id for each in found) == ["A", "B", "D", "Z"]
    assert found[0].score == pytest.approx(0.97708 if fusion == "scores" else 2 / 62, abs=1e-5)
    assert found[0].passage == 0
    assert found[0].scores == {"dense": 0.89, "sparse": 29.0}


def test_not_grouped_each_passage_is_fused_with_itself() -> None:
    (found,) = joined().search(["q"], SearchOptions(k=9, mode="dense"))
    assert [(each.doc_id, each.passage) for each in found[:2]] == [("D", 1), ("D", 0)]
    assert len(found) == 5
