"""The real all-MiniLM-L6-v2 beside sentence-transformers, on real sentences and abstracts."""

from __future__ import annotations

from functools import cache
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from embedkit.data.reading import read_documents
from embedkit.encoding.encoder import Encoder
from embedkit.encoding.job import document_text
from embedkit.extras import load_extra
from embedkit.types import Float32

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of their own code
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

pytest.importorskip("sentence_transformers", reason="the extra 'parity' is not installed")

TOLERANCE = 1e-5  # float32, six layers, sums in another order


@cache
def sts_test(data: Path) -> tuple[list[str], list[str]]:
    lines = (data / "sts" / "stsb" / "test.tsv").read_text(encoding="utf-8").split("\n")
    header, *rows = [line.split("\t") for line in lines if line]
    columns = {name: [row[i] for row in rows] for i, name in enumerate(header)}
    return columns["sentence1"], columns["sentence2"]


def abstracts(data: Path, count: int) -> list[str]:
    found = read_documents([str(data / "retrieval" / "scifact" / "corpus.jsonl.zst")])
    return [document_text(document) for document in islice(found, count)]


@pytest.fixture(scope="module")
def encoder(minilm: Path) -> Encoder:
    return Encoder.load(minilm, device="cpu")


def assert_close(ours: Float32, minilm: Path, texts: list[str]) -> None:
    theirs = load_extra("sentence_transformers", purpose="comparing vectors").encode(minilm, texts)
    assert np.abs(ours - theirs).max() <= TOLERANCE


def test_a_thousand_sentences_are_theirs(encoder: Encoder, minilm: Path, shared_data: Path) -> None:
    first, second = sts_test(shared_data)
    texts = [*dict.fromkeys([*first, *second])][:1000]
    assert_close(encoder.encode(texts), minilm, texts)


def test_sixty_abstracts_are_theirs(encoder: Encoder, minilm: Path, shared_data: Path) -> None:
    texts = abstracts(shared_data, 60)
    windows = list(encoder.encode_windows(texts))
    assert sum(int(window.truncated.sum()) for window in windows) > 10  # cut to 256 tokens, as theirs
    assert_close(np.concatenate([window.embeddings for window in windows]), minilm, texts)


def test_odd_texts_are_theirs(encoder: Encoder, minilm: Path) -> None:
    from embedkit.checkpoint.compare import CHECK_TEXTS

    assert_close(encoder.encode(CHECK_TEXTS, on_truncate="ok"), minilm, list(CHECK_TEXTS))


def test_bf16_hardly_turns_a_vector(encoder: Encoder, minilm: Path, shared_data: Path) -> None:
    texts = sts_test(shared_data)[0][:100] + abstracts(shared_data, 8)
    half = Encoder.load(minilm, device="cpu", precision="bf16", force_precision=True).encode(
        texts, on_truncate="ok"
    )
    cosines = (half * encoder.encode(texts, on_truncate="ok")).sum(axis=1) / np.linalg.norm(half, axis=1)
    assert cosines.min() >= 0.9999
