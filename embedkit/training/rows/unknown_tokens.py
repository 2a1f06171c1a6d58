"""How much of the training texts a vocabulary does not know: what it cannot tell apart, no training teaches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from embedkit.tokenization.tokenizer import Tokenizer

MANY_UNKNOWN = 0.01  # of all tokens: more than a vocabulary of the same language and kind of text leaves over
MOST_TEXTS = 5_000


class UnknownTokens:
    """Counts the tokens that a vocabulary does not know."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._number = tokenizer.unknown_id
        self._tokens = self._unknown = 0

    def add(self, ids: Sequence[int]) -> None:
        """Count those of a text."""
        self._tokens += len(ids)
        self._unknown += 0 if self._number is None else ids.count(self._number)

    def warnings(self, what: str) -> Iterator[str]:
        """Say so where more than a hundredth of the tokens are unknown."""
        if self._unknown > MANY_UNKNOWN * self._tokens:
            yield f"{self._unknown / self._tokens:.1%} of the tokens of the {what} are unknown to the vocabulary"


def unknown_warnings(tokenizer: Tokenizer, texts: Sequence[str], what: str) -> Iterator[str]:
    """Say so where more than a hundredth of the tokens are unknown; of many texts, an even sample is looked at."""
    every = -(-len(texts) // MOST_TEXTS) or 1
    seen = UnknownTokens(tokenizer)
    for ids in tokenizer.ids(list(texts[::every])):
        seen.add(ids)
    return seen.warnings(what)
