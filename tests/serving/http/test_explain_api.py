"""/explain: words with what they weigh, and which words of the two texts are near each other; or terms and tokens with what they add."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette")

from embedkit.encoding.encoder import Encoder
from embedkit.encoding.multi_vector import MultiVectorEncoder
from embedkit.encoding.sparse import SparseEncoder
from embedkit.explaining.explain import explain
from embedkit.explaining.terms import explain_terms
from embedkit.explaining.tokens import explain_tokens
from tests.checkpoint.test_sparse import write_tiny_sparse
from tests.serving.indexes.served_indexes import ask, build, numbered, serving
from tests.tiny_multi_vector import write_tiny_multi_vector

QUERY = "the girl plays guitar"
ROUNDING = 1e-5  # other batch shapes


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("explained")
    with serving(build(folder / "docs.index", numbered(10), tiny_model)) as found:
        yield found


def explained(address: str, **body: Any) -> dict[str, Any]:
    status, content = ask(address, "POST", "/explain", body)
    assert status == 200, content
    assert isinstance(content, dict)
    return content


def test_a_passage_is_explained_as_the_command_does_it(address: str, tiny_model: Path) -> None:
    found = explained(address, query=QUERY, index="docs", id="old/3", passage=0)
    text = "piano 3 the piano and a piano at the piano. old"
    expected = explain(Encoder.load(tiny_model, backend="torch"), QUERY, text)
    assert found["score"] == pytest.approx(expected.score, abs=1e-6)
    assert found["document"]["text"] == text
    assert text[found["document"]["passage_start"] :].startswith("the piano")
    for side, own in (("query", expected.query), ("document", expected.document)):
        words = found[side]["words"]
        assert [(word["start"], word["stop"]) for word in words] == [(p.start, p.stop) for p in own.parts]
        assert [word["weight"] for word in words] == pytest.approx([p.effect for p in own.parts], abs=1e-6)


def test_equal_words_are_near_each_other(address: str) -> None:
    found = explained(address, query="guitar", text="the guitar")
    words = found["document"]["words"]
    (match,) = found["matches"]
    assert match["query_word"] == 0
    assert -1 <= match["cosine"] <= 1.000001
    assert found["document"]["text"][words[match["document_word"]]["start"] :].startswith(("the", "guitar"))
    same = explained(address, query=QUERY, text=QUERY)
    assert [(match["query_word"], match["document_word"]) for match in same["matches"]] == [
        (number, number) for number in range(4)
    ]
    assert all(match["cosine"] == pytest.approx(1, abs=1e-5) for match in same["matches"])


@pytest.fixture(scope="module", params=["mlm", "table"])
def sparse(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("terms")
    model = write_tiny_sparse(folder / "splade", weigh_queries=request.param == "table")
    with serving(build(folder / "terms.index", numbered(10), model)) as found:
        yield found, model


@pytest.mark.parametrize("query", [QUERY, "水 girl"])
def test_of_a_sparse_index_terms_are_explained_as_the_command_does_it(
    sparse: tuple[str, Path], query: str
) -> None:
    address, model = sparse
    text = "piano 3 the piano and a piano at the piano. old"
    held = explained(address, query=query, index="terms", id="old/3", passage=0)
    assert held["document"].pop("passage_start") == text.find("the piano")
    given = explained(address, query=query, text=text)
    assert given["document"].pop("passage_start") == 0
    wanted = explain_terms(SparseEncoder.load(model), query, text).as_dict()
    for found in (held, given):
        assert (found["kind"], found["truncated"]) == ("sparse", False)
        assert found["score"] == pytest.approx(wanted["score"], abs=ROUNDING)
        assert (found["query"]["text"], found["document"]["text"]) == (query, text)
        for rows, own in (
            (found["shared"], wanted["shared"]),
            (found["query"]["terms"], wanted["query"]),
            (found["document"]["terms"], wanted["document"]),
        ):
            assert {row["term"] for row in rows} == {row["term"] for row in own}
            of = {row["term"]: row for row in own}
            for row in rows:
                assert row == pytest.approx(of[row["term"]], abs=ROUNDING)
    assert wanted["shared"]


def test_the_sum_of_what_terms_add_is_the_score_of_the_search(sparse: tuple[str, Path]) -> None:
    """The index stores weights in eight bits, of its largest."""
    address, _ = sparse
    status, content = ask(
        address, "POST", "/search", {"query": QUERY, "index": "terms", "mode": "dense", "k": 3}
    )
    assert status == 200
    for hit in content["hits"]:
        found = explained(address, query=QUERY, index="terms", id=hit["id"], passage=hit["passage"])
        assert sum(each["product"] for each in found["shared"]) == pytest.approx(found["score"])
        assert found["score"] == pytest.approx(hit["score"], rel=0.02)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("tokens")
    model = write_tiny_multi_vector(folder / "colbert")
    with serving(build(folder / "tokens.index", numbered(10), model)) as found:
        yield found, model


def test_of_a_multi_vector_index_tokens_are_explained_as_the_command_does_it(
    tokens: tuple[str, Path],
) -> None:
    address, model = tokens
    text = "piano 3 the piano and a piano at the piano. old"
    found = explained(address, query=QUERY, index="tokens", id="old/3", passage=0)
    wanted = explain_tokens(MultiVectorEncoder.load(model), QUERY, text)
    assert (found["kind"], found["truncated"]) == ("multi-vector", False)
    assert found["document"]["passage_start"] == text.find("the piano")
    assert found["score"] == pytest.approx(wanted.score, abs=ROUNDING)
    assert found["others"] == pytest.approx(wanted.others, abs=ROUNDING)
    asked, held = ([(w["start"], w["stop"]) for w in found[side]["words"]] for side in ("query", "document"))
    assert asked == [wanted.query.places[number] for number in wanted.of_text]
    assert held == [place for place in wanted.document.places if place is not None]
    weights = [word["weight"] for word in found["query"]["words"]]
    assert weights == pytest.approx([wanted.cosines[number] for number in wanted.of_text], abs=ROUNDING)
    assert sum(weights) + found["others"] == pytest.approx(found["score"], abs=ROUNDING)
    added = [0.0] * len(held)
    for match in found["matches"]:
        place = wanted.document.places[wanted.nearest[wanted.of_text[match["query_word"]]]]
        assert held[match["document_word"]] == place
        added[match["document_word"]] += match["cosine"]
    assert [word["weight"] for word in found["document"]["words"]] == pytest.approx(added, abs=ROUNDING)
    status, content = ask(address, "POST", "/explain", {"query": " ", "text": "a dog"})
    assert status == 422
    assert "has no word in it" in content["error"]["message"]


def test_a_query_of_nothing_has_no_terms_as_in_a_search(sparse: tuple[str, Path]) -> None:
    found = explained(sparse[0], query=" ", index="terms", id="old/3", passage=0)
    assert (found["score"], found["shared"], found["query"]["terms"]) == (0, [], [])
    assert found["document"]["terms"]


def test_a_long_text_is_said_to_be_cut(sparse: tuple[str, Path]) -> None:
    assert explained(sparse[0], query=QUERY, text="dog " * 60)["truncated"]


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ({"query": "girl"}, 400, "id, with index, or text is missing"),
        ({"query": "girl", "text": "a", "id": "old/1"}, 400, "text excludes id"),
        ({"query": "girl", "id": "nope"}, 404, "no document 'nope'"),
        ({"query": "girl", "id": "old/1", "passage": 7}, 404, "has no passage 7"),
        ({"query": " ", "text": "a"}, 422, "has no word in it"),
        ({"query": "girl", "text": "a " * 20_000}, 413, "20,000 are explained at most"),
    ],
)
def test_what_cannot_be_explained(address: str, body: dict[str, Any], status: int, reason: str) -> None:
    found, content = ask(address, "POST", "/explain", body)
    assert found == status
    assert reason in content["error"]["message"]
