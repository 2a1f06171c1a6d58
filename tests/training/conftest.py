from __future__ import annotations

from pathlib import Path

import pytest

from embedkit.tokenization.tokenizer import Tokenizer
from embedkit.training.pretraining.corpus import Corpus
from tests.training.corpora import make_corpus, make_tokenizer, write_texts


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_texts(tmp_path_factory.mktemp("texts") / "texts.jsonl")


@pytest.fixture(scope="session")
def tokenizer(texts: Path) -> Tokenizer:
    return make_tokenizer(texts)


@pytest.fixture(scope="session")
def corpus(texts: Path, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make_corpus(tmp_path_factory.mktemp("cache") / "corpus", texts, tokenizer)
