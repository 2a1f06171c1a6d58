"""Lists to train a reranker on: queries, each with candidate texts and how relevant each is."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from embedkit.errors import RecordError

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
Meaning = Literal["binary", "graded", "teacher", "class"]
# What the numbers of a list say.
MEANINGS: Mapping[Meaning, str] = {
    "binary": "relevant or not",
    "graded": "grades",
    "teacher": "a teacher's scores",
    "class": "classes",
}


@dataclass(frozen=True, kw_only=True)
class RankedLists:
    """Q queries with up to K candidates each, over U distinct texts.

    Shapes:
        queries: (Q,) numbers of texts; candidates: (Q, K) numbers of texts, -1 where a list is shorter
        relevance: (Q, K), what `meaning` says: 0 or 1, grades, a teacher's scores, or numbers of `classes`
    """

    texts: Sequence[str]
    queries: Ints
    candidates: Ints
    relevance: Floats
    meaning: Meaning
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.queries)

    @property
    def num_candidates(self) -> int:
        return int((self.candidates >= 0).sum())

    def take(self, rows: Ints) -> RankedLists:
        return replace(
            self,
            queries=self.queries[rows],
            candidates=self.candidates[rows],
            relevance=self.relevance[rows],
        )

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything in the lists."""
        digest = hashlib.sha256(self.meaning.encode())
        for text in (*self.texts, *self.classes):
            digest.update(text.encode("utf-8") + b"\0")
        for array in (self.queries, self.candidates, self.relevance):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def split(self, share: float, *, most: int, seed: int) -> tuple[RankedLists, RankedLists]:
        """Part the lists at random into those to train on and those held out, no query being in both.

        Raises:
            RecordError: there are fewer than two queries.
        """
        distinct = np.unique(self.queries)
        if len(distinct) < 2:
            raise RecordError(
                f"{len(distinct)} distinct query in the training data; at least 2 are needed, one of them held out. Give more rows"
            )
        order = np.random.default_rng([seed, 7]).permutation(len(distinct))
        count = min(max(1, round(share * len(distinct))), most, len(distinct) - 1)
        held_out = np.isin(self.queries, distinct[order[:count]])
        return self.take(np.flatnonzero(~held_out)), self.take(np.flatnonzero(held_out))


def lay_out(
    texts: Sequence[str],
    queries: Sequence[int],
    candidates: Sequence[Sequence[int]],
    relevance: Sequence[Sequence[float]],
    meaning: Meaning,
) -> RankedLists:
    """Lay lists of different lengths side by side in one table."""
    width = max(map(len, candidates))
    table = np.full((len(queries), width), -1, dtype=np.int64)
    values = np.zeros((len(queries), width), dtype=np.float32)
    for i, (numbers, own) in enumerate(zip(candidates, relevance, strict=True)):
        table[i, : len(numbers)] = numbers
        values[i, : len(own)] = own
    return RankedLists(
        texts=texts,
        queries=np.array(queries, dtype=np.int64),
        candidates=table,
        relevance=values,
        meaning=meaning,
    )


def joined(parts: Sequence[RankedLists]) -> RankedLists:
    """Put lists of several files into one table, over the distinct texts of all."""
    if len(parts) == 1:
        return parts[0]
    numbers: dict[str, int] = {}
    width = max(part.candidates.shape[1] for part in parts)
    queries, candidates, relevance = [], [], []
    for part in parts:
        new = np.array([numbers.setdefault(text, len(numbers)) for text in part.texts], dtype=np.int64)
        pad = ((0, 0), (0, width - part.candidates.shape[1]))
        queries.append(new[part.queries])
        candidates.append(
            np.pad(np.where(part.candidates >= 0, new[part.candidates], -1), pad, constant_values=-1)
        )
        relevance.append(np.pad(part.relevance, pad))
    return replace(
        parts[0],
        texts=list(numbers),
        queries=np.concatenate(queries),
        candidates=np.concatenate(candidates),
        relevance=np.concatenate(relevance),
    )
