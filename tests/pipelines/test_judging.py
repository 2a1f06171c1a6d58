"""Which hits are worth showing, and how strong they are, with the shipped model over the dozen articles of the examples."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from embedkit.data.reading import DocumentReader
from embedkit.data.records import Document, Hit, ReadOptions
from embedkit.encoding.encoder import Encoder
from embedkit.encoding.noise import cosine_noise
from embedkit.pipelines.judging import JudgedHit, judge
from embedkit.pipelines.searching import Search, open_search
from embedkit.retrieval.options import SearchOptions
from embedkit.retrieval.reranker import Reranker
from embedkit.retrieval.retriever import Retriever
from embedkit.retrieval.strength import CosineNoise
from embedkit.types import Computing, Float32
from indexes import Index, Settings
from tests.conftest import REPOSITORY

DENSE, HYBRID, TEXT = (SearchOptions(mode=mode) for mode in ("dense", "hybrid", "text"))
STRANGE = "how to file a tax return"


@pytest.fixture(scope="module")
def encoder(shipped_encoder: Path) -> Encoder:
    return Encoder.load(shipped_encoder, device="cpu")


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    return list(DocumentReader([str(REPOSITORY / "examples/articles.jsonl")], ReadOptions()))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, encoder: Encoder, documents: list[Document]) -> Path:
    path = tmp_path_factory.mktemp("judging") / "i"
    with Index.create(path, Settings(dimension=encoder.dimension, fingerprint=encoder.fingerprint)) as index:
        index.add(documents, encoder.encode([f"{each.title} {each.text}" for each in documents]))
    return path


@pytest.fixture(scope="module")
def opened(path: Path, shipped_encoder: Path) -> Iterator[Search]:
    with open_search(path, HYBRID, Computing(precision="fp32"), model=str(shipped_encoder)) as opened:
        yield opened


def judged(opened: Search, query: str, options: SearchOptions) -> dict[str, JudgedHit]:
    hits = opened.retriever.search([query], options)[0]
    found = judge(opened, query, hits, options)
    assert [each.hit for each in found] == hits
    assert all(0 <= each.strength <= 1 for each in found)
    assert all(each.strength == 0 for each in found if each.weak)
    return {each.hit.doc_id: each for each in found}


@pytest.mark.parametrize("options", [DENSE, HYBRID])
def test_an_answer_is_strong_and_what_has_nothing_to_do_with_it_is_weak(
    opened: Search, options: SearchOptions
) -> None:
    found = judged(opened, "bread that rests overnight", options)
    assert found["bread"].strength > 0.8
    assert not found["bread"].weak
    assert sum(each.weak for each in found.values()) > 5
    assert all(each.weak for each in judged(opened, STRANGE, options).values())


def test_a_word_of_the_query_saves_a_hit_of_a_search_by_meaning(opened: Search) -> None:
    found = judged(opened, f"{STRANGE} overnight", DENSE)
    assert [name for name, each in found.items() if not each.weak] == ["bread"]
    assert found["bread"].strength < 0.25


def test_one_chance_word_of_many_saves_no_hit_of_a_hybrid_search(opened: Search) -> None:
    query = f"{STRANGE} on time when the revenue office of the county is closed"
    hits = opened.retriever.search([query], HYBRID)[0]
    assert any("text" in hit.scores for hit in hits)
    assert all(each.weak for each in judged(opened, query, HYBRID).values())


def test_what_the_user_says_counts_is_never_weak(opened: Search) -> None:
    for mode in ("dense", "hybrid"):
        options = SearchOptions(mode=mode, min_score=-1.0)
        assert not any(each.weak for each in judged(opened, STRANGE, options).values())


def test_a_search_by_words_has_no_weak_hits(opened: Search) -> None:
    query = f"{STRANGE} on time when the revenue office of the county is closed"
    found = judged(opened, query, TEXT)
    assert found
    assert all(not each.weak and each.strength < 0.2 for each in found.values())
    assert judged(opened, "yeast", TEXT)["bread"].strength == 1


def test_ranks_are_judged_by_the_scores_behind_them(opened: Search) -> None:
    by_ranks = SearchOptions(mode="hybrid", fusion="ranks")
    assert all(each.weak for each in judged(opened, STRANGE, by_ranks).values())
    assert judged(opened, "bread that rests overnight", by_ranks)["bread"].strength > 0.8


def test_chance_is_that_among_the_documents_that_the_filter_lets_pass(opened: Search) -> None:
    noise = cosine_noise(opened.embedder.encoder)  # type: ignore[union-attr,arg-type] # hybrid has one
    cosine = (noise.scale(12).chance + noise.scale(1).chance) / 2
    hit = Hit("soup", cosine, "x", scores={"dense": cosine})
    assert judge(opened, "y", [hit], DENSE)[0].weak
    assert not judge(opened, "y", [hit], SearchOptions(mode="dense", where="id = 'soup'"))[0].weak


def test_samples_in_another_language_than_the_models_hide_nothing(
    opened: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To a model that reads no English all sample texts are alike, but those of its index are not."""
    monkeypatch.setattr("embedkit.encoding.noise.cosine_noise", lambda encoder: CosineNoise(0.9, 0.02))
    found = judged(opened, "bread that rests overnight", DENSE)
    assert found["bread"].strength > 0.7
    assert sum(each.weak for each in found.values()) > 5


class Sure(Reranker):
    """Finds the soup relevant, and no more certainly than chance the rest."""

    name = "sure"
    weight = 0.5

    def score(self, query: str, texts: list[str]) -> Float32:  # type: ignore[override] # what is given is a list
        return np.array([0.9 if "Soup" in text else 0.01 for text in texts], np.float32)


def test_a_reranked_hit_is_as_strong_as_the_reranker_says_and_weak_where_both_stages_say_so(
    opened: Search,
) -> None:
    reranked = Search(
        opened.index, Retriever(opened.index, embed=opened.embedder, reranker=Sure()), opened.embedder, Sure()
    )
    assert not [
        name for name, each in judged(reranked, STRANGE, HYBRID).items() if not each.weak and name != "soup"
    ]
    assert judged(reranked, STRANGE, HYBRID)["soup"].strength == 1
    found = judged(reranked, "bread that rests overnight", HYBRID)
    assert (found["bread"].strength, found["bread"].weak) == (0, False)


def test_scores_without_a_scale_are_told_by_the_best_of_them(
    encoder: Encoder, documents: list[Document], tmp_path: Path, shipped_encoder: Path
) -> None:
    settings = Settings(dimension=encoder.dimension, fingerprint=encoder.fingerprint, metric="dot")
    with Index.create(tmp_path / "i", settings) as index:
        index.add(documents, encoder.encode([each.text for each in documents]))
    with open_search(
        tmp_path / "i", DENSE, Computing(precision="fp32"), model=str(shipped_encoder)
    ) as opened:
        found = [*judged(opened, STRANGE, DENSE).values()]
    assert not any(each.weak for each in found)
    assert found[0].strength == 1
    assert found[1].strength == pytest.approx(found[1].hit.score / found[0].hit.score)


def test_no_hits_need_no_judgement(opened: Search) -> None:
    assert judge(opened, "", [], HYBRID) == []
