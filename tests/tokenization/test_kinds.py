"""Kinds of tokens of the three ways in which vocabularies mark words."""

from __future__ import annotations

import pytest
import tokenizers
from tokenizers import models

from embedkit.tokenization.kinds import TOKEN_KINDS, token_kinds
from embedkit.tokenization.tokenizer import Tokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def kinds_of(*pieces: str) -> dict[str, str]:
    vocabulary = {piece: number for number, piece in enumerate([*SPECIAL, *pieces])}
    backend = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    roles = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    found = token_kinds(Tokenizer(backend, roles, 16))
    assert len(found) == len(vocabulary)
    return {piece: TOKEN_KINDS[found[number]] for piece, number in vocabulary.items()}


@pytest.mark.parametrize(
    ("word", "piece"), [("cat", "##ing"), ("Ġcat", "ing"), ("▁cat", "ing"), ("été", "##é")]
)
def test_words_and_what_goes_on_with_them(word: str, piece: str) -> None:
    kinds = kinds_of(word, piece)
    assert (kinds[word], kinds[piece]) == ("word", "piece")


def test_numbers_signs_and_special_tokens() -> None:
    kinds = kinds_of("1999", "##7", "b2b", ",", "##!", "€", "日", "cat")
    assert [kinds[each] for each in ("1999", "##7", "b2b")] == ["number"] * 3
    assert [kinds[each] for each in (",", "##!", "€")] == ["punctuation"] * 3
    assert [kinds[each] for each in ("日", "cat")] == ["word"] * 2
    assert [kinds[each] for each in SPECIAL] == [*["special"] * 4, "masked"]
