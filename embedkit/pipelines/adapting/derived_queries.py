"""Queries for passages that no model writes: a passage's own title, headings, first sentence, or a sentence cropped out of it.

What becomes the query is taken out of the passage, which else would be found by its words alone. Each kind has its own habits: titles and
headings are short and name things, sentences are long and say them.

Sources: the inverse cloze task, Lee et al. 2019, https://arxiv.org/abs/1906.00300, section 4, which leaves the sentence in place one time
in ten; titles and first sentences as queries, Chang et al. 2020, https://arxiv.org/abs/2002.03932, section 3.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from embedkit.data.markdown import read_sections
from embedkit.data.records import Document, titled_text
from embedkit.errors import RecordError
from embedkit.training.pretraining.corpus import sentences_of

Kind = Literal["title", "heading", "first sentence", "crop"]
KINDS: tuple[Kind, ...] = get_args(Kind)
LEAST_PASSAGE_WORDS = 8  # with fewer there is hardly anything to be found
SENTENCE_WORDS = range(4, 41)  # shorter ones are fragments, longer ones mostly lists and tables
LEFT_IN_PLACE = 0.1  # Lee et al. 2019: else a model would never learn that the query's own words are a sign


@dataclass(frozen=True, slots=True)
class DerivedQuery:
    """A query, and the passage that answers it; `doc_id` is of the document that both come from."""

    query: str
    passage: str
    kind: Kind
    doc_id: str


@dataclass(frozen=True, kw_only=True)
class DerivedQueries:
    """What was derived of N documents.

    `without` documents gave no query: they are too short, or have neither title nor sentences. `ambiguous` queries were left out: several
    documents have them ("Introduction"), so that they name none. `repeated` ones came twice for a document.
    """

    queries: Sequence[DerivedQuery]
    documents: int
    without: int
    ambiguous: int
    repeated: int

    @property
    def counts(self) -> Mapping[Kind, int]:
        found = Counter(each.kind for each in self.queries)
        return {kind: found[kind] for kind in KINDS}


def derive_queries(
    documents: Iterable[Document], *, kinds: Sequence[Kind] = KINDS, seed: int = 0
) -> DerivedQueries:
    """Derive queries of some kinds; what is cropped depends on the seed, the document's id and its text alone.

    Raises:
        RecordError: there is no document.
    """
    found: list[DerivedQuery] = []
    owners: dict[str, set[str]] = defaultdict(set)  # of a query, whatever its case
    count = without = repeated = 0
    for document in documents:
        count += 1
        seen: set[str] = set()
        for each in _of_document(document, kinds, seed):
            if _key(each.query) in seen:
                repeated += 1
                continue
            seen.add(_key(each.query))
            owners[_key(each.query)].add(document.doc_id)
            found.append(each)
        without += not seen
    if not count:
        raise RecordError("there is no document to derive queries of; give at least one")
    clear = [each for each in found if len(owners[_key(each.query)]) == 1]
    return DerivedQueries(
        queries=clear,
        documents=count,
        without=without,
        ambiguous=len(found) - len(clear),
        repeated=repeated,
    )


def _key(query: str) -> str:
    return " ".join(query.casefold().split())


def _of_document(document: Document, kinds: Sequence[Kind], seed: int) -> Iterator[DerivedQuery]:
    for kind in kinds:
        for query, passage in _WAYS[kind](document, seed):
            query = " ".join(query.split())
            if any(sign.isalnum() for sign in query) and len(passage.split()) >= LEAST_PASSAGE_WORDS:
                yield DerivedQuery(query, passage, kind, document.doc_id)


def by_title(document: Document, seed: int = 0) -> Iterator[tuple[str, str]]:
    """Give the title, and the text without it, if it stands above or before the text; "Rome is a city" keeps its first word."""
    title, text = document.title.strip(), document.text.strip()
    above = re.match(rf"#*\s*{re.escape(title)}\s*#*(?:\n|[.:;|–—]\s)", text, re.IGNORECASE)
    yield title, text[above.end() :].strip() if title and above else text


def by_heading(document: Document, seed: int = 0) -> Iterator[tuple[str, str]]:
    """Give each heading of a Markdown text but the title, and what stands under it."""
    for heading, under in read_sections(document.text):
        if _key(heading) != _key(document.title):
            yield heading, under


def by_first_sentence(document: Document, seed: int = 0) -> Iterator[tuple[str, str]]:
    """Give the first sentence, and the rest under the title."""
    sentences = sentences_of(document.text)
    if sentences and _is_query(sentences[0]):
        yield sentences[0], titled_text(document.title, "".join(sentences[1:]).strip())


def by_cropping(document: Document, seed: int = 0) -> Iterator[tuple[str, str]]:
    """Give a sentence drawn at random, and the text around it under the title, one time in ten with the sentence."""
    sentences = sentences_of(document.text)
    places = [place for place, sentence in enumerate(sentences) if _is_query(sentence)]
    if not places:
        return
    name = f"{seed}\0{document.doc_id}\0{document.text}"
    rng = random.Random(hashlib.blake2b(name.encode(), digest_size=8).digest())
    place = rng.choice(places)
    left = sentences if rng.random() < LEFT_IN_PLACE else sentences[:place] + sentences[place + 1 :]
    yield sentences[place], titled_text(document.title, "".join(left).strip())


def _is_query(sentence: str) -> bool:
    return len(sentence.split()) in SENTENCE_WORDS and not sentence.lstrip().startswith("#")


_WAYS: Mapping[Kind, Callable[[Document, int], Iterator[tuple[str, str]]]] = {
    "title": by_title,
    "heading": by_heading,
    "first sentence": by_first_sentence,
    "crop": by_cropping,
}
