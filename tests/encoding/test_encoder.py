"""`Encoder`: rows in the order of the texts, whatever happens to them on the way."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embedkit.checkpoint.folder import read_model_folder
from embedkit.checkpoint.weights import load_sentence_encoder
from embedkit.encoding.encoder import Encoder
from embedkit.encoding.windows import WINDOW_TEXTS, TextRefusedError
from embedkit.errors import CheckpointError
from embedkit.inference.numpy_runtime.sentence_head import normalize
from embedkit.model.config import SentenceConfig
from embedkit.types import Float32
from tests.encoding.fakes import CountingBackend
from tests.tiny import write_static_model, write_tiny_model

ROUNDING = 1e-6  # unit vectors, other batch shapes
TEXTS = [
    "the dog runs",
    "",
    "a small red horse eats a large green guitar by the beach",
    "girl",
    "the dog runs",
]
PROMPTS = {"query": "which dog: ", "passage": "a song: ", "long": "dog " * 40}


@pytest.fixture(scope="module")
def encoder(tiny_model: Path) -> Encoder:
    return Encoder.load(tiny_model)


def one_by_one(folder: Path, texts: list[str]) -> Float32:
    """The obvious twin: one text at a time through the padded forward."""
    read = read_model_folder(folder)
    model = load_sentence_encoder(read)
    with torch.inference_mode():
        rows = [model(torch.from_numpy(read.tokenizer.encode([text]).input_ids)[None]) for text in texts]
    result: Float32 = torch.cat(rows).numpy()
    return result


def test_rows_stand_in_the_order_of_the_texts(encoder: Encoder, tiny_model: Path) -> None:
    vectors = encoder.encode(TEXTS)
    assert vectors.shape == (5, 32)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, one_by_one(tiny_model, TEXTS), rtol=0, atol=ROUNDING)
    np.testing.assert_array_equal(vectors[0], vectors[4])


@pytest.fixture(scope="module")
def alone(tiny_model: Path) -> dict[str, Float32]:
    distinct = [*dict.fromkeys([*TEXTS, "dog", "a b c", "é"])]
    return dict(zip(distinct, one_by_one(tiny_model, distinct), strict=True))


@given(data=st.data())
@settings(deadline=None, max_examples=25)
def test_any_order_and_any_duplicates_give_each_text_its_vector(
    encoder: Encoder, alone: dict[str, Float32], data: st.DataObject
) -> None:
    texts = data.draw(st.lists(st.sampled_from(list(alone)), max_size=12))
    vectors = encoder.encode(texts)
    assert vectors.shape == (len(texts), 32)
    for text, row in zip(texts, vectors, strict=True):
        np.testing.assert_allclose(row, alone[text], rtol=0, atol=ROUNDING)


def test_no_texts_give_no_rows_of_the_right_width(tiny_model: Path) -> None:
    assert Encoder.load(tiny_model, truncate_dim=7).encode([]).shape == (0, 7)


def test_equal_texts_of_a_window_are_computed_once_and_batches_keep_to_the_budget(tiny_model: Path) -> None:
    backend = CountingBackend()
    encoder = Encoder(read_model_folder(tiny_model), backend, token_budget=20)
    texts = [("dog " * (i % 9)).strip() for i in range(60)]
    vectors = encoder.encode(texts)
    assert vectors[:, 0].tolist() == [i % 9 + 2 for i in range(60)]
    assert sum(len(batch) for batch in backend.batches) == 9
    assert all(int(batch.lengths.max()) * len(batch) <= 20 for batch in backend.batches)
    lengths = [length for batch in backend.batches for length in batch.lengths.tolist()]
    assert lengths == sorted(lengths, reverse=True)


def test_a_text_longer_than_the_budget_is_a_batch_of_its_own(tiny_model: Path) -> None:
    backend = CountingBackend()
    Encoder(read_model_folder(tiny_model), backend, token_budget=4).encode(["dog " * 20, "cat " * 20])
    assert [batch.lengths.tolist() for batch in backend.batches] == [[22], [22]]


def test_only_two_windows_of_a_stream_are_read_ahead(tiny_model: Path) -> None:
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield "dog"

    encoder = Encoder(read_model_folder(tiny_model), CountingBackend())
    windows = encoder.encode_windows(endless())
    next(windows)
    assert read == 2 * WINDOW_TEXTS
    del windows


def test_truncate_dim_keeps_the_first_dimensions_at_unit_length(encoder: Encoder, tiny_model: Path) -> None:
    short = Encoder.load(tiny_model, truncate_dim=5)
    assert short.dimension == 5
    expected = encoder.encode(TEXTS)[:, :5]
    expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(short.encode(TEXTS), expected, rtol=0, atol=ROUNDING)
    assert {name for name in short.fingerprint if short.fingerprint[name] != encoder.fingerprint[name]} == {
        "dimension"
    }
    for wrong in (0, 33):
        with pytest.raises(CheckpointError, match=f"truncate_dim {wrong} was asked for; its vectors have 32"):
            Encoder.load(tiny_model, truncate_dim=wrong)


def test_truncate_dim_of_a_model_that_does_not_normalize_only_cuts(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "m", sentence=SentenceConfig())
    whole, cut = Encoder.load(folder).encode(TEXTS), Encoder.load(folder, truncate_dim=5).encode(TEXTS)
    np.testing.assert_array_equal(cut, whole[:, :5])


def test_normalizing_leaves_a_zero_row_at_zero() -> None:
    rows = normalize(np.array([[3.0, 4.0], [0.0, 0.0]], dtype=np.float32))
    np.testing.assert_allclose(rows, [[0.6, 0.8], [0.0, 0.0]], rtol=1e-6)


def test_what_is_cut_is_flagged_and_said(encoder: Encoder, caplog: pytest.LogCaptureFixture) -> None:
    texts = ["dog", "cat " * 31, "  \n"]
    (window,) = encoder.encode_windows(texts)
    assert window.truncated.tolist() == [False, True, False]
    assert window.empty.tolist() == [False, False, True]
    assert window.num_tokens == 3 + 32 + 2
    with caplog.at_level(logging.WARNING):
        encoder.encode(texts, on_truncate="ok")
        assert not caplog.records
        encoder.encode(texts)
    assert "1 of 3 texts were cut to the 32 tokens that the model reads" in caplog.text


BLANK = "\u200b"  # a sign that the tokenizer drops


def test_a_text_without_tokens_becomes_the_zero_vector(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a static model, which puts no tokens of its own around a text; neighbours stay what they are."""
    encoder = Encoder.load(write_static_model(tmp_path / "m"))
    texts = ["dog", BLANK, "cat", "", " \n"]
    for how in ("ok", "chunk", "error"):
        vectors = encoder.encode(texts, on_truncate=how)
        assert vectors.any(axis=1).tolist() == [True, False, True, False, False]
        np.testing.assert_array_equal(vectors[0], encoder.encode(["dog"])[0])
    (window,) = encoder.encode_windows(texts)
    assert window.empty.tolist() == [False, True, False, True, True]
    assert window.num_tokens == 2
    with caplog.at_level(logging.WARNING):
        assert not encoder.encode([BLANK] * 3, on_truncate="ok").any()
    assert "3 of 3 texts have no tokens for this model: their vectors are zeros" in caplog.text


