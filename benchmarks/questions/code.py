"""Questions for the functions of Python's standard library: the first sentences of their docstrings, which are taken away."""

from __future__ import annotations

import ast
import re
import sysconfig
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.questions.asked import Answer, Question, hashed, unambiguous, write

LIBRARY = Path(sysconfig.get_path("stdlib"))
Function = ast.FunctionDef | ast.AsyncFunctionDef
# Tests, installed packages, tables (encodings, topics), and code that is made or kept for a purpose of its own.
LEFT_OUT = re.compile(
    r"(^|/)(tests?|idle_test|site-packages|encodings|pydoc_data|ensurepip|lib2to3|turtledemo)(/|$)|config-"
)
MAX_MODULE_BYTES = 40_000
QUESTIONS_PER_MODULE = 5
STDLIB_BYTES = 800_000  # about 2,000 passages
WORDS = (5, 30)  # of a sentence; shorter ones say too little, longer ones are no questions
LINES = (4, 80)  # of a function without its docstring


class Documented(NamedTuple):
    """A function whose docstring was removed: its name, the docstring, and its lines in what is left."""

    name: str
    docstring: str
    first: int
    last: int


def without_docstrings(source: str) -> tuple[str, list[Documented]]:
    """Remove the docstrings of all functions; return what is left, and those functions that stand in no other.

    Raises:
        SyntaxError: it is not Python of this version.
    """
    before = list(_functions(ast.parse(source)))
    lines = source.encode().splitlines(keepends=True)  # columns of a syntax tree count bytes of UTF-8
    for each in sorted(before, key=lambda each: each.node.lineno, reverse=True):
        if ast.get_docstring(each.node, clean=False) is not None:
            _remove(lines, each.node.body)
    text = b"".join(lines).decode()
    after = list(_functions(ast.parse(text)))
    return text, [
        Documented(old.node.name, found, _first_line(new.node), new.node.end_lineno or 0)
        for old, new in zip(before, after, strict=True)
        if not old.within and (found := ast.get_docstring(old.node)) is not None
    ]


class _Found(NamedTuple):
    node: Function
    within: bool  # another function


def _functions(tree: ast.AST, within: bool = False) -> Iterator[_Found]:
    for child in ast.iter_child_nodes(tree):
        is_function = isinstance(child, Function)
        if isinstance(child, Function):
            yield _Found(child, within)
        yield from _functions(child, within or is_function)


def _remove(lines: list[bytes], body: Sequence[ast.stmt]) -> None:
    """Remove the docstring that a body begins with; `pass` stays where nothing else does, or where a line holds more."""
    node = body[0]
    assert node.end_lineno is not None and node.end_col_offset is not None  # noqa: PT018 - of parsed source they never are
    head = lines[node.lineno - 1][: node.col_offset]
    tail = lines[node.end_lineno - 1][node.end_col_offset :]
    alone = not head.strip() and (not tail.strip() or tail.lstrip().startswith(b"#"))
    left = [] if alone and len(body) > 1 else [head + b"pass" + tail]
    lines[node.lineno - 1 : node.end_lineno] = left


def _first_line(node: Function) -> int:
    return min([node.lineno, *(each.lineno for each in node.decorator_list)])


def first_sentence(docstring: str) -> str:
    """Return the first sentence of a docstring, on one line."""
    paragraph = re.split(r"\n\s*\n", docstring.strip(), maxsplit=1)[0]
    return re.split(r"(?<=[.!?])\s", " ".join(paragraph.split()), maxsplit=1)[0]


def is_question(sentence: str, name: str) -> bool:
    """Say whether a sentence asks for something and does not name the function that it describes."""
    if not WORDS[0] <= len(sentence.split()) <= WORDS[1] or not sentence[0].isalpha() or "->" in sentence:
        return False
    bare = name.strip("_").lower()
    spoken = re.escape(bare).replace("_", r"[\s_-]?")  # get_host: "get host", "get-host", "gethost"
    return re.search(rf"(?<![a-z0-9]){spoken}(?![a-z0-9])", sentence.lower()) is None


def stdlib(target: Path) -> list[Question]:
    """Write modules that give questions, in the order of the hashes of their names, and return the questions."""
    paths = [path.relative_to(LIBRARY).as_posix() for path in LIBRARY.rglob("*.py")]
    left = STDLIB_BYTES
    found: list[tuple[str, Answer]] = []
    for path in sorted((path for path in paths if not LEFT_OUT.search(path)), key=hashed):
        if (LIBRARY / path).stat().st_size > MAX_MODULE_BYTES:
            continue
        text, functions = without_docstrings((LIBRARY / path).read_text(encoding="utf-8"))
        asked = list(code_questions(path, functions))
        if not asked:
            continue
        write(target / path, text)
        found += asked
        left -= len(text)
        if left <= 0:
            break
    taken: Counter[str] = Counter()
    kept = []
    for question in sorted(unambiguous("stdlib", "functions", found), key=lambda each: hashed(each.text)):
        taken[question.answers[0].path] += 1
        if taken[question.answers[0].path] <= QUESTIONS_PER_MODULE:
            kept.append(question)
    return kept


def code_questions(path: str, functions: Iterable[Documented]) -> Iterator[tuple[str, Answer]]:
    """Yield the sentences that ask for a function of a file; special methods (`__len__`) are too much alike."""
    for name, docstring, first, last in functions:
        sentence = first_sentence(docstring)
        special = name.startswith("__") and name.endswith("__")
        if not special and is_question(sentence, name) and LINES[0] <= last - first + 1 <= LINES[1]:
            yield sentence, Answer(path, first, last)
