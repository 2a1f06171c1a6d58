"""Spaces that a tokenizer took apart: BERT's puts one before and after every sign, and remembers none of them."""

from __future__ import annotations

import re

from tokenizers import decoders

from embedkit.tokenization.tokenizer import Tokenizer

# In their order. What is joined is what English nearly always writes without a space.
_JOINED = (
    (re.compile(r"(?<=\w) ' (?=(?:s|t|d|m|ll|re|ve)\b)"), "'"),  # it ' s
    (re.compile(r"\b(\d{1,3}) ?, (?=\d{3}\b)"), r"\1,"),  # 3 , 500
    (re.compile(r"(?<=\d) ?([.:/]) (?=\d)"), r"\1"),  # 25 . 5
    (re.compile(r"(?<=\w) ([-–/]) (?=\w)"), r"\1"),  # well - known
    (re.compile(r"(?<=[(\[$£€#]) (?=\S)"), ""),  # ( in
    (re.compile(r"(?<=\S) (?=[)\]%,.;:?!](?:\s|$|[)\]%,.;:?!]))"), ""),  # there ) .
    (re.compile(r"\b(\w)\. (?=\w\.(?!\w))"), r"\1."),  # u. s.
    (re.compile(r"(^|\s)([\"'“‘]) ([^\"“”‘’]*?) ([\"'”’])(?=\s|$|[,.;:?!)])"), r"\1\2\3\4"),  # " a word "
)


def tidy(text: str) -> str:
    """Take out spaces between words and signs.

    >>> tidy("what is the cat ' s name ( of 3 , 500 ) ?")
    "what is the cat's name (of 3,500)?"
    """
    for pattern, instead in _JOINED:
        text = pattern.sub(instead, text)
    return text


def loses_spaces(tokenizer: Tokenizer) -> bool:
    """Say whether a tokenizer's decoder has to guess where spaces were."""
    return isinstance(tokenizer.backend.decoder, decoders.WordPiece)