def test_a_text_of_dropped_signs_is_empty_also_behind_a_prompt(encoder: Encoder) -> None:
    texts = ["dog", BLANK, "d", "##s"]
    for prompt in ("", "the "):
        (window,) = encoder.encode_windows(texts, prompt=prompt)
        assert window.empty.tolist() == [False, True, False, False]
    assert window.embeddings.any(axis=1).all()  # [CLS] and [SEP] are there
    np.testing.assert_array_equal(encoder.encode([BLANK]), encoder.encode([""]))


def test_a_text_that_is_too_long_can_be_refused(encoder: Encoder) -> None:
    with pytest.raises(
        TextRefusedError, match=r"the text 'cat .*' has 42 tokens; the model reads 32\. Cut it"
    ) as caught:
        encoder.encode(["dog", "dog", "cat " * 40], on_truncate="error")
    assert caught.value.row == 2


def test_chunks_are_averaged_by_their_tokens(encoder: Encoder, tiny_model: Path) -> None:
    """70 words in room for 30: pieces of 32, 32 and 12 tokens with the special ones."""
    words = ["dog", "cat", "horse", "girl", "boy"] * 14
    pieces = [" ".join(words[i : i + 30]) for i in (0, 30, 60)]
    rows = one_by_one(tiny_model, pieces)
    mean = (32 * rows[0] + 32 * rows[1] + 12 * rows[2]) / 76
    vectors = encoder.encode(["girl", " ".join(words), "boy", ""], on_truncate="chunk")
    np.testing.assert_allclose(vectors[1], mean / np.linalg.norm(mean), rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(
        vectors[[0, 2, 3]], one_by_one(tiny_model, ["girl", "boy", ""]), rtol=0, atol=ROUNDING
    )


def test_prompts_stand_before_texts_by_name_role_and_default(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "m", prompts=PROMPTS, default_prompt_name="passage")
    other = write_tiny_model(tmp_path / "n", prompts={"passage": "a song: "}, default_prompt_name="passage")
    encoder = Encoder.load(folder)
    query, passage = (
        one_by_one(folder, [PROMPTS[name] + text for text in TEXTS]) for name in ("query", "passage")
    )
    assert encoder.prompt("query") == "which dog: "
    for vectors, expected in (
        (encoder.encode(TEXTS), passage),
        (encoder.encode(TEXTS, prompt=""), one_by_one(folder, TEXTS)),
        (encoder.encode(TEXTS, prompt="which dog: "), query),
        (encoder.encode_queries(TEXTS), query),
        (encoder.encode_documents(TEXTS), passage),
        (Encoder.load(other).encode_queries(TEXTS), one_by_one(folder, TEXTS)),  # never the default one
    ):
        np.testing.assert_allclose(vectors, expected, rtol=0, atol=ROUNDING)
    with pytest.raises(
        CheckpointError, match=r"no prompt named 'title'; it has: long, passage, query\. Give the text"
    ):
        encoder.prompt("title")
    with pytest.raises(
        CheckpointError, match=r"the prompt 'dog dog .*' has 40 tokens; the model reads 30 besides"
    ):
        encoder.encode(TEXTS, prompt=PROMPTS["long"])


def test_a_prompt_that_is_not_pooled_is_left_out_of_every_chunk(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "m", sentence=SentenceConfig(pool_prompt=False), prompts=PROMPTS)
    encoder = Encoder.load(folder)
    tokenizer, model = encoder.tokenizer, load_sentence_encoder(encoder.folder)
    prompt = tokenizer.ids([PROMPTS["query"]])[0]
    words = tokenizer.ids(["dog cat horse girl boy " * 10])[0]
    room = 32 - 2 - len(prompt)
    total, weight = np.zeros(32), 0
    for start in range(0, 50, room):
        ids = torch.tensor([[2, *prompt, *words[start : start + room], 3]])
        with torch.inference_mode():
            pooled = model.encoder(ids)[0, 1 + len(prompt) :].mean(dim=0).numpy()
        total, weight = total + pooled * ids.shape[1], weight + ids.shape[1]
    vectors = encoder.encode(["dog cat horse girl boy " * 10], prompt=PROMPTS["query"], on_truncate="chunk")
    np.testing.assert_allclose(vectors[0], total / weight, rtol=0, atol=1e-5)
    backend = CountingBackend()
    Encoder(encoder.folder, backend).encode(["dog"], prompt=PROMPTS["query"])
    assert backend.skips == {1 + len(prompt)}
