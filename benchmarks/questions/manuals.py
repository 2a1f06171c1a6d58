"""Questions for the sections of manuals: their headings, which are taken away, and queries that people wrote."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from benchmarks.questions.asked import Answer, Question, unambiguous, write
from embedkit.data.markdown import find_headings

ROOT = Path(__file__).resolve().parent.parent.parent


class Section(NamedTuple):
    """A heading with its lines, and the last line before the next heading; lines count from 1."""

    heading: str
    first: int
    below: int  # the first line under the heading
    last: int


def markdown_sections(text: str) -> list[Section]:
    """Return the sections of a Markdown file; the title of the page is no heading of one."""
    lines = text.splitlines()
    starts = [
        (str(mark.value) if mark.level > 1 else "", text.count("\n", 0, mark.at) + 1, 1)
        for mark in find_headings(text)
    ]
    return _sections(starts, lines)


def underlined_sections(text: str) -> list[Section]:
    """Return the sections of a text whose headings are underlined by signs, as in reStructuredText."""
    lines = text.splitlines()
    starts = [
        (line.strip(), number, 2)
        for number, (line, under) in enumerate(pairwise(lines), 1)
        if line.strip() and re.fullmatch(r"([=*~^\"-])\1{2,}", under) and abs(len(line) - len(under)) <= 2
    ]
    return _sections(starts, lines)


def _sections(starts: Sequence[tuple[str, int, int]], lines: Sequence[str]) -> list[Section]:
    ends = [first - 1 for _, first, _ in starts[1:]] + [len(lines)]
    found = []
    for (heading, first, height), last in zip(starts, ends, strict=True):
        while last > first and not lines[last - 1].strip():
            last -= 1
        found.append(Section(heading, first, first + height, last))
    return found


def is_heading_question(section: Section) -> bool:
    """Say whether a heading tells by itself what its section is about, and there is one."""
    return len(re.findall(r"\w+", section.heading)) >= 2 and section.last > section.below


def pages(
    target: Path, collection: str, texts: Iterable[tuple[str, str]], sections: Callable[[str], list[Section]]
) -> list[Question]:
    """Write pages without the headings that are asked for; their lines keep their numbers."""
    read = [
        (path, text, [each for each in sections(text) if is_heading_question(each)]) for path, text in texts
    ]
    found = [
        (_plain(each.heading), Answer(path, each.below, each.last))
        for path, _, several in read
        for each in several
    ]
    questions = unambiguous(collection, "headings", found)
    asked = {each.text for each in questions}
    for path, text, several in read:
        lines = text.splitlines()
        for each in several:
            if _plain(each.heading) in asked:
                lines[each.first - 1 : each.below - 1] = [""] * (each.below - each.first)
        write(target / path, "\n".join(lines) + "\n")
    return questions


def _plain(heading: str) -> str:
    """Return a heading without the marks of its markup."""
    return " ".join(re.sub(r"[`*\"“”]|^\d+\.\s", "", heading).split())


def topics(target: Path) -> list[Question]:
    from pydoc_data.topics import topics as texts

    named = [(f"{name}.txt", text) for name, text in sorted(texts.items())]
    return pages(target, "topics", named, underlined_sections)


def manual(target: Path) -> list[Question]:
    paths = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    texts = [(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in paths]
    questions = pages(target, "manual", texts, markdown_sections)
    lengths = {path: len(text.splitlines()) for path, text in texts}
    with (ROOT / "benchmarks/small_queries.tsv").open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream, delimiter="\t"):
            if row["collection"] == "docs":
                answer = Answer(row["document"], 1, lengths[row["document"]])
                questions.append(Question("manual", "written", row["query"], (answer,)))
    return questions
