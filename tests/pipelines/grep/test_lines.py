"""Which lines show a hit, and what fits a budget."""

from __future__ import annotations

from pathlib import Path

from embedkit.data.places import Place
from embedkit.data.records import Hit
from embedkit.pipelines.grep.budget import count_tokens, fitting
from embedkit.pipelines.grep.lines import Excerpt, excerpts

TEXT = "import os\n\n\ndef first():\n    return os.name\n\n\ndef second_guitar():\n    # plays the guitar\n    return 2\n\nlast = 1\n"


def hit(file: Path, first: int, last: int, text: str | None = None) -> Hit:
    lines = TEXT.split("\n")[first - 1 : last]
    shown = "\n".join(lines).strip() if text is None else text
    start = TEXT.index(shown) if text is None else 0
    place = Place(lines=(first, last))
    return Hit("a.py", 1.0, shown, source=str(file), start=start, stop=start + len(shown), place=place)


def shown(excerpt: Excerpt) -> list[tuple[int | None, str]]:
    return [(line.number, line.text) for line in excerpt.lines]


def test_the_line_with_most_words_of_the_query_is_shown_with_its_neighbours(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text(TEXT, encoding="utf-8")
    (excerpt,) = excerpts("who plays a guitar", [hit(file, 4, 10)])
    assert excerpt.first == 9
    assert shown(excerpt) == [
        (8, "def second_guitar():"),
        (9, "    # plays the guitar"),
        (10, "    return 2"),
    ]
    line = excerpt.lines[excerpt.best]
    assert [line.text[a:b] for a, b in line.spans] == ["plays", "guitar"]


def test_so_many_lines_of_the_file_are_shown_as_are_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text(TEXT, encoding="utf-8")
    (excerpt,) = excerpts("plays", [hit(file, 8, 10)], context=3)
    assert [line.number for line in excerpt.lines] == [6, 7, 8, 9, 10, 11, 12]
    assert excerpt.first == 9
    (excerpt,) = excerpts("plays", [hit(file, 8, 10)], context=0)
    assert shown(excerpt) == [(9, "    # plays the guitar")]
    (excerpt,) = excerpts("import", [hit(file, 1, 5)], context=9)
    assert [line.number for line in excerpt.lines] == list(range(1, 11))


def test_a_line_that_matches_the_expression_goes_before_one_with_words(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text(TEXT, encoding="utf-8")
    (excerpt,) = excerpts("plays guitar", [hit(file, 4, 10)], regex=r"return \d", context=0)
    assert shown(excerpt) == [(10, "    return 2")]
    assert excerpt.lines[0].spans == [(4, 12)]


def test_a_file_that_has_changed_since_is_shown_as_it_was_without_numbers(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text("something else\n" * 20, encoding="utf-8")
    (excerpt,) = excerpts("guitar", [hit(file, 4, 10)])
    assert {line.number for line in excerpt.lines} == {None}
    assert excerpt.lines[excerpt.best].text in ("def second_guitar():", "    # plays the guitar")
    assert excerpt.first == 4
    (gone,) = excerpts("guitar", [hit(tmp_path / "gone.py", 4, 10)])
    assert gone.first == 4


def test_a_budget_takes_the_best_first_and_no_line_twice(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    hits = [hit(file, 4, 9), hit(file, 8, 12), hit(file, 8, 9), hit(file, 1, 5)]
    pieces = list(fitting(hits, 1000))
    assert [piece.where for piece in pieces] == ["a.py:4-9", "a.py:10-12", "a.py:1"]
    assert [piece.text.strip() for piece in pieces] == [
        "\n".join(TEXT.split("\n")[3:9]),
        "return 2\n\nlast = 1",
        "import os",
    ]
    assert sum(piece.num_tokens for piece in pieces) <= 1000
    small = list(fitting(hits, count_tokens("a.py:8-12\n" + hits[1].text + "\n")))
    assert [piece.where for piece in small] == ["a.py:8-12"]  # the best is too long for it
    assert list(fitting(hits, 3)) == []
