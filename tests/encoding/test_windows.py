"""Windows of a stream of texts: where they end, and what a text in chunks becomes."""

from __future__ import annotations

import numpy as np

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
