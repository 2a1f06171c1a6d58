"""Read the open data sets: their rows, their sentences, and the texts that must not be trained on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

from embedkit.data.formats import format_of, named_rows, open_compressed
from embedkit.errors import RecordError

MAX_LINE_BYTES = 64 * 2**20
MAX_WORDS = 250
_SENTENCE_END = re.compile(r"(?:(?<=[.!?])|(?<=[.!?][\"')\]]))\s+(?=[\"'(\[A-Z0-9])")
_NOT_WORD = re.compile(r"[\W_]+")
# Evaluation sets. No training text shares a sentence of at least this many words with them.
KEPT_OUT_WORDS = 8
_KEPT_OUT_FILES = (
    "sts/stsb/dev.tsv",
    "sts/stsb/test.tsv",
    "sts/sick/dev.tsv",
    "pairs/mrpc/dev.tsv.zst",
    "pairs/mrpc/test.tsv.zst",
    "pairs/parade/dev.tsv.zst",
    "pairs/parade/test.tsv.zst",
    "pairs/parasci/val.tsv.zst",
    "pairs/parasci/test.tsv.zst",
    "pairs/wikiqa/dev.tsv.zst",
    "pairs/wikiqa/test.tsv.zst",
    "pairs/banking77/test.tsv.zst",
    "pairs/coco_captions/test.jsonl.zst",
)
_KEPT_OUT_SETS = ("squad_v11_dev", "scifact", "cacm", "cisi", "time", "adi", "wikiqa_test")


def rows(path: Path) -> Iterator[dict[str, Any]]:  # Any: whatever JSON holds
    """Read the rows of a JSONL or TSV file, compressed or not, collapsing runs of white space into single spaces."""
    form = format_of(path)
    with path.open("rb") as file:
        stream, name = open_compressed(file, path.as_posix()), path.as_posix()
        if form not in ("jsonl", "tsv"):
            raise RecordError(f"{name}: neither .jsonl nor .tsv; all data sets here are one or the other")
        for _, row in named_rows(stream, name, form, max_line_bytes=MAX_LINE_BYTES):
            yield dict(row)


def one_line(text: str) -> str:
    return " ".join(text.split())


def sentences(text: str) -> list[str]:
    """Split a text into sentences, roughly: after . ! or ?, before a capital letter or a digit."""
    return [part for line in text.split("\n") for part in _SENTENCE_END.split(line) if part.strip()]


def fingerprint(text: str) -> str:
    """Return a text's letters and digits, lower-cased, so that different spellings of it compare equal."""
    return _NOT_WORD.sub("", text.casefold())


def cut(text: str, words: int = MAX_WORDS) -> str:
    return " ".join(text.split()[:words])


def piece(parts: Sequence[str], rng: Random) -> str:
    """Join consecutive sentences from a random start, to between 12 and 250 words, favouring short pieces."""
    wanted = int(12 * (MAX_WORDS / 12) ** rng.random())
    start, found = rng.randrange(len(parts)), list[str]()
    for part in parts[start:]:
        found += part.split()
        if len(found) >= wanted:
            break
    return " ".join(found[:MAX_WORDS])


def squad_titles_and_texts(folder: Path) -> dict[str, tuple[str, str]]:
    return {row["_id"]: (row["title"], row["text"]) for row in rows(folder / "corpus.jsonl.zst")}


def scitldr_pairs(folder: Path, split: str) -> list[tuple[str, str, str]]:
    """Return (summary, title, abstract) of a split."""
    texts = squad_titles_and_texts(folder)
    summaries = {row["_id"]: row["text"] for row in rows(folder / "queries.jsonl.zst")}
    judged = rows(folder / "qrels" / f"{split}.tsv")
    return [(summaries[row["query-id"]], *texts[row["corpus-id"]]) for row in judged]


class KeptOut:
    """The contents of the evaluation sets: texts, longer sentences, and titles of SciTLDR's dev and test papers."""

    def __init__(self, data: Path) -> None:
        self._seen: set[str] = set()
        self._titles: set[str] = set()
        for name in _KEPT_OUT_FILES:
            for row in rows(data / name):
                for value in row.values():
                    for text in value if isinstance(value, list) else [str(value)]:
                        self._add(text)
        for name in _KEPT_OUT_SETS:
            for file in ("corpus", "queries"):
                for row in rows(data / "retrieval" / name / f"{file}.jsonl.zst"):
                    self._add(row["text"])
        for split in ("dev", "test"):
            for summary, title, abstract in scitldr_pairs(data / "retrieval" / "scitldr", split):
                self._titles.add(fingerprint(title))
                self._add(summary)
                self._add(abstract)

    def _add(self, text: str) -> None:
        if len(text.split()) >= 4:
            self._seen.add(fingerprint(text))
        for sentence in sentences(text):
            if len(sentence.split()) >= KEPT_OUT_WORDS:
                self._seen.add(fingerprint(sentence))

    def title(self, title: str) -> bool:
        return fingerprint(title) in self._titles

    def __contains__(self, text: str) -> bool:
        if fingerprint(text) in self._seen:
            return True
        return any(
            fingerprint(sentence) in self._seen
            for sentence in sentences(text)
            if len(sentence.split()) >= KEPT_OUT_WORDS
        )
