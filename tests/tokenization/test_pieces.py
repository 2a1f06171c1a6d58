"""Our reading of ASCII text by WordPiece gives what the library gives, to the last token, whatever stands in a text."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, models, normalizers, pre_tokenizers, processors

from embedkit.models import find_model
from embedkit.native import wordpiece
from embedkit.native.wordpiece import can_cut
from embedkit.tokenization import pieces
from embedkit.tokenization.passages import PassageSplitter
from embedkit.tokenization.pieces import PieceReader, split
from embedkit.tokenization.tokenizer import Tokenizer

pytestmark = pytest.mark.skipif(not can_cut(), reason="the kernels are not compiled here")

WORDS = [
    "the",
    "un",
    "##aff",
    "##able",
    "a",
    "##a",
    "b",
    "##b",
    ".",
    "'",
    "-",
    "[",
    "]",
    "##s",
    "é",
    "e",
    "水",
    "1",
    "##1",
    "T",
]
ALPHABET = "abstheunff ab1.'-[]ETAé水́ İ ​\t\n\x0b\x01\x7f\0<S>"
SPECIAL = ["[UNK]", "[MASK]", "<s>"]


@cache
def backend(lowercase: bool = True, longest: int = 9, strip: bool | None = None) -> tokenizers.Tokenizer:
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *WORDS])}
    made = tokenizers.Tokenizer(
        models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=longest)
    )
    made.normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=strip)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[UNK] $A [MASK] [MASK]", special_tokens=[("[UNK]", 0), ("[MASK]", 1)]
    )
    made.add_special_tokens([AddedToken("[UNK]"), AddedToken("<s>", normalized=True)])
    made.add_special_tokens([AddedToken("[MASK]", lstrip=True)])
    return made


@pytest.fixture(autouse=True)
def from_the_first_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "LEAST_TEXTS", 0)


def wanted(made: tokenizers.Tokenizer, texts: list[str]) -> list[list[int]]:
    return [each.ids for each in made.encode_batch(texts, add_special_tokens=False)]


some_text = st.one_of(
    st.text(ALPHABET, max_size=40),
    st.lists(st.sampled_from([*WORDS, *SPECIAL, "[mask]", "unaffable", "the's", "naïve", " "]), max_size=12).map(" ".join),
    st.text(max_size=20),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    st.lists(some_text, min_size=1, max_size=6),
    st.booleans(),
    st.sampled_from([1, 3, 9]),
    st.sampled_from([None, True, False]),
)
def test_ids_are_those_of_the_library(
    texts: list[str], lowercase: bool, longest: int, strip: bool | None
) -> None:
    made = backend(lowercase, longest, strip)
    try:
        own = wanted(made, texts)
    except (UnicodeEncodeError, TypeError):
        own = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "LEAST_TEXTS", 0)
        reader = PieceReader(made)
        for _ in range(2):  # the second time stretches are known
            found = reader.ids(texts)
            if found is None:  # a text with a zero in it, which parts texts for the kernel
                assert own is None or any("\0" in text for text in texts)
            else:
                assert split(*found) == own


def test_a_table_is_made_once_enough_texts_have_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "LEAST_TEXTS", 5)
    reader = PieceReader(backend())
    assert reader.ids(["the"] * 4) is None
    assert reader.ids(["the"]) is not None
    assert reader.ids([]) is None
    for number in (None, 1.5):
        assert reader.ids(["a", number]) is None  # type: ignore[list-item]  # that is what is tested
    assert reader.ids(["a", "\ud800"]) is None


def test_more_stretches_than_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go; what has no room even then is read by the library."""
    monkeypatch.setattr(wordpiece, "MOST_STRETCHES", 8)
    monkeypatch.setattr(wordpiece, "IDS_A_STRETCH", 4)
    monkeypatch.setattr(wordpiece, "MOST_MISSING", 6)
    made = backend()
    reader = PieceReader(made)
    for first in range(0, 40, 3):
        texts = [f"the é{number} a{'b' * (number % 4)}é un" for number in range(first, first + 3)]
        found = reader.ids(texts)
        assert found is not None
        assert split(*found) == wanted(made, texts)
    many = [f"é{number} the" for number in range(30)]
    found = reader.ids(many)
    assert found is None or split(*found) == wanted(made, many)
    long = ["the " + "é" * 200 + " a", "b b"]
    found = reader.ids(long)
    assert found is not None
    assert split(*found) == wanted(made, long)


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": normalizers.Sequence([normalizers.BertNormalizer()])},
        {"normalizer": normalizers.BertNormalizer(clean_text=False)},
        {"pre_tokenizer": pre_tokenizers.Whitespace()},
        {"model": models.WordPiece({"a": 0}, unk_token="[UNK]")},
        {"model": models.WordPiece({"[UNK]": 0}, unk_token="[UNK]", max_input_chars_per_word=1000)},
        {"model": models.WordLevel({"[UNK]": 0}, unk_token="[UNK]")},
    ],
)
def test_other_tokenizers_are_left_to_the_library(change: dict[str, object]) -> None:
    made = copy.deepcopy(backend())
    for name, value in change.items():
        setattr(made, name, value)
    assert PieceReader(made).ids(["a"]) is None


