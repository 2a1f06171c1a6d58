"""An encoder can stand where code expects a SentenceTransformer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embedkit import Encoder
from embedkit.encoding.similarity import similarity


def test_a_string_gives_one_vector_and_a_list_gives_rows(tiny_model: Path) -> None:
    encoder = Encoder.load(tiny_model, device="cpu")
    rows = encoder.encode(["the dog runs", "a boy"], batch_size=32, show_progress_bar=False)
    assert rows.shape == (2, encoder.get_sentence_embedding_dimension())
    np.testing.assert_allclose(encoder.encode("a boy"), rows[1], atol=1e-6)
    assert encoder.encode_query("a boy").shape == rows[1].shape
    np.testing.assert_array_equal(encoder.encode_document(["a boy"]), encoder.encode_documents(["a boy"]))


def test_a_prompt_is_named_or_given_and_not_both(tiny_model: Path) -> None:
    encoder = Encoder.load(tiny_model, device="cpu")
    with pytest.raises(ValueError, match="both given"):
        encoder.encode(["a boy"], prompt="query: ", prompt_name="query")


def test_similarities_are_cosines_unless_the_model_says_dot() -> None:
    """[3, 4] and [1, 0]: dot 3, cosine 3 / 5; zeros are similar to nothing."""
    first, second = np.array([[3, 4]], np.float32), np.array([[1, 0], [0, 0]], np.float32)
    np.testing.assert_allclose(similarity(first, second, measure=None), [[0.6, 0]], atol=1e-7)
    np.testing.assert_allclose(similarity(first, second, measure="dot"), [[3, 0]])
    np.testing.assert_allclose(similarity(first[0], second[0], measure="cosine"), [[0.6]], atol=1e-7)
