from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedkit.data.records import Document
from embedkit.errors import RecordError, TrainingError
from embedkit.tokenization.tokenizer import Tokenizer
from embedkit.tokenization.train import Algorithm, smallest_vocabulary, texts_of, train_tokenizer

WORDS = (
    "search",
    "index",
    "vector",
    "sentence",
    "encoder",
    "model",
    "train",
    "resume",
    "token",
    "mask",
    "learn",
    "read",
    "write",
    "house",
    "garden",
)
TEXTS = [" ".join(WORDS[(i * k) % len(WORDS)] for k in range(1, 9)) + f" {i % 10}." for i in range(400)]


@pytest.mark.parametrize(
    ("algorithm", "size", "special"),
    [
        ("wordpiece", 100, ["[CLS]", "[SEP]"]),
        ("bpe", 320, ["<s>", "</s>"]),
        ("unigram", 40, ["<s>", "</s>"]),
    ],
)
def test_each_kind_encodes_text_and_pairs_and_comes_back_from_disk(
    algorithm: Algorithm, size: int, special: list[str], tmp_path: Path
) -> None:
    tokenizer, report = train_tokenizer(TEXTS, algorithm=algorithm, vocab_size=size, max_length=32)
    assert tokenizer.vocab_size == report.vocab_size == size
    cls, sep = (tokenizer.backend.token_to_id(token) for token in special)
    ids = tokenizer.encode(["search the garden"]).input_ids.tolist()
    assert (ids[0], ids[-1]) == (cls, sep)
    pair = tokenizer.encode_pairs(["search"], ["garden"])
    assert pair.token_type_ids is not None
    assert pair.input_ids.tolist().count(sep) == 2
    assert pair.token_type_ids.tolist() == sorted(pair.token_type_ids.tolist())
    assert tokenizer.backend.decode(ids).strip() == "search the garden"
    for role in ("pad", "unk", "cls", "sep", "mask"):
        assert tokenizer.special_id(role) < 5
    tokenizer.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert again.fingerprint == tokenizer.fingerprint
    assert again.max_length == 32


def test_the_report_is_of_texts_that_were_not_trained_on() -> None:
    """400 texts: every hundredth, four, are held out. Their words are in the others too: eight words and a number with its stop."""
    _, report = train_tokenizer(TEXTS, vocab_size=100)
    assert (report.texts, report.held_out_texts, report.held_out_words) == (396, 4, 36)
    assert report.coverage == 1.0
    assert report.unknown_rate == 0.0
    assert 1.0 <= report.fertility < 2.0
    # "0." is a number and a stop; of the eight words most are whole.
    assert 0.5 < report.whole_words <= 8 / 9


def test_an_unseen_sign_is_unknown() -> None:
    """The 100th text, which is held out, alone has a snowman."""
    texts = [*TEXTS[:99], TEXTS[99] + " ☃", *TEXTS[100:]]
    _, report = train_tokenizer(texts, vocab_size=100)
    assert report.coverage < 1.0
    assert report.unknown_rate > 0.0


def test_case_is_kept_where_asked_for() -> None:
    texts = [text.title() for text in TEXTS]
    lower, _ = train_tokenizer(texts, vocab_size=100)
    cased, _ = train_tokenizer(texts, vocab_size=100, lowercase=False)
    assert lower.ids(["Search"]) == lower.ids(["search"])
    assert cased.ids(["Search"]) != cased.ids(["search"])


def test_a_tiny_corpus_has_nothing_to_hold_out() -> None:
    _, report = train_tokenizer(TEXTS[:20], vocab_size=60)
    assert report.held_out_texts == 0
    assert math.isnan(report.fertility)


def test_a_vocabulary_larger_than_the_text_gives_is_refused() -> None:
    with pytest.raises(TrainingError, match=r"the text gives (\d+) tokens; 5,000 were asked for") as error:
        train_tokenizer(TEXTS, vocab_size=5_000)
    largest = int(str(error.value).split("--vocab-size ")[1].split(",")[0])
    # The library breaks ties between merges as its hash tables fall: a few tokens more or less come out each time.
    train_tokenizer(TEXTS, vocab_size=largest - 10)


def test_no_text_and_too_small_a_vocabulary_are_refused() -> None:
    with pytest.raises(TrainingError, match="there is no text to train a tokenizer on"):
        train_tokenizer(["", "  "], vocab_size=100)
    with pytest.raises(ValueError, match="vocab_size is 260; bpe needs at least 261"):
        train_tokenizer(TEXTS, algorithm="bpe", vocab_size=260)
    with pytest.raises(ValueError, match="algorithm is 'words'; it must be one of wordpiece, bpe, unigram"):
        train_tokenizer(TEXTS, algorithm="words", vocab_size=260)  # type: ignore[arg-type] # the wrong one
    assert smallest_vocabulary("wordpiece") == 6


def test_a_title_is_text_too() -> None:
    documents = [Document("1", "text", "title"), Document("2", "text")]
    assert list(texts_of(documents)) == ["title\ntext", "text"]


def test_a_text_that_cannot_be_read_is_told_as_it_is() -> None:
    def texts() -> Iterator[str]:
        yield "the dog runs"
        raise RecordError("notes.txt:1: byte 0xe9 at column 4 is not UTF-8")

    with pytest.raises(RecordError, match=r"^notes\.txt:1: byte 0xe9"):
        train_tokenizer(texts(), vocab_size=50)


def test_a_vocabulary_too_small_for_the_characters_is_refused() -> None:
    with pytest.raises(
        TrainingError, match=r"characters of the texts alone make (\d+) tokens; 10 were"
    ) as error:
        train_tokenizer(TEXTS, vocab_size=10)
    smallest = int(re.findall(r"--vocab-size (\d+)", str(error.value))[0])
    _, report = train_tokenizer(TEXTS, vocab_size=smallest)
    assert report.vocab_size == smallest
