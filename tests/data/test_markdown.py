"""Markdown files: which line is the title, and what front matter holds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedkit.data.front_matter import take_front_matter
from embedkit.data.markdown import read_markdown, read_sections


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("# Title\nbody", "Title"),
        ("intro\n\n#\tTitle  \nbody", "Title"),
        ("# Closed #", "Closed"),
        ("# Closed ###  ", "Closed"),
        ("# C#", "C#"),
        ("# #1 reason", "#1 reason"),
        ("#hashtag\n# #\n# Title", "Title"),
        ("## Second\n\n# First", "First"),
        ("```bash\n# install it\n```\n# Real title", "Real title"),
        ("~~~~\n```\n~~~\n# no\n~~~~\n# Yes", "Yes"),
        ("```not a fence``` here\n# Title", "Title"),
        ("- list\n\n      # indented code\n\n    # code\n# Title", "Title"),
        ("```\n# never closed", ""),
        ("<!--\n# note\n-->\n# Title", "Title"),
        ("Setext title\n===\n\nbody", "Setext title"),
        ("On two\nlines\n=", "On two lines"),
        ("> quote\n===\n\n* item\n===\n\n# Title", "Title"),
        ("Second level\n---\n===\n# Title", "Title"),
        ("a\n\n===\n", ""),
        ("CRLF\r\n====\r\n", "CRLF"),
        ("", ""),
    ],
)
def test_the_title_is_the_first_heading_outside_code(text: str, title: str) -> None:
    assert read_markdown(text).title == title


@pytest.mark.parametrize(
    ("block", "fields"),
    [
        ("title: Front\ntags: [qa]\n", {"title": "Front", "tags": ["qa"]}),
        (
            "date: 2024-01-31\nn: 7\nx: -1.5\nzip: 007\nbig: 1e400\n",
            {"date": "2024-01-31", "n": 7, "x": -1.5, "zip": "007", "big": "1e400"},
        ),
        ("a: true\nb: False\nc: null\nd: ~\ne:\n", {"a": True, "b": False, "c": None, "d": None, "e": None}),
        ("a: \"x: \\\"y\\\" # z\"  # note\nb: 'it''s'\nc: '7'\n", {"a": 'x: "y" # z', "b": "it's", "c": "7"}),
        ("# comment\n\na: b # note\nc: d#e\n", {"a": "b", "c": "d#e"}),
        ("a: [x, \"y, z\", 'w', 3, true]\nb: []\n", {"a": ["x", "y, z", "w", 3, True], "b": []}),
        ("a:\n  - x\n  - 'y: z'\nb:\n- 1\n- 2.5\n", {"a": ["x", "y: z"], "b": [1, 2.5]}),
        ("title: Search: an introduction\n", {"title": "Search: an introduction"}),
        ("date created: now\n'quoted key': x\n", {"date created": "now", "quoted key": "x"}),
    ],
)
def test_yaml_values_and_lists_become_fields(block: str, fields: dict[str, Any]) -> None:
    assert take_front_matter(f"---\n{block}---\nbody\n")[:2] == (fields, "body\n")
    windows = f"---\n{block}...\nbody\n".replace("\n", "\r\n")
    assert take_front_matter(windows)[:2] == (fields, "body\r\n")


@pytest.mark.parametrize(
    "entry",
    [
        "cover:\n  image: a.png\n",
        "summary: >\n  folded\n  lines\n",
        "text: on two\n  lines\n",
        "a: {b: c}\n",
        "a: [x, [y]]\n",
        "a: [x\n",
        "a: &anchor x\n",
        'a: "\\ud800"\n',
        'a: "not closed\n',
        "a:\n  - b: c\n",
        "a:\n  - - b\n",
        "title: twice\n",
    ],
)
def test_yaml_beyond_that_stays_in_the_text(entry: str) -> None:
    assert take_front_matter(f"---\ntitle: T\n{entry}---\nbody\n")[:2] == ({"title": "T"}, f"{entry}body\n")


@pytest.mark.parametrize(
    "text",
    [
        "---\nNo field but a sentence.\n---\nbody",
        "---\n---\nbody",
        "---\ntitle: never closed\n",
        "\n---\ntitle: not at the start\n---\n",
        "----\ntitle: a longer rule\n----\n",
        "---\n- a list\n---\n",
        "---\na sentence of many words: and more\n---\n",
        "+++\ntitle = \n+++\nbody",
    ],
)
def test_what_is_no_front_matter_stays_as_it_is(text: str) -> None:
    assert take_front_matter(text) == ({}, text, [(0, 1)])


def test_toml_is_read_whole_and_its_dates_become_texts() -> None:
    text = '+++\ntitle = "T"\ndate = 2024-01-31T10:00:00Z\nat = 07:30:00\nx = inf\n[a]\nb = [1, 2024-01-31]\n+++\nbody'
    assert take_front_matter(text)[:2] == (
        {
            "title": "T",
            "date": "2024-01-31T10:00:00+00:00",
            "at": "07:30:00",
            "x": "inf",
            "a": {"b": [1, "2024-01-31"]},
        },
        "body",
    )


def test_the_title_of_the_front_matter_goes_before_a_heading() -> None:
    assert read_markdown("---\ntitle: 1984\nyear: 1949\n---\n# Heading\n")[:3] == (
        "1984",
        "# Heading\n",
        {"year": 1949},
    )
    assert read_markdown("---\ntitle:\n---\n# Heading\n")[:3] == ("Heading", "# Heading\n", {})
    assert read_markdown("---\ntitle: [a, b]\n---\n# H\n")[:3] == ("H", "# H\n", {"title": ["a", "b"]})


@given(st.text(alphabet="-+=#`~a: \n[]\"'", max_size=60))
def test_no_text_breaks_the_reader(text: str) -> None:
    title, rest, *_ = read_markdown(text)
    assert "\n" not in title
    assert rest in text or rest.splitlines()[-1:] == text.splitlines()[-1:]


def test_sections_are_cut_at_headings_but_in_code() -> None:
    text = "before\n# One ##\nfirst\n\n```sh\n# a comment\n```\n## Two\n\n#none\n\nThree\nof two lines\n---\nc\n\n~~~\n# open"
    assert read_sections(text) == [
        ("", "before"),
        ("One", "first\n\n```sh\n# a comment\n```"),
        ("Two", "#none"),
        ("Three of two lines", "c\n\n~~~\n# open"),
    ]
    assert read_sections("") == [("", "")]


@given(st.text(alphabet="#`~a=- \t\n", max_size=60))
def test_sections_lose_no_word(text: str) -> None:
    found = read_sections(text)
    assert "".join(heading + body for heading, body in found).count("a") == text.count("a")


def test_parts_that_are_not_to_be_cut_in_two() -> None:
    from embedkit.data.markdown import unbroken_parts

    text = "a\n```\nb\n```\n| c | d |"
    assert list(unbroken_parts(text)) == [(2, 12), (12, 21)]
    assert list(unbroken_parts("~~~~ py\n```\n~~~\n~~~~\nb")) == [(0, 21)]
    assert list(unbroken_parts("```\nwithout an end")) == [(0, 18)]
    assert list(unbroken_parts("a `b` | c\n\n    ```\n")) == []
