"""Masked language modelling: which tokens are hidden, and what the model sees in their place. numpy only.

Source: Devlin et al. 2019, https://arxiv.org/abs/1810.04805, section 3.1, task 1, and appendix A.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedkit.tokenization.tokenizer import Tokenizer
from embedkit.training.engine.recipes import MaskingRecipe

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Vocabulary:
    """What masking must know of a tokenizer.

    Shapes:
        special: (V,) True for special tokens; starts_word: (V,) True for tokens that begin a word
    """

    mask_id: int
    special: Bools
    starts_word: Bools

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Vocabulary:
        """Read it off a tokenizer, whose kind its model and pre-tokenizer tell.

        Raises:
            CheckpointError: the tokenizer has no mask token.
        """
        size = tokenizer.vocab_size
        tokens = [tokenizer.backend.id_to_token(i) or "" for i in range(size)]
        special = np.zeros(size, dtype=np.bool_)
        special[[tokenizer.special_id(role) for role in tokenizer.special_tokens]] = True
        if any(token.startswith("##") for token in tokens):
            starts = [not token.startswith("##") for token in tokens]
        else:
            # Byte-level BPE marks the space before a word with Ġ (line ends with Ċ), Unigram with ▁.
            starts = [token.startswith(("Ġ", "Ċ", "▁")) for token in tokens]
        return cls(tokenizer.special_id("mask"), special, np.array(starts, dtype=np.bool_) | special)


def choose_places(
    input_ids: Ints, lengths: Ints, vocabulary: Vocabulary, recipe: MaskingRecipe, rng: np.random.Generator
) -> Ints:
    """Choose the places to predict: in each sequence `ratio` of its tokens, rounded, at least one; special tokens never.

    With `whole_words`, words are drawn until the next would exceed that number; the first one drawn always counts.

    Shapes:
        input_ids: (N,) sequence after sequence; lengths: (B,)
        returns: (M,) ascending places in [0, N)
    """
    sequence = np.repeat(np.arange(len(lengths)), lengths)  # (N,)
    candidates = np.flatnonzero(~vocabulary.special[input_ids])
    if not len(candidates):
        return candidates
    owner = sequence[candidates]
    budget = np.maximum(1, np.round(recipe.ratio * np.bincount(owner, minlength=len(lengths))))  # (B,)
    if recipe.whole_words:
        follows = np.zeros(len(candidates), dtype=np.bool_)
        follows[1:] = (np.diff(candidates) == 1) & (owner[1:] == owner[:-1])
        starts = vocabulary.starts_word[input_ids[candidates]] | ~follows
    else:
        starts = np.ones(len(candidates), dtype=np.bool_)
    word = np.cumsum(starts) - 1  # of each candidate
    sizes = np.bincount(word)
    word_owner = owner[starts]
    # Words in random order within their sequence; the running number of tokens drawn must stay within the budget.
    order = np.lexsort((rng.random(len(sizes)), word_owner))
    running = np.cumsum(sizes[order])
    first = np.searchsorted(word_owner[order], np.arange(len(lengths)))
    before = np.concatenate(([0], running))[first][word_owner[order]]
    drawn = running - before <= budget[word_owner[order]]
    drawn[np.unique(first[np.bincount(word_owner, minlength=len(lengths)) > 0])] = True
    chosen = np.zeros(len(sizes), dtype=np.bool_)
    chosen[order[drawn]] = True
    places: Ints = candidates[chosen[word]]
    return places


def hide(
    input_ids: Ints, places: Ints, vocabulary: Vocabulary, recipe: MaskingRecipe, rng: np.random.Generator
) -> Ints:
    """Return a copy of the ids in which each place holds [MASK], a random token or what it held."""
    draw = rng.random(len(places))
    ordinary = np.flatnonzero(~vocabulary.special)
    random_ids = ordinary[rng.integers(len(ordinary), size=len(places))]
    hidden = input_ids.copy()
    masked = draw < recipe.mask_share
    randomized = ~masked & (draw < recipe.mask_share + recipe.random_share)
    hidden[places[masked]] = vocabulary.mask_id
    hidden[places[randomized]] = random_ids[randomized]
    return hidden
