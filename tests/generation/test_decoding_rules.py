from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from embedkit.generation.decoding_rules import DecodingRules, repeating
from embedkit.generation.options import GenerationOptions
from tests.tiny import tiny_tokenizer


def test_what_would_repeat_by_hand() -> None:
    assert repeating([5, 6, 7, 5], 2) == [6]  # 5 6 stands there
    assert repeating([5, 6, 5, 7, 5], 2) == [6, 7]
    assert repeating([5, 6, 7, 5, 6], 3) == [7]
    assert repeating([5, 6, 7], 4) == []
    assert repeating([5, 6], 1) == [5, 6]  # no token twice


@given(st.lists(st.integers(0, 3), max_size=12), st.integers(1, 4))
def test_a_token_repeats_if_its_ngram_stands_there_already(sequence: list[int], size: int) -> None:
    grams = {tuple(sequence[i : i + size]) for i in range(len(sequence) - size + 1)}
    for token in range(4):
        longer = [*sequence, token]
        repeats = len(longer) >= size and tuple(longer[-size:]) in grams
        assert (token in repeating(sequence, size)) == repeats


def test_special_tokens_stand_in_no_text_and_the_end_not_too_early() -> None:
    tokenizer = tiny_tokenizer()  # [PAD] 0, [UNK] 1, [CLS] 2, [SEP] 3, [MASK] 4
    rules = DecodingRules.of(tokenizer, GenerationOptions(min_new_tokens=2, no_repeat_ngram=2))
    assert (rules.end, rules.never) == (3, (0, 1, 2, 4))
    scores = rules.forbid(torch.zeros(2, 9), [[2, 7, 8, 7], [2, 5]], 1)
    assert scores.isinf().nonzero().tolist() == [[0, i] for i in (0, 1, 2, 3, 4, 8)] + [
        [1, i] for i in range(5)
    ]
    later = rules.forbid(torch.zeros(1, 9), [[2, 7, 8]], 2)
    assert later.isinf().nonzero()[:, 1].tolist() == [0, 1, 2, 4]
