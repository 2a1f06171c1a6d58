"""Which tokens make up step s: a pure function of the corpus, the recipe and s, so that starting in the middle is free.

1. Documents are cut into pieces that fit a sequence; a piece never crosses documents.
2. An epoch is a permutation of the pieces, seeded by (seed, epoch). Epoch after epoch they form one endless stream of tokens.
3. Step s owns a window of that stream, as wide as its batch, and takes the pieces that start in it.
4. The pieces of a step are sorted by length and dealt out to the parts of the batch (devices × accumulation).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from embedkit.errors import TrainingError
from embedkit.training.engine.recipes import TextRecipe
from embedkit.training.pretraining.corpus import Corpus

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Pieces:
    """Stretches of a corpus that become one sequence each.

    Shapes:
        starts: (P,) token offsets; lengths: (P,) tokens of text
        first_sentences, num_sentences: (P,) for pairs, None otherwise
    """

    starts: Ints
    lengths: Ints
    first_sentences: Ints | None = None
    num_sentences: Ints | None = None

    def __len__(self) -> int:
        return len(self.starts)


def cut_documents(corpus: Corpus, documents: Ints, length: int, *, num_special: int, step: int) -> Pieces:
    """Cut documents into pieces of `length` tokens, special tokens included, and a shorter rest each.

    A rest's length is rounded down to a multiple of `step`; below 8 tokens it is left out.
    """
    room = length - num_special
    starts = corpus.document_starts
    begin, sizes = starts[documents], (starts[1:] - starts[:-1])[documents]
    full = sizes // room
    number = np.arange(int(full.sum())) - np.repeat(np.cumsum(full) - full, full)  # within its document
    rest = (sizes % room + num_special) // step * step - num_special
    kept = rest + num_special >= 8
    return Pieces(
        np.concatenate((np.repeat(begin, full) + number * room, (begin + full * room)[kept])),
        np.concatenate((np.full(int(full.sum()), room), rest[kept])),
    )


def cut_pairs(corpus: Corpus, documents: Ints, length: int, *, num_special: int) -> Pieces:
    """Cut documents into runs of at least two whole sentences that fit a sequence, to be split in two later.

    A sentence that leaves no room for another ends the run before it and is left out.
    """
    room = length - num_special
    found: list[tuple[int, int]] = []
    offsets = np.asarray(corpus.sentences)
    for begin, end in zip(corpus.documents[documents], corpus.documents[documents + 1], strict=True):
        first = int(begin)
        for sentence in range(int(begin), int(end)):
            if offsets[sentence + 1] - offsets[first] > room:
                if sentence - first >= 2:
                    found.append((first, sentence - first))
                first = sentence if offsets[sentence + 1] - offsets[sentence] <= room else sentence + 1
        if end - first >= 2:
            found.append((first, int(end) - first))
    table = np.array(found, dtype=np.int64).reshape(-1, 2)
    begin, end = offsets[table[:, 0]], offsets[table.sum(axis=1)]
    return Pieces(begin, end - begin, table[:, 0], table[:, 1])


class Stream:
    """An endless shuffled stream of pieces, cut into windows of tokens."""

    def __init__(self, pieces: Pieces, *, num_special: int, seed: int) -> None:
        self.pieces = pieces
        self._sizes = pieces.lengths + num_special
        self._seed = seed
        self.tokens = int(self._sizes.sum())  # in an epoch
        self._epoch = lru_cache(maxsize=2)(self._shuffle)

    def _shuffle(self, epoch: int) -> tuple[Ints, Ints]:
        order = np.random.default_rng([self._seed, epoch, 1]).permutation(len(self._sizes))
        sizes = self._sizes[order]
        return order, np.cumsum(sizes) - sizes

    def window(self, start: int, stop: int) -> Ints:
        """Return the numbers of the pieces that start at a token in [start, stop) of the stream."""
        found = []
        for epoch in range(start // self.tokens, (stop - 1) // self.tokens + 1):
            order, offsets = self._epoch(epoch)
            low, high = np.searchsorted(offsets, (start - epoch * self.tokens, stop - epoch * self.tokens))
            found.append(order[low:high])
        return np.concatenate(found)


@dataclass(frozen=True)
class Plan:
    """Which window of which stream each step takes.

    Shapes:
        edges: (steps + 1,) token offsets; step s takes [edges[s], edges[s + 1]) of its stream
    """

    edges: Ints
    short_steps: int

    @classmethod
    def of(cls, recipe: TextRecipe, steps: int, parts: int) -> Plan:
        """Plan all steps of a run whose batches are dealt out to `parts`.

        Raises:
            TrainingError: a part of the smallest batch would hold less than one sequence.
        """
        budget = np.full(steps, recipe.batch_tokens)
        warm = min(recipe.batch_warmup_steps, steps)
        if warm:
            ramp = np.linspace(recipe.batch_warmup_tokens, recipe.batch_tokens, warm + 1)[:-1]
            budget[:warm] = ramp
        if budget.min() < recipe.sequence_length * parts:
            raise TrainingError(
                f"a batch of {budget.min():,} tokens in {parts} parts holds less than a sequence of {recipe.sequence_length} a part. "
                "Raise text.batch_tokens, or lower run.accumulate or the number of devices"
            )
        short = min(recipe.short_steps, steps)
        edges = np.concatenate(([0], np.cumsum(budget)))
        edges[short + 1 :] -= edges[short] if short else 0
        return cls(edges, short)

    def window(self, step: int) -> tuple[bool, int, int]:
        """Return whether step `step` takes short sequences, and its window."""
        short = step < self.short_steps
        start = 0 if step == self.short_steps else int(self.edges[step])
        return short, start, int(self.edges[step + 1])
