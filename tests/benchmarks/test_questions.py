"""`benchmarks/questions`: answers stand where they say, and questions do not give them away."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from benchmarks.questions import code, manuals, scoring
from benchmarks.questions.asked import MAX_ANSWERS, Answer, Question
from benchmarks.questions.derive import COLLECTIONS
from embedkit.data.places import Place
from embedkit.data.records import Hit

MODULE = '''"""The module's own words stay."""
import os


class Walker:
    """So do those of a class."""

    @property
    # über
    def size(self): "The size in bytes."; return 1

    def rest(self):
        """Give back what is left.

        All of it.
        """


@os.fspath
def outer(a):
    """Do one thing after another."""  # a comment
    def inner():
        """Is not asked for."""
        return a

    return inner


def plain():
    return """not a docstring"""
'''


def test_docstrings_go_and_functions_keep_their_lines() -> None:
    text, found = code.without_docstrings(MODULE)
    assert [(each.name, each.docstring) for each in found] == [
        ("size", "The size in bytes."),
        ("rest", "Give back what is left.\n\nAll of it."),
        ("outer", "Do one thing after another."),
    ]
    lines = text.splitlines()
    shown = ["\n".join(lines[each.first - 1 : each.last]) for each in found]
    assert shown == [
        "    @property\n    # über\n    def size(self): pass; return 1",
        "    def rest(self):\n        pass",
        "@os.fspath\ndef outer(a):\n    def inner():\n        return a\n\n    return inner",
    ]
    assert text.startswith('"""The module\'s own words stay."""')
    assert '"""So do those' in text
    assert 'return """not a docstring"""' in text
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    assert not any(map(ast.get_docstring, functions))


@pytest.mark.parametrize(
    ("docstring", "sentence"),
    [
        ("Return the\n    name of it. And more.", "Return the name of it."),
        ("Open a file\n\nAll about it.", "Open a file"),
        ("  Use os.path if you can!  Else not.", "Use os.path if you can!"),
    ],
)
def test_a_question_is_the_first_sentence(docstring: str, sentence: str) -> None:
    assert code.first_sentence(docstring) == sentence


@pytest.mark.parametrize(
    ("sentence", "name", "fits"),
    [
        ("Return the name of the remote machine.", "get_host", True),
        ("Then get host of the remote machine.", "_get_host", False),
        ("Then get_host of the remote machine.", "get_host", False),
        ("Flush what is in the buffer.", "flush", False),
        ("Flushing what is in the buffer.", "flush", True),
        ("Return the name.", "get_host", False),
        ("read(n) -> up to n bytes of it", "peek", False),
        ("word " * 31, "get_host", False),
    ],
)
def test_a_sentence_that_names_its_function_or_says_little_is_no_question(
    sentence: str, name: str, fits: bool
) -> None:
    assert code.is_question(sentence, name) is fits


def test_headings_that_are_asked_for_leave_the_pages_and_lines_keep_their_numbers(tmp_path: Path) -> None:
    texts = [
        ("a.md", "# The title stays\n\n## How to `begin`\n\nOne.\nTwo.\n\n## Speed\nFast.\nVery.\n"),
        ("b.md", "### How to begin\nThree.\nFour."),
        *((f"{n}.md", "## Said too often\nFive.\nSix.\n") for n in range(MAX_ANSWERS + 1)),
    ]
    (found,) = manuals.pages(tmp_path, "manual", texts, manuals.markdown_sections)
    assert found.text == "How to begin"
    assert found.answers == (Answer("a.md", 4, 6), Answer("b.md", 2, 3))
    assert (tmp_path / "a.md").read_text(encoding="utf-8") == (
        "# The title stays\n\n\n\nOne.\nTwo.\n\n## Speed\nFast.\nVery.\n"
    )
    assert (tmp_path / "b.md").read_text(encoding="utf-8") == "\nThree.\nFour.\n"
    assert (tmp_path / "0.md").read_text(encoding="utf-8") == "## Said too often\nFive.\nSix.\n"


def test_underlined_headings_begin_sections() -> None:
    text = "Names\n*****\n\nA name.\n\n\nOf bindings\n===========\n\nOne.\nTwo.\n"
    assert manuals.underlined_sections(text) == [("Names", 1, 3, 4), ("Of bindings", 7, 9, 11)]


@pytest.mark.parametrize("collection", COLLECTIONS)
def test_every_answer_is_in_its_file_and_both_halves_are_large(collection: str, tmp_path: Path) -> None:
    found = COLLECTIONS[collection](tmp_path)
    assert len({each.text for each in found}) == len(found)
    for half in ("choose", "test"):
        assert sum(each.half == half for each in found) >= 40
    for each in found:
        for path, first, last in each.answers:
            lines = (tmp_path / path).read_text(encoding="utf-8").splitlines()
            assert 1 <= first <= last <= len(lines)
            assert any(line.strip() for line in lines[first - 1 : last])
            if each.kind == "functions":  # its own words are gone
                assert each.text not in " ".join(" ".join(lines[first - 1 : last]).split())


def test_a_hit_is_right_if_it_shares_a_line_with_an_answer() -> None:
    question = Question("c", "k", "what", (Answer("a.py", 10, 20), Answer("b.py", 1, 1)))

    def hit(path: str, lines: tuple[int, int] | None) -> Hit:
        return Hit(path, 1.0, place=Place(lines=lines))

    wrong = [hit("a.py", (1, 9)), hit("a.py", (21, 30)), hit("c.py", (10, 20)), hit("a.py", None)]
    assert scoring.right_rank(question, wrong) is None
    for lines in ((20, 40), (1, 10), (12, 13), (1, 99)):
        assert scoring.right_rank(question, [*wrong, hit("a.py", lines)]) == 5
    assert scoring.right_rank(question, [hit("b.py", (1, 3)), *wrong]) == 1
    assert scoring.scores([1, 2, None, 10]) == {"hits@1": 0.25, "hits@5": 0.5, "MRR@10": 0.4}


def test_systems_are_compared_within_each_half_of_each_part() -> None:
    asked = [Question(c, "k", f"{c} {n}", ()) for c in "ab" for n in range(8)]
    answered = scoring.Answered()
    for each in asked:  # the better system finds all of a, and none of b
        answered.add(scoring.Answered([each], {"x": [2], "y": [1 if each.collection == "a" else None]}))
    rows = {(row["part"], row["half"], row["system"]): row for row in scoring.tables(answered, ["x"])}
    assert {part for part, _, _ in rows} == {"a, k", "b, k", "all"}
    for half in ("choose", "test"):
        counts = [rows[part, half, "x"]["questions"] for part in ("a, k", "b, k", "all")]
        assert counts[0] + counts[1] == counts[2] > 0  # type: ignore[operator] # counts are numbers
        assert rows["a, k", half, "y"]["difference"] == 0.5
        assert rows["b, k", half, "y"]["difference"] == -0.5
        assert "p" not in rows["a, k", half, "x"]
    choose = [each for each in asked if each.half == "choose"]
    assert rows["all", "choose", "y"]["hits@1"] == round(
        sum(each.collection == "a" for each in choose) / len(choose), 3
    )