def test_a_special_token_of_other_letters_leaves_all_to_the_library() -> None:
    for content in ("¡go", "two words"):
        made = copy.deepcopy(backend())
        made.add_tokens([content])
        assert PieceReader(made).ids(["a"]) is None


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("changes", [{}, {"drop_unknown": True}, {"max_chars": 7}])
@pytest.mark.parametrize("max_length", [4, 6, 100])
def test_batches_are_those_of_the_library(
    monkeypatch: pytest.MonkeyPatch, side: str, changes: dict[str, object], max_length: int
) -> None:
    tokenizer = Tokenizer(
        backend(),
        {"unk": "[UNK]"},
        max_length,
        truncation_side=side,  # type: ignore[arg-type]  # one of the two
        **changes,  # type: ignore[arg-type]  # fields
    )
    texts = ["the unaffable", "", "zzz the zzz", "é the a b a b a b", "[MASK] a", " ", "ab" * 30, "水 the"]
    fast = tokenizer.encode(texts)
    assert tokenizer.pieces.ids(["a"]) is not None
    chunks = None if changes else tokenizer.encode_chunks(texts)
    monkeypatch.setattr(PieceReader, "ids", lambda *_: None)
    slow = tokenizer.encode(texts)
    for name in ("input_ids", "lengths", "untruncated_lengths"):
        np.testing.assert_array_equal(getattr(fast, name), getattr(slow, name), err_msg=name)
        assert getattr(fast, name).dtype == getattr(slow, name).dtype
    if chunks is not None:
        other = tokenizer.encode_chunks(texts)
        np.testing.assert_array_equal(chunks[0].input_ids, other[0].input_ids)
        np.testing.assert_array_equal(chunks[1], other[1])


def test_copies_share_what_was_read_and_another_backend_has_its_own() -> None:
    tokenizer = Tokenizer(backend(), {}, 10)
    assert tokenizer.with_max_length(20).pieces is tokenizer.pieces
    other = copy.deepcopy(backend())
    assert replace(tokenizer, backend=other).pieces.backend is other
    assert copy.deepcopy(tokenizer).pieces.ids(["the"]) is not None


def test_the_pages_of_the_manual_through_a_real_vocabulary() -> None:
    tokenizer = Tokenizer.load(find_model("embedkit-small"))
    root = Path(__file__).resolve().parent.parent.parent
    texts = [line for page in sorted((root / "docs").glob("*.md")) for line in page.read_text("utf-8").splitlines()]  # fmt: skip
    texts += [path.read_text("utf-8") for path in sorted((root / "tests/tokenization").glob("*.py"))]
    found = tokenizer.pieces.ids(texts)
    assert found is not None
    assert split(*found) == wanted(tokenizer.backend, texts)


@settings(max_examples=200, deadline=None)
@given(some_text, st.text("[MASKabé ", max_size=12), st.sampled_from([8, 12, 300]))
def test_texts_of_one_passage_are_cut_as_by_their_tokens(text: str, title: str, size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "LEAST_TEXTS", 0)
        tokenizer = Tokenizer(backend(), {}, 100)
        try:
            own = PassageSplitter(offsets=tokenizer.offsets, chunk_tokens=size, chunk_overlap=2)(title, text)
        except TypeError:  # a lone surrogate
            return
        assert PassageSplitter.of(tokenizer, chunk_tokens=size, chunk_overlap=2)(title, text) == own


def test_of_plain_texts_the_extent_is_known() -> None:
    tokenizer = Tokenizer(backend(), {}, 100)
    assert tokenizer.extent("  the unaff. ") == (10, (2, 12))
    assert tokenizer.extent("the é. " * 50) == (150, (0, 349))
    for text in ("", " ", "é", "the\x01", "a" * 2**17):
        assert tokenizer.extent(text) is None
    assert tokenizer.extent("a [mask] b [") == (6, (0, 12))
