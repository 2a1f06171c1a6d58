"""Outputs that copy their source: a query that is a sentence of its passage asks for nothing and teaches nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence

_WORD = re.compile(r"\w+")
# Questions that people write often repeat all but their first word: at .75 of the words in a row 2.8 % of SQuAD's would count as copies,
# at .9 it is 0.6 % (benchmarks/generation.py copies).
LEAST_SHARE = 0.9
LEAST_WORDS = 5


def words_of(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def longest_run(output: Sequence[str], source: Sequence[str]) -> int:
    """Return how many words in a row the two have in common at most: ("a b c d", "x b c y") -> 2."""
    best = 0
    before = [0] * (len(source) + 1)
    for word in output:
        now = [0] * (len(source) + 1)
        for place, other in enumerate(source, 1):
            if word == other:
                now[place] = before[place - 1] + 1
                best = max(best, now[place])
        before = now
    return best


def is_copy(
    output: str, source: str, *, least_share: float = LEAST_SHARE, least_words: int = LEAST_WORDS
) -> bool:
    """Say whether an output repeats its source: a run of its words, at least so many and so large a share of it, stands there.

    Case, punctuation and spacing do not count. An output of fewer words than that is a name or a phrase, which may stand in the source.
    """
    own = words_of(output)
    if len(own) < least_words:
        return False
    run = longest_run(own, words_of(source))
    return run >= max(least_words, least_share * len(own))
