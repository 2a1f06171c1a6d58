"""What kind of token each one of a vocabulary is: for tables that tell kinds of tokens apart."""

from __future__ import annotations

import unicodedata
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from embedkit.tokenization.tokenizer import Tokenizer

TokenKind = Literal["special", "masked", "word", "piece", "number", "punctuation"]
TOKEN_KINDS: tuple[TokenKind, ...] = get_args(TokenKind)

WORD_PIECE = "##"  # before a piece that goes on with a word
SPACES = ("Ġ", "▁")  # before a piece that begins one, in byte pairs and in SentencePiece


def token_kinds(tokenizer: Tokenizer) -> NDArray[np.int64]:
    """Return the number in TOKEN_KINDS of each token's kind: (V,).

    A word, and its first piece, is a `word`; what goes on with one is a `piece`. What has a digit is a `number`, what has no letter
    and no digit `punctuation`.
    """
    tokens = [str(tokenizer.backend.id_to_token(number)) for number in range(tokenizer.vocab_size)]
    special = set(tokenizer.special_tokens.values())
    marks = [mark for mark in SPACES if any(token.startswith(mark) for token in tokens)]
    kinds = [
        "masked"
        if token == tokenizer.special_tokens.get("mask")
        else "special"
        if token in special
        else _kind(token, tuple(marks))
        for token in tokens
    ]
    return np.array([TOKEN_KINDS.index(kind) for kind in kinds], dtype=np.int64)


def _kind(token: str, spaces: tuple[str, ...]) -> TokenKind:
    goes_on = not token.startswith(spaces) if spaces else token.startswith(WORD_PIECE)
    letters = token.removeprefix(WORD_PIECE).lstrip("".join(SPACES))
    if any(unicodedata.category(sign)[0] == "N" for sign in letters):
        return "number"
    if not any(unicodedata.category(sign)[0] in "LM" for sign in letters):
        return "punctuation"
    return "piece" if goes_on else "word"
