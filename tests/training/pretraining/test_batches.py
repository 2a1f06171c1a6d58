from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.errors import TrainingError
from embedkit.tokenization.tokenizer import Tokenizer
from embedkit.training.engine.recipes import TextRecipe
from embedkit.training.pretraining.batches import Pieces, Plan, Stream, cut_documents, cut_pairs
from embedkit.training.pretraining.corpus import Corpus
from embedkit.training.pretraining.masked_batches import BatchMaker
from tests.training.corpora import make_journey, make_recipe


def corpus_of(sentence_lengths: list[list[int]]) -> Corpus:
    """Documents with sentences of these lengths; token i is i."""
    flat = [length for document in sentence_lengths for length in document]
    counts = [len(document) for document in sentence_lengths]
    return Corpus(
        np.arange(sum(flat), dtype=np.uint16),
        np.concatenate(([0], np.cumsum(flat))).astype(np.int64),
        np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
        np.zeros(len(counts), dtype=np.uint64),
        "made up",
    )


def test_documents_are_cut_into_full_pieces_and_a_rest() -> None:
    """With 10 tokens a sequence and 2 special ones a piece holds 8: 20 -> 8, 8, 4; 8 -> 8; 3 -> too short; 15 -> 8, 7."""
    corpus = corpus_of([[20], [8], [3], [15]])
    pieces = cut_documents(corpus, np.arange(4), 10, num_special=2, step=1)
    found = sorted(zip(pieces.starts.tolist(), pieces.lengths.tolist(), strict=True))
    assert found == [(0, 8), (8, 8), (20, 8), (31, 8), (39, 7)]


def test_a_rest_is_rounded_down_to_a_multiple_with_its_special_tokens() -> None:
    """A rest of 13 tokens makes 15 with [CLS] and [SEP]; rounded to eights that is 8, so 6 tokens are left."""
    pieces = cut_documents(corpus_of([[13]]), np.arange(1), 32, num_special=2, step=8)
    assert pieces.lengths.tolist() == [6]


def test_pairs_are_runs_of_whole_sentences_that_fit() -> None:
    """Room for 10: sentences 4, 5 fit, with 3 they would not; 3, 2 end the document; a sentence of 30 fits nowhere."""
    corpus = corpus_of([[4, 5, 3, 2], [30, 4, 4], [7]])
    pieces = cut_pairs(corpus, np.arange(3), 13, num_special=3)
    assert pieces.first_sentences is not None
    assert pieces.num_sentences is not None
    assert pieces.first_sentences.tolist() == [0, 2, 5]
    assert pieces.num_sentences.tolist() == [2, 2, 2]
    assert pieces.starts.tolist() == [0, 9, 44]
    assert pieces.lengths.tolist() == [9, 5, 8]


@given(st.lists(st.integers(6, 62), min_size=1, max_size=40), st.integers(64, 300), st.integers(0, 5))
def test_windows_of_the_stream_hold_each_piece_once_an_epoch(
    lengths: list[int], width: int, seed: int
) -> None:
    sizes = np.array(lengths)
    stream = Stream(Pieces(np.cumsum(sizes), sizes), num_special=2, seed=seed)
    total = stream.tokens
    assert total == int(sizes.sum()) + 2 * len(sizes)
    windows = [stream.window(start, start + width) for start in range(0, 3 * total, width)]
    assert all(len(rows) for rows in windows)  # a window as wide as the longest piece is never empty
    seen = np.concatenate(windows)[: 3 * len(sizes)]
    np.testing.assert_array_equal(np.bincount(seen, minlength=len(sizes)), 3)


def test_epochs_are_shuffled_differently() -> None:
    sizes = np.full(50, 30)
    stream = Stream(Pieces(np.cumsum(sizes), sizes), num_special=2, seed=0)
    first, second = (stream.window(e * stream.tokens, (e + 1) * stream.tokens) for e in (0, 1))
    assert sorted(first) == sorted(second)
    assert first.tolist() != second.tolist()


