"""Masked batches: pieces of a corpus become sequences, single or in pairs, with a part of their tokens hidden.

Source: Devlin et al. 2019, https://arxiv.org/abs/1810.04805, section 3.1 and appendix A; sentence order as in Lan et al. 2020,
https://arxiv.org/abs/1909.11942, section 3.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedkit.errors import TrainingError
from embedkit.tokenization.batch import TokenBatch
from embedkit.tokenization.tokenizer import Tokenizer
from embedkit.training.engine.recipes import PretrainRecipe
from embedkit.training.pretraining.batches import Pieces, cut_documents, cut_pairs
from embedkit.training.pretraining.corpus import Corpus
from embedkit.training.pretraining.masking import Vocabulary, choose_places, hide

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class MaskedBatch:
    """N tokens of B sequences, one after another, with some hidden.

    Shapes:
        visible, original: (N,) ids with and without hiding; chosen: (N,) bool, True where to predict
        lengths: (B,); token_type_ids: (N,), None where all are 0
        follows: (B,) 0 where the second sentence follows the first, 1 where not; None without pairs
    """

    visible: Ints
    original: Ints
    chosen: NDArray[np.bool_]
    lengths: Ints
    token_type_ids: Ints | None = None
    follows: Ints | None = None

    def part(self, number: int, parts: int) -> MaskedBatch:
        """Take every `parts`-th sequence from `number` on; what is masked does not depend on the parting."""
        rows = np.arange(number, len(self.lengths), parts)
        index = TokenBatch(np.arange(len(self.visible)), self.lengths).take(rows).input_ids
        types, follows = self.token_type_ids, self.follows
        return MaskedBatch(
            self.visible[index],
            self.original[index],
            self.chosen[index],
            self.lengths[rows],
            None if types is None else types[index],
            None if follows is None else follows[rows],
        )


class BatchMaker:
    """Makes masked batches of pieces of a corpus; everything random comes from the generator given."""

    def __init__(self, corpus: Corpus, tokenizer: Tokenizer, recipe: PretrainRecipe) -> None:
        self._corpus, self._recipe = corpus, recipe
        self._vocabulary = Vocabulary.of(tokenizer)
        self._template = tokenizer.pair if self.paired else tokenizer.single
        self.num_special = self._template.num_special

    @property
    def paired(self) -> bool:
        return self._recipe.masking.next_sentence != "none"

    def pieces(self, documents: Ints, length: int) -> Pieces:
        """Cut documents into what becomes sequences of up to `length` tokens.

        Raises:
            TrainingError: they give none, or of one document only where pairs need a foreign sentence.
        """
        if not self.paired:
            step = self._recipe.text.length_step
            pieces = cut_documents(self._corpus, documents, length, num_special=self.num_special, step=step)
        else:
            pieces = cut_pairs(self._corpus, documents, length, num_special=self.num_special)
        if not len(pieces):
            what = "pairs of neighbouring sentences" if self.paired else "pieces of at least 8 tokens"
            raise TrainingError(
                f"{len(documents):,} documents hold no {what} within {length} tokens; give longer documents"
            )
        if self._recipe.masking.next_sentence == "next" and len(np.unique(self._home(pieces))) == 1:
            raise TrainingError(
                "there is 1 document with pairs of sentences; a sentence that does not follow comes from another one. "
                "Give more documents, hold out another share (text.held_out), or learn their order: --sentence-order"
            )
        return pieces

    def _home(self, pieces: Pieces) -> Ints:
        """Return a number for each piece that tells its document."""
        assert pieces.first_sentences is not None
        return np.searchsorted(self._corpus.documents, pieces.first_sentences, side="right")

    def batch(self, pieces: Pieces, rows: Ints, length: int, rng: np.random.Generator) -> MaskedBatch:
        """Assemble the sequences of some pieces, longest first, and hide a part of their tokens."""
        rows = rows[np.argsort(-pieces.lengths[rows], kind="stable")]
        tokens = self._pairs(pieces, rows, length, rng) if self.paired else self._singles(pieces, rows)
        ids, lengths, types, follows = tokens
        places = choose_places(ids, lengths, self._vocabulary, self._recipe.masking, rng)
        chosen = np.zeros(len(ids), dtype=np.bool_)
        chosen[places] = True
        visible = hide(ids, places, self._vocabulary, self._recipe.masking, rng)
        return MaskedBatch(visible, ids, chosen, lengths, types, follows)

    def _singles(self, pieces: Pieces, rows: Ints) -> tuple[Ints, Ints, None, None]:
        prefix, suffix = self._template.prefix, self._template.suffix
        flat = [
            part
            for start, length in zip(pieces.starts[rows], pieces.lengths[rows], strict=True)
            for part in (prefix, self._corpus.tokens[start : start + length], suffix)
        ]
        return np.concatenate(flat, dtype=np.int64), pieces.lengths[rows] + self.num_special, None, None

    def _pairs(
        self, pieces: Pieces, rows: Ints, length: int, rng: np.random.Generator
    ) -> tuple[Ints, Ints, Ints, Ints]:
        """Split each piece between two sentences; in half of them the second part is foreign, or the two change places."""
        offsets, tokens, template = self._corpus.sentences, self._corpus.tokens, self._template
        follows = rng.integers(2, size=len(rows))
        flat: list[Any] = []  # Any: tuples and arrays, joined below
        types: list[int] = []
        lengths = np.empty(len(rows), dtype=np.int64)
        for i, row in enumerate(rows):
            first, cut, end = self._split(pieces, int(row), rng)
            one, two = tokens[offsets[first] : offsets[cut]], tokens[offsets[cut] : offsets[end]]
            if follows[i] and self._recipe.masking.next_sentence == "order":
                one, two = two, one
            elif follows[i]:
                two = self._foreign(pieces, int(row), rng)[: length - self.num_special - len(one)]
            parts = (template.prefix, one, template.middle, two, template.suffix)
            flat += parts
            for part, kind in zip(parts, template.type_ids, strict=True):
                types += [kind] * len(part)
            lengths[i] = sum(map(len, parts))
        return np.concatenate(flat, dtype=np.int64), lengths, np.array(types), follows

    def _split(self, pieces: Pieces, row: int, rng: np.random.Generator) -> tuple[int, int, int]:
        """Return the first sentence of a piece, that of its second part, and the end."""
        assert pieces.first_sentences is not None
        assert pieces.num_sentences is not None
        first, count = int(pieces.first_sentences[row]), int(pieces.num_sentences[row])
        return first, first + int(rng.integers(1, count)), first + count

    def _foreign(self, pieces: Pieces, row: int, rng: np.random.Generator) -> Any:  # Any: uint16 or uint32
        """Return the second part of a piece of another document."""
        assert pieces.first_sentences is not None
        documents, offsets = self._corpus.documents, self._corpus.sentences
        home = np.searchsorted(documents, pieces.first_sentences[row], side="right")
        while True:
            other = int(rng.integers(len(pieces)))
            if np.searchsorted(documents, pieces.first_sentences[other], side="right") != home:
                _, cut, end = self._split(pieces, other, rng)
                return self._corpus.tokens[offsets[cut] : offsets[end]]
