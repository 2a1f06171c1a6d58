"""Cutting texts into passages, with words and marks as the tokens."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.data.records import titled_text
from embedkit.tokenization.blocks import Offsets
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


def pieces(text: str) -> list[tuple[int, int]]:
    """Word pieces in small: a word begins with a piece of one letter, and goes on in pieces of up to three."""
    found = []
    for word in re.finditer(r"\S+", text):
        start, stop = word.span()
        inside = [(at, min(at + 3, stop)) for at in range(start + 1, stop, 3)]
        found += [(start, start + 1), *inside]
    return found


def byte_pieces(text: str) -> list[tuple[int, int]]:
    """Byte-level BPE in small: a word after a space is one token with that space, others are a token for each byte."""
    found: list[tuple[int, int]] = []
    for word in re.finditer(r" ?\S+|\s", text):
        if word[0][0] == " " and len(word[0]) < 6:
            found.append(word.span())
            continue
        for at in range(*word.span()):
            found += [(at, at + 1)] * len(text[at].encode())
    return found


def test_a_passage_cut_inside_a_word_has_no_more_tokens_by_itself_than_fit() -> None:
    """In the text, 24 letters from the first w on are wxy|abc|…, 8 tokens; by themselves they are w|xya|…, 9."""
    text = "abcdefghijklmnopqrstuvwxy" * 2
    splitter = PassageSplitter(offsets=pieces, chunk_tokens=8, chunk_overlap=0)
    assert texts(splitter, text) == [text[:22], text[22:43], text[43:]]
    assert [len(pieces(part)) for part in texts(splitter, text)] == [8, 8, 3]


@given(
    text=st.text(alphabet="abcdé. \n", max_size=300),
    title=st.text(alphabet="abc ", max_size=8),
    size=st.integers(10, 24),
    overlap=st.integers(0, 5),
    tokens=st.sampled_from([pieces, byte_pieces]),
)
def test_every_passage_fits_as_it_is_encoded_and_no_word_is_lost(
    text: str, title: str, size: int, overlap: int, tokens: Offsets
) -> None:
    spans = PassageSplitter(offsets=tokens, chunk_tokens=size, chunk_overlap=overlap)(title, text)
    covered = {at for start, stop in spans for at in range(start, stop)}
    assert all(at in covered for at, sign in enumerate(text) if not sign.isspace())
    room = max(size, len(tokens(title)) + size // 4)  # what a long title leaves the text
    for start, stop in spans:
        assert len(tokens(titled_text(title, text[start:stop]))) <= room


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
        PassageSplitter(offsets=offsets, **options)  # type: ignore[arg-type]  # numbers


def test_a_block_of_code_and_a_row_of_a_table_are_not_cut_where_they_fit() -> None:
    code = "```\none two.\nthree four.\nfive six.\n```"
    rows = "| a. b | c. d |\n| e. f | g. h |"
    text = f"Some words stand here. More follow.\n\n{code}\n\nAnd then. A table.\n\n{rows}\n"
    for size in range(16, 60):
        for overlap in (0, 4, size // 2):
            splitter = PassageSplitter(offsets=offsets, chunk_tokens=size, chunk_overlap=overlap)
            spans = splitter("", text)
            blocks = [(text.index(part), text.index(part) + len(part)) for part in (code, *rows.split("\n"))]
            fitting = [(a, b) for a, b in blocks if len(offsets(text[a:b])) <= size]
            inside = [(start, a) for start, _ in spans for a, b in fitting if a < start < b]
            assert inside == [], (size, overlap)
            assert len(fitting) == 3 or size < 20
            assert [spans[0][0], spans[-1][1]] == [0, len(text.rstrip())]
            gaps = [text[a[1] : b[0]] for a, b in pairwise(spans) if b[0] > a[1]]
            assert not "".join(gaps).strip()
            assert len(set(spans)) == len(spans)


def test_code_that_is_longer_than_a_passage_is_cut_at_lines() -> None:
    code = "```\n" + "".join(f"line {number}\n" for number in range(40)) + "```"
    found = texts(PassageSplitter(offsets=offsets, chunk_tokens=20, chunk_overlap=0), code)
    assert len(found) > 3
    assert all(part.startswith(("```", "line")) for part in found)
