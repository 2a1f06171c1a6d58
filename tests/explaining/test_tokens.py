"""Explaining MaxSim: the sum of what tokens add is the score; where tokens stand; what stands for nothing in the text."""

from __future__ import annotations

import numpy as np
import pytest

from embedkit.encoding.multi_vector import MultiVectorEncoder
from embedkit.errors import RecordError
from embedkit.explaining.tokens import explain_tokens, token_places
from tests.tiny_multi_vector import write_tiny_multi_vector

TEXT = "A man, a dog, the piano! The girl runs."


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> MultiVectorEncoder:
    return MultiVectorEncoder.load(write_tiny_multi_vector(tmp_path_factory.mktemp("model")))


@pytest.mark.parametrize("text", [TEXT, "dog", "the dog " * 40])
def test_the_cosines_add_up_to_the_score_of_the_model(encoder: MultiVectorEncoder, text: str) -> None:
    query = "the girl plays guitar"
    found = explain_tokens(encoder, query, text)
    asked, held = encoder.encode_queries([query]).vectors, encoder.encode_documents([text]).vectors
    cosines = asked.astype(np.float64) @ held.T.astype(np.float64)
    assert found.score == pytest.approx(cosines.max(axis=1).sum(), abs=1e-5)
    assert len(found.query.tokens) == len(asked) == len(found.cosines)
    assert len(found.document.tokens) == len(held)
    assert found.nearest == tuple(cosines.argmax(axis=1))
    assert found.others == pytest.approx(found.score - sum(found.cosines[n] for n in found.of_text))
    assert found.document.truncated == (len(text) > 100)


def test_tokens_have_their_places_in_the_text_and_those_of_the_skiplist_have_no_vector(
    encoder: MultiVectorEncoder,
) -> None:
    found = explain_tokens(encoder, "the girl plays guitar", TEXT)
    assert [found.query.text[slice(*found.query.places[n])] for n in found.of_text] == [  # type: ignore[misc]  # those have one
        "the", "girl", "plays", "guitar"
    ]  # fmt: skip
    assert [token for token, place in zip(found.query.tokens, found.query.places, strict=True) if not place][
        -1
    ] == "[MASK]"
    held = [TEXT[slice(*place)] for place in found.document.places if place is not None]
    assert "".join(held).lower() == "".join(c for c in TEXT if c not in " ,.!").lower()


def test_equal_tokens_in_equal_company_are_nearest_to_each_other(encoder: MultiVectorEncoder) -> None:
    plain = explain_tokens(encoder, "dog", "dog").as_dict()
    assert set(plain) == {"score", "query", "document", "matches"}
    assert plain["query"]["text"] == plain["document"]["text"] == "dog"
    (own,) = [token for token in plain["document"]["tokens"] if token["start"] is not None]
    assert own == {"token": "dog", "start": 0, "stop": 3}
    assert [match["query_token"] for match in plain["matches"]] == list(range(len(plain["query"]["tokens"])))


@pytest.mark.parametrize(("query", "text"), [(" ", "dog"), ("dog", ""), ("dog", "\n")])
def test_what_has_no_word_is_refused(encoder: MultiVectorEncoder, query: str, text: str) -> None:
    with pytest.raises(RecordError, match="has no word in it"):
        explain_tokens(encoder, query, text)


def test_places_of_a_text_that_is_cut_are_those_that_are_read(encoder: MultiVectorEncoder) -> None:
    tokenizer = encoder.tokenizer("document").with_max_length(6)
    assert token_places(tokenizer, "", "a dog the piano runs", 6) == [
        None, (0, 1), (2, 5), (6, 9), (10, 15), None
    ]  # fmt: skip
