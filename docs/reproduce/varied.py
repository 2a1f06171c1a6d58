"""The data sets of the folder `varied`: code, commands, forums, manuals, queries, claims; which rows are trained on.

Some rows, chosen by a hash of their first field, are never trained on: the dev sets ask for these.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from sources import rows

Row = Mapping[str, Any]  # Any: whatever JSON holds
HELD_OUT_OF = 50  # every fiftieth value of a byte: 6 rows of 256
# A large share of a set that a small share is enough of: how often its rows are taken.
SAMPLED = {"StaQC SQL how-to titles (Stack Overflow)": 0.25}
# Not of a licence that shipped weights may be trained on without a word.
LEFT_OUT = ("Debian FAQ", "Perl FAQ (Debian perl-doc)")


@dataclass(frozen=True)
class VariedSet:
    """A data set: `pair` says which field finds which, `field` which one is a text by itself where there are no pairs."""

    name: str
    pair: tuple[str, str] | None = None
    field: str = ""
    pieces: str = ""  # the field that pieces of several sentences are cut from
    share: float = 1  # how many of its rows are taken
    ending: str = ".tsv.zst"

    def path(self, data: Path) -> Path:
        return data / "varied" / self.name / f"train{self.ending}"


def _code(name: str, share: float = 1) -> VariedSet:
    return VariedSet(name, pair=("query", "code"), share=share, ending=".jsonl.zst")


def _titled(name: str, title: str, text: str, share: float = 1) -> VariedSet:
    return VariedSet(name, pair=(title, text), pieces=text, share=share)


VARIED = (
    _code("code_python", share=0.85),
    _code("code_other"),
    _code("shell_commands"),
    _titled("forum_title_body", "title", "body"),
    _titled("forum_qa", "title", "answer"),
    _titled("faq_qa", "question", "answer"),
    _titled("docs_sections", "heading", "text", share=0.8),
    _titled("textbook_sections", "heading", "text"),
    _titled("debian_descriptions", "synopsis", "description"),
    _titled("commit_messages", "subject", "body"),
    _titled("news_headline_text", "title", "text"),
    _titled("physics_abstracts_lower", "title", "abstract", share=0.7),
    _titled("recipes", "title", "text"),
    VariedSet("glossary"),
    VariedSet("trivia_qa", field="question"),
    VariedSet("web_queries", field="query"),
    VariedSet("claims_headlines", field="text"),
    VariedSet("sentences", field="text"),
    VariedSet("nist_titles", field="title"),
    VariedSet("tatoeba_paraphrases"),
)


def held_out(row: Row) -> bool:
    """Say whether a row is kept for the dev sets."""
    first = str(next(iter(row.values())))
    return hashlib.blake2b(first.casefold().encode(), digest_size=8).digest()[0] % HELD_OUT_OF == 0


def training_rows(each: VariedSet, data: Path, rng: Random) -> Iterator[Row]:
    """Yield the rows of a set that may be trained on, as many as its share says."""
    for row in rows(each.path(data)):
        source = row.get("source", "")
        taken = source not in LEFT_OUT and rng.random() < SAMPLED.get(source, 1) and not held_out(row)
        if taken and rng.random() <= each.share:
            yield row
