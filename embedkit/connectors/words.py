"""Words for stores that count nothing themselves: BM25 as a product of two sparse vectors, whose idf the store puts in.

A passage's weight of a word is BM25's term (Robertson and Zaragoza 2009, https://doi.org/10.1561/1500000019, eq. 3.15) without the idf; as the mean length
would have to be known beforehand, it is a constant. A query has a 1 for each word.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter

K1, B = 1.2, 0.75
_MEAN_WORDS = 256  # as Qdrant's own "Qdrant/bm25" has it


def words_of(text: str) -> list[str]:
    """Return the words of a text, in lower case."""
    return re.findall(r"\w+", text.lower())


def word_number(word: str) -> int:
    """Return the number of a word among 2^32."""
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=4).digest(), "big")


def word_weights(text: str) -> dict[int, float]:
    """Return the weight of each word of a passage, by its number; K1 + 1 is the limit."""
    counts = Counter(map(word_number, words_of(text)))
    norm = K1 * (1 - B + B * counts.total() / _MEAN_WORDS)
    return {number: count * (K1 + 1) / (count + norm) for number, count in counts.items()}
