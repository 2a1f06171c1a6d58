from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.tokenization.tokenizer import Tokenizer
from embedkit.tokenization.train import train_tokenizer
from embedkit.training.engine.recipes import MaskingRecipe
from embedkit.training.pretraining.masking import Vocabulary, choose_places, hide

# Ids 0 to 4 are special (4 is the mask), 5 to 9 begin words, 10 to 14 go on with one.
VOCABULARY = Vocabulary(
    mask_id=4,
    special=np.arange(15) < 5,
    starts_word=np.arange(15) < 10,
)


def batch_of(
    lengths: list[int], rng: np.random.Generator
) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Sequences that start with 2 and end with 3."""
    parts = [np.concatenate(([2], rng.integers(5, 15, size=n), [3])) for n in lengths]
    return np.concatenate(parts), np.array([n + 2 for n in lengths])


@given(st.lists(st.integers(0, 60), min_size=1, max_size=6), st.integers(0, 1000), st.booleans())
def test_each_sequence_has_its_share_of_places_and_none_is_special(
    lengths: list[int], seed: int, whole_words: bool
) -> None:
    rng = np.random.default_rng(seed)
    ids, sizes = batch_of(lengths, rng)
    recipe = MaskingRecipe(whole_words=whole_words)
    places = choose_places(ids, sizes, VOCABULARY, recipe, rng)
    assert (np.diff(places) > 0).all()
    assert (ids[places] >= 5).all()
    owner = np.repeat(np.arange(len(sizes)), sizes)
    counts = np.bincount(owner[places], minlength=len(sizes))
    wanted = np.maximum(1, np.round(0.15 * np.array(lengths))) * (np.array(lengths) > 0)
    if not whole_words:
        np.testing.assert_array_equal(counts, wanted)
    np.testing.assert_array_equal(counts > 0, wanted > 0)


@given(st.integers(0, 1000))
def test_whole_words_are_hidden_whole(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids, sizes = batch_of([30, 12], rng)
    places = choose_places(ids, sizes, VOCABULARY, MaskingRecipe(ratio=0.3, whole_words=True), rng)
    chosen = np.zeros(len(ids), dtype=bool)
    chosen[places] = True
    goes_on = (ids >= 10) & (np.roll(ids, 1) >= 5)  # a piece after another piece of the same sequence
    np.testing.assert_array_equal(chosen[goes_on], np.roll(chosen, 1)[goes_on])


def test_a_first_word_longer_than_the_share_still_counts() -> None:
    """One word of ten pieces: 15 % of ten is two, but a word is hidden whole."""
    ids = np.array([2, 5, *[10] * 9, 3])
    places = choose_places(
        ids, np.array([12]), VOCABULARY, MaskingRecipe(whole_words=True), np.random.default_rng(0)
    )
    np.testing.assert_array_equal(places, np.arange(1, 11))


def test_eight_in_ten_become_the_mask_and_one_in_ten_a_random_token() -> None:
    """Of 20,000 places: 80 % masked; 10 % random, of which a tenth draw their own token; the rest stay. Three deviations are 0.9 %."""
    rng = np.random.default_rng(3)
    ids = rng.integers(5, 15, size=20_000)
    places = np.arange(20_000)
    hidden = hide(ids, places, VOCABULARY, MaskingRecipe(), rng)
    masked = hidden == 4
    changed = ~masked & (hidden != ids)
    assert masked.mean() == pytest.approx(0.8, abs=0.009)
    assert changed.mean() == pytest.approx(0.09, abs=0.007)
    assert (hidden[~masked] >= 5).all()


def test_what_is_not_chosen_stays() -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(5, 15, size=50)
    hidden = hide(ids, np.array([3, 7]), VOCABULARY, MaskingRecipe(mask_share=1.0, random_share=0.0), rng)
    assert hidden[[3, 7]].tolist() == [4, 4]
    np.testing.assert_array_equal(np.delete(hidden, [3, 7]), np.delete(ids, [3, 7]))


TEXTS = ["the searching searches searched unsearchable things", "searching the thing and other things"] * 60


@pytest.mark.parametrize(("algorithm", "size"), [("wordpiece", 60), ("bpe", 285), ("unigram", 30)])
def test_the_vocabulary_tells_word_starts_for_every_kind_of_tokenizer(algorithm: str, size: int) -> None:
    tokenizer, _ = train_tokenizer(TEXTS, algorithm=algorithm, vocab_size=size)  # type: ignore[arg-type] # of the three
    vocabulary = Vocabulary.of(tokenizer)
    [ids] = tokenizer.ids([" the searching thing"])
    starts = vocabulary.starts_word[ids]
    assert starts.sum() == 3
    assert starts[0]
    assert vocabulary.special.sum() == 5
    assert isinstance(tokenizer, Tokenizer)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ratio": 0.0}, r"ratio is 0\.0; it must be above 0 and below 1"),
        ({"mask_share": 0.8, "random_share": 0.3}, "must not be negative nor exceed 1 together"),
    ],
)
def test_shares_out_of_range_are_refused(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MaskingRecipe(**fields)  # type: ignore[arg-type] # all of these are floats
