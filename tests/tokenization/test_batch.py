"""Token batches: taking rows and padding, beside plain lists."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.tokenization.batch import TokenBatch

Sequences = list[list[int]]
SEQUENCES = st.lists(st.lists(st.integers(1, 99), max_size=6), max_size=6)


def batch_of(sequences: Sequences, *, extra: bool = True) -> TokenBatch:
    flat = np.array([token for sequence in sequences for token in sequence], dtype=np.int64)
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
    if not extra:
        return TokenBatch(flat, lengths)
    return TokenBatch(flat, lengths, flat % 2, lengths + np.arange(len(lengths)) % 2)


def test_the_worked_example() -> None:
    batch = batch_of([[1, 2, 3], [4]])
    taken = batch.take([1, 0, 1])
    assert taken.input_ids.tolist() == [4, 1, 2, 3, 4]
    assert taken.lengths.tolist() == [1, 3, 1]
    ids, mask, types = batch.padded(0)
    assert ids.tolist() == [[1, 2, 3], [4, 0, 0]]
    assert mask.tolist() == [[True, True, True], [True, False, False]]
    assert types.tolist() == [[1, 0, 1], [0, 0, 0]]
    assert batch.truncated.tolist() == [False, True]


@given(SEQUENCES, st.data())
def test_taking_rows_is_taking_sequences(sequences: Sequences, data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, len(sequences) - 1)) if sequences else st.just([]))
    batch = batch_of(sequences)
    taken, expected = batch.take(rows), batch_of([sequences[row] for row in rows])
    np.testing.assert_array_equal(taken.input_ids, expected.input_ids)
    np.testing.assert_array_equal(taken.lengths, expected.lengths)
    np.testing.assert_array_equal(taken.token_type_ids, expected.token_type_ids)
    np.testing.assert_array_equal(taken.truncated, batch.truncated[rows] if rows else [])


@given(SEQUENCES)
def test_padding_loses_nothing(sequences: Sequences) -> None:
    batch = batch_of(sequences, extra=False)
    ids, mask, types = batch.padded(7)
    assert [row[real].tolist() for row, real in zip(ids, mask, strict=True)] == sequences
    assert (ids[~mask] == 7).all()
    assert not types.any()
    assert not batch.truncated.any()
    assert len(batch) == len(sequences)


def test_joining_keeps_what_is_attended_to() -> None:
    parts = [TokenBatch(np.arange(n), np.array([n]), num_keys=np.array([n - 1])) for n in (3, 2)]
    joined = TokenBatch.joined(parts)
    np.testing.assert_array_equal(joined.num_keys, [2, 1])


def test_lengths_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(ValueError, match="lengths add up to 3; input_ids has 2 tokens"):
        TokenBatch(np.array([1, 2]), np.array([3]))


@given(st.lists(SEQUENCES, min_size=1, max_size=4), st.booleans())
def test_joining_batches_is_joining_lists(parts: list[Sequences], extra: bool) -> None:
    joined = TokenBatch.joined([batch_of(part, extra=extra) for part in parts])
    expected = batch_of([sequence for part in parts for sequence in part], extra=extra)
    np.testing.assert_array_equal(joined.input_ids, expected.input_ids)
    np.testing.assert_array_equal(joined.lengths, expected.lengths)
    if extra:
        assert joined.token_type_ids is not None
        assert expected.token_type_ids is not None
        np.testing.assert_array_equal(joined.token_type_ids, expected.token_type_ids)
    else:
        assert joined.token_type_ids is None
