"""Places: a passage's lines, as the file has them, whatever a reader takes away before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.data.places import Mark, Place, marks_json, place_of, read_marks
from embedkit.data.reading import read_documents
from embedkit.data.records import Document, Hit

MARKDOWN = """---
title: Guide
# a comment that is dropped

summary: >
  folded text
tags: [a]
---

# Guide

intro words

## Install
pip words

```
# no heading
```

Source
------
make words

# Other
last words
"""
PAGE = """<!DOCTYPE html>
<title>Page</title>
<script>
let x = 1;
</script>
<h1>Top</h1>
<p>intro
words
<!-- a comment
on two lines -->
<nav>skipped
</nav>
<h2>Second <b>part</b></h2>
<p>some   of
    the
<b>words</b>
"""


def read(path: Path, content: str | bytes) -> Document:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    (document,) = read_documents([str(path)])
    return document


def place(document: Document, words: str) -> Place:
    start = document.text.index(words)
    found = place_of(document.marks, document.text, start, start + len(words))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.md", MARKDOWN),
        ("crlf.md", MARKDOWN.replace("\n", "\r\n")),
        ("toml.md", "+++\ntitle = 'T'\n+++\n\nintro\n\nmore words\n"),
        ("a.rst", "Title\n=====\n\nintro\n\nmore words\n"),
        ("a.html", PAGE),
        ("xml.html", '<?xml version="1.0"\n encoding="utf-8"?>\n\n' + PAGE),
        ("bom.md", b"\xef\xbb\xbf# T\n\nmore words\n"),
        ("utf16.md", "# T\n\nmore words\n".encode("utf-16")),
    ],
)
def test_each_word_stands_in_the_line_that_its_place_names(
    tmp_path: Path, name: str, content: str | bytes
) -> None:
    path = tmp_path / name
    document = read(path, content)
    encoding = "utf-16" if name.startswith("utf16") else "utf-8-sig"
    lines = path.read_text(encoding=encoding).splitlines()  # as an editor opens it
    at = 0
    words = document.text.split()
    assert words
    for word in words:
        start = document.text.index(word, at)
        at = start + len(word)
        found = place_of(document.marks, document.text, start, at)
        assert found is not None
        assert found.lines is not None
        first, last = found.lines
        assert first == last
        assert word in lines[first - 1], (word, first)


def test_passages_know_the_headings_above_them_and_the_lines_they_reach_over(tmp_path: Path) -> None:
    document = read(tmp_path / "a.md", MARKDOWN)
    assert place(document, "intro words").headings == ("Guide",)
    assert place(document, "pip words").headings == ("Guide", "Install")
    assert place(document, "# no heading") == Place(lines=(18, 18), headings=("Guide", "Install"))
    assert place(document, "make words").headings == ("Guide", "Source")
    assert place(document, "last words").headings == ("Other",)
    assert place(document, "\n\nintro words\n\n## Install\npip").lines == (12, 15)
    page = read(tmp_path / "a.html", PAGE)
    assert place(page, "intro words") == Place(lines=(7, 8), headings=("Top",))
    assert place(page, "some of the words") == Place(lines=(14, 16), headings=("Top", "Second part"))


def test_rows_stand_in_a_line_and_of_parquet_in_a_row(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n\n{"text": "two\\nlines"}\n', encoding="utf-8")
    documents = list(read_documents([str(tmp_path / "a.jsonl")]))
    assert [place(each, each.text).lines for each in documents] == [(1, 1), (3, 3)]
    (tmp_path / "a.txt").write_text("one\n\ntwo\n", encoding="utf-8")
    texts = [each for each in read_documents([str(tmp_path / "a.txt")]) if each.text]
    assert [place(each, each.text).lines for each in texts] == [(1, 1), (3, 3)]
    marks = [Mark(0, "row", 4)]
    assert place_of(marks, "x", 0, 1) == Place(rows=(4, 4))


def test_pages_slides_and_sheets_are_named_as_people_name_them() -> None:
    text = "page seven\npage eight\n"
    marks = (Mark(0, "page", 7), Mark(11, "page", 8))
    assert place_of(marks, text, 0, 10) == Place(pages=(7, 7))
    assert place_of(marks, text, 0, len(text)) == Place(pages=(7, 8))
    assert place_of(marks, text, 12, 14) == Place(pages=(8, 8))
    assert Place(pages=(7, 8)).named("a.pdf") == "a.pdf p. 7-8"
    assert Place(slides=(3, 3)).named("a.pptx") == "a.pptx slide 3"
    assert Place(sheet="Sales", rows=(2, 9)).named("a.xlsx") == "a.xlsx Sales row 2-9"
    rows = (
        Mark(0, "sheet", "A"),
        Mark(0, "row", 1),
        Mark(5, "row", 2),
        Mark(11, "sheet", "B"),
        Mark(11, "row", 1),
    )
    assert place_of(rows, text, 0, 9) == Place(sheet="A", rows=(1, 2))
    assert place_of(rows, text, 12, 14) == Place(sheet="B", rows=(1, 1))


def test_a_hit_is_named_by_its_file_and_place() -> None:
    source, lines = "/home/me/docs/a.md", Place(lines=(3, 9))
    assert Hit("docs/a.md", 1.0, source=source, place=lines).where == "docs/a.md:3-9"
    assert Hit("docs/a.md:3", 1.0, source=source, place=Place(lines=(3, 3))).where == "docs/a.md:3"
    assert Hit("own-id", 1.0, source="/c.jsonl", place=Place(lines=(17, 17))).where == "/c.jsonl:17"
    assert Hit("docs/a.md", 1.0, source=source).where == "docs/a.md"
    assert Hit("own-id", 1.0).where == "own-id"


@given(st.text(alphabet="ab #\r\n-`", max_size=80), st.integers(0, 80), st.integers(0, 80))
def test_lines_are_those_of_the_text_and_marks_survive_being_stored(text: str, start: int, stop: int) -> None:
    marks = (Mark(0, "lines", 1), Mark(0, "heading", "x", 2))
    assert read_marks(marks_json(marks)) == marks
    found = place_of(marks, text, start, stop)
    if not text[start:stop].strip():
        assert found is None
        return
    assert found is not None
    assert found.lines is not None
    ends = "\n" if "\n" in text else "\r"
    shown = ends.join(text.split(ends)[found.lines[0] - 1 : found.lines[1]])
    assert text[start:stop].strip() in shown


def test_a_place_is_made_again_of_what_json_holds_of_it() -> None:
    for place in (
        Place(),
        Place(lines=(3, 9), headings=("A", "B")),
        Place(pages=(1, 1), slides=(2, 3), sheet="S", rows=(4, 5), cells=(6, 6)),
    ):
        assert Place.from_dict(json.loads(json.dumps(place.as_dict()))) == place
