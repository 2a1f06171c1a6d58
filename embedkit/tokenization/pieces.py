"""Many texts at once through a tokenizer like BERT's: our kernel reads what is ASCII, and asks the library for the rest, stretch by stretch.

What a tokenizer of BERT's makes of a text is what it makes of the stretches between white space, one after the other: neither its normalizer
nor its pieces look across it. A stretch that holds other letters than ASCII is tokenized by the library when it is first met, and remembered.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import models, normalizers, pre_tokenizers

from embedkit.tokenization.blocks import Span

if TYPE_CHECKING:
    from embedkit.native.wordpiece import WordPieceTable

Int64 = NDArray[np.int64]
# Texts that were read before a table is made, which takes as long as the library takes for so many short ones.
LEAST_TEXTS = 1000
SHORT_CHARS = 256  # of a text of which it is enough to know that it has no more tokens than characters


class PieceReader:
    """Reads texts for one backend, which is never changed; any number of threads may ask."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self.backend = backend
        self._table: WordPieceTable | None = None
        self._texts: int | None = 0  # so many were read without a table; None: there will be none
        self._turn = Lock()

    def __reduce__(self) -> tuple[type[PieceReader], tuple[tokenizers.Tokenizer]]:
        return PieceReader, (self.backend,)

    def ids(self, texts: Sequence[str]) -> tuple[NDArray[np.int32], Int64] | None:
        """Return the ids of B texts without special tokens, one after the other, and how many each has, (B,); None: the library is to read them.

        It also is where they are few, or one is no string.
        """
        with self._turn:
            table = self._ready(len(texts))
            if table is None or not texts:
                return None
            try:
                joined = "\0".join(texts).encode()
            except (TypeError, UnicodeEncodeError):  # the library says what is wrong with them
                return None
            for _ in range(3):  # adding some may have others forgotten
                found = table.cut(joined, len(texts))
                if found is None or not found.missing:
                    break
                stretches = list(found.missing)
                table.add(stretches, self._read([stretch.decode() for stretch in stretches]))
        if found is None or found.missing:
            return None
        lengths = found.lengths.astype(np.int64)
        others = np.flatnonzero(lengths < 0)
        if not len(others):
            return found.ids, lengths
        return self._with(others, texts, found.ids, lengths)

    def extent(self, text: str) -> tuple[int, Span] | None:
        """Return how many tokens a text has, at most, and where they start and stop; None where that is not plain."""
        own = text.strip()
        # A printable sign of ASCII is in a token; of others we do not know it.
        if not own or not (ends := own[0] + own[-1]).isascii() or not ends.isprintable():
            return None
        start = len(text) - len(text.lstrip())
        span = start, start + len(own)
        with self._turn:
            if self._ready(1) is None:
                return None
        if len(own) <= SHORT_CHARS and own.isascii() and not self._special_token.search(own):
            return len(own), span
        found = self.ids([text])
        return (int(found[1][0]), span) if found is not None and found[1][0] else None

    def _with(
        self, others: Int64, texts: Sequence[str], ids: NDArray[np.int32], lengths: Int64
    ) -> tuple[NDArray[np.int32], Int64]:
        """Put the ids of texts that the library has to read among those of the others."""
        read = self._read([texts[number] for number in others.tolist()])
        own = np.repeat(lengths >= 0, np.maximum(lengths, 0))
        assert len(own) == len(ids)
        lengths[others] = [len(each) for each in read]
        is_read = np.zeros(len(texts), np.bool_)
        is_read[others] = True
        among = np.repeat(is_read, lengths)
        whole = np.empty(len(among), np.int32)
        whole[~among] = ids
        whole[among] = np.fromiter((number for each in read for number in each), np.int32)
        return whole, lengths

    def _read(self, texts: Sequence[str]) -> list[list[int]]:
        return [each.ids for each in self.backend.encode_batch_fast(list(texts), add_special_tokens=False)]

    @cached_property
    def _special_token(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, _special_tokens(self.backend))) or "$^", re.IGNORECASE)

    def _ready(self, count: int) -> WordPieceTable | None:
        """Return the table, and make it once enough texts have come."""
        if self._table is None and self._texts is not None:
            self._texts += count
            if self._texts >= LEAST_TEXTS:
                self._table, self._texts = _table_of(self.backend), None
        return self._table


def split(ids: NDArray[np.int32], lengths: Int64) -> list[list[int]]:
    """Return the ids of each text as a list."""
    flat = ids.tolist()
    ends = [0, *np.cumsum(lengths).tolist()]
    return [flat[start:stop] for start, stop in pairwise(ends)]


def _special_tokens(backend: tokenizers.Tokenizer) -> list[str]:
    return [token.content for token in backend.get_added_tokens_decoder().values()]


def _table_of(backend: tokenizers.Tokenizer) -> WordPieceTable | None:
    """Make a table of a backend's vocabulary, if it is one of BERT's and the kernel can run here."""
    from embedkit.native.wordpiece import LONGEST_WORD, PieceVocabulary, WordPieceTable, can_cut

    model, normalizer = backend.model, backend.normalizer
    if not (
        isinstance(model, models.WordPiece)
        and isinstance(normalizer, normalizers.BertNormalizer)
        and normalizer.clean_text
        and isinstance(backend.pre_tokenizer, pre_tokenizers.BertPreTokenizer)
        and model.max_input_chars_per_word <= LONGEST_WORD
        and can_cut()
    ):
        return None
    special = _special_tokens(backend)
    if not all(content.isascii() and content.split() == [content] for content in special):
        return None
    vocabulary = backend.get_vocab(with_added_tokens=False)
    mark, unknown = model.continuing_subword_prefix, model.unk_token
    if unknown not in vocabulary or not mark.isascii():
        return None
    pieces = {piece: number for piece, number in vocabulary.items() if piece and piece.isascii()}
    following = {piece[len(mark) :]: number for piece, number in pieces.items() if piece.startswith(mark)}
    return WordPieceTable(
        PieceVocabulary(
            first=pieces,
            following={piece: number for piece, number in following.items() if piece},
            unknown=vocabulary[unknown],
            special=special,
            longest_word=model.max_input_chars_per_word,
            lower=bool(normalizer.lowercase),
        )
    )
