"""Cutting texts into passages, with words and marks as the tokens."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.tokenization.passages import PassageSplitter


def offsets(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]


def texts(splitter: PassageSplitter, text: str, title: str = "") -> list[str]:
    return [text[start:stop] for start, stop in splitter(title, text)]


def test_a_short_text_is_one_passage() -> None:
    assert texts(PassageSplitter(offsets=offsets), " One sentence. ") == ["One sentence."]
    assert texts(PassageSplitter(offsets=offsets), "  ") == []


def test_passages_end_with_sentences_and_overlap_by_them() -> None:
    text = "A b c d e. F g. H i j k l. M n o p."
    splitter = PassageSplitter(offsets=offsets, chunk_tokens=10, chunk_overlap=4)
    assert texts(splitter, text) == ["A b c d e. F g.", "F g. H i j k l.", "M n o p."]


def test_a_sentence_longer_than_a_passage_is_cut_between_words() -> None:
    splitter = PassageSplitter(offsets=offsets, chunk_tokens=8, chunk_overlap=0)
    text = " ".join(f"w{number}" for number in range(20))
    assert texts(splitter, text) == [
        " ".join(f"w{number}" for number in part) for part in (range(8), range(8, 16), range(16, 20))
    ]


def test_text_without_any_border_is_cut_all_the_same() -> None:
    splitter = PassageSplitter(
        offsets=lambda text: [(n, n + 1) for n in range(len(text))], chunk_tokens=8, chunk_overlap=2
    )
    assert texts(splitter, "abcdefghijklmnop") == ["abcdefgh", "ghijklmn", "mnop"]


def test_the_title_takes_room_but_never_all_of_it() -> None:
    splitter = PassageSplitter(offsets=offsets, chunk_tokens=12, chunk_overlap=0)
    text = " ".join("x" * 24)
    assert [len(offsets(part)) for part in texts(splitter, text, "one two three four")] == [8, 8, 8]
    assert [len(offsets(part)) for part in texts(splitter, text, "t " * 100)] == [3] * 8


@given(
    text=st.text(alphabet="ab .!?\n", max_size=200),
    title=st.text(alphabet="ab ", max_size=20),
    size=st.integers(8, 20),
    overlap=st.integers(0, 4),
)
def test_every_token_is_in_a_passage_and_none_is_too_long(
    text: str, title: str, size: int, overlap: int
) -> None:
    splitter = PassageSplitter(offsets=offsets, chunk_tokens=size, chunk_overlap=overlap)
    spans = splitter(title, text)
    tokens = offsets(text)
    for start, stop in tokens:
        assert any(first <= start and stop <= last for first, last in spans)
    assert all(len(offsets(text[start:stop])) <= size for start, stop in spans)
    assert [start for start, _ in spans] == sorted({start for start, _ in spans})
    for (_, stop), (start, _) in pairwise(spans):
        assert len([1 for token in tokens if start <= token[0] and token[1] <= stop]) <= overlap


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chunk_tokens": 4}, "chunk_tokens is 4; a passage needs at least 8"),
        (
            {"chunk_tokens": 16, "chunk_overlap": 9},
            "chunk_overlap is 9; it must be between 0 and half of chunk_tokens, 8",
        ),
    ],
)
def test_sizes_out_of_range_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PassageSplitter(offsets=offsets, **options)
