"""How a request is cut into windows before its texts are tokens."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.encoding.windows import WINDOW_TEXTS
from embedkit.serving.engine.spans import Span, cut_spans, estimated_tokens, text_bytes


def test_windows_end_before_the_text_that_no_longer_fits() -> None:
    assert cut_spans(np.array([3, 4, 5, 20, 1]), 8) == [
        Span(0, 2, 7),
        Span(2, 3, 5),
        Span(3, 4, 20),
        Span(4, 5, 1),
    ]


@given(tokens=st.lists(st.integers(1, 50), max_size=60), most=st.integers(1, 60))
def test_windows_hold_every_text_once_and_no_more_than_they_may(tokens: list[int], most: int) -> None:
    spans = cut_spans(np.array(tokens, np.int64), most)
    assert [row for span in spans for row in range(span.start, span.stop)] == list(range(len(tokens)))
    for span in spans:
        assert span.tokens == sum(tokens[span.start : span.stop])
        assert span.tokens <= most or span.stop == span.start + 1
    for span, following in pairwise(spans):  # each is as full as it can be
        assert span.tokens + tokens[following.start] > most


def test_short_texts_are_cut_by_their_number() -> None:
    spans = cut_spans(np.ones(WINDOW_TEXTS + 1, np.int64), 10**6)
    assert [span.stop for span in spans] == [WINDOW_TEXTS, WINDOW_TEXTS + 1]


def test_texts_are_measured_in_bytes() -> None:
    np.testing.assert_array_equal(text_bytes(["", "abc", "é", "水水"]), [0, 3, 2, 6])


def test_estimates_end_at_what_the_model_reads() -> None:
    sizes = np.array([0, 3, 4, 300])
    np.testing.assert_array_equal(estimated_tokens(sizes, around=2, most=32), [2, 3, 4, 32])
    np.testing.assert_array_equal(estimated_tokens(sizes, around=0, most=None), [1, 1, 2, 100])


def test_what_is_no_text_is_named() -> None:
    with pytest.raises(TypeError, match="text 1 is 5, of type int"):
        text_bytes(["a", 5])  # type: ignore[list-item] # on purpose
    with pytest.raises(TypeError, match="one string"):
        text_bytes("dog")
