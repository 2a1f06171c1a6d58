"""How much of the training texts a vocabulary does not know: what it cannot tell apart, no training teaches."""

from __future__ import annotations

from collections.abc import Sequence

from embedkit.tokenization.tokenizer import Tokenizer

MANY_UNKNOWN = 0.01  # of all tokens: more than a vocabulary of the same language and kind of text leaves over
MOST_TEXTS = 5_000


def unknown_warning(tokenizer: Tokenizer, texts: Sequence[str], what: str) -> str | None:
    """Say so where more than a hundredth of the tokens are unknown; of many texts, an even sample is looked at."""
    number = tokenizer.unknown_id
    if number is None:
        return None
    every = -(-len(texts) // MOST_TEXTS) if texts else 1
    tokens = unknown = 0
    for ids in tokenizer.ids(list(texts[::every])):
        tokens += len(ids)
        unknown += ids.count(number)
    if unknown <= MANY_UNKNOWN * tokens:
        return None
    return f"{unknown / tokens:.1%} of the tokens of the {what} are unknown to the vocabulary"
