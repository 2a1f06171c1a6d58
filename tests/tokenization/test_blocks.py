"""The tokens of a long text in blocks are those of the whole text, and so are its passages."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import models, normalizers, pre_tokenizers, trainers

from embedkit.data.reading import read_documents
from embedkit.tokenization.blocks import BLOCK_CHARS, Offsets, Span, ids_at_one_end, token_blocks
from embedkit.tokenization.passages import PassageSplitter
from embedkit.tokenization.tokenizer import Side, Tokenizer
from tests.tokenization.test_passages import byte_pieces, offsets, pieces


def short_words(text: str) -> list[Span]:
    """BERT's rule in small: a word of more than eight signs is one unknown token, others have a token for each sign."""
    found: list[Span] = []
    for word in re.finditer(r"\S+", text):
        start, stop = word.span()
        found += [(start, stop)] if stop - start > 8 else [(at, at + 1) for at in range(start, stop)]
    return found


def pairs(text: str) -> list[Span]:
    """What byte pairs make of repetitions: where a token begins depends on where the run of equal signs does."""
    return [match.span() for match in re.finditer(r"(.)\1?", text, re.DOTALL)]


def stripped(text: str) -> list[Span]:
    """A token for each sign, but for the white space around a text."""
    start, stop = len(text) - len(text.lstrip()), len(text.rstrip())
    return [(at, at + 1) for at in range(start, stop)]


@given(
    text=st.text(alphabet="abé .\n", max_size=600)
    | st.lists(st.sampled_from(["a", " " * 70, "b" * 70, "aab ", "c. ", "\n"]), max_size=40).map("".join),
    tokens=st.sampled_from([offsets, pieces, byte_pieces, short_words, pairs, stripped]),
    block_chars=st.integers(48, 128),
)
def test_blocks_join_to_the_tokens_of_the_text(text: str, tokens: Offsets, block_chars: int) -> None:
    found = token_blocks(tokens, text, block_chars=block_chars, shared_chars=40)
    assert [token for block in found for token in block] == tokens(text)


@example(text="a" * 136, spans=pairs, block_chars=49, count=1, left=True)
@example(text="a" * 139, spans=pieces, block_chars=48, count=1, left=True)
@given(
    text=st.text(alphabet="abé .\n", max_size=600)
    | st.lists(st.sampled_from(["a", " " * 70, "b" * 70, "aab ", "c. ", "\n"]), max_size=40).map("".join),
    spans=st.sampled_from([offsets, pieces, byte_pieces, short_words, pairs, stripped]),
    block_chars=st.integers(48, 128),
    count=st.integers(1, 60),
    left=st.booleans(),
)
def test_what_a_cut_text_keeps_is_the_beginning_or_the_end_of_its_tokens(
    text: str, spans: Offsets, block_chars: int, count: int, left: bool
) -> None:
    """An id is the text of its token here, as a number."""

    def tokens(part: str) -> tuple[list[int], list[Span]]:
        found = list(spans(part))
        return [int.from_bytes(part[start:stop].encode()) for start, stop in found], found

    ids, whole = ids_at_one_end(tokens, text, count, left=left, block_chars=block_chars, shared_chars=40)
    truth = tokens(text)[0]
    if whole:
        assert ids == truth
    else:
        assert count <= len(ids) < len(truth)
        assert ids == (truth[-len(ids) :] if left else truth[: len(ids)])


@cache
def words(count: int, *, seed: int = 0) -> str:
    """Made-up text: words of many lengths, sentences, lines, other scripts, a long word now and then."""
    chance = random.Random(seed)
    odd = (
        "x" * 150,
        "naïve",
        "e\u0301",
        "数据库",
        "한국어",
        "👩‍👩‍👧",
        "12,345.6",
        "…",
        "(so)",
        "“quoted.”",
        "\u00a0",
    )
    found = []
    for _ in range(count):
        plain = "".join(chance.choices("etaoinshrdlu", k=chance.randint(1, 11)))
        found.append(chance.choice(odd) if chance.random() < 0.05 else plain)
        found.append(chance.choices([" ", ". ", ", ", "\n", "\n\n    "], [80, 8, 8, 3, 1])[0])
    return "".join(found)


class Watched:
    """Counts how much was tokenized, and the longest text."""

    def __init__(self, tokens: Offsets) -> None:
        self.tokens, self.chars, self.longest = tokens, 0, 0

    def __call__(self, text: str) -> list[Span]:
        self.chars += len(text)
        self.longest = max(self.longest, len(text))
        return list(self.tokens(text))


