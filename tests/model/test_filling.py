"""Batches filled up to whole multiples of rows."""

from __future__ import annotations

import torch

from embedkit.model.filling import fill_up


def test_one_sequence_of_zeros_makes_the_tokens_a_multiple() -> None:
    """70 tokens lack 58 of 128."""
    ids, types = torch.ones(70, dtype=torch.long), torch.ones(70, dtype=torch.long)
    filled, lengths, filled_types = fill_up(ids, [30, 40], types, max_tokens=64)
    assert filled_types is not None
    assert list(lengths) == [30, 40, 58]
    for tensor in (filled, filled_types):
        assert tensor.tolist() == [1] * 70 + [0] * 58
    assert fill_up(filled, lengths, max_tokens=64) == (filled, lengths, None)


def test_no_sequence_gets_longer_than_the_model_reads() -> None:
    """A model of 32 tokens gets a multiple of 32: 70 tokens lack 26 of 96."""
    _, lengths, types = fill_up(torch.ones(70, dtype=torch.long), [30, 40], max_tokens=32)
    assert list(lengths) == [30, 40, 26]
    assert types is None


def test_other_devices_take_any_number_of_rows() -> None:
    ids = torch.ones(70, dtype=torch.long, device="meta")
    assert fill_up(ids, [30, 40], max_tokens=64) == (ids, [30, 40], None)
