"""/explain: words with what they weigh, and which words of the two texts are near each other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette")

from embedkit.encoding.encoder import Encoder
from embedkit.explaining.explain import explain
from tests.serving.indexes.served_indexes import ask, build, numbered, serving

QUERY = "the girl plays guitar"


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
