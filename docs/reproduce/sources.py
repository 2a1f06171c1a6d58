"""The open data sets, read from their files: rows, sentences, and the texts that nothing may be trained on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

from embedkit.data.formats import format_of, json_rows, open_compressed, separated_rows
from embedkit.errors import RecordError

MAX_LINE_BYTES = 64 * 2**20
MAX_WORDS = 250
_SENTENCE_END = re.compile(r"(?:(?<=[.!?])|(?<=[.!?][\"')\]]))\s+(?=[\"'(\[A-Z0-9])")
_NOT_WORD = re.compile(r"[\W_]+")
# Sets to measure with. A text to train on shares no sentence of at least this many words with them.
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
    """Read the rows of a JSONL or TSV file, compressed or not, with runs of white space made single spaces."""
    form = format_of(path)
    with path.open("rb") as file:
        stream, name = open_compressed(file, path.as_posix()), path.as_posix()
        if form == "jsonl":
            found = json_rows(stream, name, MAX_LINE_BYTES)
        elif form == "tsv":
            found = separated_rows(stream, name, MAX_LINE_BYTES, form)
        else:
            raise RecordError(f"{name}: neither .jsonl nor .tsv; the data sets here are one or the other")
        for _, row in found:
            yield dict(row)


def one_line(text: str) -> str:
    return " ".join(text.split())


def sentences(text: str) -> list[str]:
    """Cut a text into sentences, roughly: after . ! or ?, before a capital or a digit."""
    return [part for line in text.split("\n") for part in _SENTENCE_END.split(line) if part.strip()]


def fingerprint(text: str) -> str:
    """Return what two spellings of a text share: its letters and digits, lower-cased."""
    return _NOT_WORD.sub("", text.casefold())


def cut(text: str, words: int = MAX_WORDS) -> str:
    return " ".join(text.split()[:words])


def piece(parts: Sequence[str], rng: Random) -> str:
    """Join neighbouring sentences from a random one on, to a length between 12 and 250 words, short ones more often."""
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
    """What the evaluation sets hold: their texts, their longer sentences, and the titles of SciTLDR's papers to test with."""

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
