from __future__ import annotations

import doctest

import pytest
from tokenizers import decoders

from embedkit.generation import spacing
from embedkit.generation.spacing import loses_spaces, tidy
from embedkit.tokenization.tokenizer import Tokenizer
from tests.tiny import tiny_tokenizer


@pytest.mark.parametrize(
    "text",
    [
        "what's the dog's name?",
        "it doesn't cost $3,500.25, or 5% of that",
        "well-known in 2004-2005",
        'who wrote "a cat (and a dog)"?',
        "in 1998, 200 people walked.",
        "the u.s. army",
    ],
)
def test_a_sentence_comes_back_from_words_and_signs_apart(text: str) -> None:
    """As BERT's decoder writes them: a space between all tokens, but before the signs that it cleans up."""
    apart = tiny_tokenizer().backend.pre_tokenizer.pre_tokenize_str(text)
    joined = decoders.WordPiece().decode([piece for piece, _ in apart])
    assert tidy(joined) == text
    assert tidy(text) == text


def test_a_byte_level_tokenizer_keeps_its_spaces() -> None:
    tokenizer = tiny_tokenizer()
    assert loses_spaces(tokenizer)
    tokenizer.backend.decoder = decoders.ByteLevel()
    assert not loses_spaces(Tokenizer(tokenizer.backend, tokenizer.special_tokens, 32))


def test_the_worked_example_is_right() -> None:
    found = doctest.testmod(spacing)
    assert (found.failed, found.attempted) == (0, 1)
