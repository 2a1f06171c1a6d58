"""Tables of word vectors as sentence-transformers' `WordEmbeddings` writes them; recurrent and convolutional models by their names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sentence_transformers", reason="the extra 'parity' is not installed")

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize
from sentence_transformers.sentence_transformer.modules import CNN, LSTM, Pooling, WordEmbeddings, WordWeights
from sentence_transformers.sentence_transformer.modules.tokenizer import WhitespaceTokenizer

from embedkit.checkpoint.folder import read_model_folder
from embedkit.checkpoint.sentence_folder import load_model, write_model
from embedkit.encoding.encoder import Encoder
from embedkit.errors import CheckpointError

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of their own code
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

WORDS = ["PAD", "dog", "Dog", "runs", "new", "York", "isn't", "water", ","]
TEXTS = [
    "The DOG runs, in New York!",
    "",
    "the of",
    "(dog) isn't 'runs' Dog",
    "dog\u00a0runs\nwater , dog",
    "x y",
]


def words(**how: Any) -> Any:  # Any: an untyped library
    table = np.random.default_rng(0).normal(size=(len(WORDS), 6)).astype(np.float32)
    tokenizer = WhitespaceTokenizer(vocab=WORDS, stop_words={"the", "of"}, **how)
    return WordEmbeddings(tokenizer, table, max_seq_length=4)


@pytest.mark.parametrize("lowercase", [False, True])
@pytest.mark.parametrize("norm", [False, True])
def test_texts_get_their_vectors(lowercase: bool, norm: bool, tmp_path: Path) -> None:
    modules = [
        words(do_lower_case=lowercase),
        Pooling(6, pooling_mode="mean"),
        *([Normalize()] if norm else []),
    ]
    theirs = SentenceTransformer(modules=modules, device="cpu")
    theirs.save(str(tmp_path))
    ours = Encoder.load(tmp_path, device="cpu").encode(TEXTS, on_truncate="ok")
    np.testing.assert_allclose(ours, theirs.encode(TEXTS), atol=1e-6)
    assert ours.any(axis=1).tolist() == [True, False, False, True, True, False]


def test_such_a_table_is_not_written_as_another_kind(tmp_path: Path) -> None:
    SentenceTransformer(modules=[words(), Pooling(6)], device="cpu").save(str(tmp_path / "m"))
    folder = read_model_folder(tmp_path / "m")
    with pytest.raises(ValueError, match="a table of word vectors cannot be written"):
        write_model(tmp_path / "n", load_model(folder), folder.tokenizer, folder.modules, family=None)


@pytest.mark.parametrize("kind", ["LSTM", "CNN", "WordWeights", "max"])
def test_what_stands_on_word_vectors_besides_a_mean_is_refused_by_its_name(kind: str, tmp_path: Path) -> None:
    between: dict[str, list[Any]] = {
        "LSTM": [LSTM(6, 6, bidirectional=False)],
        "CNN": [CNN(6, 6, [3])],
        "WordWeights": [WordWeights(WORDS, dict.fromkeys(WORDS, 1.0))],
        "max": [],
    }
    modules = [words(), *between[kind], Pooling(6, pooling_mode="max" if kind == "max" else "mean")]
    SentenceTransformer(modules=modules, device="cpu").save(str(tmp_path))
    with pytest.raises(CheckpointError, match=rf"\b{kind}\b"):
        Encoder.load(tmp_path, device="cpu")
