"""Windows of a stream of texts: where they end, and what a text in chunks becomes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from embedkit.encoding.embedder import Embedder
from embedkit.encoding.encoder import Encoder
from embedkit.encoding.windows import (
    WINDOW_CHARS,
    WINDOW_TEXTS,
    average_chunks,
    cut_windows,
    tokenize_window,
)
from tests.tiny import tiny_tokenizer


def test_windows_end_after_so_many_texts_or_characters() -> None:
    long = "x" * (WINDOW_CHARS // 2)
    texts = iter([*["dog"] * (WINDOW_TEXTS + 3), long, long, "girl"])
    assert [len(window) for window in cut_windows(texts)] == [WINDOW_TEXTS, 5, 1]


def test_chunks_count_by_their_tokens() -> None:
    """Room for 2 words: "dog cat girl" becomes pieces of 4 and 3 tokens, of which (4 · 1 + 3 · 8) / 7 = 4 is made."""
    tokenizer = tiny_tokenizer(max_length=4)
    texts = ["dog", "dog cat girl", "dog"]
    window = tokenize_window(texts, tokenizer, prompt="", prompt_tokens=0, on_truncate="chunk")
    assert window.batch.lengths.tolist() == [3, 4, 3]
    assert window.owners.tolist() == [0, 1, 1]
    assert window.rows.tolist() == [0, 1, 0]
    vectors = average_chunks(np.array([[5], [1], [8]], np.float32), window)
    assert vectors.tolist() == [[5], [4]]


def test_texts_of_nothing_that_the_vocabulary_has_are_told() -> None:
    """Each of their words is the one unknown token, so that all of as many words have the same vector."""
    tokenizer = tiny_tokenizer(max_length=4)
    texts = ["dog", "собака кот", "dog кот", "", "🎉", "собака кот"]
    for prompt, tokens in (("", 0), ("the ", 1)):
        for on_truncate in ("warn", "chunk"):
            window = tokenize_window(
                texts,
                tokenizer,
                prompt=prompt,
                prompt_tokens=tokens,
                on_truncate=on_truncate,
            )
            assert window.unknown.tolist() == [False, True, False, False, True, True]
            assert window.empty.tolist() == [False, False, False, True, False, False]


@pytest.mark.parametrize("wrong", [None, math.nan, 5, b"dog", ["dog"]])
def test_what_is_no_text_is_refused_with_its_number(wrong: object, tiny_model: Path) -> None:
    """Gaps of tables are None or NaN, which have no length and no tokens."""
    message = rf"text 1 is .*, of type {type(wrong).__name__}; each must be a string"
    with pytest.raises(TypeError, match=message):
        Encoder.load(tiny_model).encode(["dog", wrong])  # type: ignore[list-item] # that is the point
    with pytest.raises(TypeError, match=message):
        tiny_tokenizer().ids(["dog", wrong])  # type: ignore[list-item] # as above


def test_queries_without_a_direction_become_zeros_and_documents_do_not(tiny_model: Path) -> None:
    encoder = Encoder.load(tiny_model)
    texts = ["dog", "собака", " ", "кот"]
    for role, kept in (("query", [True, False, False, False]), ("document", [True, True, True, True])):
        embedder = Embedder(encoder, role)  # type: ignore[arg-type] # of a loop
        assert embedder(texts).any(axis=1).tolist() == kept
        assert (embedder.unknown, embedder.empty) == (2, 1)