def test_the_plan_warms_the_batch_and_the_length_up() -> None:
    """Batches grow 64, 96 and then stay at 128; the first three steps read the stream of short pieces."""
    recipe = TextRecipe(
        sequence_length=32,
        short_length=16,
        short_steps=3,
        batch_tokens=128,
        batch_warmup_steps=2,
        batch_warmup_tokens=64,
    )
    plan = Plan.of(recipe, 5, 1)
    assert [plan.window(step) for step in range(5)] == [
        (True, 0, 64),
        (True, 64, 160),
        (True, 160, 288),
        (False, 0, 128),
        (False, 128, 256),
    ]


def test_a_part_must_hold_a_sequence() -> None:
    with pytest.raises(
        TrainingError, match="a batch of 256 tokens in 4 parts holds less than a sequence of 128 a part"
    ):
        Plan.of(TextRecipe(sequence_length=128, batch_tokens=256), 3, 4)


def test_a_batch_does_not_depend_on_what_was_made_before_it(corpus: Corpus, tokenizer: Tokenizer) -> None:
    journey = make_journey(corpus, tokenizer, make_recipe())
    wanted = journey.batch(7)
    other = make_journey(corpus, tokenizer, make_recipe())
    for step in (9, 0, 7):
        found = other.batch(step)
    np.testing.assert_array_equal(found.visible, wanted.visible)
    np.testing.assert_array_equal(found.chosen, wanted.chosen)


@pytest.mark.parametrize("parts", [2, 3])
def test_the_parts_of_a_batch_are_the_batch(corpus: Corpus, tokenizer: Tokenizer, parts: int) -> None:
    journey = make_journey(corpus, tokenizer, make_recipe("masking.next_sentence=next"))
    whole = journey.batch(0)
    found = [whole.part(i, parts) for i in range(parts)]
    assert sum(len(part.lengths) for part in found) == len(whole.lengths)
    assert sum(int(part.chosen.sum()) for part in found) == int(whole.chosen.sum())
    bounds = np.cumsum(whole.lengths)
    for i, part in enumerate(found):
        assert whole.token_type_ids is not None
        assert part.token_type_ids is not None
        start = bounds[i] - whole.lengths[i]
        np.testing.assert_array_equal(part.visible[: whole.lengths[i]], whole.visible[start : bounds[i]])
        np.testing.assert_array_equal(
            part.token_type_ids[: whole.lengths[i]], whole.token_type_ids[start : bounds[i]]
        )


def sequences(
    ids: np.ndarray[tuple[int], np.dtype[np.int64]], lengths: np.ndarray[tuple[int], np.dtype[np.int64]]
) -> list[list[int]]:
    return [part.tolist() for part in np.split(ids, np.cumsum(lengths)[:-1])]


@pytest.mark.parametrize("kind", ["next", "order"])
def test_pairs_are_what_their_label_says(corpus: Corpus, tokenizer: Tokenizer, kind: str) -> None:
    """Label 0: both parts stand next to each other in the corpus. Label 1: swapped, or from two documents."""
    recipe = make_recipe(f"masking.next_sentence={kind}", "text.batch_tokens=2048")
    batch = make_journey(corpus, tokenizer, recipe).batch(0)
    text = " ".join(map(str, corpus.tokens.tolist()))
    cls, sep = tokenizer.special_id("cls"), tokenizer.special_id("sep")
    assert batch.follows is not None
    assert 0.2 < batch.follows.mean() < 0.8
    follows = []
    for ids in sequences(batch.original, batch.lengths):
        assert (ids[0], ids[-1], len(ids) <= 32) == (cls, sep, True)
        middle = ids.index(sep)
        one, two = ids[1:middle], ids[middle + 1 : -1]
        there = " ".join(map(str, one + two)) in text
        swapped = " ".join(map(str, two + one)) in text
        assert there or kind == "next" or swapped
        follows.append(0 if there else 1)
    np.testing.assert_array_equal(batch.follows, follows)


def test_sequences_never_cross_documents(corpus: Corpus, tokenizer: Tokenizer) -> None:
    recipe = make_recipe()
    maker = BatchMaker(corpus, tokenizer, recipe)
    train, _ = corpus.split(0.1)
    pieces = maker.pieces(train, 32)
    starts = corpus.document_starts
    home = np.searchsorted(starts, pieces.starts, side="right")
    np.testing.assert_array_equal(
        home, np.searchsorted(starts, pieces.starts + pieces.lengths - 1, side="right")
    )
    assert set((home - 1).tolist()) <= set(train.tolist())
