from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from embedkit.data.records import ReadOptions
from embedkit.errors import TrainingError
from embedkit.tokenization.tokenizer import Tokenizer
from embedkit.training.pretraining.corpus import (
    Corpus,
    build_corpus,
    corpus_fingerprint,
    corpus_folder,
    open_corpus,
    sentences_of,
)
from tests.training.corpora import write_texts


def test_sentences_end_at_marks_and_line_ends_and_keep_every_letter() -> None:
    text = 'One. "Two!" Three (four.) Five\nSix 3.5 is a number'
    assert sentences_of(text) == ["One.", ' "Two!"', " Three (four.)", " Five", "\nSix 3.5 is a number"]
    assert "".join(sentences_of(text)) == text
    assert sentences_of(" \n ") == []


def test_the_cache_holds_the_ids_of_every_document(texts: Path, tokenizer: Tokenizer, corpus: Corpus) -> None:
    rows = [json.loads(line) for line in texts.read_text(encoding="utf-8").splitlines()]
    starts = corpus.document_starts
    assert len(starts) == len(rows) + 1
    for number in (0, 17, len(rows) - 1):
        [ids] = tokenizer.ids([f"{rows[number]['title']}\n{rows[number]['text']}"])
        assert corpus.tokens[starts[number] : starts[number + 1]].tolist() == ids


def test_the_split_is_by_text_and_about_as_large_as_asked_for(corpus: Corpus) -> None:
    train, held_out = corpus.split(0.2)
    assert len(train) + len(held_out) == len(corpus.hashes)
    assert not set(train) & set(held_out)
    assert 0.1 < len(held_out) / len(corpus.hashes) < 0.3
    assert set(corpus.split(0.1)[1]) <= set(held_out)


def test_the_fingerprint_knows_content_tokenizer_and_reading(
    texts: Path, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    own = corpus_fingerprint([str(texts)], ReadOptions(), tokenizer)
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(texts.read_bytes())
    assert corpus_fingerprint([str(copy)], ReadOptions(), tokenizer) == own
    copy.write_bytes(texts.read_bytes() + b'{"text": "more"}\n')
    assert corpus_fingerprint([str(copy)], ReadOptions(), tokenizer) != own
    assert corpus_fingerprint([str(texts)], ReadOptions(text_field="title"), tokenizer) != own


def test_a_pipe_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(TrainingError, match="come from a pipe"):
        corpus_fingerprint(["-"], ReadOptions(), tokenizer)


def test_one_document_cannot_be_split(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = write_texts(tmp_path / "one.jsonl", documents=1)
    list(build_corpus([str(path)], ReadOptions(), tokenizer, tmp_path / "cache", "x"))
    with pytest.raises(TrainingError, match=r"the corpus has 1 documents with text, of which 0 are held out"):
        open_corpus(tmp_path / "cache").split(0.01)
    with pytest.raises(TrainingError, match=r"--set held_out=0\.1$"):  # as a language model's recipe calls it
        open_corpus(tmp_path / "cache").split(0.01, key="held_out")
    with pytest.raises(TrainingError, match=r"which 1 are held out.*--set text\.held_out=0\.1$"):
        open_corpus(tmp_path / "cache").split(0.9999999999)


def test_an_empty_corpus_has_no_documents(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (tmp_path / "empty.jsonl").write_text("", encoding="utf-8")
    list(build_corpus([str(tmp_path / "empty.jsonl")], ReadOptions(), tokenizer, tmp_path / "cache", "x"))
    with pytest.raises(TrainingError, match="the corpus has 0 documents with text"):
        open_corpus(tmp_path / "cache").split(0.5)


def test_a_damaged_cache_says_so(tmp_path: Path, texts: Path, tokenizer: Tokenizer) -> None:
    folder = tmp_path / "cache"
    list(build_corpus([str(texts)], ReadOptions(), tokenizer, folder, "x"))
    tokens = np.fromfile(folder / "tokens.bin", "<u2")
    tokens[:-3].tofile(folder / "tokens.bin")
    with pytest.raises(
        TrainingError,
        match=rf"tokens\.bin: holds {len(tokens) - 3:,} values; corpus\.json says {len(tokens):,}",
    ):
        open_corpus(folder)
    (folder / "sentences.bin").unlink()
    with pytest.raises(TrainingError, match="the token cache cannot be read"):
        open_corpus(folder)


def test_the_tokens_lie_in_the_cache_unless_a_place_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EMBEDKIT_CACHE", str(tmp_path))
    assert corpus_folder(None, "ab" * 32) == tmp_path / ("corpus-" + "ab" * 8)
    assert corpus_folder(tmp_path / "here", "ab" * 32).parent == tmp_path / "here"