@cache
def metaspace() -> Backend:
    """SentencePiece's way: space is part of the word after it, and at the text's ends it goes."""
    backend = Backend(models.Unigram())
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Strip()])
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=300, unk_token="<unk>", special_tokens=["<unk>"])
    backend.train_from_iterator(words(2000, seed=1).split("\n"), trainer)
    return backend


@cache
def byte_level() -> Backend:
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        words(2000, seed=1).split("\n"), trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet)
    )
    return backend


@pytest.mark.parametrize("kind", ["word pieces", "metaspace", "byte level"])
def test_a_book_is_tokenized_in_blocks_a_little_more_than_once(kind: str, shipped_encoder: Path) -> None:
    if kind == "word pieces":
        tokens: Offsets = Tokenizer.load(shipped_encoder).offsets
    else:
        backend = metaspace() if kind == "metaspace" else byte_level()

        def tokens(text: str) -> list[Span]:
            return list(backend.encode(text, add_special_tokens=False).offsets)

    book, watched = words(30_000), Watched(tokens)
    assert [token for block in token_blocks(watched, book) for token in block] == tokens(book)
    assert watched.longest == 2**16
    assert watched.chars < 1.1 * len(book)


@cache
def tokenizer_of(kind: str, folder: Path) -> Tokenizer:
    if kind == "word pieces":
        return replace(Tokenizer.load(folder), max_length=300)
    return Tokenizer(metaspace() if kind == "metaspace" else byte_level(), {}, 300)


@cache
def whole_book(kind: str, folder: Path) -> list[int]:
    """Return the ids of all its tokens, which are the same whichever end is cut off."""
    (ids,) = tokenizer_of(kind, folder).ids([words(15_000)])
    return ids


@pytest.mark.parametrize("kind", ["word pieces", "metaspace", "byte level"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_of_a_book_that_is_cut_one_block_is_tokenized(
    kind: str, side: Side, shipped_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = replace(tokenizer_of(kind, shipped_encoder), truncation_side=side)
    book, query = words(15_000), "a short text"
    assert len(book) > 1.3 * BLOCK_CHARS
    room = 300 - tokenizer.single.num_special
    ids, whole = tokenizer.ids([query])[0], whole_book(kind, shipped_encoder)
    watched = Watched(lambda text: ())
    tokens = Tokenizer._tokens

    def watching(self: Tokenizer, text: str) -> tuple[list[int], list[Span]]:
        watched(text)
        return tokens(self, text)

    monkeypatch.setattr(Tokenizer, "_tokens", watching)
    batch = tokenizer.encode([query, book, query])
    own = batch.take([1]).input_ids[len(tokenizer.single.prefix) :][:room].tolist()
    assert own == (whole[:room] if side == "right" else whole[-room:])
    assert batch.lengths[0] == batch.lengths[2] == len(ids) + tokenizer.single.num_special
    assert batch.truncated.tolist() == [False, True, False]
    assert watched.chars < 1.1 * BLOCK_CHARS
    pairs = tokenizer.encode_pairs([query, book], [book, query])
    assert pairs.truncated.tolist() == [True, True]
    assert watched.chars < 3.3 * BLOCK_CHARS


def cuts(tokens: Offsets, title: str, text: str) -> list[Span]:
    return PassageSplitter(offsets=tokens, chunk_tokens=254)(title, text)


def assert_cut_as_a_whole(tokens: Offsets, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The passages of a book in blocks are those of the book tokenized at once, with a title and without."""
    titles = ("", "A title of some words")
    in_blocks = [cuts(tokens, title, text) for title in titles]
    monkeypatch.setattr(
        "embedkit.tokenization.passages.token_blocks", lambda offsets, whole: [offsets(whole)]
    )
    assert in_blocks == [cuts(tokens, title, text) for title in titles]
    assert len(text) > 2 * BLOCK_CHARS
    assert len(in_blocks[1]) > len(in_blocks[0]) > 100


def test_a_book_is_cut_as_if_it_were_tokenized_at_once(
    shipped_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_cut_as_a_whole(Tokenizer.load(shipped_encoder).offsets, words(30_000), monkeypatch)


def beginning(source: Path, chars: int) -> str:
    """Join the texts of a collection, up to so many characters."""
    found = ""
    for document in read_documents([str(source)]):
        if len(found) >= chars:
            break
        found += f"{document.text}\n\n"
    return found[:chars]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["simplewiki", "enwiki"])
def test_real_books_are_cut_as_if_they_were_tokenized_at_once(
    shared_data: Path, shipped_encoder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = beginning(shared_data / "text" / f"{name}.jsonl.zst", 400_000)
    assert_cut_as_a_whole(Tokenizer.load(shipped_encoder).offsets, book, monkeypatch)
